"""Problem 1: each formula against an oracle, and the script from training to report on a tiny data set."""

import math
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import q1_vae
import utils
from data.synthetic import synthetic_data
from results import vae as words
from tests import oracles
from tests.helpers import read_metrics
from tests.oracles import per_example

ROOT = Path(__file__).parent.parent
SHAPES = [(5, 7), (1, 784), (6, 1), (3, 2, 4, 5), (4,)]


def normals(shape, low=-2.0, high=2.0, dtype=torch.float64):
    """Two random diagonal normals: mu_q, logvar_q, mu_p, logvar_p."""
    torch.manual_seed(0)
    return [torch.empty(shape, dtype=dtype).uniform_(low, high) for _ in range(4)]


# --- log-likelihoods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_bernoulli_equals_torch_distributions(shape):
    torch.manual_seed(0)
    mu = torch.rand(shape, dtype=torch.float64)
    target = (torch.rand(shape) < 0.5).double()
    expected = per_example(oracles.log_bernoulli(mu, target))
    torch.testing.assert_close(q1_vae.log_likelihood_bernoulli(mu, target), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_is_finite_with_finite_gradient_at_means_0_and_1(dtype):
    mu = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=dtype)
    value = q1_vae.log_likelihood_bernoulli(mu, target)
    value.sum().backward()
    torch.testing.assert_close(value, oracles.log_bernoulli(mu, target).sum(1))
    assert value[0].abs() < 1e-6 and value[1] < -30
    assert torch.isfinite(mu.grad).all()


def test_bernoulli_takes_uint8_targets_and_non_contiguous_inputs():
    mu = torch.rand(7, 3, 4, dtype=torch.float64).permute(1, 2, 0)
    target = (torch.rand(3, 4, 7) < 0.5).byte()
    expected = per_example(oracles.log_bernoulli(mu, target.double()))
    torch.testing.assert_close(q1_vae.log_likelihood_bernoulli(mu, target), expected)


def test_all_functions_take_non_contiguous_inputs():
    four = [x.permute(1, 2, 0) for x in normals((7, 3, 4))]
    dense = [x.contiguous() for x in four]
    for function, count in (
        (q1_vae.log_likelihood_normal, 3),
        (q1_vae.kl_gaussian_gaussian_analytic, 4),
    ):
        assert not four[0].is_contiguous()
        torch.testing.assert_close(function(*four[:count]), function(*dense[:count]))
    y = four[0][0].T
    torch.testing.assert_close(q1_vae.log_mean_exp(y), q1_vae.log_mean_exp(y.contiguous()))
    estimate = q1_vae.kl_gaussian_gaussian_mc(*four, num_samples=50_000)
    torch.testing.assert_close(estimate, q1_vae.kl_gaussian_gaussian_analytic(*dense), rtol=0.02, atol=0)


@pytest.mark.parametrize("logvar", [-20.0, 20.0])
def test_log_variances_of_exactly_20(logvar):
    mu, other, z, _ = normals((3, 4))
    logvar = torch.full_like(mu, logvar)
    expected = oracles.log_normal(mu, logvar, z).sum(1)
    torch.testing.assert_close(q1_vae.log_likelihood_normal(mu, logvar, z), expected, rtol=1e-12, atol=0)
    for q, p in (((mu, logvar), (z, other)), ((z, other), (mu, logvar))):
        expected = oracles.kl(*q, *p).sum(1)
        torch.testing.assert_close(q1_vae.kl_gaussian_gaussian_analytic(*q, *p), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bound", [2.0, 20.0])
def test_normal_equals_torch_distributions(shape, bound):
    mu, logvar, z, _ = normals(shape, -bound, bound)
    expected = per_example(oracles.log_normal(mu, logvar, z))
    torch.testing.assert_close(q1_vae.log_likelihood_normal(mu, logvar, z), expected, rtol=1e-10, atol=1e-10)


def test_normal_takes_log_variance_not_standard_deviation():
    logvar = torch.tensor([[math.log(4.0)]])  # standard deviation 2
    expected = -0.5 * math.log(2 * math.pi) - math.log(2.0) - 0.5
    value = q1_vae.log_likelihood_normal(torch.zeros(1, 1), logvar, torch.full((1, 1), 2.0))
    assert value.item() == pytest.approx(expected, abs=1e-6)


# --- log_mean_exp -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("shape", [(4, 9), (1, 5), (3, 1)])
def test_log_mean_exp_equals_logsumexp_minus_log_k(shape, shift):
    torch.manual_seed(0)
    y = (10 * torch.randn(shape, dtype=torch.float64) + shift).requires_grad_()
    value = q1_vae.log_mean_exp(y)
    torch.testing.assert_close(value, oracles.log_mean_exp(y), rtol=1e-14, atol=1e-10)
    value.sum().backward()
    torch.testing.assert_close(y.grad, y.detach().softmax(1))


def test_log_mean_exp_of_impossible_samples():
    y = torch.tensor([[-math.inf, 0.0], [-math.inf, -math.inf]])
    assert q1_vae.log_mean_exp(y).tolist() == [pytest.approx(-math.log(2)), -math.inf]


# --- KL ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bound", [2.0, 20.0])
def test_analytic_kl_equals_torch_distributions(shape, bound):
    parameters = normals(shape, -bound, bound)
    expected = per_example(oracles.kl(*parameters))
    value = q1_vae.kl_gaussian_gaussian_analytic(*parameters)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


def test_analytic_kl_is_from_q_to_p():
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    forward = q1_vae.kl_gaussian_gaussian_analytic(zero, one, zero, zero)  # q has variance e, p has variance 1
    backward = q1_vae.kl_gaussian_gaussian_analytic(zero, zero, zero, one)
    assert forward.item() == pytest.approx((math.e - 2) / 2, abs=1e-6)
    assert backward.item() == pytest.approx(1 / (2 * math.e), abs=1e-6)


def test_kl_of_equal_distributions_is_zero():
    mu, logvar, _, _ = normals((3, 5))
    assert q1_vae.kl_gaussian_gaussian_analytic(mu, logvar, mu, logvar).abs().max() < 1e-12
    assert q1_vae.kl_gaussian_gaussian_mc(mu, logvar, mu, logvar, 10).abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (3, 2, 1, 2), (2,)])
@pytest.mark.parametrize(("num_samples", "calls"), [(40_000, 1), (1, 40_000)])
def test_monte_carlo_kl_is_unbiased(shape, num_samples, calls):
    parameters = normals(shape, -1.0, 1.0)
    if calls > 1:  # many estimates of one sample each, at once
        many = [x.expand(calls, *shape).reshape(-1, *shape[1:]) for x in parameters]
        estimates = q1_vae.kl_gaussian_gaussian_mc(*many).view(calls, -1)
        estimate, error = estimates.mean(0), estimates.std(0) / math.sqrt(calls)
    else:
        estimate = q1_vae.kl_gaussian_gaussian_mc(*parameters, num_samples=num_samples)
        few = torch.stack([q1_vae.kl_gaussian_gaussian_mc(*parameters, num_samples=1) for _ in range(500)])
        error = few.std(0) / math.sqrt(num_samples)
    assert ((estimate - q1_vae.kl_gaussian_gaussian_analytic(*parameters)).abs() < 5 * error).all()


def test_monte_carlo_kl_has_the_gradient_of_the_analytic_kl():
    parameters = [x.requires_grad_() for x in normals((2, 3), -1.0, 1.0)]
    expected = torch.autograd.grad(q1_vae.kl_gaussian_gaussian_analytic(*parameters).sum(), parameters)
    value = q1_vae.kl_gaussian_gaussian_mc(*parameters, num_samples=200_000)
    for gradient, wanted in zip(torch.autograd.grad(value.sum(), parameters), expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=0.03)


def test_monte_carlo_kl_averages_over_samples_not_batch():
    spread = {}
    for num_samples in (1, 100):
        q, logvar_q, p, logvar_p = (x.expand(2000, 4) for x in normals((1, 4)))
        spread[num_samples] = q1_vae.kl_gaussian_gaussian_mc(q, logvar_q, p, logvar_p, num_samples).std()
    assert spread[1] / spread[100] == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("function", [q1_vae.kl_gaussian_gaussian_analytic, q1_vae.kl_gaussian_gaussian_mc])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_keeps_dtype_and_is_finite_at_log_variances_of_20(function, dtype):
    zeros = torch.zeros(2, 4, dtype=dtype)
    logvar = torch.tensor([[20.0], [-20.0]], dtype=dtype).expand(2, 4)
    value = function(zeros, logvar, zeros, zeros)
    assert value.dtype == dtype and value.shape == (2,) and torch.isfinite(value).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_functions_agree_on_cuda():
    mu, logvar, z, logvar_p = normals((3, 4), 0.1, 0.9)
    for function in (q1_vae.log_likelihood_normal, q1_vae.log_likelihood_bernoulli):
        arguments = (mu, logvar, z) if function is q1_vae.log_likelihood_normal else (mu, z.round())
        on_cuda = function(*(x.cuda() for x in arguments))
        torch.testing.assert_close(on_cuda.cpu(), function(*arguments))
    assert q1_vae.kl_gaussian_gaussian_mc(*(x.cuda() for x in (mu, logvar, z, logvar_p)), 3).is_cuda


# --- Model and importance sampling ------------------------------------------------------------------------------------


class LinearGaussian:
    """p(z) = N(0, I), p(x|z) = N(W z + b, I): log p(x) and the posterior are known in closed form."""

    def __init__(self, inflate=0.0):
        torch.manual_seed(0)
        orthogonal, _ = torch.linalg.qr(torch.randn(5, 3))  # W'W is diagonal, so the posterior is too
        self.w, self.b, self.inflate = orthogonal * torch.tensor([1.5, 0.5, 1.0]), torch.randn(5), inflate

    def encode(self, x):
        """Return the posterior, its log variance raised by `inflate`."""
        variance = 1 / (1 + self.w.square().sum(0))
        return (x - self.b) @ self.w * variance, (variance.log() + self.inflate).expand(len(x), 3)

    def log_likelihood(self, x, z):
        return Normal(z @ self.w.T + self.b, 1).log_prob(x if z.dim() == 2 else x[:, None]).sum(-1)

    def log_p(self, x):
        return MultivariateNormal(self.b, self.w @ self.w.T + torch.eye(5)).log_prob(x)


@pytest.mark.parametrize("estimator", ["analytic", "mc"])
def test_elbo_is_log_p_minus_the_kl_to_the_posterior(estimator):
    model, x = LinearGaussian(inflate=0.5), torch.randn(4, 5)
    many = x.repeat(50_000, 1)
    estimate = q1_vae.elbo(model, many, estimator, 3).view(-1, 4).mean(0)
    kl = q1_vae.kl_gaussian_gaussian_analytic(*model.encode(x), *LinearGaussian().encode(x))
    torch.testing.assert_close(estimate, model.log_p(x) - kl, rtol=0, atol=0.03)


def test_kl_samples_reduce_the_noise_of_the_elbo():
    model, x = LinearGaussian(), torch.randn(1, 5).expand(5000, 5)
    model.log_likelihood = lambda x, z: torch.zeros(len(x))
    one, ten = (q1_vae.elbo(model, x, "mc", samples).std() for samples in (1, 10))
    assert one / ten == pytest.approx(10**0.5, rel=0.1)


def test_mean_elbo_weighs_every_image_alike(monkeypatch):
    monkeypatch.setattr(q1_vae, "elbo", lambda vae, x, *_: x[:, 0])
    images = torch.zeros(2500, 784, dtype=torch.uint8)
    images[2000:] = 1
    assert q1_vae.mean_elbo(None, images, "mc", 1) == 0.2


def test_model_has_the_layers_of_the_assignment():
    vae = q1_vae.VAE()
    linear = [(m.in_features, m.out_features) for m in vae.modules() if isinstance(m, torch.nn.Linear)]
    assert linear == [(784, 300), (300, 300), (300, 200), (100, 300), (300, 300), (300, 784)]
    assert [type(m).__name__ for m in vae.encoder] == [type(m).__name__ for m in vae.decoder]
    assert [type(m).__name__ for m in vae.encoder] == ["Linear", "ELU", "Linear", "ELU", "Linear"]
    mu, logvar = vae.encode(torch.rand(2, 784))
    assert mu.shape == logvar.shape == (2, 100)


def test_defaults_are_the_assignments(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    args = vars(q1_vae.get_args([]))
    expected = {"epochs": 20, "batch_size": 64, "lr": 3e-4, "latent_size": 100, "kl_samples": 10}
    expected |= {"importance_samples": 200, "test_images": 10_000, "data": "binarized_mnist", "repeats": 1, "seed": 0}
    expected["curve_samples"] = [1, 5, 10, 50, 200, 1000]
    assert args.items() >= expected.items() and args.items() >= words.RECIPE.items()


def test_importance_sampling_is_exact_with_the_exact_posterior():
    model, x = LinearGaussian(), 2 * torch.randn(20, 5)
    estimate = q1_vae.log_likelihood_importance_sampling(model, x, num_samples=1)
    torch.testing.assert_close(estimate, model.log_p(x), rtol=0, atol=1e-5)


def test_importance_sampling_converges_with_another_proposal():
    model, x = LinearGaussian(inflate=0.5), 2 * torch.randn(20, 5)
    estimate = q1_vae.log_likelihood_importance_sampling(model, x, num_samples=20_000)
    torch.testing.assert_close(estimate, model.log_p(x), rtol=0, atol=0.03)


def test_mean_log_weight_is_log_p_minus_the_kl_to_the_posterior():
    model, x = LinearGaussian(inflate=0.5), torch.randn(4, 5)
    log_weights = q1_vae.importance_log_weights(model, x, 50_000)
    kl = q1_vae.kl_gaussian_gaussian_analytic(*model.encode(x), *LinearGaussian().encode(x))
    assert (kl > 0.1).all()
    torch.testing.assert_close(log_weights.mean(1), model.log_p(x) - kl, rtol=0, atol=0.02)


def test_importance_sampling_decodes_2000_samples_at_once(monkeypatch):
    rows = []

    def decode(self, z):
        rows.append(z.shape[:-1].numel())
        return z.new_zeros(*z.shape[:-1], 784)

    monkeypatch.setattr(q1_vae.VAE, "decode", decode)
    images = torch.zeros(25, 784, dtype=torch.uint8)
    assert q1_vae.log_likelihood_importance_sampling(q1_vae.VAE(2), images, 200).shape == (25,)
    assert rows == [2000, 2000, 1000]


def test_decoder_logits_are_minus_5_where_the_network_says_0():
    vae = q1_vae.VAE()
    torch.nn.init.zeros_(vae.decoder[-1].weight)
    torch.nn.init.zeros_(vae.decoder[-1].bias)
    assert vae.decode(torch.randn(2, 100)).unique().tolist() == [-5]


def test_likelihood_from_logits_equals_the_one_from_means():
    vae, z, x = q1_vae.VAE().double(), torch.randn(4, 3, 100).double(), (torch.rand(4, 784) < 0.5).double()
    expected = [q1_vae.log_likelihood_bernoulli(vae.decode(part).sigmoid(), x) for part in z.unbind(1)]
    torch.testing.assert_close(vae.log_likelihood(x, z), torch.stack(expected, 1))
    torch.testing.assert_close(vae.log_likelihood(x, z[:, 0]), expected[0])


# --- The script -------------------------------------------------------------------------------------------------------

TINY = ["--device", "cpu", "--epochs", "2", "--importance-samples", "20", "--latent-size", "5"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """600 + 60 synthetic digits in the one-file format."""
    folder = tmp_path_factory.mktemp("data")
    data = synthetic_data(600, 60) | {"source": "tiny digits"}
    np.savez(folder / "mnist.npz", **data)
    return folder


@pytest.fixture(scope="module")
def arguments(data_dir):
    return ["--data", "mnist", "--data-dir", str(data_dir), *TINY]


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    """The output folder of an uninterrupted run of two seeds."""
    out = tmp_path_factory.mktemp("finished")
    q1_vae.main([*arguments, "--repeats", "2", "--out", str(out)])
    return out


def test_run_writes_metrics_figures_and_report(finished):
    metrics = read_metrics(finished)
    assert metrics["script"] == "q1_vae" and metrics["data"].startswith("tiny digits, each pixel binarised once")
    assert metrics["config"]["epochs"] == 2 and metrics["device"].startswith("cpu")
    assert {path.name for path in finished.glob("*.png")} == {
        "elbo.png",
        "log_likelihood.png",
        "reconstructions.png",
        "samples.png",
    }
    report = (finished / "report.md").read_text()
    for numbers in metrics["results"]["seeds"].values():
        for key in ("elbo_mc", "elbo_analytic", "log_likelihood_mc", "log_likelihood_analytic"):
            assert f"{numbers[key]:.4f}" in report


def test_training_raises_the_elbo_and_the_elbo_stays_below_log_p(finished):
    metrics = read_metrics(finished)
    for history in metrics["history"].values():
        assert history["elbo"][1] > history["elbo"][0] + 10
    for numbers in metrics["results"]["seeds"].values():
        for name in ("mc", "analytic"):
            assert numbers[f"test_elbo_{name}"] < numbers[f"log_likelihood_{name}"]


def test_estimate_rises_with_k_from_the_elbo(finished):
    curves = read_metrics(finished)["results"]["curves"]
    for name in words.LABELS:
        for estimates, elbo in zip(curves["estimates"][name], curves["elbo"][name], strict=True):
            assert estimates == sorted(estimates)
            assert estimates[0] == pytest.approx(elbo, abs=6)  # 5 standard errors of 6 images


def test_seeds_differ_and_the_first_ones_numbers_stand_for_the_run(finished):
    results = read_metrics(finished)["results"]
    first, second = (numbers["elbo_mc"] for numbers in results["seeds"].values())
    assert first != second and results["elbo_mc"] == first


def test_the_same_command_evaluates_a_finished_run_again(arguments, finished, capsys):
    before = read_metrics(finished)
    q1_vae.main([*arguments, "--repeats", "2", "--out", str(finished)])
    assert read_metrics(finished) == before and "checkpoint_mc_seed1.pt: finished, 2 epochs" in capsys.readouterr().out


@pytest.fixture
def figures(finished, tmp_path, monkeypatch):
    """The figures that metrics.json alone gives, by name, and the metrics."""
    drawn, metrics = {}, read_metrics(finished)
    monkeypatch.setattr(utils, "save_figure", lambda figure, path: drawn.update({path.stem: figure}))
    q1_vae.draw_curves(metrics, tmp_path)
    return drawn, metrics


def test_elbo_is_drawn_as_mean_and_band_over_seeds(figures):
    drawn, metrics = figures
    whole, late = drawn["elbo"].axes
    for line, band, name in zip(whole.lines, whole.collections, ("analytic", "mc"), strict=True):
        curves = np.array([metrics["history"][f"{name}_seed{seed}"]["elbo"] for seed in "01"])
        assert list(line.get_xdata()) == [1, 2] and line.get_ydata() == pytest.approx(curves.mean(0))
        edges = band.get_paths()[0].vertices[:, 1]
        assert edges.max() == pytest.approx((curves.mean(0) + curves.std(0, ddof=1)).max())
    assert list(late.lines[0].get_xdata()) == [2] and len(late.lines) == 2  # none of the original's on other images


def test_log_likelihood_is_drawn_against_k(figures):
    drawn, metrics = figures
    (axes,), curves = drawn["log_likelihood"].axes, metrics["results"]["curves"]
    assert list(axes.lines[0].get_xdata()) == curves["samples"]
    assert axes.lines[0].get_ydata() == pytest.approx(np.mean(curves["estimates"]["analytic"], 0))
    assert axes.lines[1].get_ydata()[0] == pytest.approx(np.mean(curves["elbo"]["analytic"]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_script_runs_on_cuda(arguments, tmp_path):
    q1_vae.main([*arguments, "--device", "cuda", "--out", str(tmp_path)])
    assert read_metrics(tmp_path)["device"].startswith("cuda")


KILLED = """
import os, signal, sys, torch, q1_vae, utils
torch.set_num_threads(int(sys.argv[1]))
save = utils.save_checkpoint
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
def before_the_first_checkpoint(): utils.save_checkpoint = die
def between_writing_and_renaming(): utils.Path.replace = die
def in_the_second_epoch(): utils.save_checkpoint = lambda *a: (save(*a), setattr(torch.optim.Adam, "step", die))
def in_the_evaluation(): q1_vae.evaluate = die
def in_the_second_model():
    def kill_after_the_last_epoch(path, config, modules, history):
        save(path, config, modules, history)
        if len(history["seconds"]) == 2: torch.optim.Adam.step = die
    utils.save_checkpoint = kill_after_the_last_epoch
for i, moment in enumerate((before_the_first_checkpoint, between_writing_and_renaming, in_the_second_epoch,
                            in_the_evaluation, in_the_second_model)):
    argv = [*sys.argv[3:], "--out", f"{sys.argv[2]}/{moment.__name__}"]
    for kill in (True, False):
        pid = os.fork()
        if not pid:
            if kill:
                moment()
            q1_vae.main(argv)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == (signal.SIGKILL if kill else 0), moment
"""


def test_resume_after_sigkill_ends_with_identical_numbers(arguments, tmp_path, finished):
    """One process imports torch and forks a run for each moment, killed there, and its continuation."""
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-c", KILLED, threads, str(tmp_path), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    expected = read_metrics(finished)
    moments = sorted(tmp_path.iterdir())
    assert len(moments) == 5
    for out in moments:
        metrics = read_metrics(out)
        assert metrics["results"]["seeds"]["0"] == expected["results"]["seeds"]["0"], out.name
        assert metrics["history"].items() <= expected["history"].items(), out.name


def test_more_epochs_go_on_from_the_finished_training_and_fewer_are_refused(arguments, finished, tmp_path):
    flags = [*arguments, "--out", str(tmp_path)]
    q1_vae.main([*flags, "--epochs", "1"])
    q1_vae.main(flags)
    metrics, expected = read_metrics(tmp_path), read_metrics(finished)
    assert metrics["history"].items() <= expected["history"].items() and metrics["config"]["epochs"] == 2
    assert metrics["results"]["seeds"]["0"] == expected["results"]["seeds"]["0"]
    with pytest.raises(utils.InputError, match=r"analytic_seed0\.pt is at epoch 2 already; give --epochs 2 or more"):
        q1_vae.main([*flags, "--epochs", "1"])


def test_one_step_of_training_is_adam_on_the_negative_elbo(tmp_path):
    args = q1_vae.get_args(["--out", str(tmp_path), "--device", "cpu", "--epochs", "2", "--latent-size", "5"])
    images = (torch.rand(40, 784) < 0.3).byte()
    data = {"train": images, "valid": images}
    args.out.mkdir(exist_ok=True)
    q1_vae.train("mc", 3, data, args, "noise")
    trained = q1_vae.load_vae("mc", 3, args, "noise")
    history = utils.load_checkpoint(tmp_path / "checkpoint_mc_seed3.pt", {}, {})

    torch.manual_seed(3)
    vae = q1_vae.VAE(5)
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-4)
    for _ in range(2):
        loss = -q1_vae.elbo(vae, images[torch.randperm(40)].float(), "mc", 10).mean()
        vae.zero_grad()
        loss.backward()
        optimizer.step()
        q1_vae.mean_elbo(vae, images, "mc", 10)
    assert history["train_elbo"][1] == pytest.approx(-loss.item(), rel=1e-5)
    for ours, expected in zip(trained.parameters(), vae.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_restart_discards_the_old_checkpoints(arguments, tmp_path, monkeypatch):
    """Else the same command after an interrupted restart would take the first start's second model for its own."""
    out = ["--out", str(tmp_path), "--repeats", "1"]
    q1_vae.main([*arguments, *out])
    train = q1_vae.train

    def interrupted(name, *rest):
        if name == "mc":
            raise KeyboardInterrupt
        return train(name, *rest)

    monkeypatch.setattr(q1_vae, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        q1_vae.main([*arguments, *out, "--lr", "0.001", "--restart"])
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint_analytic_seed0.pt"]


def test_seeds_trained_as_separate_jobs_are_joined(arguments, finished, tmp_path):
    for seed in ("1", "0"):
        q1_vae.main([*arguments, "--seed", seed, "--out", str(tmp_path)])
    joined, expected = read_metrics(tmp_path), read_metrics(finished)
    assert joined["results"] == expected["results"] and joined["history"] == expected["history"]


def test_bad_input_ends_the_process_with_status_2_and_one_line(tmp_path):
    command = [sys.executable, "q1_vae.py", "--epochs", "0"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 2 and process.stdout == ""
    error = "argument --epochs: '0' is not a whole number from 1 to 2^31 - 1 (--help lists the flags)"
    assert process.stderr == f"q1_vae.py: {error}\n"


def test_ctrl_c_says_how_to_resume_and_exits_130(data_dir, tmp_path):
    flags = ["--data", "mnist", "--data-dir", str(data_dir), "--epochs", "100000", "--out", str(tmp_path)]
    # A shell starts background jobs with SIGINT ignored; a terminal does not.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        [sys.executable, "q1_vae.py", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,
    ) as process:
        while "epoch 1/" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip() == f"interrupted; go on with: python q1_vae.py {' '.join(flags)}"
    assert (tmp_path / "checkpoint_analytic_seed0.pt").exists()
