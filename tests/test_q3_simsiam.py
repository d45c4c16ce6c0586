"""Problem 3: model and loss, the augmentation against torchvision, the monitors, and the script end to end."""

import argparse
import math
import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tv
from torchvision.models import resnet18, resnext50_32x4d

import q3_simsiam
import utils
from data.augmentation import MEAN, STD, augment
from data.synthetic import synthetic_data
from results import simsiam as words
from tests import oracles
from tests.helpers import read_metrics

ROOT = Path(__file__).parent.parent


def small(**arguments):
    torch.manual_seed(0)
    return q3_simsiam.SimSiam(resnet18, dim=32, pred_dim=8, **arguments)


# --- Model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "dim"), [((4, 7), 1), ((4, 7), 0), ((2, 3, 5), -1), ((2, 3, 5), 1)])
def test_cosine_similarity_equals_torch(shape, dim):
    x, y = torch.randn(2, *shape, dtype=torch.float64)
    expected = torch.nn.CosineSimilarity(dim=dim)(x, y)
    torch.testing.assert_close(q3_simsiam.CosineSimilarity(dim=dim)(x, y), expected)


def test_cosine_similarity_of_zero_vectors_is_zero():
    x, y = torch.zeros(2, 3), torch.randn(2, 3)
    assert q3_simsiam.CosineSimilarity()(x, y).tolist() == [0, 0]
    assert q3_simsiam.CosineSimilarity(eps=4.0)(torch.ones(1, 2), torch.ones(1, 2)).item() == 0.5


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("mode", [None, "no_pred_mlp", "fixed_random_init"])
def test_forward_gives_four_outputs_and_detaches_z_exactly_when_asked(stop_gradient, mode, images):
    model = small(stop_gradient=stop_gradient, MLP_mode=mode)
    p1, p2, z1, z2 = model(images[:4], images[4:8])
    assert p1.shape == p2.shape == z1.shape == z2.shape == (4, 32)
    assert p1.requires_grad and p2.requires_grad
    assert z1.requires_grad == z2.requires_grad == (not stop_gradient)
    assert torch.equal(p1, z1) == (mode == "no_pred_mlp")


def test_model_is_the_assignments():
    model = q3_simsiam.SimSiam(resnet18)
    assert [tuple(p.shape) for p in model.encoder.fc.parameters()] == [
        *((512, 512), (512,), (512,)),
        *((512, 512), (512,), (512,)),
        *((2048, 512), (2048,)),
    ]
    assert [tuple(p.shape) for p in model.predictor.parameters()] == [(512, 2048), (512,), (512,), (2048, 512), (2048,)]
    assert not model.encoder.layer1[0].bn2.weight.any()  # zero_init_residual
    assert tuple(model.encoder.conv1.weight.shape) == (64, 3, 7, 7)


def test_frozen_parameters():
    frozen = {name for name, p in small().named_parameters() if not p.requires_grad}
    assert frozen == {"encoder.fc.6.bias"}
    model = small(MLP_mode="fixed_random_init")
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"encoder.fc.6.bias", *(f"predictor.{name}" for name, _ in model.predictor.named_parameters())}
    assert not list(small(MLP_mode="no_pred_mlp").predictor.parameters())
    with pytest.raises(ValueError, match="'none' is none of"):
        small(MLP_mode="none")


def test_frozen_predictor_is_the_starters():
    linear, _, _, last = q3_simsiam.SimSiam(resnet18, MLP_mode="fixed_random_init").predictor
    for weight in (linear.weight, last.weight):
        assert weight.mean().item() == pytest.approx(0, abs=5e-5) and weight.std().item() == pytest.approx(
            0.01, rel=0.01
        )
    assert not last.bias.any()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_convolution_of_small_maps_equals_torchs_with_its_gradients(size, stride):
    conv = utils.SmallMapConv2d(3, 5, 3, stride, 1, bias=False).double()
    x = torch.randn(4, 3, size, size, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, conv.weight, stride=stride, padding=1)
    weights = torch.randn_like(expected)
    ours, oracle = ((y, *torch.autograd.grad((y * weights).sum(), (x, conv.weight))) for y in (conv(x), expected))
    torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-12)


def test_network_is_torchvisions_with_its_state_dict(images):
    encoder, oracle = small().encoder.double().eval(), resnet18(num_classes=32).double().eval()
    oracle.fc = encoder.fc
    oracle.load_state_dict(encoder.state_dict())
    kinds = [type(module) for module in encoder.modules() if isinstance(module, torch.nn.Conv2d)]
    assert kinds.count(utils.SmallMapConv2d) == 16 and kinds.count(torch.nn.Conv2d) == 4
    torch.testing.assert_close(encoder(images[:4].double()), oracle(images[:4].double()))


def test_grouped_convolutions_stay_torchvisions(images):
    model = q3_simsiam.SimSiam(resnext50_32x4d, 8, 4).eval()
    assert model.encoder(images[:2]).shape == (2, 8)


def test_network_multiplies_no_padding(images, monkeypatch):
    """On images of 32 x 32 the last 7 convolutions of 3x3 see maps of 2x2 and 1x1."""
    sizes, linear = [], F.linear
    monkeypatch.setattr(F, "linear", lambda x, weight: (sizes.append(tuple(weight.shape)), linear(x, weight))[1])
    encoder = small().encoder
    encoder.fc = torch.nn.Identity()
    encoder(images[:2])
    assert sizes == [(1024, 1024)] * 3 + [(512, 1024)] + [(512, 512)] * 3


def test_runs_are_the_ablations_of_their_names():
    models = {run: small(**arguments) for run, arguments in q3_simsiam.RUNS.items()}
    assert [run for run in models if not models[run].stop_gradient] == ["no_stop_gradient"]
    assert [run for run in models if isinstance(models[run].predictor, torch.nn.Identity)] == ["no_predictor"]
    frozen = [run for run in models if any(not p.requires_grad for p in models[run].predictor.parameters())]
    assert frozen == ["fixed_random_predictor"]


def test_optimizer_is_the_reports():
    model = small()
    encoder, predictor = q3_simsiam.make_optimizer(model, 0.1, 0.9, 5e-4).param_groups
    for group in (encoder, predictor):
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 5e-4)
    assert (encoder["fix_lr"], predictor["fix_lr"]) == (False, True)
    assert {id(p) for p in predictor["params"]} == {id(p) for p in model.predictor.parameters()}
    assert {id(p) for p in encoder["params"]} == {id(p) for p in model.encoder.parameters() if p.requires_grad}


def test_loss_is_the_symmetric_negative_cosine():
    model = small()
    p1, p2, z1, z2 = torch.randn(4, 6, 32)
    expected = oracles.simsiam_loss(p1, p2, z1, z2)
    torch.testing.assert_close(model.loss(p1, p2, z1, z2), expected)
    torch.testing.assert_close(model.loss(p2, p1, z2, z1), expected)
    assert model.loss(p1, p2, 3 * p2, 2 * p1).item() == pytest.approx(-1)
    assert model.loss(p1, p2, -p2, -p1).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="'Euclid'"):
        model.loss(p1, p2, z1, z2, similarity_function="Euclid")


def test_represent_gives_the_features_before_the_projector_and_its_output(images):
    model = small().eval()
    features, z = model.represent(images[:3])
    assert features.shape == (3, 512)
    torch.testing.assert_close(z, model.encoder(images[:3]))
    torch.testing.assert_close(z, model.encoder.fc(features))


def test_gradient_without_predictor_is_half_of_the_one_without_stop_gradient(images):
    """D(z1, sg(z2)) / 2 + D(sg(z1), z2) / 2 against D(z1, z2), on the whole network: the original's explanation."""
    model = small(MLP_mode="no_pred_mlp").double()
    parameters = [p for p in model.parameters() if p.requires_grad]
    x1, x2 = images[:8].double(), images[8:16].double()
    stopped = torch.autograd.grad(model.loss(*model(x1, x2)), parameters)
    model.stop_gradient = False
    _, _, z1, z2 = model(x1, x2)
    free = torch.autograd.grad(-F.cosine_similarity(z1, z2).mean(), parameters)
    for half, whole in zip(stopped, free, strict=True):
        torch.testing.assert_close(2 * half, whole, rtol=1e-9, atol=1e-12)


# --- Monitors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 500])
def test_knn_equals_brute_force(chunk):
    torch.manual_seed(0)
    train, labels, test, expected = torch.randn(60, 5), torch.arange(60) % 10, torch.randn(23, 5), torch.arange(23) % 10
    test *= 0.01  # only the direction counts
    predicted = []
    for x in test:
        cosines = [float(torch.nn.functional.cosine_similarity(x, y, dim=0)) for y in train]
        votes = [0.0] * 10
        for i in sorted(range(60), key=lambda i: -cosines[i])[:9]:
            votes[labels[i]] += math.exp(cosines[i] / 0.1)
        predicted.append(max(range(10), key=votes.__getitem__))
    accuracy = sum(p == e for p, e in zip(predicted, expected.tolist(), strict=True)) / 23
    assert q3_simsiam.knn_accuracy(train, labels, test, expected, 9, 0.1, chunk) == pytest.approx(accuracy)
    assert q3_simsiam.knn_accuracy(train, labels, test, torch.tensor(predicted), 9, 0.1, chunk) == 1


def test_embedding_is_that_of_normalised_images_in_evaluation_mode(images):
    model = small()
    pictures = (images[:6] * 255).byte()
    features, z = q3_simsiam.embed(model, pictures)
    assert model.training
    expected = model.eval().represent(tv.normalize(pictures / 255, MEAN, STD))
    torch.testing.assert_close((features, z), expected)


def test_monitor_calls_each_accuracy_by_its_name(monkeypatch):
    labels = torch.arange(40) % 10
    good, bad = torch.eye(10)[labels], torch.ones(40, 10)
    outputs = {"train": (bad, good), "test": (bad + 0, good * (labels < 5)[:, None] + torch.eye(10)[9])}
    monkeypatch.setattr(q3_simsiam, "embed", lambda _, split: outputs[split])
    monkeypatch.setattr(q3_simsiam, "silent_share", lambda _, features: 0.25 if features is outputs["test"][0] else 0)
    data = {f"{split}_images": split for split in outputs} | {f"{split}_labels": labels for split in outputs}
    monitored = q3_simsiam.monitor(None, data, argparse.Namespace(knn_k=4, knn_temperature=0.1))
    assert monitored["knn_accuracy"] == 0.6 and monitored["knn_accuracy_backbone"] == pytest.approx(0.1)
    for name in ("output_std", "effective_rank", "median_distance"):
        assert monitored[name] == getattr(q3_simsiam, name)(outputs["test"][1])
    assert monitored["silent"] == 0.25


def test_monitor_takes_the_median_over_the_first_1000_test_images(monkeypatch):
    outputs, labels = {"train": torch.randn(10, 4), "test": torch.randn(1010, 4)}, torch.arange(1010) % 10
    monkeypatch.setattr(q3_simsiam, "embed", lambda _, split: (outputs[split], outputs[split]))
    monkeypatch.setattr(q3_simsiam, "median_distance", lambda z: z)
    monkeypatch.setattr(q3_simsiam, "silent_share", lambda *_: 0)
    data = {"train_images": "train", "test_images": "test", "train_labels": labels[:10], "test_labels": labels}
    monitored = q3_simsiam.monitor(None, data, argparse.Namespace(knn_k=4, knn_temperature=0.1))
    assert torch.equal(monitored["median_distance"], outputs["test"][:1000])


class Near(torch.nn.Module):
    """Projects images onto directions that differ by less than float32 resolves in a cosine."""

    def __init__(self):
        super().__init__()
        self.scale, self.encoder = torch.nn.Parameter(torch.tensor(1e-6)), torch.nn.Module()
        self.encoder.fc = torch.nn.Sequential(torch.nn.ReLU())  # both units silent where the value is not above 0

    def represent(self, x):
        value = x.mean((1, 2, 3))[:, None] * self.scale
        return torch.cat([value, value - self.scale], 1), torch.cat([torch.ones_like(value), value], 1)


def test_accuracy_in_float64_tells_apart_what_float32_does_not():
    labels = torch.arange(40) % 10
    pictures = (25 * labels).byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    data = {f"{split}_{key}": x for split in ("train", "test") for key, x in (("images", pictures), ("labels", labels))}
    args = argparse.Namespace(knn_k=4, knn_temperature=0.1)
    model = Near()
    monitored = q3_simsiam.monitor(model, data, args)
    assert monitored["knn_accuracy"] < 0.5 and monitored["silent"] == 0.5 and model.training
    assert q3_simsiam.accuracy_float64(model, data, args) == 1 and model.scale.dtype == torch.float32


def test_output_std_is_one_when_spread_and_zero_when_collapsed():
    torch.manual_seed(0)
    assert q3_simsiam.output_std(torch.randn(20_000, 64)).item() == pytest.approx(1, rel=0.01)
    equal = torch.ones(10, 64) * torch.arange(1.0, 11)[:, None]
    assert q3_simsiam.output_std(equal).item() == pytest.approx(0, abs=1e-6)


def test_effective_rank_is_the_participation_ratio_of_the_eigenvalues():
    torch.manual_seed(0)
    z = torch.randn(500, 6) * torch.tensor([3.0, 2, 1, 1, 0.5, 0.1]) + 1
    values = np.linalg.eigvalsh(np.cov((z / z.norm(dim=1, keepdim=True)).double().T))
    assert q3_simsiam.effective_rank(z) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-4)


def test_effective_rank_shows_the_collapse_onto_two_opposite_points_that_the_std_does_not():
    z = torch.ones(1000, 64) * torch.tensor([1.0, -1.0]).repeat(500)[:, None]
    assert q3_simsiam.output_std(z).item() == pytest.approx(1, rel=1e-3)
    assert q3_simsiam.effective_rank(z) == pytest.approx(1)
    assert q3_simsiam.effective_rank(torch.ones(10, 4)) == 0


def test_median_distance_is_over_pairs_of_different_rows_below_float32():
    z = torch.tensor([[1.0, 0.0], [1.0, 1e-4], [1.0, 2e-4], [-1.0, 0.0]])  # three pairs at 1e-8 / 2 times 1, 1, 4
    angles = [5e-9, 5e-9, 2e-8, 2, 2, 2]
    assert q3_simsiam.median_distance(z) == pytest.approx(sorted(angles)[2], rel=1e-3)
    assert q3_simsiam.median_distance(z[:3]) == pytest.approx(5e-9, rel=1e-3)


# --- The script -------------------------------------------------------------------------------------------------------


class TinyEncoder(torch.nn.Sequential):
    """Stands for resnet18 where the script's course is tested, not its network."""

    def __init__(self, num_classes, zero_init_residual):
        super().__init__(torch.nn.Conv2d(3, 16, 8, 4), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.Flatten())
        self.fc = torch.nn.Linear(16 * 49, num_classes)


@pytest.fixture(autouse=True, scope="module")
def tiny_encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(q3_simsiam, "resnet18", TinyEncoder)
        yield


TINY = "--data synthetic --device cpu --epochs 2 --batch-size 8 --dim 16 --pred-dim 8 --knn-k 5"
TINY += " --runs baseline no_predictor"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Flags of a tiny run on 24 + 10 digits, given as synthetic.npz."""
    folder = tmp_path_factory.mktemp("data")
    data = synthetic_data(24, 10) | {"source": "tiny digits"}
    np.savez(folder / "synthetic.npz", **data)
    return [*TINY.split(), "--data-dir", str(folder)]


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    """The output folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("finished")
    q3_simsiam.main([*arguments, "--out", str(out)])
    return out


def test_run_writes_metrics_figures_and_report(finished):
    metrics = read_metrics(finished)
    assert metrics["data"] == "tiny digits"
    for run in ("baseline", "no_predictor"):
        numbers, history = metrics["results"][run]["0"], metrics["history"][run]["0"]
        assert set(numbers) == {*q3_simsiam.CURVES, "epochs", "knn_accuracy_float64"}
        difference = numbers.pop("knn_accuracy_float64") - numbers["knn_accuracy"]
        assert abs(difference) < 0.11  # at most one image of ten
        assert numbers.pop("epochs") == len(history["loss"]) - 1 == 2
        assert numbers == {key: history[key][-1] for key in numbers}
    first = metrics["history"]["baseline"]["0"]
    assert metrics["results"]["untrained"]["knn_accuracy"] == first["knn_accuracy"][0]
    assert {path.name for path in finished.glob("*.png")} == {"runs.png", "monitors.png"}
    accuracy = metrics["results"]["no_predictor"]["0"]["knn_accuracy"]
    row = f"| no predictor, seed 0 | {accuracy:.4f} |"
    assert row in " ".join((finished / "report.md").read_text(encoding="utf-8").split())


def test_accuracy_on_pixels_is_that_of_the_normalised_images(arguments, finished, tmp_path):
    args = q3_simsiam.get_args([*arguments, "--out", str(tmp_path)])
    data, _ = q3_simsiam.load_images(args)
    train, test = (tv.normalize(data[f"{split}_images"] / 255, MEAN, STD).flatten(1) for split in ("train", "test"))
    expected = q3_simsiam.knn_accuracy(train, data["train_labels"], test, data["test_labels"], 5, 0.1)
    assert read_metrics(finished)["results"]["knn_accuracy_pixels"] == expected


def test_figures_only_draws_from_the_metrics_alone(arguments, finished, tmp_path):
    (tmp_path / "metrics.json").write_bytes((finished / "metrics.json").read_bytes())
    q3_simsiam.main([*arguments, "--data-dir", str(tmp_path), "--out", str(tmp_path), "--figures-only"])
    for path in [*finished.glob("*.png"), finished / "report.md"]:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_defaults_are_the_assignments():
    args = vars(q3_simsiam.get_args(["--device", "cpu"]))
    expected = {"epochs": 100, "batch_size": 1024, "lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4, "dim": 2048}
    expected |= {"pred_dim": 512, "knn_k": 200, "knn_temperature": 0.1, "train_images": 0, "test_images": 0}
    expected |= {"runs": ["baseline", "no_stop_gradient", "no_predictor"], "repeats": 1, "data": "cifar10", "seed": 0}
    assert args.items() >= expected.items() and args.items() >= words.RECIPE.items()
    assert args["precision"] == "float32"


def test_encoder_rate_decays_by_a_cosine_and_the_predictors_stays(arguments, tmp_path, monkeypatch):
    rates, step = [], torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self: (rates.append([g["lr"] for g in self.param_groups]), step(self))[1]
    )
    flags = [*arguments, "--out", str(tmp_path), "--runs", "baseline", "--epochs", "4", "--lr", "0.32"]
    q3_simsiam.main([*flags, "--train-images", "15"])  # one whole batch of 8
    expected = [0.01 * 0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert [encoder for encoder, _ in rates] == pytest.approx(expected)
    assert {predictor for _, predictor in rates} == {0.01}


def test_history_has_the_means_of_each_epoch(arguments, tmp_path, monkeypatch):
    losses, z1, loss = [], [None], q3_simsiam.SimSiam.loss

    def recorded(*outputs):
        losses.append(loss(*outputs))
        z1.append(outputs[-2])
        return losses[-1]

    monkeypatch.setattr(q3_simsiam.SimSiam, "loss", recorded)
    monkeypatch.setattr(q3_simsiam, "output_std", lambda z: z.new_tensor(float(len(losses) if z is z1[-1] else 0)))
    q3_simsiam.main([*arguments, "--out", str(tmp_path), "--runs", "baseline"])
    history = read_metrics(tmp_path)["history"]["baseline"]["0"]
    first, second = torch.stack(losses).view(2, 3).mean(1).tolist()
    assert history["loss"] == pytest.approx([losses[0].item(), first, second])
    assert history["batch_std"] == [1, 2, 5]


def test_training_is_the_loop_of_the_paper(arguments, tmp_path):
    """SGD with momentum and weight decay on the symmetric loss of two views, written plainly."""
    q3_simsiam.main([*arguments, "--out", str(tmp_path), "--runs", "baseline", "--lr", "0.5"])
    args = q3_simsiam.get_args([*arguments, "--out", str(tmp_path)])
    data, _ = q3_simsiam.load_images(args)
    torch.manual_seed(0)
    model = q3_simsiam.SimSiam(TinyEncoder, 16, 8)
    encoder, predictor = (
        torch.optim.SGD(m.parameters(), 0.5 * 8 / 256, 0.9, weight_decay=5e-4) for m in (model.encoder, model.predictor)
    )
    for epoch in range(2):
        encoder.param_groups[0]["lr"] = 0.5 * 8 / 256 * (1 + math.cos(math.pi * epoch / 2)) / 2
        for batch in torch.randperm(24).split(8):
            x1, x2 = augment(data["train_images"][batch]), augment(data["train_images"][batch])
            model.zero_grad()
            oracles.simsiam_loss(*model(x1, x2)).backward()
            encoder.step()
            predictor.step()
    states = torch.load(tmp_path / "checkpoint_baseline_seed0.pt", weights_only=True)["states"]["model"]
    torch.testing.assert_close(states, model.state_dict(), rtol=1e-3, atol=1e-5)


def test_every_epoch_shows_each_image_once_in_a_new_order(arguments, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(q3_simsiam, "augment", lambda images: (seen.append(images), augment(images))[1])
    q3_simsiam.main([*arguments, "--out", str(tmp_path), "--runs", "baseline"])
    first, second = torch.stack(seen[:12:2]).reshape(2, 24, -1)  # three batches, each of them augmented twice
    assert len(first.unique(dim=0)) == 24 and torch.equal(first.unique(dim=0), second.unique(dim=0))
    assert not torch.equal(first, second)


def test_each_epoch_says_how_long_the_rest_of_the_run_takes(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(q3_simsiam, "time", argparse.Namespace(perf_counter=count(0, 1800).__next__))
    q3_simsiam.main([*arguments, "--out", str(tmp_path), "--runs", "baseline"])
    assert re.findall("([^ ]*) h to go in this run", capsys.readouterr().out) == ["0.50", "0.00"]


RECIPE = {"epochs": 3, "batch_size": 9, "lr": 1, "dim": 17, "pred_dim": 9, "precision": "bfloat16", "knn_k": 6}
RECIPE |= {"knn_temperature": 0.2, "train_images": 23, "test_images": 9}


@pytest.mark.parametrize(("key", "value"), RECIPE.items())
def test_another_recipe_is_refused(arguments, finished, key, value):
    with pytest.raises(utils.InputError, match=f"was made with --{key.replace('_', '-')} "):
        q3_simsiam.main([*arguments, "--out", str(finished), f"--{key.replace('_', '-')}", str(value)])


def made_up():
    """Metrics of two runs, one of them with two seeds, that differ in every curve."""
    curves = {key: [0.1 * i, 0.2, 0.3 + 0.01 * i] for i, key in enumerate(q3_simsiam.CURVES)}
    history = {"baseline": {"0": curves, "3": {key: [2 * v for v in curve] for key, curve in curves.items()}}}
    history["no_predictor"] = {"0": {key: [3 * v for v in curve] for key, curve in curves.items()}}
    for seeds in history.values():
        for numbers in seeds.values():
            numbers["loss"] = [-value for value in numbers["loss"]]
    config = words.RECIPE | {"quick": False, "data": "cifar10"}
    return {"data": words.SOURCES[0], "config": config, "history": history, "results": {"knn_accuracy_pixels": 0.41}}


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """The figures of `made_up`, by name."""
    drawn = {}
    monkeypatch.setattr(utils, "save_figure", lambda figure, path: drawn.update({path.stem: figure}))
    q3_simsiam.draw_curves(made_up(), tmp_path)
    return drawn


def test_runs_are_drawn_with_a_line_for_each_seed_on_one_scale(figures):
    history, axes = made_up()["history"], figures["runs"].axes
    for (accuracy, loss), seeds in zip((axes[:2], axes[2:]), history.values(), strict=True):
        num = len(seeds)
        drawn = {"knn_accuracy_backbone": accuracy.lines[:num], "knn_accuracy": accuracy.lines[num : 2 * num]}
        for key, lines in (drawn | {"loss": loss.lines[:num]}).items():
            assert [list(line.get_ydata()) for line in lines] == [numbers[key] for numbers in seeds.values()]
        assert [line.get_ydata()[0] for line in accuracy.lines[2 * num :]] == [0.1, 0.41, 0.6]
        assert loss.lines[-1].get_ydata()[0] == -1
    for pair in (axes[::2], axes[1::2]):
        assert pair[0].get_ylim() == pair[1].get_ylim()
        high, low = (f(max(line.get_ydata()) for line in pair[0].lines) for f in (max, min))
        assert pair[0].get_ylim()[0] <= low and high <= pair[0].get_ylim()[1]


def test_monitors_are_drawn_with_a_colour_for_each_run(figures):
    history = made_up()["history"]
    keys = ("batch_std", "output_std", "effective_rank", "median_distance")
    for axes, key in zip(figures["monitors"].axes, keys, strict=True):
        expected = [numbers[key] for seeds in history.values() for numbers in seeds.values()]
        assert [list(line.get_ydata()) for line in axes.lines] == expected
        assert [line.get_color() for line in axes.lines] == ["C0", "C0", "C2"]


def test_other_data_have_no_line_at_the_originals_accuracy(tmp_path, monkeypatch):
    drawn, metrics = {}, made_up() | {"data": "digits"}
    monkeypatch.setattr(utils, "save_figure", lambda figure, path: drawn.update({path.stem: figure}))
    q3_simsiam.draw_curves(metrics, tmp_path)
    assert [line.get_ydata()[0] for line in drawn["runs"].axes[2].lines[-2:]] == [0.1, 0.41]


def test_untrained_network_is_measured_and_the_seed_counts(arguments, tmp_path):
    losses = []
    for seed in (0, 1):
        args = q3_simsiam.get_args([*arguments, "--out", str(tmp_path / str(seed)), "--seed", str(seed)])
        data, source = q3_simsiam.load_images(args)
        torch.manual_seed(seed)
        untrained = q3_simsiam.monitor(q3_simsiam.SimSiam(TinyEncoder, 16, 8), data, args)
        args.out.mkdir()
        q3_simsiam.train("baseline", seed, data, args, source)
        history = utils.load_checkpoint(utils.training_path(args, "baseline", seed), {}, {})
        assert untrained == {key: history[key][0] for key in untrained}
        losses.append(history["loss"])
    assert losses[0] != losses[1]


def test_outputs_spread_less_without_stop_gradient(images, tmp_path, monkeypatch):
    monkeypatch.setattr(q3_simsiam, "resnet18", resnet18)
    tensors = {f"{split}_images": (images * 255).byte() for split in ("train", "test")}
    tensors |= {f"{split}_labels": torch.arange(128) % 10 for split in ("train", "test")}
    flags = "--device cpu --epochs 8 --batch-size 64 --dim 32 --pred-dim 16 --knn-k 5 --lr 4"
    args = q3_simsiam.get_args([*flags.split(), "--out", str(tmp_path)])
    std = {}
    for run in ("baseline", "no_stop_gradient"):
        q3_simsiam.train(run, 0, tensors, args, "digits")
        std[run] = utils.load_checkpoint(utils.training_path(args, run, 0), {}, {})["batch_std"][-1]
    assert std["baseline"] > 0.9 and std["no_stop_gradient"] < 0.8


def test_subset_keeps_images_and_labels_together(arguments, tmp_path):
    full, _ = q3_simsiam.load_images(q3_simsiam.get_args([*arguments, "--out", str(tmp_path)]))
    flags = ["--out", str(tmp_path), "--train-images", "9", "--test-images", "4"]
    part, _ = q3_simsiam.load_images(q3_simsiam.get_args([*arguments, *flags]))
    assert len(part["train_images"]) == len(part["train_labels"]) == 9 and len(part["test_images"]) == 4
    for image, label in zip(part["train_images"], part["train_labels"], strict=True):
        (index,) = [i for i, other in enumerate(full["train_images"]) if torch.equal(image, other)]
        assert full["train_labels"][index] == label
    assert torch.equal(part["test_labels"], full["test_labels"][:4])
    other, _ = q3_simsiam.load_images(q3_simsiam.get_args([*arguments, *flags, "--seed", "1"]))
    assert torch.equal(part["train_images"], other["train_images"])
    assert not torch.equal(part["train_images"], full["train_images"][:9])


@pytest.mark.parametrize(("flag", "num"), [("--train-images", "25"), ("--train-images", "1"), ("--test-images", "11")])
def test_more_images_than_there_are_are_refused(arguments, flag, num, tmp_path):
    with pytest.raises(utils.InputError, match=f"{flag} {num}: give 2 to"):
        q3_simsiam.main([*arguments, "--out", str(tmp_path), flag, num])


def test_model_and_loss_run_under_autocast(images):
    """As on CUDA: the network in bfloat16, the augmentation and the loss in float32."""
    model = small()
    x1, x2 = (q3_simsiam.augment((images[:8] * 255).byte()) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(x1, x2)
    loss = model.loss(*(output.float() for output in outputs))
    loss.backward()
    assert outputs[0].dtype == torch.bfloat16 and loss.dtype == torch.float32 and torch.isfinite(loss)


@pytest.mark.parametrize("angle", [0.0, 1.0, 2.0])
def test_knn_votes_stay_finite_at_low_temperatures(angle):
    x, labels = torch.tensor([[1.0, 0.0], [1.0, -0.1], [1.0, -0.3]]), torch.tensor([3, 1, 1])
    query = torch.tensor([[math.cos(angle), math.sin(angle)]])
    assert q3_simsiam.knn_accuracy(x, labels, query, labels[:1], 3, 0.001) == 1


@pytest.mark.parametrize("flag", ["--knn-k", "--batch-size"])
def test_more_than_the_training_images_is_refused(arguments, flag, tmp_path):
    with pytest.raises(utils.InputError, match=f"{flag} 25 is more than the 24 training images"):
        q3_simsiam.main([*arguments, "--out", str(tmp_path), flag, "25"])


def test_unknown_run_is_refused(arguments, tmp_path):
    with pytest.raises(utils.InputError, match="invalid choice: 'magic'"):
        q3_simsiam.get_args([*arguments, "--out", str(tmp_path), "--runs", "magic"])


def test_loss_that_is_not_finite_stops_at_once_and_keeps_the_last_checkpoint(arguments, tmp_path, monkeypatch):
    calls, loss = [], q3_simsiam.SimSiam.loss

    def diverging(*outputs):
        calls.append(1)
        return loss(*outputs) * (math.nan if len(calls) == 5 else 1)  # the second of the second epoch's three

    monkeypatch.setattr(q3_simsiam.SimSiam, "loss", diverging)
    message = "the loss in epoch 2 of baseline seed 0 is not finite; what was saved before is kept"
    with pytest.raises(utils.InputError, match=message):
        q3_simsiam.main([*arguments, "--out", str(tmp_path)])
    history = torch.load(tmp_path / "checkpoint_baseline_seed0.pt", weights_only=True)["history"]
    assert len(calls) == 5 and len(history["seconds"]) == 1 and len(history["loss"]) == 2


def test_all_finished_and_fitting_checkpoints_are_joined_named_or_not(arguments, finished, tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    q3_simsiam.main([*arguments, *out, "--runs", "no_predictor"])
    q3_simsiam.main([*arguments, *out, "--runs", "no_stop_gradient", "--lr", "0.5"])  # does not fit
    unfinished = torch.load(tmp_path / "checkpoint_no_predictor_seed0.pt", weights_only=True)
    unfinished["config"]["seed"] = 7
    unfinished["history"]["seconds"].pop()
    torch.save(unfinished, tmp_path / "checkpoint_no_predictor_seed7.pt")
    capsys.readouterr()
    q3_simsiam.main([*arguments, *out, "--runs", "baseline", "--repeats", "3"])
    text, metrics, first = capsys.readouterr().out, read_metrics(tmp_path), read_metrics(finished)
    assert {run: list(seeds) for run, seeds in metrics["history"].items()} == {
        "baseline": ["0", "1", "2"],
        "no_predictor": ["0"],
    }
    for kind in ("history", "results"):
        for run in ("baseline", "no_predictor"):
            assert metrics[kind][run]["0"] == first[kind][run]["0"]
    assert metrics["history"]["baseline"]["1"]["loss"] != metrics["history"]["baseline"]["0"]["loss"]
    assert "seed7.pt is at epoch 1 of 2" in text
    assert re.search(r"left out: .*checkpoint_no_stop_gradient_seed0\.pt was made with --lr 0\.5, not 0\.03", text)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_script_runs_on_cuda(arguments, tmp_path):
    q3_simsiam.main([*arguments, "--device", "cuda", "--out", str(tmp_path)])
    assert read_metrics(tmp_path)["device"].startswith("cuda")


KILLED = """
import os, signal, sys, torch, q3_simsiam, utils
from tests.test_q3_simsiam import TinyEncoder
q3_simsiam.resnet18 = TinyEncoder
torch.set_num_threads(int(sys.argv[1]))
save, step, calls = utils.save_checkpoint, torch.optim.SGD.step, []
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def killed_at_step(n): torch.optim.SGD.step = lambda *a: (calls.append(1), len(calls) == n and die(), step(*a))[2]
def in_the_second_epoch(): killed_at_step(5)
def in_the_second_run(): killed_at_step(8)
def at_the_first_checkpoint(): utils.save_checkpoint = die
for moment in (in_the_second_epoch, in_the_second_run, at_the_first_checkpoint):
    argv = [*sys.argv[3:], "--out", f"{sys.argv[2]}/{moment.__name__}"]
    for kill in (True, False):
        pid = os.fork()
        if not pid:
            if kill:
                moment()
            elif moment is in_the_second_run:
                killed_at_step(3 + 3 + 1)  # the first run is not trained again: 6 steps are left
            q3_simsiam.main(argv)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == (signal.SIGKILL if kill else 0), moment
"""


def test_resume_after_sigkill_ends_with_identical_numbers(arguments, finished, tmp_path):
    """One process imports torch and forks a run for each moment, killed there, and its continuation."""
    command = [sys.executable, "-c", KILLED, str(torch.get_num_threads()), str(tmp_path), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    expected, moments = read_metrics(finished), sorted(tmp_path.iterdir())
    assert len(moments) == 3
    for out in moments:
        assert read_metrics(out) == expected, out.name
