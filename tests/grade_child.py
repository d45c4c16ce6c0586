"""The child of grade.py: finds the definitions in a folder and answers calls to them, tensors in, tensors out.

Requests come from its standard input, replies go to its standard output, each a length in eight bytes and a dict by
torch.save, apart from what the submission reads or prints. No expected value comes here: grade.py compares.
"""

import __future__

import ast
import builtins
import contextlib
import dis
import errno
import importlib.util
import inspect
import io
import json
import math
import os
import random
import re
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from difflib import SequenceMatcher
from functools import cache, partial, wraps
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
MOST_NOTES = 5  # about one file
ON_CPU = "asks for a GPU, runs on the CPU here"
SCRIPT_ONLY = ("__name__ == '__main__'", "'__main__' == __name__")
NOT_PYTHON = "bash cmd cython html javascript js latex markdown perl R ruby script sh sql svg sx system".split()
COMMANDS = "apt apt-get cd conda curl git kaggle ls mkdir pip pip3 unzip wget".split()
word = partial(re.sub, r"\W", "_")  # a file's name as it can be imported
READ_AS = [  # lines that this Python cannot read, and what stands for them
    (r"%time\s+(.+)", r"\1"),
    (r"""%run\s+(?:-\w+\s+)*["']?(?:.*/)?(.+?)\.(?:py|ipynb)\b.*""", lambda match: f"from {word(match[1])} import *"),
    (r"((def|class) \w+)\[.*?\]([(:].*)", r"\1\3"),  # generics of Python 3.12
    (r"[%!?].*|.*\?|[^=()#]+=\s*[%!].*", "pass"),
    (rf"({'|'.join(COMMANDS)})(\s.*)?", "pass"),
]
DEFINITION = r'(?:^|")([ \t]*)(?:def|class)\s+(\w+)'  # a script's line or a string of a notebook
NEARLY = 0.85  # how alike two names are
BEGINNING = r"(?!(else|elif|except|finally)\b)[^\s#)\]}]"  # of a line that begins a statement of the top level
notes = []  # what went wrong while the submission's files were read, one line each


def send(stream: BinaryIO, message: dict) -> None:
    buffer = io.BytesIO()
    torch.save(message, buffer)
    stream.write(buffer.tell().to_bytes(8, "little") + buffer.getvalue())
    stream.flush()


def receive(stream: BinaryIO, limit: int = 1 << 28) -> dict:
    """Raises EOFError where the other side has gone, what torch.load raises for what is no message or too long."""
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    size = min(int.from_bytes(header, "little"), limit)
    return torch.load(io.BytesIO(stream.read(size)), weights_only=True)


class TooSlow(BaseException):
    """Raised in what takes too long; no Exception, so that a submission's `except Exception` lets it pass."""


limits = [(math.inf, 0, 0)]  # of a request and what is under way in it: seconds, processor time and clock at its start


def check_time(*_: Any) -> None:
    """Called ten times a second: an endless loop uses processor time, what waits for something uses none."""
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
    for name in ("set_default_device", "set_default_tensor_type"):  # torch._dynamo wants a function for each
        setattr(torch, name, lambda *_: None)
    torch.Generator = CPUGenerator
    torch.compile = lambda function=None, **_: function or torch.compile
    OnCPU().__enter__()


def add_note(line: str) -> str:
    file = re.split(r" (?:cell|line) \d", line)[0]
    if line not in notes and sum(note.startswith(file) for note in notes) < MOST_NOTES:
        notes.append(line)
    return line


def describe(place: str, error: BaseException) -> str:
    text = ""
    with contextlib.suppress(Exception):  # its text may raise, too
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        text = text.strip().split("\n")[0].replace(f"{os.getcwd()}/", "")[:10_000]
    kind = "" if isinstance(error, TooSlow) else type(error).__name__
    return ": ".join(filter(None, [place, kind, text]))


def decode(data: bytes) -> str:
    """The text of a file, in the encoding that it names, in UTF-8, UTF-16 or as Windows writes it."""
    try:
        return importlib.util.decode_source(data)
    except (SyntaxError, UnicodeDecodeError):
        return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252", errors="replace")


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
    parts = [node]
    for part in parts:  # and those that are added
        yield part
        if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            parts += ast.iter_child_nodes(part)


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
            if re.search(r"setattr$|shuffle$|[^_]_$", getattr(node.func, "attr", root(node.func))):
                stores |= {root(argument) for argument in node.args}  # nn.init.zeros_(w)
        elif isinstance(node, ast.Expr) and isinstance(getattr(node.value, "func", None), ast.Attribute):
            receivers.add(root(node.value))  # cfg.update(a=1)
    return stores, receivers


def marimo_cell(node: ast.stmt) -> list[ast.stmt]:
    """The statements of a cell of a marimo notebook, which share their names; else the statement itself."""
    is_block = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.With)
    is_cell = is_block and re.match(r"(@app\.cell|with app\.setup)\b", ast.unparse(node))
    return [part for part in node.body if not isinstance(part, ast.Return)] if is_cell else [node]


class Statement:
    """A statement of a file's top level, with the names that it reads, and those that it binds or changes in place."""

    def __init__(self, node: ast.stmt, place: str, is_script: bool = False, is_text: bool = False):
        self.node, self.file, self.place = node, place, f"{place} line {node.lineno}"
        self.is_script = is_script  # under if __name__ == "__main__"
        self.is_import = isinstance(node, ast.Import | ast.ImportFrom)
        self.is_function = isinstance(node, ast.FunctionDef)
        self.is_value = not (self.is_import or self.is_function or isinstance(node, ast.ClassDef))
        # annotations stay text, as what they name may not be installed; but dataclass and singledispatch look at them
        self.is_text = is_text or not getattr(node, "decorator_list", [])
        flags = __future__.annotations.compiler_flag if self.is_text else 0
        self.code = compile(ast.Module([node], []), self.file, "exec", flags=flags, dont_inherit=True)
        is_star = self.is_import and node.names[0].name == "*"
        self.reads, self.binds = ({"*"}, {"*"}) if is_star else names(self.code)
        self.defines = {node.name} if self.is_function else self.binds  # and not what a call of it binds
        self.stores, self.receivers = changed(here(node))
        self.calls = [part for part in here(node) if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)]
        chain = getattr(node, "value", None)  # m = cfg["m"]; group = parser.add_argument_group()
        chain = getattr(chain, "func", chain)
        self.alias_of = root(chain) if isinstance(chain, ast.Attribute | ast.Subscript) else ""
        for decorator in getattr(node, "decorator_list", []):
            self.receivers.add(root(decorator))  # which may note the function somewhere
            self.calls.append(ast.Call(decorator, [], []))

    def side_effects(self, call: ast.Call) -> set[str]:
        """Names that a call of this function binds or changes in place."""
        stores, receivers = changed(ast.walk(self.node))
        parameters = [part.arg for part in self.node.args.posonlyargs + self.node.args.args]
        given = list(zip(parameters, call.args, strict=False)) + [(key.arg, key.value) for key in call.keywords]
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
        return super().__getattribute__(name)


class Submission:
    """The files of a folder; a definition in them is taken by asking its file's Module for the name.

    That executes the statements which bind the name and what these need; an import among them asks another Module.
    """

    def __init__(self, folder: Path, output: int):
        self.folder, self.output = folder, output  # what it prints, a file's number
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
                for outer in [*node.body, *node.orelse] if is_script else marimo_cell(node):
                    for part in self.parts(path, outer):
                        yield Statement(part, place, is_script, is_text)
            except Exception as error:  # return outside of a function, or too long a sum
                add_note(describe(f"{place} line {node.lineno}", error))

    def parts(self, path: Path, node: ast.stmt) -> Iterator[ast.stmt]:
        """The statements that one stands for: an import for each name, also for those of a * in an `if` or `try`."""
        imports = [part for part in here(node) if isinstance(part, ast.Import | ast.ImportFrom)]
        for part in reversed(imports):  # what is imported in a `try` comes after its `except`
            if part is not node and part.names[0].name != "*":
                continue
            aliases, target = part.names, self.imported(path, part)
            if target and aliases[0].name == "*":
                binders = self.find_binders(target)
                hidden = "__" if "__all__" in binders else "_"
                exported = [name for name in binders if not name.startswith(hidden)]
                aliases = [ast.alias(name, lineno=part.lineno, col_offset=0) for name in exported]
            for alias in aliases:
                yield type(part)(**vars(part) | {"names": [alias]})
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
        origins, aliases, bound = {}, {}, set()
        for statement in self.read(path):
            target = self.imported(path, statement.node)
            others = self.find_binders(target).get(statement.node.names[0].name) if target else None
            origins |= dict.fromkeys(statement.defines, (others or [statement])[-1])
            bound |= set() if statement.is_script else statement.defines
        libraries = {name for name, origin in origins.items() if origin.is_import}
        for statement in self.read(path):
            # torch.manual_seed(0) makes no other torch, and trainer.train() may take long
            names = statement.stores | statement.receivers - libraries
            if statement.alias_of in origins and origins[statement.alias_of].is_value:
                names.add(statement.alias_of)
                aliases |= dict.fromkeys(statement.binds, aliases.get(statement.alias_of, statement.alias_of))
            for call in statement.calls:
                called = origins.get(root(call.func))
                names |= called.side_effects(call) if called and called.is_function else set()
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

    def find(self, name: str) -> dict:
        """Where a name is defined: file, number of binders, class around it; what was overwritten comes last."""
        found, static = [], re.compile(rf"def {name}\((?!self\b)")  # which needs no object
        for path in self.files:
            if name in self.texts[path]:
                binders = self.find_binders(path).get(name, [])
                own = [number for number, statement in enumerate(binders) if name in statement.binds]
                found += [{"file": str(path), "number": number} for number in [None, *reversed(own[1:])] if own]
                for node in (statement.node for statement in self.read(path)):
                    if isinstance(node, ast.ClassDef) and static.search(ast.unparse(node)):
                        found.append({"file": str(path), "number": None, "owner": node.name})
        found.sort(key=lambda where: where["number"] is not None)
        return {"found": found, "hint": self.hint(name)}

    def hint(self, name: str) -> str:
        """Where this name is defined and cannot be taken, or one that is nearly this."""
        for path in self.files:
            for indent, other in re.findall(DEFINITION, self.texts[path].replace("\\n", "\n"), re.MULTILINE):
                alike = SequenceMatcher(None, *(word.replace("_", "").lower() for word in (name, other))).ratio()
                if (name == other and indent) or (name != other and alike > NEARLY):
                    where = "within a class or a function of" if name == other else "in"
                    return f"`{other}` {where} {os.path.relpath(path, self.folder)}"
        return ""

    def load(self, file: str, number: int | None, name: str, owner: str = "", given: Iterable[str] = ()) -> dict:
        """Take a definition from a file, by binders up to this number or an owner, with `given` ones of torch.nn."""
        path = Path(file)
        self.modules, self.reasons, self.name = {}, [], name
        self.given = {name: getattr(nn, name) for name in given}
        with contextlib.suppress(OSError):  # deleted by the submission
            os.chdir(path.parent)
        sys.argv = [file]
        self.skipped = [] if number is None else self.find_binders(path)[name][number:]
        self.target = self.module(path)
        for part in filter(None, (owner, name)):
            self.target = getattr(self.target, part, None)
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
        seconds, began, _ = limits[1]  # of the whole request
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
                known = [decorator for decorator in decorators if root(decorator) in defined]  # with their packages
                if len(known) == len(decorators) and statement.is_text:
                    known = []
                bare = type(statement.node)(**vars(statement.node) | {"decorator_list": known})
                self.run(module, Statement(bare, statement.file, is_text=True))

    def module(self, path: Path) -> Module:
        """The module of a file, or of a folder's __init__.py, whether there is one or not."""
        if path not in self.modules:
            name = path.parent.name if path.stem == "__init__" else path.stem
            module = self.modules[path] = Module(name)
            given = self.given | {"__builtins__": vars(builtins) | {"__import__": partial(self.import_, path)}}
            module.__dict__.update(given, __file__=str(path), __submission__=self, __done__=set())
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
        for part in [] if members else name.split(".")[:0:-1]:  # import a.b.c binds a
            file, inner = self.package(file), self.module(file)
            setattr(self.module(file), part, inner)
        return self.module(file)

    @staticmethod
    def package(file: Path) -> Path:
        """The __init__.py of the package in which a module or a package is."""
        return file.parents[file.stem == "__init__"] / "__init__.py"

    def locate(self, path: Path, name: str, level: int) -> Path | None:
        """The file, in the nearest folder, that a file means by a.b.c; by b.c or c where folders were left behind."""
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
        is_package = target in self.folders and not (parts and is_installed(parts[0]))
        package = target / "__init__.py"
        return next((file for file in [package, *files] if file in self.texts), package if is_package else None)

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

    def call(self, args: list, init: Any = None, method="forward", grad: tuple = (), weights: Any = None) -> dict:
        """Call the function, or with `init` a method of an object of the class; a dict among `args` is a critic's w.

        With `weights`, the gradients of sum(weights * first value) come along: for the arguments in `grad`, then for w.
        """
        args = [ProbeCritic(**a) if isinstance(a, dict) else a for a in args]
        critics = [a for a in args if isinstance(a, ProbeCritic)]
        leaves = [args[i].requires_grad_() for i in grad] + [critic.w for critic in critics]
        if init and init[0] == "resnet18":  # torchvision takes as long to import as torch
            init = [importlib.import_module("torchvision.models").resnet18, *init[1:]]
        target = self.target if init is None else self.value(self.target, init, self.target)
        function = getattr(target, method, target)
        start = os.lseek(self.output, 0, os.SEEK_CUR)
        value = self.value(target if method == "forward" else function, args, function)
        os.lseek(self.output, start, os.SEEK_SET)
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
            "printed": os.read(self.output, FILE_SIZE).decode(errors="replace").strip().split("\n")[-1],
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
    output = os.open(folder.parent / "output.txt", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for number, target in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(target, number)
    sys.stdout.reconfigure(line_buffering=True)
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
                submission = submission or Submission(folder, output)
                reply = getattr(submission, request.pop("do"))(**request)
        except BaseException as error:
            reply = failure(error)
        if os.getpid() != process:  # a copy made by os.fork
            os._exit(0)
        send(replies, reply | {"notes": notes, "request": number})


if __name__ == "__main__":
    main()
