"""Grade submissions of the assignment: each function and class against an oracle, known mistakes by their name.

    python tests/grade.py alice bob.zip carol.ipynb --jobs 2 --csv grades.csv
    python tests/grade.py submission --gradescope results/results.json

Each submission is imported and called in a process of its own, grade_child.py; grade_checks.py compares here.
"""

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from grade_checks import CHECKS, Wrong
from grade_child import SOURCES, receive, send

POINTS = {  # by problem; the points of an item are split evenly over its checks; the starter hands out what has 0
    1: {
        "log_likelihood_bernoulli": 1,
        "log_likelihood_normal": 1,
        "log_mean_exp": 1,
        "kl_gaussian_gaussian_analytic": 1,
        "kl_gaussian_gaussian_mc": 1,
    },
    2: {"vf_wasserstein_distance": 1, "lp_reg": 1, "Generator": 0, "Critic": 0},
    3: {"SimSiam": 1, "SimSiam.loss": 1, "CosineSimilarity": 1},
}
KNOWN_MISTAKE = 0.5  # share of an item that a known mistake costs at most, where it explains every check that failed
NUMBERS = {name: f"{problem}.{i}" for problem, names in POINTS.items() for i, name in enumerate(names, 1)}
FILES = {  # where definitions are looked for first: the starter's names, then this repository's
    1: ["q1_solution.py", "q1_vae.py"],
    2: ["q2_solution.py", "q2_model.py", "q2_sampler.py", "q2_gan.py"],
    3: ["q3_solution.py", "q3_simsiam.py"],
}
START_SECONDS = 120  # to import torch
# seconds of processor time, or without using any: to read the files, to import one, to answer a call
LIMITS = {"find": 30, "load": 30, "call": 10}
PATIENCE = 4  # times these seconds pass by the clock before a busy machine's child is ended
MOST_DEFINITIONS = 20  # of one name, of which the best counts
MOST_CHARACTERS = 200  # of what a submission says
MOST_BYTES = 1 << 28  # of a file, which is read at once
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z")  # the last two to be named
SETTINGS = (".json", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".txt", ".csv")  # that a script may read
NOT_FOUND, UNREAD = "not found", "cannot be read"
NEEDED = r"\b(Name|Import|ModuleNotFound|FileNotFound)Error\b"  # of what a submission needs and lacks
HUMAN = 0.25  # share of all points lost to packaging from which on a person should look

stopping = threading.Event()  # after Ctrl-C
running = set()  # children


class Accident(Exception):
    """What costs a whole item: no answer in time, or none at all."""


class Child:
    """A process with one submission's functions, started when it is needed and anew after an accident."""

    def __init__(self, folder: Path, seconds: float, submission: Path | None = None):
        self.folder, self.seconds, self.submission, self.notes = folder, seconds, submission, []
        self.process, self.requests, self.deadline = None, 0, time.monotonic() + seconds

    def start(self) -> None:
        if self.submission and self.requests:  # the process before may have changed or deleted its files
            shutil.rmtree(self.folder, ignore_errors=True)
            copy_sources(self.submission, self.folder, [])
        command = [sys.executable, str(Path(__file__).with_name("grade_child.py")), str(self.folder)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
        environment["PYTORCH_JIT"] = "0"  # torch.jit.script looks for the source in a file
        environment["GRADED"] = str(self.folder)  # by which its processes are known
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True, **pipes)
        running.add(self)

    def kill(self) -> None:
        """End the child and whatever it started: in its session and, on Linux, in any other."""
        with contextlib.suppress(OSError, AttributeError):  # Windows has no sessions
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it is another user's, or has ended
                if f"GRADED={self.folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)

    def stop(self) -> None:
        if self.process:
            running.discard(self)
            self.kill()
            self.process.communicate()
            self.process = None

    def ask(self, do: str, **request) -> dict:
        """Return the child's reply; Wrong for an error in the submission, Accident where there is no answer."""
        too_late = f"not finished in the {self.seconds:g} s of the whole submission"
        if time.monotonic() > self.deadline:
            raise Accident(too_late)
        seconds = PATIENCE * LIMITS[do]
        if self.process is None:
            self.start()
            seconds += START_SECONDS
        end = min(time.monotonic() + seconds, self.deadline)
        timer = threading.Timer(end - time.monotonic(), self.kill)
        timer.start()
        reply = {}
        self.requests += 1
        with contextlib.suppress(Exception):  # the child has gone, or what it wrote is no message
            send(self.process.stdin, request | {"do": do, "seconds": LIMITS[do], "request": self.requests})
            reply = receive(self.process.stdout)
        timer.cancel()
        timer.join()
        if stopping.is_set():
            raise SystemExit
        accident = reply.get("accident")
        if time.monotonic() >= end:
            accident = too_late if end == self.deadline else f"no answer in {seconds:g} s"
        elif not reply:
            accident = self.last_words(do)
        elif reply.get("request") != self.requests:
            accident = "an answer that was not asked for"
        if accident:
            self.stop()
            raise Accident(one_line(accident))
        self.notes += [note for note in map(one_line, reply["notes"]) if note not in self.notes]
        if "error" in reply:
            raise Wrong(one_line(reply["error"]))
        return reply

    def last_words(self, do: str) -> str:
        """How a child ended that did not answer; SystemExit where nothing of the submission was executed."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "what it answered cannot be read"
        if -code == getattr(signal, "SIGXCPU", None):
            return "used up its processor time: an endless loop?"
        if code < 0:
            return f"crashed: {signal.Signals(-code).name}"
        if do == "find":
            raise SystemExit("grade.py: the child process did not start; does python -c 'import torch' work?")
        return f"ended the process, exit status {code}: sys.exit or os._exit?"

    def call(self, args: list, **request) -> dict:
        """Call the definition, or with `init` a method of an object."""
        return self.ask("call", args=args, **request)


def one_line(text: str) -> str:
    return " ".join(text.split())[:MOST_CHARACTERS]


# --- Grading ----------------------------------------------------------------------------------------------------------


def grade_item(child: Child, problem: int, name: str) -> dict:
    """The result of one item, by the best of its definitions."""
    results = []
    try:
        found = child.ask("find", name=name.split(".")[0], preferred=FILES[problem])["found"]
        for where in found[:MOST_DEFINITIONS]:
            results.append(grade_definition(child, name, *where))
            if results[-1]["share"] == 1:
                break
        else:
            if len(found) > MOST_DEFINITIONS:
                child.notes.append(f"{name} has {len(found)} definitions: only {MOST_DEFINITIONS} were graded")
    except Exception as error:  # in whatever state the submission leaves its process and folder
        results.append(lost(name, str(error)))
    return max(results or [lost(name, NOT_FOUND)], key=itemgetter("share"))


def grade_definition(child: Child, name: str, file: str, number: int | None, given: Iterable[str] = ()) -> dict:
    """The result of an item by one definition, with the `given` ones of torch.nn for the submission's."""
    failures = {}
    try:
        loaded = child.ask("load", name=name.split(".")[0], file=file, number=number, given=given)
        if not loaded["found"]:
            raise Accident(": ".join([NOT_FOUND, *loaded["reasons"][:1]]))
        for title, check in CHECKS[name].items():
            try:
                check(child.call)
            except Wrong as wrong:
                failures[title] = wrong
            except (TypeError, ValueError, RuntimeError, LookupError) as error:  # of a result that no check expects
                failures[title] = Wrong(f"what it returns cannot be compared: {error}")
        lacking = [wrong.seen for wrong in failures.values() if re.search(NEEDED, wrong.seen)]
        result = item_result(name, failures, "; ".join(loaded["reasons"] or lacking[:1]))
    except Exception as error:
        result = lost(name, str(error))
    if name == "SimSiam.loss" and not given and result["share"] < 1:  # right, perhaps, but for the similarity
        again = grade_definition(child, name, file, number, ["CosineSimilarity"])
        result = max(result, again, key=itemgetter("share"))
    return result


def lost(name: str, reason: str) -> dict:
    """The result of an item where no check can be made."""
    return item_result(name, dict.fromkeys(CHECKS[name], Wrong(reason)), reason)


def item_result(name: str, failures: dict[str, Wrong], packaging: str) -> dict:
    """What --json writes of an item: points, checks, and what of the packaging may have cost them."""
    share = 1 - sum(1 - wrong.share for wrong in failures.values()) / len(CHECKS[name])
    notes = {title: wrong.note() for title, wrong in failures.items()}
    if failures:
        first, *others = failures
        mistakes = failures[first].mistakes
        common = [mistake for mistake in mistakes if all(mistake in failures[title].mistakes for title in others)]
        if common:
            share = max(share, 1 - KNOWN_MISTAKE)
            notes = dict.fromkeys(failures, "the same mistake")
            notes[first] = failures[first].note(common[0])
    rows = [{"name": title, "passed": title not in failures, "note": notes.get(title, "")} for title in CHECKS[name]]
    problem = next(problem for problem, names in POINTS.items() if name in names)
    possible = POINTS[problem][name]
    result = {"problem": problem, "name": name, "points": round(possible * share, 4), "possible": possible}
    return result | {"share": share, "checks": rows, "packaging": packaging if failures else ""}


def copy_sources(submission: Path, folder: Path, notes: list[str]) -> None:
    """Copy what is to be read of a submission, a folder, a file or an archive; note what cannot be."""
    if os.path.isfile(submission):
        if not is_read(Path(submission.name)):
            notes.append(f"{submission.name} {UNREAD}: neither a folder nor a .py or .ipynb file nor an archive")
        copy(Path(submission.name), partial(submission.open, "rb"), folder, notes)
        return
    for parent, _, names in os.walk(submission, onerror=lambda error: notes.append(f"{UNREAD}: {error}")):
        for path in (Path(parent, name) for name in names):
            if os.path.isfile(path):  # and no pipe
                copy(path.relative_to(submission), partial(path.open, "rb"), folder, notes)


def copy(path: Path, open_file: Callable[[], BinaryIO], folder: Path, notes: list[str]) -> None:
    """Copy a file, of an archive what is in it, to its path within a folder."""
    path = Path(re.sub(r"\.(py|ipynb)\.txt$", r".\1", str(path), flags=re.IGNORECASE))
    if not is_read(path):
        return
    try:
        if sum(Path(part).suffix.lower() in ARCHIVES for part in path.parts) > 4:  # one may contain itself
            raise ValueError("too many archives within each other")
        with open_file() as file:
            if path.suffix.lower() in ARCHIVES:
                for name, open_member in members(file):
                    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", "..")]
                    copy(path.joinpath(*parts), open_member, folder, notes)
                return
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MB")
        target = (folder / path).with_suffix(path.suffix.lower())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    except Exception as error:  # damaged, encrypted, unreadable: there are many kinds
        notes.append(f"{path} {UNREAD}: {one_line(str(error))}")


def members(file: BinaryIO) -> Iterator[tuple[str, Callable[[], BinaryIO]]]:
    """The names of the files in an archive, whatever it is called, with functions that open them."""
    if zipfile.is_zipfile(file):
        archive = zipfile.ZipFile(file)
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, partial(archive.open, info)
        return
    file.seek(0)
    try:
        archive = tarfile.open(fileobj=file)  # noqa: SIM115, closed with the file
    except tarfile.ReadError:
        raise ValueError("neither a .zip nor a .tar file") from None
    for info in archive:
        if info.isfile():
            yield info.name, partial(archive.extractfile, info)


def is_read(path: Path) -> bool:
    """Whether a path within a submission is to be read; hidden folders and installed packages are not."""
    packages = {"site-packages", "__MACOSX", "__pycache__"} & set(path.parts)
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in (*SOURCES, *ARCHIVES, *SETTINGS) and not packages and not hidden


def grade(submission: Path, seconds: float) -> dict:
    """Grade one submission, in at most so many seconds; the result is what --json writes of it."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        child = Child(Path(scratch).resolve() / "submission", seconds, submission)
        try:
            copy_sources(submission, child.folder, child.notes)
            if any(path.suffix in SOURCES and path.is_file() for path in child.folder.rglob("*")):
                items = [grade_item(child, problem, name) for problem, names in POINTS.items() for name in names]
            else:
                files = sorted(file for *_, files in os.walk(submission) for file in files if not is_read(Path(file)))
                note = "no .py or .ipynb file"
                child.notes.append(f"{', '.join(files[:5])} {UNREAD}: {note}" if files else note)
                items = [lost(name, NOT_FOUND) for name in NUMBERS]
        except Exception as error:  # of the grader: it ends no batch
            items = [lost(name, f"not graded: {error!r}") for name in NUMBERS]
        finally:
            child.stop()
    points, possible = (round(sum(item[key] for item in items), 4) for key in ("points", "possible"))
    return {
        "path": label(submission),
        "points": points,
        "possible": possible,
        "seconds": round(time.perf_counter() - start, 1),
        "needs_human": "; ".join(reasons(items, child.notes)),
        "items": items,
        "notes": child.notes,
    }


def reasons(items: list[dict], notes: list[str]) -> list[str]:
    """Why a person should look at a submission; not where a problem was left out of what could be read."""
    unread = [note for note in notes if UNREAD in note]
    wanting = [item for item in items if item["packaging"]]
    if not unread and any(item["packaging"] != NOT_FOUND for item in items if item["possible"]):
        wanting = [item for item in wanting if item["packaging"] != NOT_FOUND]
    missed = sum(item["possible"] - item["points"] for item in wanting)
    if missed < HUMAN * sum(item["possible"] for item in items):
        return []
    return list(dict.fromkeys([*unread, *(item["packaging"] for item in wanting)]))


# --- Output -----------------------------------------------------------------------------------------------------------


def printable(lines: list[str]) -> str:
    """Lines of text, without what would move a terminal's cursor."""
    return "\n".join("".join(c if c.isprintable() else " " for c in line).rstrip() for line in lines)


def label(path: Path) -> str:
    """A path as --csv writes it, whatever bytes are in it."""
    return str(path).encode(errors="backslashreplace").decode()


def first_note(item: dict) -> str:
    return next((check["note"] for check in item["checks"] if check["note"]), "")


def block(result: dict) -> str:
    lines = [f"{result['path']:<46} {result['points']:>5.4g} / {result['possible']}   {result['seconds']:.0f} s"]
    for item in result["items"]:
        name = f"{NUMBERS[item['name']]} {item['name']}"
        lines.append(f"  {name:<36} {item['points']:>5.4g} / {item['possible']}   {first_note(item)}")
    return printable([*lines, *(f"  note: {note}" for note in result["notes"])])


def feedback(result: dict) -> str:
    lines = [f"{result['points']:g} of {result['possible']} points", ""]
    for item in result["items"]:
        points = f"{item['points']:g} of {item['possible']}" if item["possible"] else "handed out, without points"
        lines.append(f"{NUMBERS[item['name']]} {item['name']}: {points}")
        failed = [check for check in item["checks"] if not check["passed"]]
        if len({check["note"] for check in failed}) == 1 < len(failed):  # an accident, or not found
            failed = [{"name": "all checks", "note": failed[0]["note"]}]
        lines += [f"    {check['name']}: {check['note']}" for check in failed]
    return printable([*lines, "", *(f"Note: {note}" for note in result["notes"])]).rstrip() + "\n"


def header() -> list[str]:
    items = [f"{number} {name}" for name, number in NUMBERS.items()]
    return ["submission", *items, "total", "needs a human", "notes"]


def row(result: dict) -> list[str]:
    points = [f"{item['points']:g}" for item in result["items"]]
    return [result["path"], *points, f"{result['points']:g}", result["needs_human"], "; ".join(result["notes"])]


def write_rows(path: Path, rows: Iterable[list[str]], mode: str) -> None:
    with path.open(mode, newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows(rows)


def read_rows(path: Path) -> dict[str, list[str]]:
    """The complete rows of an earlier --csv by submission; ValueError for a file that is something else."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        first, *rows = [*csv.reader(file)] or [header()]
    if first != header():
        raise ValueError
    return {row[0]: row for row in rows if len(row) == len(first)}


def text_names(paths: list[Path]) -> dict[Path, str]:
    """Names for the students' texts: the submissions', with the folders in which they differ."""
    common = os.path.commonpath([path.resolve().parent for path in paths])
    return {path: path.resolve().relative_to(common).as_posix().replace("/", "_") + ".txt" for path in paths}


def gradescope(result: dict) -> dict:
    tests = [
        {
            "name": item["name"],
            "number": NUMBERS[item["name"]],
            "score": item["points"],
            "max_score": item["possible"],
            "status": "passed" if all(check["passed"] for check in item["checks"]) else "failed",
            "output": "\n".join(f"{c['name']}: {'passed' if c['passed'] else c['note']}" for c in item["checks"]),
        }
        for item in result["items"]
    ]
    return {"score": result["points"], "execution_time": result["seconds"], "output": block(result), "tests": tests}


def attempt(write: Callable, *args) -> None:
    """Write something; what cannot be written is told, and ends nothing."""
    try:
        write(*args)
    except OSError as error:
        print(f"grade.py: {error}", file=sys.stderr)


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: parser.exit(2, f"grade.py: {message}\n")
    add = parser.add_argument
    add("submissions", nargs="+", type=Path, metavar="SUBMISSION", help="a folder, a .py or .ipynb file, or an archive")
    add("--csv", type=Path, metavar="FILE", help="write a row for each submission as it is graded; go on with the file")
    add("--json", type=Path, metavar="FILE", help="write the points and notes of each check, of this run")
    add("--feedback", type=Path, metavar="DIR", help="write a text for each student")
    add("--gradescope", type=Path, metavar="FILE", help="write Gradescope's results.json; for one submission")
    add("--jobs", type=int, default=1, metavar="N", help="submissions graded at a time; default 1")
    add("--timeout", type=float, default=300, metavar="S", help="seconds for one submission; default 300")
    args = parser.parse_args(argv)
    for path in args.submissions:
        if not os.path.lexists(path):
            parser.error(f"{path} does not exist")
    if args.gradescope and len(args.submissions) > 1:
        parser.error("--gradescope takes one submission")
    if args.jobs < 1 or not args.timeout > 0:
        parser.error("--jobs and --timeout must be positive")
    for path in filter(None, (args.csv, args.json, args.gradescope, args.feedback)):
        try:
            if path == args.feedback:
                path.mkdir(exist_ok=True)
            else:
                path.open("a").close()
        except OSError:
            parser.error(f"{path} cannot be written: give a path in a folder that exists")
    try:
        args.rows = read_rows(args.csv) if args.csv else {}
    except (OSError, ValueError, csv.Error):
        parser.error(f"{args.csv} is not a file of an earlier run with the same items: move it away")
    return args


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)
    warnings.simplefilter("ignore")  # of torch, about what a submission returns
    rows, results, writing, names = args.rows, {}, threading.Lock(), text_names(args.submissions)

    def is_left(path: Path) -> bool:
        has_text = not args.feedback or (args.feedback / names[path]).exists()
        return label(path) not in rows or not has_text or bool(args.gradescope)

    def finish(path: Path) -> None:
        result = grade(path, args.timeout)
        with writing:
            results[label(path)], rows[label(path)] = result, row(result)
            attempt(print, block(result) + "\n")
            if args.csv:
                attempt(write_rows, args.csv, [row(result)], "a")
            if args.feedback:
                text = feedback(result).encode(errors="backslashreplace")
                attempt((args.feedback / names[path]).write_bytes, text)

    left = [path for path in args.submissions if is_left(path)]
    if len(left) < len(args.submissions):
        print(f"{len(args.submissions) - len(left)} of them in {args.csv} already", end="\n\n")
    if args.csv:  # without the piece of a row that a crash leaves
        write_rows(args.csv, [header(), *rows.values()], "w")
    pool = ThreadPoolExecutor(args.jobs)
    try:
        for future in [pool.submit(finish, path) for path in left]:
            future.result()
    except KeyboardInterrupt:
        stopping.set()
        for child in list(running):
            child.kill()
        print("grade.py: stopped; what was graded is written", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        pool.shutdown(cancel_futures=True)
        order = [path for path in dict.fromkeys([*map(label, args.submissions), *rows]) if path in rows]
        if args.csv:
            attempt(write_rows, args.csv, [header(), *(rows[path] for path in order)], "w")
        if args.json:
            graded = {"submissions": [results[path] for path in order if path in results]}
            attempt(args.json.write_text, json.dumps(graded, indent=1) + "\n")
    if args.gradescope:
        result = gradescope(results[label(args.submissions[0])])
        attempt(args.gradescope.write_text, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
