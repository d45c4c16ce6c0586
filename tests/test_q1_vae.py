"""Problem 1: each formula against an oracle, and the script from training to report on a tiny data set."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import q1_vae
import utils
from results import runs, vae
from tests import oracles
from tests.helpers import arrays, draw_figures, read_metrics
from tests.oracles import per_example

SHAPES = [(5, 7), (1, 784), (6, 1), (3, 2, 4, 5), (4,)]


def normals(shape, low=-2.0, high=2.0, dtype=torch.float64):
    """Two random diagonal normals, mu_q, logvar_q, mu_p, logvar_p, in tensors that are not contiguous."""
    torch.manual_seed(0)
    return [torch.empty(*shape, 2, dtype=dtype).uniform_(low, high)[..., 0] for _ in range(4)]


# --- log-likelihoods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_bernoulli_equals_torch_distributions(shape):
    torch.manual_seed(0)
    mu = torch.rand(*shape, 2, dtype=torch.float64)[..., 0]  # not contiguous
    target = (torch.rand(shape) < 0.5).byte()
    expected = per_example(oracles.log_bernoulli(mu, target.double()))
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


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bound", [2.0, 20.0])
def test_normal_equals_torch_distributions(shape, bound):
    mu, logvar, z, _ = normals(shape, -bound, bound)
    expected = per_example(oracles.log_normal(mu, logvar, z))
    torch.testing.assert_close(q1_vae.log_likelihood_normal(mu, logvar, z), expected, rtol=1e-10, atol=1e-10)


# --- log_mean_exp -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("shape", [(4, 9), (1, 5), (3, 1)])
def test_log_mean_exp_equals_logsumexp_minus_log_k(shape, shift):
    torch.manual_seed(0)
    y = (10 * torch.randn(*shape, 2, dtype=torch.float64) + shift)[..., 0].requires_grad_()  # not contiguous
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


def test_kl_of_equal_distributions_is_zero():
    mu, logvar, _, _ = normals((3, 5))
    assert q1_vae.kl_gaussian_gaussian_analytic(mu, logvar, mu, logvar).abs().max() < 1e-12
    assert q1_vae.kl_gaussian_gaussian_mc(mu, logvar, mu, logvar, 10).abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (3, 2, 1, 2), (2,)])
@pytest.mark.parametrize(("num_samples", "calls"), [(400, 200), (1, 40_000)])
def test_monte_carlo_kl_is_unbiased(shape, num_samples, calls):
    parameters = normals(shape, -1.0, 1.0)
    many = [x.expand(calls, *shape).reshape(-1, *shape[1:]) for x in parameters]
    estimates = q1_vae.kl_gaussian_gaussian_mc(*many, num_samples=num_samples).view(calls, -1)
    error = estimates.std(0) / math.sqrt(calls)
    assert ((estimates.mean(0) - q1_vae.kl_gaussian_gaussian_analytic(*parameters)).abs() < 5 * error).all()


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


def test_importance_sampling_is_exact_with_the_exact_posterior():
    model, x = LinearGaussian(), 2 * torch.randn(20, 5)
    estimate = q1_vae.log_likelihood_importance_sampling(model, x, num_samples=1)
    torch.testing.assert_close(estimate, model.log_p(x), rtol=0, atol=1e-5)


def test_importance_sampling_converges_with_another_proposal():
    model, x = LinearGaussian(inflate=0.5), 2 * torch.randn(20, 5)
    estimate = q1_vae.log_likelihood_importance_sampling(model, x, num_samples=20_000)
    torch.testing.assert_close(estimate, model.log_p(x), rtol=0, atol=0.03)


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


def load_images(tmp_path, **changes):
    np.savez(tmp_path / "mnist.npz", **arrays(**changes))
    return q1_vae.load_images(q1_vae.get_args(["--data", "mnist", "--data-dir", str(tmp_path), "--device", "cpu"]))


def test_grey_images_are_binarised_with_their_intensity_and_the_last_sixth_validates(tmp_path):
    grey = np.full((60, 28, 28), 51, np.uint8)  # 51 / 255 = 0.2
    grey[50:] = 255
    changes = {"train_images": grey, "train_labels": np.zeros(60, np.uint8)}
    images = load_images(tmp_path, **changes)
    assert images["source"] == "made for a test, each pixel binarised once with a fixed seed"
    assert images["train"].shape == (50, 784) and images["train"].unique().tolist() == [0, 1]
    assert images["train"].float().mean().item() == pytest.approx(0.2, abs=0.01)  # 5 standard errors
    assert images["valid"].shape == (10, 784) and images["valid"].min() == 1
    assert torch.equal(images["train"], load_images(tmp_path, **changes)["train"])


def test_test_images_are_evenly_spaced():
    numbers = torch.arange(10)
    assert q1_vae.evenly_spaced(numbers, 4).tolist() == [0, 2, 5, 7]
    assert q1_vae.evenly_spaced(numbers, 11).tolist() == [*range(10)]


@pytest.fixture
def one_batch(tmp_path):
    """Arguments of two updates on one batch of noise, and that data set."""
    args = q1_vae.get_args(["--out", str(tmp_path), "--device", "cpu", "--epochs", "2", "--latent-size", "5"])
    images = (torch.rand(40, 784) < 0.3).byte()
    return args, {"train": images, "valid": images, "source": "noise"}


def test_one_step_of_training_is_adam_on_the_negative_elbo(one_batch):
    args, data = one_batch
    q1_vae.train("mc", 3, data, args)
    trained = q1_vae.VAE(5)
    history = runs.load_checkpoint(args.out / "checkpoint_mc_seed3.pt", {}, {"vae": trained})

    torch.manual_seed(3)
    vae = q1_vae.VAE(5)
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-4)
    for _ in range(2):
        loss = -q1_vae.elbo(vae, data["train"][torch.randperm(40)].float(), "mc", 10).mean()
        vae.zero_grad()
        loss.backward()
        optimizer.step()
        valid = q1_vae.mean_elbo(vae, data["valid"], "mc", 10)
    assert (history["train_elbo"][1], history["elbo"][1]) == pytest.approx((-loss.item(), valid), rel=1e-5)
    for ours, expected in zip(trained.parameters(), vae.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_samples_of_the_kl_are_a_matter_of_the_monte_carlo_training_alone(one_batch):
    args, data = one_batch
    for name in vae.LABELS:
        q1_vae.train(name, 0, data, args)
    args.kl_samples = 3
    q1_vae.train("analytic", 0, data, args)
    assert q1_vae.load_vae("analytic", 0, args, "noise")
    with pytest.raises(utils.InputError, match="was made with --kl-samples 10, not 3"):
        q1_vae.train("mc", 0, data, args)


def test_loss_that_is_not_finite_stops_after_its_epoch_and_keeps_the_last_checkpoint(one_batch, monkeypatch):
    args, data = one_batch
    args.epochs = 5
    elbo, calls = q1_vae.elbo, []

    def diverging(*arguments):
        calls.append(1)
        value = elbo(*arguments)
        return value * math.nan if len(calls) > 4 else value  # 2 epochs of one update and one validation

    monkeypatch.setattr(q1_vae, "elbo", diverging)
    with pytest.raises(utils.InputError, match="the ELBO after epoch 3 is not finite; what was saved before is kept"):
        q1_vae.train("mc", 0, data, args)
    assert len(calls) == 6
    state = torch.load(args.out / "checkpoint_mc_seed0.pt", weights_only=True)
    assert len(state["history"]["elbo"]) == 2
    assert all(torch.isfinite(tensor).all() for tensor in state["states"]["vae"].values())


def test_validation_that_is_not_finite_is_not_saved(one_batch):
    args, data = one_batch
    args.lr = 1e30
    with pytest.raises(utils.InputError, match="the ELBO after epoch 1 is not finite"):
        q1_vae.train("mc", 0, data, args)
    assert not list(args.out.iterdir())


def test_evaluation_is_of_every_test_image_and_the_curve_of_every_tenth(monkeypatch):
    """With an ELBO and log weights that are an image's number, up to 255, and 1000 more with the Monte Carlo KL."""
    more = {"analytic": 0, "mc": 1000}
    monkeypatch.setattr(q1_vae, "load_vae", lambda name, *_: (more[name], {}))
    monkeypatch.setattr(q1_vae, "elbo", lambda vae, x, name, _: x[:, 0] + (vae + more[name]) / 2)
    weights = torch.tensor([0.0, -math.inf])  # so that their mean over an even number is half
    monkeypatch.setattr(
        q1_vae, "importance_log_weights", lambda vae, x, k: x[:, :1].float() + vae + weights.repeat(k)[:k]
    )
    numbers = torch.arange(200, dtype=torch.uint8)[:, None].expand(-1, 784)
    args = q1_vae.get_args(["--device", "cpu", "--importance-samples", "20"])
    args.curve_samples = [2, 10, 50]
    histories = {name: {3: {"elbo": [-2.0, -1.0]}} for name in vae.LABELS} | {
        "mc": {2: {"elbo": [-8.0]}, 3: {"elbo": [-7.0]}}
    }
    data = {"train": numbers[100:], "test": numbers[:40], "source": "numbers"}
    results = q1_vae.evaluate(histories, data, args)
    assert list(results["seeds"]) == ["2", "3"] and "elbo_analytic" not in results["seeds"]["2"]
    numbers = results["seeds"]["3"]
    for name, elbo in (("analytic", -1), ("mc", -7)):
        *_, estimates = results["curves"]["estimates"][name]
        assert estimates == pytest.approx([15 + more[name] - math.log(2)] * 3)  # of the images 0, 10, 20, 30
        assert results["curves"]["elbo"][name][-1] == 15 + more[name] and numbers[f"elbo_{name}"] == elbo
        assert numbers[f"log_likelihood_{name}"] == pytest.approx(19.5 + more[name] - math.log(2))
        assert numbers[f"test_elbo_{name}"] == 19.5 + more[name]
        assert numbers[f"train_elbo_{name}"] == 119.5 + more[name]


def test_run_writes_metrics_figures_and_report(finished):
    metrics = read_metrics(finished)
    assert metrics["script"] == "q1_vae" and metrics["data"].startswith("tiny digits, each pixel binarised once")
    figures = {path.stem for path in finished.glob("*.png")}
    assert figures == {"elbo", "log_likelihood", "reconstructions", "samples"}
    report = (finished / "report.md").read_text()
    for seed, numbers in metrics["results"]["seeds"].items():
        for name in vae.LABELS:
            last = metrics["history"][f"{name}_seed{seed}"]["elbo"][1]
            assert numbers[f"elbo_{name}"] == pytest.approx(last, rel=1e-5)
            assert f"{numbers[f'elbo_{name}']:.4f}" in report
            assert f"{numbers[f'log_likelihood_{name}']:.4f}" in report


def test_training_raises_the_elbo_and_the_elbo_stays_below_log_p(finished):
    metrics = read_metrics(finished)
    for history in metrics["history"].values():
        assert history["elbo"][1] > history["elbo"][0] + 10
    for numbers in metrics["results"]["seeds"].values():
        for name in vae.LABELS:
            assert numbers[f"test_elbo_{name}"] < numbers[f"log_likelihood_{name}"]


def test_estimate_rises_with_k(finished):
    for curves in read_metrics(finished)["results"]["curves"]["estimates"].values():
        for estimates in curves:
            assert estimates == sorted(estimates) and len(set(estimates)) == 6


def test_seeds_differ_and_the_first_ones_numbers_stand_for_the_run(finished):
    results = read_metrics(finished)["results"]
    first, second = (numbers["elbo_mc"] for numbers in results["seeds"].values())
    assert first != second and results["elbo_mc"] == first


def test_one_estimator_alone_has_its_numbers_and_figures(copied, drawn, capsys):
    run = copied("q1_vae")
    for path in run.out.glob("*_mc_seed*.pt"):
        path.unlink()
    expected = read_metrics(run.out)
    (run.out / "metrics.json").unlink()
    capsys.readouterr()
    run.module.main([*run.flags, "--estimators", "analytic"])
    metrics, report = read_metrics(run.out), (run.out / "report.md").read_text()
    for seed, numbers in metrics["results"]["seeds"].items():
        assert numbers.items() <= expected["results"]["seeds"][seed].items() and len(numbers) == 4
    assert not list(run.out.glob("*_mc_seed*.pt")) and "with the Monte Carlo KL not measured" in report
    elbo, difference = drawn["elbo"].axes
    assert len(elbo.lines) == 2 and len(difference.lines) == 1  # that of 0
    assert "Monte Carlo" not in capsys.readouterr().out


def test_elbo_is_drawn_for_each_seed_with_the_difference_of_the_estimators(finished, drawn, tmp_path):
    metrics = read_metrics(finished)
    draw_figures(vae, metrics, tmp_path)
    elbo, difference = drawn["elbo"].axes  # none of the original's on other images
    curves = {name: [metrics["history"][f"{name}_seed{seed}"]["elbo"] for seed in "01"] for name in vae.LABELS}
    assert [list(line.get_ydata()) for line in elbo.lines] == curves["analytic"] + curves["mc"]
    assert {tuple(line.get_xdata()) for line in elbo.lines} == {(1, 2)}
    gaps = np.subtract(curves["analytic"], curves["mc"])
    assert np.array_equal([line.get_ydata() for line in difference.lines[:2]], gaps)


def test_log_likelihood_is_drawn_against_k(finished, drawn, tmp_path):
    """For each seed, and the mean of all test images at the K of the result."""
    metrics = read_metrics(finished)
    draw_figures(vae, metrics, tmp_path)
    (axes,), curves = drawn["log_likelihood"].axes, metrics["results"]["curves"]
    first, second, every, *_ = axes.lines
    assert list(first.get_xdata()) == curves["samples"]
    assert [list(line.get_ydata()) for line in (first, second)] == curves["estimates"]["analytic"]
    mean = np.mean([numbers["log_likelihood_analytic"] for numbers in metrics["results"]["seeds"].values()])
    assert every.get_xdata() == [20] and every.get_ydata() == pytest.approx([mean])


def test_more_epochs_go_on_from_a_training_that_was_finished_and_evaluated(arguments, finished, drawn, tmp_path):
    for epochs in ("1", "2"):
        q1_vae.main([*arguments, "--repeats", "1", "--out", str(tmp_path), "--epochs", epochs])
    metrics, expected = read_metrics(tmp_path), read_metrics(finished)
    assert metrics["history"].items() <= expected["history"].items() and metrics["config"]["epochs"] == 2
    assert metrics["results"]["seeds"]["0"] == expected["results"]["seeds"]["0"]


def test_seeds_trained_as_separate_jobs_are_joined(copied, drawn):
    run = copied("q1_vae")
    expected = read_metrics(run.out)
    for path in run.out.glob("*_seed1.pt"):
        path.unlink()
    run.module.main([*run.flags, "--repeats", "1", "--seed", "1"])
    joined = read_metrics(run.out)
    assert joined["results"] == expected["results"] and joined["history"] == expected["history"]
