"""Problem 2: a Wasserstein GAN with a Lipschitz penalty on SVHN.

Trains the GAN, keeps snapshots of its generator, draws samples, perturbations and interpolations from them, and puts a
number behind each claim with a small classifier trained on the same labelled data.

    python q2_gan.py --quick                               two minutes on two CPU cores, synthetic digits
    python q2_gan.py                                       the original's recipe on SVHN; hours on a GPU, a day on a CPU
    python q2_gan.py --data mnist --width 32 --lr 3e-4 --iterations 21000         hours on one CPU core, on MNIST
"""

import argparse
import math
import signal
import threading
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.utils import make_grid
from tqdm import tqdm, trange

import utils
from results import gan as words
from results.pages import publish

SNAPSHOT_PLACES = (0, 0.14, 0.4, 1)  # of the iterations; the original's 0, 7,000, 20,000 and 50,000
RECORD_EVERY = 10  # iterations; a log line is printed for every tenth record
SAVE_EVERY = 60  # seconds
QUICK = {"iterations": 400, "width": 16, "lr": 1e-3, "classifier_steps": 150, "samples": 2000}


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


class LeakyReLU(nn.LeakyReLU):
    """A product with the slope, a constant to autograd; torch's own has the penalty run back through it with zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.ones_like(x).masked_fill(x <= 0, self.negative_slope)


class Critic(nn.Module):
    """Images (B, 3, 32, 32) to values (B,), without normalisation: the penalty is on each example's own gradient."""

    def __init__(self, h_dim: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, h_dim, 4, 2, 1), LeakyReLU(0.2)),
            *(nn.Conv2d(h_dim, 2 * h_dim, 4, 2, 1), LeakyReLU(0.2)),
            *(nn.Conv2d(2 * h_dim, 4 * h_dim, 4, 2, 1), LeakyReLU(0.2)),
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
                save(snapshot_path(args, iteration), {"generator": generator}, iteration)
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
                with tqdm.external_write_mode():
                    print(
                        f"iteration {iteration + 1}/{args.iterations}: distance {history['distance'][-1]:.3f}, "
                        f"penalty {history['penalty'][-1]:.4f}, {time.perf_counter() - start:.0f} s",
                        flush=True,
                    )
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
    if interrupted:
        raise KeyboardInterrupt


def load_generators(args: argparse.Namespace, config: dict) -> tuple[dict[int, Generator], dict]:
    """Return the generators of the snapshots in evaluation mode, by iteration, and the history up to the last."""
    generators = {}
    for iteration in args.snapshots:
        path = snapshot_path(args, iteration)
        if not path.exists():
            raise utils.InputError(f"{path} is missing; name other --snapshots, or train without --figures-only")
        generator = Generator(args.latent_size, args.width)
        history = utils.load_checkpoint(path, config, {"generator": generator})["history"]
        generators[iteration] = generator.eval().to(args.device, memory_format=utils.memory_format(args.device))
    return generators, history


def train_classifier(data: dict, args: argparse.Namespace, source: str) -> tuple[Classifier, float]:
    """Train the classifier, or take it from its checkpoint; return it in evaluation mode with its test accuracy."""
    path = args.out / "classifier.pt"
    config = {"classifier_steps": args.classifier_steps, "seed": args.seed, "source": source}
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
    """Images (N, 3, 32, 32) for z: (N, L), in chunks."""
    return torch.cat([generator(chunk) for chunk in z.split(500)])


@torch.no_grad()
def classify(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, 128) and class probabilities (N, 10), in chunks."""
    features = torch.cat([classifier.features(chunk) for chunk in images.split(500)])
    return features, classifier.output(features).softmax(1)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,) and covariance (F, F) of features (N, F), in float64 on the CPU."""
    features = features.cpu().double()
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


def perturb(z: Tensor, dimension: int, epsilons: Tensor) -> Tensor:
    """z: (N, L) with each of `epsilons`: (E,) added to one coordinate: (E, N, L)."""
    perturbed = z.repeat(len(epsilons), 1, 1)
    perturbed[:, :, dimension] += epsilons[:, None]
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
    epsilons = torch.linspace(0, args.perturb_max, 5, device=args.device)
    base, changed, moved = torch.randn(64, args.latent_size, device=args.device), [], []
    for dimension in trange(args.latent_size, desc="perturbations", leave=False, disable=None):
        images = generate(last, perturb(base, dimension, epsilons).flatten(0, 1))
        digits = classify(classifier, images)[1].argmax(1).view(len(epsilons), -1)
        changed.append(utils.mean(digits[1:] != digits[0]))
        images = images.unflatten(0, digits.shape)
        moved.append(utils.mean((images[-1] - images[0]).square().mean((1, 2, 3)).sqrt()))

    pairs = torch.randn(2, 1000, args.latent_size, device=args.device)
    latent, pixel = interpolate(last, *pairs, torch.tensor([0.4, 0.5, 0.6], device=args.device))
    schemes = {"latent": latent.flatten(0, 1), "pixel": pixel.flatten(0, 1), "samples": generate(last, z[:3000])}
    return {
        "real": measure(real, classifier, reference),
        "per_snapshot": snapshots,
        "perturbation": {"changed": changed, "moved": moved},
        "interpolation": {name: measure(images, classifier, reference) for name, images in schemes.items()},
    }


# --- Figures and report -----------------------------------------------------------------------------------------------


def show(axes: Axes, images: Tensor, columns: int) -> None:
    """Show images (N, 3, 32, 32) in [-1, 1] as a grid of 34 pixels to a cell."""
    grid = make_grid((images.cpu() / 2 + 0.5).clamp(0, 1), nrow=columns, padding=2, pad_value=1)
    axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)


def draw_grids(grids: dict[str, Tensor], path: Path) -> None:
    """Grids of 8 x 8 images (64, 3, 32, 32), side by side under their titles."""
    figure = Figure(figsize=(3.6 * len(grids), 3.9), layout="constrained")
    for axes, (title, images) in zip(figure.subplots(1, len(grids), squeeze=False)[0], grids.items(), strict=True):
        show(axes, images, 8)
        axes.set(title=title, xticks=[], yticks=[])
    utils.save_figure(figure, path)


def draw_strips(strips: dict[str, Tensor], labels: list[str], title: str, path: Path) -> None:
    """A row of images (len(labels), 3, 32, 32) for each entry, its name on the left and `labels` above the columns."""
    figure = Figure(figsize=(0.42 * len(labels) + 1.2, 0.45 * len(strips) + 0.8), layout="constrained")
    axes = figure.subplots()
    show(axes, torch.cat(list(strips.values())), len(labels))
    axes.set_xticks([34 * i + 18 for i in range(len(labels))], labels)
    axes.set_yticks([34 * i + 18 for i in range(len(strips))], list(strips))
    axes.set_title(title, fontsize=10)
    utils.save_figure(figure, path)


def draw_curves(metrics: dict, out: Path) -> None:
    """The critic's estimate of the Wasserstein distance and the penalty against iterations."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    titles = {"distance": "Critic's estimate of the Wasserstein distance", "penalty": "Lipschitz penalty"}
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        values = metrics["history"]["training"][name]
        iterations = range(RECORD_EVERY, RECORD_EVERY * len(values) + 1, RECORD_EVERY)
        axes.plot(iterations, values, linewidth=1, marker="." if len(iterations) < 20 else None)
        axes.set(xlabel="generator iteration", ylabel=f"mean of {RECORD_EVERY} iterations", title=title)
        axes.set_yscale("symlog", linthresh=0.01)  # logarithmic, but an estimate may be negative
        axes.grid(alpha=0.3)
    utils.save_figure(figure, out / "training.png")


def draw_images(generators: dict, args: argparse.Namespace) -> None:
    """Write the figures of images: the same noise at all snapshots, perturbations and interpolations of the last."""
    torch.manual_seed(args.seed)
    z = torch.randn(64, args.latent_size, device=args.device)
    grids = {f"iteration {iteration:,}": generate(g, z) for iteration, g in generators.items()}
    draw_grids(grids, args.out / "samples.png")

    iteration, last = list(generators.items())[-1]
    epsilons = torch.arange(args.perturb_max + 1, device=args.device)
    strips = {f"dimension {d}": generate(last, perturb(z[:1], d, epsilons)[:, 0]) for d in args.perturb_dims}
    title = f"One latent dimension raised by ε, iteration {iteration:,}"
    draw_strips(strips, ["z", *map(str, epsilons.tolist()[1:])], title, args.out / "perturbation.png")

    alphas = torch.linspace(0, 1, 11, device=args.device)
    latent, pixel = interpolate(last, z[:8:2], z[1:8:2], alphas)
    strips = {}
    for pair in range(4):
        strips |= {f"{pair + 1} (a) latent": latent[:, pair], f"{pair + 1} (b) pixel": pixel[:, pair]}
    title = f"Interpolation from z1 (α = 0) to z0 (α = 1), iteration {iteration:,}"
    draw_strips(strips, [f"{alpha:.1f}" for alpha in alphas], title, args.out / "interpolation.png")


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
    add("--perturb-max", type=utils.positive_int, default=20, help="largest perturbation, in the prior's deviations")
    add("--classifier-steps", type=utils.positive_int, default=900, help="updates of the classifier, 128 images each")
    add("--samples", type=utils.two_or_more, default=10_000, help="samples per snapshot for the numbers")
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
        print(f"{args.out} holds no finished training: only what metrics.json tells is drawn")
        return publish(args.out, draw_curves, words)
    data, source = utils.load_rgb(args)
    print(f"data: {source}", flush=True)
    if not args.figures_only:
        checkpoints = [args.out / "checkpoint.pt", *sorted(args.out.glob("snapshot_*.pt")), args.out / "classifier.pt"]
        utils.prepare_out(args, checkpoints)
    torch.backends.cudnn.benchmark = True
    config = training_config(args, source)
    start = time.perf_counter()
    classifier, accuracy = train_classifier(data, args, source)
    seconds = time.perf_counter() - start
    if not args.figures_only:
        train(data, args, config)
    start = time.perf_counter()
    generators, history = load_generators(args, config)
    results = {"snapshots": args.snapshots, "classifier_accuracy": accuracy}
    results |= evaluate(generators, classifier, data, args)
    draw_images(generators, args)
    seconds += history["seconds"] + time.perf_counter() - start
    run_config = utils.run_config(args, source) | {"iterations": args.snapshots[-1]}
    history = {"training": {key: history[key] for key in ("distance", "penalty", "provenance")}}
    utils.save_metrics(args.out, "q2_gan", run_config, seconds=seconds, history=history, results=results)
    publish(args.out, draw_curves, words)


if __name__ == "__main__":
    utils.run(main)
