"""What a run leaves in its folder and finds there again: checkpoints, provenance, metrics.json."""

import argparse
import io
import json
import platform
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torchvision
from torch import nn

from utils import InputError, check_finite, check_zip, describe, reading, write


def open_out(args: argparse.Namespace, script: str, checkpoints: list[Path]) -> None:
    """Make the output folder; with --restart remove the `checkpoints` of what is to be trained anew.

    InputError where it cannot be written to or holds the results of another script.
    """
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        raise InputError(f"cannot write to --out {args.out}: {error.strerror}") from error
    check_owner(args.out, script)
    if args.restart:
        for path in checkpoints:
            path.unlink(missing_ok=True)


def save_checkpoint(path: Path, config: dict, modules: dict, history: dict) -> None:
    """Write the states of `modules` (models, optimisers), the RNGs, `config` and `history`, atomically.

    InputError where a weight is not finite, with what was there kept.
    """
    networks = [module for module in modules.values() if isinstance(module, nn.Module)]
    weights = [weight.detach().sum() for network in networks for weight in network.parameters()]
    check_finite(torch.stack(weights), f"a weight for {path.name}")
    rng = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        rng["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        rng["mps"] = torch.mps.get_rng_state()
    states = {name: module.state_dict() for name, module in modules.items()}
    buffer = io.BytesIO()  # a full disk is an OSError for `write`, a RuntimeError like any other for torch.save
    torch.save({"config": config, "history": history, "rng": rng, "states": states}, buffer)
    write(path, buffer.getbuffer())


def load_checkpoint(path: Path, config: dict, modules: dict) -> dict:
    """Restore `modules` and the RNGs from what `save_checkpoint` wrote and return its history.

    InputError if it cannot be read or does not fit `config`.
    """
    with reading(f"{path} cannot be read as a checkpoint; move it away to train this one anew"):
        check_zip(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        saved, rng, history = checkpoint["config"], checkpoint["rng"], checkpoint["history"]
    for key, value in config.items():
        if saved.get(key) != value:
            flag = "data" if key == "source" else f"--{key.replace('_', '-')}"
            raise InputError(
                f"{path} was made with {flag} {saved.get(key)}, not {value}; give the same, or another --out"
            )
    with reading(f"{path} does not hold what it is needed for; move it away to train this one anew"):
        for name, module in modules.items():
            module.load_state_dict(checkpoint["states"][name])
    torch.set_rng_state(rng["cpu"])
    if torch.cuda.is_initialized() and "cuda" in rng:
        torch.cuda.set_rng_state_all(rng["cuda"][: torch.cuda.device_count()])
    if torch.backends.mps.is_available() and "mps" in rng:
        torch.mps.set_rng_state(rng["mps"])
    return history


def resume(
    path: Path, config: dict, modules: dict, history: dict, args: argparse.Namespace, unit: str = "epoch", per: int = 1
) -> tuple[dict, int]:
    """Take up a training from its checkpoint, if it has one; return its history, else `history`, and how much is done.

    Restores `modules`, says from where the training goes on, and adds this run to its provenance. An entry of
    `seconds` in the history is of `per` units. InputError as for `load_checkpoint`, and past --<unit>s.
    """
    if path.exists():
        history = load_checkpoint(path, config, modules)
    done, total = per * len(history["seconds"]), getattr(args, f"{unit}s")
    if done > total:
        raise InputError(f"{path} is at {unit} {done} already; give --{unit}s {done} or more")
    if done == total:
        print(f"{path.name}: finished, {total} {unit}s")
        return history, done
    state = f"going on after {unit} {done} of {total}" if done else f"training begins, {total} {unit}s"
    print(f"{path.name}: {state}")
    history["provenance"] = add_run(history.get("provenance", {}), args)
    return history, done


def training_path(args: argparse.Namespace, name: str, seed: int) -> Path:
    """Return the checkpoint of one of several trainings that share a folder."""
    return args.out / f"checkpoint_{name}_seed{seed}.pt"


def finished_trainings(
    args: argparse.Namespace, config_of: Callable, names: list[str], source: str
) -> tuple[dict, dict, float]:
    """Gather all finished trainings of `names` in OUT that agree with `config_of(name, seed, args, source)`.

    Returns their histories by name and seed, their provenance together, and their time in seconds. Says which are left
    out, and why.
    """
    histories, provenance, seconds = {}, {}, 0.0
    for name in names:
        for path in sorted(args.out.glob(f"checkpoint_{name}_seed*.pt")):
            seed = path.stem.rpartition("seed")[2]
            if not seed.isdecimal():  # somebody's copy
                continue
            try:
                history = load_checkpoint(path, config_of(name, int(seed), args, source), {})
                done = len(history["seconds"])
                if done != args.epochs:
                    raise InputError(f"{path} is at epoch {done} of {args.epochs}")
            except InputError as error:
                print(f"left out: {error}")
                continue
            histories.setdefault(name, {})[int(seed)] = history
            provenance = merge(provenance, history.pop("provenance"))
            seconds += sum(history["seconds"])
    return {name: dict(sorted(seeds.items())) for name, seeds in histories.items()}, provenance, seconds


def add_run(provenance: dict[str, list[str]], args: argparse.Namespace) -> dict[str, list[str]]:
    """Return `provenance` with this run's command, commit and device.

    The commit ends in "+" if the code has changes; outside git there is none.
    """
    folder = Path(__file__).resolve().parent.parent
    git = ["git", f"--git-dir={folder / '.git'}", f"--work-tree={folder}", "describe", "--always", "--exclude=*"]
    try:
        commit = subprocess.run([*git, "--dirty=+"], capture_output=True, text=True, check=False).stdout.split()
    except OSError:  # there is no git
        commit = []
    return merge(provenance, {"command": [args.command], "commit": commit, "device": [describe(args.device)]})


def merge(first: dict[str, list[str]], second: dict[str, list[str]]) -> dict[str, list[str]]:
    """Join the provenance of two trainings, each entry once."""
    return {key: list(dict.fromkeys([*first.get(key, []), *second.get(key, [])])) for key in first | second}


def save_metrics(args: argparse.Namespace, script: str, source: str, provenance: dict, **content: object) -> dict:
    """Write OUT/metrics.json: its provenance, data and flags, and `content` (seconds, history, results).

    Returns what a reader of the file gets. Raises ValueError for numbers that are not finite, which JSON does not have.
    """
    # where and how it ran; the device has an entry of its own
    elsewhere = {"device", "data_dir", "out", "restart", "figures_only", "download", "command"}
    config = {key: value for key, value in vars(args).items() if key not in elsewhere}
    versions = {module.__name__: module.__version__ for module in (np, matplotlib, torch, torchvision)}
    versions["python"] = platform.python_version()
    metrics = {"script": script} | {key: "; ".join(entries) for key, entries in provenance.items() if entries}
    metrics |= {"data": source, "versions": versions, "config": config, **content}
    text = json.dumps(metrics, indent=1, allow_nan=False) + "\n"
    write(args.out / "metrics.json", text)
    return json.loads(text)


def check_owner(out: Path, script: str) -> None:
    """Raise InputError where a folder holds the results of another script."""
    with suppress(OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
        if (other := json.loads((out / "metrics.json").read_text(encoding="utf-8"))["script"]) != script:
            raise InputError(f"{out} holds the results of {other}; give another --out")


def read_metrics(out: Path, script: str) -> dict:
    """Return what `save_metrics` wrote; InputError where there is none of this script, or a damaged one."""
    check_owner(out, script)
    with reading(f"{out} holds no intact metrics.json to draw from; the same command without --figures-only makes it"):
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        return {key: metrics[key] for key in ("config", "history", "results")} | metrics  # KeyError without one
