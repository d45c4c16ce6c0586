"""What the three scripts share: command line, device, data, figures, files, and two tricks for speed."""

import argparse
import errno
import hashlib
import io
import math
import os
import platform
import re
import shlex
import shutil
import socket
import sys
import tempfile
import textwrap
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

with patch.dict(os.environ, MPLBACKEND=""):  # a notebook's may name one that is not installed here
    first = "matplotlib" not in sys.modules
    import matplotlib.style
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.datasets import CIFAR10, MNIST, SVHN
from torchvision.datasets.utils import download_url

from data.synthetic import synthetic_data

if first:  # else it may have another one by now
    with suppress(KeyError, ValueError):
        matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"]

ROOT = Path(__file__).resolve().parent
default_style = partial(matplotlib.style.context, "default")  # the user's may ask for LaTeX or other colours


class InputError(Exception):
    """Bad input; the message says in one line what is wrong and what to do."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors."""

    def flag(self, name: str, kind: Callable, default: object, text: str, **more: object) -> None:
        """Add a flag to the present group, with its default in its help."""
        text += "" if default is None else " (default: %(default)s)"
        self.group.add_argument(name, type=kind, default=default, help=text, **more)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the flags)")


def _number(kind: type, low: float, high: float, description: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {description}")
        return value

    return parse


natural = _number(int, 0, 2**31 - 1, "a whole number from 0 to 2^31 - 1")
positive_int = _number(int, 1, 2**31 - 1, "a whole number from 1 to 2^31 - 1")
two_or_more = _number(int, 2, 2**31 - 1, "a whole number from 2 to 2^31 - 1")
positive_float = _number(float, sys.float_info.min, sys.float_info.max, "a finite number above 0")


def make_parser(description: str, script: str, data: list[str], quick: dict) -> Parser:
    """Return a parser with the flags that all scripts have.

    `data` lists the data sets, the default first; `quick` holds the defaults that --quick changes.
    """
    changes = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in quick.items())
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(f"{script}.py", description=description, formatter_class=raw, allow_abbrev=False)
    parser.data_sets, flag = data, parser.flag
    parser.group = parser.add_argument_group("data, folders, device", "default folders are in the repository")
    flag("--data", str, data[0], f"{', '.join(data)}, or NAME for your own images in DATA_DIR/NAME.npz")
    flag("--data-dir", Path, None, "folder of the data sets, downloaded when absent (default: data)")
    flag("--out", Path, None, f"folder for figures, metrics and checkpoints (default: results/{script}[_DATA])")
    flag("--device", str, "auto", "auto (cuda, else mps, else cpu), cpu, cuda, cuda:1, mps")
    add = parser.group.add_argument
    add("--quick", action="store_true", help=f"short pass into results/quick/{script}: --data synthetic {changes}")
    add = parser.group.add_mutually_exclusive_group().add_argument
    add("--restart", action="store_true", help="discard the named checkpoints in OUT first, as --quick does in its own")
    add("--figures-only", action="store_true", help="draw the curves and the page again from OUT/metrics.json alone")
    add("--download", action="store_true", help="fetch the data set, if it is absent, and end")
    parser.group = parser.add_argument_group("recipe")
    flag("--seed", natural, 0, "seed of everything random except the synthetic data")
    flag("--repeats", positive_int, 1, "number of seeds to train, counted up from SEED")
    return parser


def parse_args(parser: Parser, argv: list[str] | None, quick: dict) -> argparse.Namespace:
    """Parse `argv`; --quick changes the defaults to `quick`. InputError for nonsense, and for what is not there."""
    script, default_data = Path(parser.prog).stem, parser.get_default("data")
    args = parser.parse_args(argv)
    if args.quick:
        parser.set_defaults(data="synthetic", out=from_here("results", "quick", script), **quick)
        args = parser.parse_args(argv)
        args.restart |= args.out == parser.get_default("out")  # elsewhere a long training may lie
    nothing = argparse.Namespace(**dict.fromkeys(vars(args)))  # a value that is there is not set to its default
    args.given = {name for name, value in vars(parser.parse_args(argv, nothing)).items() if value is not None}
    if args.figures_only:
        for flag in sorted(args.given - {"figures_only", "quick", "data", "data_dir", "out", "device"}):
            raise InputError(f"--figures-only draws what metrics.json holds; leave out --{flag.replace('_', '-')}")
    args.data_dir = args.data_dir or from_here("data")
    own = args.data_dir / f"{args.data}.npz"
    is_own = re.fullmatch(r"[\w-]+", args.data) and (own.exists() or args.figures_only)
    if args.data not in parser.data_sets and not is_own:
        raise InputError(f"--data {args.data}: give {', '.join(parser.data_sets)}, or NAME of {args.data_dir}/NAME.npz")
    if args.out is None:  # other data must not stand where the assignment's is expected
        args.out = from_here("results", script if args.data == default_data else f"{script}_{args.data}")
    args.device = choose_device(args.device)
    args.command = command(parser.prog, sys.argv[1:] if argv is None else argv)
    args.code = hashlib.sha256((ROOT / parser.prog).read_bytes()).hexdigest()[:12]
    return args


def from_here(*parts: str) -> Path:
    """Return a path in the repository as it is called from the current folder."""
    with suppress(ValueError):  # it is on another drive
        return Path(os.path.relpath(ROOT.joinpath(*parts)))
    return ROOT.joinpath(*parts)


def command(script: str, flags: list[str]) -> str:
    """Return a script's command without --restart, which would discard what is done."""
    return shlex.join(["python", script, *(flag for flag in flags if flag != "--restart")])


def run(main: Callable[[], None]) -> NoReturn:
    """Call `main` and exit: 0, 2 with one line for bad input, 130 with the command to run again after Ctrl-C."""
    script = Path(sys.argv[0]).name
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed; a file that is opened later must not take its place
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        if hasattr(getattr(sys, name), "reconfigure"):  # which a notebook's lacks
            # what the terminal's encoding lacks becomes "?", and each line is in a log file at once
            getattr(sys, name).reconfigure(errors="replace", line_buffering=True)
    status, message = 0, ""
    try:
        main()
    except (InputError, ImportError, MemoryError, OSError, RuntimeError) as error:
        lack = is_out_of_memory(error)
        if isinstance(error, RuntimeError) and not lack:
            raise
        status, message = 2, f"{script}: {'not enough memory; what was saved is kept' if lack else error}\n"
    except KeyboardInterrupt as error:
        begin = f"{error}; " if error.args else ""
        status, message = 130, f"\ninterrupted; {begin}run again: {command(script, sys.argv[1:])}\n"
    try:
        sys.stderr.write(message)
        sys.stdout.flush()
    except OSError:  # else Python says so once more, at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def is_out_of_memory(error: Exception) -> bool:
    texts = "DefaultCPUAllocator|MPS backend out of memory"  # torch has no class of its own for these
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(re.search(texts, str(error)))


def choose_device(name: str) -> torch.device:
    """Return the device called `name`, or for 'auto' cuda, mps or cpu; InputError if it cannot compute."""
    best = "cuda" if torch.cuda.device_count() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(best if name == "auto" else name)
        (torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)).sum().item()
    except (RuntimeError, AssertionError, ImportError, OSError) as error:  # an old card, no driver, a foreign build
        reason = textwrap.shorten(str(error), 120) or type(error).__name__
        if name != "auto" or is_out_of_memory(error):  # a full GPU is no reason to take a day on the CPU
            raise InputError(f"device {name!r} cannot be used: {reason}; give --device cpu") from error
        print(f"{best} is there but cannot be used: {reason}", file=sys.stderr)
        return torch.device("cpu")
    return device


def describe(device: torch.device) -> str:
    """Return the device in words, with the model of the processor, for the log and the metrics."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search("model name\t: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    model = found[1] if found else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{device.type} ({model}, {threads} thread{'s' if threads > 1 else ''})"


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout of images and kernels that is fast on `device`."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


class SmallMapConv2d(nn.Conv2d):
    """nn.Conv2d of 3x3, padding 1, one group, no bias that takes maps of 1x1 and 2x2 as one matrix product on the CPU.

    There every output sees the whole map, through the part of the kernel that begins at 1 - stride * its position, so
    that nothing is multiplied by the padding's zeros.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, stride = x.shape[-1], self.stride[0]
        if x.shape[-2:] not in ((1, 1), (2, 2)) or x.device.type != "cpu":
            return super().forward(x)
        starts = range(1, 1 - n, -stride)
        kernels = torch.stack([self.weight[:, :, i : i + n, j : j + n] for i in starts for j in starts])
        weight = kernels.permute(0, 1, 3, 4, 2).flatten(2).flatten(0, 1)  # (outputs, inputs), channels last in both
        y = F.linear(x.permute(0, 2, 3, 1).flatten(1), weight)
        return y.view(len(x), len(starts), len(starts), -1).permute(0, 3, 1, 2)


def use_small_map_convolutions(network: nn.Module) -> None:
    """Make all convolutions of `network` that SmallMapConv2d equals ones of that class, with the same parameters."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            kind = module.kernel_size, module.padding, module.dilation, module.groups, module.bias
            if kind == ((3, 3), (1, 1), (1, 1), 1, None):
                module.__class__ = SmallMapConv2d


def replayed(
    iterate: Callable[[], Tensor], optimizers: Iterable[torch.optim.Optimizer], device: torch.device
) -> Iterator[Tensor]:
    """Yield what `iterate` returns, again and again; on CUDA from the fourth time on as a replayed CUDA graph.

    Launching the kernels one by one takes three times as long. A graph holds addresses: `iterate` may only use tensors
    on the device that are never replaced, a Python number keeps its value, and each output overwrites the last.
    """
    if device.type != "cuda":
        while True:
            yield iterate()
    stream = torch.cuda.Stream(device)
    for _ in range(3):  # a capture needs these, on its stream
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            output = iterate()
        torch.cuda.current_stream(device).wait_stream(stream)
        yield output
    graph, groups = torch.cuda.CUDAGraph(), [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        group["capturable"] = True  # else Adam refuses
    with torch.cuda.graph(graph, stream=stream):
        output = iterate()
    for group in groups:  # a checkpoint is the same on every device
        group["capturable"] = False
    while True:
        graph.replay()
        yield output


def check_finite(value: Tensor | float, what: str) -> None:
    """Raise InputError if `value`, in words `what`, is not finite."""
    if not torch.isfinite(torch.as_tensor(value)).all():
        raise InputError(f"{what} is not finite; what was saved before is kept; try a lower --lr and another --out")


def time_to_go(start: float, done: int, total: int) -> timedelta:
    """Return the time that `total` - `done` take at the rate since `start`, a time of time.perf_counter."""
    return timedelta(seconds=round((time.perf_counter() - start) / done * (total - done)))


def mean(values: Tensor) -> float:
    """Mean in float64, on the CPU, as mps has no float64."""
    return float(values.cpu().double().mean())


@contextmanager
def reading(damaged: str) -> Iterator[None]:
    """Turn any error of a reader into an InputError that says `damaged`, but those that say nothing about the file."""
    try:
        yield
    except Exception as error:
        damages = (None, errno.ENOENT, errno.EINVAL)  # a decoder's own error, a missing file, a seek past the end
        system = isinstance(error, OSError) and error.errno not in damages
        if system or isinstance(error, InputError | ImportError) or is_out_of_memory(error):
            raise
        raise InputError(damaged) from error


def check_zip(path: Path) -> None:
    """Raise ValueError where a checksum is wrong: torch.load compares none, np.load only of what it reads whole."""
    with zipfile.ZipFile(path) as file:
        if file.testzip():
            raise ValueError


def write(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file whole or not at all; InputError, with what was there kept, if it cannot be written."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")  # separate jobs may write the same file
    try:
        # a folder's name need not be UTF-8
        part.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        for wait in (0.1, 0.5, 2.0):  # seconds in which a virus scanner may hold the target, on Windows
            try:
                part.replace(path)
                return
            except PermissionError:
                time.sleep(wait)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}") from error


AMAT_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
AMAT_MD5 = {
    "train": "db28b1a6ae0fe70cbd3da91acf46e477",
    "valid": "bf37822a04e94123630de6a7dfd9c9ef",
    "test": "14e41ae11040adba6ab8cb291eda0dd8",
}


def sweep(left: Iterable[Path]) -> None:
    """Remove what killed runs left, where it is older than a day."""
    for path in left:
        with suppress(OSError):  # somebody else's, or gone
            if time.time() - path.stat().st_mtime > 24 * 60 * 60:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def load_data(name: str, data_dir: Path) -> dict:
    """Load a data set into memory; InputError for missing or damaged files.

    Returns the text `source` and uint8 arrays: `train_images`, `test_images` and perhaps `valid_images`, N x H x W or
    N x H x W x 3, and `train_labels`, `test_labels` (not for the .amat files).
    """
    sweep([*data_dir.glob(".download-*"), *data_dir.glob("binarized_mnist/.download-*")])
    path = data_dir / f"{name}.npz"
    if path.exists():
        return load_npz(path)
    if name == "synthetic":
        return synthetic_data(60_000, 10_000)
    return load_amat(data_dir) if name == "binarized_mnist" else load_torchvision(name, data_dir)


def load_rgb(args: argparse.Namespace) -> dict:
    """Return the data set of `args` on the device, with its `source`; InputError for images of another size.

    train_images, test_images: (N, 3, 32, 32) uint8, in the device's `memory_format`; grey images get three equal
    channels, 28 x 28 a black border. train_labels, test_labels: (N,) int64.
    """
    data = load_data(args.data, args.data_dir)
    rgb = {"source": data["source"]}
    for split in ("train", "test"):
        images = torch.tensor(data[f"{split}_images"])
        if len(images) < 4:
            raise InputError(f"{data['source']}: at least four {split} images are needed")
        if images.shape[1:3] not in ((28, 28), (32, 32)):
            raise InputError(f"{data['source']}: images are {tuple(images.shape[1:])}; 32 x 32 or 28 x 28 is needed")
        images = images.permute(0, 3, 1, 2) if images.dim() == 4 else images[:, None].expand(-1, 3, -1, -1)
        images = F.pad(images, [(32 - images.shape[-1]) // 2] * 4).contiguous(memory_format=memory_format(args.device))
        rgb[f"{split}_images"] = images.to(args.device)
        rgb[f"{split}_labels"] = torch.tensor(data[f"{split}_labels"]).long().to(args.device)
    return rgb


def load_npz(path: Path) -> dict:
    """Load the one-file format that `load_data` returns; InputError if a key, shape, type or label is wrong."""
    with reading(f"{path} cannot be read as .npz; delete or replace it"):
        check_zip(path)
        with path.open("rb") as raw, np.load(raw) as file:
            data = {key: file[key] for key in file.files}
        source = str(data.pop("source", np.array("")).item())
    check_arrays(data, path)
    if not source:
        raise InputError(f"{path} lacks source; see data/README.md for the format")
    return data | {"source": source}


def check_arrays(data: dict, path: Path) -> None:
    """Raise InputError unless `data` from `path` holds images and labels as `load_data` promises."""
    required = {"train_images", "train_labels", "test_images", "test_labels"}
    if missing := sorted(required - data.keys()):
        raise InputError(f"{path} lacks {', '.join(missing)}; see data/README.md for the format")
    for key in sorted((required | {"valid_images"}) & data.keys()):
        array, labels = np.asarray(data[key]), key.endswith("labels")
        shape_ok = array.ndim == 1 if labels else array.ndim == 3 or array.shape[3:] == (3,)
        if not shape_ok or array.dtype != np.uint8 or not array.size:
            raise InputError(f"{path}: {key} is {array.dtype} {array.shape}; see data/README.md for the format")
        if labels and (len(array) != len(data[key.replace("labels", "images")]) or array.max() > 9):
            raise InputError(f"{path}: {key} must hold one label from 0 to 9 for each image")


def load_amat(data_dir: Path) -> dict:
    """Load Larochelle's binarized MNIST, downloaded when absent."""
    folder, data = data_dir / "binarized_mnist", {}
    for split, md5 in AMAT_MD5.items():
        path = folder / f"binarized_mnist_{split}.amat"
        if not path.exists():
            with downloading("binarized MNIST", folder, [], "--data mnist binarises MNIST in its place") as part:
                download_url(AMAT_URL + path.name, part, md5=md5)
        raw = path.read_bytes()
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != md5:
            raise InputError(f"{path} has the wrong MD5; delete it to download it again")
        # Each pixel is a digit and a separator, so the digits are every other byte.
        data[f"{split}_images"] = (np.frombuffer(raw, np.uint8)[::2] - ord("0")).reshape(-1, 28, 28)
    return data | {"source": "binarized MNIST (Larochelle's files, MD5 checked)"}


MNIST_FILES = [f"MNIST/raw/{p}-{kind}-ubyte" for p in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
ARCHIVES = {"mnist": "MNIST/raw/*.gz", "cifar10": "cifar-10-python.tar.gz"}  # that may have been fetched by hand


def load_torchvision(name: str, data_dir: Path) -> dict:
    """Load mnist, svhn or cifar10 with torchvision's class; downloaded, with its checksums, when absent."""
    data, kind = {}, {"mnist": MNIST, "svhn": SVHN, "cifar10": CIFAR10}[name]
    for split in ("train", "test"):
        open_split = partial(kind, **({"split": split} if name == "svhn" else {"train": split == "train"}))
        last = {"svhn": f"{split}_32x32.mat", "cifar10": "cifar-10-batches-py/test_batch"}.get(name)
        needed = [last] if last else MNIST_FILES
        if not all((data_dir / file).exists() for file in needed):
            archives = data_dir.glob(ARCHIVES[name]) if name in ARCHIVES else []
            with downloading(name, data_dir, archives, "--data synthetic needs none") as part:
                open_split(part, download=True)
        text = f"is damaged or incomplete; complete it, or delete {Path(needed[0]).parts[0]} to download it again"
        with reading(f"{name} in {data_dir} {text}"):
            dataset = open_split(data_dir)
            if name == "svhn":
                images, labels = dataset.data.transpose(0, 2, 3, 1), dataset.labels
            else:
                images, labels = np.asarray(dataset.data), dataset.targets
            data[f"{split}_images"], data[f"{split}_labels"] = images, np.asarray(labels, np.uint8)
    check_arrays(data, data_dir / needed[0])
    return data | {"source": f"{type(dataset).__name__} (torchvision)"}


@contextmanager
def downloading(name: str, folder: Path, archives: Iterable[Path], instead: str) -> Iterator[str]:
    """Yield a temporary folder to download to, with `archives` of `folder`; then move into it what is not there."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # seconds, as torchvision waits for ever
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as part:
            for archive in archives:
                copy = Path(part, archive.relative_to(folder))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(archive, copy)
            yield part
            for path in sorted(path for path in Path(part).rglob("*") if path.is_file()):  # CIFAR-10's test_batch last
                target = folder / path.relative_to(part)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():  # another job may have been faster
                    path.replace(target)
    except (RuntimeError, OSError, HTTPException) as error:
        with suppress(OSError):  # if it is empty
            folder.rmdir()
        reason = textwrap.shorten(str(error), 120) or type(error).__name__
        text = f"no {name} in {folder}, and its download failed ({reason}); see data/README.md; {instead}"
        raise InputError(text) from error
    finally:
        socket.setdefaulttimeout(timeout)


def subplots(rows: int, columns: int, width: float = 4.2, height: float = 3.7) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns), each of `width` times `height` inches, for curves."""
    figure = Figure(figsize=(max(6, width * columns), height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.grid(alpha=0.3)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Write a compact PNG, with one legend of the labelled lines below, unless a panel has its own."""
    entries = {}  # each label once
    for axes in figure.axes:
        entries |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if entries and not any(axes.get_legend() for axes in figure.axes):
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", pil_kwargs={"optimize": True})
    write(path, buffer.getbuffer())


def draw_strips(
    rows: dict, labels: list, title: str, path: Path, gaps: list[int], digits: list[list[int]] | None = None
) -> None:
    """Write rows of images, tensors (N, 3, 32, 32) in [-1, 1], their names on the left, `labels` above the columns.

    gaps: the rows that stand apart from those above. digits: a row for each row of images, written under the images,
    "?" where they are negative.
    """
    height, width = 36 if digits is None else 54, 36  # pixels of a cell: the image, a border, and room for a digit
    tops = [height * row + 12 * sum(gap <= row for gap in gaps) for row in range(len(rows))]
    canvas = np.ones((tops[-1] + height, width * len(labels), 3))
    figure, ((axes,),) = subplots(1, 1, 10.5, 9 * len(canvas) / canvas.shape[1] + 0.8)
    for row, (top, images) in enumerate(zip(tops, rows.values(), strict=True)):
        for column, image in enumerate(images.cpu().clip(-1, 1) / 2 + 0.5):
            canvas[top : top + 32, width * column : width * column + 32] = image.permute(1, 2, 0)
            if digits:
                text = "?" if digits[row][column] < 0 else str(digits[row][column])
                axes.text(width * column + 16, top + 42, text, size=8, ha="center", va="center")
    axes.grid(False)
    axes.imshow(canvas, interpolation="nearest")
    axes.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([width * column + 16 for column in range(len(labels))], labels)
    axes.set_yticks([top + 16 for top in tops], list(rows))
    axes.set_title(title, fontsize=10)
    save_figure(figure, path)
