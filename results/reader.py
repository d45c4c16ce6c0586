"""What judges problem 2's images: a classifier that reads digits, what it measures, and whether it can be believed."""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import utils
from data import augmentation
from data.augmentation import distort, scale
from results import runs

SOURCES = [Path(path).read_bytes() for path in (utils.__file__, augmentation.__file__, __file__)]  # as imported


class Classifier(nn.Module):
    """Images (B, 3, 32, 32) to class logits (B, 10); `features` gives the 128 numbers before the last layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, 2),  # 32 x 16 x 16
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 1, 1),  # 64 x 16 x 16
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, 2, 1),  # 128 x 8 x 8
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, 2, 1),  # 128 x 4 x 4
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128 * 16, 128),
            nn.ReLU(),
        )
        self.output = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.features(x))


def load_classifier(seed: int, data: dict, args: argparse.Namespace) -> Classifier:
    """Train the classifier, or take it from its checkpoint where it was trained in this way, or from --models.

    It is in evaluation mode, its weights rounded to half precision as those of its model are. InputError where --models
    has no intact one.
    """
    path = runs.seed_path(args, "classifier", seed)
    config = {"classifier_steps": args.classifier_steps, "augmentation": args.augmentation}
    config |= {"seed": seed, "source": data["source"]}
    torch.manual_seed(seed)
    classifier = Classifier().to(args.device, memory_format=utils.memory_format(args.device))
    try:
        if path.exists() or args.models:
            runs.load_checkpoint(path, config, {"classifier": classifier})
            return runs.round_weights(classifier).eval()
    except utils.InputError as error:
        reason = str(error).split(";")[0]
        if args.models:
            raise utils.InputError(reason) from error
        print(f"{path.name} is trained anew: {reason}")  # it takes minutes, so nothing is lost
    print(f"{path.name}: training begins, {args.classifier_steps} steps")
    optimizer = torch.optim.Adam(classifier.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=args.classifier_steps)
    images, labels = data["train_images"], data["train_labels"]
    start = time.perf_counter()
    for step in range(1, args.classifier_steps + 1):
        batch = torch.randint(len(images), (128,), device=args.device)
        loss = F.cross_entropy(classifier(distort(scale(images[batch]), **args.augmentation)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            to_go = utils.time_to_go(start, step, args.classifier_steps)
            print(f"{path.name}: step {step}/{args.classifier_steps}, {to_go} to go")
    runs.save_checkpoint(path, config, {"classifier": classifier}, {})
    runs.save_model(args, "classifier", seed, config, {"classifier": classifier})
    return runs.round_weights(classifier).eval()


@torch.no_grad()
def classify(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, 128) and class probabilities (N, 10), in chunks.

    The features have unit length: those of noise are short, and so lie near to everything otherwise.
    """
    features = torch.cat([classifier.features(chunk) for chunk in images.split(500)])
    return F.normalize(features), classifier.output(features).softmax(1)


def read_digits(classifier: Classifier, images: Tensor, certainty: float) -> Tensor:
    """The digit read in each of the images (..., 3, 32, 32): (...), -1 where none has a probability of `certainty`."""
    _, probabilities = classify(classifier, images.flatten(0, -4))
    return most_probable(probabilities, certainty).view(images.shape[:-3])


def most_probable(probabilities: Tensor, certainty: float) -> Tensor:
    """The most probable digits (N,) by probabilities (N, 10); -1 where the largest is below `certainty`."""
    largest, digits = probabilities.max(1)
    return digits.masked_fill(largest < certainty, -1)


def count_digits(digits: Tensor) -> list[int]:
    """How often each digit, 0 to 9, is among those read: (N,), -1 where none is."""
    return torch.bincount(digits[digits >= 0], minlength=10).tolist()


def frechet_distance(p: Tensor, q: Tensor) -> float:
    """Squared distance |m_p - m_q|^2 + tr(C_p + C_q - 2 (C_p C_q)^1/2) of normals fitted to features (N, F), (M, F).

    Heusel et al., arXiv 1706.08500, there of Inception's features.
    """
    p, q = p.cpu().double(), q.cpu().double()
    cov_p, cov_q = p.T.cov(), q.T.cov()
    eigenvalues = torch.linalg.eigvals(cov_p @ cov_q).real.clamp(min=0)  # those of the root are their roots
    return float((p.mean(0) - q.mean(0)).square().sum() + (cov_p + cov_q).trace() - 2 * eigenvalues.sqrt().sum())


def neighbour_distances(features: Tensor, k: int) -> Tensor:
    """Distance of each of the features (N, F) to its k-th neighbour among the others: (N,)."""
    count = min(k + 1, len(features))  # with the distance to itself
    return torch.cdist(features, features).topk(count, dim=1, largest=False).values[:, -1]


def sharpness(images: Tensor) -> float:
    """Mean absolute Laplacian (4 neighbours) of each grey image over its standard deviation, mean over (N, 3, H, W).

    Blurring lowers it, contrast does not change it; 0 for flat images.
    """
    grey = images.mean(1)
    neighbours = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    laplacian = (neighbours - 4 * grey[:, 1:-1, 1:-1]).abs().mean((1, 2))
    return utils.mean(laplacian / grey.flatten(1).std(1).clamp(min=1e-6))


class RealImages(NamedTuple):
    """What samples are compared with, floats in [-1, 1]: held-out images, their labels and features; training images.

    radii: the distance of each of the features to its k-th neighbour among them.
    """

    held_out: Tensor
    labels: Tensor
    features: Tensor
    radii: Tensor
    training: Tensor


def settings(data: dict, last: bool, args: argparse.Namespace) -> dict:
    """What the numbers of a snapshot depend on, beside its networks and SOURCES."""
    keys = ["samples", "perturb_dims", "certainty", "held_out", "neighbours", "coverage_samples"]
    keys += ["starts", "controls", "pairs", "epsilons", "alphas"]
    return {key: getattr(args, key) for key in keys} | {"source": data["source"], "last": last, "code": args.code}


def fingerprint(networks: list[nn.Module], settings: dict) -> str:
    """Return a hash of SOURCES, settings, and the states of networks."""
    digest = hashlib.sha256(json.dumps(settings).encode() + b"".join(SOURCES))
    for network in networks:
        for tensor in network.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def measured_once(path: Path, name: str, key: str, measure: Callable[[], dict]) -> dict:
    """Return measure(), or what the JSON file `path` keeps of it under `name`, if it was kept with the same `key`."""
    kept = {}
    with suppress(OSError, ValueError, TypeError, KeyError):  # there is none, or not of this form
        kept = dict(json.loads(path.read_text(encoding="utf-8")))
        if kept[name]["key"] == key:
            return kept[name]["numbers"]
    kept[name] = {"key": key, "numbers": measure()}
    utils.write(path, json.dumps(kept, indent=1, allow_nan=False))
    return kept[name]["numbers"]


def choose_real(classifier: Classifier, data: dict, args: argparse.Namespace) -> RealImages:
    """Random held-out images, at most `held_out`, and training images, at most `samples`; the same for all seeds."""
    generator = torch.Generator().manual_seed(0)
    held_out, training = (
        torch.randperm(len(data[f"{split}_images"]), generator=generator)[:num].to(args.device)
        for split, num in (("test", args.held_out), ("train", args.samples))
    )
    images = scale(data["test_images"][held_out])
    features, _ = classify(classifier, images)
    radii = neighbour_distances(features, args.neighbours)
    return RealImages(images, data["test_labels"][held_out], features, radii, scale(data["train_images"][training]))


def measure(images: Tensor, classifier: Classifier, real: RealImages, args: argparse.Namespace) -> dict:
    """What the classifier finds in images (N, 3, 32, 32), beside held-out ones, and how sharp they are.

    Share of readable images, how often each digit is read, share of held-out images whose neighbourhood holds one of
    the first `coverage_samples` images (coverage; Naeem et al., arXiv 2002.09797), Fréchet distance of the features,
    and sharpness over that of held-out images.
    """
    features, probabilities = classify(classifier, images)
    digits = most_probable(probabilities, args.certainty)
    near = torch.cdist(real.features, features[: args.coverage_samples]) <= real.radii[:, None]
    return {
        "readable": utils.mean(digits >= 0),
        "digits": count_digits(digits),
        "coverage": utils.mean(near.any(1)),
        "frechet": frechet_distance(features, real.features),
        "sharpness": sharpness(images) / sharpness(real.held_out),
    }


def scramble_phases(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) with the amplitudes of their Fourier transform and phases shifted by those of white noise.

    The channels of an image share the shifts, so that its colours stay; what is left is texture without shape.
    """
    noise = torch.randn(len(images), 1, *images.shape[2:]).to(images.device)  # the same on every device
    shifts = torch.fft.rfft2(noise).angle()
    shifts[:, :, 0, 0] = 0  # the mean stays
    return torch.fft.irfft2(torch.fft.rfft2(images) * torch.polar(torch.ones_like(shifts), shifts), s=images.shape[2:])


def measure_real(classifier: Classifier, real: RealImages, args: argparse.Namespace) -> dict[str, dict]:
    """What `measure` finds in held-out and in training images, and whether the classifier can be believed.

    The latter on held-out images: its accuracy, the share of images that it reads, how often it is right about those,
    and the shares that it reads of phase-scrambled copies and of half-way mixes of two images.
    """
    torch.manual_seed(0)
    _, probabilities = classify(classifier, real.held_out)
    digits = most_probable(probabilities, args.certainty)
    scrambled = read_digits(classifier, scramble_phases(real.held_out).clamp(-1, 1), args.certainty)
    first, second = real.held_out[: len(real.held_out) // 2 * 2].chunk(2)
    judged = {
        "accuracy": utils.mean(probabilities.argmax(1) == real.labels),
        "readable": utils.mean(digits >= 0),
        "right_where_readable": float((digits == real.labels).sum() / (digits >= 0).sum().clamp(min=1)),
        "readable_scrambled": utils.mean(scrambled >= 0),
        "readable_mixes": utils.mean(read_digits(classifier, (first + second) / 2, args.certainty) >= 0),
    }
    held_out = {"readable": judged["readable"], "digits": count_digits(digits), "sharpness": 1.0}  # over itself
    return {"classifier": judged, "held_out": held_out, "training": measure(real.training, classifier, real, args)}


@torch.no_grad()
def memorisation(critic: nn.Module, real: RealImages, samples: Tensor) -> float | None:
    """(f(training) - f(held-out)) / (f(training) - f(samples)), means of the critic (Karras et al., arXiv 2006.06676).

    0 where held-out images look like training images to it, 1 where they look like samples; None where training images
    and samples look alike.
    """
    f_training, f_held_out, f_samples = (
        utils.mean(torch.cat([critic(chunk) for chunk in images.split(500)]))
        for images in (real.training, real.held_out, samples)
    )
    return None if f_training == f_samples else (f_training - f_held_out) / (f_training - f_samples)


def measure_paths(paths: dict[str, Tensor], classifier: Classifier, certainty: float) -> dict[str, list[float]]:
    """Share of readable images at each of the A points of paths (A, N, 3, 32, 32)."""
    read = {name: read_digits(classifier, images, certainty) for name, images in paths.items()}
    return {name: (digits >= 0).float().mean(1).tolist() for name, digits in read.items()}


def reached_share(before: Tensor, after: Tensor) -> float:
    """Share of the readable digits before: (N,) from which another digit is reached in a row of after: (E, N)."""
    reached = ((after >= 0) & (after != before)).any(0) & (before >= 0)
    return int(reached.sum()) / max(1, int((before >= 0).sum()))


def perturb(z: Tensor, directions: Tensor, epsilons: Tensor) -> Tensor:
    """z + epsilon * direction for z: (N, L), directions (N, L) or (L,) and each of the epsilons (E,): (E, N, L)."""
    return z + epsilons[:, None, None] * directions


def measure_perturbation(
    draw: Callable[[Tensor], Tensor], classifier: Classifier, z: Tensor, args: argparse.Namespace
) -> dict:
    """Share of the readable samples of z: (N, L) that reach another digit, by direction, and how many are readable.

    draw: the generator's images for z. Directions are the dimensions that are named and two controls: other dimensions,
    and random directions of the same length.
    """
    epsilons, unit = torch.tensor(args.epsilons, device=z.device), torch.eye(args.latent_size)
    others = [dim for dim in torch.randperm(args.latent_size).tolist() if dim not in args.perturb_dims]
    before = read_digits(classifier, draw(z), args.certainty)

    def reached(direction: Tensor) -> float:
        images = draw(perturb(z, direction.to(z.device), epsilons))
        return reached_share(before, read_digits(classifier, images, args.certainty))

    return {
        "samples": len(z),
        "readable": int((before >= 0).sum()),
        "named": [reached(unit[dim]) for dim in args.perturb_dims],
        "others": [reached(unit[dim]) for dim in others[: args.controls]],
        "random": [reached(direction) for direction in F.normalize(torch.randn(args.controls, args.latent_size))],
    }
