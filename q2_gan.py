"""Problem 2: a Wasserstein GAN with a Lipschitz penalty on SVHN.

Trains the GAN, keeps snapshots of generator and critic, draws samples, perturbations and interpolations from them, and
puts a number behind each claim with a small classifier trained on the same labelled data.

    python q2_gan.py --quick                               two minutes on two CPU cores, synthetic digits
    python q2_gan.py                                       the original's recipe on SVHN, for a GPU
    python q2_gan.py --data mnist --width 32 --lr 3e-4     a smaller network on MNIST; README has the reference's flags
"""

import argparse
import signal
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm, trange

import utils
from results import gan as words
from results.pages import publish, redraw

SNAPSHOT_PLACES = (0, 0.14, 0.4, 1)  # of the iterations; the original's 0, 7,000, 20,000 and 50,000
RECORD_EVERY = 10  # iterations; a log line is printed for every tenth record
SAVE_EVERY = 60  # seconds
NOISE_SETS = 5  # independent ones, for the evaluation's standard errors
NEIGHBOURS = 5  # k of precision and recall
SURE = 0.9  # probability from which the classifier is sure of a digit
EPSILONS = (1, 2, 3, 5, 10, 20)  # lengths of a perturbation, in the prior's deviations
ALPHAS = torch.linspace(0, 1, 11)
QUICK = {"iterations": 400, "width": 16, "lr": 1e-3, "classifier_steps": 150, "samples": 1000}


# --- The functions of the assignment ----------------------------------------------------------------------------------


def vf_wasserstein_distance(p: Tensor, q: Tensor, critic: nn.Module) -> Tensor:
    """Estimate E_p[f] - E_q[f] from samples p, q: (B, ...), a scalar.

    Its maximum over 1-Lipschitz critics f is the Wasserstein distance (Arjovsky et al., arXiv 1701.07875, eq. 2).
    """
    return critic(p).mean() - critic(q).mean()


def lp_reg(x: Tensor, y: Tensor, critic: nn.Module) -> Tensor:
    """One-sided Lipschitz penalty E[max(0, |grad f(x_hat)| - 1)^2], a scalar (Petzka et al., arXiv 1709.08894, eq. 8).

    x, y: (B, ...). x_hat is uniform on the segment between x and y of each pair: one coefficient for each example. The
    norm is taken over all axes but the first. Gradients flow to the critic's parameters, not to x and y.
    """
    alpha = torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
    x_hat = (alpha * x + (1 - alpha) * y).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).clamp(min=0).square().mean()


# --- Models -----------------------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """z: (B, z_dim) to images (B, 3, 32, 32) in [-1, 1]."""

    def __init__(self, z_dim: int = 100, h_dim: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.ConvTranspose2d(z_dim, 4 * h_dim, 4, 1, 0), nn.BatchNorm2d(4 * h_dim), nn.ReLU()),
            *(nn.ConvTranspose2d(4 * h_dim, 2 * h_dim, 4, 2, 1), nn.BatchNorm2d(2 * h_dim), nn.ReLU()),
            *(nn.ConvTranspose2d(2 * h_dim, h_dim, 4, 2, 1), nn.BatchNorm2d(h_dim), nn.ReLU()),
            *(nn.ConvTranspose2d(h_dim, 3, 4, 2, 1), nn.Tanh()),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


class Critic(nn.Module):
    """Images (B, 3, 32, 32) to values (B,), without normalisation: the penalty is on each example's own gradient."""

    def __init__(self, h_dim: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, h_dim, 4, 2, 1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(h_dim, 2 * h_dim, 4, 2, 1), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(2 * h_dim, 4 * h_dim, 4, 2, 1), nn.LeakyReLU(0.2)),
            nn.Conv2d(4 * h_dim, 1, 4, 1, 0),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten()


class Classifier(nn.Module):
    """Images (B, 3, 32, 32) to class logits (B, 10); `features` gives the 128 numbers before the last layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 32, 5, 2, 2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.Conv2d(64, 128, 3, 2, 1), nn.BatchNorm2d(128), nn.ReLU()),
            *(nn.Conv2d(128, 128, 3, 2, 1), nn.BatchNorm2d(128), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(128 * 16, 128), nn.ReLU()),
        )
        self.output = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.features(x))


# --- Training ---------------------------------------------------------------------------------------------------------


def scale(images: Tensor) -> Tensor:
    """Map uint8 to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def snapshot_path(args: argparse.Namespace, iteration: int) -> Path:
    return args.out / f"snapshot_{iteration}.pt"


def training_config(args: argparse.Namespace, source: str) -> dict:
    """What a checkpoint must agree with; more --iterations and other --snapshots may be asked for later."""
    keys = ("critic_updates", "penalty", "batch_size", "lr", "width", "latent_size", "seed")
    return {key: getattr(args, key) for key in keys} | {"source": source}


def train(data: dict, args: argparse.Namespace, config: dict) -> None:
    """Train from the last checkpoint, or anew, up to --iterations, and write the snapshots.

    data: what `utils.load_rgb` returns. Raises InputError for a checkpoint that does not fit and a loss that is not
    finite, KeyboardInterrupt after Ctrl-C, once the iteration is over and saved.
    """
    torch.manual_seed(args.seed)
    images = data["train_images"]
    where = {"device": args.device, "memory_format": utils.memory_format(args.device)}
    generator, critic = Generator(args.latent_size, args.width).to(**where), Critic(args.width).to(**where)
    generator_adam, critic_adam = (
        torch.optim.Adam(m.parameters(), args.lr, (0.5, 0.9), fused=True) for m in (generator, critic)
    )
    modules = {"generator": generator, "critic": critic, "generator_adam": generator_adam, "critic_adam": critic_adam}
    history = {"iteration": 0, "seconds": 0.0, "distance": [], "penalty": [], "sums": [0.0, 0.0]}
    path = args.out / "checkpoint.pt"
    history = utils.restore(args, path, config, modules, history)
    done = history["iteration"]
    if done < args.iterations:
        history["provenance"] = utils.provenance(args, history.get("provenance", {}))
    if done > args.iterations:
        raise utils.InputError(f"{path} is at iteration {done} already; give --iterations {done} or more")
    for iteration in args.snapshots:
        if iteration < done and not snapshot_path(args, iteration).exists():
            raise utils.InputError(f"{snapshot_path(args, iteration)} is missing; name other --snapshots or train anew")

    sums = torch.tensor(history["sums"], device=args.device)  # of distance and penalty since the last record
    interrupted, in_main_thread = [], threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the only one that may handle signals
        handler = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    saved = time.perf_counter()
    start = saved - history["seconds"]

    def save(path: Path, modules: dict, iteration: int) -> None:
        weights = sum(p.detach().sum() for network in (generator, critic) for p in network.parameters())
        utils.check_finite(sums + weights, f"at iteration {iteration}")
        history.update(iteration=iteration, seconds=time.perf_counter() - start, sums=sums.tolist())
        utils.save_checkpoint(path, config, modules, history)

    def noise() -> Tensor:
        return torch.randn(args.batch_size, args.latent_size, device=args.device)

    try:
        for iteration in trange(done, args.iterations + 1, desc="training", leave=False, disable=None):
            if iteration in args.snapshots:
                save(snapshot_path(args, iteration), {"generator": generator, "critic": critic}, iteration)
            if iteration == args.iterations or interrupted or time.perf_counter() - saved > SAVE_EVERY:
                save(path, modules, iteration)
                saved = time.perf_counter()
            if iteration == args.iterations or interrupted:
                break
            for _ in range(args.critic_updates):
                x = scale(images[torch.randint(len(images), (args.batch_size,), device=args.device)])
                with torch.no_grad():
                    y = generator(noise())
                distance, penalty = vf_wasserstein_distance(x, y, critic), lp_reg(x, y, critic)
                critic_adam.zero_grad()
                (args.penalty * penalty - distance).backward()
                critic_adam.step()
            critic.requires_grad_(False)  # the generator's step needs the gradient through the critic, not of it
            generator_adam.zero_grad()
            (-critic(generator(noise())).mean()).backward()
            generator_adam.step()
            critic.requires_grad_(True)
            sums += torch.stack([distance, penalty]).detach()
            if (iteration + 1) % RECORD_EVERY == 0:
                utils.check_finite(sums, f"at iteration {iteration + 1}")
                for name, value in zip(("distance", "penalty"), (sums / RECORD_EVERY).tolist(), strict=True):
                    history[name].append(value)
                sums.zero_()
            if (iteration + 1) % (10 * RECORD_EVERY) == 0:
                text = f"distance {history['distance'][-1]:.3f}, penalty {history['penalty'][-1]:.4f}"
                with tqdm.external_write_mode():
                    print(f"iteration {iteration + 1}: {text}, {time.perf_counter() - start:.0f} s", flush=True)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
    if interrupted:
        raise KeyboardInterrupt


@torch.no_grad()
def recalibrate(generator: Generator, z: Tensor) -> None:
    """Set evaluation mode with batch-normalisation statistics estimated anew, as the mean over batches z: (S, B, L).

    Those of training lag behind the weights, and an untrained generator has none: it would draw flat grey.
    """
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    generator.train()
    for batch in z:
        generator(batch)
    generator.eval()


def load_generators(args: argparse.Namespace, config: dict) -> tuple[dict[int, Generator], dict]:
    """Return the generators of the snapshots, recalibrated, by iteration, and the history up to the last."""
    torch.manual_seed(args.seed)
    generators, z = {}, torch.randn(20, args.batch_size, args.latent_size, device=args.device)
    for iteration in args.snapshots:
        path = snapshot_path(args, iteration)
        if not path.exists():
            raise utils.InputError(f"{path} is missing; name other --snapshots, or train without --figures-only")
        generator = Generator(args.latent_size, args.width)
        history = utils.load_checkpoint(path, config, {"generator": generator})["history"]
        generators[iteration] = generator.to(args.device, memory_format=utils.memory_format(args.device))
        recalibrate(generator, z)
    return generators, history


def train_classifier(data: dict, args: argparse.Namespace, source: str) -> tuple[Classifier, float]:
    """Train the classifier, or take it from its checkpoint; return it in evaluation mode with its test accuracy."""
    path = args.out / "classifier.pt"
    config = {"classifier_steps": args.classifier_steps, "augmentation": "none"}
    config |= {"seed": args.seed, "source": source}
    torch.manual_seed(args.seed)
    classifier = Classifier().to(args.device, memory_format=utils.memory_format(args.device))
    history = utils.restore(args, path, config, {"classifier": classifier}, {})
    if not history:
        optimizer = torch.optim.Adam(classifier.parameters(), fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=args.classifier_steps)
        images, labels = data["train_images"], data["train_labels"]
        for _ in trange(args.classifier_steps, desc="classifier", leave=False, disable=None):
            batch = torch.randint(len(images), (128,), device=args.device)
            loss = F.cross_entropy(classifier(scale(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        utils.save_checkpoint(path, config, {"classifier": classifier}, {"steps": args.classifier_steps})
    classifier.eval()
    _, probabilities = classify(classifier, scale(data["test_images"]))
    return classifier, utils.mean(probabilities.argmax(1) == data["test_labels"])


# --- Evaluation -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def generate(generator: Generator, z: Tensor) -> Tensor:
    """Images (..., 3, 32, 32) for z: (..., L), in chunks."""
    return torch.cat([generator(chunk) for chunk in z.flatten(0, -2).split(500)]).unflatten(0, z.shape[:-1])


@torch.no_grad()
def classify(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, 128) and class probabilities (N, 10), in chunks.

    The features have unit length: those of noise are short, and so lie near to everything otherwise.
    """
    features = torch.cat([classifier.features(chunk) for chunk in images.split(500)])
    return F.normalize(features), classifier.output(features).softmax(1)


def frechet_distance(p: Tensor, q: Tensor) -> float:
    """|m_p - m_q|^2 + tr(C_p + C_q - 2 (C_p C_q)^1/2) of features (N, F), (M, F) (Heusel et al., arXiv 1706.08500)."""
    p, q = p.cpu().double(), q.cpu().double()
    cov_p, cov_q = p.T.cov(), q.T.cov()
    eigenvalues = torch.linalg.eigvals(cov_p @ cov_q).real.clamp(min=0)  # those of the root are their roots
    return float((p.mean(0) - q.mean(0)).square().sum() + (cov_p + cov_q).trace() - 2 * eigenvalues.sqrt().sum())


def radii(features: Tensor) -> Tensor:
    """Distance of each of the features (N, F) to its k-th neighbour among the others: (N,).

    The widest twentieth, around images that lie alone, is 0: a single one of them may hold all images of noise.
    """
    distances = torch.cdist(features, features).kthvalue(min(NEIGHBOURS + 1, len(features)), dim=1).values
    return distances.where(distances <= distances.quantile(0.95), 0)


def measure(images: Tensor, classifier: Classifier, real: Tensor, real_radii: Tensor) -> dict:
    """Quality and diversity of images (N, 3, 32, 32) beside the features (M, F) of real ones and their `radii`.

    Precision is the share of images within the radius of a real one, recall the share of real ones within the radius
    of an image (Kynkäänniemi et al., arXiv 1904.06991, eq. 2); distance is the mean one to the nearest real image,
    between unit vectors.
    """
    features, probabilities = classify(classifier, images)
    distances = torch.cdist(features, real)
    return {
        "frechet": frechet_distance(features, real),
        "precision": utils.mean((distances <= real_radii).any(1)),
        "recall": utils.mean((distances <= radii(features)[:, None]).any(0)),
        "distance": utils.mean(distances.amin(1)),
        "confidence": utils.mean(probabilities.amax(1)),
        "histogram": torch.bincount(probabilities.argmax(1), minlength=10).tolist(),
    }


def read(classifier: Classifier, images: Tensor) -> Tensor:
    """The digit in each of the images (..., 3, 32, 32): (...), -1 where the classifier is not sure."""
    confidence, digits = classify(classifier, images.flatten(0, -4))[1].max(1)
    return digits.masked_fill(confidence < SURE, -1).view(images.shape[:-3])


def perturb(z: Tensor, directions: Tensor, epsilons: Tensor) -> Tensor:
    """z + epsilon * direction for z: (N, L), directions (N, L) or (L,) and each of the epsilons (E,): (E, N, L)."""
    return z + epsilons[:, None, None] * directions


def measure_perturbation(generator: Generator, classifier: Classifier, z: Tensor, dims: list[int]) -> dict:
    """Share of z: (N, L) taken from a sure digit to another, for each step of EPSILONS.

    Steps go along the dimensions that were asked for, along all, and along as many random directions.
    """
    size, epsilons = z.shape[1], torch.tensor(EPSILONS, device=z.device)
    before, shares = read(classifier, generate(generator, z)), []
    for direction in torch.cat([torch.eye(size), F.normalize(torch.randn(size, size))]).to(z.device):
        after = read(classifier, generate(generator, perturb(z, direction, epsilons)))
        changed = (before >= 0) & (after >= 0) & (after != before)
        shares.append(changed.sum(1) / (before >= 0).sum().clamp(min=1))
    along, random = torch.stack(shares).split(size)  # each (L, E)
    shares = {"asked": along[dims], "all": along, "random": random}
    return {name: share.mean(0).tolist() for name, share in shares.items()}


def interpolate(generator: Generator, z0: Tensor, z1: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """(a) g(alpha z0 + (1 - alpha) z1) and (b) alpha g(z0) + (1 - alpha) g(z1), each (len(alphas), N, 3, 32, 32)."""
    a = alphas.view(-1, 1, 1)
    latent = generate(generator, a * z0 + (1 - a) * z1)
    a = alphas.view(-1, 1, 1, 1, 1)
    return latent, a * generate(generator, z0) + (1 - a) * generate(generator, z1)


def measure_interpolation(paths: Tensor, classifier: Classifier, real: Tensor) -> dict:
    """What is met on paths (A, N, 3, 32, 32) beside the features (M, F) of real images, means over N.

    Distance to the nearest real image and confidence for each of A; the number of sure digits on a path, and the
    largest step between its images relative to the mean one, in pixels.
    """
    features, probabilities = (x.unflatten(0, paths.shape[:2]) for x in classify(classifier, paths.flatten(0, 1)))
    steps = paths.diff(dim=0).flatten(2).norm(dim=2)
    return {
        "distance": torch.cdist(features, real).amin(2).mean(1).tolist(),
        "confidence": probabilities.amax(2).mean(1).tolist(),
        "digits": utils.mean((probabilities >= SURE).any(0).sum(1)),
        "largest_step": utils.mean(steps.amax(0) / steps.mean(0).clamp(min=1e-12)),
    }


def gather(sets: list) -> dict | list:
    """Join equal nested dicts into one with lists of their leaves."""
    return {key: gather([s[key] for s in sets]) for key in sets[0]} if isinstance(sets[0], dict) else sets


def evaluate(generators: dict[int, Generator], classifier: Classifier, data: dict, args: argparse.Namespace) -> dict:
    """The numbers behind the claims: lists over sets of noise, each beside a random half of the test images.

    Per snapshot what `measure` returns, and for the other half of the test images ("real"); for the last snapshot what
    `measure_perturbation` and `measure_interpolation` return.
    """
    torch.manual_seed(args.seed if args.noise_seed is None else args.noise_seed)
    last, sets = generators[args.snapshots[-1]], []
    for _ in trange(NOISE_SETS, desc="evaluation", leave=False, disable=None):
        chosen = torch.randperm(len(data["test_images"]), device=args.device)[: 2 * args.samples]
        real, others = scale(data["test_images"][chosen]).chunk(2)
        real, _ = classify(classifier, real)
        yardstick = classifier, real, radii(real)
        z = torch.randn(len(others), args.latent_size, device=args.device)
        pairs, starts = len(z) // 25 + 1, len(z) // 100 + 1  # 1,005 and 255 in all sets, by default
        latent, pixel = interpolate(last, z[:pairs], z[-pairs:], ALPHAS.to(z.device))
        sets.append(
            {
                "per_snapshot": {str(i): measure(generate(g, z), *yardstick) for i, g in generators.items()},
                "real": measure(others, *yardstick),
                "perturbation": measure_perturbation(last, classifier, z[:starts], args.perturb_dims),
                "latent": measure_interpolation(latent, classifier, real),
                "pixel": measure_interpolation(pixel, classifier, real),
            }
        )
    return gather(sets)


# --- Figures ----------------------------------------------------------------------------------------------------------


def draw_curves(metrics: dict, out: Path) -> None:
    """Write the figures that need metrics.json alone: training, quality of the snapshots, interpolation."""
    results, training = metrics["results"], metrics["history"]["training"]
    titles = {"distance": "Critic's estimate of the Wasserstein distance", "penalty": "Lipschitz penalty"}
    labels = {"xlabel": "generator iteration", "ylabel": f"mean of {RECORD_EVERY} iterations"}
    with utils.panels(out / "training.png", titles, **labels) as panels:
        for name, axes in panels.items():
            iterations = range(RECORD_EVERY, RECORD_EVERY * len(training[name]) + 1, RECORD_EVERY)
            axes.plot(iterations, training[name], linewidth=1, marker="." if len(iterations) < 20 else None)
            axes.set_yscale("symlog", linthresh=0.01)  # logarithmic, but an estimate may be negative

    snapshots = {int(iteration): numbers for iteration, numbers in results["per_snapshot"].items()}
    titles = {name: words.STATISTICS[name] for name in ("frechet", "precision", "recall", "entropy")}
    with utils.panels(out / "quality.png", titles, xlabel="generator iteration") as panels:
        for name, axes in panels.items():
            values = [words.sets_of(numbers, name) for numbers in snapshots.values()]
            lines = axes.plot(list(snapshots), values, color="C0", marker=".", linewidth=0.8)
            lines[0].set_label("samples, a line for each set of noise")
            real = np.mean(words.sets_of(results["real"], name))
            axes.axhline(real, color="black", linestyle=":", label="real images")
            axes.set_xscale("symlog", linthresh=100)
            axes.set_xlim(left=0)

    titles = {"distance": "Distance to the nearest real image", "confidence": "Classifier's confidence"}
    with utils.panels(out / "interpolation_curves.png", titles, xlabel="α") as panels:
        for name, axes in panels.items():
            for scheme in ("latent", "pixel"):
                axes.plot(ALPHAS, np.mean(results[scheme][name], 0), marker=".", label=f"{scheme} interpolation")
            mean = np.mean(snapshots[results["snapshots"][-1]][name])
            axes.axhline(mean, color="black", linestyle=":", label="plain samples")


def draw_images(generators: dict, classifier: Classifier, args: argparse.Namespace) -> list[list[int]]:
    """Write the figures of images: the same noise at all snapshots, perturbations and interpolations of the last.

    Those start at the first noise vectors whose image the classifier is sure of. Returns the digits that it reads in
    the perturbed images, a row for each dimension, at ε = 0, 1, ..., 20, -1 where it is not sure.
    """
    torch.manual_seed(args.seed)
    z = torch.randn(1000, args.latent_size, device=args.device)
    strips = {f"iteration {iteration:,}": generate(g, z[:20]) for iteration, g in generators.items()}
    utils.draw_strips(strips, [""] * 20, "Samples of the same noise", args.out / "samples.png")

    iteration, last = list(generators.items())[-1]
    z = z[(read(classifier, generate(last, z)) < 0).int().argsort(stable=True)]  # those of sure digits first
    dims, epsilons = args.perturb_dims, torch.arange(EPSILONS[-1] + 1, device=args.device)
    images = generate(last, perturb(z[: len(dims)], torch.eye(args.latent_size, device=args.device)[dims], epsilons))
    digits = read(classifier, images).T.cpu()
    strips = {f"dimension {d}": images[:, row] for row, d in enumerate(dims)}
    title = f"One latent dimension raised by ε, with the digit the classifier is sure of, iteration {iteration:,}"
    utils.draw_strips(strips, ["z", *epsilons.tolist()[1:]], title, args.out / "perturbation.png", digits)

    latent, pixel = interpolate(last, z[:8:2], z[1:8:2], ALPHAS.to(args.device))
    paths = {"(a) latent": latent, "(b) pixel": pixel}
    strips = {f"{pair + 1} {name}": path[:, pair] for pair in range(4) for name, path in paths.items()}
    title = f"Interpolation from z1 (α = 0) to z0 (α = 1), iteration {iteration:,}"
    utils.draw_strips(strips, [f"{alpha:.1f}" for alpha in ALPHAS], title, args.out / "interpolation.png")
    return digits.tolist()


# --- Command line -----------------------------------------------------------------------------------------------------


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = utils.make_parser(__doc__, "q2_gan", ["svhn", "mnist", "synthetic"], QUICK)
    add = parser.add_argument
    add("--iterations", type=utils.positive_int, default=50_000, help="updates of the generator")
    add("--critic-updates", type=utils.positive_int, default=5, help="updates of the critic for each of the generator")
    add("--penalty", type=utils.positive_float, default=10.0, help="coefficient of the Lipschitz penalty")
    add("--batch-size", type=utils.positive_int, default=64, help="images per update")
    add("--lr", type=utils.positive_float, default=1e-4, help="learning rate of Adam, betas 0.5 and 0.9")
    add("--width", type=utils.positive_int, default=64, help="channels h next to the image; deeper layers: 2h, 4h")
    add("--latent-size", type=utils.positive_int, default=100, help="number of latent variables")
    add("--snapshots", type=utils.natural, nargs="+", help="iterations to keep (default: at 0, 14, 40 and 100%%)")
    add("--perturb-dims", type=utils.natural, nargs="+", default=[3, 30, 35, 50], help="latent dimensions to perturb")
    add("--classifier-steps", type=utils.positive_int, default=900, help="updates of the classifier, 128 images each")
    add("--samples", type=utils.two_or_more, default=5000, help="samples per snapshot and set of noise, to be measured")
    add("--noise-seed", type=utils.natural, help="seed of the noise that is measured (default: SEED)")
    args = utils.parse_args(parser, argv, QUICK)
    if args.snapshots is None:
        kept = [int(path.stem.split("_")[1]) for path in args.out.glob("snapshot_*.pt") if path.stem[9:].isdigit()]
        args.snapshots = kept if args.figures_only else [round(place * args.iterations) for place in SNAPSHOT_PLACES]
    args.snapshots = sorted(set(args.snapshots))
    if max(args.snapshots, default=0) > args.iterations and not args.figures_only:
        raise utils.InputError(f"--snapshots {args.snapshots[-1]} lies past --iterations {args.iterations}")
    if (dim := max(args.perturb_dims)) >= args.latent_size:
        raise utils.InputError(f"--perturb-dims {dim}: dimensions go from 0 to {args.latent_size - 1}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    print(f"device: {utils.describe(args.device)}", flush=True)
    if not args.snapshots:  # to draw from
        return redraw(args.out, draw_curves, words)
    data, source = utils.load_rgb(args)
    print(f"data: {source}", flush=True)
    if not args.figures_only:
        checkpoints = [args.out / "checkpoint.pt", *sorted(args.out.glob("snapshot_*.pt")), args.out / "classifier.pt"]
        utils.prepare_out(args, checkpoints)
    torch.backends.cudnn.benchmark = True
    config = training_config(args, source)
    if not args.figures_only:
        train(data, args, config)
    start = time.perf_counter()
    classifier, accuracy = train_classifier(data, args, source)
    generators, history = load_generators(args, config)
    results = {"snapshots": args.snapshots, "classifier_accuracy": accuracy, "sure": SURE, "neighbours": NEIGHBOURS}
    results |= evaluate(generators, classifier, data, args)
    results["perturbation"] |= {"epsilons": EPSILONS, "digits": draw_images(generators, classifier, args)}
    seconds = history["seconds"] + time.perf_counter() - start
    run_config = utils.run_config(args, source) | {"iterations": args.snapshots[-1]}
    provenance, history = history["provenance"], {"training": {key: history[key] for key in ("distance", "penalty")}}
    utils.save_metrics(args.out, "q2_gan", provenance, run_config, seconds=seconds, history=history, results=results)
    publish(args.out, draw_curves, words)


if __name__ == "__main__":
    utils.run(main)
