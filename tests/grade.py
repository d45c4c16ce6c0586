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
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from grade_checks import CHECKS, Wrong
from grade_child import receive, send

POINTS = {  # by problem; the points of an item are split evenly over its checks
    1: {
        "log_likelihood_bernoulli": 1,
        "log_likelihood_normal": 1,
        "log_mean_exp": 1,
        "kl_gaussian_gaussian_analytic": 1,
        "kl_gaussian_gaussian_mc": 1,
    },
    2: {"vf_wasserstein_distance": 1, "lp_reg": 1, "Generator": 1, "Critic": 1},
    3: {"SimSiam": 1, "SimSiam.loss": 1, "CosineSimilarity": 1},
}
NUMBERS = {name: f"{problem}.{i}" for problem, names in POINTS.items() for i, name in enumerate(names, 1)}
FILES = {  # where definitions are looked for first: the starter's names, then this repository's
    1: ["q1_solution.py", "q1_vae.py"],
    2: ["q2_solution.py", "q2_model.py", "q2_sampler.py", "q2_gan.py"],
    3: ["q3_solution.py", "q3_simsiam.py"],
}
START_SECONDS = 120  # to import torch
LIMITS = {"find": 30, "load": 30, "call": 10}  # seconds to read the files, to import one, to answer a call
MOST_BYTES = 20 << 20  # of a file that is copied


class Accident(Exception):
    """What costs a whole item: no answer in time, or none at all."""


# --- The child --------------------------------------------------------------------------------------------------------


class Child:
    """A process with one submission's functions, started when it is needed and anew after an accident."""

    def __init__(self, folder: Path, seconds: float):
        self.folder, self.seconds = folder, seconds
        self.process, self.deadline = None, time.monotonic() + seconds
        self.notes, self.hung = [], {}  # hung: files whose import did not end well, and how

    def start(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("grade_child.py")), str(self.folder)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True, **pipes)
        self.exchange(None, START_SECONDS)

    def kill(self) -> None:
        """End the child and whatever it started in its session."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL) if hasattr(os, "killpg") else self.process.kill()

    def stop(self) -> None:
        if self.process:
            self.kill()
            self.process.communicate()
            self.process = None

    def exchange(self, request: dict | None, seconds: float) -> dict:
        """Send a request and return the reply; the child is killed where it takes longer than `seconds`."""
        late = threading.Event()
        left = self.deadline - time.monotonic()
        timer = threading.Timer(max(0, min(seconds, left)), lambda: (late.set(), self.kill()))
        timer.start()
        reply = {}
        with contextlib.suppress(Exception):  # the child has gone, or what it wrote is no message
            if request:
                send(self.process.stdin, request)
            reply = receive(self.process.stdout)
        timer.cancel()
        timer.join()
        if late.is_set() and seconds > left:
            raise Accident(self.too_late())
        if late.is_set():
            raise Accident(f"no answer in {seconds:g} s: an endless loop?")
        if not reply and not request:
            raise SystemExit("grade.py: the child process did not start; does python -c 'import torch' work?")
        if not reply:
            raise Accident(self.last_words())
        return reply

    def too_late(self) -> str:
        return f"not finished in the {self.seconds:g} s of the whole submission"

    def last_words(self) -> str:
        """How a child ended that did not answer."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "what it answered cannot be read"
        if code < 0:
            return f"crashed: {signal.Signals(-code).name}"
        return f"ended the process, exit status {code}: sys.exit or os._exit?"

    def ask(self, do: str, **request) -> dict:
        """Return the child's reply; Wrong for an error in the submission, Accident as above."""
        try:
            if time.monotonic() > self.deadline:
                raise Accident(self.too_late())
            if self.process is None:
                self.start()
            reply = self.exchange({"do": do, **request}, LIMITS[do])
            if "accident" in reply:
                raise Accident(reply["accident"])
        except Accident:
            self.stop()
            raise
        if "error" in reply:
            raise Wrong(reply["error"])
        return reply

    def load(self, name: str, preferred: list[str]) -> None:
        """Have the child import a file that defines `name`; Accident where none does."""
        reply = self.ask("find", name=name, preferred=preferred)
        reasons = []
        for file in reply["files"]:
            try:
                if file in self.hung:  # waiting once is enough
                    raise Accident(self.hung[file])
                reply = self.ask("load", file=file, name=name)
            except Accident as accident:
                self.hung[file] = str(accident)
                raise Accident(f"importing {Path(file).name}: {accident}") from None
            if reply["found"]:
                break
            reasons.append(reply["reason"])
        self.add_notes(reply["notes"])
        if not reply.get("found"):
            raise Accident(": ".join(["not found", *filter(None, reasons)]))

    def call(self, name: str, args: list, **request) -> dict:
        """Call a function of the submission, or with `init` a method of an object."""
        reply = self.ask("call", name=name, args=args, **request)
        self.add_notes(f"{name} has an extra parameter: {parameter}" for parameter in reply["extra"])
        return reply

    def add_notes(self, notes: Iterable[str]) -> None:
        self.notes = list(dict.fromkeys([*self.notes, *notes]))  # each once


# --- Grading ----------------------------------------------------------------------------------------------------------


def grade_item(child: Child, problem: int, name: str) -> dict:
    """Points and checks of one item."""
    shares, notes, checks = [], [], CHECKS[name]
    try:
        child.load(name.split(".")[0], FILES[problem])
        for check in checks.values():
            try:
                check(child.call)
            except Wrong as wrong:
                shares.append(wrong.share)
                notes.append(wrong.note)
            except Accident:
                raise
            except Exception as error:  # of a result that no check expects; it must not end the others' grading
                shares.append(0.0)
                notes.append(f"what it returns cannot be compared: {error}")
            else:
                shares.append(1.0)
                notes.append("")
    except (Accident, Wrong) as accident:
        shares, notes = [0.0] * len(checks), [str(accident)] * len(checks)
    possible = POINTS[problem][name]
    rows = [{"name": n, "passed": s == 1, "note": t} for n, s, t in zip(checks, shares, notes, strict=True)]
    points = round(possible * sum(shares) / len(checks), 4)
    return {"problem": problem, "name": name, "points": points, "possible": possible, "checks": rows}


def copy_sources(submission: Path, folder: Path) -> None:
    """Copy the .py and .ipynb files of a folder, a file or a .zip."""
    if submission.suffix == ".zip":
        with zipfile.ZipFile(submission) as archive:
            for member in archive.infolist():
                if is_source(Path(member.filename)) and member.file_size <= MOST_BYTES:
                    archive.extract(member, folder)
        return
    top = submission if submission.is_dir() else submission.parent
    for path in submission.rglob("*") if submission.is_dir() else [submission]:
        relative = path.relative_to(top)
        if is_source(relative) and path.is_file() and path.stat().st_size <= MOST_BYTES:
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / relative)


def is_source(path: Path) -> bool:
    """Whether a path within a submission is to be read; hidden folders and installed packages are not."""
    packages = {"site-packages", "__MACOSX", "__pycache__"} & set(path.parts)
    return path.suffix in (".py", ".ipynb") and not packages and not any(part.startswith(".") for part in path.parts)


def grade(submission: Path, seconds: float) -> dict:
    """Grade one submission, in at most so many seconds; the result is what --json writes of it."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch, "submission").resolve()
        folder.mkdir()
        child = Child(folder, seconds)
        try:
            copy_sources(submission, folder)
        except Exception as error:  # damaged, encrypted, unreadable: there are many kinds
            child.add_notes([f"cannot be read: {error}"])
        if not any(folder.rglob("*.*")):
            child.add_notes(["no .py or .ipynb file"])
        try:
            items = [grade_item(child, problem, name) for problem, names in POINTS.items() for name in names]
        finally:
            child.stop()
    points, possible = (round(sum(item[key] for item in items), 4) for key in ("points", "possible"))
    seconds = round(time.perf_counter() - start, 1)
    return {
        "path": str(submission),
        "points": points,
        "possible": possible,
        "seconds": seconds,
        "items": items,
        "notes": child.notes,
    }


# --- Output -----------------------------------------------------------------------------------------------------------


def first_note(item: dict) -> str:
    return next((check["note"] for check in item["checks"] if check["note"]), "")


def block(result: dict) -> str:
    lines = [f"{result['path']:<46} {result['points']:>5.4g} / {result['possible']}   {result['seconds']:.0f} s"]
    for item in result["items"]:
        name = f"{NUMBERS[item['name']]} {item['name']}"
        lines.append(f"  {name:<36} {item['points']:>5.4g} / {item['possible']}   {first_note(item)}".rstrip())
    return "\n".join([*lines, *(f"  note: {note}" for note in result["notes"])])


def rows(results: list[dict]) -> list[list]:
    """What --csv writes: a row for each submission, a column for each item, the total, notes on the whole."""
    header, cells = ["submission", *NUMBERS.values(), "total", "notes"], []
    for result in results:
        points = [item["points"] for item in result["items"]]
        cells.append([result["path"], *points, result["points"], "; ".join(result["notes"])])
    return [header, *cells]


def table(results: list[dict]) -> str:
    """The closing table: the rows without the notes."""
    cells = [[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row[:-1]] for row in rows(results)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def gradescope(result: dict) -> dict:
    """The results.json of Gradescope's autograder."""
    tests = [
        {
            "name": item["name"],
            "number": NUMBERS[item["name"]],
            "score": item["points"],
            "max_score": item["possible"],
            "status": "passed" if item["points"] == item["possible"] else "failed",
            "output": "\n".join(f"{c['name']}: {'passed' if c['passed'] else c['note']}" for c in item["checks"]),
        }
        for item in result["items"]
    ]
    return {"score": result["points"], "execution_time": result["seconds"], "output": block(result), "tests": tests}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"grade.py: {message}\n")


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("submissions", nargs="+", type=Path, metavar="SUBMISSION", help="a folder, a .py or .ipynb file, or a .zip")
    add("--csv", type=Path, metavar="FILE", help="write the points of each item, a row for each submission")
    add("--json", type=Path, metavar="FILE", help="write the points and notes of each check")
    add("--gradescope", type=Path, metavar="FILE", help="write Gradescope's results.json; for one submission")
    add("--jobs", type=int, default=1, metavar="N", help="submissions graded at a time; default 1")
    add("--timeout", type=float, default=120, metavar="S", help="seconds for one submission; default 120")
    args = parser.parse_args(argv)
    for path in args.submissions:
        if not path.exists():
            parser.error(f"{path} does not exist")
        if path.is_file() and path.suffix not in (".py", ".ipynb", ".zip"):
            parser.error(f"{path} is neither a folder nor a .py, .ipynb or .zip file")
    for path in filter(None, (args.csv, args.json, args.gradescope)):
        if path.is_dir() or not path.parent.is_dir():
            parser.error(f"{path} cannot be written: give a file in a folder that exists")
    if args.gradescope and len(args.submissions) > 1:
        parser.error("--gradescope takes one submission")
    if args.jobs < 1 or not args.timeout > 0:
        parser.error("--jobs and --timeout must be positive")
    return args


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    results = []
    pool = ThreadPoolExecutor(args.jobs)
    try:
        for result in pool.map(partial(grade, seconds=args.timeout), args.submissions):
            print(block(result), end="\n\n", flush=True)
            results.append(result)
    except KeyboardInterrupt:
        print("grade.py: stopping once the submissions in progress are graded", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        pool.shutdown(cancel_futures=True)
    if len(results) > 1:
        print(table(results))
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows(results))
    for path, content in ((args.json, {"submissions": results}), (args.gradescope, gradescope(results[0]))):
        if path:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
