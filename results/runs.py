"""What a run leaves in its folder and finds there again: checkpoints, provenance, metrics.json."""

import argparse
import io
import json
import platform
import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import utils
from utils import ROOT, InputError, Parser

ANEW = "add --restart to train anew, or give another --out to keep it"


def open_out(args: argparse.Namespace, script: str, patterns: list[str], earlier: Iterable[str] = ()) -> None:
    """Make the output folder; with --restart remove the files that fit `patterns`, of what is to be trained anew.

    InputError where it cannot be written to, or holds the results of another script, results that would be lost, or
    files of an earlier version.
    """
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        raise InputError(f"cannot write to --out {args.out}: {error.strerror}") from error
    check_owner(args.out, script)
    check_results(args, script, patterns)
    utils.sweep(args.out.glob(f"*.{'[0-9a-f]' * 8}.part"))
    old = [path for pattern in earlier for path in args.out.glob(pattern) if "_seed" not in path.name]
    if args.restart:
        for path in (*old, *(path for pattern in patterns for path in args.out.glob(pattern))):
            path.unlink(missing_ok=True)
    elif old:
        raise InputError(f"{old[0]} is of an earlier version, whose files name no seed; move it away, {ANEW}")


def check_results(args: argparse.Namespace, script: str, patterns: list[str]) -> None:
    """Raise InputError where OUT/metrics.json would lose a training: without checkpoint, and its name in no pattern.

    With --models where it holds what a training measured.
    """
    try:
        metrics = read_metrics(args.out, script)
    except InputError:  # there is none, or a damaged one
        return
    if args.models:
        if "--models" not in metrics.get("measured_by", ""):
            raise InputError(f"{args.out} holds the results of a training; give another --out")
        return
    for key, history in metrics["history"].items():  # "3" in problem 2, "mc_seed3" in 1, in 3 all seeds of a run
        single = f"seed{key}" if key.isdecimal() else key
        for ending in [single] if "seconds" in history else [f"{key}_seed{seed}" for seed in history]:
            kept = [*args.out.glob(f"checkpoint_{ending}.pt"), *args.out.glob(f"snapshot_*_{ending}.pt")]
            if not kept and not any(fnmatch(f"checkpoint_{ending}.pt", pattern) for pattern in patterns):
                raise InputError(f"{args.out} holds results of {ending} without its checkpoint; give another --out")


def seed_path(args: argparse.Namespace, name: str, seed: int | str) -> Path:
    """Return the file of one of several trainings that share a folder: the checkpoint in OUT, or that of --models."""
    return args.models / f"model_{name}_seed{seed}.pt" if args.models else args.out / f"{name}_seed{seed}.pt"


def describe_layers(modules: dict) -> dict[str, str]:
    """Return class and parameter shapes of each module of the networks among `modules`, by its name."""
    layers = {}
    for key, network in modules.items():
        if isinstance(network, nn.Module):
            for name, module in network.named_modules():
                shapes = [f"{kind} {tuple(weight.shape)}" for kind, weight in module.named_parameters(recurse=False)]
                layers[f"{key}.{name}" if name else key] = " ".join([type(module).__name__, *shapes])
    return layers


def save_checkpoint(path: Path, config: dict, modules: dict, history: dict) -> None:
    """Write states and layers of `modules`, the RNGs, `config` and `history`; InputError if a weight is not finite."""
    networks = [module for module in modules.values() if isinstance(module, nn.Module)]
    weights = [weight.detach().sum() for network in networks for weight in network.parameters()]
    utils.check_finite(torch.stack(weights), f"a weight for {path.name}")
    rng = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        rng["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        rng["mps"] = torch.mps.get_rng_state()
    checkpoint = {"config": config, "history": history, "rng": rng, "layers": describe_layers(modules)}
    checkpoint["states"] = {name: module.state_dict() for name, module in modules.items()}
    write_object(path, checkpoint)


def write_object(path: Path, content: dict) -> None:
    """Write what torch.load reads; through memory, as a full disk is a RuntimeError like any other for torch.save."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    utils.write(path, buffer.getbuffer())


def read_checkpoint(path: Path) -> dict:
    """Return what `save_checkpoint` wrote; InputError if it is not there or cannot be read."""
    if not path.exists():
        raise InputError(f"{path} is missing; {ANEW}")
    with utils.reading(f"{path} cannot be read: it is damaged, or of another version; {ANEW}"):
        utils.check_zip(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        dicts = ("config", "history", "states", "layers")
        return checkpoint | {key: checkpoint[key] | {} for key in dicts}  # an error where one is none


def load_checkpoint(path: Path, config: dict, modules: dict, curves: Iterable[str] = ()) -> dict:
    """Restore `modules` and the RNGs from what `save_checkpoint` wrote and return its history.

    InputError if it cannot be read, is of another `config` or of networks with other layers, or lacks one of `curves`.
    """
    checkpoint = read_checkpoint(path)
    saved, history, rng = checkpoint["config"], checkpoint["history"], checkpoint.get("rng")  # a model has no rng
    if history and (missing := set(curves) - history.keys()):  # a model has no history
        raise InputError(f"{path} was made by an earlier version, without {min(missing)}; {ANEW}")
    for key, value in config.items():
        if saved.get(key) != value:
            flag = "data" if key == "source" else f"--{key.replace('_', '-')}"
            hint = " (see data/README.md)" if key == "source" else ""
            raise InputError(f"{path} was made with {flag} {saved.get(key)}, not {value}{hint}; give the same, {ANEW}")
    here = describe_layers(modules)
    there = {name: layer for name, layer in checkpoint["layers"].items() if name.split(".")[0] in modules}
    for name in here | there:
        if here.get(name) != there.get(name):
            layers = f"its {name} is {there.get(name, 'absent')}, here it is {here.get(name, 'absent')}"
            raise InputError(f"{path} holds another network: {layers}; {ANEW}")
    with utils.reading(f"{path} does not hold what it is needed for; {ANEW}"):
        for name, module in modules.items():
            module.load_state_dict(checkpoint["states"][name])
            if isinstance(module, nn.Module) and not all(x.isfinite().all() for x in module.state_dict().values()):
                raise ValueError
    if rng:
        torch.set_rng_state(rng["cpu"])
        if torch.cuda.is_initialized() and "cuda" in rng:
            torch.cuda.set_rng_state_all(rng["cuda"][: torch.cuda.device_count()])
        if torch.backends.mps.is_available() and "mps" in rng:
            torch.mps.set_rng_state(rng["mps"])
    return history


def progress(history: dict) -> int:
    """Return how many epochs or, in problem 2, iterations a history covers."""
    return history["iteration"][-1] if history.get("iteration") else len(history["seconds"])


def note_change(history: dict, args: argparse.Namespace) -> str:
    """Return what to add to a line on a training of which another version of the script did a part, else nothing."""
    trained = history.get("provenance", {}).get("code", [])
    return "; the script has changed since, --restart trains anew" if set(trained) - {args.code} else ""


def resume(
    path: Path, config: dict, modules: dict, history: dict, args: argparse.Namespace, unit: str = "epoch"
) -> tuple[dict, int]:
    """Take up a training from its checkpoint, if it has one; return its history, else `history`, and how much is done.

    Restores `modules`, says from where it goes on, notes this run. InputError as `load_checkpoint`, and past --<unit>s.
    """
    if path.exists():
        history = load_checkpoint(path, config, modules, history)
    done, total = progress(history), getattr(args, f"{unit}s")
    if done > total:
        raise InputError(f"{path} is at {unit} {done} already; give --{unit}s {done} or more, {ANEW}")
    state = f"going on after {unit} {done} of {total}" if done else f"training begins, {total} {unit}s"
    state = f"finished, {total} {unit}s" if done == total else state
    print(f"{path.name}: {state}{note_change(history, args)}")
    if done < total:
        history["provenance"] = add_run(history.get("provenance", {}), args)
    return history, done


@contextmanager
def interruptible(path: Path, args: argparse.Namespace) -> Iterator[None]:
    """Add to Ctrl-C where the next run of the training with this checkpoint begins, if not from the start."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not path.exists() or (args.quick and args.restart):
            raise
        history = read_checkpoint(path)["history"]
        unit = "iteration" if "iteration" in history else "epoch"
        raise KeyboardInterrupt(f"{path.name} goes on after {unit} {progress(history)}") from error


def join(
    args: argparse.Namespace, kind: str, wanted: Callable[[str], bool], load: Callable[[str, int], tuple]
) -> Iterator[tuple[str, int, tuple]]:
    """Yield name, seed and load(name, seed) for every file <kind>_<name>_seed<seed>.pt whose name is wanted.

    Says which are left out, as `load` fails or they may not be read, each reason once a seed; none are of --models.
    """
    printed, pattern = set(), seed_path(args, f"{kind}_*", "*")
    for path in sorted(pattern.parent.glob(pattern.name)):
        match = re.search(rf"{kind}_(\w+)_seed(\d+)\.pt$", path.name)
        if not match or not wanted(match[1]) or path != seed_path(args, f"{kind}_{match[1]}", int(match[2])):
            continue  # somebody's copy
        try:
            yield match[1], int(match[2]), load(match[1], int(match[2]))
        except (InputError, OSError) as error:
            reason = str(error).split(";")[0]
            if args.models:
                raise InputError(reason) from error
            if (key := (match[2], reason.replace(str(path), ""))) not in printed:
                print(f"left out: {reason}")
            printed.add(key)


def finished_trainings(
    args: argparse.Namespace, names: Collection[str], load: Callable[[str, int], tuple]
) -> tuple[dict, dict, float]:
    """Return histories by name and seed, provenance together and seconds of all finished trainings of `names`.

    load(name, seed) returns the model and the history of one. InputError where none is finished.
    """
    histories = {name: {} for name in names}
    for name, seed, (_, history) in join(args, "checkpoint", names.__contains__, load):
        if (done := progress(history)) == args.epochs:
            histories[name][seed] = history
        else:
            print(f"left out: {seed_path(args, f'checkpoint_{name}', seed)} is at epoch {done} of {args.epochs}")
    histories = {name: dict(sorted(seeds.items())) for name, seeds in histories.items() if seeds}
    if not histories:
        raise InputError(f"no training in {args.models or args.out} is finished")
    return histories, *take_provenance([history for seeds in histories.values() for history in seeds.values()], args)


def take_provenance(histories: Iterable[dict], args: argparse.Namespace) -> tuple[dict[str, list[str]], float]:
    """Take the provenance out of histories; return it joined, and the time of the trainings in seconds."""
    provenance, seconds = {}, 0.0
    for history in histories:
        provenance = merge(provenance, history.pop("provenance"))
        seconds += sum(history["seconds"])
    if note_change({"provenance": provenance}, args):
        print("what follows measures with this version of the script what another one trained; --restart trains anew")
    return provenance, seconds


def half_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the state of a network with its weights and statistics in half precision."""
    return {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}


def round_weights(network: nn.Module) -> nn.Module:
    """Round weights and statistics to half precision; returns the network."""
    network.load_state_dict(half_weights(network))
    return network


def save_model(args: argparse.Namespace, name: str, seed: int, config: dict, networks: dict) -> None:
    """Write for --models networks that were trained as `config` says: their weights alone, in half precision."""
    model = {"config": config, "history": {}, "layers": describe_layers(networks)}
    model["states"] = {key: half_weights(network) for key, network in networks.items()}
    write_object(args.out / f"model_{name}_seed{seed}.pt", model)


def remove_models(args: argparse.Namespace, kind: str) -> None:
    """Remove the models in OUT that an earlier run saved, perhaps of another seed and after fewer epochs."""
    for path in args.out.glob(f"model_{kind}_*.pt"):
        path.unlink()


def take_recipe(parser: Parser, argv: list[str] | None, args: argparse.Namespace) -> argparse.Namespace:
    """Return `args`, with --models completed by the recipe of the run there; InputError without one."""
    if not args.models:
        return args
    measuring = {"perturb_dims", "samples", "importance_samples", "test_images"}
    for flag in sorted(args.given - {"models", "data", "data_dir", "out", "device"} - measuring):
        raise InputError(f"--models measures what is there, without training; leave out --{flag.replace('_', '-')}")
    if not list(args.models.glob("model_*_seed*.pt")):
        raise InputError(f"--models {args.models} {'holds no models' if args.models.is_dir() else 'is not a folder'}")
    script = Path(parser.prog).stem
    recipe = read_metrics(args.models, script)["config"]
    recipe = {key: recipe[key] for key in vars(args).keys() & recipe.keys() - {"quick", "repeats"}}
    parser.set_defaults(**recipe, out=utils.from_here("results", f"{script}_models"))
    args = utils.parse_args(parser, argv, {})
    if args.out.resolve() == args.models.resolve():
        raise InputError(f"--out {args.out} is the folder of the models; give another")
    return args


def model_history(args: argparse.Namespace, script: str, key: str, curves: Iterable[str]) -> dict:
    """Return the history and the provenance of a training from the metrics beside its model; InputError without."""
    metrics = read_metrics(args.models, script)
    with utils.reading(f"{args.models / 'metrics.json'} has no training {key} of this version"):
        history = {curve: list(metrics["history"][key][curve]) for curve in curves}
        names = metrics.keys() & {"commit", "torch"} | {"command", "device"}
        return history | {"provenance": {name: [metrics[name]] for name in sorted(names)}}


def add_run(provenance: dict[str, list[str]], args: argparse.Namespace) -> dict[str, list[str]]:
    """Return `provenance` with this run's command, commit ("+": with changes), device, torch and hash of its script."""
    git = ["git", f"--git-dir={ROOT / '.git'}", f"--work-tree={ROOT}", "describe", "--always", "--exclude=*"]
    try:
        commit = subprocess.run([*git, "--dirty=+"], capture_output=True, text=True, check=False).stdout.split()
    except OSError:  # there is no git
        commit = []
    this = {"command": [args.command], "commit": commit, "device": [utils.describe(args.device)]}
    return merge(provenance, this | {"torch": [str(torch.__version__)], "code": [args.code]})


def merge(first: dict[str, list[str]], second: dict[str, list[str]]) -> dict[str, list[str]]:
    """Join the provenance of two trainings, each entry once."""
    return {key: list(dict.fromkeys([*first.get(key, []), *second.get(key, [])])) for key in first | second}


def save_metrics(
    args: argparse.Namespace, script: str, source: str, provenance: dict, seconds: float, history: dict, results: dict
) -> dict:
    """Write OUT/metrics.json: data, flags and versions beside what is passed. Returns what a reader of the file gets.

    The history keeps six significant digits, so that 150,000 iterations fit in a megabyte. Raises ValueError for
    numbers that are not finite, which JSON does not have.
    """
    # where and how it ran; the device has an entry of its own
    elsewhere = {"device", "data_dir", "out", "restart", "figures_only", "download", "models"}
    elsewhere |= {"command", "code", "given"}
    config = {key: value for key, value in vars(args).items() if key not in elsewhere}
    versions = {module.__name__: module.__version__ for module in (np, matplotlib, torch, torchvision)}
    versions["python"] = platform.python_version()
    metrics = {"script": script} | {key: "; ".join(entries) for key, entries in provenance.items() if entries}
    if args.command not in provenance["command"]:
        metrics["measured_by"] = args.command
    metrics |= {"data": source, "versions": versions, "config": config}
    history = json.loads(json.dumps(history), parse_float=lambda digits: float(f"{float(digits):.6g}"))
    metrics |= {"seconds": seconds, "history": history, "results": results}
    text = json.dumps(metrics, indent=1, allow_nan=False) + "\n"
    utils.write(args.out / "metrics.json", text)
    return json.loads(text)


def check_owner(out: Path, script: str) -> None:
    """Raise InputError where a folder holds the results of another script."""
    with suppress(OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
        if (other := json.loads((out / "metrics.json").read_text(encoding="utf-8"))["script"]) != script:
            raise InputError(f"{out} holds the results of {other}; give another folder")


def read_metrics(out: Path, script: str) -> dict:
    """Return what `save_metrics` wrote; InputError where there is none of this script, or a damaged one."""
    check_owner(out, script)
    with utils.reading(f"{out} holds no intact metrics.json; a run of {script}.py makes it"):
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        return metrics | {key: metrics[key] | {} for key in ("config", "history", "results")}  # an error without one
