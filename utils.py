"""What the three scripts share: command line, device, data, checkpoints, tables and figures."""

import argparse
import hashlib
import json
import math
import pickle
import platform
import shlex
import socket
import sys
import tempfile
import zipfile
from collections.abc import Callable
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
    """Keep the docstring's line breaks and append the defaults."""


def _number(kind: type, allowed: Callable[[float], bool], description: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and allowed(value)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
        return value

    return parse


positive_int = _number(int, lambda value: value > 0, "a whole number above 0")
natural = _number(int, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2^63 - 1")
positive_float = _number(float, lambda value: value > 0, "a finite number above 0")


def make_parser(description: str, script: str, data: list[str]) -> Parser:
    """Return a parser with the flags that all scripts have; `data` lists the data sets, the default first."""
    parser = Parser(prog=f"{script}.py", description=description, formatter_class=HelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--data", choices=data, default=data[0], help="data set; DATA_DIR/<name>.npz is taken first")
    add("--data-dir", type=Path, default=Path("data"), help="folder of the data sets, downloaded when absent")
    add("--out", type=Path, default=Path("results", script), help="folder for figures, metrics and checkpoints")
    add("--seed", type=natural, default=0, help="seed of everything random except the synthetic data")
    add("--device", default="auto", help="auto (cuda, else mps, else cpu), cpu, cuda, cuda:1, mps")
    add("--resume", action="store_true", help="continue from the checkpoints in OUT; without it training starts anew")
    add("--quick", action="store_true", help=f"a short complete pass on synthetic data into results/quick/{script}")
    add("--figures-only", action="store_true", help="draw and evaluate again from the checkpoints, without training")
    return parser


def parse_args(parser: Parser, argv: list[str] | None, quick: dict) -> argparse.Namespace:
    """Parse `argv`; --quick changes the defaults to `quick`, so that explicit flags still win."""
    args = parser.parse_args(argv)
    if args.quick:
        parser.set_defaults(data="synthetic", out=Path("results", "quick", Path(parser.prog).stem), **quick)
        args = parser.parse_args(argv)
    args.device = choose_device(args.device)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        raise InputError(f"cannot write to --out {args.out}: {error.strerror}") from error
    return args


def run_config(args: argparse.Namespace, source: str) -> dict:
    """Return what determines the numbers of a run: the flags but for places and modes, and the data's source."""
    elsewhere = {"device", "data_dir", "out", "resume", "figures_only"}
    return {key: value for key, value in vars(args).items() if key not in elsewhere} | {"source": source}


def run(main: Callable[[], None]) -> NoReturn:
    """Call `main` and exit: 0, 2 with one line for bad input, 130 with the command to resume after Ctrl-C."""
    script = Path(sys.argv[0]).name
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(_report(f"{script}: {error}", 2))
    except KeyboardInterrupt:
        flags = [flag for flag in sys.argv[1:] if flag != "--resume"]
        sys.exit(_report(f"\ninterrupted; continue with: python {shlex.join([script, *flags, '--resume'])}", 130))
    sys.exit(0)


def _report(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; 'auto' is cuda, else mps, else cpu. InputError if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not available.get(device.type) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise InputError(
            f"device {name!r} is not available here; there is {', '.join(k for k in available if available[k])}"
        )
    return device


def describe(device: torch.device) -> str:
    """Return the device in words, for the log and the metrics."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


# --- Data -------------------------------------------------------------------------------------------------------------

AMAT_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
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
        train, test = synthetic_digits(60_000, 0, colour), synthetic_digits(10_000, 1, colour)
        data = dict(zip(("train_images", "train_labels", "test_images", "test_labels"), train + test, strict=True))
        return data | {"source": f"synthetic {'house numbers' if colour else 'digits'} (fonts of matplotlib, warped)"}
    return load_amat(Path(data_dir)) if name == "binarized_mnist" else load_torchvision(name, Path(data_dir))


def load_npz(path: Path) -> dict:
    """Load the one-file format that `load_data` returns; InputError if a key, shape, type or label is wrong."""
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            data = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise InputError(f"{path} cannot be read as .npz ({error}); delete or replace it") from error
    required = {"train_images", "train_labels", "test_images", "test_labels", "source"}
    if missing := sorted(required - data.keys()):
        raise InputError(f"{path} lacks {', '.join(missing)}; see data/README.md for the format")
    for key in sorted((required | {"valid_images"}) & data.keys() - {"source"}):
        array, kind = data[key], key.split("_")[1]
        shape_ok = array.ndim == 1 if kind == "labels" else array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)
        if array.dtype != np.uint8 or not shape_ok or not len(array):
            raise InputError(f"{path}: {key} is {array.dtype} {array.shape}; see data/README.md for the format")
        if kind == "labels" and (len(array) != len(data[key.replace("labels", "images")]) or array.max() > 9):
            raise InputError(f"{path}: {key} must hold one label from 0 to 9 for each image")
    return data | {"source": str(data["source"])}


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
            _download(fetch, folder)
        except InputError as error:
            if len(missing) < len(paths):
                raise
            print(f"binarized MNIST: {error}; using MNIST, binarised once, instead", file=sys.stderr)
            return load_torchvision("mnist", data_dir)
    data = {}
    for split, path in paths.items():
        raw = path.read_bytes()
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != AMAT_MD5[split]:
            raise InputError(f"{path} has the wrong MD5; delete it to download it again")
        # Each pixel is a digit and a separator, so the digits are every other byte.
        data[f"{split}_images"] = (np.frombuffer(raw, np.uint8)[::2] - ord("0")).reshape(-1, 28, 28)
    return data | {"source": "binarized MNIST (Larochelle's files, MD5 checked)"}


def load_torchvision(name: str, data_dir: Path) -> dict:
    """Load mnist, svhn or cifar10 with torchvision's class, which verifies checksums; downloaded when absent."""
    first_file, split_kwargs, make = {
        "mnist": ("MNIST", ({"train": True}, {"train": False}), MNIST),
        "svhn": ("train_32x32.mat", ({"split": "train"}, {"split": "test"}), SVHN),
        "cifar10": ("cifar-10-batches-py", ({"train": True}, {"train": False}), CIFAR10),
    }[name]
    if not (data_dir / first_file).exists():
        _download(lambda part: [make(part, download=True, **kwargs) for kwargs in split_kwargs], data_dir)
    data = {"source": f"{make.__name__} (torchvision)"}
    try:
        for split, kwargs in zip(("train", "test"), split_kwargs, strict=True):
            dataset = make(data_dir, **kwargs)
            images = np.asarray(dataset.data)
            data[f"{split}_images"] = images.transpose(0, 2, 3, 1) if name == "svhn" else images
            data[f"{split}_labels"] = np.asarray(dataset.labels if name == "svhn" else dataset.targets, np.uint8)
    except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{data_dir / first_file} is damaged or incomplete; delete it to download it again") from error
    return data


def _download(fetch: Callable[[str], object], folder: Path) -> None:
    """Let `fetch` fill a temporary folder and move what it holds into `folder` once all of it is there."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as part:
            fetch(part)
            for item in Path(part).iterdir():
                item.replace(folder / item.name)
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"download to {folder} failed ({reason}); see data/README.md or use --data synthetic"
        ) from error
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


def save_checkpoint(path: Path, config: dict, modules: dict, history: dict) -> None:
    """Write the states of `modules` (models, optimisers, schedulers), the RNGs, `config` and `history`, atomically."""
    rng = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        rng["cuda"] = torch.cuda.get_rng_state()
    states = {name: module.state_dict() for name, module in modules.items()}
    part = path.with_suffix(".part")
    torch.save({"config": config, "history": history, "rng": rng, "states": states}, part)
    part.replace(path)


def load_checkpoint(path: Path, config: dict, modules: dict) -> dict:
    """Restore `modules` and the RNGs from `path` and return the history; InputError if it does not fit `config`."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        made_with, history = checkpoint["config"], checkpoint["history"]
    except Exception as error:  # torch's unpickler raises whatever the damaged bytes lead it to
        raise InputError(f"{path} cannot be read as a checkpoint; delete it to start anew") from error
    for key in config:
        if made_with.get(key) != config[key]:
            raise InputError(
                f"{path} was made with {key} = {made_with.get(key)}, not {config[key]}; "
                "give the same flags, another --out, or no --resume to start anew"
            )
    for name, module in modules.items():
        module.load_state_dict(checkpoint["states"][name])
    torch.set_rng_state(checkpoint["rng"]["cpu"])
    if torch.cuda.is_available() and "cuda" in checkpoint["rng"]:
        torch.cuda.set_rng_state(checkpoint["rng"]["cuda"])
    return history


def check_finite(loss: torch.Tensor, where: str) -> None:
    """Raise InputError if `loss` is not finite."""
    if not torch.isfinite(loss).all():
        raise InputError(f"the loss is not finite {where}; the last good checkpoint is kept, try a lower --lr")


def save_metrics(out: Path, script: str, config: dict, device: torch.device, **content: object) -> dict:
    """Write `content` (seconds, history, results) to out/metrics.json beside what made it, and return all of it."""
    versions = {"python": platform.python_version(), "numpy": np.__version__, "matplotlib": matplotlib.__version__}
    versions |= {"torch": torch.__version__, "torchvision": torchvision.__version__}
    config = dict(config)
    metrics = {"script": script, "data": config.pop("source"), "config": config, "device": describe(device)}
    metrics |= {"versions": versions} | content
    Path(out, "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics


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
    figure.savefig(path, dpi=110, pil_kwargs={"optimize": True})
