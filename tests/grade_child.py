"""The child of grade.py: finds the definitions of one submission and answers calls to them, tensors in, tensors out.

    python tests/grade_child.py FOLDER NAME ...

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
from collections.abc import Iterator
from functools import cache, partial
from importlib.machinery import PathFinder
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
SPARE = {"device": torch.device("cpu")}  # extra parameters that a submission may have
NOT_PYTHON = "! bash cmd cython html javascript js latex markdown perl R ruby script sh sql svg sx system".split()
COMMANDS = "apt apt-get cd conda curl git kaggle ls mkdir pip pip3 unzip wget".split()
notes = []  # what went wrong while the submission's files were read, one line each


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
        kwargs = {name: self.moved(value, name == "device") for name, value in (kwargs or {}).items()}
        if function in (Tensor.cuda, Tensor.pin_memory):
            return self.moved("cuda") and args[0]
        return function(*(self.moved(value, function is Tensor.to) for value in args), **kwargs)

    @staticmethod
    def moved(value: Any, may_be_number: bool = False) -> Any:
        named = isinstance(value, str) and re.match(r"(torch\.)?(cuda|mps)\b", value)
        numbered = may_be_number and isinstance(value, int) and not isinstance(value, bool)
        if named or numbered or (isinstance(value, torch.device) and value.type in ("cuda", "mps")):
            add_note("asks for a GPU, runs on the CPU here")
            return value.replace("torch.cuda", "torch") if named and named[1] else "cpu"
        return value


class CPUGenerator(torch.Generator):
    def __new__(cls, device: Any = None) -> "CPUGenerator":
        return super().__new__(cls)


def stay_on_cpu() -> None:
    """Have torch see no GPU, whatever a submission writes into the environment, and do nothing where one is needed."""
    torch.cuda.is_available, torch.cuda.device_count = lambda: False, lambda: 0
    torch.cuda.current_device, torch.cuda.device = lambda: 0, contextlib.nullcontext
    for name in "set_device synchronize empty_cache get_device_name get_device_properties memory_allocated".split():
        setattr(torch.cuda, name, lambda *_: None)
    for name in ("set_default_device", "set_default_tensor_type"):
        setattr(torch, name, lambda *_: None)
    for name in filter(lambda name: name.endswith("Tensor"), dir(torch.cuda)):
        setattr(torch.cuda, name, getattr(torch, name, None))
    torch.Generator = CPUGenerator
    torch.compile = lambda function=None, **_: function or torch.compile
    OnCPU().__enter__()


# --- Files ------------------------------------------------------------------------------------------------------------


def add_note(line: str) -> str:
    if line not in notes:
        notes.append(line)
    return line


def describe(place: str, error: BaseException) -> str:
    """One line about an error."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    text = text.strip().split("\n")[0].replace(f"{os.getcwd()}/", "")[:200]
    kind = "" if isinstance(error, TooSlow) else type(error).__name__
    return ": ".join(filter(None, [place, kind, text]))


def decode(data: bytes) -> str:
    """The text of a file, in the encoding that it names, in UTF-8, UTF-16 or as Windows writes it."""
    try:
        return importlib.util.decode_source(data)
    except (SyntaxError, UnicodeDecodeError):
        utf_16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if utf_16 else "cp1252", errors="replace")
        return text.replace("\r\n", "\n").replace("\r", "\n")


def cells(text: str, place: str) -> Iterator[tuple[str, str]]:
    """The Python in a file's text, with its name for messages: a script's in one piece, a notebook's in cells."""
    if not (text.lstrip().startswith("{") and '"cells"' in text):
        yield place, text
        return
    notebook = json.loads(text)
    found = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
    for number, cell in enumerate(found, 1):
        if cell["cell_type"] == "code":
            yield f"{place} cell {number}", "".join(cell.get("source", cell.get("input", "")))


def ipython(line: str) -> str | None:
    """What stands for a line that this Python cannot read: for IPython's commands pass, None for any other."""
    indent, text = re.match(r"(\s*)(.*)", line).groups()
    if timed := re.match(r"%time\s+(.+)", text):
        return indent + timed[1]
    if run := re.match(r"%run\s.*?(\w+)\.(?:py|ipynb)\b", text):
        return f"{indent}from {run[1]} import *"
    if generic := re.match(r"((?:def|class) \w+)\[[^\]]*\](.*)", text):  # Python 3.12
        return indent + generic[1] + generic[2]
    command = text.startswith(("%", "!", "?")) or text.endswith("?") or re.match(r"[^=()#]+=\s*[%!]", text)
    return indent + "pass" if command or text.split()[0] in COMMANDS else None


def leave_out(lines: list[str], at: int, tried: set[int]) -> bool:
    """Put `pass` for the line that Python cannot read, then nothing for the statement of the top level around it.

    Returns whether the line was Python, or meant to be.
    """
    while at > 0 and not lines[at].strip():
        at -= 1
    while at > 0 and lines[at - 1].endswith("\\"):
        at -= 1
    end = at + 1
    if at not in tried:
        tried.add(at)
        while end < len(lines) and lines[end - 1].endswith("\\"):
            end += 1
        line = ipython(lines[at]) if lines[at].strip() else ""
        lines[at] = re.match(r"\s*", lines[at])[0] + "pass" if line is None else line
        lines[at + 1 : end] = [""] * (end - at - 1)
        return line is None

    def inside(line: str) -> bool:
        return not line or line[0] in " \t#)]}" or bool(re.match(r"(else|elif|except|finally)\b", line))

    while at > 0 and (inside(lines[at]) or lines[at - 1].startswith("@")):
        at -= 1
    while end < len(lines) and inside(lines[end]):
        end += 1
    lines[at:end] = [""] * (end - at)
    return True


def parse(text: str, place: str) -> list[ast.stmt]:
    """The statements of a text but those that cannot be read."""
    lines, tried, told = re.split("\r?\n", text), set(), -1
    for _ in range(300):
        try:
            return ast.parse("\n".join(lines)).body
        except SyntaxError as error:
            header = re.search(r" on line (\d+)", error.msg)  # of a block that is missing
            number = min(int(header[1]) if header else error.lineno or 1, len(lines))
            if leave_out(lines, number - 1, tried) and number > told + 1:  # the next line's is a consequence
                add_note(describe(place if " cell " in place else f"{place} line {number}", error))
                told = number
    return []


def read(path: Path, place: str, text: str) -> Iterator["Statement"]:
    """The statements of a file's cell; a line that begins with %% may say that it is something else."""
    magic = re.match(r"\s*%%(\S+)(.*)\n?", text)
    name, argument = (magic[1], magic[2].strip()) if magic else ("", "")
    if name in ("writefile", "file"):
        parts = [part for part in Path(argument).parts if part not in ("-a", "..")]
        target = path.parent.joinpath(*parts[-1:] if argument.startswith("/") else parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text[magic.end() :], encoding="utf-8")
    if name in NOT_PYTHON:
        return
    for node in parse("\n" + text[magic.end() :] if magic else text, place):
        if isinstance(node, ast.Expr) and "get_ipython().run_" in (source := ast.unparse(node)):
            # what nbconvert makes of a magic
            values = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            kind = "%%" if "run_cell_magic" in source else "%"
            yield from read(path, place, kind + " ".join(values[:2]) + "\n" + "".join(values[2:]))
            continue
        for part in top_level(node):
            try:
                yield Statement(part, place)
            except (SyntaxError, ValueError) as error:  # return outside of a function
                add_note(describe(f"{place} line {part.lineno}", error))


def top_level(node: ast.stmt) -> Iterator[ast.stmt]:
    """The statements that one stands for: one for each imported name, none for what runs as a script only."""
    if isinstance(node, ast.If) and re.search("__name__ == '__main__'|'__main__' == __name__", ast.unparse(node.test)):
        for other in node.orelse:
            yield from top_level(other)
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            part = copy.copy(node)
            part.names = [alias]
            yield part
    else:
        yield node


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
            body_of_class = "__qualname__" in inner_binds
            reads |= inner_reads - inner_binds if body_of_class else inner_reads
            binds |= set() if body_of_class else inner_binds
    return reads, binds


def here(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are executed with a statement, those of functions and classes in it left out."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from here(child)


def root(node: ast.AST) -> str:
    """The name at the beginning of a chain such as cfg["a"].b.update."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", "")


class Statement:
    """A statement of a file's top level, with the names that it reads, and those that it binds or changes in place."""

    def __init__(self, node: ast.stmt, place: str):
        self.node, self.file, self.place = node, place, f"{place} line {node.lineno}"
        self.code = self.compile(node)
        self.reads, self.binds = names(self.code)
        self.is_import = isinstance(node, ast.Import | ast.ImportFrom)
        if self.is_import and node.names[0].name == "*":
            self.binds = {"*"}
        self.is_definition = isinstance(node, ast.FunctionDef | ast.ClassDef)
        self.words = set(re.findall(r"\w+", ast.unparse(node)))
        if not self.is_definition and self.reads & {"exec", "globals", "vars"}:
            self.binds, self.reads = self.binds | self.words, self.reads | self.words  # globals()["x"] = 1
        self.changes, self.methods, self.calls = set(), set(), {}
        for decorator in getattr(node, "decorator_list", []):  # which may note the function somewhere
            self.methods.add(root(decorator))
            self.calls[root(decorator)] = set()
        for part in here(node):
            if isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load):
                self.changes.add(root(part))  # cfg["a"] = 1
            if isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):
                self.methods.add(root(part.value.func))  # cfg.update(a=1)
            if isinstance(part, ast.Call):
                arguments = {root(argument) for argument in part.args}
                self.calls[root(part.func)] = arguments  # set_up(cfg)
                if re.search(r"setattr$|shuffle$|[^_]_$", ast.unparse(part.func)):
                    self.changes |= arguments  # nn.init.zeros_(w)

    def compile(self, node: ast.stmt) -> CodeType:
        # annotations stay text: nothing graded depends on them, and what they name may not be installed
        flags = __future__.annotations.compiler_flag
        return compile(ast.Module([node], []), self.file, "exec", flags=flags, dont_inherit=True)

    def side_effects(self, arguments: set[str]) -> set[str]:
        """Names that a call of this function with these arguments binds or changes in place."""
        parts = [part for part in ast.walk(self.node) if isinstance(part, ast.Attribute | ast.Subscript)]
        stores = {root(part) for part in parts if isinstance(part.ctx, ast.Store)}
        parameters = {part.arg for part in ast.walk(self.node.args) if isinstance(part, ast.arg)}
        changed = arguments if stores & parameters else set()
        return self.binds - {self.node.name} | stores & self.reads | changed

    def is_stub(self, known: set[str]) -> bool:
        """Whether a function or a method returns nothing, raises at once or reads a name that is bound nowhere."""
        functions = [part for part in getattr(self.node, "body", []) if isinstance(part, ast.FunctionDef)]
        functions = [part for part in functions if part.name in ("forward", "loss", "__call__")]
        for function in [self.node] if isinstance(self.node, ast.FunctionDef) else functions:
            values = [part.value for part in ast.walk(function) if isinstance(part, ast.Return)]
            if all(value is None or isinstance(value, ast.Constant) for value in values):
                return True
            if any(isinstance(part, ast.Raise) for part in function.body):
                return True
        return not self.reads <= known | set(dir(builtins))


def imported(node: ast.Import | ast.ImportFrom) -> tuple[str, int]:
    """The module that a statement imports, and how many folders above its own."""
    if isinstance(node, ast.Import):
        return node.names[0].name, 0
    return node.module or "", node.level


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
    """The files of a folder and the definitions in them."""

    def __init__(self, folder: Path, graded: list[str]):
        self.folder, self.graded = folder, graded
        self.texts, self.statements, self.binders = {}, {}, {}
        self.targets, self.instances, self.loaded, self.slow = {}, {}, {}, {}
        while new := {path for path in folder.rglob("*") if path.suffix in SOURCES} - set(self.texts):
            for path in sorted(new):
                self.texts[path] = decode(path.read_bytes()).replace("\0", "")
                if "%%writefile" in self.texts[path]:  # a cell that makes another file
                    self.read(path)
        self.files = sorted(self.texts, key=lambda path: (len(path.parts), path))  # the outer ones first
        self.folders = list(dict.fromkeys(path.parent for path in self.files))
        self.packages = {folder for path in self.files for folder in path.parents}

    def read(self, path: Path) -> list[Statement]:
        """The statements of a file; none for an __init__.py that is not there."""
        if path not in self.statements:
            place = path.relative_to(self.folder).as_posix()
            self.statements[path] = []
            try:
                with limited(FILE_SECONDS):
                    for name, text in cells(self.texts.get(path, ""), place):
                        self.statements[path] += read(path, name, text)
            except (Exception, TooSlow) as error:
                add_note(describe(place, error))
        return self.statements[path]

    def find_binders(self, path: Path) -> dict[str, list[Statement]]:
        """For each name in a file the statements that bind it, change it in place or call what does."""
        if path in self.binders:
            return self.binders[path]
        binders = self.binders[path] = defaultdict(list)
        statements, modules = [], set()
        for statement in self.read(path):
            target = statement.is_import and self.locate(path, *imported(statement.node))
            if target and statement.node.names[0].name == "*":
                for name in self.find_binders(target[1]):
                    if not name.startswith("_"):
                        node = copy.copy(statement.node)
                        node.names = [ast.alias(name, lineno=node.lineno, col_offset=0)]
                        statements.append(Statement(node, statement.file))
            else:
                statements.append(statement)
                if statement.is_import and not (target and isinstance(statement.node, ast.ImportFrom)):
                    modules |= statement.binds
        self.statements[path] = statements
        functions = {s.node.name: s for s in statements if isinstance(s.node, ast.FunctionDef)}
        for statement in statements:
            changed = statement.changes | statement.methods
            for name, arguments in statement.calls.items():
                changed |= functions[name].side_effects(arguments) if name in functions else set()
            changed -= modules  # torch.manual_seed(0) makes no other torch, and trainer.train() may take long
            if isinstance(statement.node, ast.Assign):
                changed |= statement.changes  # torch.Tensor.norm2 = norm2
            for name in statement.binds | changed:
                binders[name].append(statement)
            if statement.reads & {"eval", "getattr", "globals"}:
                statement.reads |= statement.words & set(functions)
        for name in set(self.graded) & set(binders):
            stubs = [s for s in binders[name] if s.is_definition and self.is_stub(path, s)]
            if any(s.is_definition and s not in stubs for s in binders[name]):
                binders[name] = [s for s in binders[name] if s not in stubs]
        return binders

    def places(self) -> set[str]:
        """The names by which error messages know the files and cells."""
        return {statement.file for statements in self.statements.values() for statement in statements}

    def is_stub(self, path: Path, statement: Statement) -> bool:
        binders = self.binders[path]
        return statement.is_stub(statement.reads if "*" in binders else set(binders))

    def find(self, name: str, preferred: list[str]) -> dict:
        """Where a name is defined, [file, number of the statement or None for all], the most promising first."""
        wholes, parts = [], []
        for path in self.files:
            if name not in self.texts[path]:
                continue
            binders = [s for s in self.find_binders(path).get(name, []) if name in s.binds]
            definitions = [s for s in binders if s.is_definition]
            if binders:
                rank = preferred.index(path.name) if path.name in preferred else len(preferred)
                stub = bool(definitions) and self.is_stub(path, definitions[-1])
                wholes.append((stub, all(s.is_import for s in binders), rank, [str(path), None]))
            if len(binders) > 1:
                parts += [[str(path), self.statements[path].index(s)] for s in reversed(definitions)]
        wholes.sort(key=lambda whole: whole[:3])
        return {"found": [whole[3] for whole in wholes] + parts}

    def load(self, file: str, only: int | None, name: str) -> dict:
        """Take a definition from a file, in modules of its own; with `only`, from that statement alone."""
        path = Path(file)
        if self.loaded.get(name) != (file, only):
            self.loaded[name], self.modules, self.reasons = (file, only), {}, []
            os.chdir(path.parent)
            sys.argv = [file]
            binders = self.find_binders(path)
            whole = binders[name]
            if only is not None:
                binders[name] = [self.statements[path][only]]
            self.targets[name] = getattr(self.module(path), name, None)
            binders[name] = whole
        return {"found": self.targets[name] is not None, "reasons": self.reasons}

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
        seconds, began, _ = limits[0]
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
            elif getattr(statement.node, "decorator_list", []):
                bare = copy.copy(statement.node)
                bare.decorator_list = []
                with contextlib.suppress(Exception):
                    exec(statement.compile(bare), module.__dict__)

    def module(self, path: Path) -> Module:
        """The module of a file, or of a folder's __init__.py, whether there is one or not."""
        if path not in self.modules:
            name = path.parent.name if path.stem == "__init__" else path.stem
            module = self.modules[path] = Module(name)
            imports = vars(builtins) | {"__import__": partial(self.import_, path)}
            module.__dict__.update(__file__=str(path), __submission__=self, __done__=set(), __builtins__=imports)
            if isinstance(sys.modules.get(name, module), Module):  # dataclasses look there
                sys.modules[name] = module
        return self.modules[path]

    def import_(
        self, path: Path, name: str, names: Any = None, local: Any = None, members: tuple = (), level: int = 0
    ) -> ModuleType:
        """What the import statements of a file call."""
        found = self.locate(path, name, level)
        if not found and members:  # a module of a package
            top = (self.locate(path, f"{name}.{members[0]}", level) or [None])[0]
            found = top and (top, top)
        if found:
            return self.module(found[1] if members else found[0])
        return __import__(name, names, local, members, level)

    def locate(self, path: Path, name: str, level: int) -> tuple[Path, Path] | None:
        """The files of a.b.c's first and last part, as a file of the submission means them: its own folder's first."""
        parts = name.split(".") if name else []
        near = [folder for folder in path.parents if folder.is_relative_to(self.folder)]
        if level:
            near = near[level - 1 : level]
        for folder in near:
            if self.at(folder, parts):
                return self.at(folder, parts[:1]), self.at(folder, parts)
        if parts and (level or not is_installed(parts[0])):
            for folder in self.folders:
                if self.at(folder, parts):
                    return self.at(folder, parts[:1]), self.at(folder, parts)
            # the folder around the files was left behind when they were packed
            inner = self.locate(path, ".".join(parts[1:]), 0) if parts[1:] else None
            return inner and (inner[0].parents[inner[0].stem == "__init__"] / "__init__.py", inner[1])
        return None

    def at(self, folder: Path, parts: list[str]) -> Path | None:
        """The file of a module in a folder; of a package, its __init__.py, whether there is one or not."""
        target = folder.joinpath(*parts)
        files = [target.with_name(f"{target.name}{suffix}") for suffix in SOURCES] if parts else []
        for file in [target / "__init__.py", *files]:
            if file in self.texts:
                return file
        is_package = target in self.packages and not (parts and is_installed(parts[0]))
        return target / "__init__.py" if is_package else None

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


def limit_resources(**limits: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, limit in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        with contextlib.suppress(OSError, ValueError):  # where the system has a lower limit already
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def failure(error: BaseException, files: set[str]) -> dict:
    """One line about an error in a call; `accident` where the child should not be used any longer."""
    text = str(error)
    if isinstance(error, TooSlow):
        return {"accident": text}
    if isinstance(error, SystemExit):
        return {"accident": f"ended the process, exit status {error.code or 0}: sys.exit or os._exit?"}
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
    limit_resources(DATA=MEMORY, FSIZE=FILE_SIZE, CORE=0)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, check_time)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    stay_on_cpu()
    submission = None
    send(replies, {"ready": True})
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        seconds = request.pop("seconds")
        # ends what does not come back to Python
        limit_resources(CPU=int(time.process_time() + seconds) + 2)
        try:
            with limited(seconds):
                submission = submission or Submission(folder, sys.argv[2:])
                reply = getattr(submission, request.pop("do"))(**request)
        except BaseException as error:
            reply = failure(error, submission.places() if submission else set())
        send(replies, reply | {"notes": notes})


if __name__ == "__main__":
    main()
