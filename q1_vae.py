"""Problem 1: a variational autoencoder on static binarized MNIST.

Trains one VAE with the analytic and one with the Monte Carlo estimate of the KL term, reports their ELBO on the
validation set and their log-likelihood on the test set by importance sampling, and draws the figures. "The original"
is the report of one who did the assignment.

    python q1_vae.py --quick                  30 s on two CPU cores, synthetic digits
    python q1_vae.py                          the original's recipe on binarized MNIST, three minutes
    python q1_vae.py --repeats 10             the same for ten seeds; those finished in --out stay
    python q1_vae.py --estimators analytic    one of the two estimators alone
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.utils import make_grid
from tqdm import tqdm

import utils
from results import pages, runs
from results import vae as problem
from utils import positive_float, positive_int

QUICK = {"epochs": 3, "test_images": 500}
ESTIMATORS = problem.LABELS  # of the KL term, with their names
CURVES = ["train_elbo", "elbo", "seconds"]


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The recipe: the assignment's defaults, each with its sentence."""
    parser = utils.make_parser(__doc__, "q1_vae", ["binarized_mnist", "mnist", "synthetic"], QUICK)
    flag = parser.flag
    flag("--estimators", str, [*ESTIMATORS], "of the KL term, to train with", nargs="+", choices=[*ESTIMATORS])
    flag("--epochs", positive_int, 20, "passes over the training images")
    flag("--batch-size", positive_int, 64, "images per update")
    flag("--lr", positive_float, 3e-4, "learning rate of Adam")
    flag("--latent-size", positive_int, 100, "number L of latent variables")
    flag("--kl-samples", positive_int, 10, "samples per image of the Monte Carlo KL")
    parser.group = parser.add_argument_group("measuring")
    flag("--importance-samples", positive_int, 200, "samples K per image for log p(x)")
    flag("--test-images", positive_int, 10_000, "test images used, evenly spaced")
    flag("--models", Path, None, "folder of a run's models, to be measured without training", metavar="DIR")
    parser.set_defaults(curve_samples=[1, 5, 10, 50, 200, 1000])  # K of the curve; groups nest, so by Jensen no fall
    args = runs.take_recipe(parser, argv, utils.parse_args(parser, argv, QUICK))
    args.estimators = list(dict.fromkeys(args.estimators))
    return args


def sum_per_example(x: Tensor) -> Tensor:
    """Sum (B, ...) over all but the first axis: (B,); unsqueeze serves inputs of shape (B,)."""
    return x.unsqueeze(1).flatten(1).sum(1)


def log_likelihood_bernoulli(mu: Tensor, target: Tensor) -> Tensor:
    """Log-likelihood log p(x) of a binary target under independent Bernoulli variables.

    mu: (B, ...) means P(x = 1) in [0, 1]; target: (B, ...) in {0, 1}, any dtype. Returns (B,), in nats. Means are
    kept one machine epsilon away from 0 and 1, as in torch.distributions, so that the result is finite.
    """
    eps = torch.finfo(mu.dtype).eps
    mu, target = mu.clamp(eps, 1 - eps), target.to(mu)
    return sum_per_example(target * mu.log() + (1 - target) * (-mu).log1p())


def log_likelihood_normal(mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
    """Log density of z under a normal with mean mu and diagonal covariance exp(logvar).

    mu, logvar, z: (B, ...). Returns (B,), in nats.
    """
    return sum_per_example(-0.5 * (math.log(2 * math.pi) + logvar + (z - mu) ** 2 * (-logvar).exp()))


def log_mean_exp(y: Tensor) -> Tensor:
    """log of the mean over K of exp(y), for y: (B, K), without overflow or underflow.

    Returns (B,); entries of -inf count as exp(-inf) = 0, and the value is -inf where all entries are.
    """
    y_max = y.detach().amax(1, keepdim=True).nan_to_num()  # an infinite maximum becomes finite, so inf - inf is avoided
    return y_max.squeeze(1) + (y - y_max).exp().mean(1).log()


def kl_gaussian_gaussian_analytic(mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(q || p) of two diagonal normals in closed form; all (B, ...). Returns (B,), in nats.

    For p = N(0, I) that of Kingma & Welling, arXiv 1312.6114, appendix B.
    """
    squares = (logvar_q - logvar_p).exp() + (mu_q - mu_p) ** 2 * (-logvar_p).exp()
    return sum_per_example(0.5 * (logvar_p - logvar_q - 1 + squares))


def kl_gaussian_gaussian_mc(
    mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor, num_samples: int = 1
) -> Tensor:
    """Unbiased Monte Carlo estimate of KL(q || p) = E_q[log q(z) - log p(z)]; arguments as for the analytic one.

    z = mu_q + sigma_q * eps is reparameterised, so gradients flow to both distributions. Returns (B,), in nats.
    """
    eps = torch.randn((num_samples, *mu_q.shape), dtype=mu_q.dtype, device=mu_q.device)
    z = mu_q + (0.5 * logvar_q).exp() * eps
    # (z - mu_q) / sigma_q is eps; the constants of log q and log p cancel
    squares = ((z - mu_p) ** 2 * (-logvar_p).exp() - eps**2).mean(0)
    return sum_per_example(0.5 * (logvar_p - logvar_q + squares))


class VAE(nn.Module):
    """Gaussian encoder q(z|x), prior N(0, I) and Bernoulli decoder p(x|z) for images (B, 784) of 0 and 1.

    The assignment's architecture: two hidden layers of 300 ELUs in each network.
    """

    def __init__(self, latent_size: int = 100):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, 300),
            nn.ELU(),
            nn.Linear(300, 300),
            nn.ELU(),
            nn.Linear(300, 2 * latent_size),  # means and log variances
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_size, 300),
            nn.ELU(),
            nn.Linear(300, 300),
            nn.ELU(),
            nn.Linear(300, 784),  # logits
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, 784). Returns mean and log variance of q(z|x), each (B, L)."""
        return self.encoder(x).chunk(2, dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """z: (B, L). Returns logits (B, 784); minus 5, because most pixels are black."""
        return self.decoder(z) - 5

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) from logits, log_likelihood_bernoulli without its clamp of the means.

        x: (B, 784); z: (B, L), or (B, K, L) for K samples an image. Returns (B,) or (B, K).
        """
        logits = self.decode(z)
        if z.dim() == 2:
            return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        # the same as x . logits - softplus(logits), which reads x once for all K
        return (logits @ x[:, :, None]).squeeze(2) - F.softplus(logits).sum(2)


def elbo(vae: VAE, x: Tensor, estimator: str, kl_samples: int) -> Tensor:
    """Evidence lower bound E_q[log p(x|z)] - KL(q(z|x) || p(z)) with one z per image in the first term, in nats.

    x: (B, 784) floats; estimator of the KL: 'analytic' or 'mc', the latter with `kl_samples`. Returns (B,).
    """
    mu, logvar = vae.encode(x)
    z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
    parameters = mu, logvar, torch.zeros_like(mu), torch.zeros_like(mu)
    if estimator == "analytic":
        kl = kl_gaussian_gaussian_analytic(*parameters)
    else:
        kl = kl_gaussian_gaussian_mc(*parameters, num_samples=kl_samples)
    return vae.log_likelihood(x, z) - kl


@torch.no_grad()
def mean_elbo(vae: VAE, images: Tensor, estimator: str, kl_samples: int) -> float:
    """Mean ELBO over images: (N, 784) uint8."""
    return utils.mean(torch.cat([elbo(vae, x.float(), estimator, kl_samples) for x in images.split(1000)]))


def checkpoint_path(estimator: str, seed: int, args: argparse.Namespace) -> Path:
    return runs.seed_path(args, f"checkpoint_{estimator}", seed)


def training_config(estimator: str, seed: int, args: argparse.Namespace, source: str) -> dict:
    """What a checkpoint must agree with; not the epochs, as more may be asked for later."""
    keys = ["batch_size", "lr", "latent_size"]
    if estimator == "mc":
        keys.append("kl_samples")
    return {key: getattr(args, key) for key in keys} | {"estimator": estimator, "seed": seed, "source": source}


def train(estimator: str, seed: int, data: dict, args: argparse.Namespace) -> None:
    """Train one VAE, or go on from its checkpoint, where the history is kept: one entry per epoch.

    data: what `load_images` returns. Raises InputError for a checkpoint that does not fit and for a loss that is not
    finite.
    """
    path = checkpoint_path(estimator, seed, args)
    config = training_config(estimator, seed, args, data["source"])
    torch.manual_seed(seed)
    vae = VAE(args.latent_size).to(args.device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=args.lr, fused=True)
    modules = {"vae": vae, "optimizer": optimizer}
    history, done = runs.resume(path, config, modules, {key: [] for key in CURVES}, args)

    images, begin = data["train"], time.perf_counter()
    for epoch in range(done + 1, args.epochs + 1):
        start, total = time.perf_counter(), 0.0
        batches = torch.randperm(len(images), device=args.device).split(args.batch_size)
        for batch in tqdm(batches, desc=f"{estimator} epoch {epoch}", leave=False, disable=None):
            loss = -elbo(vae, images[batch].float(), estimator, args.kl_samples).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        history["train_elbo"].append(-float(total) / len(images))
        history["elbo"].append(mean_elbo(vae, data["valid"], estimator, args.kl_samples))
        history["seconds"].append(time.perf_counter() - start)
        utils.check_finite(history["train_elbo"][-1] + history["elbo"][-1], f"the ELBO after epoch {epoch}")
        runs.save_checkpoint(path, config, modules, history)
        to_go = utils.time_to_go(begin, epoch - done, args.epochs - done)
        text = f"ELBO train {history['train_elbo'][-1]:.2f}, valid {history['elbo'][-1]:.2f}, {to_go} to go"
        print(f"{ESTIMATORS[estimator]}, seed {seed}, epoch {epoch}/{args.epochs}: {text}")


@torch.no_grad()
def importance_log_weights(vae: VAE, images: Tensor, num_samples: int) -> Tensor:
    """Return log p(x|z) + log p(z) - log q(z|x) with K = `num_samples` z ~ q(z|x) for each image: (N, K).

    images: (N, 784) uint8. About 2,000 pairs (x, z) at once stay in the processor's cache.
    """
    log_weights = []
    chunks = images.split(max(1, 2000 // num_samples))
    for chunk in tqdm(chunks, desc="importance sampling", leave=False, disable=None):
        x = chunk.float()
        mu, logvar = (output.repeat_interleave(num_samples, 0) for output in vae.encode(x))  # (B K, L)
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        log_p_x = vae.log_likelihood(x, z.view(len(x), num_samples, -1))  # (B, K)
        log_p_z = log_likelihood_normal(torch.zeros_like(z), torch.zeros_like(z), z)
        log_q_z = log_likelihood_normal(mu, logvar, z)
        log_weights.append(log_p_x + (log_p_z - log_q_z).view_as(log_p_x))
    return torch.cat(log_weights)


def log_likelihood_importance_sampling(vae: VAE, images: Tensor, num_samples: int = 200) -> Tensor:
    """Estimate log p(x) = log E_q[p(x, z) / q(z|x)] with K = `num_samples` samples; images: (N, 784). Returns (N,).

    A lower bound in expectation that rises from the ELBO at K = 1 to log p(x) (Burda et al., arXiv 1509.00519, eq. 8
    and theorem 1).
    """
    return log_mean_exp(importance_log_weights(vae, images, num_samples))


def load_vae(estimator: str, seed: int, args: argparse.Namespace, source: str) -> tuple[VAE, dict]:
    """Return a trained VAE, in half precision as its model is, and its history: from its checkpoint, or --models."""
    vae = VAE(args.latent_size).to(args.device)
    config = training_config(estimator, seed, args, source)
    history = runs.load_checkpoint(checkpoint_path(estimator, seed, args), config, {"vae": vae}, CURVES)
    history = runs.model_history(args, "q1_vae", f"{estimator}_seed{seed}", CURVES) if args.models else history
    return runs.round_weights(vae), history


def evaluate(histories: dict, data: dict, args: argparse.Namespace) -> dict:
    """Return `results` of metrics.json: the numbers of each seed, and the curves.

    The curves, of every tenth test image: `estimates` of log p(x) for each K of `curve_samples`, and the `elbo`.
    """
    test = data["test"]
    seeds = {str(seed): {} for seed in sorted(set().union(*histories.values()))}
    estimates = {name: [] for name in histories}
    elbos = {name: [] for name in histories}
    for name, trained in histories.items():
        for seed, history in trained.items():
            vae, _ = load_vae(name, seed, args, data["source"])
            torch.manual_seed(seed)
            log_weights = importance_log_weights(vae, test[::10], args.curve_samples[-1])
            grouped = [log_weights.view(-1, k) for k in args.curve_samples]  # a row: k of the samples of an image
            estimates[name].append([utils.mean(log_mean_exp(weights)) for weights in grouped])
            elbos[name].append(mean_elbo(vae, test[::10].repeat(50, 1), name, args.kl_samples))  # 50 z, for precision
            log_p = log_likelihood_importance_sampling(vae, test, args.importance_samples)
            numbers = seeds[str(seed)]
            numbers[f"log_likelihood_{name}"] = utils.mean(log_p)
            numbers[f"test_elbo_{name}"] = mean_elbo(vae, test, name, args.kl_samples)
            numbers[f"train_elbo_{name}"] = mean_elbo(vae, data["train"][: len(test)], name, args.kl_samples)
            valid = mean_elbo(vae, data["valid"], name, args.kl_samples) if args.models else history["elbo"][-1]
            numbers[f"elbo_{name}"] = valid
            print(f"measured {ESTIMATORS[name]}, seed {seed}: log p(x) {numbers[f'log_likelihood_{name}']:.2f}")
    curves = {"samples": args.curve_samples, "estimates": estimates, "elbo": elbos}
    return next(iter(seeds.values())) | {"seeds": seeds, "curves": curves, "test_images": len(test)}


def evenly_spaced(images: Tensor, num: int) -> Tensor:
    """At most `num` of the images, evenly spaced, because binarized MNIST's test set is sorted by digit."""
    num = min(num, len(images))
    return images[torch.arange(num) * len(images) // num]


def load_images(args: argparse.Namespace) -> dict:
    """Return {train, valid, test}, each (N, 784) uint8 of 0 and 1 on the device, and the data's `source`.

    Grey images are binarised once: each pixel drawn from Bernoulli(intensity) with a fixed seed. Without validation
    images, the last sixth of the training images (10,000 of MNIST's 60,000) takes their place. InputError if the images
    are not 28 x 28.
    """
    data = utils.load_data(args.data, args.data_dir)
    images = {k.removesuffix("_images"): torch.tensor(v) for k, v in data.items() if k.endswith("_images")}
    source, sizes = data["source"], {tuple(split.shape[1:]) for split in images.values()}
    if sizes != {(28, 28)}:
        raise utils.InputError(f"{source}: images are {max(sizes)}; problem 1 takes 28 x 28")
    if max(split.max() for split in images.values()) > 1:
        generator = torch.Generator().manual_seed(0)
        images = {k: (torch.rand(v.shape, generator=generator) < v / 255).byte() for k, v in images.items()}
        source += ", each pixel binarised once with a fixed seed"
    if "valid" not in images:
        images["train"], images["valid"] = images["train"].tensor_split([len(images["train"]) * 5 // 6])
    if not len(images["train"]) or not len(images["valid"]):
        raise utils.InputError(f"{source}: too few images to train and validate")
    images["test"] = evenly_spaced(images["test"], args.test_images)
    return {split: tensor.flatten(1).to(args.device) for split, tensor in images.items()} | {"source": source}


def draw_grids(grids: dict[str, Tensor], columns: int, path: Path) -> None:
    """Grids of images (N, H, W) with values in [0, 1], side by side under their titles."""
    figure, (row,) = utils.subplots(1, len(grids), width=5, height=5.3)
    for axes, (title, images) in zip(row, grids.items(), strict=True):
        grid = make_grid(images[:, None].cpu(), nrow=columns, padding=1, pad_value=0.5)
        axes.imshow(grid[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title)
        axes.axis("off")
    utils.save_figure(figure, path)


@utils.default_style()
@torch.no_grad()
def draw_images(vaes: dict[str, VAE], test: Tensor, args: argparse.Namespace) -> None:
    """Write the figures that need the models: samples from the prior and reconstructions."""
    torch.manual_seed(0)
    z = torch.randn(100, args.latent_size).to(test.device)  # drawn on the CPU, the same on every device
    x = evenly_spaced(test, 50).float()
    samples, reconstructions = {}, {}
    for name, vae in vaes.items():
        samples[f"Samples (means), {ESTIMATORS[name]}"] = vae.decode(z).sigmoid().view(-1, 28, 28)
        means = vae.decode(vae.encode(x)[0]).sigmoid()
        pairs = F.pad(torch.cat([x.view(-1, 28, 28), means.view(-1, 28, 28)], 2), (0, 6), value=0.5)
        reconstructions[f"Test images and, right, reconstructions, {ESTIMATORS[name]}"] = pairs
    draw_grids(samples, 10, args.out / "samples.png")
    draw_grids(reconstructions, 5, args.out / "reconstructions.png")


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    print(f"device: {utils.describe(args.device)}")
    if args.figures_only:
        return pages.redraw(args.out, "q1_vae", problem)
    data = load_images(args)
    source = data["source"]
    print(f"data: {source}")
    if args.download:
        return
    seeds = [] if args.models else range(args.seed, args.seed + args.repeats)
    trainings = [(name, seed) for seed in seeds for name in args.estimators]
    runs.open_out(args, "q1_vae", [checkpoint_path(*training, args).name for training in trainings])
    for name, seed in trainings:
        with runs.interruptible(checkpoint_path(name, seed, args), args):
            train(name, seed, data, args)

    start = time.perf_counter()
    load = partial(load_vae, args=args, source=source)
    histories, provenance, seconds = runs.finished_trainings(args, ESTIMATORS, load)
    results = evaluate(histories, data, args)
    vaes = {name: load(name, min(trained))[0] for name, trained in histories.items()}
    if not args.models:
        runs.remove_models(args, "checkpoint")
        for name, vae in vaes.items():
            seed = min(histories[name])
            runs.save_model(args, f"checkpoint_{name}", seed, training_config(name, seed, args, source), {"vae": vae})
    draw_images(vaes, data["test"], args)

    seconds += time.perf_counter() - start
    history = {f"{name}_seed{seed}": curves for name in histories for seed, curves in histories[name].items()}
    metrics = runs.save_metrics(args, "q1_vae", source, provenance, seconds, history, results)
    pages.publish(metrics, args.out, problem, ["samples.png", "reconstructions.png"])


if __name__ == "__main__":
    utils.run(main)
