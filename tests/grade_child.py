"""The child of grade.py: finds the definitions of one submission and answers calls to them, tensors in, tensors out.

    python tests/grade_child.py FOLDER

It reads requests from its standard input and writes replies to its standard output, each a length in eight bytes and
what torch.save makes of a dict. What the submission itself reads or prints is kept apart from both. No expected value
comes here: grade.py compares.
"""

import __future__

import ast
import builtins
import contextlib
import copy
import dis
import errno
import importlib.util
import inspect
import io
import json
import os
import random
import re
import signal
import struct
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial, wraps
from importlib.machinery import PathFinder
from operator import itemgetter
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

MEMORY, FILE_SIZE = 4 << 30, 16 << 20
SOURCES = (".py", ".ipynb")
FILE_SECONDS = 3  # to read one file
MOST_NOTES = 5  # about one file
ON_CPU = "asks for a GPU, runs on the CPU here"
SCRIPT_ONLY = ("__name__ == '__main__'", "'__main__' == __name__")
NOT_PYTHON = "bash cmd cython html javascript js latex markdown perl R ruby script sh sql svg sx system".split()
COMMANDS = "apt apt-get cd conda curl git kaggle ls mkdir pip pip3 unzip wget".split()
READ_AS = [  # lines that this Python cannot read, and what stands for them
    (r"%time\s+(.+)", r"\1"),
    (r"""%run\s+(?:-\w+\s+)*["']?(?:.*/)?(.+?)\.(?:py|ipynb)\b.*""", lambda match: f"from {word(match[1])} import *"),
    (r"((def|class) \w+)\[.*?\]([(:].*)", r"\1\3"),  # generics of Python 3.12
    (r"[%!?].*|.*\?|[^=()#]+=\s*[%!].*", "pass"),
    (rf"({'|'.join(COMMANDS)})(\s.*)?", "pass"),
]
BEGINNING = r"(?!(else|elif|except|finally)\b)[^\s#)\]}]"  # of a line that begins a statement of the top level
notes = []  # what went wrong while the submission's files were read, one line each


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


# --- Limits -----------------------------------------------------------------------------------------------------------


class TooSlow(BaseException):
    """Raised in what takes too long; no Exception, so that a submission's `except Exception` lets it pass."""


limits = []  # of what is under way, the innermost last: seconds, processor time and clock at its start


def check_time(*_: Any) -> None:
    """Called ten times a second: an endless loop uses processor time, what waits for something uses none."""
    if not limits:
        return
    seconds, began, start = limits[-1]
    used, passed = time.process_time() - began, time.monotonic() - start
    if used > seconds:
        raise TooSlow(f"used {seconds:.3g} s of processor time: an endless loop?")
    if passed > seconds and used < 0.01 * passed:
        raise TooSlow(f"no answer in {seconds:.3g} s, in which it did nothing")


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    limits.append((seconds, time.process_time(), time.monotonic()))
    try:
        yield
    finally:
        limits.pop()


class OnCPU(TorchFunctionMode):
    """Runs on the CPU what a submission sends to a GPU."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function in (Tensor.cuda, Tensor.pin_memory):
            add_note(ON_CPU)
            return args[0]
        kwargs = {name: on_cpu(value, name == "device") for name, value in (kwargs or {}).items()}
        return function(*(on_cpu(value, function is Tensor.to) for value in args), **kwargs)


def on_cpu(value: Any, may_be_number: bool) -> Any:
    """An argument of a function of torch, the CPU in place of a GPU, also in a type such as torch.cuda.FloatTensor."""
    is_number = may_be_number and type(value) is int  # and no bool, as in x.to(device, True)
    if is_number or (isinstance(value, str | torch.device) and re.match(r"(torch\.)?(cuda|mps)\b", str(value))):
        add_note(ON_CPU)
        return value.replace("cuda.", "") if str(value).startswith("torch.") else "cpu"
    return value


class CPUGenerator(torch.Generator):
    def __new__(cls, device: Any = None) -> "CPUGenerator":
        return super().__new__(cls)


class NoEvent:
    """Stands for an event or a stream of a GPU."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: 0


def stay_on_cpu() -> None:
    """Have torch see no GPU, whatever a submission writes into the environment, and do nothing where one is needed."""
    for name, value in list(vars(torch.cuda).items()):
        if inspect.isfunction(value) and not name.startswith("_"):
            setattr(torch.cuda, name, wraps(value)(lambda *_, **__: 0))
        elif name.endswith("Tensor"):
            setattr(torch.cuda, name, getattr(torch, name, None))
    torch.cuda.device = torch.cuda.stream = contextlib.nullcontext
    torch.cuda.Event = torch.cuda.Stream = NoEvent
    for name in ("set_default_device", "set_default_tensor_type"):
        setattr(torch, name, lambda *_: None)
    torch.Generator = CPUGenerator
    torch.compile = lambda function=None, **_: function or torch.compile
    OnCPU().__enter__()


# --- Files ------------------------------------------------------------------------------------------------------------


def add_note(line: str) -> str:
    file = re.split(r" (?:cell|line) \d", line)[0]
    if line not in notes and sum(note.startswith(file) for note in notes) < MOST_NOTES:
        notes.append(line)
    return line


def describe(place: str, error: BaseException) -> str:
    text = ""
    with contextlib.suppress(Exception):  # its text may raise, too
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        text = text.strip().split("\n")[0].replace(f"{os.getcwd()}/", "")[:200]
    kind = "" if isinstance(error, TooSlow) else type(error).__name__
    return ": ".join(filter(None, [place, kind, text]))


def word(name: str) -> str:
    """A file's name as it can be imported."""
    return re.sub(r"\W", "_", name)


def decode(data: bytes) -> str:
    """The text of a file, in the encoding that it names, in UTF-8, UTF-16 or as Windows writes it."""
    try:
        return importlib.util.decode_source(data)
    except (SyntaxError, UnicodeDecodeError):
        encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
        return io.TextIOWrapper(io.BytesIO(data), encoding, errors="replace").read()


def cells(text: str, place: str) -> Iterator[tuple[str, str]]:
    """The Python in a file's text, with its name for messages: a script's in one piece, a notebook's in cells."""
    if not (text.lstrip().startswith("{") and '"cells"' in text):
        yield place, text
        return
    for number, cell in enumerate(json.loads(text)["cells"], 1):
        if cell["cell_type"] == "code":
            yield f"{place} cell {number}", "".join(cell["source"])


def replace_line(lines: list[str], at: int) -> bool:
    """Put what stands for a line that Python cannot read, else `pass`; return whether it is known to be no Python."""
    indent, text = re.match(r"(\s*)(.*)", lines[at]).groups()
    known = [re.sub(pattern, other, text) for pattern, other in READ_AS if re.fullmatch(pattern, text)]
    end = at + 1
    while end < len(lines) and lines[end - 1].endswith("\\"):
        end += 1
    lines[at:end] = [indent + (known or ["pass"])[0]] + [""] * (end - at - 1)
    return bool(known)


def leave_out(lines: list[str], at: int) -> None:
    """Put nothing for the statement of the top level around a line."""
    begin, end = at, at + 1
    while begin > 0 and (not re.match(BEGINNING, lines[begin]) or lines[begin - 1].startswith("@")):
        begin -= 1
    while end < len(lines) and not re.match(BEGINNING, lines[end]):
        end += 1
    lines[begin:end] = [""] * (end - begin)


def parse(text: str, place: str) -> list[ast.stmt]:
    """The statements of a text but those that cannot be read."""
    lines, known = re.split("\r?\n", text), {}  # whether what was replaced in a line is known to be no Python
    while True:
        try:
            return ast.parse("\n".join(lines)).body
        except SyntaxError as error:
            header = re.search(r" on line (\d+)", error.msg)  # of a block that is missing
            number = min(int(header[1]) if header else error.lineno or 1, len(lines))
            at = number - 1
            while at > 0 and (not lines[at].strip() or lines[at - 1].endswith("\\")):
                at -= 1
            if at not in known:
                known[at] = replace_line(lines, at)
                if not known[at]:
                    add_note(describe(f"{place} line {number} cannot be read", error))
            elif known[at]:  # `pass` is indented where no block is open
                lines[at], known[at] = "", False
            else:
                leave_out(lines, at)


# --- Definitions ------------------------------------------------------------------------------------------------------


def names(code: CodeType) -> tuple[set[str], set[str]]:
    """The global names that a piece of code and the functions in it read, and those that it binds or deletes."""
    reads, binds = set(), set()
    for instruction in dis.get_instructions(code):
        action, _, kind = instruction.opname.partition("_")
        if kind in ("NAME", "GLOBAL", "FROM_DICT_OR_GLOBALS") and action in ("LOAD", "STORE", "DELETE"):
            (reads if action == "LOAD" else binds).add(instruction.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            inner_reads, inner_binds = names(inner)
            reads |= inner_reads
            binds |= set() if "__qualname__" in inner_binds else inner_binds  # not those of a class
    return reads, binds


def here(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are executed with a statement, those of functions and classes in it left out."""
    left = [node]
    while left:
        part = left.pop()
        yield part
        if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            left += ast.iter_child_nodes(part)


def root(node: ast.AST) -> str:
    """The name at the beginning of a chain such as cfg["a"].b.update."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", "")


def changed(nodes: Iterable[ast.AST]) -> tuple[set[str], set[str]]:
    """The names of which these nodes change a part, and those of which they call a method, which may change it."""
    stores, receivers = set(), set()
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            stores.add(root(node))  # cfg["a"] = 1
        elif isinstance(node, ast.Call):
            function = getattr(node.func, "attr", root(node.func))
            if re.search(r"setattr$|shuffle$|[^_]_$", function):
                stores |= {root(argument) for argument in node.args}  # nn.init.zeros_(w)
        elif isinstance(node, ast.Expr) and isinstance(getattr(node.value, "func", None), ast.Attribute):
            receivers.add(root(node.value))  # cfg.update(a=1)
    return stores, receivers


class Statement:
    """A statement of a file's top level, with the names that it reads, and those that it binds or changes in place."""

    def __init__(self, node: ast.stmt, place: str, is_script: bool = False, is_text: bool = False):
        self.node, self.file, self.place = node, place, f"{place} line {node.lineno}"
        self.is_script = is_script  # under if __name__ == "__main__"
        self.is_import = isinstance(node, ast.Import | ast.ImportFrom)
        self.is_function = isinstance(node, ast.FunctionDef)
        # annotations stay text, as what they name may not be installed; but dataclass and singledispatch look at them
        self.is_text = is_text or not getattr(node, "decorator_list", [])
        flags = __future__.annotations.compiler_flag if self.is_text else 0
        self.code = compile(ast.Module([node], []), self.file, "exec", flags=flags, dont_inherit=True)
        is_star = self.is_import and node.names[0].name == "*"
        self.reads, self.binds = ({"*"}, {"*"}) if is_star else names(self.code)
        self.stores, self.receivers = changed(here(node))
        self.calls = [part for part in here(node) if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)]
        self.alias_of = ""
        if isinstance(node, ast.Assign):  # m = cfg["m"]; group = parser.add_argument_group()
            chain = getattr(node.value, "func", node.value)
            self.alias_of = root(chain) if isinstance(chain, ast.Attribute | ast.Subscript) else ""
        for decorator in getattr(node, "decorator_list", []):
            self.receivers.add(root(decorator))  # which may note the function somewhere
            self.calls.append(ast.Call(decorator, [], []))

    def side_effects(self, call: ast.Call) -> set[str]:
        """Names that a call of this function binds or changes in place."""
        stores, receivers = changed(ast.walk(self.node))
        arguments = self.node.args
        parameters = [part.arg for part in (*arguments.posonlyargs, *arguments.args)]
        given = list(zip(parameters, call.args, strict=False)) + [(word.arg, word.value) for word in call.keywords]
        through = {root(value) for parameter, value in given if parameter in stores | receivers}
        return self.binds - {self.node.name} | stores & self.reads | through


@cache
def is_installed(name: str) -> bool:
    return name in sys.builtin_module_names or PathFinder.find_spec(name) is not None


class Module(ModuleType):
    """A file of the submission; asked for a name, it executes the statements that bind it."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            self.__submission__.execute(self, name)
        if name not in self.__dict__:
            raise AttributeError(f"{self.__name__} has no {name}")
        return self.__dict__[name]


class Submission:
    """The files of a folder and the definitions in them.

    A definition is taken by asking its file's Module for the name. That executes the statements which bind the name
    and what these need; an import statement among them asks the Module of another file for a name in the same way.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.statements, self.binders, self.slow = {}, {}, {}
        paths = [path for path in folder.rglob("*") if path.suffix in SOURCES and path.is_file()]
        self.files = sorted(paths, key=lambda path: (len(path.parts), path))  # the outer ones first
        texts = {path: decode(path.read_bytes()).replace("\0", "") for path in self.files}
        self.texts = {path.with_stem(word(path.stem)): text for path, text in texts.items()} | texts
        parents = [parent for path in self.files for parent in path.parents]
        self.folders = [parent for parent in dict.fromkeys(parents) if parent.is_relative_to(folder)]
        for path in self.files:
            if "%%writefile" in self.texts[path]:  # which another file may import
                self.read(path)

    def read(self, path: Path) -> list[Statement]:
        """The statements of a file; none for an __init__.py that is not there."""
        if path not in self.statements:
            place = os.path.relpath(path, self.folder)
            self.statements[path] = []
            try:
                with limited(FILE_SECONDS):
                    for name, text in cells(self.texts.get(path, ""), place):
                        self.statements[path] += self.read_cell(path, name, text)
            except (Exception, TooSlow) as error:
                add_note(describe(f"{place} cannot be read", error))
        return self.statements[path]

    def read_cell(self, path: Path, place: str, text: str) -> Iterator[Statement]:
        """The statements of a cell; a line that begins with %% may say that it is something else, or a file."""
        magic = re.match(r"\s*%%(\w*) *(-a +)?(\S*).*\n?", text)
        if magic and magic[1] in NOT_PYTHON:
            return
        if magic:
            text = "\n" + text[magic.end() :]
        if magic and magic[1] in ("file", "writefile"):
            file = path.parent / Path(magic[3]).name
            if magic[2] or file not in self.texts:
                self.texts[file] = self.texts.get(file, "") + text
        is_text = "from __future__ import annotations" in self.texts.get(path, "")
        for node in parse(text, place):
            try:
                is_script = isinstance(node, ast.If) and ast.unparse(node.test) in SCRIPT_ONLY
                for outer in [*node.body, *node.orelse] if is_script else [node]:
                    for part in self.parts(path, outer):
                        yield Statement(part, place, is_script, is_text)
            except Exception as error:  # return outside of a function, or too long a sum
                add_note(describe(f"{place} line {node.lineno}", error))

    def parts(self, path: Path, node: ast.stmt) -> Iterator[ast.stmt]:
        """The statements that one stands for: an import for each name, also for those of a * in an `if` or `try`."""
        imports = [part for part in here(node) if isinstance(part, ast.Import | ast.ImportFrom)]
        if node not in imports:
            imports = [part for part in imports if part.names[0].name == "*"]
        for part in imports:
            aliases, target = part.names, self.imported(path, part)
            if target and aliases[0].name == "*":
                binders = self.find_binders(target)
                hidden = "__" if "__all__" in binders else "_"
                exported = [name for name in binders if not name.startswith(hidden)]
                aliases = [ast.alias(name, lineno=part.lineno, col_offset=0) for name in exported]
            for alias in aliases:
                one = copy.copy(part)
                one.names = [alias]
                yield one
        if node not in imports:
            yield node

    def imported(self, path: Path, node: ast.stmt) -> Path | None:
        """The file of the submission from which a statement imports."""
        return self.locate(path, node.module or "", node.level) if isinstance(node, ast.ImportFrom) else None

    def find_binders(self, path: Path) -> dict[str, list[Statement]]:
        """For each name in a file the statements that bind it, change it in place or call what does."""
        if path in self.binders:
            return self.binders[path]
        binders = self.binders[path] = defaultdict(list)  # at once, as files may import each other
        functions, aliases = {}, {}
        libraries, values, bound = set(), set(), set()
        for statement in self.read(path):
            target = self.imported(path, statement.node)
            if not statement.is_script:
                bound |= {statement.node.name} if statement.is_function else statement.binds
            if statement.is_function:
                functions[statement.node.name] = statement
            elif target:
                others = self.find_binders(target).get(statement.node.names[0].name, [])
                functions |= {name: other for name in statement.binds for other in others if other.is_function}
            elif statement.is_import:
                libraries |= statement.binds
            elif not isinstance(statement.node, ast.ClassDef):
                values |= statement.binds
        for statement in self.read(path):
            # torch.manual_seed(0) makes no other torch, and trainer.train() may take long
            names = statement.stores | statement.receivers - libraries
            if statement.alias_of in values:
                names.add(statement.alias_of)
                origin = aliases.get(statement.alias_of, statement.alias_of)
                aliases |= dict.fromkeys(statement.binds - {origin}, origin)
            for call in statement.calls:
                if root(call.func) in functions:
                    names |= functions[root(call.func)].side_effects(call)
            names |= {aliases[name] for name in names if name in aliases}
            names |= statement.binds
            if isinstance(statement.node, ast.For):  # for eps in (1e-8, 1e-9): train(), after eps = 1e-8
                targets = {part.id for part in ast.walk(statement.node.target) if isinstance(part, ast.Name)}
                names -= targets & binders.keys()
            if statement.is_script:
                names -= bound
            for name in names:
                binders[name].append(statement)
        return binders

    def find(self, name: str, preferred: list[str]) -> dict:
        """Where a name is defined: files, the most promising first; then, as [file, number of binders], what stood
        in a file before another definition."""
        found = []
        for path in self.files:
            binders = self.find_binders(path).get(name, []) if name in self.texts[path] else []
            own = [number for number, statement in enumerate(binders) if name in statement.binds]
            if own:
                is_imported = all(binders[number].is_import for number in own)
                rank = preferred.index(path.name) if path.name in preferred else len(preferred)
                for number in [None, *reversed(own[1:])]:
                    found.append((number is not None, is_imported, rank, [str(path), number]))
        found.sort(key=itemgetter(0, 1, 2))
        return {"found": [where for *_, where in found]}

    def load(self, file: str, number: int | None, name: str, given: Iterable[str] = ()) -> dict:
        """Take a definition from a file, in modules of its own, by its binders up to this number.

        Classes of torch.nn with the `given` names stand in place of the submission's.
        """
        path = Path(file)
        self.modules, self.reasons, self.name = {}, [], name
        self.given = {name: getattr(nn, name) for name in given}
        with contextlib.suppress(OSError):  # deleted by the submission
            os.chdir(path.parent)
        sys.argv = [file]
        self.skipped = [] if number is None else self.find_binders(path)[name][number:]
        self.target = getattr(self.module(path), name, None)
        return {"found": self.target is not None, "reasons": self.reasons}

    def execute(self, module: Module, name: str) -> None:
        """Execute the statements of a module that bind a name, and those that they need, in their order."""
        path = Path(module.__file__)
        chosen, needed = set(), [name, "*"]  # *: what a library exports
        while needed:
            for statement in self.find_binders(path).get(needed.pop(), []):
                if statement not in chosen:
                    chosen.add(statement)
                    needed += statement.reads
        for statement in self.read(path):
            if statement in chosen and statement not in module.__done__:
                module.__done__.add(statement)
                self.run(module, statement)
        file = self.at(path.parent, [name]) if path.stem == "__init__" else None
        if name not in module.__dict__ and file:  # a module in a package
            module.__dict__[name] = self.module(file)

    def run(self, module: Module, statement: Statement) -> None:
        """Execute a statement; where it fails or takes too long, what it binds stays undefined."""
        if statement in self.skipped or statement.binds & self.given.keys():
            return
        seconds, began, _ = limits[0]  # of the whole request
        left = seconds - (time.process_time() - began)
        try:
            if statement in self.slow:  # waiting once is enough
                raise self.slow[statement]
            with limited(left if statement.is_import else left / 2):
                exec(statement.code, module.__dict__)
        except (Exception, SystemExit, TooSlow) as error:
            self.reasons.append(add_note(describe(statement.place, error)))
            if isinstance(error, TooSlow):
                self.slow[statement] = error
            elif decorators := getattr(statement.node, "decorator_list", []):
                defined = {*vars(module), *vars(builtins)}
                known = [decorator for decorator in decorators if root(decorator) in defined]
                bare = copy.copy(statement.node)  # without those of packages that are not there, then without all
                bare.decorator_list = known if len(known) < len(decorators) or not statement.is_text else []
                self.run(module, Statement(bare, statement.file, is_text=True))

    def module(self, path: Path) -> Module:
        """The module of a file, or of a folder's __init__.py, whether there is one or not."""
        if path not in self.modules:
            name = path.parent.name if path.stem == "__init__" else path.stem
            module = self.modules[path] = Module(name)
            imports = vars(builtins) | {"__import__": partial(self.import_, path)}
            module.__dict__.update(__file__=str(path), __submission__=self, __done__=set(), __builtins__=imports)
            module.__dict__.update(self.given)
            if isinstance(sys.modules.get(name, module), Module):  # dataclasses look there
                sys.modules[name] = module
        return self.modules[path]

    def import_(self, path: Path, name: str, names=None, local=None, members=(), level=0) -> ModuleType:
        """What the import statements of a file call."""
        file = self.locate(path, name, level)
        if members and not file:  # a module of a package whose folder was left behind
            inner = self.locate(path, f"{name}.{members[0]}", level)
            file = inner and self.package(inner)
        if not file:
            return __import__(name, names, local, members, level)
        if members:
            return self.module(file)
        for part in reversed(name.split(".")[1:]):  # import a.b.c binds a
            file, inner = self.package(file), self.module(file)
            setattr(self.module(file), part, inner)
        return self.module(file)

    @staticmethod
    def package(file: Path) -> Path:
        """The __init__.py of the package in which a module or a package is."""
        return file.parents[file.stem == "__init__"] / "__init__.py"

    def locate(self, path: Path, name: str, level: int) -> Path | None:
        """The file of the module a.b.c, as a file of the submission means it: that in the nearest folder.

        The folders around the files may have been left behind when they were packed: then it is that of b.c, or c.
        """
        parts = name.split(".") if name else []
        folders = [folder for folder in path.parents if folder.is_relative_to(self.folder)]
        if level:
            folders = folders[level - 1 : level]
        is_own = bool(level) or not is_installed(parts[0])
        for lost in range(max(1, len(parts)) if is_own else 1):
            for folder in folders + (self.folders if is_own else []):
                if file := self.at(folder, parts[lost:]):
                    return file
        return None

    def at(self, folder: Path, parts: list[str]) -> Path | None:
        """The file of a module in a folder; of a package, its __init__.py, whether there is one or not."""
        target = folder.joinpath(*parts)
        files = [target.with_name(f"{target.name}{suffix}") for suffix in SOURCES] if parts else []
        for file in [target / "__init__.py", *files]:
            if file in self.texts:
                return file
        is_package = target in self.folders and not (parts and is_installed(parts[0]))
        return target / "__init__.py" if is_package else None

    def instance(self, arguments: list) -> nn.Module:
        """An object of the class with the seed 0."""
        if "resnet18" in arguments:  # torchvision takes as long to import as torch
            from torchvision.models import resnet18

            arguments = [resnet18, *arguments[1:]]
        return self.value(self.target, arguments, self.target)

    def value(self, function: Callable, arguments: list, signed: Callable) -> Any:
        """What a function returns with the seed 0; an extra parameter `device` of the `signed` one is given the CPU."""
        extra = {}
        with contextlib.suppress(TypeError, ValueError):  # some have no signature
            if "device" in list(inspect.signature(signed).parameters)[len(arguments) :]:
                add_note(f"{self.name} has an extra parameter: device")
                extra = {"device": torch.device("cpu")}
        torch.set_grad_enabled(True)  # training may have been ended while it was off
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002, the generator that submissions use
        return function(*arguments, **extra)

    def call(
        self, args: list, init: list | None = None, method: str = "forward", grad: tuple = (), weights: Any = None
    ) -> dict:
        """Call the function, or with `init` a method of an object made from the class, with the seed 0.

        A dict among `args` stands for a critic. With `weights`, the gradients of sum(weights * value), of the first
        value where there are several, come along: for the arguments numbered in `grad`, then for the critic's w.
        """
        args = [ProbeCritic(**a) if isinstance(a, dict) else a for a in args]
        critics = [a for a in args if isinstance(a, ProbeCritic)]
        leaves = [args[i].requires_grad_() for i in grad] + [critic.w for critic in critics]
        target = self.target if init is None else self.instance(init)
        function = getattr(target, method, target)
        value = self.value(target if method == "forward" else function, args, function)
        outputs = list(value) if isinstance(value, tuple | list) else [value]
        needs_gradient = [isinstance(x, Tensor) and x.requires_grad for x in outputs]
        gradients = [None] * len(leaves)
        if weights is not None and needs_gradient[0]:
            x = outputs[0]
            x = (x.flatten() * weights.flatten()).sum() if x.numel() == weights.numel() else x.sum()
            gradients = torch.autograd.grad(x, leaves, allow_unused=True)
        parameters = list(target.parameters()) if isinstance(target, nn.Module) else []
        return {
            "value": plain(value),
            "gradients": plain(gradients),
            "requires_grad": needs_gradient,
            "seen": [x.reshape(-1, *critic.w.shape) for critic in critics for x in critic.seen],
            "trained": sum(p.numel() for p in parameters if p.requires_grad),
        }


class ProbeCritic(nn.Module):
    """f(x) = <w, x> + |x|^2 / 2 for (B, ...), which remembers where it was asked."""

    def __init__(self, w: Tensor):
        super().__init__()
        self.w, self.seen = nn.Parameter(w), []

    def forward(self, x: Tensor) -> Tensor:
        seen = x.detach().clone()
        while torch._C._functorch.is_functorch_wrapped_tensor(seen):  # by torch.func.vmap, with all examples in it
            seen = torch._C._functorch.get_unwrapped(seen)
        self.seen.append(seen)
        return (self.w * x + x**2 / 2).flatten(1).sum(1)


def plain(value: Any) -> Any:
    """What torch.load(weights_only=True) reads: tensors, and the type's name for anything else."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone().as_subclass(Tensor)
    if isinstance(value, tuple | list):
        return [plain(x) for x in value]
    return None if value is None else type(value).__name__


def limit_resources(**limits: int) -> None:
    for name, limit in limits.items():
        with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has none, others may have a lower limit
            import resource

            kind = getattr(resource, f"RLIMIT_{name}")
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def failure(error: BaseException) -> dict:
    """One line about an error in a call; `accident` where the child should not be used any longer."""
    text = describe("", error)
    if isinstance(error, TooSlow):
        return {"accident": text}
    if isinstance(error, SystemExit):
        code = (error.code or 0) if isinstance(error.code, int | None) else 1  # sys.exit("a text")
        return {"accident": f"ended the process, exit status {code}: sys.exit or os._exit?"}
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return {"accident": f"asked for more than {MEMORY >> 30} GB of memory"}
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return {"accident": f"printed or wrote more than {FILE_SIZE >> 20} MB"}
    # the submission's files are known by their paths in it
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename[0] not in "/<"]
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
    limit_resources(DATA=MEMORY, FSIZE=FILE_SIZE, CORE=0)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, check_time)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    stay_on_cpu()
    submission, process = None, os.getpid()
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        seconds, number = request.pop("seconds"), request.pop("request")
        limit_resources(CPU=int(time.process_time() + seconds) + 2)  # ends what does not come back to Python
        try:
            with limited(seconds):
                submission = submission or Submission(folder)
                reply = getattr(submission, request.pop("do"))(**request)
        except BaseException as error:
            reply = failure(error)
        if os.getpid() != process:  # a copy made by os.fork
            os._exit(0)
        send(replies, reply | {"notes": notes, "request": number})


if __name__ == "__main__":
    main()
