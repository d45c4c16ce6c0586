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
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from PIL import Image
from torchvision.models import resnet18, resnext50_32x4d
from torchvision.transforms.v2 import RandomResizedCrop

import q3_simsiam
import utils
from data.synthetic import synthetic_data
from results import simsiam as words
from results.pages import make_table
from tests import oracles
from tests.helpers import read_metrics

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def images():
    """128 pieces of the photograph that comes with matplotlib, (128, 3, 32, 32) floats in [0, 1]."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        pixels = torch.tensor(np.asarray(photo.resize((512, 256)))).float() / 255
    return pixels.view(8, 32, 16, 32, 3).permute(0, 2, 4, 1, 3).reshape(128, 3, 32, 32)


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
    conv = q3_simsiam.SmallMapConv2d(3, 5, 3, stride, 1, bias=False).double()
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
    assert kinds.count(q3_simsiam.SmallMapConv2d) == 16 and kinds.count(torch.nn.Conv2d) == 4
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
    encoder, predictor = q3_simsiam.make_optimizer(model, 0.1).param_groups
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


def test_gradient_without_predictor_is_half_of_the_one_without_stop_gradient(images, tmp_path, monkeypatch):
    monkeypatch.setattr(q3_simsiam, "resnet18", resnet18)
    args = q3_simsiam.get_args(["--dim", "64", "--out", str(tmp_path), "--device", "cpu"])
    assert q3_simsiam.gradient_error((images[:8] * 255).byte(), args) < 1e-10
    monkeypatch.setattr(q3_simsiam.SimSiam, "loss", lambda _, p1, p2, z1, z2: -F.cosine_similarity(p1, z2).mean() / 2)
    assert q3_simsiam.gradient_error((images[:8] * 255).byte(), args) > 0.1  # a loss that is not symmetric


# --- Augmentation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_equal_torchvision(images, flip):
    torch.manual_seed(0)
    boxes = q3_simsiam.crop_boxes(len(images), 32, (0.08, 1.0), torch.device("cpu"))
    boxes[:3] = torch.tensor([[0, 0, 32, 32], [31, 31, 1, 1], [3, 5, 1, 27]])
    ours = q3_simsiam.crop_flip(images, boxes, torch.full((len(images),), flip))
    for image, box, result in zip(images, boxes.int().tolist(), ours, strict=True):
        expected = tv.resized_crop(image, *box, [32, 32], antialias=True)
        torch.testing.assert_close(result, expected.flip(-1) if flip else expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("brightness", 0.6, 1.4), ("contrast", 0.6, 1.4), ("saturation", 0.6, 1.4), ("hue", -0.1, 0.1)],
)
def test_jitters_equal_torchvision(images, name, low, high):
    factors = torch.linspace(low, high, len(images))
    ours = getattr(q3_simsiam, name)(images, factors)
    for image, factor, result in zip(images, factors.tolist(), ours, strict=True):
        torch.testing.assert_close(result, getattr(tv, f"adjust_{name}")(image, factor), rtol=0, atol=1e-4)


def test_hue_of_saturated_and_grey_colours_equals_torchvision():
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3).T.reshape(1, 3, 1, 27).repeat(1, 1, 2, 1)
    for shift in (-0.5, -0.1, 0.0, 0.03, 0.5):
        ours = q3_simsiam.hue(corners, torch.tensor([shift]))
        torch.testing.assert_close(ours, tv.adjust_hue(corners, shift), rtol=0, atol=1e-5)


def test_grey_equals_torchvision(images):
    torch.testing.assert_close(q3_simsiam.grey(images), tv.rgb_to_grayscale(images), rtol=0, atol=1e-6)


def test_neutral_jitters_change_nothing(images):
    ones, zeros = torch.ones(len(images)), torch.zeros(len(images))
    for jitter, neutral in ((q3_simsiam.brightness, ones), (q3_simsiam.contrast, ones), (q3_simsiam.saturation, ones)):
        torch.testing.assert_close(jitter(images, neutral), images)
    torch.testing.assert_close(q3_simsiam.hue(images, zeros), images, rtol=0, atol=1e-6)


def test_crop_boxes_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    ours = q3_simsiam.crop_boxes(20_000, 32, (0.08, 1.0), torch.device("cpu"))
    image, transform = torch.zeros(3, 32, 32), RandomResizedCrop(32, scale=(0.08, 1.0))
    drawn = [transform.make_params([image]) for _ in range(5000)]
    theirs = torch.tensor([[box[key] for key in ("top", "left", "height", "width")] for box in drawn]).float()
    assert (ours[:, 0] + ours[:, 2]).max() <= 32 and (ours[:, 1] + ours[:, 3]).max() <= 32 and ours.min() >= 0
    for column in range(4):
        error = 5 * theirs[:, column].std() / math.sqrt(5000)
        assert (ours[:, column].mean() - theirs[:, column].mean()).abs() < error
        quantiles = torch.tensor([0.1, 0.5, 0.9])
        gap = (ours[:, column].quantile(quantiles) - theirs[:, column].quantile(quantiles)).abs()
        assert gap.max() <= 1


def test_augmentation_draws_each_image_its_own_parameters(monkeypatch):
    seen = {}

    def record(name):
        original = getattr(q3_simsiam, name)

        def wrapped(images, *parameters):
            seen[name] = parameters
            return original(images, *parameters)

        monkeypatch.setattr(q3_simsiam, name, wrapped)

    for name in ("crop_flip", "brightness", "contrast", "saturation", "hue"):
        record(name)
    torch.manual_seed(0)
    n = 4000
    views = q3_simsiam.augment(torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8))
    boxes, flip = seen["crop_flip"]
    area = boxes[:, 2] * boxes[:, 3] / 32**2
    assert (area < 0.2).float().mean().item() == pytest.approx((0.2 - 0.08) / 0.92, abs=0.03)
    assert boxes.unique(dim=0).shape[0] > n / 2 and flip.float().mean().item() == pytest.approx(0.5, abs=0.04)
    for name, neutral, strength in (
        ("brightness", 1, 0.4),
        ("contrast", 1, 0.4),
        ("saturation", 1, 0.4),
        ("hue", 0, 0.1),
    ):
        (factor,) = seen[name]
        assert torch.equal(factor != neutral, seen["hue"][0] != 0)  # one decision for all four
        changed = factor[factor != neutral] - neutral
        assert len(changed) / n == pytest.approx(0.8, abs=0.03)
        assert changed.abs().max() <= strength + 1e-6
        assert changed.std().item() == pytest.approx(strength / math.sqrt(3), rel=0.05)  # uniform
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    spread = (views * std + mean).std(1).amax((1, 2))
    assert (spread < 1e-5).float().mean().item() == pytest.approx(0.2, abs=0.03)  # grey
    assert (views * std + mean).min() > -1e-6 and (views * std + mean).max() < 1 + 1e-6


def test_jitters_come_in_a_random_order(monkeypatch):
    orders, order = set(), []
    for name in ("brightness", "contrast", "saturation", "hue"):
        monkeypatch.setattr(q3_simsiam, name, lambda images, _, name=name: order.append(name) or images)
    torch.manual_seed(0)
    for _ in range(300):
        q3_simsiam.augment(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        orders.add(tuple(order))
        order.clear()
    assert len(orders) == 24


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
    expected = model.eval().represent(tv.normalize(pictures / 255, q3_simsiam.MEAN, q3_simsiam.STD))
    torch.testing.assert_close((features, z), expected)


def test_monitor_calls_each_accuracy_by_its_name(monkeypatch):
    labels = torch.arange(40) % 10
    good, bad = torch.eye(10)[labels], torch.ones(40, 10)
    outputs = {"train": (bad, good), "test": (bad, good * (labels < 5)[:, None] + torch.eye(10)[9])}
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
        numbers = metrics["results"][run]["0"]
        assert set(numbers) == {*q3_simsiam.CURVES, "epochs", "knn_accuracy_float64"}
        difference = numbers.pop("knn_accuracy_float64") - numbers["knn_accuracy"]
        assert abs(difference) < 0.11  # at most one image of ten
        history = metrics["history"][run]["0"]
        assert numbers.pop("epochs") == len(history["loss"]) - 1 == 2
        assert numbers == {key: history[key][-1] for key in numbers}
    first = metrics["history"]["baseline"]["0"]
    assert metrics["results"]["untrained"]["knn_accuracy"] == first["knn_accuracy"][0]
    assert metrics["results"]["gradient_error"] < 1e-10
    names = {"baseline.png", "no_predictor.png", "comparison.png"}
    assert {path.name for path in finished.glob("*.png")} == names
    assert make_table(words.closing_table(metrics)) in (finished / "report.md").read_text()


def test_figures_only_draws_from_the_metrics_alone(arguments, finished, tmp_path):
    (tmp_path / "metrics.json").write_bytes((finished / "metrics.json").read_bytes())
    q3_simsiam.main([*arguments, "--data-dir", str(tmp_path), "--out", str(tmp_path), "--figures-only"])
    for path in [*finished.glob("*.png"), finished / "report.md"]:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


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
    args = q3_simsiam.get_args([*arguments, "--out", str(tmp_path)])
    data, source = q3_simsiam.load_images(args)
    history = q3_simsiam.train("baseline", args.seed, data, args, source)
    first, second = torch.stack(losses).view(2, 3).mean(1).tolist()
    assert history["loss"] == pytest.approx([losses[0].item(), first, second])
    assert history["batch_std"] == [1, 2, 5]


def test_every_epoch_shows_each_image_once_in_a_new_order(arguments, tmp_path, monkeypatch):
    seen, augment = [], q3_simsiam.augment
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
def test_resume_with_another_recipe_is_refused(arguments, finished, key, value):
    with pytest.raises(utils.InputError, match=f"was made with {key} = "):
        q3_simsiam.main([*arguments, "--out", str(finished), "--resume", f"--{key.replace('_', '-')}", str(value)])


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """The figures of `collapsed`, its run without predictor with equal outputs, by name."""
    drawn, metrics = {}, collapsed()
    metrics["history"]["no_predictor"]["0"]["median_distance"] = [0.1, 1e-7, 0.0, -1e-16, 5e-15]
    monkeypatch.setattr(utils, "save_figure", lambda figure, path: drawn.update({path.stem: figure}))
    q3_simsiam.draw_curves(metrics, tmp_path)
    return drawn


def test_runs_have_one_scale_and_one_colour_in_all_figures(figures):
    accuracy, loss = ([figures[name].axes[i] for name in ("baseline", "no_predictor", "comparison")] for i in (0, 1))
    assert {axes.get_ylim() for axes in accuracy} == {(0, 1.05)}  # of the backbone's 1.0 of one run
    assert {axes.get_ylim() for axes in loss} == {(-1.02, -0.08)}
    assert [axes.lines[0].get_color() for axes in loss] == ["C0", "C2", "C0"]
    assert loss[2].lines[1].get_color() == "C2"


def test_figures_have_lines_at_chance_the_originals_accuracy_and_the_least_loss(figures):
    for name in ("baseline", "no_predictor", "comparison"):
        accuracy, loss = figures[name].axes[:2]
        assert [line.get_ydata()[0] for line in accuracy.lines[-2:]] == [0.1, 0.6]
        assert loss.lines[-1].get_ydata()[0] == -1


def test_other_data_have_no_line_at_the_originals_accuracy():
    metrics, axes = collapsed(), Figure().subplots()
    metrics["config"]["data"] = "synthetic"
    q3_simsiam.plot(axes, metrics, ["no_predictor"], "knn_accuracy")
    assert [line.get_ydata()[0] for line in axes.lines][-1] == 0.1


def test_median_of_equal_outputs_is_drawn_as_0_within_the_figure(figures):
    (axes,) = (axes for axes in figures["comparison"].axes if "median" in axes.get_ylabel())
    figures["comparison"].canvas.draw()
    low, high = axes.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    heights = [axes.transData.transform((0, value))[1] for line in axes.lines for value in line.get_ydata()]
    assert low <= min(heights) and max(heights) <= high
    assert list(axes.lines[1].get_ydata()) == [0.1, 1e-7, 0, 0, 0]


def test_untrained_network_is_measured_and_the_seed_counts(arguments, tmp_path):
    losses = []
    for seed in (0, 1):
        args = q3_simsiam.get_args([*arguments, "--out", str(tmp_path / str(seed)), "--seed", str(seed)])
        data, source = q3_simsiam.load_images(args)
        torch.manual_seed(seed)
        untrained = q3_simsiam.monitor(q3_simsiam.SimSiam(TinyEncoder, 16, 8), data, args)
        history = q3_simsiam.train("baseline", args.seed, data, args, source)
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
        std[run] = q3_simsiam.train(run, 0, tensors, args, "digits")["batch_std"][-1]
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


def made_up(data="cifar10", epochs=100, **changes):
    """Metrics of four runs that meet the original's claims, as far as the closing table reads them."""
    config = {"data": data, "epochs": epochs, "batch_size": 1024, "lr": 0.03, "dim": 2048, "pred_dim": 512}
    config |= {"train_images": 0, "test_images": 0, "knn_k": 200, "knn_temperature": 0.1}
    config["runs"] = list(q3_simsiam.RUNS)
    numbers = {"knn_accuracy": 0.15, "loss": -0.98, "output_std": 0.01}
    results = {run: {"0": numbers | changes} for run in q3_simsiam.RUNS}
    results["baseline"]["0"]["knn_accuracy"] = changes.get("knn_accuracy", 0.595)
    return {"config": config, "results": results | {"untrained": {"knn_accuracy": 0.2}, "gradient_error": 0.0}}


def column(index, **numbers):
    """A column of the closing table, from the left or right: the cells that are not "-", but for the gradient's."""
    return [row[index] for row in words.closing_table(made_up(**numbers))[1:-1] if row[index] != "-"]


def test_closing_table_holds_the_full_recipe_to_the_originals_claims():
    assert column(-1) == [True] * 5
    assert column(-1, knn_accuracy=0.5949, loss=-0.9799) == [False] * 5
    assert column(-2) == [">= 0.595", "<= 0.15", "<= -0.98", "<= 0.15", "<= -0.98"]
    assert column(2) == ["0.60", "0.10", "-1", "0.10", "-1"]


def test_closing_table_gives_no_verdict_on_another_recipe_or_other_data():
    assert column(-1, epochs=99) == ["shorter recipe"] * 5 and column(-2, epochs=99) == []
    metrics = made_up()
    metrics["config"]["test_images"] = 9999
    assert {row[-1] for row in words.closing_table(metrics)[1:-1]} == {"other recipe", "-"}
    assert column(-1, epochs=101) == ["other recipe"] * 5 and column(-2, epochs=101) == []
    assert column(-1, data="synthetic") == column(2, data="synthetic") == []


def collapsed(**changes):
    """Metrics of a baseline and of a run without predictor whose accuracy falls in epoch 2, and not for good."""
    curves = {"loss": [-0.99, -0.99, -0.97, -0.99505, -0.995], "knn_accuracy": [0.2, 0.25, 0.1, 0.2, 0.1]}
    curves["median_distance"] = [1.0, 0.5, -4e-15, 1e-2, 5e-4]
    curves |= {key: [1.0, 0.5, 1e-3, 1e-2, 5e-4] for key in q3_simsiam.CURVES if key not in curves}
    healthy = {"loss": [-0.1, -0.2, -0.3, -0.2, -0.1], "knn_accuracy": [0.2, 0.3, 0.4, 0.5, 0.6]}
    history = {"baseline": curves | healthy | {"seconds": [60] * 4}, "no_predictor": curves | {"seconds": [30] * 4}}
    results = {run: {"0": {key: curve[-1] for key, curve in numbers.items()}} for run, numbers in history.items()}
    results["baseline"]["0"]["knn_accuracy_float64"] = 0.6
    results["no_predictor"]["0"] |= {"knn_accuracy_float64": 0.25, "silent": 0.997} | changes
    history = {run: {"0": numbers} for run, numbers in history.items()}
    results["untrained"] = {key: curve[0] for key, curve in curves.items()}
    results |= {"gradient_error": 0.0, "test_images": 10_000}
    config = made_up()["config"] | {"epochs": 4, "runs": list(history)}
    return {"config": config, "history": history, "results": results, "data": "CIFAR-10"}


def test_description_says_when_loss_and_accuracy_fall_first_and_how_often_they_stay_there():
    text = words.describe("no_predictor", collapsed())
    assert "from 0.2000 untrained to 0.1000 (highest: 0.2500 in epoch 1), the loss to -0.9950" in text
    first = "in epoch {} (median of 1 - cosine {}), and in {} later epochs."
    assert "The loss is first at most -0.98 " + first.format(1, "0.5", "2 of the 3") in text
    assert "The kNN accuracy is first at most 0.15 " + first.format(2, "0", "1 of the 2") in text
    assert "In 1 of the 4 epochs that median is 0" in text and "99.7% of the test images leave all units" in text
    assert "at most" not in words.describe("baseline", collapsed())


@pytest.mark.parametrize(("exact", "rounding"), [(0.114, True), (0.112, False), (0.08, False)])
def test_description_decides_with_float64_whether_rounding_makes_the_accuracy_low(exact, rounding):
    text = words.describe("no_predictor", collapsed(knn_accuracy_float64=exact))  # 0.1 is 3.2, 2.8 and -4.9 errors away
    assert f"{exact:.4f} ± {math.sqrt(exact * (1 - exact) / 10_000):.4f}: " in text
    assert ("differ by less than float32 resolves" in text) == rounding
    assert ("is not low by float32's rounding" in text) != rounding


def test_description_compares_the_distances_of_epochs_with_low_accuracy_and_of_the_others():
    text = words.describe("no_predictor", collapsed())
    assert (
        "In the 2 epochs with an accuracy of at most 0.15 the median is at most 0.0005, in the others at least 0.01;"
        in text
    )
    assert "in the others" not in words.describe("baseline", collapsed())


@pytest.mark.parametrize(
    ("without", "shown"),
    [([0.3], "size"), ([0.1] * 3, "number"), ([0.3] * 3, "size and number"), ([], "neither size nor number")],
)
def test_answers_say_in_what_the_loss_is_less_smooth_without_predictor(without, shown):
    text = words.compare_rises(without, [0.1, 0.2])
    largest = max(without, default=0)
    assert f"largest rise is {largest:.4f} against the baseline's 0.2000, the number {len(without)} against 2:" in text
    assert f"the original's contrast shows in {shown}," in text


def test_description_of_a_collapse_in_the_last_epoch_without_silent_images():
    metrics = collapsed(silent=0.0)
    metrics["history"]["no_predictor"]["0"] |= {"knn_accuracy": [0.2, 0.3, 0.3, 0.3, 0.1]}
    text = words.describe("no_predictor", metrics)
    assert "at most 0.15 in epoch 4 (median of 1 - cosine 0.0005). In 1" in text and "hidden layer" not in text


def test_description_says_on_which_side_of_the_baseline_a_run_ends():
    metrics = collapsed()
    assert "The accuracy ends 0.5000 below the baseline's 0.6000." in words.describe("no_predictor", metrics)
    metrics["history"]["no_predictor"]["0"]["knn_accuracy"][-1] = 0.7
    assert "The accuracy ends 0.1000 above the baseline's 0.6000." in words.describe("no_predictor", metrics)


def test_answers_count_the_rises_of_the_loss_after_the_first_epoch():
    rows = [["run", "rises in the 3 epochs after the first", "largest", "sum", "net fall"]]
    rows.append([words.RUNS["baseline"], 2, 0.1, 0.2, -0.1])
    rows.append([words.RUNS["no_predictor"], 1, 0.02, 0.02, 0.005])  # and one of 0.00005
    assert make_table(rows) in words.answers(collapsed())


def test_answers_compare_the_rises_under_the_originals_recipe_alone():
    metrics = collapsed()
    assert "the original's contrast" not in words.answers(metrics)
    metrics["config"]["epochs"] = 100
    assert "0.0200 against the baseline's 0.1000, the number 1 against 2" in words.answers(metrics)


@pytest.mark.parametrize(("accuracy", "missed"), [(0.5949, True), (0.595, False)])
def test_description_says_how_far_below_the_originals_accuracy_the_baseline_ends(accuracy, missed):
    metrics = collapsed()
    metrics["config"]["epochs"] = 100
    metrics["history"]["baseline"]["0"]["knn_accuracy"][-1] = accuracy
    metrics["results"]["baseline"]["0"]["knn_accuracy"] = accuracy
    text = words.describe("baseline", metrics)
    short = (
        "0.0001 below the limit 0.595 and 0.0051 below the original's 0.60: 0.7 standard errors of their difference."
    )
    assert (short in text) == missed


def test_answers_say_where_a_run_is_not_the_originals():
    metrics = collapsed()
    assert words.OTHER in words.answers(metrics)
    metrics["config"]["epochs"] = 100
    assert words.OTHER not in words.answers(metrics)


@pytest.mark.parametrize(("error", "text", "met"), [(0.0, "0, bit for bit", True), (2e-5, "2.0e-05", False)])
def test_closing_table_ends_with_the_gradients_error(error, text, met):
    metrics = made_up()
    metrics["results"]["gradient_error"] = error
    assert words.closing_table(metrics)[-1][1:] == [text, "exact", "< 1e-5", met]


def test_answers_give_the_baselines_error():
    assert "binomial standard error is 0.0049 (10,000 test images)." in words.answers(collapsed())


@pytest.mark.parametrize(("error", "finding"), [(0.0, "are bit-identical"), (1e-9, "differ by 1.0e-09")])
def test_answers_say_how_far_the_two_gradients_agree(error, finding):
    metrics = collapsed()
    metrics["results"]["gradient_error"] = error
    text = words.answers(metrics)
    assert finding in text and ("bit-identical" in text) == (error == 0)


def test_figures_only_without_metrics_is_refused(arguments, tmp_path):
    with pytest.raises(OSError, match=r"holds neither a finished training nor an intact metrics\.json"):
        q3_simsiam.main([*arguments, "--out", str(tmp_path), "--figures-only"])


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
    message = "the loss is not finite in epoch 2 of baseline seed 0; what was saved before is kept"
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
    assert re.search(r"left out: .*checkpoint_no_stop_gradient_seed0\.pt was made with lr = 0\.5, not 0\.03", text)


def test_a_line_for_each_seed_is_drawn(tmp_path, monkeypatch):
    drawn, metrics = {}, collapsed()
    metrics["history"]["baseline"]["3"] = {
        key: [value / 2 for value in curve] for key, curve in metrics["history"]["baseline"]["0"].items()
    }
    monkeypatch.setattr(utils, "save_figure", lambda figure, path: drawn.update({path.stem: figure}))
    q3_simsiam.draw_curves(metrics, tmp_path)
    accuracy, loss = drawn["baseline"].axes
    assert [list(line.get_ydata()) for line in loss.lines[:2]] == [
        [-0.1, -0.2, -0.3, -0.2, -0.1],
        [-0.05, -0.1, -0.15, -0.1, -0.05],
    ]
    assert [line.get_ydata()[-1] for line in accuracy.lines[:2]] == [0.6, 0.3]


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
            q3_simsiam.main(argv + ["--resume"] * (not kill))
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
