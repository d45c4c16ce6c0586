"""Problem 2: the losses against closed forms, the measures against hand computations, and the script end to end."""

import argparse
import copy
import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchvision.transforms.functional import gaussian_blur

import q2_gan
import utils
from data.augmentation import distort, scale
from data.synthetic import synthetic_digits
from results import gan, reader, runs
from results.pages import mean_error
from tests import oracles
from tests.helpers import digest, draw_figures, model_flags, read_metrics

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
    layers = [(m.in_channels, m.out_channels, m.stride[0], m.padding[0]) for m in convolutions]
    assert layers == [(100, 256, 1, 0), (256, 128, 2, 1), (128, 64, 2, 1), (64, 3, 2, 1)]
    assert all(m.kernel_size == (4, 4) for m in convolutions)
    kinds = [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 3 + [nn.ConvTranspose2d, nn.Tanh]
    assert [type(m) for m in generator.layers] == kinds
    assert sum(p.numel() for p in generator.parameters()) == oracles.generator_parameters(100, 64)
    images = generator(5 * torch.randn(2, 100))
    assert images.shape == (2, 3, 32, 32) and images.abs().max() <= 1


def test_critic_has_the_layers_of_the_assignment():
    critic = q2_gan.Critic()
    assert [type(m) for m in critic.layers] == [nn.Conv2d, nn.LeakyReLU] * 3 + [nn.Conv2d]
    assert {m.negative_slope for m in critic.layers[1::2]} == {0.2}
    assert sum(p.numel() for p in critic.parameters()) == oracles.critic_parameters(64)
    assert critic(torch.randn(2, 3, 32, 32)).shape == (2,) and critic(torch.randn(1, 3, 32, 32)).shape == (1,)


# --- Measures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bright(tmp_path):
    """Arguments of a small training on white images, and its data."""
    flags = "--device cpu --iterations 60 --critic-updates 2 --width 4 --latent-size 4 --batch-size 16 --lr 0.005"
    args = q2_gan.get_args([*flags.split(), "--perturb-dims", "3", "--classifier-steps", "30", "--out", str(tmp_path)])
    images = torch.full((40, 3, 32, 32), 255, dtype=torch.uint8)
    return args, {"train_images": images, "train_labels": torch.zeros(40).long(), "source": "white"}


def test_training_is_the_loop_of_the_paper(bright, monkeypatch):
    """Written plainly: two critic updates, penalty 7, for each of the generator; Adam with betas 0.5 and 0.9."""
    args, data = bright
    monkeypatch.setattr(q2_gan, "lp_reg", lambda x, y, critic: (critic(x) - 1).square().mean())  # that is never 0
    args.iterations, args.snapshots, args.penalty = 3, [3], 7
    data["train_images"] = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    q2_gan.train(0, data, args)
    states = torch.load(args.out / "snapshot_3_seed0.pt", weights_only=True)["states"]

    torch.manual_seed(0)
    generator, critic = q2_gan.Generator(4, 4), q2_gan.Critic(4)
    adams = [torch.optim.Adam(m.parameters(), 0.005, (0.5, 0.9)) for m in (generator, critic)]
    for _ in range(3):
        for _ in range(2):
            x = data["train_images"][torch.randint(40, (16,))] / 127.5 - 1
            y = generator(torch.randn(16, 4)).detach()
            loss = critic(y).mean() - critic(x).mean() + 7 * q2_gan.lp_reg(x, y, critic)
            critic.zero_grad()
            loss.backward()
            adams[1].step()
        generator.zero_grad()
        (-critic(generator(torch.randn(16, 4))).mean()).backward()
        adams[0].step()
    trained, z = q2_gan.Generator(4, 4), torch.randn(50, 4)
    trained.load_state_dict(states["generator"])
    torch.testing.assert_close(trained(z), generator(z), rtol=0, atol=1e-3)  # but for biases that have no effect
    torch.testing.assert_close(states["critic"], critic.state_dict(), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_replayed_iterations_are_the_written_ones(tmp_path, monkeypatch):
    """On images of one grey each, where other noise or a missed update shows at once."""
    flags = "--device cuda --iterations 20 --width 8 --latent-size 4 --perturb-dims 3 --lr 1e-3 --batch-size 8 --out"
    torch.manual_seed(0)
    images = torch.randint(0, 256, (40, 1, 1, 1), dtype=torch.uint8).expand(40, 3, 32, 32).contiguous().cuda()

    def train(name):
        args = q2_gan.get_args([*flags.split(), str(tmp_path / name), "--snapshots", "0"])
        args.out.mkdir()
        q2_gan.train(0, {"train_images": images, "source": "greys"}, args)
        return torch.load(args.out / "checkpoint_seed0.pt", weights_only=True)

    replayed = train("replayed")
    monkeypatch.setattr(utils, "replayed", lambda iterate, *_: iter(iterate, None))
    written = train("written")
    for key in ("distance", "penalty"):
        assert written["history"][key][0] > 0
        assert replayed["history"][key] == pytest.approx(written["history"][key], rel=0.02), key
    assert not any(
        replayed["states"][f"{name}_adam"]["param_groups"][0]["capturable"] for name in ("critic", "generator")
    )


def test_snapshots_and_classifier_treat_each_image_alone(bright):
    args, data = bright
    args.iterations, args.snapshots, args.classifier_steps = 2, [2], 2
    q2_gan.train(0, data, args)
    classifier = reader.load_classifier(0, data, args)
    z, images = torch.randn(8, 4), torch.randn(8, 3, 32, 32)
    for network, x in ((q2_gan.load_snapshot(2, 0, args, "white").generator, z), (classifier, images)):
        torch.testing.assert_close(network(x[:1]), network(x)[:1])


def test_classifier_learns_its_labels_under_distortion(bright):
    """A dark and a bright half, whose order an inversion does not change."""
    args, data = bright
    data["train_images"][:20, :, :, :16] = 0
    data["train_images"][20:, :, :16] = 0
    data["train_labels"][:20] = 7
    args.classifier_steps = 60
    classifier = reader.load_classifier(0, data, args)
    assert torch.equal(classifier(q2_gan.scale(data["train_images"])).argmax(1), data["train_labels"])


def test_classifier_is_trained_on_distorted_images_with_one_cycle_of_the_rate(bright):
    """Written plainly, with a rate of 0.004 at the most and the views' settings in numbers."""
    args, data = bright
    args.classifier_steps = 6
    data["train_images"] = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    data["train_labels"] = torch.arange(40) % 10
    trained = reader.load_classifier(0, data, args)

    torch.manual_seed(0)
    classifier = reader.Classifier().to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(classifier.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 0.004, total_steps=6)
    for _ in range(6):
        batch = torch.randint(40, (128,))
        views = distort(data["train_images"][batch] / 127.5 - 1, 15, 1.2, 3, 0.5, 0.5)
        loss = nn.functional.cross_entropy(classifier(views), data["train_labels"][batch])
        classifier.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    images = q2_gan.scale(data["train_images"])
    # without views or cycle they differ by 0.3, by rounding alone by less than 0.001
    torch.testing.assert_close(trained(images), classifier.eval()(images), rtol=0, atol=0.02)


class Threshold(nn.Module):
    """A stub of the classifier: digit 1 where the first pixel is positive, 0 where negative, the surer the further."""

    def features(self, x):
        return torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 1]], 1)

    def output(self, features):
        logits = torch.full((len(features), 10), -100.0)
        logits[:, 0], logits[:, 1] = 0, 10 * features[:, 0]
        return logits


class Latent(nn.Module):
    """A stub of the generator: every pixel is the first latent coordinate, from -1 to 1."""

    def forward(self, z):
        return z[:, 0].clamp(-1, 1)[:, None, None, None].expand(-1, 3, 32, 32)


def test_snapshots_are_loaded_with_the_mean_statistics_of_noise(tmp_path):
    args = q2_gan.get_args(["--device", "cpu", "--width", "8", "--out", str(tmp_path)])
    generator, critic = q2_gan.Generator(100, 8), q2_gan.Critic(8)
    networks = {"generator": generator, "critic": critic}
    config = q2_gan.training_config(0, args, "noise")
    runs.save_checkpoint(q2_gan.snapshot_path(0, 0, args), config, networks, {})
    loaded = q2_gan.load_snapshot(0, 0, args, "noise").generator
    z = torch.randn(20, 64, 100, generator=torch.Generator().manual_seed(2**31))
    inputs = [generator.layers[0](batch[:, :, None, None]) for batch in z]
    norm = loaded.layers[1]
    assert all(torch.equal(x, x.half().type(x.dtype)) for x in loaded.state_dict().values())
    half = {"rtol": 2e-3, "atol": 2e-4}  # to which weights and statistics are rounded
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0), **half)
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0), **half)
    before, after = generator.eval()(z[0]), loaded(z[0])
    assert not loaded.training and after.std(0).mean() > 0.1 > 20 * before.std(0).mean()  # noise, not flat grey


def test_features_have_unit_length_and_do_not_change_the_probabilities():
    torch.manual_seed(0)
    classifier, images = reader.Classifier().eval(), torch.randn(3, 3, 32, 32)
    features, probabilities = reader.classify(classifier, images)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(probabilities, classifier(images).softmax(1))


def test_neighbour_distances_are_those_to_the_fifth_other():
    x = torch.randn(40, 3)
    expected = [sorted(math.dist(a, b) for b in x.tolist())[5] for a in x.tolist()]
    torch.testing.assert_close(reader.neighbour_distances(x, 5), torch.tensor(expected))
    assert reader.neighbour_distances(x[:3], 5).shape == (3,)  # fewer than k others


def on_circle(degrees):
    """Images whose feature, in Threshold, is the unit vector of each angle."""
    angles = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float32))
    images = torch.zeros(len(angles), 3, 32, 32)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = angles.cos(), angles.sin()
    return images


def real_images(held_out, labels=None, training=None, k=1):
    features = reader.classify(Threshold(), held_out)[0]
    return reader.RealImages(held_out, labels, features, reader.neighbour_distances(features, k), training)


def measured(degrees, real_degrees, k, first=100):
    args = argparse.Namespace(certainty=0.9, coverage_samples=first)
    return reader.measure(on_circle(degrees), Threshold(), real_images(on_circle(real_degrees), k=k), args)


def test_coverage_on_a_circle():
    real, samples = [0, 10, 20, 90, 99, 108, 250], [5, 12, 40, 41, 42, 200]
    numbers = measured(samples, real, k=1)  # balls of 10, 10, 10, 9, 9, 9 and 110 degrees
    assert numbers["coverage"] == pytest.approx(4 / 7)  # those of 0, 10, 20 and 250
    assert measured([14, 15], real, k=1)["coverage"] == pytest.approx(2 / 7)
    assert measured(samples, real, k=1, first=2)["coverage"] == pytest.approx(3 / 7)  # without that of 250


def test_measure_counts_readable_digits_alone():
    numbers = measured([0, 10, 180, 80], [0, 5, 10, 20, 30, 40, 50], k=5)  # at 80 degrees the probability is 0.85
    assert numbers["digits"] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 0] and numbers["readable"] == 0.75


def test_only_readable_digits_are_read():
    images = torch.stack([on_circle([0, 180, 80]), on_circle([100, 60, 0])])
    assert reader.read_digits(Threshold(), images, 0.9).tolist() == [[1, 0, -1], [-1, 1, 1]]
    assert reader.read_digits(Threshold(), images, 0.8).tolist() == [[1, 0, 1], [0, 1, 1]]


def test_classifier_is_judged_by_what_it_reads(monkeypatch):
    images, labels = on_circle([0, 10, 180, 80]), torch.tensor([1, 0, 0, 1])
    monkeypatch.setattr(reader, "scramble_phases", lambda images: on_circle([0, 80, 100, 85]))
    args = argparse.Namespace(certainty=0.9, coverage_samples=100)
    numbers = reader.measure_real(Threshold(), real_images(images, labels, on_circle([0, 5])), args)
    expected = {"accuracy": 0.75, "readable": 0.75, "right_where_readable": 2 / 3, "readable_scrambled": 0.25}
    expected["readable_mixes"] = 0.5  # of 0 with 180 degrees, which cancel, and 10 with 80
    assert numbers["classifier"] == pytest.approx(expected)
    assert numbers["held_out"]["sharpness"] == 1 and numbers["held_out"]["digits"] == [1, 2, *[0] * 8]
    assert numbers["training"]["digits"] == [0, 2, *[0] * 8]


def test_sharpness_is_the_laplacian_over_the_deviation():
    """Written plainly: each inner pixel with its four neighbours."""
    images = torch.randn(3, 3, 5, 6)
    expected = []
    for grey in images.double().mean(1):
        laplacian = [
            abs(grey[y - 1, x] + grey[y + 1, x] + grey[y, x - 1] + grey[y, x + 1] - 4 * grey[y, x])
            for y in range(1, 4)
            for x in range(1, 5)
        ]
        expected.append(sum(laplacian) / 12 / grey.std())
    assert reader.sharpness(images) == pytest.approx(float(sum(expected) / 3), rel=1e-5)


def test_sharpness_falls_with_blur_and_does_not_change_with_contrast(images):
    blurred = [gaussian_blur(images, [13, 13], [sigma, sigma]) for sigma in (0.5, 1, 2)]
    sharp = [reader.sharpness(x) for x in (images, *blurred)]
    assert sharp == sorted(sharp, reverse=True) and sharp[2] < 0.8 * sharp[0]
    assert reader.sharpness(0.5 * images + 0.2) == pytest.approx(sharp[0], rel=1e-4)
    assert reader.sharpness(torch.full((2, 3, 8, 8), 0.7)) == 0


def test_scrambled_phases_keep_amplitudes_mean_and_colours_and_nothing_of_the_shape():
    digits = torch.tensor(synthetic_digits(50, 0)[0]).float() / 127.5 - 1
    images = torch.stack([digits, 0.5 * digits, -digits], 1)
    scrambled = reader.scramble_phases(images)
    inner = torch.fft.rfft2(images).abs(), torch.fft.rfft2(scrambled).abs()
    torch.testing.assert_close(inner[1], inner[0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(scrambled.mean((2, 3)), images.mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scrambled[:, 1], 0.5 * scrambled[:, 0], rtol=1e-4, atol=1e-5)
    centred = [(x - x.mean((2, 3), keepdim=True)).flatten(1) for x in (images, scrambled)]
    assert torch.nn.functional.cosine_similarity(*centred).mean().abs() < 0.1


class Brightness(nn.Module):
    """A critic whose value is an image's first pixel."""

    def forward(self, x):
        return x[:, 0, 0, 0]


def filled(*values):
    """Real images whose held-out and training ones are filled with a value each, and samples filled with the third."""
    held_out, training, samples = (torch.full((3, 3, 2, 2), value) for value in values)
    return reader.RealImages(held_out, None, None, None, training), samples


def test_memorisation_is_the_critics_gap_of_held_out_images_over_that_of_samples():
    assert reader.memorisation(Brightness(), *filled(3.0, 4.0, -1.0)) == pytest.approx((4 - 3) / (4 + 1))


def test_memorisation_of_a_critic_that_tells_nothing_apart_is_not_measured():
    assert reader.memorisation(Brightness(), *filled(3.0, 4.0, 4.0)) is None


def draw_latent(z):
    return q2_gan.generate(Latent(), z)


def steps(*epsilons, dims=(3, 0, 2), size=4):
    flags = {"latent_size": size, "perturb_dims": list(dims), "certainty": 0.9, "controls": 2}
    return argparse.Namespace(epsilons=list(epsilons), **flags)


def test_perturbation_finds_the_dimension_that_matters():
    z = torch.tensor([[-0.9, 0, 0, 0], [-0.5, 1, 2, 3], [0.9, 0, 0, 0], [0.05, 0, 0, 0]])  # the last is not readable
    shares = reader.measure_perturbation(draw_latent, Threshold(), z, steps(1, 2))
    assert shares["named"] == pytest.approx([0, 2 / 3, 0])  # dimension 0 takes two of three readable starts to a 1
    assert shares["others"] == [0] and len(shares["random"]) == 2  # dimension 1 is left
    assert shares["samples"] == 4 and shares["readable"] == 3
    near = reader.measure_perturbation(draw_latent, Threshold(), z, steps(1))
    assert near["named"] == pytest.approx([0, 1 / 3, 0])  # at 1, z of -0.9 is not readable
    unreadable = reader.measure_perturbation(draw_latent, Threshold(), z[3:], steps(20))
    assert unreadable == {"samples": 1, "readable": 0, "named": [0, 0, 0], "others": [0], "random": [0, 0]}


def test_controls_are_other_dimensions_and_random_directions_of_the_same_length(monkeypatch):
    taken = []
    monkeypatch.setattr(reader, "perturb", lambda z, direction, epsilons: (taken.append(direction), z[None])[1])
    reader.measure_perturbation(draw_latent, Threshold(), torch.randn(3, 5), steps(1, dims=[0, 4], size=5))
    taken = torch.stack(taken)
    torch.testing.assert_close(taken.norm(dim=1), torch.ones(6))
    assert torch.equal(taken[:2], torch.eye(5)[[0, 4]])
    others = taken[2:4].argmax(1).tolist()
    assert torch.equal(taken[2:4], torch.eye(5)[others]) and set(others) < {1, 2, 3} and (taken[4:] != 0).all()


def snapshot(iteration, generator, critic):
    return q2_gan.Snapshot(iteration, 0, generator, critic, {})


def test_a_snapshot_is_measured_and_the_last_one_along_paths_as_well(bright):
    args, _ = bright
    args.samples, args.starts, args.pairs = 20, 3, 4
    held_out = on_circle([0, 180, 80])
    real = real_images(held_out, training=torch.ones(5, 3, 32, 32))
    generator = nn.Sequential(Latent(), nn.Hardtanh(-1, -0.5))  # its pixels are negative
    numbers = q2_gan.measure_snapshot(snapshot(7, generator, Brightness()), True, Threshold(), real, args)
    assert numbers["digits"] == [20, *[0] * 9] and numbers["readable"] == 1
    torch.manual_seed(0)
    samples = torch.randn(20, 4)[:, 0].clamp(-1, -0.5).mean().item()
    real_mean = (1 + math.cos(math.radians(80)) - 1) / 3
    assert numbers["memorisation"] == pytest.approx((1 - real_mean) / (1 - samples))
    assert numbers["perturbation"]["readable"] == 3 and numbers["interpolation"] == {
        "latent": [1] * 11,
        "pixel": [1] * 11,
    }
    before = q2_gan.measure_snapshot(snapshot(0, generator, Brightness()), False, Threshold(), real, args)
    assert before.keys() == {"readable", "digits", "coverage", "frechet", "sharpness", "memorisation"}


def test_noise_is_that_of_the_seed_and_not_that_of_the_statistics(bright, monkeypatch):
    args, data = bright
    args.samples, args.iterations, args.snapshots, seen = 640, 2, [0, 2], []
    q2_gan.train(3, data, args)
    monkeypatch.setattr(q2_gan, "update_bn", lambda noise, _: seen.append(noise.flatten(0, 1)))
    monkeypatch.setattr(q2_gan, "generate", lambda _, z: (seen.append(z), torch.zeros(len(z), 3, 32, 32))[1])
    loaded = q2_gan.load_snapshot(2, 3, args, "white")
    real = real_images(on_circle([0, 180, 80]), training=torch.ones(5, 3, 32, 32))
    q2_gan.measure_snapshot(loaded, False, Threshold(), real, args)
    statistics, measured = seen
    torch.manual_seed(3)
    assert torch.equal(measured, torch.randn(640, 4))
    assert not {tuple(z) for z in measured.tolist()} & {tuple(z) for z in statistics.tolist()}


def test_readable_share_along_paths_is_of_pairs_of_different_samples(bright):
    """Of two pairs one goes from 1 to -1: near the middle it is not readable, on the pixel path for longer."""
    args, _ = bright
    z = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    latent, pixel = q2_gan.interpolate(lambda z: (5 * Latent()(z)).tanh(), *z.chunk(2), torch.tensor(args.alphas))
    shares = reader.measure_paths({"latent": latent, "pixel": pixel}, Threshold(), args.certainty)
    assert shares["latent"] == [*[1] * 5, 0.5, *[1] * 5]
    assert shares["pixel"] == [*[1] * 4, *[0.5] * 3, *[1] * 4]


def test_held_out_and_training_images_are_random_ones_with_their_labels():
    images = torch.randint(0, 256, (2, 60, 3, 32, 32), dtype=torch.uint8)
    labels = (images[1, :, 0, 0, 0] > 127).long()  # what Threshold reads
    data = {"train_images": images[0], "test_images": images[1], "test_labels": labels}
    args = argparse.Namespace(held_out=50, samples=40, neighbours=1, device="cpu")
    real = reader.choose_real(Threshold(), data, args)
    assert torch.equal(real.labels, (real.held_out[:, 0, 0, 0] > 0).long())
    for chosen, source, num in ((real.held_out, images[1], 50), (real.training, images[0], 40)):
        rows = chosen.flatten(1).tolist()
        every = scale(source).flatten(1).tolist()
        assert len(rows) == num and all(row in every for row in rows) and rows != every[:num]
    assert len(real.features) == len(real.radii) == 50


def test_frechet_distance_of_known_normals():
    x = torch.randn(50, 2).double()
    x = torch.linalg.solve_triangular(torch.linalg.cholesky((x - x.mean(0)).T.cov()), (x - x.mean(0)).T, upper=False).T
    a, b = torch.tensor([[2.0, 1.0], [1.0, 1.0]]).double(), torch.tensor([[1.0, -0.5], [-0.5, 2.0]]).double()
    assert reader.frechet_distance(x * torch.tensor([2, 3]), x + 2) == pytest.approx(8 + (2 - 1) ** 2 + (3 - 1) ** 2)
    assert reader.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    expected = (a @ a.T + b @ b.T).trace() - 2 * scipy.linalg.sqrtm((a @ a.T @ b @ b.T).numpy()).trace()
    assert reader.frechet_distance(x @ a.T, x @ b.T) == pytest.approx(expected.item())


def test_interpolation_mixes_latent_vectors_or_pixels():
    generator = q2_gan.Generator(10, 8).eval()
    z0, z1 = torch.randn(2, 3, 10)
    latent, pixel = q2_gan.interpolate(generator, z0, z1, torch.tensor([0.0, 0.3, 1.0]))
    for i, alpha in enumerate([0.0, 0.3, 1.0]):
        torch.testing.assert_close(latent[i], generator(alpha * z0 + (1 - alpha) * z1))
        torch.testing.assert_close(pixel[i], alpha * generator(z0) + (1 - alpha) * generator(z1))


# --- The script -------------------------------------------------------------------------------------------------------


def test_images_are_padded_to_32_and_three_channels(arguments):
    data = utils.load_rgb(q2_gan.get_args(arguments))
    images = data["train_images"]
    assert data["source"] == "tiny digits" and images.shape == (200, 3, 32, 32) and images.dtype == torch.uint8
    digits = synthetic_digits(200, 0)[0]
    assert np.array_equal(images[:, 0, 2:-2, 2:-2], digits) and np.array_equal(images[:, 2, 2:-2, 2:-2], digits)
    assert not images[:, :, :2].any() and not images[:, :, :, -2:].any()
    scaled = q2_gan.scale(images)
    assert (scaled.min(), scaled.max()) == (-1, 1)


def test_snapshots_are_kept_at_exactly_the_asked_iterations(finished):
    names = ["snapshot_0_seed0.pt", "snapshot_2_seed0.pt", "snapshot_6_seed0.pt"]
    assert sorted(path.name for path in finished.glob("snapshot_*")) == names
    states = [torch.load(finished / f"snapshot_{i}_seed0.pt", weights_only=True)["states"] for i in (0, 2, 6)]
    torch.manual_seed(0)
    generator, critic = q2_gan.Generator(8, 4), q2_gan.Critic(4)
    torch.testing.assert_close(states[0], {"generator": generator.state_dict(), "critic": critic.state_dict()})
    assert [int(state["generator"]["layers.1.num_batches_tracked"]) for state in states] == [0, 2 * 3, 6 * 3]
    last = torch.load(finished / "checkpoint_seed0.pt", weights_only=True)["states"]
    torch.testing.assert_close(states[2], {name: last[name] for name in ("generator", "critic")})


def test_classifier_trained_in_another_way_is_trained_anew(copied, finished, drawn, capsys):
    run = copied("q2_gan")
    checkpoint = torch.load(run.out / "classifier_seed0.pt", weights_only=True)
    checkpoint["config"]["augmentation"] = "none"
    for weight in checkpoint["states"]["classifier"].values():
        weight.zero_()
    torch.save(checkpoint, run.out / "classifier_seed0.pt")
    q2_gan.main(run.flags)
    assert re.search(r"classifier_seed0\.pt is trained anew: .*made with --augmentation none", capsys.readouterr().out)
    assert read_metrics(run.out)["results"] == read_metrics(finished)["results"]


@pytest.fixture
def strips(tmp_path, monkeypatch):
    """What `draw_images` draws of two equal stubs, by the figure's name: rows, labels and digits; the digits that it
    returns; its data; and the first latent coordinates whose image is readable, with a probability above 0.9."""
    strips = {}

    def draw_strips(rows, labels, _, path, gaps, *digits):
        strips[path.stem] = rows, labels, gaps, *digits

    monkeypatch.setattr(utils, "draw_strips", draw_strips)
    monkeypatch.setattr(reader, "load_classifier", lambda *_: Threshold())
    args = q2_gan.get_args(f"--out {tmp_path} --iterations 9 --latent-size 4 --perturb-dims 0 2 --device cpu".split())
    images = torch.randint(0, 256, (2, 30, 3, 32, 32), dtype=torch.uint8)
    data = {"train_images": images[0], "test_images": images[1]}
    digits = q2_gan.draw_images([snapshot(i, Latent(), None) for i in (0, 5, 7, 9)], data, args)
    torch.manual_seed(0)
    z = torch.randn(1000, 4)[:, 0]
    return strips, digits, data, z[z.abs() > math.log(9) / 10].clamp(-1, 1).tolist()


def test_perturbations_start_at_one_readable_image_for_all_dimensions_and_at_one_for_each(strips):
    strips, digits, _, readable = strips
    rows, labels, gaps, shown = strips["perturbation"]
    assert gaps == [2] and list(rows) == [
        "dimension 0, same z",
        "dimension 2, same z",
        "dimension 0, own z",
        "dimension 2, own z",
    ]
    starts = [row[0, 0, 0, 0].item() for row in rows.values()]
    assert starts == pytest.approx([readable[0], readable[0], readable[1], readable[2]])
    ends = [row[20, 0, 0, 0].item() for row in rows.values()]
    assert ends == pytest.approx([1, readable[0], 1, readable[2]]) and labels == ["ε = 0", *range(1, 21)]
    assert digits == shown and [row[0] for row in digits] == [int(start > 0) for start in starts]
    assert digits[0][20] == 1


def test_interpolations_go_from_the_first_of_a_pair_to_the_second(strips):
    strips, _, _, readable = strips
    rows, labels, gaps = strips["interpolation"]
    for name in ("(a) latent", "(b) pixel"):
        paths = [rows[f"pair {pair}, {name}"][:, 0, 0, 0] for pair in (1, 2, 3, 4)]
        assert [path[0].item() for path in paths] == pytest.approx(readable[0:8:2])
        assert [path[10].item() for path in paths] == pytest.approx(readable[1:8:2])
    assert labels == ["α = 1: z0", 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, "α = 0: z1"] and gaps == [2, 4, 6]


def test_samples_stand_above_held_out_and_nearest_training_images(strips):
    """Of the snapshots nearest to 0, 14, 40 and 100% of the iterations."""
    strips, _, data, _ = strips
    rows, _, gaps = strips["samples"]
    assert list(rows) == [*(f"iteration {i}" for i in (0, 5, 9)), "held out", "nearest training image"]
    assert gaps == [3, 4]
    features = [reader.classify(Threshold(), x)[0] for x in (rows["iteration 9"], q2_gan.scale(data["train_images"]))]
    nearest = torch.cdist(*features).argmin(1)
    assert torch.equal(rows["nearest training image"], q2_gan.scale(data["train_images"][nearest]))
    held_out = q2_gan.scale(data["test_images"]).flatten(1).tolist()
    assert all(image in held_out for image in rows["held out"].flatten(1).tolist())


def test_strips_show_images_labels_and_digits_in_their_places(drawn, tmp_path):
    rows = {"dark": torch.full((3, 3, 32, 32), -1.0), "half": torch.zeros(3, 3, 32, 32)}
    rows["half"][1] = 1
    utils.draw_strips(rows, ["a", "b", "c"], "title", tmp_path / "x.png", [1], [[1, 2, -1], [4, 5, 6]])
    (axes,) = drawn["x"].axes
    corners = [(top, left) for top in (0, 54 + 12) for left in (0, 36, 72)]  # with a gap above the second row
    pixels = axes.images[0].get_array()
    assert [pixels[top, left, 0].item() for top, left in corners] == [0, 0, 0, 0.5, 1, 0.5]
    assert [pixels[top + 31, left + 31, 0].item() for top, left in corners] == [0, 0, 0, 0.5, 1, 0.5]
    assert pixels[32:66].min() == 1
    assert [text.get_text() for text in axes.texts] == ["1", "2", "?", "4", "5", "6"]
    assert [text.get_position() for text in axes.texts] == [(left + 16, top + 42) for top, left in corners]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dark", "half"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]


@pytest.fixture
def curves(finished, drawn, tmp_path):
    """The figures that metrics.json alone gives, by name, and the metrics, with a second seed."""
    metrics = read_metrics(finished)
    seed = metrics["results"]["seeds"]["0"]
    paths = {"latent": [0.5, *[0.4] * 9, 0.3], "pixel": [0.4, *[0.2] * 9, 0.4]}
    seed["snapshots"]["6"]["interpolation"] = paths
    metrics["results"]["seeds"]["1"] = copy.deepcopy(seed)
    metrics["results"]["seeds"]["1"]["snapshots"]["2"]["readable"] = 0.3
    metrics["history"]["1"] = {"iteration": [2, 4], "distance": [0.1, 0.2], "penalty": [0.3, 0.4]}
    draw_figures(gan, metrics, tmp_path)
    return drawn, metrics


def test_curves_show_the_snapshots_of_each_seed_beside_real_images(curves):
    drawn, metrics = curves
    seeds = metrics["results"]["seeds"].values()
    for axes, key in zip(drawn["quality"].axes, ("readable", "coverage", "sharpness", "frechet"), strict=True):
        *lines, real = axes.lines
        for line, seed in zip(lines, seeds, strict=True):
            assert list(line.get_xdata()) == [0, 2, 6]
            assert list(line.get_ydata()) == [s[key] for s in seed["snapshots"].values()]
        part = "held_out" if key in ("readable", "sharpness") else "training"
        assert real.get_ydata()[0] == pytest.approx(metrics["results"]["seeds"]["0"][part][key])


def test_curves_show_training_and_paths_of_each_seed(curves):
    drawn, metrics = curves
    for axes, key in zip(drawn["training"].axes, ("distance", "penalty"), strict=True):
        for line, history in zip(axes.lines, metrics["history"].values(), strict=True):
            assert list(line.get_ydata()) == history[key] and list(line.get_xdata()) == history["iteration"]
        assert [line.get_label() for line in axes.lines] == ["seed 0", "seed 1"]
    (axes,) = drawn["interpolation_curves"].axes
    latent, _, pixel, _ = axes.lines
    assert latent.get_ydata() == pytest.approx([1.25, *[1] * 9, 0.75])
    assert pixel.get_ydata() == pytest.approx([1, *[0.5] * 9, 1])


@pytest.mark.parametrize(
    ("flags", "snapshots"),
    [("--iterations 1000", [0, 140, 400, 1000]), ("--snapshots 7000 0", [0, 7000, 50_000])],
)
def test_snapshots_keep_their_places_and_the_last_iteration_is_one(flags, snapshots):
    assert q2_gan.get_args(["--device", "cpu", *flags.split()]).snapshots == snapshots


def test_run_writes_metrics_figures_and_report(finished):
    metrics = read_metrics(finished)
    seed = metrics["results"]["seeds"]["0"]
    assert (
        list(seed["snapshots"]) == ["0", "2", "6"] and {"perturbation", "interpolation"} < seed["snapshots"]["6"].keys()
    )
    assert np.shape(metrics["results"]["digits"]) == (4, 21)
    assert len(metrics["history"]["0"]["distance"]) == len(metrics["history"]["0"]["penalty"]) == 3
    names = ["samples", "quality", "training", "perturbation", "interpolation", "interpolation_curves"]
    assert {path.name for path in finished.glob("*.png")} == {f"{name}.png" for name in names}
    report = " ".join((finished / "report.md").read_text(encoding="utf-8").split())
    assert f"| iteration 6 | 1 | {mean_error([seed['snapshots']['6']['readable']])}" in report


def test_page_gives_the_paths_ends_and_middle_and_what_perturbations_reach(finished):
    metrics = read_metrics(finished)
    last = metrics["results"]["seeds"]["0"]["snapshots"]["6"]
    last["interpolation"]["latent"] = [0.25, *[0.0] * 4, 0.5, *[0.0] * 4, 0.75]
    last["perturbation"] = {"samples": 40, "readable": 8, "named": [0.5, 1.0], "others": [0.25], "random": []}
    context, summary = gan.context(metrics), dict(gan.summary(metrics))
    assert "| latent | 0.250 | 0.500 | 0.750 |" in " ".join(context["paths"].split())
    assert [context[f"reached_{key}"] for key in ("named", "others", "random")] == ["0.750", "0.250", "not measured"]
    assert context["starts"] == "8 of 40"
    assert summary["share of readable images half-way divided by that at the ends, latent paths"] == "1.00"


@pytest.fixture
def measured_in(copied, drawn, monkeypatch):
    """measured_in(flags) runs the tiny run in a copy of its folder and returns the seeds and iterations measured."""
    run, measured, measure = copied("q2_gan"), [], q2_gan.measure_snapshot

    def count(snapshot, *rest):
        measured.append((snapshot.seed, snapshot.iteration))
        return measure(snapshot, *rest)

    monkeypatch.setattr(q2_gan, "measure_snapshot", count)

    def call(*flags):
        measured.clear()
        q2_gan.main([*run.flags, *flags])
        return list(measured)

    call.out = run.out
    return call


def test_what_was_measured_is_not_measured_again(measured_in):
    assert measured_in() == []
    assert measured_in("--iterations", "8") == [(0, 6), (0, 8)]  # 6 is the last no longer


def test_another_setting_another_classifier_or_another_source_is_measured_anew(measured_in, monkeypatch):
    every = [(0, 0), (0, 2), (0, 6)]
    assert measured_in("--perturb-dims", "1") == every and measured_in("--perturb-dims", "1") == []
    assert measured_in("--perturb-dims", "1", "--classifier-steps", "6") == every
    monkeypatch.setattr(reader, "SOURCES", [b"changed"])
    assert measured_in("--perturb-dims", "1", "--classifier-steps", "6") == every


SETTINGS = "samples perturb_dims certainty held_out neighbours coverage_samples starts controls pairs epsilons alphas"


@pytest.mark.parametrize("name", [*SETTINGS.split(), "code"])
def test_what_was_measured_with_another_setting_does_not_count(name):
    args = q2_gan.get_args(["--device", "cpu"])
    other = argparse.Namespace(**vars(args) | {name: "other"})
    one, another = (reader.fingerprint([], reader.settings({"source": "digits"}, True, a)) for a in (args, other))
    assert one != another


def test_a_source_that_was_changed_after_its_import_is_not_what_measures(measured_in, monkeypatch):
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read_bytes(path) + b"#" * (path.name == "reader.py"))
    assert measured_in() == []


def test_another_snapshot_is_measured_anew(measured_in):
    path = measured_in.out / "snapshot_2_seed0.pt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["states"]["critic"]["layers.0.weight"] += 0.1
    torch.save(checkpoint, path)
    assert measured_in() == [(0, 2)]


@pytest.mark.parametrize("content", ["[]", '{"0": {}}', '{"0": 1}', "{", ""])
def test_what_is_kept_in_another_form_is_measured_anew(content, measured_in):
    (measured_in.out / "measured_seed0.json").write_text(content)
    assert measured_in() == [(0, 0), (0, 2), (0, 6)]


def test_figures_of_images_are_of_the_training_that_is_furthest(copied, drawn, monkeypatch):
    run = copied("q2_gan")
    q2_gan.main([*run.flags, "--seed", "1", "--iterations", "8", "--snapshots", "0"])
    monkeypatch.setattr(q2_gan, "draw_images", lambda snapshots, *_: [[snapshots[0].seed]] * 4)
    q2_gan.main([*run.flags, "--iterations", "8"])
    assert read_metrics(run.out)["results"]["digits"] == [[0]] * 4
    (run.out / "snapshot_8_seed0.pt").unlink()
    q2_gan.main([*run.flags, "--seed", "1", "--iterations", "8"])
    assert read_metrics(run.out)["results"]["digits"] == [[1]] * 4


def test_restart_leaves_what_is_not_the_scripts(copied, monkeypatch):
    run = copied("q2_gan")
    for name in ("notes_seed0.txt", "sweep_seed0.csv", "checkpoint_seed1.pt"):
        (run.out / name).touch()
    monkeypatch.setattr(q2_gan, "train", lambda *_: sys.exit())
    with pytest.raises(SystemExit):
        q2_gan.main([*run.flags, "--restart"])
    left = {path.name for path in run.out.glob("*seed*") if not path.name.startswith("model_")}
    assert left == {"notes_seed0.txt", "sweep_seed0.csv", "checkpoint_seed1.pt"}


def test_distance_and_penalty_are_means_since_the_last_record(bright, monkeypatch):
    args, data = bright
    args.iterations = 7
    monkeypatch.setattr(q2_gan, "RECORD_EVERY", 3)
    values = iter([0, 0, 0, 0, 5, 1, 0, 0, 0, 0, 0, 0, 0, 9])  # the last of each iteration's two counts
    monkeypatch.setattr(q2_gan, "lp_reg", lambda x, y, critic: 0 * critic(x).mean() + next(values))
    others = iter([0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 9, 3, 0, -4])
    monkeypatch.setattr(q2_gan, "vf_wasserstein_distance", lambda x, y, critic: 0 * critic(x).mean() + next(others))
    q2_gan.train(0, data, args)
    history = torch.load(args.out / "checkpoint_seed0.pt", weights_only=True)["history"]
    assert history["iteration"] == [3, 6, 7] and history["penalty"] == pytest.approx([1 / 3, 0, 9])
    assert history["distance"] == pytest.approx([2, 1, -4])


def test_models_say_what_they_lack(copied, drawn, tmp_path, capsys):
    run, out = copied("q2_gan"), tmp_path / "measured"
    (run.out / "model_snapshot_2_seed0.pt").unlink()
    flags = model_flags(run, out)
    q2_gan.main(flags)
    assert f"seed 0: not in {run.out}: critic, snapshot_2\n" in capsys.readouterr().out
    assert list(read_metrics(out)["results"]["seeds"]["0"]["snapshots"]) == ["0", "6"]
    (run.out / "model_classifier_seed0.pt").unlink()
    with pytest.raises(utils.InputError, match=r"model_classifier_seed0\.pt is missing"):
        q2_gan.main(flags)


def test_snapshots_alone_are_a_finished_training(copied, finished, drawn, capsys):
    run = copied("q2_gan")
    (run.out / "checkpoint_seed0.pt").unlink()
    q2_gan.main(run.flags)
    assert "snapshot_6_seed0.pt: finished, 6 iterations" in capsys.readouterr().out
    assert read_metrics(run.out)["results"] == read_metrics(finished)["results"]
    assert not (run.out / "checkpoint_seed0.pt").exists()


def test_earlier_snapshots_of_a_training_that_went_on_can_be_evaluated(copied, drawn):
    run = copied("q2_gan")
    q2_gan.main([*run.flags, "--iterations", "2", "--snapshots", "0"])
    metrics = read_metrics(run.out)
    assert list(metrics["results"]["seeds"]["0"]["snapshots"]) == ["0", "2"]
    assert len(metrics["history"]["0"]["distance"]) == 1


def test_training_goes_on_with_the_snapshots_that_are_there(copied, drawn, capsys):
    """Its new places at 14 and 40% of 10, 1 and 4, are past."""
    run = copied("q2_gan")
    flags = [*run.flags[: run.flags.index("--snapshots")], *run.flags[run.flags.index("--snapshots") + 4 :]]
    q2_gan.main([*flags, "--iterations", "10"])
    text = capsys.readouterr().out
    assert "checkpoint_seed0.pt: going on after iteration 6 of 10" in text
    assert "seed 0: iterations without a snapshot, which are past: 1, 4" in text
    metrics = read_metrics(run.out)
    assert list(metrics["results"]["seeds"]["0"]["snapshots"]) == ["0", "2", "6", "10"]
    assert metrics["history"]["0"]["iteration"] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("flags", ["--iterations 8", "--iterations 4 --snapshots 0"])
def test_snapshots_without_a_checkpoint_are_not_overwritten(flags, copied):
    run = copied("q2_gan")
    (run.out / "checkpoint_seed0.pt").unlink()
    before = digest(run.out)
    with pytest.raises(utils.InputError, match=r"snapshot_0_seed0\.pt would be overwritten.*--restart.*another --out"):
        q2_gan.main([*run.flags, *flags.split()])
    assert digest(run.out) == before


@pytest.mark.parametrize("name", ["checkpoint.pt", "snapshot_7000.pt", "classifier.pt"])
def test_files_of_an_earlier_version_are_named(name, arguments, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"of an earlier version")
    flags = [*arguments, "--out", str(tmp_path)]
    with pytest.raises(utils.InputError, match=rf"{name} is of an earlier version.*--restart.*another --out"):
        q2_gan.main(flags)
    assert digest(tmp_path) == {name: b"of an earlier version"}
    monkeypatch.setattr(q2_gan, "train", lambda *_: sys.exit())
    with pytest.raises(SystemExit):
        q2_gan.main([*flags, "--restart"])
    assert digest(tmp_path) == {}


def test_seeds_are_joined_with_the_snapshots_that_they_have(copied, drawn, capsys):
    """Seed 1 is at iteration 4 of 6, seed 2 has another recipe, and a copy has no seed."""
    run = copied("q2_gan")
    one = [*run.flags, "--seed", "1"]
    q2_gan.main([*one, "--iterations", "4", "--snapshots", "0", "2"])
    q2_gan.main([*run.flags, "--seed", "2", "--iterations", "2", "--snapshots", "0", "--lr", "0.1"])
    shutil.copy(run.out / "snapshot_6_seed0.pt", run.out / "snapshot_6_seed0 (copy).pt")
    capsys.readouterr()
    q2_gan.main(run.flags)
    text = capsys.readouterr().out
    left_out = re.findall("left out: .*", text)  # once for both snapshots
    assert len(left_out) == 1 and re.search(r"snapshot_0_seed2\.pt was made with --lr 0\.1, not 0\.001", left_out[0])
    seeds = read_metrics(run.out)["results"]["seeds"]
    assert {seed: list(numbers["snapshots"]) for seed, numbers in seeds.items()} == {
        "0": ["0", "2", "6"],
        "1": ["0", "2", "4"],
    }
    assert "perturbation" in seeds["1"]["snapshots"]["4"]


def test_loss_that_is_not_finite_stops_and_saves_nothing(bright, monkeypatch):
    args, data = bright
    args.snapshots = [0, 2, 60]
    monkeypatch.setattr(q2_gan, "lp_reg", lambda x, y, critic: critic(x).mean() * math.nan)
    with pytest.raises(utils.InputError, match=r"a weight for snapshot_2_seed0\.pt is not finite"):
        q2_gan.train(0, data, args)
    assert {path.name for path in args.out.iterdir()} == {"checkpoint_seed0.pt", "snapshot_0_seed0.pt"}
    history = torch.load(args.out / "checkpoint_seed0.pt", weights_only=True)["history"]
    assert history["seconds"] == history["distance"] == history["penalty"] == []
