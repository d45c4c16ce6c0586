"""What the three scripts share: command line, device, data, checkpoints, tables and figures."""

import argparse
import hashlib
import io
import json
import math
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import NoReturn

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt
from torchvision.datasets import CIFAR10, MNIST, SVHN
from torchvision.datasets.utils import download_url


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
above_one = _number(int, 2, 2**31 - 1, "a whole number from 2 to 2^31 - 1")
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
    add("--resume", action="store_true", help="continue from the checkpoints in OUT; without it training starts anew")
    add("--quick", action="store_true", help=f"short pass into results/quick/{script}: --data synthetic {changes}")
    add("--figures-only", action="store_true", help="draw and evaluate again from the checkpoints, without training")
    return parser


def parse_args(parser: Parser, argv: list[str] | None, quick: dict) -> argparse.Namespace:
    """Parse `argv`; --quick changes the defaults to `quick`, so that explicit flags still win.

    Raises InputError for nonsense, for a device that is not there and for a folder that cannot be written to.
    """
    assignment, script = parser.get_default("data"), Path(parser.prog).stem
    args = parser.parse_args(argv)
    if args.quick:
        parser.set_defaults(data="synthetic", out=Path("results", "quick", script), **quick)
        args = parser.parse_args(argv)
    if args.out is None:  # other data must not stand where the assignment's is expected
        args.out = Path("results", script if args.data == assignment else f"{script}_{args.data}")
    args.device = choose_device(args.device)
    flags = [flag for flag in (sys.argv[1:] if argv is None else argv) if flag not in ("--resume", "--figures-only")]
    args.command = shlex.join(["python", parser.prog, *flags])
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        raise InputError(f"cannot write to --out {args.out}: {error.strerror}") from error
    return args


def run_config(args: argparse.Namespace, source: str) -> dict:
    """Return what determines the numbers of a run: the flags but for places and modes, and the data's source."""
    elsewhere = {"device", "data_dir", "out", "resume", "figures_only", "command"}
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
        flags = [flag for flag in sys.argv[1:] if flag != "--resume"]
        status, message = 130, f"\ninterrupted; continue with: python {shlex.join([script, *flags, '--resume'])}"
    except RuntimeError as error:  # torch has no class of its own for a CPU out of memory
        if "memory" not in str(error):
            raise
        status, message = 2, f"{script}: not enough memory; give smaller sizes"
    if message:
        print(message, file=sys.stderr)
    sys.exit(status)


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; 'auto' is cuda, else mps, else cpu. InputError if it is not there."""
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    there = [kind for kind in count if count[kind]]
    if name == "auto":
        name = there[0]
    try:
        device = torch.device(name)
        if (device.index or 0) < count.get(device.type, 0):
            return device
    except RuntimeError:
        pass  # not the name of a device
    raise InputError(f"device {name!r} is not available here; there is {', '.join(there)}")


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


def load_data(name: str, data_dir: Path, colour: bool = False) -> dict:
    """Load a data set into memory.

    Returns the text `source` and uint8 arrays: `train_images`, `test_images` and perhaps `valid_images`, N x H x W or
    N x H x W x 3, and `train_labels`, `test_labels` (not for the .amat files). `colour` makes the synthetic data
    coloured house numbers of 32x32 instead of grey digits of 28x28. Raises InputError for missing or damaged files.
    """
    path = Path(data_dir, f"{name}.npz")
    if path.exists():
        return load_npz(path)
    if name == "synthetic":
        return synthetic_data(60_000, 10_000, colour)
    return load_amat(Path(data_dir)) if name == "binarized_mnist" else load_torchvision(name, Path(data_dir))


def load_rgb(args: argparse.Namespace) -> tuple[dict[str, torch.Tensor], str]:
    """Return the data set of `args` as colour images of 32 x 32 on the device, and its source.

    train_images, test_images: (N, 3, 32, 32) uint8, channels last in memory; grey images get three equal channels, 28 x
    28 a black border. train_labels, test_labels: (N,) int64. InputError for images of another size.
    """
    data = load_data(args.data, args.data_dir, colour=True)
    tensors = {}
    for split in ("train", "test"):
        images = torch.tensor(data[f"{split}_images"])
        if len(images) < 2:
            raise InputError(f"{data['source']}: at least two {split} images are due")
        if images.shape[1:3] not in ((28, 28), (32, 32)):
            raise InputError(f"{data['source']}: images are {tuple(images.shape[1:])}; 32 x 32 or 28 x 28 is due")
        images = images.permute(0, 3, 1, 2) if images.dim() == 4 else images[:, None].expand(-1, 3, -1, -1)
        images = F.pad(images, [(32 - images.shape[-1]) // 2] * 4).contiguous(memory_format=torch.channels_last)
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
    first_file, split_kwargs, make = {
        "mnist": ("MNIST", ({"train": True}, {"train": False}), MNIST),
        "svhn": ("train_32x32.mat", ({"split": "train"}, {"split": "test"}), SVHN),
        "cifar10": ("cifar-10-batches-py", ({"train": True}, {"train": False}), CIFAR10),
    }[name]
    if not (data_dir / first_file).exists():
        _download(lambda part: [make(part, download=True, **kwargs) for kwargs in split_kwargs], name, data_dir)
    data = {}
    try:
        for split, kwargs in zip(("train", "test"), split_kwargs, strict=True):
            dataset = make(data_dir, **kwargs)
            images = np.asarray(dataset.data)
            data[f"{split}_images"] = images.transpose(0, 2, 3, 1) if name == "svhn" else images
            data[f"{split}_labels"] = np.asarray(dataset.labels if name == "svhn" else dataset.targets, np.uint8)
    except Exception as error:  # torchvision raises whatever the damaged bytes lead it to
        text = (
            f"{name} in {data_dir} is damaged or incomplete; complete it, or delete {first_file} to download it again"
        )
        raise InputError(text) from error
    check_arrays(data, data_dir / first_file)
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


FONTS = ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"]
FONTS += ["STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmb10", "cmr10", "cmss10", "cmtt10"]


def glyph_distances() -> torch.Tensor:
    """Signed distances to the digits' outlines, positive inside, in units of their height: (fonts, 10, 64, 64)."""
    fields = []
    for name in FONTS:
        font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")), 64)
        for digit in "0123456789":
            page = Image.new("L", (128, 128))
            ImageDraw.Draw(page).text((64, 64), digit, fill=255, font=font, anchor="mm")
            glyph = page.crop(page.getbbox())
            glyph = glyph.resize((round(glyph.width * 40 / glyph.height), 40), Image.Resampling.BILINEAR)
            cell = Image.new("L", (64, 64))
            cell.paste(glyph, ((64 - glyph.width) // 2, 12))
            inside = np.asarray(cell) > 127
            fields.append((distance_transform_edt(inside) - distance_transform_edt(~inside)) / 40)
    return torch.tensor(np.stack(fields), dtype=torch.float32).view(len(FONTS), 10, 64, 64)


def synthetic_data(num_train: int, num_test: int, colour: bool) -> dict:
    """Return a data set of synthetic digits, as `load_data` does."""
    train, test = synthetic_digits(num_train, 0, colour), synthetic_digits(num_test, 1, colour)
    data = dict(zip(("train_images", "train_labels", "test_images", "test_labels"), train + test, strict=True))
    return data | {"source": f"synthetic {'house numbers' if colour else 'digits'} (fonts of matplotlib, warped)"}


def synthetic_digits(num: int, seed: int, colour: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw `num` labelled digits, the same for the same seed.

    Each is a glyph from a random font under a random affine map and a smooth warp. Grey: num x 28 x 28, white ink on
    black, like MNIST. Colour: num x 32 x 32 x 3, house numbers with a muted background, light falling in from a side,
    neighbours, blur and noise, like SVHN (after Ganin & Lempitsky, arXiv 1409.7495). Both uint8.
    """
    generator = torch.Generator().manual_seed(seed)
    distances = glyph_distances()
    size = 32 if colour else 28
    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def normal(std: float, *shape: int) -> torch.Tensor:
        return std * torch.randn(shape, generator=generator)

    def smooth(field: torch.Tensor) -> torch.Tensor:
        return F.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)

    def draw(labels: torch.Tensor) -> torch.Tensor:
        n = len(labels)
        font = torch.randint(len(distances), (n,), generator=generator)
        angle = uniform(-0.12, 0.12, n) if colour else uniform(-0.2, 0.2, n)
        shear = uniform(-0.15, 0.15, n) if colour else uniform(-0.35, 0.25, n)
        height = uniform(0.72, 1.0, n) if colour else uniform(0.68, 0.76, n)
        width = height * uniform(0.8, 1.25, n)
        cos, sin = angle.cos(), angle.sin()
        to_glyph = torch.stack([cos - shear * sin, sin + shear * cos, -sin, cos], -1).view(n, 2, 2)
        to_glyph = to_glyph * (40 / 64) / torch.stack([width, height], -1)[:, :, None]
        warp = smooth(normal(0.04 if colour else 0.09, n, 2, 4, 4)).permute(0, 2, 3, 1)
        points = pixels + warp - uniform(-0.08, 0.08, n, 1, 1, 2)
        points = torch.einsum("nij,nhwj->nhwi", to_glyph, points)

        def distance(digit: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
            glyph = distances[font, digit][:, None]
            return F.grid_sample(glyph, points, padding_mode="border", align_corners=False)

        outline = distance(labels, points)
        if not colour:
            return torch.sigmoid((outline + uniform(0.0, 0.05, n, 1, 1, 1)) / 0.016)[:, 0]

        for side in (-1, 1):
            beside = torch.zeros(n, 1, 1, 2)
            beside[..., 0] = side * uniform(0.71, 0.87, n, 1, 1)
            neighbour = distance(torch.randint(10, (n,), generator=generator), points - beside)
            absent = torch.rand(n, 1, 1, 1, generator=generator) < 0.4
            outline = torch.maximum(outline, neighbour.masked_fill(absent, -1))
        blur = uniform(0.02, 0.07, n, 1, 1, 1)
        ink = torch.sigmoid((outline + uniform(-0.02, 0.03, n, 1, 1, 1)) / blur)
        brightness = uniform(0.12, 0.88, n, 1, 1, 1)
        darker = torch.rand(n, 1, 1, 1, generator=generator) < brightness
        contrast = uniform(0.18, 0.5, n, 1, 1, 1) * torch.where(darker, -1, 1)
        warmth = normal(0.04, n, 1, 1, 1) * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
        background = brightness + warmth + normal(0.02, n, 3, 1, 1)
        light = torch.einsum("hwj,nj->nhw", pixels, normal(0.09, n, 2))[:, None] + smooth(normal(0.04, n, 1, 6, 6))
        image = background + ink * (contrast + normal(0.03, n, 3, 1, 1)) + light
        return (image + normal(0.012, *image.shape)).permute(0, 2, 3, 1)

    labels = torch.randint(10, (num,), generator=generator)
    images = torch.cat([(draw(chunk).clamp(0, 1) * 255).round().byte() for chunk in labels.split(1000)])
    return images.numpy(), labels.byte().numpy()


# --- Checkpoints and results ------------------------------------------------------------------------------------------


def clear_checkpoints(args: argparse.Namespace, *patterns: str) -> None:
    """Where training starts anew, remove its old checkpoints, so that --resume cannot take them for the new ones.

    Where --resume finds none, say so.
    """
    old = [path for pattern in patterns for path in args.out.glob(pattern)]
    if args.resume and not (old or args.figures_only):
        print(f"no {', '.join(patterns)} in {args.out} to resume from: training starts anew", flush=True)
    if not (args.resume or args.figures_only):
        for path in old:
            path.unlink()


def save_checkpoint(path: Path, config: dict, modules: dict, history: dict) -> None:
    """Write the states of `modules` (models, optimisers, schedulers), the RNGs, `config` and `history`, atomically."""
    rng = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        rng["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        rng["mps"] = torch.mps.get_rng_state()
    states = {name: module.state_dict() for name, module in modules.items()}
    buffer = io.BytesIO()  # a full disk is an OSError for write_bytes, a RuntimeError like any other for torch.save
    torch.save({"config": config, "history": history, "rng": rng, "states": states}, buffer)
    part = path.with_suffix(".part")
    part.write_bytes(buffer.getbuffer())
    part.replace(path)


def load_checkpoint(path: Path, config: dict, modules: dict) -> dict:
    """Restore `modules` and the RNGs from `path` and return the history; InputError if it does not fit `config`."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        for key in config:
            if checkpoint["config"].get(key) != config[key]:
                raise InputError(
                    f"{path} was made with {key} = {checkpoint['config'].get(key)}, not {config[key]}; "
                    "give the same flags, another --out, or no --resume to start anew"
                )
        for name, module in modules.items():
            module.load_state_dict(checkpoint["states"][name])
        torch.set_rng_state(checkpoint["rng"]["cpu"])
        if torch.cuda.is_initialized() and "cuda" in checkpoint["rng"]:
            torch.cuda.set_rng_state_all(checkpoint["rng"]["cuda"][: torch.cuda.device_count()])
        if torch.backends.mps.is_available() and "mps" in checkpoint["rng"]:
            torch.mps.set_rng_state(checkpoint["rng"]["mps"])
        return checkpoint["history"]
    except InputError:
        raise
    except Exception as error:  # torch's unpickler raises whatever the damaged bytes lead it to
        raise InputError(f"{path} cannot be read as a checkpoint; delete it to start anew") from error


def check_finite(value: torch.Tensor | float, where: str) -> None:
    """Raise InputError if `value`, a loss, is not finite."""
    if not torch.isfinite(torch.as_tensor(value)).all():
        raise InputError(f"the loss is not finite {where}; the last good checkpoint is kept, try a lower --lr")


def mean(values: torch.Tensor) -> float:
    """Mean in float64, which mps does not have."""
    return float(values.cpu().double().mean())


def save_metrics(out: Path, script: str, config: dict, provenance: dict[str, list[str]], **content: object) -> dict:
    """Write `content` (seconds, history, results) to out/metrics.json beside what made it, and return all of it.

    Raises ValueError for numbers that are not finite, which JSON does not have.
    """
    versions = {"python": platform.python_version(), "numpy": np.__version__, "matplotlib": matplotlib.__version__}
    versions |= {"torch": torch.__version__, "torchvision": torchvision.__version__}
    config = dict(config)
    made_by = {key: "; ".join(entries) for key, entries in provenance.items() if entries}
    metrics = {"script": script, "data": config.pop("source"), "config": config}
    metrics |= made_by | {"versions": versions} | content
    Path(out, "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return metrics


def publish(out: Path, report: str, table: str) -> None:
    """Write out/report.md and end the run's output with its closing table."""
    Path(out, "report.md").write_text(report, encoding="utf-8")
    print(table)
    print(f"figures, metrics.json and report.md are in {out}")


def make_table(header: list[str], rows: list[list]) -> str:
    """Return a Markdown table with aligned columns; floats with four decimals, truth as yes and no."""

    def text(cell: object) -> str:
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        return f"{cell:.4f}" if isinstance(cell, float) else str(cell)

    cells = [[text(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in cells
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a compact PNG."""
    figure.savefig(path, dpi=110, bbox_inches="tight", pil_kwargs={"optimize": True})
