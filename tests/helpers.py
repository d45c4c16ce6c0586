"""What the tests of the three scripts share: tiny data sets, tiny runs of each, and runs that are stopped."""

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import utils
from results import runs

ROOT = Path(__file__).parent.parent


class TinyEncoder(nn.Sequential):
    """Stands for resnet18 where the script's course is tested, not its network."""

    def __init__(self, num_classes, zero_init_residual):
        super().__init__(nn.Conv2d(3, 16, 8, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten())
        self.fc = nn.Linear(16 * 49, num_classes)


class Run(NamedTuple):
    """A run of a script: its module, its flags, and the folder that it wrote."""

    module: ModuleType
    flags: list[str]
    out: Path


FLAGS = {  # of a tiny run
    "q1_vae": "--data mnist --epochs 2 --importance-samples 20 --latent-size 5 --repeats 2",
    "q2_gan": "--data mnist --iterations 6 --critic-updates 2 --width 4 --latent-size 8 --batch-size 8 --lr 1e-3 "
    "--perturb-dims 3 5 --classifier-steps 5 --samples 40 --snapshots 0 2 6",
    "q3_simsiam": "--data synthetic --epochs 2 --batch-size 8 --dim 16 --pred-dim 8 --knn-k 5 "
    "--runs baseline no_predictor",
}
IMAGES = {"q1_vae": (600, 60), "q2_gan": (200, 50), "q3_simsiam": (24, 10)}  # to train and to test
CHANGES = {"q1_vae": {}, "q2_gan": {"RECORD_EVERY": 2}, "q3_simsiam": {"resnet18": TinyEncoder}}  # of the module


def arrays(**changes):
    """A valid one-file data set of 12 + 3 grey digits, with some entries replaced (None removes one)."""
    data = {"train_images": np.zeros((12, 28, 28), np.uint8), "train_labels": np.zeros(12, np.uint8)}
    data |= {"test_images": np.zeros((3, 28, 28), np.uint8), "test_labels": np.zeros(3, np.uint8)}
    data |= {"source": np.array("made for a test")}
    return {key: value for key, value in (data | changes).items() if value is not None}


def write_mnist(folder, num=6):
    """Write idx files of `num` + `num` images in torchvision's layout and return the training images."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (num, 28, 28), np.uint8)
    for prefix in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(num, dtype=np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return images


def digest(folder):
    """What is in a folder: {relative path: bytes}."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_metrics(out):
    """metrics.json in folder `out`, without what is another's in each run: times, command and state of the code."""
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"), object_pairs_hook=without_seconds)
    return {key: value for key, value in metrics.items() if key not in ("command", "commit")}


def change_metrics(out, change):
    """Apply `change` to metrics.json in folder `out`."""
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    change(metrics)
    (out / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


def model_flags(run, out):
    """The flags that measure the models of a run, into folder `out`."""
    data = run.flags[run.flags.index("--data-dir") :][:2]
    return [*data, "--device", "cpu", "--models", str(run.out), "--out", str(out)]


def draw_figures(problem, metrics, out):
    for name, draw in problem.FIGURES.items():
        draw(metrics, out / name)


def without_seconds(pairs):
    return {key: value for key, value in pairs if key != "seconds"}


# --- Runs that are stopped --------------------------------------------------------------------------------------------


def stop_and_go_on(script, out, moments, flags):
    """Run a script for each of the moments, stopped there, and once more to its end.

    Returns for each moment the two exit statuses and the number of the optimisers' steps in both runs, and what all of
    them wrote to stderr. A new process imports torch and forks the runs: a fork of this one would lack its threads.
    """
    arguments = json.dumps([script, str(out), list(moments), flags, torch.get_num_threads()])
    command = [sys.executable, "-m", "tests.helpers", arguments]
    process = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(process.stdout.splitlines()[-1]), process.stderr


def fork_runs(script, out, moments, flags, threads):
    torch.set_num_threads(threads)
    module, ends = import_module(script), {}
    vars(module).update(CHANGES[script], SAVE_EVERY=0)
    utils.save_figure = lambda *_: None
    for moment in moments:
        steps, statuses = Path(out, f"{moment}.steps"), []
        for trap in (moment, ""):
            pid = os.fork()
            if not pid:
                set_trap(trap, steps)
                sys.argv = [f"{script}.py", *flags, "--out", f"{out}/{moment}"]
                utils.run(module.main)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        ends[moment] = [*statuses, steps.stat().st_size]
    print(json.dumps(ends))


def set_trap(moment, steps):
    """Send this process a signal at an optimiser's step, where a function is called, or before a file is written.

    As in "SIGINT 7", "SIGKILL replace", "SIGKILL snapshot_6_seed0.pt". Each step adds a byte to the file `steps`.
    """
    name, _, place = moment.partition(" ")
    steps.touch()
    numbers = count(1)

    def stop(*_, **__):
        os.kill(os.getpid(), signal.Signals[name])

    def step(*_):
        with steps.open("a") as file:
            file.write(".")
        if str(next(numbers)) == place:
            stop()

    save = runs.save_checkpoint

    def save_or_stop(path, *rest):
        if path.name == place:
            stop()
        save(path, *rest)

    runs.save_checkpoint = save_or_stop
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with it ignored
    register_optimizer_step_pre_hook(step)
    if place.isidentifier():
        setattr(Path if place == "replace" else runs, place, stop)


if __name__ == "__main__":
    fork_runs(*json.loads(sys.argv[1]))
