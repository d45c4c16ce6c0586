"""Problem 2: the losses against closed forms, the measures against hand computations, and the script end to end."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

import q2_gan
import utils
from data.synthetic import synthetic_data, synthetic_digits
from results import gan as words
from results.pages import decide, make_table, mean_error
from tests import oracles
from tests.helpers import read_metrics

ROOT = Path(__file__).parent.parent
SHAPES = [(6, 5), (6, 3, 4, 4)]


class Linear(nn.Module):
    """f(x) = <w, x> for (B, ...), with a gradient of the given norm everywhere."""

    def __init__(self, shape, norm):
        super().__init__()
        w = torch.randn(shape[1:], dtype=torch.float64)
        self.w = nn.Parameter(norm * w / w.norm())

    def forward(self, x):
        return (self.w * x).flatten(1).sum(1)


def samples(shape):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)


# --- The functions of the assignment ----------------------------------------------------------------------------------


def test_wasserstein_estimate_is_the_difference_of_means():
    p, q = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[0.0], [1.0]])
    value = q2_gan.vf_wasserstein_distance(p, q, lambda x: 2 * x[:, 0])
    assert value.shape == () and value.item() == 2 * 3 - 2 * 0.5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("norm", "penalty"), [(0.5, 0.0), (1.0, 0.0), (3.0, 4.0)])
def test_penalty_of_a_linear_critic_is_one_sided(shape, norm, penalty):
    x, y = samples(shape)
    assert q2_gan.lp_reg(x, y, Linear(shape, norm)).item() == pytest.approx(penalty, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_penalty_of_a_quadratic_critic_is_taken_at_the_interpolate_of_each_pair(shape):
    x, y = samples(shape)
    torch.manual_seed(1)
    value = q2_gan.lp_reg(x, y, lambda v: v.flatten(1).square().sum(1) / 2)  # the gradient at v is v
    torch.manual_seed(1)
    alpha = torch.rand(len(x), dtype=torch.float64)
    gradients = torch.stack([a * u + (1 - a) * v for a, u, v in zip(alpha, x, y, strict=True)])
    torch.testing.assert_close(value, oracles.lp_penalty(gradients))


def test_penalty_uses_one_coefficient_per_image():
    seen = []

    def critic(v):
        seen.append(v.detach())
        return v.flatten(1).sum(1)

    q2_gan.lp_reg(torch.ones(50, 3, 8, 8), torch.zeros(50, 3, 8, 8), critic)
    alpha = seen[0].flatten(1)
    assert torch.equal(alpha, alpha[:, :1].expand_as(alpha)) and alpha[:, 0].unique().numel() > 40
    assert 0 <= alpha.min() < 0.2 and 0.8 < alpha.max() <= 1


def test_penalty_has_gradients_for_the_critic_and_none_for_its_inputs():
    shape = (6, 3, 4, 4)
    x, y = (v.requires_grad_() for v in samples(shape))
    critic = Linear(shape, 3.0)
    q2_gan.lp_reg(x, y, critic).backward()
    torch.testing.assert_close(critic.w.grad, 2 * (3 - 1) * critic.w.detach() / 3)  # d (|w| - 1)^2 / dw
    assert x.grad is None and y.grad is None


# --- Models -----------------------------------------------------------------------------------------------------------


def test_generator_has_the_layers_of_the_assignment():
    generator = q2_gan.Generator()
    convolutions = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels, m.stride[0], m.padding[0]) for m in convolutions] == [
        (100, 256, 1, 0),
        (256, 128, 2, 1),
        (128, 64, 2, 1),
        (64, 3, 2, 1),
    ]
    assert all(m.kernel_size == (4, 4) for m in convolutions)
    assert sum(p.numel() for p in generator.parameters()) == sum(oracles.generator_parameters(100, 64).values())
    images = generator(5 * torch.randn(2, 100))
    assert images.shape == (2, 3, 32, 32) and images.abs().max() <= 1


def test_critic_has_the_layers_of_the_assignment():
    critic = q2_gan.Critic()
    assert [type(m) for m in critic.layers] == [nn.Conv2d, nn.LeakyReLU] * 3 + [nn.Conv2d]
    assert {m.negative_slope for m in critic.layers[1::2]} == {0.2}
    assert sum(p.numel() for p in critic.parameters()) == sum(oracles.critic_parameters(64).values())
    assert critic(torch.randn(2, 3, 32, 32)).shape == (2,) and critic(torch.randn(1, 3, 32, 32)).shape == (1,)


# --- Measures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bright(tmp_path):
    """Arguments of a small training on white images, and its data."""
    flags = "--device cpu --iterations 60 --critic-updates 2 --width 4 --latent-size 4 --batch-size 16 --lr 0.005"
    args = q2_gan.get_args([*flags.split(), "--perturb-dims", "3", "--classifier-steps", "30", "--out", str(tmp_path)])
    images = torch.full((40, 3, 32, 32), 255, dtype=torch.uint8)
    return args, {"train_images": images, "train_labels": torch.zeros(40).long()}


def test_training_moves_the_samples_to_the_data(bright):
    args, data = bright
    q2_gan.train(data, args, {})
    generators, history = q2_gan.load_generators(args, {})
    means = [q2_gan.generate(generator, torch.randn(50, 4)).mean().item() for generator in generators.values()]
    assert abs(means[0]) < 0.2 and means[-1] > 0.5
    assert history["iteration"] == 60 and len(history["distance"]) == 6
    assert history["distance"][1] > 0  # the critic tells real from generated images, in this direction
    assert max(history["penalty"]) < 5  # and the penalty bounds its slope


def test_adam_has_the_originals_betas(bright, monkeypatch):
    settings, adam = [], torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *a, **k: (settings.append(adam(*a, **k)), settings[-1])[1])
    args, data = bright
    args.iterations, args.snapshots = 1, [1]
    q2_gan.train(data, args, {})
    assert [(adam.defaults["lr"], adam.defaults["betas"]) for adam in settings] == [(0.005, (0.5, 0.9))] * 2


def test_snapshots_and_classifier_treat_each_image_alone(bright):
    args, data = bright
    q2_gan.train(data, args, {})
    data |= {"test_images": data["train_images"], "test_labels": data["train_labels"]}
    classifier, _ = q2_gan.train_classifier(data, args, "white")
    z, images = torch.randn(8, 4), torch.randn(8, 3, 32, 32)
    for network, x in ((q2_gan.load_generators(args, {})[0][60], z), (classifier, images)):
        torch.testing.assert_close(network(x[:1]), network(x)[:1])


def test_training_runs_outside_the_main_thread(bright):
    args, data = bright
    args.iterations, args.snapshots = 2, [2]
    with ThreadPoolExecutor(1) as threads:
        threads.submit(q2_gan.train, data, args, {}).result()
    assert (args.out / "snapshot_2.pt").exists()


def test_penalty_coefficient_bounds_the_critic(bright):
    args, data = bright
    args.iterations, args.snapshots, penalties = 20, [20], []
    for args.penalty in (10.0, 1e-6):
        q2_gan.train(data, args, {})
        penalties.append(sum(q2_gan.load_generators(args, {})[1]["penalty"]))
    assert penalties[1] > 3 * penalties[0]


def test_classifier_learns_its_labels(bright):
    args, data = bright
    data["train_images"][:20] = 0
    data["train_labels"][:20] = 7
    data |= {"test_images": data["train_images"], "test_labels": data["train_labels"]}
    assert q2_gan.train_classifier(data, args, "black and white")[1] == 1


class Threshold(nn.Module):
    """A stub of the classifier: digit 1 where the first pixel is positive, 0 where negative, the surer the further."""

    def features(self, x):
        return torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 1]], 1)

    def output(self, features):
        return torch.stack(
            [torch.zeros(len(features)), 10 * features[:, 0], *(torch.full((8, len(features)), -100.0))], 1
        )


class Latent(nn.Module):
    """A stub of the generator: every pixel is the first latent coordinate, from -1 to 1."""

    def forward(self, z):
        return z[:, 0].clamp(-1, 1)[:, None, None, None].expand(-1, 3, 32, 32)


def test_recalibration_takes_the_mean_statistics_of_the_noise():
    generator, z = q2_gan.Generator(10, 8), torch.randn(4, 50, 10)
    before = generator.eval()(z[0])
    q2_gan.recalibrate(generator, z)
    inputs = [generator.layers[0](batch[:, :, None, None]) for batch in z]
    norm = generator.layers[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0))
    after = generator(z[0])
    assert not generator.training and after.std(0).mean() > 0.1 > 20 * before.std(0).mean()  # noise, not flat grey
    q2_gan.recalibrate(generator, z)
    torch.testing.assert_close(generator(z[0]), after)


def test_features_have_unit_length_and_do_not_change_the_probabilities():
    torch.manual_seed(0)
    classifier, images = q2_gan.Classifier().eval(), torch.randn(3, 3, 32, 32)
    features, probabilities = q2_gan.classify(classifier, images)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(probabilities, classifier(images).softmax(1))


def test_radii_are_distances_to_the_fifth_neighbour_without_the_widest_twentieth():
    x = torch.randn(40, 3)
    expected = [sorted(math.dist(a, b) for b in x.tolist())[5] for a in x.tolist()]
    widest = sorted(expected)[-2:]
    torch.testing.assert_close(q2_gan.radii(x), torch.tensor([0 if r in widest else r for r in expected]))


def on_circle(degrees):
    """Images whose feature, in Threshold, is the unit vector of each angle."""
    angles = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float32))
    images = torch.zeros(len(angles), 3, 32, 32)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = angles.cos(), angles.sin()
    return images


def measured(degrees, real_degrees, monkeypatch, k):
    monkeypatch.setattr(q2_gan, "NEIGHBOURS", k)
    real = q2_gan.classify(Threshold(), on_circle(real_degrees))[0]
    return q2_gan.measure(on_circle(degrees), Threshold(), real, q2_gan.radii(real))


def test_precision_and_recall_on_a_circle(monkeypatch):
    real, samples = [0, 10, 20, 90, 99, 108, 250], [5, 12, 40, 41, 42, 200]
    numbers = measured(samples, real, monkeypatch, k=1)  # balls of 10, 10, 10, 9, 9, 9 and 7, 7, 1, 1, 1 degrees
    assert numbers["precision"] == pytest.approx(2 / 6)  # 40 and the others are too far, the ball of 250 does not count
    assert numbers["recall"] == pytest.approx(2 / 7)  # nor does that of 200
    nearest = [5, 2, 20, 21, 22, 50]
    assert numbers["distance"] == pytest.approx(np.mean(2 * np.sin(np.radians(nearest) / 2)), abs=1e-3)


def test_measure_reads_digits_and_confidence(monkeypatch):
    numbers = measured([0, 10, 180, 70], [0, 5, 10, 20, 30, 40, 50], monkeypatch, k=5)
    assert numbers["histogram"] == [1, 3, 0, 0, 0, 0, 0, 0, 0, 0]
    sigmoid = [1 / (1 + math.exp(-10 * abs(math.cos(math.radians(angle))))) for angle in (0, 10, 180, 70)]
    assert numbers["confidence"] == pytest.approx(np.mean(sigmoid), abs=1e-5)


def test_only_sure_digits_are_read():
    images = torch.stack([on_circle([0, 180, 80]), on_circle([100, 60, 0])])
    assert q2_gan.read(Threshold(), images).tolist() == [[1, 0, -1], [-1, 1, 1]]


def test_perturbation_finds_the_dimension_that_matters():
    z = torch.tensor([[-0.9, 0, 0, 0], [-0.5, 1, 2, 3], [0.9, 0, 0, 0], [0.05, 0, 0, 0]])  # the last is not sure
    shares = q2_gan.measure_perturbation(Latent(), Threshold(), z, [0, 2])
    assert shares["asked"] == pytest.approx([1 / 6, *[1 / 3] * 5])  # at 1, z of -0.9 is not sure
    assert shares["all"] == pytest.approx([1 / 12, *[1 / 6] * 5])
    assert len(shares["random"]) == 6 and min(shares["random"]) >= 0 and max(shares["random"]) < 1
    assert max(shares["random"]) not in (0, shares["all"][-1], shares["asked"][-1])


def test_random_directions_have_the_length_of_a_step(monkeypatch):
    steps = []
    monkeypatch.setattr(q2_gan, "perturb", lambda z, direction, epsilons: (steps.append(direction), z[None])[1])
    monkeypatch.setattr(q2_gan, "EPSILONS", (1,))
    q2_gan.measure_perturbation(Latent(), Threshold(), torch.randn(3, 5), [0])
    torch.testing.assert_close(torch.stack(steps).norm(dim=1), torch.ones(10))
    assert torch.equal(torch.stack(steps[:5]), torch.eye(5)) and (torch.stack(steps[5:]) != 0).all()


def test_perturbation_touches_the_asked_coordinate_of_each_row():
    z = torch.randn(2, 100)
    difference = q2_gan.perturb(z, torch.eye(100)[[3, 30]], torch.arange(21)) - z
    assert difference.shape == (21, 2, 100)
    for row, dimension in enumerate((3, 30)):
        torch.testing.assert_close(difference[:, row, dimension], torch.arange(21.0))
        difference[:, row, dimension] = 0
    assert not difference.any()


def test_what_is_met_on_a_path():
    path = torch.stack([on_circle([0, 0]), on_circle([60, 0]), on_circle([180, 120]), on_circle([180, 180])])
    real, _ = q2_gan.classify(Threshold(), on_circle([0, 180]))
    numbers = q2_gan.measure_interpolation(path, Threshold(), real)
    assert numbers["distance"] == pytest.approx([0, 0.5, 0.5, 0], abs=1e-3)  # chords of 60 degrees
    assert numbers["confidence"][0] > 0.999 > numbers["confidence"][1] > 0.99
    assert numbers["digits"] == 2  # those at 120 degrees are sure as well
    ratios = [math.sqrt(3) / ((1 + math.sqrt(3) + 0) / 3), math.sqrt(3) / ((0 + math.sqrt(3) + 1) / 3)]
    assert numbers["largest_step"] == pytest.approx(np.mean(ratios))
    unsure = torch.stack([on_circle([0]), on_circle([80]), on_circle([100])])
    assert q2_gan.measure_interpolation(unsure, Threshold(), real)["digits"] == 1
    assert q2_gan.measure_interpolation(path[:1].repeat(3, 1, 1, 1, 1), Threshold(), real)["largest_step"] == 0


def test_evaluation_measures_every_set_of_noise(bright, monkeypatch):
    args, data = bright
    args.samples, args.snapshots = 20, [0, 7]
    monkeypatch.setattr(q2_gan, "interpolate", lambda *_: (torch.zeros(11, 2, 3, 32, 32), torch.ones(11, 2, 3, 32, 32)))
    data["test_images"] = torch.randint(0, 256, (60, 3, 32, 32), dtype=torch.uint8)
    results = q2_gan.evaluate({0: Latent(), 7: nn.Sequential(Latent(), nn.Hardtanh(-1, -0.5))}, Threshold(), data, args)
    before, after = results["per_snapshot"].values()
    assert [sum(histogram) for histogram in before["histogram"]] == [20] * 5
    assert after["histogram"] == [[20, *[0] * 9]] * 5  # the second one's pixels are negative
    assert len(set(before["confidence"])) == 5
    assert results["latent"]["digits"] == [0] * 5 and results["pixel"]["digits"] == [1] * 5  # zeros are not sure
    assert [len(results[name]["distance"]) for name in ("latent", "pixel")] == [5, 5]
    assert results["perturbation"]["all"] == [[0] * 6] * 5  # nor do its digits ever change
    assert len({tuple(histogram) for histogram in results["real"]["histogram"]}) > 1  # a half of its own for each
    assert np.shape(results["perturbation"]["asked"]) == (5, 6)


def test_frechet_distance_of_known_normals():
    x = torch.randn(50, 2).double()
    x = torch.linalg.solve_triangular(torch.linalg.cholesky((x - x.mean(0)).T.cov()), (x - x.mean(0)).T, upper=False).T
    a, b = torch.tensor([[2.0, 1.0], [1.0, 1.0]]).double(), torch.tensor([[1.0, -0.5], [-0.5, 2.0]]).double()
    assert q2_gan.frechet_distance(x * torch.tensor([2, 3]), x + 2) == pytest.approx(8 + (2 - 1) ** 2 + (3 - 1) ** 2)
    assert q2_gan.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    expected = (a @ a.T + b @ b.T).trace() - 2 * scipy.linalg.sqrtm((a @ a.T @ b @ b.T).numpy()).trace()
    assert q2_gan.frechet_distance(x @ a.T, x @ b.T) == pytest.approx(expected.item())


# --- Words ------------------------------------------------------------------------------------------------------------

EVEN, THREE = [10] * 10, [2, 2, 30, 2, 2, 2, 30, 2, 30, 2]
SUPPORTED = {  # quantities for which the words support every claim of the original, in the order of the claims
    "precision": [0.01, 0.3, 0.6, 0.8],
    "recall": [0, 0.1, 0.4, 0.7],
    "histogram": [THREE, THREE, THREE, EVEN],
    "confidence": [0.5, 0.6, 0.7, 0.9],
    "asked": 0.5,
    "random": 0.3,
    "real": 0.95,
    "latent": 1.0,
    "pixel": 1.4,
    "largest_step": 1.5,
    "digits": 2.5,
}


def made_up(spread=0.001, **changes):
    """Metrics with the means of SUPPORTED, but for `changes`, and five sets of noise around them."""
    values = SUPPORTED | changes
    noise = [spread * step for step in (-2, -1, 0, 1, 2)]

    def sets(mean):
        return [mean] * 5 if isinstance(mean, list) else [mean + (step if mean else 0) for step in noise]

    names = ("precision", "recall", "histogram", "confidence")
    snapshots = {
        str(iteration): {name: sets(values[name][i])[:: 1 if i % 2 else -1] for name in names}
        | {"distance": [4.0 - i] * 5}
        for i, iteration in enumerate((0, 14, 40, 100))
    }
    paths = {scheme: {"distance": [[0, value, 0] for value in sets(values[scheme])]} for scheme in ("latent", "pixel")}
    paths["latent"] |= {name: sets(values[name]) for name in ("largest_step", "digits")}
    paths["pixel"]["digits"] = [2.0] * 5
    perturbation = {
        "asked": [[value - 0.4, value + 0.4] for value in sets(values["asked"])],
        "random": [[values["random"] + 0.4, values["random"] - 0.4]] * 5,
    }
    results = {"snapshots": [0, 14, 40, 100], "classifier_accuracy": values.get("accuracy", 0.96)}
    results["real"] = {"histogram": [EVEN] * 5, "distance": [values["real"]] * 5}
    config = {"data": values.get("data", "mnist")}
    return {"config": config, "results": results | paths | {"per_snapshot": snapshots, "perturbation": perturbation}}


def verdicts(**changes):
    return [row[-1] for row in words.closing_table(made_up(**changes))[1:]]


def test_numbers_that_support_every_claim():
    assert verdicts() == [True, *["supported"] * 15]


def test_built_in_digits_decide_nothing():
    assert set(verdicts(data="synthetic")) == {True, "not decided: built-in digits"}


@pytest.mark.parametrize(
    ("claims", "changes"),
    [
        ([1], {"precision": [0.1, 0.3, 0.6, 0.8]}),
        ([2], {"precision": [0.01, 0.55, 0.6, 0.8]}),
        ([3], {"precision": [0.01, 0.45, 0.4, 0.8]}),
        ([4, 6], {"histogram": [THREE, THREE, EVEN, EVEN]}),
        ([5], {"recall": [0, 0.1, 0.66, 0.7]}),
        ([6], {"histogram": [EVEN, EVEN, THREE, THREE]}),
        ([7], {"precision": [0.01, 0.3, 0.9, 0.8]}),
        ([8], {"confidence": [0.5, 0.6, 0.95, 0.9]}),
        ([9], {"asked": 0.05, "random": 0.01}),
        ([10], {"asked": 0.2}),
        ([11], {"real": 0.8}),
        ([12], {"latent": 1.2}),
        ([13], {"pixel": 1.05}),
        ([14], {"largest_step": 4.0}),
        ([15], {"digits": 1.9}),
    ],
)
def test_every_claim_can_be_contradicted(claims, changes):
    decided = verdicts(**changes)
    assert [i for i, verdict in enumerate(decided) if verdict == "contradicted"] == claims
    assert [i for i, verdict in enumerate(decided) if verdict == "supported"] == sorted({*range(1, 16)} - {*claims})


def test_a_difference_within_its_error_decides_nothing():
    near = {"precision": [0.05, 0.5, 0.5, 0.5], "recall": [0, 0.1, 0.65, 0.7], "confidence": [0.5, 0.6, 0.9, 0.9]}
    near |= {"asked": 0.1, "random": 0.1, "latent": 1.1, "pixel": 1.1, "largest_step": 3.0, "digits": 2.0}
    assert [i for i, verdict in enumerate(verdicts(**near)) if verdict != "not decided"] == [0, 4, 6, 11]


def test_a_snapshot_beside_itself_decides_nothing():
    metrics = made_up()
    metrics["results"]["snapshots"].pop(1)
    assert {words.verdict(metrics, claim) for claim in words.claims(metrics)["2.4"]} == {
        "not decided: too few snapshots"
    }


def test_a_classifier_that_errs_decides_nothing():
    assert verdicts(accuracy=0.94) == [False, *["not decided: weak classifier"] * 15]


def test_a_decision_needs_three_standard_errors_and_five_values():
    values = [-2, -1, 0, 1, 2]  # standard error sqrt(0.5) = 0.7071
    assert decide([v + 2.13 for v in values], ">", 0) == "supported"
    assert decide([v + 2.11 for v in values], ">", 0) == "not decided"
    assert decide([v - 2.11 for v in values], ">", 0) == "not decided"
    assert decide([v - 2.13 for v in values], ">", 0) == decide([v + 2.13 for v in values], "<", 0) == "contradicted"
    assert decide([1, 1, 1, 1], ">", 0) == "not decided"
    assert mean_error(values) == "0.00 ± 0.71" and mean_error([0.5, 0.501, 0.502]) == "0.50100 ± 0.00058"
    assert mean_error([0.25]) == "0.25"


def test_phases_are_the_snapshots_nearest_to_the_originals():
    snapshots = [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 21_000]
    assert words.phases({"snapshots": snapshots}) == [0, 3200, 6400, 21_000]
    assert words.phases({"snapshots": [0, 7000, 20_000, 50_000]}) == [0, 7000, 20_000, 50_000]
    assert words.phases({"snapshots": [0, 3, 30, 100]}) == [0, 30, 30, 100]  # 3 is nearer to 14 as a difference


def test_entropy_in_bits_and_share_of_three_digits():
    assert words.entropy([5, 0]) == 0 and words.entropy([1] * 8) == pytest.approx(3)
    assert words.entropy([7] * 10) == pytest.approx(math.log2(10))
    assert words.top_three(THREE) == pytest.approx(90 / 104) and words.top_three(EVEN) == pytest.approx(0.3)


def test_changes_are_told_in_the_words_of_the_original():
    assert words.changes(3, [6, 6, -1, 3, 3, 7]) == "- Dimension 3: 6 to 3 at ε = 3, then 7 at ε = 5."
    assert words.changes(30, [1, 1, 1]) == "- Dimension 30: 1 throughout."
    assert words.changes(30, [1, -1, 1]) == "- Dimension 30: 1 wherever it is sure."
    assert words.changes(30, [-1, -1]) == "- Dimension 30: never sure."


# --- The figures' ingredients -----------------------------------------------------------------------------------------


def test_interpolation_ends_at_the_two_images_and_differs_between():
    torch.manual_seed(0)
    generator = q2_gan.Generator(10, 8).eval()
    z0, z1 = torch.randn(2, 3, 10)
    latent, pixel = q2_gan.interpolate(generator, z0, z1, torch.tensor([0.0, 0.3, 1.0]))
    for images in (latent, pixel):
        torch.testing.assert_close(images[0], generator(z1))
        torch.testing.assert_close(images[2], generator(z0))
    torch.testing.assert_close(latent[1], generator(0.3 * z0 + 0.7 * z1))
    torch.testing.assert_close(pixel[1], 0.3 * generator(z0) + 0.7 * generator(z1))
    assert (latent[1] - pixel[1]).abs().max() > 1e-4


# --- The script -------------------------------------------------------------------------------------------------------

TINY = "--device cpu --iterations 6 --critic-updates 2 --width 4 --latent-size 8 --batch-size 8 --lr 1e-3".split()
TINY += "--perturb-dims 3 5 --classifier-steps 5 --samples 40 --snapshots 0 2 6".split()


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Flags of a tiny run on 200 + 50 grey digits of 28 x 28, given as mnist.npz."""
    folder = tmp_path_factory.mktemp("data")
    data = synthetic_data(200, 50) | {"source": "tiny digits"}
    np.savez(folder / "mnist.npz", **data)
    return ["--data", "mnist", "--data-dir", str(folder), *TINY]


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    """The output folder of an uninterrupted run that records every second iteration."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(q2_gan, "RECORD_EVERY", 2)
        q2_gan.main([*arguments, "--out", str(out)])
    return out


def copy(source, target, *names):
    for name in names:
        (target / name).write_bytes((source / name).read_bytes())


def test_images_are_padded_to_32_and_three_channels(arguments, tmp_path):
    data, source = utils.load_rgb(q2_gan.get_args([*arguments, "--out", str(tmp_path)]))
    images = data["train_images"]
    assert source == "tiny digits" and images.shape == (200, 3, 32, 32) and images.dtype == torch.uint8
    digits = synthetic_digits(200, 0)[0]
    assert np.array_equal(images[:, 0, 2:-2, 2:-2], digits) and np.array_equal(images[:, 2, 2:-2, 2:-2], digits)
    assert not images[:, :, :2].any() and not images[:, :, :, -2:].any()
    scaled = q2_gan.scale(images)
    assert (scaled.min(), scaled.max()) == (-1, 1)


def test_snapshots_are_kept_at_exactly_the_asked_iterations(finished):
    assert sorted(path.name for path in finished.glob("snapshot_*")) == [
        "snapshot_0.pt",
        "snapshot_2.pt",
        "snapshot_6.pt",
    ]
    states = [torch.load(finished / f"snapshot_{i}.pt", weights_only=True)["states"] for i in (0, 2, 6)]
    torch.manual_seed(0)
    generator, critic = q2_gan.Generator(8, 4), q2_gan.Critic(4)
    torch.testing.assert_close(states[0], {"generator": generator.state_dict(), "critic": critic.state_dict()})
    assert [int(state["generator"]["layers.1.num_batches_tracked"]) for state in states] == [0, 2 * 3, 6 * 3]
    last = torch.load(finished / "checkpoint.pt", weights_only=True)["states"]
    torch.testing.assert_close(states[2], {name: last[name] for name in ("generator", "critic")})


def test_classifier_trained_in_another_way_is_refused(arguments, finished, tmp_path):
    checkpoint = torch.load(finished / "classifier.pt", weights_only=True)
    del checkpoint["config"]["augmentation"]
    for i in (0, 2, 6):
        copy(finished, tmp_path, f"snapshot_{i}.pt")
    torch.save(checkpoint, tmp_path / "classifier.pt")
    with pytest.raises(utils.InputError, match=r"classifier\.pt was made with augmentation = None, not "):
        q2_gan.main([*arguments, "--out", str(tmp_path), "--figures-only"])


def test_generators_of_snapshots_are_recalibrated(arguments, finished, tmp_path):
    args = q2_gan.get_args([*arguments, "--out", str(tmp_path), "--figures-only"])
    copy(finished, args.out, "snapshot_0.pt")
    args.snapshots = [0]
    (generator,) = q2_gan.load_generators(args, q2_gan.training_config(args, "tiny digits"))[0].values()
    assert q2_gan.generate(generator, torch.randn(50, 8)).std(0).mean() > 0.1  # noise, not flat grey


def test_another_noise_seed_measures_the_same_snapshots_with_other_noise(arguments, finished, tmp_path):
    for i in (0, 2, 6):
        copy(finished, tmp_path, f"snapshot_{i}.pt", "classifier.pt")
    q2_gan.main([*arguments, "--out", str(tmp_path), "--figures-only", "--noise-seed", "5"])
    ours, theirs = (read_metrics(out)["results"] for out in (tmp_path, finished))
    assert ours["perturbation"]["digits"] == theirs["perturbation"]["digits"] and ours["real"] != theirs["real"]


def test_figures_start_at_the_first_sure_images(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(utils, "draw_strips", lambda strips, *rest: drawn.update({rest[2].name: (strips, rest)}))
    args = q2_gan.get_args(
        ["--out", str(tmp_path), "--latent-size", "4", "--perturb-dims", "0", "2", "--device", "cpu"]
    )
    digits = q2_gan.draw_images({0: Latent(), 9: Latent()}, Threshold(), args)
    torch.manual_seed(args.seed)
    z = torch.randn(1000, 4)[:, 0]
    sure = z[z.abs() > math.log(9) / 10][:8]  # where the stub's probability is above 0.9
    rows = list(drawn["perturbation.png"][0].values())
    assert [row[0, 0, 0, 0].item() for row in rows] == pytest.approx(sure[:2].clamp(-1, 1).tolist())
    assert [row[20, 0, 0, 0].item() for row in rows] == pytest.approx([1, sure[1].clamp(-1, 1).item()])
    assert [row[0] for row in digits] == [int(value > 0) for value in sure[:2]] and digits[0][20] == 1
    paths = list(drawn["interpolation.png"][0].values())
    ends = [[path[i, 0, 0, 0].item() for path in paths[::2]] for i in (0, 10)]
    assert ends[0] == pytest.approx(sure[1:8:2].clamp(-1, 1).tolist())
    assert ends[1] == pytest.approx(sure[0:8:2].clamp(-1, 1).tolist())


def test_default_snapshots_keep_their_places(tmp_path):
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert q2_gan.get_args(out).snapshots == [0, 7000, 20_000, 50_000]
    assert q2_gan.get_args([*out, "--iterations", "1000"]).snapshots == [0, 140, 400, 1000]


def test_run_writes_metrics_figures_and_report(finished):
    metrics = read_metrics(finished)
    results = metrics["results"]
    assert results["snapshots"] == [0, 2, 6] and set(results["per_snapshot"]) == {"0", "2", "6"}
    for numbers in results["per_snapshot"].values():
        assert [sum(histogram) for histogram in numbers["histogram"]] == [25] * 5  # half of the test images
        assert min(numbers["frechet"]) >= 0 and all(0.1 <= value <= 1 for value in numbers["confidence"])
    assert np.shape(results["perturbation"]["digits"]) == (2, 21)
    assert len(metrics["history"]["training"]["distance"]) == len(metrics["history"]["training"]["penalty"]) == 3
    names = ["samples", "quality", "training", "perturbation", "interpolation", "interpolation_curves"]
    assert {path.name for path in finished.glob("*.png")} == {f"{name}.png" for name in names}
    assert make_table(words.closing_table(metrics)) in (finished / "report.md").read_text()


def test_answers_show_each_share_in_its_place(finished):
    metrics = read_metrics(finished)
    shares = {"asked": 0.125, "all": 0.25, "random": 0.5}
    metrics["results"]["perturbation"] |= {key: [[share] * 6] * 5 for key, share in shares.items()}
    lines = [" ".join(line.split()) for line in words.answers(metrics).splitlines()]
    assert "| dimensions 3, 5 | 0.125 | 0.125 | 0.125 | 0.125 | 0.125 | 0.125 |" in lines
    assert "| all dimensions | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 |" in lines
    assert "| random directions | 0.5 | 0.5 | 0.5 | 0.5 | 0.5 | 0.5 |" in lines
    digits = metrics["results"]["per_snapshot"]["6"]["histogram"]
    frechet = mean_error(metrics["results"]["per_snapshot"]["6"]["frechet"])
    (row,) = (line for line in lines if line.startswith(f"| iteration 6 | {frechet} |"))
    assert mean_error([words.top_three(histogram) for histogram in digits]) in row


def test_figures_only_reproduces_the_numbers_from_the_snapshots_alone(arguments, finished, tmp_path):
    for i in (0, 2, 6):
        copy(finished, tmp_path, f"snapshot_{i}.pt", "classifier.pt")
    q2_gan.main([*arguments, "--out", str(tmp_path), "--figures-only"])
    assert read_metrics(tmp_path)["results"] == read_metrics(finished)["results"]


def test_missing_snapshot_is_named(arguments, finished, tmp_path):
    copy(finished, tmp_path, "snapshot_0.pt", "classifier.pt")
    with pytest.raises(utils.InputError, match=r"snapshot_2\.pt is missing"):
        q2_gan.main([*arguments, "--out", str(tmp_path), "--figures-only"])


def test_foreign_snapshot_is_named(arguments, finished, tmp_path):
    for i in (0, 2, 6):
        copy(finished, tmp_path, f"snapshot_{i}.pt", "classifier.pt")
    with pytest.raises(utils.InputError, match=r"snapshot_0\.pt was made with lr = 0\.001, not 0\.01"):
        q2_gan.main([*arguments, "--out", str(tmp_path), "--figures-only", "--lr", "0.01"])


def test_resume_with_a_snapshot_missing_behind_is_refused(arguments, finished):
    with pytest.raises(utils.InputError, match=r"snapshot_4\.pt is missing"):
        q2_gan.main([*arguments, "--out", str(finished), "--resume", "--iterations", "8", "--snapshots", "0", "4", "8"])


def test_resume_with_fewer_iterations_is_refused(arguments, finished):
    with pytest.raises(utils.InputError, match=r"is at iteration 6 already"):
        q2_gan.main([*arguments, "--out", str(finished), "--resume", "--iterations", "4", "--snapshots", "0", "2"])


def test_report_of_earlier_snapshots_names_their_iterations(arguments, finished, tmp_path):
    for i in (0, 2):
        copy(finished, tmp_path, f"snapshot_{i}.pt", "classifier.pt")
    q2_gan.main([*arguments, "--out", str(tmp_path), "--figures-only", "--snapshots", "0", "2"])
    metrics = read_metrics(tmp_path)
    assert metrics["config"]["iterations"] == 2 and len(metrics["history"]["training"]["distance"]) == 1
    assert "Recipe: 2 generator iterations" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--snapshots", "0", "7"], "--snapshots 7 lies past --iterations 6"),
        (["--perturb-dims", "8"], "--perturb-dims 8: dimensions go from 0 to 7"),
        (["--penalty", "0"], "'0' is not a finite number above 0"),
        (["--samples", "1"], "'1' is not a whole number from 2 to"),
    ],
)
def test_bad_flags_are_named(arguments, flags, message, tmp_path):
    with pytest.raises(utils.InputError, match=message):
        q2_gan.get_args([*arguments, "--out", str(tmp_path), *flags])


def test_images_of_another_size_are_refused(arguments, tmp_path):
    images, labels = np.zeros((12, 48, 48), np.uint8), np.zeros(12, np.uint8)
    split = {f"{s}_{k}": v for s in ("train", "test") for k, v in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "svhn.npz", **split, source="large")
    with pytest.raises(utils.InputError, match=r"large: images are \(48, 48\)"):
        q2_gan.main([*TINY, "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")])


def test_loss_that_is_not_finite_stops_and_saves_nothing(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(q2_gan, "lp_reg", lambda x, y, critic: critic(x).mean() * math.nan)
    with pytest.raises(utils.InputError, match="the loss is not finite at iteration 2"):
        q2_gan.main([*arguments, "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"snapshot_0.pt"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_script_runs_on_cuda(arguments, tmp_path):
    q2_gan.main([*arguments, "--device", "cuda", "--out", str(tmp_path)])
    assert read_metrics(tmp_path)["device"].startswith("cuda")


STOPPED = """
import os, signal, sys, torch, q2_gan, utils
torch.set_num_threads(int(sys.argv[1]))
q2_gan.RECORD_EVERY = 2
save, step, steps = utils.save_checkpoint, torch.optim.Adam.step, []
def stop(signal_at): os.kill(os.getpid(), signal_at)
def killed_at_the_first_checkpoint():
    utils.save_checkpoint = lambda path, *a: stop(signal.SIGKILL) if path.name == "checkpoint.pt" else save(path, *a)
def stopped_in_the_fourth_iteration(by):
    q2_gan.SAVE_EVERY = 0 if by == signal.SIGKILL else 60
    torch.optim.Adam.step = lambda *a: (step(*a), steps.append(1), len(steps) == 11 and stop(by))
def killed_in_the_fourth_iteration(): stopped_in_the_fourth_iteration(signal.SIGKILL)
def interrupted_in_the_fourth_iteration(): stopped_in_the_fourth_iteration(signal.SIGINT)
def killed_in_the_evaluation(): q2_gan.evaluate = lambda *_: stop(signal.SIGKILL)
for moment, status in ((killed_at_the_first_checkpoint, signal.SIGKILL), (killed_in_the_evaluation, signal.SIGKILL),
                       (killed_in_the_fourth_iteration, signal.SIGKILL),
                       (interrupted_in_the_fourth_iteration, 130 << 8)):
    argv = [*sys.argv[3:], "--out", f"{sys.argv[2]}/{moment.__name__}"]
    for stopped in (True, False):
        pid = os.fork()
        if not pid:
            if stopped:
                moment()
            try:
                q2_gan.main(argv + ["--resume"] * (not stopped))
            except KeyboardInterrupt:
                at = torch.load(argv[-1] + "/checkpoint.pt", weights_only=True)["history"]["iteration"]
                os._exit(130 if at == 4 else 1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == (status if stopped else 0), moment
"""


def test_resume_after_kill_and_ctrl_c_ends_with_identical_numbers(arguments, finished, tmp_path):
    """One process imports torch and forks a run for each moment, stopped there, and its continuation."""
    command = [sys.executable, "-c", STOPPED, str(torch.get_num_threads()), str(tmp_path), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    expected, moments = read_metrics(finished), sorted(tmp_path.iterdir())
    assert len(moments) == 4
    for out in moments:
        assert read_metrics(out) == expected, out.name
