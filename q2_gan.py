"""Problem 2: a Wasserstein GAN with a Lipschitz penalty on SVHN.

Trains the GAN, keeps snapshots of generator and critic, draws samples, perturbations and interpolations from them, and
measures with a small classifier, trained on the same labelled data, what the original says of them. "The original" is
the report of one who did the assignment.

    python q2_gan.py --quick        80 s on two CPU cores, synthetic digits
    python q2_gan.py                the original's recipe on SVHN, for a GPU
    python q2_gan.py --width 32 --lr 3e-4 --iterations 7000 --out results/q2_hour
                                    a smaller network, 19 minutes on two CPU cores
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from tqdm import tqdm, trange

import utils
from data.augmentation import scale
from results import gan as problem
from results import pages, reader, runs
from utils import natural, positive_float, positive_int, two_or_more

QUICK = {"iterations": 400, "width": 16, "lr": 1e-3, "classifier_steps": 150, "samples": 1000}
SNAPSHOTS = (0, 0.14, 0.4, 1)  # of the iterations; the original's 0, 7,000, 20,000 and 50,000
CURVES = ["iteration", "distance", "penalty", "seconds"]
RECORD_EVERY = 10  # iterations
SAVE_EVERY = 60  # seconds, with a line in the log


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The recipe: the assignment's defaults, each with its sentence, and how the samples are measured."""
    parser = utils.make_parser(__doc__, "q2_gan", ["svhn", "mnist", "synthetic"], QUICK)
    flag = parser.flag
    flag("--iterations", positive_int, 50_000, "updates of the generator")
    flag("--critic-updates", positive_int, 5, "updates of the critic for each of the generator")
    flag("--penalty", positive_float, 10.0, "coefficient of the Lipschitz penalty")
    flag("--batch-size", positive_int, 64, "images per update")
    flag("--lr", positive_float, 1e-4, "learning rate of Adam")
    flag("--width", positive_int, 64, "channels h next to the image; deeper layers: 2h, 4h")
    flag("--latent-size", positive_int, 100, "number of latent variables")
    flag("--snapshots", natural, None, "iterations to keep beside the last (default: at 0, 14 and 40%%)", nargs="+")
    parser.group = parser.add_argument_group("measuring")
    flag("--perturb-dims", natural, [3, 30, 35, 50], "latent dimensions to perturb", nargs="+")
    flag("--classifier-steps", positive_int, 900, "updates of the classifier, 128 images each")
    flag("--samples", two_or_more, 10_000, "samples per snapshot, to be measured")
    flag("--models", Path, None, "folder of a run's models, to be measured without training", metavar="DIR")
    parser.set_defaults(
        betas=[0.5, 0.9],  # of Adam
        augmentation={"rotation": 15, "scale": 1.2, "shift": 3, "contrast": 0.5, "inversion": 0.5},  # of `distort`
        certainty=0.9,  # probability of one digit from which an image is readable
        held_out=10_000,  # test images to compare with, at most
        neighbours=5,  # k of the coverage
        coverage_samples=5000,  # of the coverage, at most
        starts=200,  # of perturbations, at most
        controls=20,  # dimensions, and random directions, to compare with
        pairs=1000,  # of interpolations, at most
        epsilons=[1, 2, 3, 5, 10, 20],  # lengths of a perturbation, in standard deviations of the prior
        alphas=[round(0.1 * step, 1) for step in range(11)],  # points of an interpolation
    )
    args = runs.take_recipe(parser, argv, utils.parse_args(parser, argv, QUICK))
    args.perturb_dims = list(dict.fromkeys(args.perturb_dims))
    snapshots = args.snapshots or [round(share * args.iterations) for share in SNAPSHOTS]
    args.snapshots = sorted({*snapshots, args.iterations})
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


def snapshot_path(iteration: int, seed: int, args: argparse.Namespace) -> Path:
    return runs.seed_path(args, f"snapshot_{iteration}", seed)


def training_config(seed: int, args: argparse.Namespace, source: str) -> dict:
    """What a checkpoint must agree with; more --iterations and other --snapshots may be asked for later."""
    keys = ("critic_updates", "penalty", "batch_size", "lr", "width", "latent_size")
    return {key: getattr(args, key) for key in keys} | {"seed": seed, "source": source}


def iterate(images: Tensor, generator: Generator, critic: Critic, adams: tuple, args: argparse.Namespace) -> Tensor:
    """One iteration on uint8 images (N, 3, 32, 32); returns distance and penalty of the critic's last update: (2,)."""
    generator_adam, critic_adam = adams
    noise = partial(torch.randn, args.batch_size, args.latent_size, device=images.device)
    # (1) Update the critic: maximise the distance minus the penalty
    for _ in range(args.critic_updates):
        x = scale(images[torch.randint(len(images), (args.batch_size,), device=images.device)])
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


def train(seed: int, data: dict, args: argparse.Namespace) -> None:
    """Train from the last checkpoint, or from the start, up to --iterations, and write the snapshots.

    The history has an entry every RECORD_EVERY iterations, means since the last one. Raises InputError for a checkpoint
    that does not fit, for numbers that are not finite, and for snapshots that would be lost.
    """
    torch.manual_seed(seed)
    layout = utils.memory_format(args.device)
    generator = Generator(args.latent_size, args.width).to(args.device, memory_format=layout)
    critic = Critic(args.width).to(args.device, memory_format=layout)
    generator_adam = torch.optim.Adam(generator.parameters(), args.lr, tuple(args.betas), fused=True)
    critic_adam = torch.optim.Adam(critic.parameters(), args.lr, tuple(args.betas), fused=True)
    networks = {"generator": generator, "critic": critic}  # what a snapshot holds
    modules = networks | {"generator_adam": generator_adam, "critic_adam": critic_adam}
    path, config = runs.seed_path(args, "checkpoint", seed), training_config(seed, args, data["source"])
    last = snapshot_path(args.iterations, seed, args)
    kept = sorted(args.out.glob(f"snapshot_*_seed{seed}.pt"))
    if last.exists():
        history, done = runs.load_checkpoint(last, config, networks), args.iterations
        print(f"{last.name}: finished, {args.iterations} iterations{runs.note_change(history, args)}")
    elif kept and not path.exists():
        text = f"would be overwritten, as {path.name} is missing; give --iterations of the last snapshot"
        raise utils.InputError(f"{kept[0]} {text}, {runs.ANEW}")
    else:
        history, done = runs.resume(path, config, modules, {key: [] for key in CURVES}, args, "iteration")
    if past := [i for i in args.snapshots if i < done and not snapshot_path(i, seed, args).exists()]:
        print(f"seed {seed}: iterations without a snapshot, which are past: {', '.join(map(str, past))}")
    if last.exists():
        return

    adams = (generator_adam, critic_adam)
    step = partial(iterate, data["train_images"], generator, critic, adams, args)
    outputs = utils.replayed(step, adams, args.device)
    sums = torch.zeros(2, device=args.device)  # of distance and penalty since the last record
    begin = start = saved = time.perf_counter()
    if not done:  # else a training stopped before its first record could not go on beside its snapshot
        runs.save_checkpoint(path, config, modules, history)
    if done in args.snapshots:
        runs.save_checkpoint(snapshot_path(done, seed, args), config, networks, history)
    for iteration in trange(done + 1, args.iterations + 1, desc=f"seed {seed}", leave=False, disable=None):
        sums += next(outputs)
        if iteration % RECORD_EVERY == 0 or iteration == args.iterations:
            distance, penalty = (sums / (iteration - runs.progress(history))).tolist()
            sums.zero_()
            utils.check_finite(distance + penalty, f"distance or penalty at iteration {iteration}")
            now = time.perf_counter()
            history["iteration"].append(iteration)
            history["distance"].append(distance)
            history["penalty"].append(penalty)
            history["seconds"].append(now - start)
            start = now
            if now - saved > SAVE_EVERY or iteration == args.iterations:
                runs.save_checkpoint(path, config, modules, history)
                saved = now
                to_go = utils.time_to_go(begin, iteration - done, args.iterations - done)
                with tqdm.external_write_mode():
                    text = f"distance {distance:.3f}, penalty {penalty:.4f}, {to_go} to go"
                    print(f"seed {seed}, iteration {iteration}/{args.iterations}: {text}")
        if iteration in args.snapshots:
            runs.save_checkpoint(snapshot_path(iteration, seed, args), config, networks, history)


class Snapshot(NamedTuple):
    """Networks of one training at one iteration, and its history up to there; with --models all of it, no critic."""

    iteration: int
    seed: int
    generator: Generator
    critic: Critic | None
    history: dict

    def __str__(self) -> str:
        return f"seed {self.seed}, iteration {self.iteration:,}"


def load_snapshot(iteration: int, seed: int, args: argparse.Namespace, source: str) -> Snapshot:
    """Return what `train` saved, or what lies in --models, with the generator in evaluation mode.

    Its batch-normalisation statistics are those of noise: those of training lag behind the weights, and at iteration 0
    there are none. Weights and statistics are rounded to half precision as those of a model are.
    """
    torch.manual_seed(seed)
    networks = {"generator": Generator(args.latent_size, args.width)}  # that of iteration 0 follows from the seed
    path, config = snapshot_path(iteration, seed, args), training_config(seed, args, source)
    if args.models:
        history = runs.model_history(args, "q2_gan", str(seed), CURVES)
        if iteration:
            runs.load_checkpoint(path, config | {"iteration": iteration}, networks)
    else:
        networks["critic"] = Critic(args.width)
        history = runs.load_checkpoint(path, config, networks, CURVES)
    for network in networks.values():
        network.to(args.device, memory_format=utils.memory_format(args.device))
    other = torch.Generator().manual_seed(2**31 + seed)  # than that of the noise that is measured
    noise = torch.randn(20, args.batch_size, args.latent_size, generator=other).to(args.device)
    generator = runs.round_weights(networks["generator"])
    update_bn(noise, generator)
    return Snapshot(iteration, seed, runs.round_weights(generator).eval(), networks.get("critic"), history)


def find_snapshots(args: argparse.Namespace, source: str) -> dict[int, list[Snapshot]]:
    """Return all snapshots in OUT, or in --models, up to --iterations, by seed, in order; InputError without one."""

    def wanted(name: str) -> bool:
        return name.isdecimal() and int(name) <= args.iterations

    def load(name: str, seed: int) -> Snapshot:
        return load_snapshot(int(name), seed, args, source)

    found = {}
    for _, seed, snapshot in runs.join(args, "snapshot", wanted, load):
        found.setdefault(seed, []).append(snapshot)
    if args.models:
        for seed, snapshots in found.items():
            snapshots.append(load("0", seed))
            absent = sorted(set(args.snapshots) - {snapshot.iteration for snapshot in snapshots})
            lacks = ["critic", *(f"snapshot_{iteration}" for iteration in absent)]
            print(f"seed {seed}: not in {args.models}: {', '.join(lacks)}")
    if not found:
        raise utils.InputError(f"no training in {args.models or args.out} has a snapshot")
    return {seed: sorted(found[seed], key=lambda snapshot: snapshot.iteration) for seed in sorted(found)}


@torch.no_grad()
def generate(generator: Generator, z: Tensor) -> Tensor:
    """Images (..., 3, 32, 32) for z: (..., L), in chunks."""
    return torch.cat([generator(chunk) for chunk in z.flatten(0, -2).split(500)]).unflatten(0, z.shape[:-1])


def interpolate(generator: Generator, z0: Tensor, z1: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """(a) g(alpha z0 + (1 - alpha) z1) and (b) alpha g(z0) + (1 - alpha) g(z1), each (len(alphas), N, 3, 32, 32)."""
    a = alphas.view(-1, 1, 1)
    latent = generate(generator, a * z0 + (1 - a) * z1)
    a = alphas.view(-1, 1, 1, 1, 1)
    return latent, a * generate(generator, z0) + (1 - a) * generate(generator, z1)


def measure_snapshot(
    snapshot: Snapshot, last: bool, classifier: reader.Classifier, real: reader.RealImages, args: argparse.Namespace
) -> dict:
    """The numbers behind the claims on one snapshot; of the last one of a training its paths as well."""
    torch.manual_seed(snapshot.seed)
    z = torch.randn(args.samples, args.latent_size).to(args.device)  # drawn on the CPU, the same on every device
    samples = generate(snapshot.generator, z)
    numbers = reader.measure(samples, classifier, real, args)
    if snapshot.critic:
        numbers["memorisation"] = reader.memorisation(snapshot.critic, real, samples)
    if last:
        draw = partial(generate, snapshot.generator)
        numbers["perturbation"] = reader.measure_perturbation(draw, classifier, z[: args.starts], args)
        z0, z1 = z[: 2 * min(args.pairs, args.samples // 2)].chunk(2)
        latent, pixel = interpolate(snapshot.generator, z0, z1, torch.tensor(args.alphas, device=z.device))
        numbers["interpolation"] = reader.measure_paths({"latent": latent, "pixel": pixel}, classifier, args.certainty)
    return numbers


def evaluate(found: dict[int, list[Snapshot]], data: dict, args: argparse.Namespace) -> dict:
    """The numbers of each seed: what its classifier says of real images, and of each of its snapshots.

    What was measured is kept in measured_seed<n>.json, so that an interruption loses one snapshot at most.
    """
    results = {}
    for seed, snapshots in found.items():
        classifier, start = reader.load_classifier(seed, data, args), time.perf_counter()
        real = reader.choose_real(classifier, data, args)
        results[str(seed)] = reader.measure_real(classifier, real, args) | {"snapshots": {}}
        for done, snapshot in enumerate(snapshots, 1):
            last, iteration = snapshot is snapshots[-1], str(snapshot.iteration)
            networks = [network for network in (snapshot.generator, snapshot.critic, classifier) if network is not None]
            key = reader.fingerprint(networks, reader.settings(data, last, args))
            measure = partial(measure_snapshot, snapshot, last, classifier, real, args)
            numbers = reader.measured_once(args.out / f"measured_seed{seed}.json", iteration, key, measure)
            results[str(seed)]["snapshots"][iteration] = numbers
            text = f"readable {numbers['readable']:.3f}, {utils.time_to_go(start, done, len(snapshots))} to go"
            print(f"measured {snapshot}: {text} with this seed")
    return results


@utils.default_style()
def draw_images(snapshots: list[Snapshot], data: dict, args: argparse.Namespace) -> list[list[int]]:
    """Write the figures of images of one training; returns the digits read in the perturbed ones.

    Perturbations and interpolations, of the last snapshot, start at noise whose image is readable, where there is such.
    """
    last = snapshots[-1]
    classifier = reader.load_classifier(last.seed, data, args)
    torch.manual_seed(last.seed)
    z = torch.randn(1000, args.latent_size).to(args.device)
    draw_samples(snapshots, classifier, z, data, args)
    readable = reader.read_digits(classifier, generate(last.generator, z), args.certainty) >= 0
    z = torch.cat([z[readable], z[~readable]])
    draw_interpolations(last, z[:8:2], z[1:8:2], args)
    return draw_perturbations(last, classifier, z, args)


def draw_samples(
    snapshots: list, classifier: reader.Classifier, z: Tensor, data: dict, args: argparse.Namespace
) -> None:
    """The same noise at about the original's shares of the iterations, held-out images, nearest training images."""
    columns, last = min(12, len(data["test_images"])), snapshots[-1]
    rows = {}
    for share in SNAPSHOTS:
        snapshot = min(snapshots, key=lambda one: abs(one.iteration - share * last.iteration))
        rows[f"iteration {snapshot.iteration:,}"] = generate(snapshot.generator, z[:columns])
    features, _ = reader.classify(classifier, rows[f"iteration {last.iteration:,}"])
    training = torch.cat([reader.classify(classifier, scale(chunk))[0] for chunk in data["train_images"].split(2000)])
    nearest = torch.cdist(features, training).argmin(1)
    rows["held out"] = scale(data["test_images"][torch.randperm(len(data["test_images"]))[:columns].to(args.device)])
    rows["nearest training image"] = scale(data["train_images"][nearest])
    title = f"The same noise in a column, seed {last.seed}; held-out images; training images nearest in features"
    utils.draw_strips(rows, [""] * columns, title, args.out / "samples.png", [len(rows) - 2, len(rows) - 1])


def draw_perturbations(snapshot: Snapshot, classifier: reader.Classifier, z: Tensor, args: argparse.Namespace) -> list:
    """One dimension raised, from one z for all dimensions, then from one for each.

    Returns the digits that are read, a row for each of the figure, from ε = 0 on; -1 where none is.
    """
    dims, epsilons = args.perturb_dims, torch.arange(args.epsilons[-1] + 1, device=args.device)
    directions = torch.eye(args.latent_size, device=args.device)[[*dims, *dims]]
    starts = torch.cat([z[:1].expand(len(dims), -1), z[1 : len(dims) + 1]])
    images = generate(snapshot.generator, reader.perturb(starts, directions, epsilons)).transpose(0, 1)
    digits = reader.read_digits(classifier, images, args.certainty).tolist()
    names = [f"dimension {d}, same z" for d in dims] + [f"dimension {d}, own z" for d in dims]
    title = f"One latent dimension raised by ε, with the digit that is read; {snapshot}"
    rows, labels = dict(zip(names, images, strict=True)), ["ε = 0", *epsilons.tolist()[1:]]
    utils.draw_strips(rows, labels, title, args.out / "perturbation.png", [len(dims)], digits)
    return digits


def draw_interpolations(snapshot: Snapshot, z0: Tensor, z1: Tensor, args: argparse.Namespace) -> None:
    """Pairs of paths, (a) latent and (b) pixel, from z0 (α = 1) to z1 (α = 0)."""
    alphas = args.alphas[::-1]
    latent, pixel = interpolate(snapshot.generator, z0, z1, torch.tensor(alphas, device=args.device))
    rows = {}
    for pair in range(len(z0)):
        rows[f"pair {pair + 1}, (a) latent"] = latent[:, pair]
        rows[f"pair {pair + 1}, (b) pixel"] = pixel[:, pair]
    title = f"Interpolation between pairs of samples, readable ones first; {snapshot}"
    utils.draw_strips(rows, ["α = 1: z0", *alphas[1:-1], "α = 0: z1"], title, args.out / "interpolation.png", [2, 4, 6])


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    print(f"device: {utils.describe(args.device)}")
    if args.figures_only:
        return pages.redraw(args.out, "q2_gan", problem)
    data = utils.load_rgb(args)
    print(f"data: {data['source']}")
    if args.download:
        return
    seeds = [] if args.models else range(args.seed, args.seed + args.repeats)
    kinds = ("checkpoint", "snapshot_*", "classifier", "measured")
    patterns = [f"{kind}_seed{seed}.*" for kind in kinds for seed in seeds]
    runs.open_out(args, "q2_gan", patterns, earlier=["checkpoint.pt", "snapshot_*[0-9].pt", "classifier.pt"])
    torch.backends.cudnn.benchmark = True
    for seed in seeds:
        with runs.interruptible(runs.seed_path(args, "checkpoint", seed), args):
            train(seed, data, args)

    start = time.perf_counter()
    found = find_snapshots(args, data["source"])
    results = {"seeds": evaluate(found, data, args)}
    first = max(found.values(), key=lambda snapshots: snapshots[-1].iteration)  # that is furthest
    results["digits"] = draw_images(first, data, args)
    if not args.models:
        runs.remove_models(args, "snapshot")
        for iteration, seed, generator, *_ in first:
            if iteration:  # that of 0 follows from the seed
                config = training_config(seed, args, data["source"]) | {"iteration": iteration}
                runs.save_model(args, f"snapshot_{iteration}", seed, config, {"generator": generator})
    histories = {seed: snapshots[-1].history for seed, snapshots in found.items()}
    provenance, seconds = runs.take_provenance(histories.values(), args)
    seconds += time.perf_counter() - start
    metrics = runs.save_metrics(args, "q2_gan", data["source"], provenance, seconds, histories, results)
    pages.publish(metrics, args.out, problem, ["samples.png", "perturbation.png", "interpolation.png"])


if __name__ == "__main__":
    utils.run(main)
