"""Problem 3: model and loss, the monitors, and the script end to end."""

import argparse
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tv
from torchvision.models import resnet18, resnext50_32x4d

import q3_simsiam
import utils
from data.augmentation import MEAN, STD, augment
from results import runs, simsiam
from tests import oracles
from tests.helpers import TinyEncoder, draw_figures, read_metrics

CURVES = ("loss", "batch_std", "knn_accuracy", "knn_accuracy_backbone")
CURVES += ("output_std", "effective_rank", "median_distance", "silent")


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
    shapes = [(512, 512), (512,), (512,), (512, 512), (512,), (512,), (2048, 512), (2048,)]
    assert [tuple(p.shape) for p in model.encoder.fc.parameters()] == shapes
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
        assert weight.mean().item() == pytest.approx(0, abs=5e-5)
        assert weight.std().item() == pytest.approx(0.01, rel=0.01)
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


def test_untrained_network_sees_only_the_corner(images):
    image = images[:1].requires_grad_()
    small().eval().encoder(image).square().sum().backward()
    corner = torch.zeros(32, 32, dtype=torch.bool)
    corner[:6, :6] = True
    assert torch.equal(image.grad[0].any(0), corner)


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


@pytest.mark.parametrize("angle", [0.0, 1.0, 2.0])
def test_knn_votes_stay_finite_at_low_temperatures(angle):
    x, labels = torch.tensor([[1.0, 0.0], [1.0, -0.1], [1.0, -0.3]]), torch.tensor([3, 1, 1])
    query = torch.tensor([[math.cos(angle), math.sin(angle)]])
    assert q3_simsiam.knn_accuracy(x, labels, query, labels[:1], 3, 0.001) == 1


def test_embedding_is_that_of_normalised_images_in_evaluation_mode(images):
    model = small()
    pictures = (images[:6] * 255).byte()
    features, z = q3_simsiam.embed(model, pictures)
    expected = model.eval().represent(tv.normalize(pictures / 255, MEAN, STD))
    torch.testing.assert_close((features, z), expected)


def test_monitor_calls_each_number_by_its_name(monkeypatch):
    labels = torch.arange(1010) % 10
    good, bad = torch.eye(10)[labels], torch.ones(1010, 10)
    wrong = torch.eye(10)[9 - (labels == 9).long()]  # 9 looks like 8, what is above 4 like 9
    loud = 1 + (labels > 1)[:, None]  # the others are silent
    outputs = {"train": (bad, good), "test": (bad * loud, good * (labels < 5)[:, None] + wrong)}
    monkeypatch.setattr(q3_simsiam, "embed", lambda _, split: outputs[split])
    monkeypatch.setattr(q3_simsiam, "median_distance", lambda z: z)
    layers = [torch.nn.Identity()] * 5 + [torch.nn.Threshold(1.5, 0), torch.nn.ConstantPad1d(1, 1.0)]
    model = argparse.Namespace(encoder=argparse.Namespace(fc=torch.nn.Sequential(*layers)))
    data = {f"{split}_images": split for split in outputs} | {f"{split}_labels": labels for split in outputs}
    monitored = q3_simsiam.monitor(model, data, argparse.Namespace(knn_k=4, knn_temperature=0.1))
    assert monitored["knn_accuracy"] == 0.5 and monitored["knn_accuracy_backbone"] == pytest.approx(0.1)
    _, test = outputs["test"]
    assert monitored["output_std"] == q3_simsiam.output_std(test)
    assert monitored["effective_rank"] == q3_simsiam.effective_rank(test)
    assert torch.equal(monitored["median_distance"], test[:1000]) and monitored["silent"] == 0.2


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
    assert monitored["knn_accuracy"] < 0.5 and monitored["silent"] == 0.5
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


@pytest.fixture(autouse=True, scope="module")
def tiny_encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(q3_simsiam, "resnet18", TinyEncoder)
        yield


def test_run_writes_metrics_figures_and_report(finished):
    metrics = read_metrics(finished)
    for run in ("baseline", "no_predictor"):
        numbers, history = metrics["results"][run]["0"], metrics["history"][run]["0"]
        assert set(numbers) == {*CURVES, "epochs", "knn_accuracy_float64"}
        del numbers["knn_accuracy_float64"]
        assert numbers.pop("epochs") == len(history["loss"]) - 1 == 2
        assert numbers == pytest.approx({key: history[key][-1] for key in numbers}, rel=1e-5)
    first, untrained = metrics["history"]["baseline"]["0"], metrics["results"]["untrained"]
    assert untrained == pytest.approx({key: first[key][0] for key in untrained}, rel=1e-5) and "output_std" in untrained
    assert {path.name for path in finished.glob("*.png")} == {"runs.png", "monitors.png"}
    accuracy = metrics["results"]["no_predictor"]["0"]["knn_accuracy"]
    row = f"| no predictor, seed 0 | {accuracy:.4f} |"
    assert row in " ".join((finished / "report.md").read_text(encoding="utf-8").split())


def test_accuracy_on_pixels_is_that_of_the_normalised_images(arguments, finished):
    data = q3_simsiam.load_images(q3_simsiam.get_args(arguments))
    train, test = (tv.normalize(data[f"{split}_images"] / 255, MEAN, STD).flatten(1) for split in ("train", "test"))
    expected = q3_simsiam.knn_accuracy(train, data["train_labels"], test, data["test_labels"], 5, 0.1)
    assert read_metrics(finished)["results"]["knn_accuracy_pixels"] == expected


@pytest.fixture
def train(arguments, tmp_path):
    """Train the baseline, with more flags and settings; returns its history and the state of its model."""

    def train(*flags, **settings):
        args = q3_simsiam.get_args([*arguments, "--out", str(tmp_path), *flags])
        vars(args).update(settings)
        data = q3_simsiam.load_images(args)
        q3_simsiam.train("baseline", args.seed, data, args)
        checkpoint = torch.load(q3_simsiam.checkpoint_path("baseline", args.seed, args), weights_only=True)
        return checkpoint["history"], checkpoint["states"]["model"]

    return train


def test_history_has_the_means_of_each_epoch(train, monkeypatch):
    losses, z1, loss = [], [None], q3_simsiam.SimSiam.loss

    def recorded(*outputs):
        losses.append(loss(*outputs))
        z1.append(outputs[-2])
        return losses[-1]

    monkeypatch.setattr(q3_simsiam.SimSiam, "loss", recorded)
    monkeypatch.setattr(q3_simsiam, "output_std", lambda z: z.new_tensor(float(len(losses) if z is z1[-1] else 0)))
    history, _ = train()
    first, second = torch.stack(losses).view(2, 3).mean(1).tolist()
    assert history["loss"] == pytest.approx([losses[0].item(), first, second])
    assert history["batch_std"] == [1, 2, 5]


def test_training_is_the_loop_of_the_paper(arguments, train):
    """SGD with momentum and weight decay on the symmetric loss of two views, written plainly: the encoder's rate decays
    by a cosine, the predictor's stays; two whole batches of 8 are in 20 images."""
    flags = ["--lr", "0.5", "--epochs", "3", "--train-images", "20"]
    _, states = train(*flags, momentum=0.8, weight_decay=0.1)
    images = q3_simsiam.load_images(q3_simsiam.get_args([*arguments, *flags]))["train_images"]
    torch.manual_seed(0)
    model = q3_simsiam.SimSiam(TinyEncoder, 16, 8)
    encoder, predictor = (
        torch.optim.SGD(m.parameters(), 0.5 * 8 / 256, 0.8, weight_decay=0.1) for m in (model.encoder, model.predictor)
    )
    for epoch in range(3):
        encoder.param_groups[0]["lr"] = 0.5 * 8 / 256 * (1 + math.cos(math.pi * epoch / 3)) / 2
        for batch in torch.randperm(20)[:16].split(8):
            x1, x2 = augment(images[batch]), augment(images[batch])
            model.zero_grad()
            oracles.simsiam_loss(*model(x1, x2)).backward()
            encoder.step()
            predictor.step()
    torch.testing.assert_close(states, model.state_dict(), rtol=1e-3, atol=1e-4)


def test_bfloat16_is_the_networks_alone(train, monkeypatch):
    kinds, loss, forward = [], q3_simsiam.SimSiam.loss, q3_simsiam.SimSiam.forward
    monkeypatch.setattr(q3_simsiam.SimSiam, "loss", lambda *x: (kinds.append(x[1].dtype), loss(*x))[1])
    monkeypatch.setattr(q3_simsiam.SimSiam, "forward", lambda *x: (y := forward(*x), kinds.append(y[0].dtype))[0])
    _, states = train("--precision", "bfloat16", "--epochs", "1")
    assert kinds == [torch.bfloat16, torch.float32] * 3
    assert states["predictor.0.weight"].dtype == torch.float32


def test_each_epoch_says_how_long_the_rest_of_the_run_takes(train, monkeypatch, capsys):
    monkeypatch.setattr(utils, "time_to_go", lambda start, done, total: f"{done} of {total}")
    train()
    assert re.findall("(. of .) to go in this run", capsys.readouterr().out) == ["1 of 2", "2 of 2"]


def test_untrained_network_is_that_of_the_seed_and_measured(arguments, train):
    args = q3_simsiam.get_args(arguments)
    torch.manual_seed(1)
    model = q3_simsiam.SimSiam(TinyEncoder, 16, 8)
    untrained = q3_simsiam.monitor(model, q3_simsiam.load_images(args), args)
    history, _ = train("--seed", "1")
    assert untrained == {key: history[key][0] for key in untrained}


def test_loss_that_is_not_finite_stops_after_its_epoch_and_keeps_the_last_checkpoint(train, monkeypatch, tmp_path):
    calls, loss = [], q3_simsiam.SimSiam.loss

    def diverging(*outputs):
        calls.append(1)
        return loss(*outputs) * (math.nan if len(calls) == 5 else 1)  # the second of the second epoch's three

    monkeypatch.setattr(q3_simsiam.SimSiam, "loss", diverging)
    message = "the loss in epoch 2 of baseline seed 0 is not finite; what was saved before is kept"
    with pytest.raises(utils.InputError, match=message):
        train()
    history = torch.load(tmp_path / "checkpoint_baseline_seed0.pt", weights_only=True)["history"]
    assert len(calls) == 6 and len(history["seconds"]) == 1 and len(history["loss"]) == 2


def made_up():
    """Metrics of two runs, one of them with two seeds, that differ in every curve."""

    def curves(factor):
        numbers = {key: [factor * v for v in (0.1 * i, 0.2, 0.3 + 0.01 * i)] for i, key in enumerate(CURVES)}
        return numbers | {"loss": [-factor * v for v in (0, 0.2, 0.3)]}

    history = {"baseline": {"0": curves(1), "3": curves(2)}, "no_predictor": {"0": curves(3)}}
    config = simsiam.RECIPE | {"quick": False, "data": "cifar10"}
    return {"data": simsiam.SOURCES[0], "config": config, "history": history, "results": {"knn_accuracy_pixels": 0.41}}


@pytest.mark.parametrize(("data", "original"), [(simsiam.SOURCES[0], [0.6]), ("digits", [])])
def test_runs_are_drawn_with_a_line_for_each_seed_on_one_scale(data, original, drawn, tmp_path):
    """With lines at chance, at the accuracy on pixels and, for its data and the baseline, at the original's."""
    draw_figures(simsiam, made_up() | {"data": data}, tmp_path)
    history, axes = made_up()["history"], drawn["runs"].axes
    for (accuracy, loss), (run, seeds) in zip((axes[:2], axes[2:]), history.items(), strict=True):
        num = len(seeds)
        pixels, *lines = accuracy.lines
        lines_of = {"knn_accuracy_backbone": lines[:num], "knn_accuracy": lines[num : 2 * num]}
        lines_of["loss"] = loss.lines[:num]
        for key, lines in lines_of.items():
            assert [list(line.get_ydata()) for line in lines] == [numbers[key] for numbers in seeds.values()]
        levels = [0.41, 0.1, *(original if run == "baseline" else [])]
        assert [line.get_ydata()[0] for line in (pixels, *accuracy.lines[2 * num + 1 :])] == levels
        chance = "chance, original" if original and run != "baseline" else "chance"
        names = ["raw pixels", chance, "original: 0.60"]
        assert [(text.xy[1], text.get_text()) for text in accuracy.texts] == [*zip(levels, names, strict=False)]
        assert loss.lines[-1].get_ydata()[0] == -1
    for pair in (axes[::2], axes[1::2]):
        assert pair[0].get_ylim() == pair[1].get_ylim()
        high, low = (f(max(line.get_ydata()) for line in pair[0].lines) for f in (max, min))
        assert pair[0].get_ylim()[0] <= low and high <= pair[0].get_ylim()[1]


def test_monitors_are_drawn_with_a_colour_for_each_run(drawn, tmp_path):
    draw_figures(simsiam, made_up(), tmp_path)
    history = made_up()["history"]
    keys = ("batch_std", "output_std", "effective_rank", "median_distance")
    for axes, key in zip(drawn["monitors"].axes, keys, strict=True):
        expected = [numbers[key] for seeds in history.values() for numbers in seeds.values()]
        assert [list(line.get_ydata()) for line in axes.lines] == expected
        assert [line.get_color() for line in axes.lines] == ["C0", "C0", "C2"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_outputs_spread_less_without_stop_gradient(images, tmp_path, seed):
    data = {f"{split}_images": (images * 255).byte() for split in ("train", "test")}
    data |= {f"{split}_labels": torch.arange(128) % 10 for split in ("train", "test")} | {"source": "photograph"}
    flags = "--device cpu --epochs 8 --batch-size 64 --dim 32 --pred-dim 16 --knn-k 5 --lr 4"
    args = q3_simsiam.get_args([*flags.split(), "--out", str(tmp_path)])
    std = {}
    for run in ("baseline", "no_stop_gradient"):
        q3_simsiam.train(run, seed, data, args)
        std[run] = runs.load_checkpoint(q3_simsiam.checkpoint_path(run, seed, args), {}, {})["batch_std"][-1]
    assert std["baseline"] > 0.9 and std["no_stop_gradient"] < std["baseline"] - 0.1


def test_subset_keeps_images_and_labels_together(arguments):
    def load(*flags):
        return q3_simsiam.load_images(q3_simsiam.get_args([*arguments, *flags]))

    flags = ["--train-images", "9", "--test-images", "4"]
    full, part, other = load(), load(*flags), load(*flags, "--seed", "1")
    assert len(part["train_images"]) == len(part["train_labels"]) == 9 and len(part["test_images"]) == 4
    for image, label in zip(part["train_images"], part["train_labels"], strict=True):
        (index,) = [i for i, other in enumerate(full["train_images"]) if torch.equal(image, other)]
        assert full["train_labels"][index] == label
    assert torch.equal(part["test_labels"], full["test_labels"][:4])
    assert torch.equal(part["train_images"], other["train_images"])
    assert not torch.equal(part["train_images"], full["train_images"][:9])


def test_all_finished_and_fitting_checkpoints_are_joined_named_or_not(copied, finished, drawn, capsys):
    run = copied("q3_simsiam")
    paths = {name: run.out / f"checkpoint_{name}.pt" for name in ("baseline_seed0", "no_predictor_seed0")}
    unfinished = torch.load(paths["no_predictor_seed0"], weights_only=True)
    unfinished["config"]["seed"] = 7
    unfinished["history"]["seconds"].pop()
    torch.save(unfinished, run.out / "checkpoint_no_predictor_seed7.pt")
    paths["baseline_seed0"].rename(run.out / "checkpoint_no_stop_gradient_seed0.pt")  # does not fit
    q3_simsiam.main([*run.flags, "--runs", "baseline", "--repeats", "3"])
    text, metrics, first = capsys.readouterr().out, read_metrics(run.out), read_metrics(finished)
    seeds = {name: list(histories) for name, histories in metrics["history"].items()}
    assert seeds == {"baseline": ["0", "1", "2"], "no_predictor": ["0"]}
    for name in seeds:
        assert metrics["history"][name]["0"] == first["history"][name]["0"]
        assert metrics["results"][name]["0"] == first["results"][name]["0"]
    assert metrics["history"]["baseline"]["1"]["loss"] != metrics["history"]["baseline"]["0"]["loss"]
    assert "seed7.pt is at epoch 1 of 2" in text
    assert re.search(r"left out: .*no_stop_gradient_seed0\.pt was made with --run baseline, not no_stop_gradient", text)


KNN = {"knn_k": 5, "knn_temperature": 0.1}


def test_another_k_measures_finished_trainings_anew_at_their_end(copied, finished, drawn, monkeypatch, capsys):
    """With an accuracy that is k plus the temperature."""
    run = copied("q3_simsiam")
    path = run.out / "checkpoint_no_predictor_seed0.pt"
    unfinished = torch.load(path, weights_only=True)
    unfinished["config"]["seed"] = 7
    unfinished["history"]["seconds"].pop()
    torch.save(unfinished, run.out / "checkpoint_no_predictor_seed7.pt")
    before = path.read_bytes()
    monkeypatch.setattr(q3_simsiam, "knn_accuracy", lambda *values: sum(values[4:]))
    q3_simsiam.main([*run.flags, "--knn-k", "3", "--knn-temperature", "0.2"])
    metrics, first = read_metrics(run.out), read_metrics(finished)
    old, new = (numbers["results"]["no_predictor"]["0"] for numbers in (first, metrics))
    changed = {key for key in old if old[key] != new[key]}
    assert changed == {"knn_accuracy", "knn_accuracy_backbone", "knn_accuracy_float64"}
    assert {new[key] for key in changed} == {3.2} and path.read_bytes() == before
    assert metrics["history"]["no_predictor"]["0"] == first["history"]["no_predictor"]["0"] | {"knn": KNN}
    assert drawn["runs"].axes[0].get_ylabel() == "kNN accuracy\n(curves: k = 5, temperature 0.1)"
    assert "seed7.pt was made with --knn-k 5, not 3" in capsys.readouterr().out
    page = (run.out / "report.md").read_text()
    assert "Some curves and untrained networks are of k = 5, temperature 0.1." in page
    assert page.count("seed 0 (curves: k = 5, temperature 0.1)") == 2
