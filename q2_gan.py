"""Problem 2: a Wasserstein GAN with a Lipschitz penalty on SVHN.

Trains the GAN, keeps snapshots of its generator, draws samples, perturbations and interpolations from them, and puts a
number behind each claim with a small classifier trained on the same labelled data.

    python q2_gan.py --quick                               about a minute on two CPU cores, synthetic house numbers
    python q2_gan.py                                       the report's recipe on SVHN; hours on a GPU, a day on a CPU
    python q2_gan.py --data mnist --width 32 --critic-updates 2 --lr 3e-4 --iterations 14000        two CPU cores, hours
"""

import argparse
import math
import signal
import time
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.utils import make_grid
from tqdm import trange

import utils

SNAPSHOT_PLACES = (0, 0.14, 0.4, 1)  # of the iterations; the report's 0, 7,000, 20,000 and 50,000
LOG_EVERY = 100  # iterations
SAVE_EVERY = 60  # seconds
QUICK = {"iterations": 150, "width": 16, "critic_updates": 2, "lr": 1e-3, "classifier_steps": 150, "samples": 2000}


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
        self.z_dim = z_dim
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


def random_batch(images: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Draw images, scaled to [-1, 1], and their labels, with replacement."""
    index = torch.randint(len(images), (size,), device=images.device)
    return scale(images[index]), labels[index]


def scale(images: Tensor) -> Tensor:
    """Map uint8 to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def snapshot_path(args: argparse.Namespace, iteration: int) -> Path:
    return args.out / f"snapshot_{iteration}.pt"


def training_config(args: argparse.Namespace, source: str) -> dict:
    """What a checkpoint must agree with; more --iterations and other --snapshots may be asked for later."""
    keys = ("critic_updates", "penalty", "batch_size", "lr", "width", "latent_size", "seed")
    return {key: getattr(args, key) for key in keys} | {"source": source}


def train(data: dict, args: argparse.Namespace, config: dict) -> dict:
    """Train from the last checkpoint, or anew, up to --iterations, writing the snapshots; return the history."""
    torch.manual_seed(args.seed)
    generator = Generator(args.latent_size, args.width).to(args.device, memory_format=torch.channels_last)
    critic = Critic(args.width).to(args.device, memory_format=torch.channels_last)
    optimizers = [torch.optim.Adam(m.parameters(), args.lr, (0.5, 0.9), fused=True) for m in (generator, critic)]
    modules = {"generator": generator, "critic": critic, "generator_adam": optimizers[0], "critic_adam": optimizers[1]}
    history = {"iteration": 0, "distance": [], "penalty": [], "seconds": 0.0, "sums": [0.0, 0.0]}
    path = args.out / "checkpoint.pt"
    if (args.resume or args.figures_only) and path.exists():
        history = utils.load_checkpoint(path, config, modules)
    for iteration in args.snapshots:
        if (args.figures_only or iteration < history["iteration"]) and not snapshot_path(args, iteration).exists():
            raise utils.InputError(f"{snapshot_path(args, iteration)} is missing; train anew or name other --snapshots")
    if args.figures_only:
        return history

    sums = torch.tensor(history["sums"], device=args.device)  # of distance and penalty since the last log line
    interrupted = []
    handler = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    saved = time.perf_counter()
    start = saved - history["seconds"]

    def save(iteration: int) -> None:
        utils.check_finite(sums, f"at iteration {iteration}")
        history.update(iteration=iteration, seconds=time.perf_counter() - start, sums=sums.tolist())
        utils.save_checkpoint(path, config, modules, history)

    def noise() -> Tensor:
        return torch.randn(args.batch_size, args.latent_size, device=args.device)

    try:
        for iteration in trange(history["iteration"], args.iterations + 1, leave=False, disable=None):
            if iteration in args.snapshots:
                utils.check_finite(sums, f"at iteration {iteration}")
                utils.save_checkpoint(snapshot_path(args, iteration), config, {"generator": generator}, {})
            if iteration == args.iterations or interrupted or time.perf_counter() - saved > SAVE_EVERY:
                save(iteration)
                saved = time.perf_counter()
            if iteration == args.iterations or interrupted:
                break
            for _ in range(args.critic_updates):
                x, _ = random_batch(data["train_images"], data["train_labels"], args.batch_size)
                with torch.no_grad():
                    y = generator(noise())
                distance, penalty = vf_wasserstein_distance(x, y, critic), lp_reg(x, y, critic)
                optimizers[1].zero_grad()
                (args.penalty * penalty - distance).backward()
                optimizers[1].step()
            critic.requires_grad_(False)  # the generator's step needs the gradient through the critic, not of it
            optimizers[0].zero_grad()
            (-critic(generator(noise())).mean()).backward()
            optimizers[0].step()
            critic.requires_grad_(True)
            sums += torch.stack([distance, penalty]).detach()
            if (iteration + 1) % LOG_EVERY == 0:
                utils.check_finite(sums, f"at iteration {iteration + 1}")
                for name, value in zip(("distance", "penalty"), (sums / LOG_EVERY).tolist(), strict=True):
                    history[name].append(value)
                sums.zero_()
                print(
                    f"iteration {iteration + 1}/{args.iterations}: distance {history['distance'][-1]:.3f}, "
                    f"penalty {history['penalty'][-1]:.4f}, {time.perf_counter() - start:.0f} s",
                    flush=True,
                )
    finally:
        signal.signal(signal.SIGINT, handler)
    if interrupted:
        raise KeyboardInterrupt
    return history


def load_generators(args: argparse.Namespace, config: dict) -> dict[int, Generator]:
    """Return the generator of each snapshot in evaluation mode, by iteration."""
    generators = {}
    for iteration in args.snapshots:
        generator = Generator(args.latent_size, args.width).to(args.device, memory_format=torch.channels_last)
        utils.load_checkpoint(snapshot_path(args, iteration), config, {"generator": generator})
        generators[iteration] = generator.eval()
    return generators


def train_classifier(data: dict, args: argparse.Namespace, source: str) -> tuple[Classifier, float]:
    """Train the classifier, or take it from its checkpoint; return it in evaluation mode with its test accuracy."""
    path = args.out / "classifier.pt"
    config = {"classifier_steps": args.classifier_steps, "seed": args.seed, "source": source}
    torch.manual_seed(args.seed)
    classifier = Classifier().to(args.device, memory_format=torch.channels_last)
    if (args.resume or args.figures_only) and path.exists():
        utils.load_checkpoint(path, config, {"classifier": classifier})
    else:
        optimizer = torch.optim.Adam(classifier.parameters(), fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=args.classifier_steps)
        for _ in trange(args.classifier_steps, desc="classifier", leave=False, disable=None):
            x, labels = random_batch(data["train_images"], data["train_labels"], 128)
            loss = F.cross_entropy(classifier(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        utils.save_checkpoint(path, config, {"classifier": classifier}, {})
    classifier.eval()
    _, probabilities = classify(classifier, scale(data["test_images"]))
    return classifier, utils.mean(probabilities.argmax(1) == data["test_labels"])


# --- Evaluation -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def generate(generator: Generator, z: Tensor) -> Tensor:
    """Images (N, 3, 32, 32) for z: (N, L), in chunks."""
    return torch.cat([generator(chunk) for chunk in z.split(500)])


@torch.no_grad()
def classify(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, 128) and class probabilities (N, 10), in chunks."""
    features = torch.cat([classifier.features(chunk) for chunk in images.split(500)])
    return features, classifier.output(features).softmax(1)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,) and covariance (F, F) of features (N, F), in float64 on the CPU."""
    features = features.double().cpu()
    return features.mean(0), features.T.cov()


def frechet_distance(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> float:
    """|m_p - m_q|^2 + tr(C_p + C_q - 2 (C_p C_q)^1/2) of two (mean, covariance) (Heusel et al., arXiv 1706.08500)."""
    (mean_p, cov_p), (mean_q, cov_q) = p, q
    values, vectors = torch.linalg.eigh(cov_p)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    trace_of_root = torch.linalg.eigvalsh(root @ cov_q @ root).clamp(min=0).sqrt().sum()
    return float((mean_p - mean_q).square().sum() + cov_p.trace() + cov_q.trace() - 2 * trace_of_root)


def sharpness(images: Tensor) -> float:
    """Mean magnitude of the brightness gradient of images (N, 3, H, W), per pixel, in units of the range [-1, 1]."""
    grey = images.mean(1)
    dx, dy = grey[:, :-1, 1:] - grey[:, :-1, :-1], grey[:, 1:, :-1] - grey[:, :-1, :-1]
    return float((dx.square() + dy.square()).sqrt().mean())


def entropy_bits(counts: Tensor) -> float:
    """Entropy of a histogram in bits; log2(10) = 3.32 for ten equally frequent digits."""
    p = counts.double() / counts.sum()
    return abs(float(torch.xlogy(p, p).sum())) / math.log(2)


def measure(images: Tensor, classifier: Classifier, reference: tuple[Tensor, Tensor]) -> dict:
    """Diversity, quality and sharpness of images (N, 3, 32, 32) in [-1, 1]; `reference`: moments of the test set."""
    features, probabilities = classify(classifier, images)
    counts = torch.bincount(probabilities.argmax(1), minlength=10).cpu()
    return {
        "histogram": counts.tolist(),
        "entropy": entropy_bits(counts),
        "frechet": frechet_distance(moments(features), reference),
        "confidence": utils.mean(probabilities.amax(1)),
        "sharpness": sharpness(images),
    }


def perturb(z: Tensor, dimension: int, steps: int) -> Tensor:
    """z: (N, L) with 0, 1 ... `steps` added to one coordinate: (steps + 1, N, L)."""
    perturbed = z.repeat(steps + 1, 1, 1)
    perturbed[:, :, dimension] += torch.arange(steps + 1, device=z.device)[:, None]
    return perturbed


def interpolate(generator: Generator, z0: Tensor, z1: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """(a) g(alpha z0 + (1 - alpha) z1) and (b) alpha g(z0) + (1 - alpha) g(z1), each (len(alphas), N, 3, 32, 32)."""
    a = alphas.view(-1, 1, 1)
    latent = generate(generator, (a * z0 + (1 - a) * z1).flatten(0, 1)).unflatten(0, (len(alphas), len(z0)))
    a = alphas.view(-1, 1, 1, 1, 1)
    return latent, a * generate(generator, z0) + (1 - a) * generate(generator, z1)


def evaluate(generators: dict, classifier: Classifier, data: dict, args: argparse.Namespace) -> dict:
    """The numbers behind the claims: every snapshot's samples, and perturbations and interpolations of the last."""
    torch.manual_seed(args.seed)
    reference = moments(classify(classifier, scale(data["test_images"]))[0])
    real = scale(data["train_images"][: args.samples])
    z = torch.randn(args.samples, args.latent_size, device=args.device)
    snapshots = {str(i): measure(generate(g, z), classifier, reference) for i, g in generators.items()}

    last = generators[args.snapshots[-1]]
    changed, moved = [], []
    for dimension in range(args.latent_size):
        images = generate(last, perturb(z[:16], dimension, args.perturb_max).flatten(0, 1))
        digits = classify(classifier, images)[1].argmax(1).view(-1, 16)
        changed.append(utils.mean(digits[1:] != digits[0]))
        images = images.unflatten(0, (-1, 16))
        moved.append(float((images[-1] - images[0]).square().mean((1, 2, 3)).sqrt().mean()))

    pairs = z[: args.samples // 2 * 2][-2000:].chunk(2)
    middle = interpolate(last, *pairs, torch.tensor([0.4, 0.5, 0.6], device=args.device))
    latent, pixel = (measure(images.flatten(0, 1), classifier, reference) for images in middle)
    return {
        "real": measure(real, classifier, reference),
        "per_snapshot": snapshots,
        "perturbation": {"changed": changed, "moved": moved},
        "interpolation": {"latent": latent, "pixel": pixel, "pairs": len(pairs[0])},
    }


# --- Figures and report -----------------------------------------------------------------------------------------------


def draw_grids(grids: dict[str, Tensor], path: Path) -> None:
    """Grids of 8 x 8 images (64, 3, 32, 32) in [-1, 1], side by side under their titles."""
    figure = Figure(figsize=(3.6 * len(grids), 3.9), layout="constrained")
    for axes, (title, images) in zip(figure.subplots(1, len(grids), squeeze=False)[0], grids.items(), strict=True):
        show(axes, make_grid(images, nrow=8, padding=1, pad_value=1))
        axes.set_title(title)
    utils.save_figure(figure, path)


def draw_strips(strips: dict[str, Tensor], labels: list[str], title: str, path: Path) -> None:
    """A row of images (len(labels), 3, 32, 32) for each entry, its name on the left and `labels` above the columns."""
    figure = Figure(figsize=(0.42 * len(labels) + 1.2, 0.45 * len(strips) + 0.8))
    figure.subplots_adjust(
        left=1.2 / figure.get_figwidth(), right=0.995, bottom=0.01, top=1 - 0.7 / figure.get_figheight()
    )
    axes = figure.subplots()
    show(axes, torch.cat([make_grid(row, nrow=len(labels), padding=1, pad_value=1) for row in strips.values()], 1))
    axes.set_xticks([33 * i + 17 for i in range(len(labels))], labels, fontsize=8)
    axes.set_yticks([34 * i + 17 for i in range(len(strips))], list(strips), fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.axis("on")
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    utils.save_figure(figure, path)


def show(axes: Axes, image: Tensor) -> None:
    """Show an image (3, H, W) in [-1, 1] without axes."""
    axes.imshow((image.cpu() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest", aspect="equal")
    axes.axis("off")


def draw_training(history: dict, path: Path) -> None:
    """The critic's estimate of the Wasserstein distance and the penalty against iterations."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    titles = {"distance": "Critic's estimate of the Wasserstein distance", "penalty": "Lipschitz penalty"}
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        iterations = range(LOG_EVERY, LOG_EVERY * len(history[name]) + 1, LOG_EVERY)
        axes.plot(iterations, history[name], linewidth=1, marker="." if len(iterations) < 20 else None)
        axes.set(xlabel="generator iteration", ylabel=f"mean of {LOG_EVERY} iterations", title=title)
        axes.grid(alpha=0.3)
    utils.save_figure(figure, path)


def draw_figures(generators: dict, history: dict, args: argparse.Namespace) -> None:
    """Write every figure; all snapshots get the same noise, perturbations and interpolations are of the last."""
    torch.manual_seed(args.seed)
    z = torch.randn(64, args.latent_size, device=args.device)
    grids = {f"iteration {iteration:,}": generate(g, z) for iteration, g in generators.items()}
    draw_grids(grids, args.out / "samples.png")
    for iteration, (title, grid) in zip(generators, grids.items(), strict=True):
        draw_grids({title: grid}, args.out / f"samples_{iteration}.png")

    last, iteration = generators[args.snapshots[-1]], args.snapshots[-1]
    strips = {f"dimension {d}": generate(last, perturb(z[:1], d, args.perturb_max)[:, 0]) for d in args.perturb_dims}
    labels = ["z", *map(str, range(1, args.perturb_max + 1))]
    title = f"One latent dimension raised by ε, iteration {iteration:,}"
    draw_strips(strips, labels, title, args.out / "perturbation.png")

    alphas = torch.linspace(0, 1, 11, device=args.device)
    strips = {}
    for pair in range(4):
        images = interpolate(last, z[2 * pair : 2 * pair + 1], z[2 * pair + 1 : 2 * pair + 2], alphas)
        strips |= {f"{pair + 1} (a) latent": images[0][:, 0], f"{pair + 1} (b) pixel": images[1][:, 0]}
    title = f"Interpolation between z1 (α = 0) and z0 (α = 1), iteration {iteration:,}"
    draw_strips(strips, [f"{alpha:.1f}" for alpha in alphas], title, args.out / "interpolation.png")
    if history["distance"]:  # absent where only the snapshots are left
        draw_training(history, args.out / "training.png")


def closing_table(metrics: dict) -> str:
    """Each claim of the report with its number, and whether the number supports it."""
    config, results = metrics["config"], metrics["results"]
    snapshots = [results["per_snapshot"][str(iteration)] for iteration in results["snapshots"]]
    middle = [results["interpolation"][scheme] for scheme in ("latent", "pixel")]
    changed = [results["perturbation"]["changed"][dimension] for dimension in config["perturb_dims"]]
    accuracy, entropy = results["classifier_accuracy"], snapshots[-1]["entropy"]

    def numbers(values: list[float]) -> str:
        return ", ".join(f"{value:.4g}" for value in values)

    def compare(
        quantity: str, key: str, measured: list[dict], said: str, criterion: str, first: int, sign: int
    ) -> list:
        values = [x[key] for x in measured]
        met = all(sign * (b - a) > 0 for a, b in pairwise(values[first:]))
        return [quantity, numbers(values), said, criterion, met]

    rows = [
        ["classifier's test accuracy", accuracy, "-", ">= 0.95", accuracy >= 0.95],
        compare("Fréchet distance", "frechet", snapshots, "noise, blurred, crisp", "falls", 0, -1),
        compare("sharpness", "sharpness", snapshots, "blurred, then crisp", "rises from the second", 1, 1),
        compare(
            "entropy of the digits (bits)", "entropy", snapshots, "few digits, then all", "rises from the second", 1, 1
        ),
        ["entropy at the end (bits)", f"{entropy:.3f}", "diverse", "> 3.0", entropy > 3],
        ["digit changed by a dimension", numbers(changed), "changes the digit", "> 0 for each", min(changed) > 0],
        compare("confidence: latent, pixel", "confidence", middle, "a digit; not one", "falls", 0, -1),
        compare("Fréchet distance: latent, pixel", "frechet", middle, "on the manifold; off it", "rises", 0, 1),
    ]
    return utils.make_table(["quantity", "ours", "report says", "criterion", "met"], rows)


def report(metrics: dict) -> str:
    """Return report.md: the answers to questions 2.2 to 2.4 with the numbers of this run."""
    config, results = metrics["config"], metrics["results"]
    named = {f"iteration {i:,}": results["per_snapshot"][str(i)] for i in results["snapshots"]}
    rows = []
    for name, numbers in (named | {"training images": results["real"]}).items():
        top = sorted(range(10), key=lambda digit: -numbers["histogram"][digit])[:3]
        share = sum(numbers["histogram"][digit] for digit in top) / sum(numbers["histogram"])
        values = [
            f"{numbers['frechet']:.1f}",
            *(f"{numbers[key]:.3f}" for key in ("entropy", "confidence", "sharpness")),
        ]
        rows.append([name, *values, f"{', '.join(map(str, top))}: {100 * share:.0f}%"])
    header = ["images", "Fréchet distance", "entropy (bits)", "confidence", "sharpness", "three most frequent digits"]
    snapshot_table = utils.make_table(header, rows)

    changed, moved = results["perturbation"]["changed"], results["perturbation"]["moved"]
    ranked = sorted(range(len(changed)), key=lambda d: -changed[d])
    shown = list(dict.fromkeys([*config["perturb_dims"], *ranked[:5], ranked[-1]]))
    rows = [[d, f"{changed[d]:.3f}", f"{moved[d]:.3f}", ranked.index(d) + 1] for d in shown]
    dimension_table = utils.make_table(["dimension", "digit changes", "image moves", "rank"], rows)

    schemes = {"(a) latent": results["interpolation"]["latent"], "(b) pixel": results["interpolation"]["pixel"]}
    rows = [[k, f"{v['frechet']:.1f}", f"{v['confidence']:.4f}", f"{v['sharpness']:.4f}"] for k, v in schemes.items()]
    interpolation_table = utils.make_table(["interpolation", "Fréchet distance", "confidence", "sharpness"], rows)
    last = results["snapshots"][-1]
    grids = "\n".join(f"![samples at iteration {i:,}](samples_{i}.png)" for i in results["snapshots"])

    return f"""# Problem 2: Wasserstein GAN

- Data: {metrics["data"]}.
- Recipe: {config["iterations"]:,} generator iterations with {config["critic_updates"]} critic updates each, width
  {config["width"]}, penalty coefficient {config["penalty"]:g}, batch {config["batch_size"]}, Adam {config["lr"]:g} with
  betas (0.5, 0.9). The report's recipe: SVHN, 50,000 iterations, 5 critic updates, width 64, Adam 1e-4.
- Device: {metrics["device"]}, torch {metrics["versions"]["torch"]}. Time: {metrics["seconds"] / 60:.0f} minutes.

The numbers come from a small convolutional classifier trained on the same labelled images; its accuracy on the test
images is {results["classifier_accuracy"]:.4f}. The Fréchet distance compares its 128 features of {config["samples"]:,}
samples with those of the test images.

{closing_table(metrics)}

![critic's estimate and penalty](training.png)

## 2.2 Samples

The same noise at each snapshot. Entropy is that of the classifier's digits (at most 3.32 bits), confidence its mean
largest probability, sharpness the mean magnitude of the brightness gradient.

{snapshot_table}

![samples of all snapshots](samples.png)

{grids}

## 2.3 Perturbation of one latent dimension

For each latent dimension: how often the classifier's digit differs from that of the unperturbed image, over 16 noise
vectors and ε = 1 … {config["perturb_max"]}, and how far the image moves at the largest ε (root mean square over
pixels in [-1, 1]). The asked dimensions first, then the five that change the digit most and the one that does least:

{dimension_table}

On average over all {len(changed)} dimensions the digit changes in {100 * sum(changed) / len(changed):.1f}% of the
images.

![perturbations](perturbation.png)

## 2.4 Interpolation

{results["interpolation"]["pairs"]:,} pairs at α = 0.4, 0.5 and 0.6; for comparison, samples of iteration {last:,} have
a Fréchet distance of {results["per_snapshot"][str(last)]["frechet"]:.1f}.

{interpolation_table}

![interpolations](interpolation.png)
"""


# --- Command line -----------------------------------------------------------------------------------------------------


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = utils.make_parser(__doc__, "q2_gan", ["svhn", "mnist", "synthetic"], QUICK)
    add = parser.add_argument
    add("--iterations", type=utils.positive_int, default=50_000, help="updates of the generator")
    add("--critic-updates", type=utils.positive_int, default=5, help="updates of the critic for each of the generator")
    add("--penalty", type=utils.positive_float, default=10.0, help="coefficient of the Lipschitz penalty")
    add("--batch-size", type=utils.positive_int, default=64, help="images per update")
    add("--lr", type=utils.positive_float, default=1e-4, help="learning rate of Adam, betas 0.5 and 0.9")
    add(
        "--width",
        type=utils.positive_int,
        default=64,
        help="channels h_dim of the widest layer; deeper ones have 2h, 4h",
    )
    add("--latent-size", type=utils.positive_int, default=100, help="number of latent variables")
    add(
        "--snapshots", type=utils.natural, nargs="+", help="iterations to keep (default: 0, 14%%, 40%% and all of them)"
    )
    add("--perturb-dims", type=utils.natural, nargs="+", default=[3, 30, 35, 50], help="latent dimensions to perturb")
    add("--perturb-max", type=utils.positive_int, default=20, help="largest perturbation, in the prior's deviations")
    add("--classifier-steps", type=utils.positive_int, default=900, help="updates of the classifier, 128 images each")
    add("--samples", type=utils.above_one, default=10_000, help="samples per snapshot for the numbers")
    args = utils.parse_args(parser, argv, QUICK)
    if args.snapshots is None:
        args.snapshots = [round(place * args.iterations) for place in SNAPSHOT_PLACES]
    args.snapshots = sorted(set(args.snapshots))
    if args.snapshots[-1] > args.iterations:
        raise utils.InputError(f"--snapshots {args.snapshots[-1]} lies past --iterations {args.iterations}")
    if max(args.perturb_dims) >= args.latent_size:
        raise utils.InputError(
            f"--perturb-dims {max(args.perturb_dims)}: dimensions go from 0 to {args.latent_size - 1}"
        )
    return args


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    print(f"device: {utils.describe(args.device)}", flush=True)
    data, source = utils.load_rgb(args)
    print(f"data: {source}", flush=True)
    utils.clear_checkpoints(args, "checkpoint.pt", "classifier.pt", "snapshot_*.pt")
    torch.backends.cudnn.benchmark = True
    config = training_config(args, source)
    history = train(data, args, config)
    start = time.perf_counter()
    classifier, accuracy = train_classifier(data, args, source)
    generators = load_generators(args, config)
    results = {"snapshots": args.snapshots, "classifier_accuracy": accuracy} | evaluate(
        generators, classifier, data, args
    )
    draw_figures(generators, history, args)
    seconds = history["seconds"] + time.perf_counter() - start
    curves = {key: history[key] for key in ("distance", "penalty")}
    measured = {"seconds": seconds, "history": curves, "results": results}
    metrics = utils.save_metrics(args.out, "q2_gan", utils.run_config(args, source), args.device, **measured)
    (args.out / "report.md").write_text(report(metrics))
    print(closing_table(metrics))
    print(f"figures, metrics.json and report.md are in {args.out}")


if __name__ == "__main__":
    utils.run(main)
