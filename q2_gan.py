"""Problem 2: a Wasserstein GAN with a Lipschitz penalty on SVHN.

Trains the GAN, keeps snapshots of generator and critic, draws samples, perturbations and interpolations from them, and
measures with a small classifier, trained on the same labelled data, what the original says of them. "The original" is
the report of one who did the assignment.

    python q2_gan.py --quick        two minutes on two CPU cores, synthetic digits
    python q2_gan.py                the original's recipe on SVHN, for a GPU
    python q2_gan.py --width 32 --lr 3e-4 --iterations 7000 --out results/q2_hour
                                    a smaller network, 1.6 hours on one CPU core
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torchvision.utils import make_grid
from tqdm import tqdm, trange

import utils
from data.augmentation import distort
from data.classifier import (
    Classifier,
    classify,
    count_digits,
    judge,
    measure,
    neighbour_distances,
    read_digits,
    sure_digits,
)
from results import gan as words
from results import pages

QUICK = {"iterations": 400, "width": 16, "lr": 1e-3, "classifier_steps": 150, "samples": 1000}
SNAPSHOT_PLACES = (0, 0.14, 0.4, 1)  # of the iterations; the original's 0, 7,000, 20,000 and 50,000
RECORD_EVERY = 10  # iterations; a log line is printed for every tenth record
SAVE_EVERY = 60  # seconds


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The recipe: the assignment's defaults, each with its sentence, and how the samples are measured."""
    parser = utils.make_parser(__doc__, "q2_gan", ["svhn", "mnist", "synthetic"], QUICK)
    add = parser.add_argument
    add("--iterations", type=utils.positive_int, default=50_000, help="updates of the generator")
    add("--critic-updates", type=utils.positive_int, default=5, help="updates of the critic for each of the generator")
    add("--penalty", type=utils.positive_float, default=10.0, help="coefficient of the Lipschitz penalty")
    add("--batch-size", type=utils.positive_int, default=64, help="images per update")
    add("--lr", type=utils.positive_float, default=1e-4, help="learning rate of Adam")
    add("--width", type=utils.positive_int, default=64, help="channels h next to the image; deeper layers: 2h, 4h")
    add("--latent-size", type=utils.positive_int, default=100, help="number of latent variables")
    add("--snapshots", type=utils.natural, nargs="+", help="kept beside the last (default: at 0, 14 and 40%%)")
    add("--perturb-dims", type=utils.natural, nargs="+", default=[3, 30, 35, 50], help="latent dimensions to perturb")
    add("--classifier-steps", type=utils.positive_int, default=900, help="updates of the classifier, 128 images each")
    add("--samples", type=utils.two_or_more, default=5000, help="samples per snapshot and set of noise, to be measured")
    parser.set_defaults(
        betas=[0.5, 0.9],  # of Adam
        augmentation={"rotation": 15, "scale": 1.2, "shift": 3, "contrast": 0.5, "inversion": 0.5},  # of `distort`
        sure=0.9,  # probability from which the classifier is sure of a digit
        noise_sets=5,  # independent ones, for the standard errors
        held_out=10_000,  # test images to compare with, at most
        neighbours=5,  # k of the coverage
        epsilons=[1, 2, 3, 5, 10, 20],  # lengths of a perturbation, in standard deviations of the prior
        alphas=[round(0.1 * step, 1) for step in range(11)],  # places along an interpolation
    )
    args = utils.parse_args(parser, argv, QUICK)
    args.perturb_dims = list(dict.fromkeys(args.perturb_dims))
    # of perturbations and of interpolations, in each set of noise; one more, so that there is one of few samples
    args.starts, args.pairs = args.samples // 10 + 1, args.samples // 5 + 1
    args.control_starts = args.samples // 100 + 1  # a start takes 1,200 images there
    places = args.snapshots or [round(place * args.iterations) for place in SNAPSHOT_PLACES]
    args.snapshots = sorted({*places, args.iterations})
    if args.snapshots[-1] > args.iterations:
        raise utils.InputError(f"--snapshots {args.snapshots[-1]} lies past --iterations {args.iterations}")
    if (dim := max(args.perturb_dims)) >= args.latent_size:
        raise utils.InputError(f"--perturb-dims {dim}: dimensions go from 0 to {args.latent_size - 1}")
    return args


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
    alpha = torch.rand((len(x),) + (1,) * (x.dim() - 1), dtype=x.dtype, device=x.device)
    x_hat = (alpha * x + (1 - alpha) * y).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).clamp(min=0).square().mean()


class Generator(nn.Module):
    """z: (B, z_dim) to images (B, 3, 32, 32) in [-1, 1]."""

    def __init__(self, z_dim: int = 100, h_dim: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(z_dim, 4 * h_dim, 4, 1, 0),  # 4h x 4 x 4
            nn.BatchNorm2d(4 * h_dim),
            nn.ReLU(),
            nn.ConvTranspose2d(4 * h_dim, 2 * h_dim, 4, 2, 1),  # 2h x 8 x 8
            nn.BatchNorm2d(2 * h_dim),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * h_dim, h_dim, 4, 2, 1),  # h x 16 x 16
            nn.BatchNorm2d(h_dim),
            nn.ReLU(),
            nn.ConvTranspose2d(h_dim, 3, 4, 2, 1),  # 3 x 32 x 32
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


class Critic(nn.Module):
    """Images (B, 3, 32, 32) to values (B,), without normalisation: the penalty is on each example's own gradient."""

    def __init__(self, h_dim: int = 64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, h_dim, 4, 2, 1),  # h x 16 x 16
            nn.LeakyReLU(0.2),
            nn.Conv2d(h_dim, 2 * h_dim, 4, 2, 1),  # 2h x 8 x 8
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * h_dim, 4 * h_dim, 4, 2, 1),  # 4h x 4 x 4
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * h_dim, 1, 4, 1, 0),  # 1 x 1 x 1
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten()


def scale(images: Tensor) -> Tensor:
    """Map uint8 to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def snapshot_path(args: argparse.Namespace, iteration: int) -> Path:
    return args.out / f"snapshot_{iteration}.pt"


def training_config(args: argparse.Namespace, source: str) -> dict:
    """What a checkpoint must agree with; more --iterations and other --snapshots may be asked for later."""
    keys = ("critic_updates", "penalty", "batch_size", "lr", "width", "latent_size", "seed")
    return {key: getattr(args, key) for key in keys} | {"source": source}


class Replay:
    """On CUDA, call `iterate` three times as it is, and from then on replay the kernels of the fourth call.

    That saves the time of launching them one by one. All that it reads and changes must lie on the device and stay
    where it is, numbers of Python are those of the fourth call, and each call overwrites the tensor of the last.
    """

    def __init__(self, iterate: Callable[[], Tensor], optimizers: list[torch.optim.Optimizer], device: torch.device):
        self.iterate, self.device, self.calls = iterate, device, 0
        self.groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.graph, self.stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)

    def __call__(self) -> Tensor:
        self.calls += 1
        if self.calls < 4:  # a capture needs these, on its stream
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                output = self.iterate()
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
            return output
        if self.calls == 4:
            for group in self.groups:
                group["capturable"] = True
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.output = self.iterate()
            for group in self.groups:  # a checkpoint is the same on every device
                group["capturable"] = False
        self.graph.replay()
        return self.output


def train(data: dict, args: argparse.Namespace, config: dict) -> None:
    """Train from the last checkpoint, or from the start, up to --iterations, and write the snapshots.

    data: what `utils.load_rgb` returns. Raises InputError for a checkpoint that does not fit and for numbers that are
    not finite.
    """
    if all(snapshot_path(args, iteration).exists() for iteration in args.snapshots):
        print(f"{snapshot_path(args, args.iterations).name}: finished, {args.iterations} iterations")
        return
    torch.manual_seed(args.seed)
    images = data["train_images"]
    layout = utils.memory_format(args.device)
    generator = Generator(args.latent_size, args.width).to(args.device, memory_format=layout)
    critic = Critic(args.width).to(args.device, memory_format=layout)
    generator_adam = torch.optim.Adam(generator.parameters(), args.lr, tuple(args.betas), fused=True)
    critic_adam = torch.optim.Adam(critic.parameters(), args.lr, tuple(args.betas), fused=True)
    networks = {"generator": generator, "critic": critic}  # what a snapshot holds
    modules = networks | {"generator_adam": generator_adam, "critic_adam": critic_adam}
    history = {"iteration": 0, "seconds": 0.0, "distance": [], "penalty": []}
    history["sums"] = [0.0, 0.0]  # of distance and penalty since the last record
    path = args.out / "checkpoint.pt"
    if path.exists():
        history = utils.load_checkpoint(path, config, modules)
    elif old := next(args.out.glob("snapshot_*.pt"), None):
        raise utils.InputError(
            f"{old} would be overwritten, as there is no {path.name} to go on from; give another --out"
        )
    done = history["iteration"]
    utils.announce(path, done, args.iterations, "iteration")
    for iteration in args.snapshots:
        if iteration < done and not snapshot_path(args, iteration).exists():
            kept = ", ".join(sorted(path.name for path in args.out.glob("snapshot_*.pt")))
            text = f"is missing; give --snapshots of those that are there ({kept}) or past {done}"
            raise utils.InputError(f"{snapshot_path(args, iteration)} {text}")
    if done < args.iterations:
        history["provenance"] = utils.provenance(args, history.get("provenance", {}))

    sums = torch.tensor(history["sums"], device=args.device)
    saved = time.perf_counter()
    start = saved - history["seconds"]  # as if there had been no pause

    def save(target: Path, states: dict, iteration: int) -> None:
        weights = [weight.detach().sum() for network in networks.values() for weight in network.parameters()]
        utils.check_finite(torch.stack(weights), f"a weight at iteration {iteration}")
        history.update(iteration=iteration, seconds=time.perf_counter() - start, sums=sums.tolist())
        utils.save_checkpoint(target, config, states, history)

    def noise() -> Tensor:
        return torch.randn(args.batch_size, args.latent_size, device=args.device)

    def iterate() -> Tensor:
        """One iteration; returns distance and penalty of the last of the critic's updates."""
        # (1) Update the critic: maximise the distance minus the penalty
        for _ in range(args.critic_updates):
            x = scale(images[torch.randint(len(images), (args.batch_size,), device=args.device)])
            with torch.no_grad():
                y = generator(noise())
            distance, penalty = vf_wasserstein_distance(x, y, critic), lp_reg(x, y, critic)
            critic_adam.zero_grad()
            (args.penalty * penalty - distance).backward()
            critic_adam.step()

        # (2) Update the generator: maximise the critic's value of its images
        critic.requires_grad_(False)  # the gradient goes through the critic, none is needed of it
        generator_adam.zero_grad()
        (-critic(generator(noise())).mean()).backward()
        generator_adam.step()
        critic.requires_grad_(True)
        return torch.stack([distance, penalty]).detach()

    if args.device.type == "cuda":
        iterate = Replay(iterate, [generator_adam, critic_adam], args.device)
    if not done:
        save(path, modules, 0)
    if done in args.snapshots:
        save(snapshot_path(args, done), networks, done)
    for iteration in trange(done + 1, args.iterations + 1, desc="training", leave=False, disable=None):
        sums += iterate()
        if iteration % RECORD_EVERY == 0:
            utils.check_finite(sums, f"distance or penalty at iteration {iteration}")
            mean_distance, mean_penalty = (sums / RECORD_EVERY).tolist()
            history["distance"].append(mean_distance)
            history["penalty"].append(mean_penalty)
            sums.zero_()
        if iteration % (10 * RECORD_EVERY) == 0:
            text = f"distance {mean_distance:.3f}, penalty {mean_penalty:.4f}"
            with tqdm.external_write_mode():
                print(f"iteration {iteration}: {text}, {time.perf_counter() - start:.0f} s")
        if iteration in args.snapshots:
            save(snapshot_path(args, iteration), networks, iteration)
        if iteration == args.iterations or time.perf_counter() - saved > SAVE_EVERY:
            save(path, modules, iteration)
            saved = time.perf_counter()


def load_snapshots(args: argparse.Namespace, config: dict) -> tuple[dict[int, Generator], dict[int, Critic], dict]:
    """Return generators, critics, both by iteration, and the history up to the last snapshot.

    The generators are in evaluation mode, with batch-normalisation statistics of noise: those of training lag behind
    the weights, and at iteration 0 there are none.
    """
    torch.manual_seed(args.seed)
    z = torch.randn(20, args.batch_size, args.latent_size, device=args.device)
    generators, critics = {}, {}
    for iteration in args.snapshots:
        networks = {"generator": Generator(args.latent_size, args.width), "critic": Critic(args.width)}
        history = utils.load_checkpoint(snapshot_path(args, iteration), config, networks)
        for network in networks.values():
            network.to(args.device, memory_format=utils.memory_format(args.device))
        update_bn(z, networks["generator"])
        networks["generator"].eval()
        generators[iteration], critics[iteration] = networks["generator"], networks["critic"]
    return generators, critics, history


def train_classifier(data: dict, args: argparse.Namespace, source: str) -> Classifier:
    """Train the classifier, or take it from its checkpoint where it was trained in this way; in evaluation mode."""
    path = args.out / "classifier.pt"
    config = {"classifier_steps": args.classifier_steps, "augmentation": args.augmentation}
    config |= {"seed": args.seed, "source": source}
    torch.manual_seed(args.seed)
    classifier = Classifier().to(args.device, memory_format=utils.memory_format(args.device))
    try:
        if path.exists():
            utils.load_checkpoint(path, config, {"classifier": classifier})
            return classifier.eval()
    except utils.InputError as error:  # it takes minutes, so nothing is lost
        print(f"{path.name} is trained anew: {str(error).split(';')[0]}")
    utils.announce(path, 0, args.classifier_steps, "step")
    optimizer = torch.optim.Adam(classifier.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=args.classifier_steps)
    images, labels = data["train_images"], data["train_labels"]
    for _ in trange(args.classifier_steps, desc="classifier", leave=False, disable=None):
        batch = torch.randint(len(images), (128,), device=args.device)
        loss = F.cross_entropy(classifier(distort(scale(images[batch]), **args.augmentation)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    utils.check_finite(loss, "the classifier's loss")
    utils.save_checkpoint(path, config, {"classifier": classifier}, {"steps": args.classifier_steps})
    return classifier.eval()


@torch.no_grad()
def generate(generator: Generator, z: Tensor) -> Tensor:
    """Images (..., 3, 32, 32) for z: (..., L), in chunks."""
    return torch.cat([generator(chunk) for chunk in z.flatten(0, -2).split(500)]).unflatten(0, z.shape[:-1])


def choose(images: Tensor, num: int) -> Tensor:
    """`num` random ones of the uint8 images, or all, as floats in [-1, 1]."""
    return scale(images[torch.randperm(len(images), device=images.device)[:num]])


@torch.no_grad()
def memorisation(critic: Critic, training: Tensor, held_out: Tensor, samples: Tensor) -> float:
    """(f(training) - f(held-out)) / (f(training) - f(samples)), means of the critic (Karras et al., arXiv 2006.06676).

    0 where held-out images look like training images to it, 1 where they look like samples.
    """
    f_training, f_held_out, f_samples = (
        utils.mean(torch.cat([critic(chunk) for chunk in images.split(500)]))
        for images in (training, held_out, samples)
    )
    return (f_training - f_held_out) / (f_training - f_samples)


def perturb(z: Tensor, directions: Tensor, epsilons: Tensor) -> Tensor:
    """z + epsilon * direction for z: (N, L), directions (N, L) or (L,) and each of the epsilons (E,): (E, N, L)."""
    return z + epsilons[:, None, None] * directions


def reached_share(
    generator: Generator, classifier: Classifier, z: Tensor, directions: Tensor, args: argparse.Namespace
) -> tuple[float, int]:
    """Share of the sure starts z: (N, L) from which another sure digit is reached at one of the epsilons.

    The mean over directions: (D, L), and the number of sure starts.
    """
    epsilons = torch.tensor(args.epsilons, device=z.device)
    before = read_digits(classifier, generate(generator, z), args.sure)  # (N,)
    starts, reached = int((before >= 0).sum()), []
    for direction in directions.to(z.device):
        after = read_digits(classifier, generate(generator, perturb(z, direction, epsilons)), args.sure)  # (E, N)
        others = ((after >= 0) & (after != before)).any(0) & (before >= 0)
        reached.append(int(others.sum()) / max(1, starts))
    return sum(reached) / len(reached), starts


def measure_perturbation(generator: Generator, classifier: Classifier, z: Tensor, args: argparse.Namespace) -> dict:
    """What `reached_share` gives along the dimensions that are named, and, from fewer starts, two controls.

    Those are all dimensions, and as many random directions of the same length.
    """
    size, few = args.latent_size, z[: args.control_starts]
    named, starts = reached_share(generator, classifier, z, torch.eye(size)[args.perturb_dims], args)
    every, _ = reached_share(generator, classifier, few, torch.eye(size), args)
    random, _ = reached_share(generator, classifier, few, F.normalize(torch.randn(size, size)), args)
    return {"named": named, "all": every, "random": random, "starts": starts}


def interpolate(generator: Generator, z0: Tensor, z1: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """(a) g(alpha z0 + (1 - alpha) z1) and (b) alpha g(z0) + (1 - alpha) g(z1), each (len(alphas), N, 3, 32, 32)."""
    a = alphas.view(-1, 1, 1)
    latent = generate(generator, a * z0 + (1 - a) * z1)
    a = alphas.view(-1, 1, 1, 1, 1)
    return latent, a * generate(generator, z0) + (1 - a) * generate(generator, z1)


def progressive_share(paths: Tensor) -> float:
    """Share of the steps on paths (A, N, ...) that lead away from the start and nearer to the end, in pixels."""
    from_start = (paths - paths[0]).flatten(2).norm(dim=2)
    to_end = (paths - paths[-1]).flatten(2).norm(dim=2)
    return utils.mean((from_start.diff(dim=0) > 0) & (to_end.diff(dim=0) < 0))


def stack_sets(sets: list) -> dict | list:
    """Join equal nested dicts into one with lists of their leaves."""
    if isinstance(sets[0], dict):
        return {key: stack_sets([numbers[key] for numbers in sets]) for key in sets[0]}
    return sets


def evaluate(generators: dict, critics: dict, classifier: Classifier, data: dict, args: argparse.Namespace) -> dict:
    """The numbers behind the claims: lists over sets of noise.

    Per snapshot what `measure` and, but at iteration 0, `memorisation` return; of as many training images what
    `measure` does; of the last snapshot what its perturbations and interpolations do; and, without sets, the digits in
    the held-out images and what `judge` says of the classifier.
    """
    torch.manual_seed(args.seed)
    chosen = torch.randperm(len(data["test_images"]), device=args.device)[: args.held_out]
    held_out = scale(data["test_images"][chosen])
    real, probabilities = classify(classifier, held_out)
    radii = neighbour_distances(real, args.neighbours)
    last, alphas = generators[args.iterations], torch.tensor(args.alphas, device=args.device)
    sets = []
    for _ in trange(args.noise_sets, desc="evaluation", leave=False, disable=None):
        z = torch.randn(args.samples, args.latent_size, device=args.device)
        training = choose(data["train_images"], args.samples)
        snapshots = {}
        for iteration, generator in generators.items():
            samples = generate(generator, z)
            snapshots[str(iteration)] = measure(samples, classifier, real, radii, args.sure)
            if iteration:  # an untrained critic says nothing
                ratio = memorisation(critics[iteration], training, held_out, samples)
                snapshots[str(iteration)]["memorisation"] = ratio
        latent, pixel = interpolate(last, z[: args.pairs], z[-args.pairs :], alphas)
        curves = {}
        for name, path in (("latent", latent), ("pixel", pixel)):
            curves[name] = (read_digits(classifier, path, args.sure) >= 0).float().mean(1).tolist()
        sets.append(
            {
                "per_snapshot": snapshots,
                "training": measure(training, classifier, real, radii, args.sure),
                "perturbation": measure_perturbation(last, classifier, z[: args.starts], args),
                "interpolation": {"sure": curves, "progressive": progressive_share(latent)},
            }
        )
    results = stack_sets(sets)
    digits = count_digits(sure_digits(probabilities, args.sure))
    results["held_out"] = {"images": len(held_out), "digits": digits}
    results["classifier"] = judge(classifier, held_out, probabilities, data["test_labels"][chosen], args.sure)
    return results


def draw_curves(metrics: dict, out: Path) -> None:
    """Write the figures that need metrics.json alone: training, quality of the snapshots, interpolation."""
    draw_training(metrics, out / "training.png")
    draw_quality(metrics, out / "quality.png")
    draw_paths(metrics, out / "interpolation_curves.png")


def draw_training(metrics: dict, path: Path) -> None:
    training = metrics["history"]["training"]
    figure, ((distance, penalty),) = utils.subplots(1, 2)
    iterations = range(RECORD_EVERY, RECORD_EVERY * len(training["distance"]) + 1, RECORD_EVERY)
    marker = "." if len(iterations) < 20 else None
    distance.plot(iterations, training["distance"], linewidth=1, marker=marker)
    distance.set_title("Critic's estimate of the distance")
    penalty.plot(iterations, training["penalty"], linewidth=1, marker=marker)
    penalty.set_title("Lipschitz penalty")
    for axes in (distance, penalty):
        axes.set_yscale("symlog", linthresh=0.001, subs=[2, 5])  # logarithmic, but an estimate may be negative
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="generator iteration", ylabel=f"mean of {RECORD_EVERY} iterations (linear below 0.001)")
    utils.save_figure(figure, path)


def draw_quality(metrics: dict, path: Path) -> None:
    results = metrics["results"]
    iterations, snapshots = results["snapshots"], list(results["per_snapshot"].values())
    figure, ((sure, coverage, frechet),) = utils.subplots(1, 3)
    style = {"color": "C0", "marker": ".", "linewidth": 0.8, "clip_on": False}
    sure.plot(iterations, [s["sure"] for s in snapshots], **style)
    sure.axhline(results["classifier"]["sure"], color="black", linestyle=":", label="real images")
    sure.set(title="S: sure of a digit", ylabel="share of the samples", ylim=(0, 1.05))
    lines = coverage.plot(iterations, [s["coverage"] for s in snapshots], **style)
    lines[0].set_label("samples, a line for each set of noise")
    coverage.axhline(np.mean(results["training"]["coverage"]), color="black", linestyle=":")
    coverage.set(title="Coverage", ylabel="share of the held-out images", ylim=(0, 1.05))
    frechet.plot(iterations, [s["frechet"] for s in snapshots], **style)
    frechet.axhline(np.mean(results["training"]["frechet"]), color="black", linestyle=":")
    frechet.set(title="Fréchet distance, not FID", ylabel="distance (logarithmic)", yscale="log")
    for axes in (sure, coverage, frechet):
        axes.set_xscale("symlog", linthresh=100, subs=range(2, 10))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="generator iteration (linear below 100)", xlim=(0, iterations[-1]))
    utils.save_figure(figure, path)


def draw_paths(metrics: dict, path: Path) -> None:
    interpolation = metrics["results"]["interpolation"]
    figure, ((axes,),) = utils.subplots(1, 1)
    for color, name in (("C0", "latent"), ("C1", "pixel")):
        curves = np.array(interpolation["sure"][name])  # a row for each set of noise
        error = curves.std(0, ddof=1) / math.sqrt(len(curves))
        axes.errorbar(metrics["config"]["alphas"], curves.mean(0), error, color=color, label=f"{name} interpolation")
    axes.set(
        title="S along the paths, ± one standard error", xlabel="α", ylabel="share with a sure digit", ylim=(0, None)
    )
    utils.save_figure(figure, path)


def draw_images(generators: dict, classifier: Classifier, data: dict, args: argparse.Namespace) -> list[list[int]]:
    """Write the figures of images: the same noise at all snapshots, perturbations and interpolations of the last.

    Those start at the first noise vectors whose image the classifier is sure of. Returns the digits that it reads in
    the perturbed images, a row for each of the figure, from ε = 0 on; -1 where it is not sure.
    """
    torch.manual_seed(args.seed)
    z = torch.randn(1000, args.latent_size, device=args.device)
    iteration, last = list(generators.items())[-1]

    columns = min(20, len(data["test_images"]))
    rows = {f"iteration {i:,}": generate(generator, z[:columns]) for i, generator in generators.items()}
    rows["held out"] = choose(data["test_images"], columns)
    training = torch.cat([classify(classifier, scale(chunk))[0] for chunk in data["train_images"].split(2000)])
    nearest = torch.cdist(classify(classifier, rows[f"iteration {iteration:,}"])[0], training).argmin(1)
    rows["nearest training image"] = scale(data["train_images"][nearest])
    title = "Samples of the same noise; held-out images; nearest training images (in features) to the last samples"
    draw_strips(rows, [""] * columns, title, args.out / "samples.png")

    sure = read_digits(classifier, generate(last, z), args.sure) >= 0
    z = torch.cat([z[sure], z[~sure]])
    dims, epsilons = args.perturb_dims, torch.arange(args.epsilons[-1] + 1, device=args.device)
    directions = torch.eye(args.latent_size, device=args.device)[[*dims, *dims]]
    starts = torch.cat([z[:1].expand(len(dims), -1), z[1 : len(dims) + 1]])  # one for all, then one for each
    images = generate(last, perturb(starts, directions, epsilons)).transpose(0, 1)
    digits = read_digits(classifier, images, args.sure).cpu()
    names = [f"dimension {d}, same z" for d in dims] + [f"dimension {d}, own z" for d in dims]
    title = f"One latent dimension raised by ε, with the digit the classifier is sure of, iteration {iteration:,}"
    rows = dict(zip(names, images, strict=True))
    draw_strips(rows, ["ε = 0", *epsilons.tolist()[1:]], title, args.out / "perturbation.png", digits)

    latent, pixel = interpolate(last, z[:8:2], z[1:8:2], torch.tensor(args.alphas, device=args.device))
    rows = {}
    for pair in range(4):
        rows[f"pair {pair + 1}, (a) latent"] = latent[:, pair]
        rows[f"pair {pair + 1}, (b) pixel"] = pixel[:, pair]
    title = f"Interpolation from z1 (α = 0) to z0 (α = 1), iteration {iteration:,}"
    draw_strips(rows, ["α = 0", *args.alphas[1:]], title, args.out / "interpolation.png")
    return digits.tolist()


def draw_strips(rows: dict[str, Tensor], labels: list, title: str, path: Path, digits: Tensor | None = None) -> None:
    """Write rows of images (N, 3, 32, 32) in [-1, 1], their names on the left and `labels` above the columns.

    digits: (len(rows), N), written under the images, "?" where they are negative.
    """
    height = 34 if digits is None else 52  # pixels of a cell: the image, a border of 2, and room for a digit
    cells = F.pad(torch.cat(list(rows.values())).cpu() / 2 + 0.5, (0, 0, 0, height - 34), value=1).clamp(0, 1)
    width, tall = 0.42 * len(labels) + 1.5, 0.0132 * height * len(rows) + 0.8  # inches
    figure, ((axes,),) = utils.subplots(1, 1, width, tall)
    axes.grid(False)
    axes.imshow(make_grid(cells, nrow=len(labels), pad_value=1).permute(1, 2, 0).numpy(), interpolation="nearest")
    if digits is not None:
        for row, column in itertools.product(range(len(rows)), range(len(labels))):
            digit = digits[row, column].item()
            text = "?" if digit < 0 else str(digit)
            axes.text(34 * column + 18, height * row + 40, text, size=8, ha="center", va="center")
    axes.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([34 * i + 18 for i in range(len(labels))], labels)
    axes.set_yticks([height * i + 18 for i in range(len(rows))], list(rows))
    axes.set_title(title, fontsize=10)
    utils.save_figure(figure, path)


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    print(f"device: {utils.describe(args.device)}")
    if args.figures_only:
        return pages.publish(utils.read_metrics(args.out, "q2_gan"), args.out, words, draw_curves)
    data, source = utils.load_rgb(args)
    print(f"data: {source}")
    if args.download:
        return
    checkpoints = [args.out / "checkpoint.pt", *args.out.glob("snapshot_*.pt"), args.out / "classifier.pt"]
    utils.open_out(args, "q2_gan", checkpoints)
    torch.backends.cudnn.benchmark = True
    config = training_config(args, source)
    train(data, args, config)

    start = time.perf_counter()
    generators, critics, history = load_snapshots(args, config)
    classifier = train_classifier(data, args, source)
    print(f"measuring {len(generators)} snapshots, {args.noise_sets} times {args.samples} samples of each")
    results = {"snapshots": args.snapshots} | evaluate(generators, critics, classifier, data, args)
    results["digits"] = draw_images(generators, classifier, data, args)
    seconds = history["seconds"] + time.perf_counter() - start
    training = {"training": {key: history[key] for key in ("distance", "penalty")}}
    content = {"seconds": seconds, "history": training, "results": results}
    metrics = utils.save_metrics(args, "q2_gan", source, history["provenance"], **content)
    pages.publish(metrics, args.out, words, draw_curves)


if __name__ == "__main__":
    utils.run(main)
