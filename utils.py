"""What the three scripts share: command line, device, data, checkpoints and what a run leaves behind."""

import argparse
import hashlib
import io
import itertools
import json
import math
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import NoReturn

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.datasets import CIFAR10, MNIST, SVHN
from torchvision.datasets.utils import download_url
from torchvision.utils import make_grid

from data.synthetic import synthetic_data

MODES = ("--resume", "--restart", "--figures-only")
OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
OUT_OF_MEMORY += ("MPS backend out of memory",)  # torch has no class of its own for these


class InputError(Exception):
    """Bad input; the message says in one line what is wrong and what to do."""


# --- Command line -----------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the flags)")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the docstring's line breaks and append the defaults, but not to switches."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


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
    parser = Parser(prog=f"{script}.py", description=description, formatter_class=HelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--data", choices=data, default=data[0], help="data set; DATA_DIR/<name>.npz is taken first")
    add("--data-dir", type=Path, default=Path("data"), help="folder of the data sets, downloaded when absent")
    add("--out", type=Path, help=f"folder for figures, metrics and checkpoints (default: results/{script}[_DATA])")
    add("--seed", type=natural, default=0, help="seed of everything random except the synthetic data")
    add("--device", default="auto", help="auto (cuda, else mps, else cpu), cpu, cuda, cuda:1, mps")
    add("--quick", action="store_true", help=f"short pass into results/quick/{script}: --data synthetic {changes}")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--resume", action="store_true", help="continue from the checkpoints in OUT")
    add("--restart", action="store_true", help="discard the checkpoints in OUT and train anew; --quick does so")
    add("--figures-only", action="store_true", help="never train: evaluate and draw all finished runs in OUT again")
    return parser


def parse_args(parser: Parser, argv: list[str] | None, quick: dict) -> argparse.Namespace:
    """Parse `argv`; --quick changes the defaults to `quick`, so that explicit flags still win.

    Raises InputError for nonsense, for a device that is not there and for a folder that cannot be written to or holds
    the results of another script.
    """
    assignment, script = parser.get_default("data"), Path(parser.prog).stem
    args = parser.parse_args(argv)
    if args.quick:
        parser.set_defaults(data="synthetic", out=Path("results", "quick", script), **quick)
        args = parser.parse_args(argv)
    if args.out is None:  # other data must not stand where the assignment's is expected
        args.out = Path("results", script if args.data == assignment else f"{script}_{args.data}")
    args.device = choose_device(args.device)
    if args.quick and args.out == parser.get_default("out"):  # in another folder a long training may lie
        args.restart |= not (args.resume or args.figures_only)
    flags = [flag for flag in (sys.argv[1:] if argv is None else argv) if flag not in MODES]
    args.command = shlex.join(["python", parser.prog, *flags])
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        raise InputError(f"cannot write to --out {args.out}: {error.strerror}") from error
    with suppress(OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
        if (other := json.loads((args.out / "metrics.json").read_text(encoding="utf-8"))["script"]) != script:
            raise InputError(f"{args.out} holds the results of {other}; give another --out")
    return args


def run_config(args: argparse.Namespace, source: str) -> dict:
    """Return what determines the numbers of a run: the flags but for places and modes, and the data's source."""
    elsewhere = {"device", "data_dir", "out", "resume", "restart", "figures_only", "command"}
    return {key: value for key, value in vars(args).items() if key not in elsewhere} | {"source": source}


def run(main: Callable[[], None]) -> NoReturn:
    """Call `main` and exit: 0, 2 with one line for bad input, 130 with the command to resume after Ctrl-C."""
    script = Path(sys.argv[0]).name
    try:
        main()
        status, message = 0, None
    except (InputError, OSError) as error:
        status, message = 2, f"{script}: {error}"
    except KeyboardInterrupt:
        flags = [flag for flag in sys.argv[1:] if flag not in MODES]
        status, message = 130, f"\ninterrupted; continue with: python {shlex.join([script, *flags, '--resume'])}"
    except (MemoryError, RuntimeError) as error:
        words = any(words in str(error) for words in OUT_OF_MEMORY)
        if not (words or isinstance(error, (MemoryError, torch.OutOfMemoryError))):
            raise
        status, message = 2, f"{script}: not enough memory; give smaller sizes"
    if message:
        print(message, file=sys.stderr)
    sys.exit(status)


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; 'auto' is cuda, else mps, else cpu. InputError if it is not there."""
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    available = [kind for kind in count if count[kind]]
    if name == "auto":
        name = available[0]
    with suppress(RuntimeError):  # not the name of a device
        device = torch.device(name)
        if (device.index or 0) < count.get(device.type, 0):
            return device
    raise InputError(f"device {name!r} is not available here; there is {', '.join(available)}")


def describe(device: torch.device) -> str:
    """Return the device in words, with the model of the processor, for the log and the metrics."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    model, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), model)
    threads = torch.get_num_threads()
    return f"{device.type} ({model}, {threads} thread{'s' if threads > 1 else ''})"


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout of images and kernels that is fast and tested on `device`."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


def provenance(args: argparse.Namespace, earlier: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return command, commit ("+" if the code has changes; none outside git) and device, after those `earlier`."""
    folder = Path(__file__).resolve().parent
    git = ["git", f"--git-dir={folder / '.git'}", f"--work-tree={folder}", "describe", "--always", "--exclude=*"]
    try:
        commit = subprocess.run([*git, "--dirty=+"], capture_output=True, text=True, check=False).stdout.split()
    except OSError:  # there is no git
        commit = []
    return merge(earlier, {"command": [args.command], "commit": commit, "device": [describe(args.device)]})


def merge(*provenances: dict[str, list[str]]) -> dict[str, list[str]]:
    """Join what `provenance` returned for several trainings, each entry once."""
    keys = dict.fromkeys(key for provenance in provenances for key in provenance)
    return {key: list(dict.fromkeys(entry for p in provenances for entry in p.get(key, []))) for key in keys}


# --- Data -------------------------------------------------------------------------------------------------------------

AMAT_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
AMAT_SOURCE = "binarized MNIST (Larochelle's files, MD5 checked)"
AMAT_MD5 = {
    "train": "db28b1a6ae0fe70cbd3da91acf46e477",
    "valid": "bf37822a04e94123630de6a7dfd9c9ef",
    "test": "14e41ae11040adba6ab8cb291eda0dd8",
}


def load_data(name: str, data_dir: Path) -> dict:
    """Load a data set into memory.

    Returns the text `source` and uint8 arrays: `train_images`, `test_images` and perhaps `valid_images`, N x H x W or
    N x H x W x 3, and `train_labels`, `test_labels` (not for the .amat files). Raises InputError for missing or damaged
    files.
    """
    path = Path(data_dir, f"{name}.npz")
    if path.exists():
        return load_npz(path)
    if name == "synthetic":
        return synthetic_data(60_000, 10_000)
    return load_amat(Path(data_dir)) if name == "binarized_mnist" else load_torchvision(name, Path(data_dir))


def load_rgb(args: argparse.Namespace) -> tuple[dict[str, Tensor], str]:
    """Return the data set of `args` as colour images of 32 x 32 on the device, and its source.

    train_images, test_images: (N, 3, 32, 32) uint8, in the device's `memory_format`; grey images get three equal
    channels, 28 x 28 a black border. train_labels, test_labels: (N,) int64. InputError for images of another size.
    """
    data = load_data(args.data, args.data_dir)
    tensors = {}
    for split in ("train", "test"):
        images = torch.tensor(data[f"{split}_images"])
        if len(images) < 4:
            raise InputError(f"{data['source']}: at least four {split} images are due")
        if images.shape[1:3] not in ((28, 28), (32, 32)):
            raise InputError(f"{data['source']}: images are {tuple(images.shape[1:])}; 32 x 32 or 28 x 28 is due")
        images = images.permute(0, 3, 1, 2) if images.dim() == 4 else images[:, None].expand(-1, 3, -1, -1)
        images = F.pad(images, [(32 - images.shape[-1]) // 2] * 4).contiguous(memory_format=memory_format(args.device))
        tensors[f"{split}_images"] = images.to(args.device)
        tensors[f"{split}_labels"] = torch.tensor(data[f"{split}_labels"]).long().to(args.device)
    return tensors, data["source"]


def load_npz(path: Path) -> dict:
    """Load the one-file format that `load_data` returns; InputError if a key, shape, type or label is wrong."""
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            data = {key: file[key] for key in file.files}
        source = str(data.pop("source").item())
    except KeyError as error:
        raise InputError(f"{path} lacks source; see data/README.md for the format") from error
    except Exception as error:  # numpy and zipfile raise whatever the damaged bytes lead them to
        raise InputError(f"{path} cannot be read as .npz; delete or replace it") from error
    check_arrays(data, path)
    return data | {"source": source}


def check_arrays(data: dict, path: Path) -> None:
    """Raise InputError unless `data` from `path` holds images and labels as `load_data` promises."""
    required = {"train_images", "train_labels", "test_images", "test_labels"}
    if missing := sorted(required - data.keys()):
        raise InputError(f"{path} lacks {', '.join(missing)}; see data/README.md for the format")
    for key in sorted((required | {"valid_images"}) & data.keys()):
        array, labels = data[key], key.endswith("labels")
        shape = getattr(array, "shape", ())
        shape_ok = len(shape) == 1 if labels else len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
        if not shape_ok or array.dtype != np.uint8 or not array.size:
            kind = f"{array.dtype} {shape}" if shape else "no array"
            raise InputError(f"{path}: {key} is {kind}; see data/README.md for the format")
        if labels and (len(array) != len(data[key.replace("labels", "images")]) or array.max() > 9):
            raise InputError(f"{path}: {key} must hold one label from 0 to 9 for each image")


def load_amat(data_dir: Path) -> dict:
    """Load Larochelle's binarized MNIST, downloaded when absent; MNIST in its place when that fails."""
    folder = data_dir / "binarized_mnist"
    paths = {split: folder / f"binarized_mnist_{split}.amat" for split in AMAT_MD5}
    missing = {split: path.name for split, path in paths.items() if not path.exists()}

    def fetch(part: str) -> None:
        for split, filename in missing.items():
            download_url(AMAT_URL + filename, part, md5=AMAT_MD5[split])

    if missing:
        try:
            _download(fetch, "binarized MNIST", folder)
        except InputError as error:
            if len(missing) < len(paths):
                raise
            print(f"{error}. Taking MNIST, binarised once, in its place.", file=sys.stderr)
            return load_torchvision("mnist", data_dir)
    data = {}
    for split, path in paths.items():
        raw = path.read_bytes()
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != AMAT_MD5[split]:
            raise InputError(f"{path} has the wrong MD5; delete it to download it again")
        # Each pixel is a digit and a separator, so the digits are every other byte.
        data[f"{split}_images"] = (np.frombuffer(raw, np.uint8)[::2] - ord("0")).reshape(-1, 28, 28)
    return data | {"source": AMAT_SOURCE}


def load_torchvision(name: str, data_dir: Path) -> dict:
    """Load mnist, svhn or cifar10 with torchvision's class; downloaded, with its checksums, when absent."""
    make, file = {
        "mnist": (MNIST, "MNIST"),
        "svhn": (SVHN, "train_32x32.mat"),
        "cifar10": (CIFAR10, "cifar-10-batches-py"),
    }[name]
    splits = {split: {"split": split} if name == "svhn" else {"train": split == "train"} for split in ("train", "test")}
    if not (data_dir / file).exists():
        _download(lambda part: [make(part, download=True, **which) for which in splits.values()], name, data_dir)
    data = {}
    try:
        for split, which in splits.items():
            dataset = make(data_dir, **which)
            images = np.asarray(dataset.data)
            data[f"{split}_images"] = images.transpose(0, 2, 3, 1) if name == "svhn" else images
            data[f"{split}_labels"] = np.asarray(dataset.labels if name == "svhn" else dataset.targets, np.uint8)
    except Exception as error:  # torchvision raises whatever the damaged bytes lead it to
        text = f"is damaged or incomplete; complete it, or delete {file} to download it again"
        raise InputError(f"{name} in {data_dir} {text}") from error
    check_arrays(data, data_dir / file)
    return data | {"source": f"{make.__name__} (torchvision)"}


def _download(fetch: Callable[[str], object], name: str, folder: Path) -> None:
    """Let `fetch` fill a temporary folder and move what it holds into `folder` once all of it is there."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as part:
            fetch(part)
            for item in Path(part).iterdir():
                item.replace(folder / item.name)
    except (RuntimeError, OSError, HTTPException) as error:
        reason = textwrap.shorten(str(error), 120) or type(error).__name__
        text = f"no {name} in {folder}, and its download failed ({reason}); see data/README.md, or use --data synthetic"
        raise InputError(text) from error
    finally:
        socket.setdefaulttimeout(timeout)


# --- Checkpoints and results ------------------------------------------------------------------------------------------


def write(path: Path, content: bytes | memoryview | str) -> None:
    """Write a file whole or not at all; InputError, with what was there kept, if it cannot be written."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # separate jobs may write the same file
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def save_checkpoint(path: Path, config: dict, modules: dict, history: dict) -> None:
    """Write the states of `modules` (models, optimisers, schedulers), the RNGs, `config` and `history`, atomically."""
    rng = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        rng["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        rng["mps"] = torch.mps.get_rng_state()
    states = {name: module.state_dict() for name, module in modules.items()}
    buffer = io.BytesIO()  # a full disk is an OSError for `write`, a RuntimeError like any other for torch.save
    torch.save({"config": config, "history": history, "rng": rng, "states": states}, buffer)
    write(path, buffer.getbuffer())


def damaged(path: Path) -> InputError:
    return InputError(f"{path} cannot be read as a checkpoint; replace it, or train anew with --restart")


def read_checkpoint(path: Path) -> dict:
    """Return what `save_checkpoint` wrote; InputError if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip():  # compares the checksums, which torch.load does not
                raise ValueError
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return {key: checkpoint[key] for key in ("config", "history", "rng", "states")}
    except Exception as error:  # torch's unpickler raises whatever the damaged bytes lead it to
        raise damaged(path) from error


def load_checkpoint(path: Path, config: dict, modules: dict) -> dict:
    """Restore `modules` from `path` and return the whole checkpoint; InputError if it does not fit `config`."""
    checkpoint = read_checkpoint(path)
    for key, value in config.items():
        if (saved := checkpoint["config"].get(key)) != value:
            text = "give the same flags, another --out, or --restart to discard it"
            raise InputError(f"{path} was made with {key} = {saved}, not {value}; {text}")
    try:
        for name, module in modules.items():
            module.load_state_dict(checkpoint["states"][name])
    except Exception as error:  # a state dict raises whatever a foreign layout leads it to
        raise damaged(path) from error
    return checkpoint


def restore(args: argparse.Namespace, path: Path, config: dict, modules: dict, history: dict) -> dict:
    """Return the history in `path`, with `modules` and the RNGs restored, where there is one to go on from.

    Elsewhere return `history`, that of a training yet to come; InputError under --figures-only, which has none.
    """
    if not (args.resume or args.figures_only) or not path.exists():
        if args.figures_only:
            raise InputError(f"{path} is missing; train without --figures-only first")
        return history
    checkpoint = load_checkpoint(path, config, modules)
    if args.resume:
        torch.set_rng_state(checkpoint["rng"]["cpu"])
        if torch.cuda.is_initialized() and "cuda" in checkpoint["rng"]:
            torch.cuda.set_rng_state_all(checkpoint["rng"]["cuda"][: torch.cuda.device_count()])
        if torch.backends.mps.is_available() and "mps" in checkpoint["rng"]:
            torch.mps.set_rng_state(checkpoint["rng"]["mps"])
    return checkpoint["history"]


def progress(path: Path, args: argparse.Namespace) -> tuple[bool, str]:
    """Return whether the training in a checkpoint is finished, and in words how far it is."""
    checkpoint, unit = read_checkpoint(path), "iterations" if "iterations" in args else "epochs"
    history, planned = checkpoint["history"], getattr(args, unit)
    done = history.get("iteration", 0) if unit == "iterations" else len(history["seconds"])
    return done >= planned, f"{done:,} of {planned:,} {unit}"


def prepare_out(args: argparse.Namespace, paths: list[Path]) -> None:
    """Make sure that training to `paths` overwrites nothing that is not meant to be; --restart removes them.

    InputError where one is there and neither --resume nor --restart is given. Where --resume finds none, say so.
    """
    old = [path for path in paths if path.exists()]
    if args.resume and not old:
        print(f"nothing in {args.out} to resume from: training starts anew", flush=True)
    if args.restart:
        for path in old:
            path.unlink()
    elif old and not args.resume:
        text = "with the same flags --resume continues and --figures-only draws; --restart discards and trains anew"
        raise InputError(f"{old[0]} is there, with {progress(old[0], args)[1]}: {text}")


def finished(args: argparse.Namespace, paths: list[Path]) -> list[Path]:
    """Return those of `paths` that hold a finished training; say which are left out."""
    states = {path: progress(path, args) for path in paths if path.exists()}
    for path, (_, words) in ((path, state) for path, state in states.items() if not state[0]):
        print(f"{path} is left out: {words}", flush=True)
    return [path for path, (done, _) in states.items() if done]


def check_finite(value: Tensor | float, where: str) -> None:
    """Raise InputError if `value`, a loss, is not finite."""
    if not torch.isfinite(torch.as_tensor(value)).all():
        raise InputError(f"the loss is not finite {where}; what was saved before is kept, try a lower --lr")


def mean(values: Tensor) -> float:
    """Mean in float64, which mps does not have."""
    return float(values.cpu().double().mean())


def save_metrics(
    out: Path, script: str, provenance: dict, config: dict, seconds: float, history: dict[str, dict], results: dict
) -> dict[str, object]:
    """Write out/metrics.json and return its content.

    Raises ValueError for numbers that are not finite, which JSON does not have.
    """
    versions = {module.__name__: module.__version__ for module in (np, matplotlib, torch, torchvision)}
    versions["python"] = platform.python_version()
    metrics = {"script": script} | {key: "; ".join(entries) for key, entries in provenance.items() if entries}
    metrics |= {"data": config["source"], "config": {key: config[key] for key in config if key != "source"}}
    metrics |= {"versions": versions, "seconds": seconds, "history": history, "results": results}
    write(out / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics


@contextmanager
def panels(path: Path, titles: dict[str, str], rows: int = 1, **labels: str) -> Iterator[dict[str, Axes]]:
    """Give axes for curves under `titles`, and write them to `path`, with one legend of the labelled lines below."""
    columns = len(titles) // rows
    figure = Figure(figsize=(max(6, 4.2 * columns), 3.7 * rows), layout="constrained")
    axes = dict(zip(titles, figure.subplots(rows, columns, squeeze=False).flat, strict=True))
    for name, panel in axes.items():
        panel.set(title=titles[name], **labels)
        panel.grid(alpha=0.3)
    yield axes
    entries = {}  # each label once
    for panel in axes.values():
        entries |= {label: handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize=8)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a compact PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", pil_kwargs={"optimize": True})
    write(path, buffer.getbuffer())


def draw_strips(strips: dict[str, Tensor], labels: list, title: str, path: Path, digits: Tensor | None = None) -> None:
    """Write rows of images (N, 3, 32, 32) in [-1, 1], their names on the left and `labels` above the columns.

    digits: (len(strips), N), written under the images, "?" where they are negative.
    """
    height = 34 if digits is None else 46  # pixels of a cell: the image, a border of 2, and room for a digit
    cells = F.pad(torch.cat(list(strips.values())).cpu() / 2 + 0.5, (0, 0, 0, height - 34), value=1).clamp(0, 1)
    figure = Figure(figsize=(0.42 * len(labels) + 1.2, 0.0132 * height * len(strips) + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(make_grid(cells, nrow=len(labels), pad_value=1).permute(1, 2, 0).numpy(), interpolation="nearest")
    for row, column in itertools.product(range(len(strips)), range(0 if digits is None else len(labels))):
        text, color = (digits[row, column].item(), "black") if digits[row, column] >= 0 else ("?", "silver")
        axes.text(34 * column + 18, height * row + 40, text, color=color, size=8, ha="center", va="center")
    axes.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([34 * i + 18 for i in range(len(labels))], labels)
    axes.set_yticks([height * i + 18 for i in range(len(strips))], list(strips))
    axes.set_title(title, fontsize=10)
    save_figure(figure, path)
