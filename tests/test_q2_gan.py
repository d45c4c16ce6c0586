"""Problem 2: the losses against closed forms, the measures against hand computations, and the script end to end."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import q2_gan
import utils
from data.synthetic import synthetic_data, synthetic_digits
from results import gan as words
from results.pages import make_table
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
    assert [type(m) for m in critic.layers] == [nn.Conv2d, q2_gan.LeakyReLU] * 3 + [nn.Conv2d]
    assert {m.negative_slope for m in critic.layers[1::2]} == {0.2}
    assert sum(p.numel() for p in critic.parameters()) == sum(oracles.critic_parameters(64).values())
    assert critic(torch.randn(2, 3, 32, 32)).shape == (2,) and critic(torch.randn(1, 3, 32, 32)).shape == (1,)


def test_critic_and_penalty_have_the_gradients_of_torchs_leaky_relu():
    critic, plain = q2_gan.Critic(4).double(), q2_gan.Critic(4).double()
    x, y = torch.randn(2, 3, 3, 32, 32, dtype=torch.float64)
    plain.load_state_dict(critic.state_dict())
    plain.layers[1] = plain.layers[3] = plain.layers[5] = nn.LeakyReLU(0.2)
    for network in (critic, plain):
        torch.manual_seed(0)
        penalty = q2_gan.lp_reg(x, y, lambda x_hat, network=network: 1000 * network(x_hat))
        assert penalty > 1
        (penalty + q2_gan.vf_wasserstein_distance(x, y, network)).backward()
    for ours, torchs in zip(critic.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, torchs.grad, rtol=1e-12, atol=1e-12)


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
    """A stub of the classifier: digit 1 for an image whose first pixel is positive, 0 otherwise, surely."""

    def features(self, x):
        return torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 1]], 1)

    def output(self, features):
        return torch.stack(
            [torch.zeros(len(features)), 100 * features[:, 0], *(torch.full((8, len(features)), -100.0))], 1
        )


class Latent(nn.Module):
    """A stub of the generator: every pixel is the first latent coordinate, from -1 to 1."""

    def forward(self, z):
        return z[:, 0].clamp(-1, 1)[:, None, None, None].expand(-1, 3, 32, 32)


def test_measure_of_known_images():
    images = torch.ones(4, 3, 32, 32)
    images[3] = -1
    numbers = q2_gan.measure(images, Threshold(), (torch.zeros(2).double(), torch.zeros(2, 2).double()))
    assert numbers["histogram"] == [1, 3, 0, 0, 0, 0, 0, 0, 0, 0]
    assert numbers["entropy"] == pytest.approx(2 - 0.75 * math.log2(3)) and numbers["sharpness"] == 0
    assert numbers["confidence"] == pytest.approx(1)
    assert numbers["frechet"] == pytest.approx(2 * 0.5**2 + 2 * 1)  # mean (0.5, 0.5), variances 1


def test_evaluation_finds_the_dimension_that_matters(bright):
    args, data = bright
    args.samples, args.perturb_max, args.snapshots = 100, 4, [0]
    data["test_images"] = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
    results = q2_gan.evaluate({0: Latent()}, Threshold(), data, args)
    changed, moved = results["perturbation"]["changed"], results["perturbation"]["moved"]
    assert changed[1:] == moved[1:] == [0, 0, 0]
    assert 0.3 < changed[0] < 0.6  # the half below zero crosses it, most at the smallest epsilon of 1
    assert 0.6 < moved[0] < 1.4  # at epsilon 4, E[1 - clamp(z)] is 1
    middle = results["interpolation"]
    assert sum(middle["latent"]["histogram"]) == sum(middle["pixel"]["histogram"]) == 3000
    assert results["real"]["histogram"] == [0, 40, *[0] * 8]


def claims(frechet, sharp, entropy, latent, pixel, changed=0.5, accuracy=0.96):
    """Metrics with the given numbers, as closing_table takes them."""
    keys = ("frechet", "sharpness", "entropy")
    snapshots = [dict(zip(keys, values, strict=True)) for values in zip(frechet, sharp, entropy, strict=True)]
    results = {"snapshots": list(range(len(snapshots))), "classifier_accuracy": accuracy, "real": {"sharpness": 0.2}}
    results["per_snapshot"] = {str(i): numbers for i, numbers in enumerate(snapshots)}
    halves = {"latent": latent, "pixel": pixel}
    results["interpolation"] = {k: dict(zip(("confidence", "frechet"), v, strict=True)) for k, v in halves.items()}
    return {"config": {"perturb_dims": [3]}, "results": results | {"perturbation": {"changed": [0, 0, 0, changed]}}}


def verdicts(metrics):
    return [row[-1] for row in words.closing_table(metrics)[1:]]


def test_closing_table_says_what_the_numbers_do():
    good = verdicts(claims((9, 5, 1), (0.9, 0.1, 0.19), (0, 2, 3.1), (0.9, 5), (0.8, 6)))
    assert good == [True] * 8
    bad = verdicts(claims((9, 5, 6), (0, 0.19, 0.5), (0, 2.9, 2.8), (0.8, 6), (0.9, 5), 0.05, 0.9))
    assert bad == [False] * 8
    assert verdicts(claims((9,), (0.1,), (3.2,), (0.9, 5), (0.8, 6)))[1:4] == ["-", "-", "-"]


def test_frechet_distance_of_known_normals():
    zero, one = torch.zeros(2).double(), torch.eye(2).double()
    p = (zero, torch.diag(torch.tensor([4.0, 9.0]).double()))
    assert q2_gan.frechet_distance(p, (zero + 2, one)) == pytest.approx(8 + (2 - 1) ** 2 + (3 - 1) ** 2)
    assert q2_gan.frechet_distance(p, p) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute():
    a, b = torch.tensor([[2.0, 1.0], [1.0, 1.0]]).double(), torch.tensor([[1.0, -0.5], [-0.5, 2.0]]).double()
    root = torch.linalg.eigvals(a @ b).sqrt().sum().real
    expected = a.trace() + b.trace() - 2 * root
    zero = torch.zeros(2).double()
    assert q2_gan.frechet_distance((zero, a), (zero, b)) == pytest.approx(expected.item())


def test_moments_equal_numpy():
    features = torch.randn(20, 4)
    mean, covariance = q2_gan.moments(features)
    np.testing.assert_allclose(mean, features.double().numpy().mean(0))
    np.testing.assert_allclose(covariance, np.cov(features.double().numpy(), rowvar=False))


def test_entropy_in_bits():
    assert q2_gan.entropy_bits(torch.tensor([5.0, 0.0])) == 0
    assert q2_gan.entropy_bits(torch.ones(8)) == pytest.approx(3)
    assert q2_gan.entropy_bits(torch.full((10,), 7.0)) == pytest.approx(math.log2(10))


def test_sharpness_is_the_slope_of_a_ramp():
    x = torch.arange(8.0)
    ramp = (0.03 * x + 0.04 * x[:, None]).expand(2, 3, 8, 8)
    assert q2_gan.sharpness(ramp) == pytest.approx(0.05, rel=1e-4)


def test_perturbation_touches_one_coordinate():
    z = torch.randn(4, 100)
    difference = q2_gan.perturb(z, 30, torch.arange(21)) - z
    assert difference.shape == (21, 4, 100)
    torch.testing.assert_close(difference[:, :, 30], torch.arange(21.0)[:, None].expand(21, 4))
    difference[:, :, 30] = 0
    assert not difference.any()


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
TINY += "--perturb-dims 3 5 --perturb-max 4 --classifier-steps 5 --samples 40 --snapshots 0 2 6".split()


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
    weights = [torch.load(finished / f"snapshot_{i}.pt", weights_only=True)["states"]["generator"] for i in (0, 2, 6)]
    torch.manual_seed(0)
    torch.testing.assert_close(weights[0], q2_gan.Generator(8, 4).state_dict())
    assert [int(state["layers.1.num_batches_tracked"]) for state in weights] == [0, 2 * 3, 6 * 3]


def test_default_snapshots_keep_their_places(tmp_path):
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert q2_gan.get_args(out).snapshots == [0, 7000, 20_000, 50_000]
    assert q2_gan.get_args([*out, "--iterations", "1000"]).snapshots == [0, 140, 400, 1000]


def test_run_writes_metrics_figures_and_report(finished):
    metrics = read_metrics(finished)
    results = metrics["results"]
    assert results["snapshots"] == [0, 2, 6] and set(results["per_snapshot"]) == {"0", "2", "6"}
    for numbers in [*results["per_snapshot"].values(), results["real"]]:
        assert sum(numbers["histogram"]) == 40 and numbers["frechet"] >= 0 and 0.1 <= numbers["confidence"] <= 1
    assert len(results["perturbation"]["changed"]) == len(results["perturbation"]["moved"]) == 8
    assert len(metrics["history"]["training"]["distance"]) == len(metrics["history"]["training"]["penalty"]) == 3
    names = ["samples", "perturbation", "interpolation", "training"]
    assert {path.name for path in finished.glob("*.png")} == {f"{name}.png" for name in names}
    assert make_table(words.closing_table(metrics)) in (finished / "report.md").read_text()


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
    assert {path.name for path in tmp_path.iterdir()} == {"classifier.pt", "snapshot_0.pt"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_script_runs_on_cuda(arguments, tmp_path):
    q2_gan.main([*arguments, "--device", "cuda", "--out", str(tmp_path)])
    assert read_metrics(tmp_path)["device"].startswith("cuda")


STOPPED = """
import os, signal, sys, torch, q2_gan, utils
torch.set_num_threads(int(sys.argv[1]))
q2_gan.RECORD_EVERY = 2  # and 5 of the steps below are the classifier's
save, step, steps = utils.save_checkpoint, torch.optim.Adam.step, []
def stop(signal_at): os.kill(os.getpid(), signal_at)
def killed_at_the_first_checkpoint():
    utils.save_checkpoint = lambda path, *a: stop(signal.SIGKILL) if path.name == "checkpoint.pt" else save(path, *a)
def stopped_in_the_fourth_iteration(by):
    q2_gan.SAVE_EVERY = 0 if by == signal.SIGKILL else 60
    torch.optim.Adam.step = lambda *a: (step(*a), steps.append(1), len(steps) == 16 and stop(by))
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
