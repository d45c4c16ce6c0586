"""Grade submissions of the assignment: each function and class against an oracle, known mistakes by their name.

    python tests/grade.py submissions --jobs 2 --csv grades.csv
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
import textwrap
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from pathlib import Path, PurePath
from typing import BinaryIO

from grade_checks import CHECKS, Wrong, constant
from grade_child import SOURCES, receive, send

POINTS = {  # by problem; the points of an item are split evenly over its checks
    1: {"log_likelihood_bernoulli": 1, "log_likelihood_normal": 1, "log_mean_exp": 1}
    | {"kl_gaussian_gaussian_analytic": 1, "kl_gaussian_gaussian_mc": 1},
    2: {"vf_wasserstein_distance": 1, "lp_reg": 1},
    3: {"SimSiam": 1, "SimSiam.loss": 1, "CosineSimilarity": 1},
}
ITEMS = {name: points for names in POINTS.values() for name, points in names.items()}
KNOWN_MISTAKE = 0.5  # share of an item that a known mistake costs at most, where it explains every check that failed
NUMBERS = {name: f"{problem}.{i}" for problem, names in POINTS.items() for i, name in enumerate(names, 1)}
START_SECONDS = 120  # to import torch
LIMITS = {"find": 30, "load": 30, "call": 10}  # seconds, of processor time or idle: to read all, import one, answer
PATIENCE = 4  # times these seconds pass by the clock before a busy machine's child is ended
MOST_DEFINITIONS = 20  # of one name, of which the best counts
one_line = partial(textwrap.shorten, width=200, placeholder=" …")  # of what a submission says
MOST_BYTES = 1 << 28  # of a file, which is read at once
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z")  # the last two to be named
SETTINGS = (".json", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".txt", ".csv")  # that a script may read
INSTALLED = ("site-packages", "__MACOSX", "__pycache__")  # folders of what no student wrote
NOT_FOUND, UNREAD = "not found", "cannot be read"
FOUND = f"{NOT_FOUND}: found "  # what cannot be taken, or has another name
NO_SUBMISSION = r"(?i)(?<![a-z])(old|backup|copy|starter|template)(?![a-z])"  # a folder of this name beside others
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
        self.answers = []  # of the definition that is called

    def start(self) -> None:
        if self.submission and self.requests:  # the process before may have changed or deleted its files
            shutil.rmtree(self.folder, ignore_errors=True)
            copy_sources(self.submission, self.folder, [])
        command = [sys.executable, str(Path(__file__).with_name("grade_child.py")), str(self.folder)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
        # its processes are known by GRADED, TMPDIR goes with it, and torch.jit.script looks for the source in a file
        environment |= {"GRADED": str(self.folder), "TMPDIR": str(self.folder.parent), "PYTORCH_JIT": "0"}
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
        reply = self.ask("call", args=args, **request)
        if reply["value"] is None:
            printed = f", prints: {reply['printed']}" if reply["printed"] else ""
            raise Wrong(one_line(f"returns nothing{printed}"))
        self.answers.append(reply["value"])
        return reply


def grade_item(child: Child, name: str) -> dict:
    """The result of one item, by the best of its definitions."""
    results = []
    try:
        reply = child.ask("find", name=name.split(".")[0])
        found, hint = reply["found"], reply["hint"]
        for where in found[:MOST_DEFINITIONS]:
            results.append(grade_definition(child, name, where))
            if results[-1]["share"] == 1:
                return results[-1]
        if len(found) > MOST_DEFINITIONS:
            child.notes.append(f"{name} has {len(found)} definitions: only {MOST_DEFINITIONS} were graded")
        if hint and not any(result["share"] for result in results):
            results.append(lost(name, FOUND + hint))
            child.notes.append(f"{name} {FOUND}{hint}")
    except Exception as error:  # in whatever state the submission leaves its process and folder
        results.append(lost(name, str(error)))
    return max(results or [lost(name, NOT_FOUND)], key=itemgetter("share"))


def grade_definition(child: Child, name: str, where: dict, given: Iterable[str] = ()) -> dict:
    """The result of an item by one definition, with the `given` ones of torch.nn for the submission's."""
    failures, child.answers = {}, []
    try:
        loaded = child.ask("load", name=name.split(".")[0], given=given, **where)
        if not loaded["found"]:
            raise Accident(one_line(": ".join([NOT_FOUND, *loaded["reasons"][:1]])))
        for title, check in CHECKS[name].items():
            try:
                check(child.call)
            except Wrong as wrong:
                failures[title] = wrong
            except (TypeError, ValueError, RuntimeError, LookupError) as error:  # of a result that no check expects
                failures[title] = Wrong(f"what it returns cannot be compared: {error}")
        if constant(child.answers) and not common_mistakes(failures):
            for wrong in failures.values():
                if not re.search(r"Error\b|returns nothing", wrong.seen):
                    wrong.seen, wrong.mistakes = f"{constant(child.answers)}: {wrong.seen}", []
        lacking = [wrong.seen for wrong in failures.values() if re.search(NEEDED, wrong.seen)]
        result = item_result(name, failures, "; ".join(loaded["reasons"] or lacking[:1]))
    except Exception as error:
        result = lost(name, str(error))
    result["file"] = os.path.relpath(where["file"], child.folder)
    if name == "SimSiam.loss" and not given and result["share"] < 1:  # right, perhaps, but for the similarity
        result = max(result, grade_definition(child, name, where, ["CosineSimilarity"]), key=itemgetter("share"))
    return result


def lost(name: str, reason: str) -> dict:
    """The result of an item where no check can be made."""
    return item_result(name, dict.fromkeys(CHECKS[name], Wrong(reason)), reason)


def common_mistakes(failures: dict[str, Wrong]) -> list[str]:
    """The known mistakes that explain every check that failed."""
    first = next(iter(failures.values()), Wrong(""))
    return [mistake for mistake in first.mistakes if all(mistake in wrong.mistakes for wrong in failures.values())]


def item_result(name: str, failures: dict[str, Wrong], packaging: str) -> dict:
    """What --json writes of an item: points, checks, and what of the packaging may have cost them."""
    share = 1 - sum(1 - wrong.share for wrong in failures.values()) / len(CHECKS[name])
    notes = {title: wrong.note() for title, wrong in failures.items()}
    common = common_mistakes(failures)
    named = [title for title, wrong in failures.items() if wrong.named]
    if common and named:
        share = max(share, 1 - KNOWN_MISTAKE)
        notes = dict.fromkeys(failures, "the same mistake")
        notes[named[0]] = failures[named[0]].note(common[0])
    rows = [{"name": title, "passed": title not in failures, "note": notes.get(title, "")} for title in CHECKS[name]]
    problem, points = int(NUMBERS[name][0]), round(ITEMS[name] * share, 4)
    result = {"problem": problem, "name": name, "points": points, "possible": ITEMS[name], "share": share}
    return result | {"checks": rows, "packaging": packaging if failures else ""}


def contents(top: Path, notes: list[str]) -> Iterator[tuple[Path, Callable | None]]:
    """The paths in a folder, in an archive or in a folder of one, or a file's own name, each with what opens a file."""
    file = next(filter(os.path.isfile, (top, *top.parents)), None)
    if file and file.suffix.lower() in ARCHIVES:
        with file.open("rb") as archive:
            for path, open_member in members(archive):
                if top in (file / path).parents:
                    yield (file / path).relative_to(top), open_member
                elif top == file / path and open_member:  # an archive within it
                    yield Path(top.name), open_member
    elif file:
        yield Path(file.name), partial(file.open, "rb")
    else:
        for parent, folders, files in os.walk(top, onerror=lambda error: notes.append(f"{UNREAD}: {error}")):
            for path in (Path(parent, name) for name in (*folders, *files)):
                yield path.relative_to(top), partial(path.open, "rb") if os.path.isfile(path) else None  # or a pipe


def copy_sources(submission: Path, folder: Path, notes: list[str]) -> list[str]:
    """Copy what is to be read of a submission; note what cannot be, and return the names of what is not to be."""
    others = []
    try:
        for path, open_file in contents(submission, notes):
            if open_file and is_read(path):
                copy(path, open_file, folder, notes)
            elif open_file:
                others.append(path.name)
    except Exception as error:  # damaged, encrypted, unreadable: there are many kinds
        notes.append(f"{submission.name} {UNREAD}: {one_line(str(error))}")
    return sorted(others)


def copy(path: Path, open_file: Callable[[], BinaryIO], folder: Path, notes: list[str]) -> None:
    """Copy a file, of an archive what is in it, to its path within a folder."""
    try:
        if sum(Path(part).suffix.lower() in ARCHIVES for part in path.parts) > 4:  # one may contain itself
            raise ValueError("too many archives within each other")
        with open_file() as file:
            if path.suffix.lower() in ARCHIVES:
                for name, open_member in members(file):
                    if open_member and is_read(path / name):
                        copy(path / name, open_member, folder, notes)
                return
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MB")
        path = Path(re.sub(r"\.(py|ipynb)\.txt$", r".\1", str(path), flags=re.IGNORECASE))
        target = (folder / path).with_suffix(path.suffix.lower())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    except Exception as error:  # as above
        notes.append(f"{path} {UNREAD}: {one_line(str(error))}")


def members(file: BinaryIO) -> Iterator[tuple[Path, Callable[[], BinaryIO] | None]]:
    """The paths in an archive, whatever it is called, with functions that open the files among them."""
    if zipfile.is_zipfile(file):
        archive = zipfile.ZipFile(file)
        found = ((i.filename, None if i.is_dir() else partial(archive.open, i)) for i in archive.infolist())
    else:
        file.seek(0)
        try:
            archive = tarfile.open(fileobj=file)  # noqa: SIM115, closed with the file
        except tarfile.ReadError:
            raise ValueError("neither a .zip nor a .tar file") from None
        found = ((i.name, partial(archive.extractfile, i) if i.isfile() else None) for i in archive)
    for name, open_member in found:
        yield Path(*(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))), open_member


def is_read(path: Path) -> bool:
    """Whether a path within a submission is to be read; hidden folders and installed packages are not."""
    left_out = [part for part in path.parts if part.startswith(".") or part in INSTALLED]
    return path.suffix.lower() in (*SOURCES, *ARCHIVES, *SETTINGS) and not left_out


def split(given: Path) -> tuple[list[Path], str]:
    """The submissions in what was given, several where folders or archives at its top define the same item, and why."""
    top, below = given, {given: True}  # what lies at the top, and whether it is a folder or an archive
    try:
        while len(below) == 1 and all(below.values()):
            (top,), below = below, {}
            for path, open_file in contents(top, []):
                several = len(path.parts) > 1 or open_file is None or path.suffix.lower() in ARCHIVES
                if is_read(Path(path.parts[0], "a.py")):
                    below[top / path.parts[0]] = below.get(top / path.parts[0]) or several
    except Exception:  # what cannot be read is noted when it is graded
        return [given], ""
    first = {}
    for path in sorted(path for path in below if below[path] and not re.search(NO_SUBMISSION, path.name)):
        bare = re.sub(rf"({'|'.join(map(re.escape, ARCHIVES))})+$", "", path.name, flags=re.IGNORECASE)
        for name in defined(path):
            if first.setdefault(name, bare) != bare:  # and not a folder with the archive that it came in
                paths = sorted(path for path in below if below[path] or path.suffix not in (*SETTINGS, ".md"))
                return paths, f"{given}: {len(paths)} submissions, as {first[name]} and {bare} both define {name}"
    return [given], ""


def defined(part: Path) -> list[str]:
    """The items that are defined in a folder or an archive."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        copy_sources(part, Path(scratch), [])
        files = [path for path in Path(scratch).rglob("*") if path.suffix in SOURCES and path.is_file()]
        text = "\n".join(path.read_text("latin-1") for path in files)
    return [name for name in ITEMS if re.search(rf"(\b|\\n)(def|class)\s+{name}\b", text)]


def grade(submission: Path, seconds: float) -> dict:
    """Grade one submission, in at most so many seconds; the result is what --json writes of it."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        child = Child(Path(scratch).resolve() / "submission", seconds, submission)
        try:
            others = copy_sources(submission, child.folder, child.notes)
            if any(path.suffix in SOURCES and path.is_file() for path in child.folder.rglob("*")):
                items = [grade_item(child, name) for name in ITEMS]
            else:
                unread = f"{', '.join(others[:5])} {UNREAD}: " if others else ""
                child.notes.append(f"{unread}no .py or .ipynb file")
                items = [lost(name, NOT_FOUND) for name in ITEMS]
        except Exception as error:  # of the grader: it ends no batch
            items = [lost(name, f"not graded: {error!r}") for name in ITEMS]
        finally:
            child.stop()
    points, possible = (round(sum(item[key] for item in items), 4) for key in ("points", "possible"))
    seconds = round(time.perf_counter() - start, 1)
    result = {"path": submission.name, "points": points, "possible": possible, "seconds": seconds}
    return result | {"needs_human": "; ".join(reasons(items, child.notes)), "items": items, "notes": child.notes}


def reasons(items: list[dict], notes: list[str]) -> list[str]:
    """Why a person should look at a submission; not where a problem was left out of what could be read."""
    unread = [note for note in notes if UNREAD in note]
    certain = [note for note in notes if FOUND in note]
    left_out = NOT_FOUND if not unread and any(item["packaging"] != NOT_FOUND for item in items) else ""
    wanting = [item for item in items if item["packaging"] not in ("", left_out)]
    missed = sum(item["possible"] - item["points"] for item in wanting)
    if missed < HUMAN * sum(item["possible"] for item in items):
        return certain
    packaging = [item["packaging"] for item in wanting if not item["packaging"].startswith(FOUND)]
    return list(dict.fromkeys([*unread, *certain, *packaging]))


def printable(lines: list[str]) -> str:
    """Lines of text, without what would move a terminal's cursor."""
    return "\n".join("".join(c if c.isprintable() else " " for c in line).rstrip() for line in lines)


def first_note(item: dict) -> str:
    return next((check["note"] for check in item["checks"] if check["note"]), "")


def block(result: dict) -> str:
    lines = [f"{result['path']:<46} {result['points']:>5.4g} / {result['possible']}   {result['seconds']:.0f} s"]
    for item in result["items"]:
        name = f"{NUMBERS[item['name']]} {item['name']}"
        lines.append(f"  {name:<36} {item['points']:>5.4g} / {item['possible']}   {first_note(item)}")
    human = [f"  needs a human: {result['needs_human']}"] if result["needs_human"] else []
    return printable([*lines, *(f"  note: {note}" for note in result["notes"]), *human])


def feedback(result: dict) -> str:
    """A student's text: the points, what is wrong, and what was taken from which file."""
    lines, files = [f"{result['points']:g} of {result['possible']} points", ""], {}
    for item in result["items"]:
        if "file" in item:
            files.setdefault(item["file"], []).append(item["name"])
        failed = {}  # the checks of each note
        for check in item["checks"]:
            if not check["passed"]:
                failed.setdefault(check["note"], []).append(check["name"])
        if failed:
            lines.append(f"{NUMBERS[item['name']]} {item['name']}: {item['points']:g} of {item['possible']}")
        for note, checks in failed.items():
            lines.append(f"    {'all checks' if len(item['checks']) == len(checks) > 1 else ', '.join(checks)}: {note}")
    lines += ["", *(f"Taken from {file}: {', '.join(names)}" for file, names in files.items())]
    return printable([*lines, "", *(f"Note: {note}" for note in result["notes"])]).rstrip() + "\n"


def header() -> list[str]:
    return ["submission", *(f"{number} {name}" for name, number in NUMBERS.items()), "total", "needs a human", "notes"]


def write_rows(path: Path, rows: Iterable[list[str]], mode: str) -> None:
    with path.open(mode, newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows(rows)


def read_rows(path: Path) -> dict[str, list[str]]:
    """The complete rows of an earlier --csv by submission; ValueError for a file that is something else."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        first, *rows = [*csv.reader(file)] or [header()]
    if first != header():
        raise ValueError
    return {row[0]: row for row in rows if len(row) == len(first) and [float(cell) for cell in row[1:-2]]}


def short_names(paths: list[PurePath]) -> dict[PurePath, str]:
    """Of absolute paths the part in which they differ, which is all of them on two drives."""
    common = next((folder for folder in paths[0].parents if all(folder in path.parents for path in paths)), PurePath())
    short = {path: (path.relative_to(common) if common.parts else path).as_posix() for path in paths}
    return {path: name.encode(errors="backslashreplace").decode() for path, name in short.items()}  # any bytes


def summary(rows: list[list[str]]) -> str:
    """How many submissions, their mean, the items most often wrong, and who needs a human."""
    wrong = {}
    for column, (name, number) in enumerate(NUMBERS.items(), 1):
        wrong[f"{number} {name}"] = sum(float(row[column]) < ITEMS[name] for row in rows)
    worst = [f"{item} ({wrong[item]})" for item in sorted(wrong, key=wrong.get, reverse=True)[:3] if wrong[item]]
    mean = sum(float(row[-3]) for row in rows) / len(rows)
    lines = [f"{len(rows)} submissions, {mean:.3g} of {sum(ITEMS.values())} points on average"]
    lines += [f"Most often wrong: {', '.join(worst) or 'nothing'}"]
    return printable([*lines, f"Needs a human: {', '.join(row[0] for row in rows if row[-2]) or 'nobody'}"])


def gradescope(result: dict) -> dict:
    tests = []
    for item in result["items"]:
        test = {"name": item["name"], "number": NUMBERS[item["name"]], "score": item["points"]}
        status = "passed" if all(check["passed"] for check in item["checks"]) else "failed"
        output = "\n".join(f"{c['name']}: {'passed' if c['passed'] else c['note']}" for c in item["checks"])
        tests.append(test | {"max_score": item["possible"], "status": status, "output": output})
    return {"score": result["points"], "execution_time": result["seconds"], "output": block(result), "tests": tests}


def attempt(write: Callable, *args) -> None:
    """Write something; what cannot be written is told, and ends nothing."""
    try:
        write(*args)
    except (OSError, ValueError) as error:  # a ValueError of a closed stream
        if write is print:
            sys.stdout = None  # so that nothing is printed any longer
        with contextlib.suppress(OSError, ValueError):
            print(f"grade.py: {error}", file=sys.stderr)


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tell = partial(print, file=sys.stderr)
    parser.error = lambda message: sys.exit(attempt(tell, f"grade.py: {message}") or 2)
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
    try:
        if args.feedback:
            args.feedback.mkdir(exist_ok=True)
        for path in filter(None, (args.csv, args.json, args.gradescope)):
            path.open("a").close()
        args.rows = read_rows(args.csv) if args.csv else {}
    except OSError as error:
        parser.error(f"{error.filename} cannot be written: give a path in a folder that exists")
    except (ValueError, csv.Error):
        parser.error(f"{args.csv} is not a file of an earlier run with the same items: move it away")
    return args


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and not stream.closed:  # a notebook's has none
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    warnings.simplefilter("ignore")  # of torch, about what a submission returns
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        grade_all(args)
    except KeyboardInterrupt:
        attempt(partial(print, file=sys.stderr), "grade.py: stopped; what was graded is written")
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def grade_all(args: argparse.Namespace) -> None:
    paths = {}
    for path in map(Path, map(os.path.abspath, args.submissions)):
        parts, reason = ([path], "") if args.gradescope else split(path)
        paths |= dict.fromkeys(parts)
        if reason:
            attempt(print, reason + "\n")
    names = short_names(list(paths))
    rows, results, writing = args.rows, {}, threading.Lock()
    texts = {path: re.sub(r"[\\/:]", "_", name) + ".txt" for path, name in names.items()}

    def finish(path: Path) -> None:
        result = grade(path, args.timeout) | {"path": names[path]}
        with writing:
            points = [f"{item['points']:g}" for item in (*result["items"], result)]
            results[path] = result
            rows[names[path]] = [names[path], *points, result["needs_human"], "; ".join(result["notes"])]
            if args.csv:
                attempt(write_rows, args.csv, [rows[names[path]]], "a")
            if args.feedback:
                attempt((args.feedback / texts[path]).write_bytes, feedback(result).encode(errors="backslashreplace"))

    lacks_text = {path for path in paths if args.feedback and not (args.feedback / texts[path]).exists()}
    left = [path for path in paths if names[path] not in rows or path in lacks_text or args.gradescope]
    if len(left) < len(paths):
        attempt(print, f"{len(paths) - len(left)} of them in {args.csv} already\n")
    if args.csv:  # without the piece of a row that a crash leaves
        write_rows(args.csv, [header(), *rows.values()], "w")
    pool = ThreadPoolExecutor(args.jobs)
    try:
        for path, future in {path: pool.submit(finish, path) for path in left}.items():
            future.result()
            attempt(print, block(results[path]) + "\n")
            left = left[1:]
    except KeyboardInterrupt:
        stopping.set()
        for child in list(running):
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        for path in filter(results.get, left):  # what was graded before what was stopped
            attempt(print, block(results[path]) + "\n")
        own = [names[path] for path in paths if names[path] in rows]
        if args.csv:
            attempt(write_rows, args.csv, [header(), *(rows[name] for name in dict.fromkeys([*own, *rows]))], "w")
        if args.json:
            graded = {"submissions": [results[path] for path in paths if path in results]}
            attempt(args.json.write_text, json.dumps(graded, indent=1) + "\n")
    if args.gradescope:
        attempt(args.gradescope.write_text, json.dumps(gradescope(*results.values()), indent=1) + "\n")
    if len(own) > 1:
        attempt(print, summary([rows[name] for name in own]))


if __name__ == "__main__":
    main()
