"""The child of grade.py: finds the definitions of one submission and answers calls to them, tensors in, tensors out.

    python tests/grade_child.py FOLDER

It reads requests from its standard input and writes replies to its standard output, each a length in eight bytes and
what torch.save makes of a dict. What the submission itself reads or prints is kept apart from both. No expected value
comes here: grade.py compares.
"""

import ast
import contextlib
import copy
import errno
import importlib.util
import inspect
import io
import json
import os
import random
import re
import struct
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

MEMORY, FILE_SIZE, CPU_SECONDS = 4 << 30, 16 << 20, 600  # the last ends a loop that outlives a killed grade.py
# constants such as log(2 pi), and the device
HARMLESS_CALLS = r"torch\.device|torch\.cuda\.is_available|math\.\w+"
SPARE = {"device": torch.device("cpu")}  # extra parameters that a submission may have
notes = []  # what went wrong while the submission's files were read, one line each
broken = {}  # the same by the name of the function or class that it keeps from being defined


# --- Messages ---------------------------------------------------------------------------------------------------------


def send(stream: BinaryIO, message: dict) -> None:
    buffer = io.BytesIO()
    torch.save(message, buffer)
    stream.write(struct.pack("<Q", buffer.tell()) + buffer.getvalue())
    stream.flush()


def receive(stream: BinaryIO, limit: int = 1 << 28) -> dict:
    """Raises EOFError where the other side has gone, ValueError for what is no message."""
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    (size,) = struct.unpack("<Q", header)
    if size > limit:
        raise ValueError(f"a message of {size} bytes")
    return torch.load(io.BytesIO(stream.read(size)), weights_only=True)


# --- Definitions ------------------------------------------------------------------------------------------------------


def parse(path: Path) -> list[ast.stmt]:
    """The statements of a file; of a notebook, those of the cells that can be read, with IPython's lines left out."""
    if path.suffix == ".py":
        return ast.parse(importlib.util.decode_source(path.read_bytes())).body
    statements = []
    for number, cell in enumerate(json.loads(path.read_bytes())["cells"], 1):
        if cell["cell_type"] == "code":
            source = re.sub(r"(?m)^([ \t]*)[%!?].*", r"\1pass", "".join(cell["source"]))
            try:
                statements += ast.parse(source).body
            except SyntaxError as error:
                note(f"{path.name} cell {number}", error)
    return statements


def describe(place: str, error: BaseException) -> str:
    """One line about an error."""
    text = str(error).strip().split("\n")[0][:200]
    return ": ".join(filter(None, [place, type(error).__name__, text]))


def note(place: str, error: BaseException) -> str:
    line = describe(place, error)
    if line not in notes:
        notes.append(line)
    return line


def is_definition(statement: ast.stmt) -> bool:
    """Whether a statement of the top level is executed: it must neither train nor download."""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        nodes = list(ast.walk(statement))
        calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
        loops = any(isinstance(node, ast.comprehension) for node in nodes)
        return not loops and all(re.fullmatch(HARMLESS_CALLS, call) for call in calls)
    return isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def split_imports(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Give each imported name a statement of its own, so that a missing one leaves the others."""
    for statement in statements:
        for alias in getattr(statement, "names", [None]):
            part = copy.copy(statement)
            if isinstance(statement, ast.Import | ast.ImportFrom):
                part.names = [alias]
            yield part


class DefinitionLoader(SourceFileLoader):
    """Imports a submission's file statement by statement, so that one that fails costs what depends on it alone."""

    def exec_module(self, module: ModuleType) -> None:
        path = Path(self.path)
        statements = parse(path)
        future = [s for s in statements if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
        for statement in filter(is_definition, split_imports(statements)):
            try:
                exec(compile(ast.Module([*future, statement], []), path.name, "exec"), module.__dict__)
            except Exception as error:
                if not isinstance(statement, ast.Assign | ast.AnnAssign):  # of values that training makes, mostly
                    line = note(f"{path.name} line {statement.lineno}", error)
                    broken[path, getattr(statement, "name", "")] = line


class Submission:
    """The files of a folder and the definitions in them."""

    def __init__(self, folder: Path):
        files = [path for path in folder.rglob("*") if path.suffix in (".py", ".ipynb")]
        self.files = sorted(files, key=lambda path: (len(path.parts), path))  # the outer ones first
        self.names = {path: self.defined(path) for path in self.files}
        self.targets, self.instances = {}, {}

        def path_hook(directory: str) -> FileFinder:
            if not Path(directory).resolve().is_relative_to(folder):
                raise ImportError
            return FileFinder(directory, (DefinitionLoader, [".py", ".ipynb"]))

        sys.path_hooks.insert(0, path_hook)
        sys.path[:0] = dict.fromkeys(str(path.parent) for path in self.files)

    @staticmethod
    def defined(path: Path) -> set[str]:
        """Names of the functions and classes at the top level of a file."""
        try:
            return {s.name for s in parse(path) if isinstance(s, ast.FunctionDef | ast.ClassDef)}
        except Exception as error:
            where = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
            note(f"{path.name}{where}", error)
            return set()

    def find(self, name: str, preferred: list[str]) -> dict:
        """The files that define a name, first the preferred ones."""
        files = [path for path in self.files if name in self.names[path]]
        files.sort(key=lambda path: preferred.index(path.name) if path.name in preferred else len(preferred))
        return {"files": [str(path) for path in files], "notes": notes}

    def load(self, file: str, name: str) -> dict:
        """Import a file, under the name by which its siblings do, and take a definition from it."""
        path = Path(file)
        module = sys.modules.get(path.stem)
        if getattr(module, "__file__", None) != file:
            spec = importlib.util.spec_from_file_location(path.stem, file, loader=DefinitionLoader(path.stem, file))
            module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        self.targets[name] = getattr(module, name, None)
        return {"found": hasattr(module, name), "reason": broken.get((path, name), ""), "notes": notes}

    def instance(self, name: str, arguments: list) -> nn.Module:
        """An object of a class with the seed 0; asked for again, the same one."""
        key = self.targets[name], repr(arguments)
        if key not in self.instances:
            if "resnet18" in arguments:  # torchvision takes as long to import as torch
                from torchvision.models import resnet18

                arguments = [resnet18 if a == "resnet18" else a for a in arguments]
            seed()
            self.instances[key] = key[0](*arguments, **spare(key[0].__init__, len(arguments) + 1))
        return self.instances[key]

    def call(
        self,
        name: str,
        args: list,
        init: list | None = None,
        method: str | None = None,
        grad: tuple = (),
        weights: Tensor | None = None,
        output: int = 0,
    ) -> dict:
        """Call a function, or with `init` an object made from it or its method, with the seed 0.

        A dict among `args` stands for a critic. With `weights`, the gradients of sum(weights * value), or of one
        `output` where there are several, come along: for the arguments numbered in `grad`, then for the critic's w.
        """
        args = [ProbeCritic(**a) if isinstance(a, dict) else a for a in args]
        critics = [a for a in args if isinstance(a, ProbeCritic)]
        leaves = [args[i].requires_grad_() for i in grad] + [critic.w for critic in critics]
        target = signed = self.targets[name]
        noted, reply = [], {}
        if init is not None:
            module = self.instance(name, init)
            noted = list(spare(target.__init__, len(init) + 1))
            target = getattr(module, method or "__call__")
            signed = getattr(module, method or "forward", target)
            sizes = [(p.numel(), p.requires_grad) for p in getattr(module, "parameters", list)()]
            reply["parameters"] = [sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)]
        extra = spare(signed, len(args))
        seed()
        value = target(*args, **extra)
        outputs = list(value) if isinstance(value, tuple | list) else [value]
        reply |= {
            "value": plain(value),
            "extra": noted + list(extra),
            "seen": [x for critic in critics for x in critic.seen],
        }
        reply["requires_grad"] = [isinstance(x, Tensor) and x.requires_grad for x in outputs]
        if weights is not None:
            gradients = [None] * len(leaves)
            if reply["requires_grad"][output]:
                x = outputs[output]
                x = (x.flatten() * weights.flatten()).sum() if x.numel() == weights.numel() else x.sum()
                gradients = torch.autograd.grad(x, leaves, allow_unused=True)
            reply["gradients"] = plain(gradients)
        return reply


def seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002, the generator that submissions use


class ProbeCritic(nn.Module):
    """f(x) = <w, x> + c |x|^2 / 2 for (B, ...), which remembers where it was asked."""

    def __init__(self, w: Tensor, c: float):
        super().__init__()
        self.w, self.c, self.seen = nn.Parameter(w), c, []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return (self.w * x + self.c * x**2 / 2).flatten(1).sum(1)


def spare(function: Any, given: int) -> dict:
    """Values of the extra parameters behind the `given` ones."""
    parameters = list(inspect.signature(function).parameters)[given:]
    return {name: SPARE[name] for name in parameters if name in SPARE}


def plain(value: Any) -> Any:
    """What torch.load(weights_only=True) reads: tensors, and the type's name for anything else."""
    if isinstance(value, Tensor):
        if value.numel() > 10**7:
            raise ValueError(f"the result has shape {tuple(value.shape)}")
        return value.detach().cpu().clone().as_subclass(Tensor)
    if isinstance(value, tuple | list):
        return [plain(x) for x in value]
    return None if value is None else type(value).__name__


# --- Process ----------------------------------------------------------------------------------------------------------


def limit_resources() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, limit in (("DATA", MEMORY), ("FSIZE", FILE_SIZE), ("CPU", CPU_SECONDS), ("CORE", 0)):
        kind = getattr(resource, f"RLIMIT_{name}")
        with contextlib.suppress(OSError, ValueError):  # where the system has a lower limit already
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def failure(error: BaseException, files: set[str]) -> dict:
    """One line about an error in a call; `accident` where the child should not be used any longer."""
    text = str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return {"accident": f"asked for more than {MEMORY >> 30} GB of memory"}
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return {"accident": f"printed or wrote more than {FILE_SIZE >> 20} MB"}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    place = f"{frames[-1].filename} line {frames[-1].lineno}" if frames else ""
    return {"error": describe(place, error)}


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    sys.path.pop(0)  # this file's folder
    sys.dont_write_bytecode = True
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    output = os.open(folder.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, target in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(target, number)
    limit_resources()
    submission = None
    send(replies, {"ready": True})
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        try:
            submission = submission or Submission(folder)
            reply = getattr(submission, request.pop("do"))(**request)
        except Exception as error:
            reply = failure(error, {path.name for path in folder.rglob("*")})
        send(replies, reply)


if __name__ == "__main__":
    main()
