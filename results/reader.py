"""What judges problem 2's images: a classifier that reads digits, what it measures, and whether it can be believed."""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

import utils
from data.augmentation import distort, scale
from results import runs


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


def train_classifier(seed: int, data: dict, args: argparse.Namespace) -> Classifier:
    """Train the classifier, or take it from its checkpoint where it was trained in this way; in evaluation mode."""
    path = runs.seed_path(args, "classifier", seed)
    config = {"classifier_steps": args.classifier_steps, "augmentation": args.augmentation}
    config |= {"seed": seed, "source": data["source"]}
    torch.manual_seed(seed)
    classifier = Classifier().to(args.device, memory_format=utils.memory_format(args.device))
    try:
        if path.exists():
            runs.load_checkpoint(path, config, {"classifier": classifier})
            return classifier.eval()
    except utils.InputError as error:  # it takes minutes, so nothing is lost
        print(f"{path.name} is trained anew: {str(error).split(';')[0]}")
    print(f"{path.name}: training begins, {args.classifier_steps} steps")
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
    runs.save_checkpoint(path, config, {"classifier": classifier}, {"steps": args.classifier_steps})
    return classifier.eval()


@torch.no_grad()
def classify(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, 128) and class probabilities (N, 10), in chunks.

    The features have unit length: those of noise are short, and so lie near to everything otherwise.
    """
    features = torch.cat([classifier.features(chunk) for chunk in images.split(500)])
    return F.normalize(features), classifier.output(features).softmax(1)


def sure_digits(probabilities: Tensor, sure: float) -> Tensor:
    """The most probable digits (N,) by probabilities (N, 10); -1 where the largest is below `sure`."""
    confidence, digits = probabilities.max(1)
    return digits.masked_fill(confidence < sure, -1)


def read_digits(classifier: Classifier, images: Tensor, sure: float) -> Tensor:
    """The digit that the classifier is sure of in each of the images (..., 3, 32, 32): (...), -1 where it is not."""
    _, probabilities = classify(classifier, images.flatten(0, -4))
    return sure_digits(probabilities, sure).view(images.shape[:-3])


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


def count_digits(digits: Tensor) -> list[int]:
    """How often each digit is read; digits: (N,), -1 where none is."""
    return torch.bincount(digits[digits >= 0], minlength=10).tolist()


def measure(images: Tensor, classifier: Classifier, real: Tensor, radii: Tensor, sure: float) -> dict:
    """What the classifier finds in images (N, 3, 32, 32), beside the features (M, F) of real ones.

    Share of images in which it is sure of a digit, how often of each, share of real ones with an image within their
    `radii` (M,) (coverage; Naeem et al., arXiv 2002.09797), and the Fréchet distance.
    """
    features, probabilities = classify(classifier, images)
    digits = sure_digits(probabilities, sure)
    return {
        "sure": utils.mean(digits >= 0),
        "digits": count_digits(digits),
        "coverage": utils.mean((torch.cdist(real, features) <= radii[:, None]).any(1)),
        "frechet": frechet_distance(features, real),
    }


def scramble_phases(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) with the amplitudes of their Fourier transform and phases shifted by those of white noise.

    The channels of an image share the shifts, so that its colours stay; what is left is texture without shape.
    """
    noise = torch.randn(len(images), 1, *images.shape[2:], device=images.device)
    shifts = torch.fft.rfft2(noise).angle()
    shifts[:, :, 0, 0] = 0  # the mean stays
    return torch.fft.irfft2(torch.fft.rfft2(images) * torch.polar(torch.ones_like(shifts), shifts), s=images.shape[2:])


def judge(
    classifier: Classifier, images: Tensor, probabilities: Tensor, labels: Tensor, sure: float
) -> dict[str, float]:
    """Whether the classifier can be believed, on images (N, 3, 32, 32) that it has not seen, and its probabilities.

    Its accuracy, the share of images that it is sure of, how often it is right about those, and of which share of
    phase-scrambled copies it is sure.
    """
    read = sure_digits(probabilities, sure)
    scrambled = read_digits(classifier, scramble_phases(images).clamp(-1, 1), sure)
    return {
        "accuracy": utils.mean(probabilities.argmax(1) == labels),
        "sure": utils.mean(read >= 0),
        "right_where_sure": float((read == labels).sum() / (read >= 0).sum().clamp(min=1)),
        "sure_of_scrambled": utils.mean(scrambled >= 0),
    }


@torch.no_grad()
def memorisation(critic: nn.Module, training: Tensor, held_out: Tensor, samples: Tensor) -> float:
    """(f(training) - f(held-out)) / (f(training) - f(samples)), means of the critic (Karras et al., arXiv 2006.06676).

    0 where held-out images look like training images to it, 1 where they look like samples; 0 as well where it does not
    tell training images from samples, as a constant one.
    """
    f_training, f_held_out, f_samples = (
        utils.mean(torch.cat([critic(chunk) for chunk in images.split(500)]))
        for images in (training, held_out, samples)
    )
    if f_training == f_samples:
        return 0.0
    return (f_training - f_held_out) / (f_training - f_samples)


def reached_share(before: Tensor, after: Tensor) -> float:
    """Share of the sure digits before: (N,) from which another sure digit is reached in a row of after: (E, N)."""
    reached = ((after >= 0) & (after != before)).any(0) & (before >= 0)
    return int(reached.sum()) / max(1, int((before >= 0).sum()))


def progressive_share(paths: Tensor) -> float:
    """Share of the steps on paths (A, N, ...) that lead away from the start and nearer to the end, in pixels."""
    from_start = (paths - paths[0]).flatten(2).norm(dim=2)
    to_end = (paths - paths[-1]).flatten(2).norm(dim=2)
    return utils.mean((from_start.diff(dim=0) > 0) & (to_end.diff(dim=0) < 0))
