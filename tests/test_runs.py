"""What runs leave in their folders: what holds for all three scripts, checkpoints and metrics, case by case."""

import argparse
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

import q1_vae
import utils
from results import runs
from tests.helpers import (
    FLAGS,
    ROOT,
    arrays,
    change_metrics,
    digest,
    model_flags,
    read_metrics,
    stop_and_go_on,
    write_mnist,
)

each_script = pytest.mark.parametrize("script", FLAGS)

# --- The output folder ------------------------------------------------------------------------------------------------


def open_out(out):
    runs.open_out(argparse.Namespace(out=out, restart=False), "q1_vae", [])


def test_unwritable_out_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(utils.InputError, match="cannot write to --out"):
        open_out(tmp_path / "file" / "out")


def test_folder_of_another_scripts_results_is_refused(tmp_path):
    metrics = tmp_path / "metrics.json"
    metrics.write_text('{"script": "q2_gan"}')
    for command in (open_out, partial(runs.read_metrics, script="q1_vae")):
        with pytest.raises(utils.InputError, match="holds the results of q2_gan; give another folder"):
            command(tmp_path)
    for own in ('{"script": "q1_vae"}', "{}", "[]", "damaged"):
        metrics.write_text(own)
        open_out(tmp_path)


OTHER_RECIPE = "--epochs 3, --batch-size 9, --lr 1, --dim 17, --pred-dim 9, --precision bfloat16, "
OTHER_RECIPE += "--train-images 23, --test-images 9"


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("q1_vae", "--lr 0.1", r"analytic_seed0\.pt was made with --lr 0\.0003, not 0\.1; give the same"),
        ("q1_vae", "--epochs 1", r"analytic_seed0\.pt is at epoch 2 already; give --epochs 2 or more"),
        ("q2_gan", "--lr 0.01", r"snapshot_6_seed0\.pt was made with --lr 0\.001, not 0\.01"),
        ("q2_gan", "--lr 0.01 --iterations 7", r"checkpoint_seed0\.pt was made with --lr 0\.001, not 0\.01"),
        ("q2_gan", "--iterations 4 --snapshots 0", "is at iteration 6 already; give --iterations 6 or more"),
        *(("q3_simsiam", flag, f"was made with {flag.split()[0]} ") for flag in OTHER_RECIPE.split(", ")),
        ("q3_simsiam", "--train-images 25", "--train-images 25: give 2 to 24, or 0 for all"),
        ("q3_simsiam", "--train-images 1", "--train-images 1: give 2 to 24, or 0 for all"),
        ("q3_simsiam", "--test-images 11", "--test-images 11: give 2 to 10, or 0 for all"),
        ("q3_simsiam", "--knn-k 25", "--knn-k 25 is more than the 24 training images"),
        ("q3_simsiam", "--batch-size 25", "--batch-size 25 is more than the 24 training images"),
        ("q3_simsiam", "--train-images 7", "--batch-size 8 is more than the 7 training images"),
    ],
)
def test_refused_command_changes_nothing(script, flags, message, copied):
    run = copied(script)
    before = digest(run.out)
    with pytest.raises(utils.InputError, match=message):
        run.module.main([*run.flags, *flags.split()])
    assert digest(run.out) == before


@pytest.mark.parametrize(
    ("script", "flags", "left"),
    [
        ("q1_vae", "--repeats 1", ["checkpoint_analytic_seed1.pt", "checkpoint_mc_seed1.pt"]),
        ("q2_gan", "", []),
        ("q3_simsiam", "--runs baseline", ["checkpoint_no_predictor_seed0.pt"]),
    ],
)
def test_restart_discards_the_named_checkpoints_before_it_trains(script, flags, left, copied, monkeypatch):
    """Else the same command after an interrupted restart would take the first start's for its own."""
    run = copied(script)
    monkeypatch.setattr(run.module, "train", lambda *_: sys.exit())
    models = [path.name for path in run.out.glob("model_*.pt")]  # they stay with metrics.json until others are there
    for again in ("--restart", ""):
        with pytest.raises(SystemExit):
            run.module.main([*run.flags, *flags.split(), *again.split()])
        assert {path.name for path in run.out.glob("*.pt")} == {*left, *models} and (run.out / "metrics.json").exists()


@pytest.mark.parametrize(
    ("script", "flags", "lost"),
    [
        ("q1_vae", "--seed 10", "analytic_seed0"),
        ("q1_vae", "--repeats 1 --restart", "analytic_seed1"),
        ("q2_gan", "--seed 1", "seed0"),
        ("q3_simsiam", "--runs baseline", "no_predictor_seed0"),
    ],
)
def test_results_of_trainings_without_checkpoint_are_not_overwritten(script, flags, lost, copied):
    run = copied(script)
    for path in (*run.out.glob("checkpoint_*.pt"), *run.out.glob("snapshot_*.pt")):
        path.unlink()
    before = digest(run.out)
    with pytest.raises(utils.InputError, match=f"holds results of {lost} without its checkpoint; give another --out"):
        run.module.main([*run.flags, *flags.split()])
    assert digest(run.out) == before


def test_results_of_a_training_whose_snapshots_are_left_may_be_joined(copied, monkeypatch):
    run = copied("q2_gan")
    (run.out / "checkpoint_seed0.pt").unlink()
    monkeypatch.setattr(run.module, "train", lambda *_: sys.exit())
    with pytest.raises(SystemExit):
        run.module.main([*run.flags, "--seed", "1"])


@each_script
def test_download_loads_and_ends(script, run_of, tmp_path, capsys):
    run = run_of(script)
    run.module.main([*run.flags, "--out", str(tmp_path / "out"), "--download"])
    assert "data: tiny digits" in capsys.readouterr().out and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("script", "figures"),
    [
        ("q1_vae", ["elbo.png", "log_likelihood.png"]),
        ("q2_gan", ["interpolation_curves.png", "quality.png", "training.png"]),
        ("q3_simsiam", ["monitors.png", "runs.png"]),
    ],
)
def test_figures_only_draws_the_curves_from_the_metrics_alone(script, figures, run_of, tmp_path, capsys):
    """In problem 2 with another RECORD_EVERY than the run's: an axis is that of the run."""
    run = run_of(script)
    expected = {name: (run.out / name).read_bytes() for name in ("metrics.json", "report.md", *figures)}
    (tmp_path / "metrics.json").write_bytes(expected["metrics.json"])
    run.module.main([*run.flags[:2], "--data-dir", "nowhere", "--out", str(tmp_path), "--figures-only"])
    assert digest(tmp_path) == expected
    names, _, rest = capsys.readouterr().out.splitlines()[-1].partition(", metrics.json")
    assert sorted(names.split(", ")) == figures and rest == f" and report.md are in {tmp_path}"


@each_script
def test_figures_only_refuses_what_it_cannot_honour(script, run_of):
    module = run_of(script).module
    with pytest.raises(utils.InputError, match=r"draws what metrics\.json holds; leave out --lr"):
        module.main("--seed 1 --lr 0.1 --figures-only".split())


@pytest.mark.parametrize(
    ("script", "part", "other"),
    [
        ("q1_vae", "curves", None),
        ("q1_vae", "seeds", {}),
        ("q2_gan", "digits", [[1]]),
        ("q2_gan", "seeds", []),
        ("q3_simsiam", "knn_accuracy_pixels", None),
    ],
)
def test_metrics_of_an_earlier_version_are_named_in_one_line_and_nothing_is_drawn(script, part, other, copied):
    run = copied(script)
    change_metrics(run.out, lambda metrics: metrics["results"].pop(part))
    change_metrics(run.out, lambda metrics: metrics["results"].update({} if other is None else {part: other}))
    before = digest(run.out)
    with pytest.raises(utils.InputError, match=r"metrics\.json was made by an earlier version.*without --figures-only"):
        run.module.main(["--out", str(run.out), "--figures-only"])
    assert digest(run.out) == before


@each_script
def test_figures_are_in_nobodys_style(script, copied):
    run = copied(script)
    before = {path.name: path.read_bytes() for path in run.out.glob("*.png")}
    for name in before:
        (run.out / name).unlink()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        run.module.main(run.flags)
    assert {path.name: path.read_bytes() for path in run.out.glob("*.png")} == before


@each_script
def test_where_no_training_is_finished_it_is_said(script, copied, monkeypatch):
    run = copied(script)
    for path in run.out.glob("*.pt"):
        path.unlink()
    monkeypatch.setattr(run.module, "train", lambda *_: None)
    with pytest.raises(utils.InputError, match=f"no training in {run.out} (is finished|has a snapshot)"):
        run.module.main(run.flags)


def fill_disk(monkeypatch, name):
    """Let the disk be full after ten bytes of any file whose name begins with `name`."""
    write_bytes = Path.write_bytes

    def write(path, content):
        if not path.name.startswith(name):
            return write_bytes(path, content)
        write_bytes(path, content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write)


@pytest.mark.parametrize("name", ["log_likelihood.png", "report.md"])
def test_full_disk_is_named_and_keeps_figures_and_page(name, copied, monkeypatch):
    run = copied("q1_vae")
    (run.out / name).write_bytes(b"of an earlier run")
    before = digest(run.out)
    fill_disk(monkeypatch, name)
    with pytest.raises(utils.InputError, match=rf"cannot write .*{name}: No space left on device"):
        run.module.main(["--out", str(run.out), "--figures-only"])
    assert digest(run.out) == before


@pytest.mark.parametrize("content", [None, '{"results": {}}', '{"results":', "[]"])
def test_figures_only_without_intact_metrics_is_refused(content, tmp_path):
    if content:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(utils.InputError, match=r"holds no intact metrics\.json; a run of q\w+\.py makes it"):
        q1_vae.main(["--out", str(tmp_path), "--figures-only"])


@pytest.mark.parametrize(
    ("script", "moments"),
    [  # with the optimisers' steps until a run is stopped plus those from what was saved to the end
        ("q1_vae", {"SIGKILL replace": 72, "SIGKILL 12": 68, "SIGINT 28": 68, "SIGKILL save_metrics": 64}),
        (
            "q2_gan",
            {"SIGKILL replace": 23, "SIGKILL 2": 25, "SIGKILL 11": 28, "SIGKILL snapshot_6_seed0.pt": 23}
            | {"SIGINT 11": 28, "SIGKILL save_metrics": 23},
        ),
        ("q3_simsiam", {"SIGKILL replace": 15, "SIGINT 5": 14, "SIGKILL 8": 14, "SIGKILL save_metrics": 12}),
    ],
)
def test_run_that_was_stopped_goes_on_where_it_was_saved_to_identical_numbers(script, moments, run_of, tmp_path):
    run = run_of(script)
    ends, text = stop_and_go_on(script, tmp_path, moments, run.flags)
    assert len(re.findall(r"interrupted; checkpoint_\w+\.pt goes on after", text)) == str(moments).count("SIGINT")
    for moment, steps in moments.items():
        assert ends[moment] == [130 if "SIGINT" in moment else -9, 0, steps], moment
        assert read_metrics(tmp_path / moment) == read_metrics(run.out), moment


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@each_script
def test_script_runs_on_cuda(script, run_of, tmp_path):
    run = run_of(script)
    run.module.main([*run.flags, "--device", "cuda", "--out", str(tmp_path)])
    assert read_metrics(tmp_path)["device"].startswith("cuda")


# --- Checkpoints ------------------------------------------------------------------------------------------------------

CONFIG = {"lr": 0.1, "epochs": 3}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model, path = torch.nn.Linear(2, 2), tmp_path / "checkpoint.pt"
    runs.save_checkpoint(path, CONFIG, {"model": model}, {"loss": [1.0, 0.5], "seconds": [1, 1]})
    return path, model


def test_checkpoint_restores_weights_history_and_the_rng(saved):
    path, model = saved
    expected, other = torch.rand(3), torch.nn.Linear(2, 2)
    assert runs.load_checkpoint(path, CONFIG, {"model": other}) == {"loss": [1.0, 0.5], "seconds": [1, 1]}
    assert torch.equal(torch.rand(3), expected) and torch.equal(model.weight, other.weight)


def with_zero_weights(raw, model):
    weight = model.weight.detach().numpy().tobytes()
    assert raw.count(weight) == 1
    return raw.replace(weight, bytes(len(weight)))


def with_code(raw, model):
    buffer = io.BytesIO()
    torch.save(torch.load(io.BytesIO(raw), weights_only=True) | {"code": os.system}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage", [lambda raw, _: b"", lambda raw, _: b"junk", lambda raw, _: raw[:-200], with_zero_weights, with_code]
)
def test_damaged_checkpoint_is_named(damage, saved):
    path, model = saved
    path.write_bytes(damage(path.read_bytes(), model))
    with pytest.raises(utils.InputError, match="cannot be read: it is damaged"):
        runs.load_checkpoint(path, {}, {"model": model})


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (
            {"0": nn.Linear(3, 2)},
            r"its model\.0 is Linear weight \(2, 2\) .*, here it is Linear weight \(2, 3\)",
        ),
        ({"1": nn.ReLU()}, r"its model\.1 is ELU, here it is ReLU;"),
        ({"2": nn.ReLU()}, r"its model\.2 is absent, here it is ReLU;"),
    ],
)
def test_checkpoint_of_another_network_is_refused_with_the_first_module_that_differs(change, difference, tmp_path):
    path, layers = tmp_path / "checkpoint.pt", {"0": nn.Linear(2, 2), "1": nn.ELU()}
    runs.save_checkpoint(path, {}, {"model": nn.Sequential(OrderedDict(layers))}, {})
    with pytest.raises(utils.InputError, match=rf"holds another network: {difference}.*--restart.*another --out"):
        runs.load_checkpoint(path, {}, {"model": nn.Sequential(OrderedDict(layers | change))})


def test_checkpoint_of_other_data_is_refused_with_where_to_read(tmp_path):
    path, model = tmp_path / "checkpoint.pt", nn.Linear(2, 2)
    runs.save_checkpoint(path, {"source": "ours"}, {"model": model}, {})
    with pytest.raises(utils.InputError, match=r"was made with data ours, not theirs \(see data/README.md\); give the"):
        runs.load_checkpoint(path, {"source": "theirs"}, {"model": model})


def test_checkpoint_without_a_curve_is_named(saved):
    path, model = saved
    with pytest.raises(utils.InputError, match=r"made by an earlier version, without elbo; add --restart"):
        runs.load_checkpoint(path, CONFIG, {"model": model}, ["loss", "elbo"])


def test_ctrl_c_says_where_the_next_run_begins(saved, tmp_path):
    gan, absent = tmp_path / "gan.pt", tmp_path / "absent.pt"
    runs.save_checkpoint(gan, {}, {"model": saved[1]}, {"iteration": [10, 20], "seconds": [1, 1]})
    for path, quick, text in (
        (saved[0], False, "checkpoint.pt goes on after epoch 2"),
        (gan, False, "gan.pt goes on after iteration 20"),
        (gan, True, ""),
        (absent, False, ""),
    ):
        args = argparse.Namespace(quick=quick, restart=True)
        with pytest.raises(KeyboardInterrupt, match=f"^{text}$"), runs.interruptible(path, args):
            raise KeyboardInterrupt


@pytest.mark.parametrize("change", [lambda checkpoint: checkpoint.pop("layers"), lambda c: c.update(config=[])])
def test_checkpoint_of_an_earlier_version_is_named(change, saved):
    path, model = saved
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    with pytest.raises(utils.InputError, match=r"cannot be read: it is damaged, or of another version; add --restart"):
        runs.load_checkpoint(path, CONFIG, {"model": model})


@each_script
def test_another_network_is_refused(script, copied, monkeypatch):
    run = copied(script)
    other = type("Other", (nn.Module,), {"__init__": lambda self, *_: nn.Module.__init__(self)})
    monkeypatch.setattr(nn, "ELU" if script == "q1_vae" else "ReLU", other)
    before = digest(run.out)
    message = r"seed0\.pt holds another network: its .* is (E|Re)LU, here it is Other;"
    with pytest.raises(utils.InputError, match=message):
        run.module.main(run.flags)
    assert digest(run.out) == before


@each_script
def test_a_changed_script_is_told_in_one_line(script, copied, drawn, monkeypatch, capsys):
    run = copied(script)
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read_bytes(path) + b"#" * (path.name == f"{script}.py"))
    capsys.readouterr()
    run.module.main(run.flags)
    lines = [line for line in capsys.readouterr().out.splitlines() if "the script has changed since" in line]
    assert len(lines) == len(list(run.out.glob("checkpoint_*.pt")))


def test_full_disk_is_named_and_keeps_the_last_checkpoint(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()
    fill_disk(monkeypatch, "checkpoint.pt")
    with pytest.raises(utils.InputError, match=r"cannot write .*checkpoint\.pt: No space left on device"):
        runs.save_checkpoint(path, {}, {"model": model}, {})
    assert digest(path.parent) == {path.name: before}


LACKS = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), ModuleNotFoundError("No module named 'scipy'")]
LACKS += [RuntimeError("DefaultCPUAllocator: can't allocate memory"), PermissionError(13, "Permission denied", "a")]


@pytest.mark.parametrize("lack", LACKS, ids=lambda lack: type(lack).__name__)
def test_a_lack_of_the_machines_is_never_called_a_damaged_file(lack, saved, monkeypatch):
    def fail(*_, **__):
        raise lack

    path, model = saved
    np.savez(path.parent / "mnist.npz", **arrays())
    write_mnist(path.parent / "MNIST" / "raw")
    for target, name, read in (
        (torch, "load", lambda: runs.load_checkpoint(path, {}, {"model": model})),
        (torch.nn.Linear, "load_state_dict", lambda: runs.load_checkpoint(path, {}, {"model": model})),
        (np, "load", lambda: utils.load_npz(path.parent / "mnist.npz")),
        (utils, "MNIST", lambda: utils.load_torchvision("mnist", path.parent)),
    ):
        with monkeypatch.context() as patch, pytest.raises(type(lack)):
            patch.setattr(target, name, fail)
            read()


# --- Models -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["q1_vae", "q2_gan"])
def model_run(request, copied, tmp_path):
    """A run whose folder holds models and metrics alone, as a reference does, and the flags that measure them."""
    run = copied(request.param)
    for path in run.out.iterdir():
        if not path.name.startswith(("model_", "metrics")):
            path.unlink()
    return run._replace(flags=model_flags(run, tmp_path / "measured"))


def test_models_alone_give_the_numbers_of_their_run(model_run, run_of, drawn, tmp_path):
    """But for the critic's; of problem 1 of the first seed, and validation ELBOs with other z than in training."""
    script = model_run.module.__name__
    before, expected = digest(model_run.out), read_metrics(run_of(script).out)
    model_run.module.main(model_run.flags)
    metrics = read_metrics(tmp_path / "measured")
    assert metrics["history"].items() <= expected["history"].items() and digest(model_run.out) == before
    assert (metrics["torch"], metrics["device"]) == (expected["torch"], expected["device"])
    assert not list((tmp_path / "measured").glob("model_*"))
    if script == "q1_vae":
        measured, trained = metrics["results"]["seeds"]["0"], expected["results"]["seeds"]["0"]
        for key in ("elbo_analytic", "elbo_mc"):
            assert 0 < abs(measured.pop(key) / trained.pop(key) - 1) < 1e-2
        assert measured == trained
        assert metrics["config"]["importance_samples"] == 20
    else:
        for snapshot in expected["results"]["seeds"]["0"]["snapshots"].values():
            snapshot.pop("memorisation", None)
        assert metrics["results"] == expected["results"]
    assert metrics["data"] == "tiny digits" or script == "q1_vae"


@pytest.mark.parametrize("flag", ["--quick", "--restart", "--repeats 2", "--seed 7", "--lr 0.1"])
def test_models_are_measured_without_training(flag, model_run):
    with pytest.raises(utils.InputError, match=f"without training; leave out {flag.split()[0]}"):
        model_run.module.main([*model_run.flags, *flag.split()])


def test_models_take_the_recipe_of_their_run_but_not_how_it_was_made(model_run):
    change_metrics(model_run.out, lambda metrics: metrics["config"].update(quick=True, repeats=5, lr=0.5))
    args = model_run.module.get_args(model_run.flags)
    assert (args.quick, args.repeats, args.lr) == (False, 1, 0.5)


def test_models_that_do_not_fit_are_named(model_run):
    main, flags = model_run.module.main, model_run.flags
    with pytest.raises(utils.InputError, match="is the folder of the models; give another"):
        main([*flags, "--out", str(model_run.out)])
    with pytest.raises(utils.InputError, match=f"{model_run.out}x is not a folder"):
        main([*flags, "--models", f"{model_run.out}x"])
    for path in model_run.out.glob("model_*.pt"):
        whole, model = path.read_bytes(), torch.load(path)
        for damaged in (b"junk", whole[:-200]):
            path.write_bytes(damaged)
            with pytest.raises(utils.InputError, match=rf"{path.name} cannot be read: it is damaged"):
                main(flags)
        for state in model["states"].values():
            next(iter(state.values())).fill_(math.nan)
        torch.save(model, path)
        with pytest.raises(utils.InputError, match=rf"{path.name} does not hold what it is needed for"):
            main(flags)
        path.write_bytes(whole)
    change_metrics(model_run.out, lambda metrics: metrics["config"].update(latent_size=6))
    with pytest.raises(utils.InputError, match=r"was made with --latent-size \d+, not 6"):
        main(flags)
    for path in model_run.out.glob("model_*.pt"):
        path.unlink()
    with pytest.raises(utils.InputError, match=r"--models .* holds no models"):
        main(flags)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda metrics: metrics.update(script="q9"), "holds the results of q9"),
        (lambda metrics: metrics.update(config=[]), "holds no intact metrics.json"),
        (lambda metrics: metrics.pop("command"), "has no training .* of this version"),
        (lambda metrics: next(iter(metrics["history"].values())).pop("seconds"), "has no training .* of this version"),
        (lambda metrics: metrics["history"].clear(), "has no training .* of this version"),
    ],
)
def test_metrics_beside_models_that_do_not_fit_are_named(change, text, model_run):
    change_metrics(model_run.out, change)
    with pytest.raises(utils.InputError, match=text):
        model_run.module.main(model_run.flags)


def test_models_are_measured_twice_into_one_folder_but_not_into_that_of_a_training(model_run, run_of, drawn, tmp_path):
    for _ in range(2):
        model_run.module.main(model_run.flags)
    shutil.copy(run_of(model_run.module.__name__).out / "metrics.json", tmp_path / "measured")
    with pytest.raises(utils.InputError, match="measured holds the results of a training; give another --out"):
        model_run.module.main(model_run.flags)


@pytest.mark.parametrize(
    ("script", "names"),
    [("q1_vae", ["checkpoint_analytic", "checkpoint_mc"]), ("q2_gan", ["classifier", "snapshot_2", "snapshot_6"])],
)
def test_models_of_another_seed_do_not_stay_where_a_run_writes_its_own(script, names, copied, drawn):
    run = copied(script)
    (run.out / f"model_{names[-1]}_seed1.pt").write_bytes(b"of a shorter run")
    run.module.main(run.flags)
    assert {path.name for path in run.out.glob("model_*")} == {f"model_{name}_seed0.pt" for name in names}


def test_a_model_of_another_iteration_is_named(copied, tmp_path):
    run = copied("q2_gan")
    shutil.copy(run.out / "model_snapshot_2_seed0.pt", run.out / "model_snapshot_6_seed0.pt")
    with pytest.raises(utils.InputError, match=r"model_snapshot_6_seed0.pt was made with --iteration 2, not 6"):
        run.module.main(model_flags(run, tmp_path / "measured"))


def test_models_may_be_measured_with_other_numbers_of_images(model_run):
    flags = {"q1_vae": ["test_images", "importance_samples"], "q2_gan": ["samples", "perturb_dims"]}
    for flag in flags[model_run.module.__name__]:
        value = vars(model_run.module.get_args([*model_run.flags, f"--{flag.replace('_', '-')}", "3"]))[flag]
        assert value in (3, [3])


# --- Results ----------------------------------------------------------------------------------------------------------


def test_metrics_are_valid_json_with_their_origin(tmp_path):
    first = {"command": ["python q9.py"], "commit": [], "device": ["cpu (one)"]}
    provenance = runs.merge(first, first | {"device": ["cpu (two)"]})
    content = {"seconds": 1.23456789, "history": {"a": {"loss": [1.23457e-5]}}, "results": {"a": 1.23456789}}
    places = {"out": tmp_path, "data_dir": Path("data"), "device": torch.device("cpu"), "command": "python q9.py"}
    args = argparse.Namespace(lr=0.1, restart=True, figures_only=False, download=False, **places)
    longer = content | {"history": {"a": {"loss": [1.23456789e-5]}}}
    runs.save_metrics(args, "q9", "digits", provenance, *longer.values())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics.pop("versions")["torch"] == torch.__version__
    origin = {"script": "q9", "command": "python q9.py", "device": "cpu (one); cpu (two)", "data": "digits"}
    assert metrics == origin | content | {"config": {"lr": 0.1}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.save_metrics(args, "q9", "digits", provenance, float("nan"), {}, {})


def test_provenance_names_command_commit_and_processor_of_every_session(tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    (repository / "utils.py").write_text("first")
    monkeypatch.setattr(runs, "ROOT", repository)
    monkeypatch.setattr(utils, "describe", lambda _: "cpu (a model)")
    monkeypatch.setattr(sys, "argv", ["q1_vae.py", "--lr", "0.1", "--out", str(tmp_path / "a b"), "--restart"])
    args = q1_vae.get_args()
    command = f"python q1_vae.py --lr 0.1 --out '{tmp_path}/a b'"
    code = hashlib.sha256((ROOT / "q1_vae.py").read_bytes()).hexdigest()[:12]
    expected = {"command": [command], "commit": [], "device": ["cpu (a model)"]}
    expected |= {"torch": [torch.__version__], "code": [code]}
    assert runs.add_run({}, args) == expected
    for step in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *step], check=True)
    (commit,) = runs.add_run({}, args)["commit"]
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert len(commit) >= 7 and head.startswith(commit)
    (repository / "utils.py").write_text("second")
    earlier = expected | {"commit": [commit]}
    assert runs.add_run(earlier, args) == expected | {"commit": [commit, f"{commit}+"]}
