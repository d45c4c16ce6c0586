"""Problem 3: SimSiam on CIFAR-10 and its ablations.

Trains SimSiam as it is, without stop-gradient and without predictor, follows each run with a kNN classifier and
collapse monitors.

    python q3_simsiam.py --quick                      about two minutes on two CPU cores, synthetic digits
    python q3_simsiam.py                              the original's three runs on CIFAR-10, 100 epochs each
    python q3_simsiam.py --runs baseline --repeats 5  five seeds of one of them, joined with what lies in the folder
"""

import argparse
import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor, nn
from torchvision.models import resnet18
from tqdm import tqdm

import utils
from results import simsiam as words
from results.pages import publish, redraw

RUNS = {  # keyword arguments of SimSiam
    "baseline": {},
    "no_stop_gradient": {"stop_gradient": False},
    "no_predictor": {"MLP_mode": "no_pred_mlp"},
    "fixed_random_predictor": {"MLP_mode": "fixed_random_init"},
}
CURVES = {
    "knn_accuracy": "kNN accuracy",
    "loss": "loss",
    "batch_std": "std x sqrt(d), training batches",
    "output_std": "std x sqrt(d), test images",
    "effective_rank": "effective rank, test images",
    "median_distance": "median of 1 - cosine, test images",
    "silent": "silent test images",
    "knn_accuracy_backbone": "kNN accuracy, backbone",
}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
QUICK = {"epochs": 3, "batch_size": 64, "train_images": 1600, "test_images": 1000, "lr": 0.4, "knn_k": 20}


# --- Model ------------------------------------------------------------------------------------------------------------


class CosineSimilarity(nn.Module):
    """Cosine of the angle between x and y along `dim`: x.y / max(|x| |y|, eps), broadcasting; 0 for a zero vector."""

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        norms = x.norm(dim=self.dim) * y.norm(dim=self.dim)
        return (x * y).sum(self.dim) / norms.clamp(min=self.eps)


class SmallMapConv2d(nn.Conv2d):
    """A 3x3 convolution with padding 1 that takes maps of 1x1 and 2x2 as one matrix product on the CPU.

    There every output sees the whole map, through the part of the kernel that begins at 1 - stride * its position, so
    that nothing is multiplied by the padding's zeros. Parameters and outputs are those of nn.Conv2d with one group and
    no bias.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, stride = x.shape[-1], self.stride[0]
        if x.shape[-2:] not in ((1, 1), (2, 2)) or x.device.type != "cpu":
            return super().forward(x)
        starts = range(1, 1 - n, -stride)
        kernels = torch.stack([self.weight[:, :, i : i + n, j : j + n] for i in starts for j in starts])
        weight = kernels.permute(0, 1, 3, 4, 2).flatten(2).flatten(0, 1)  # (outputs, inputs), channels last in both
        y = F.linear(x.permute(0, 2, 3, 1).flatten(1), weight)
        return y.view(len(x), len(starts), len(starts), -1).permute(0, 3, 1, 2)


class SimSiam(nn.Module):
    """Encoder f (backbone and projector) and predictor h of Chen & He, arXiv 2011.10566, for images (B, 3, H, W).

    base_encoder: a torchvision constructor of a network that ends in `fc`, called with num_classes and
    zero_init_residual. dim: width of z and p. pred_dim: hidden width of the predictor. MLP_mode: None, 'no_pred_mlp'
    (the predictor is the identity) or 'fixed_random_init' (weights from N(0, 0.01^2), a last bias of 0, all of it
    frozen, as in the assignment's starter); ValueError otherwise.
    """

    def __init__(
        self,
        base_encoder: Callable[..., nn.Module],
        dim: int = 2048,
        pred_dim: int = 512,
        stop_gradient: bool = True,
        MLP_mode: str | None = None,
    ):
        super().__init__()
        if MLP_mode not in (None, "no_pred_mlp", "fixed_random_init"):
            raise ValueError(f"MLP_mode {MLP_mode!r} is none of None, 'no_pred_mlp', 'fixed_random_init'")
        self.stop_gradient = stop_gradient
        self.encoder = base_encoder(num_classes=dim, zero_init_residual=True)
        for module in self.encoder.modules():
            if isinstance(module, nn.Conv2d):
                kind = module.kernel_size, module.padding, module.groups, module.bias
                if kind == ((3, 3), (1, 1), 1, None):
                    module.__class__ = SmallMapConv2d  # the same parameters under the same names
        width = self.encoder.fc.in_features
        self.encoder.fc = nn.Sequential(
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Linear(width, dim), nn.BatchNorm1d(dim, affine=False)),
        )
        self.encoder.fc[6].bias.requires_grad_(False)  # the batch normalisation behind it cancels it
        self.predictor = nn.Sequential(
            *(nn.Linear(dim, pred_dim, bias=False), nn.BatchNorm1d(pred_dim), nn.ReLU()), nn.Linear(pred_dim, dim)
        )
        if MLP_mode == "no_pred_mlp":
            self.predictor = nn.Identity()
        if MLP_mode == "fixed_random_init":
            self.predictor.requires_grad_(False)
            for linear in (self.predictor[0], self.predictor[3]):
                nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(self.predictor[3].bias)

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Two views to p1, p2, z1, z2, each (B, dim); z1 and z2 are detached exactly when `stop_gradient`."""
        z1, z2 = self.encoder(x1), self.encoder(x2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return (p1, p2, z1.detach(), z2.detach()) if self.stop_gradient else (p1, p2, z1, z2)

    def loss(
        self, p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, similarity_function: str = "CosineSimilarity"
    ) -> Tensor:
        """D(p1, z2) / 2 + D(p2, z1) / 2 with D the negative mean cosine: (B, dim) each, a scalar in [-1, 1] (eq. 4)."""
        if similarity_function != "CosineSimilarity":
            raise ValueError(f"similarity_function {similarity_function!r} is not 'CosineSimilarity'")
        similarity = CosineSimilarity()
        return -0.5 * (similarity(p1, z2).mean() + similarity(p2, z1).mean())

    def represent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The backbone's features (B, width) and the projector's output z (B, dim)."""
        *backbone, projector = self.encoder.children()
        features = nn.Sequential(*backbone)(x).flatten(1)
        return features, projector(features)


# --- Augmentation -----------------------------------------------------------------------------------------------------


def crop_boxes(n: int, size: int, scale: tuple[float, float], device: torch.device) -> Tensor:
    """Boxes (n, 4): top, left, height, width, distributed as torchvision's RandomResizedCrop draws them.

    The first of ten tries that fits is taken, else the whole image.
    """
    area = size * size * torch.empty(n, 10, device=device).uniform_(*scale)
    ratio = torch.empty(n, 10, device=device).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    height, width = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (height >= 1) & (height <= size) & (width >= 1) & (width <= size)
    first = fits.int().argmax(1, keepdim=True)
    whole = ~fits.any(1, keepdim=True)
    height, width = (x.gather(1, first).masked_fill(whole, size) for x in (height, width))
    top, left = ((torch.rand(n, 1, device=device) * (size - x + 1)).floor() for x in (height, width))
    return torch.cat([top, left, height, width], 1)


def interpolation_weights(start: Tensor, length: Tensor, flip: Tensor, size: int) -> Tensor:
    """Bilinear weights (n, size, size) that stretch `length` pixels from `start` along one axis to `size` pixels."""
    pixels = torch.arange(size, device=start.device)
    position = (pixels + 0.5) * length[:, None] / size - 0.5
    position = start[:, None] + position.clamp(min=0).minimum(length[:, None] - 1)
    position = torch.where(flip[:, None], position.flip(1), position)
    return (1 - (position[:, :, None] - pixels).abs()).clamp(min=0)


def crop_flip(images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
    """Stretch each image's box to the image's size, bilinearly, and mirror it where `flip`: (n, 3, S, S) floats.

    A box is never larger than the image, so that no smoothing is due. Rows and columns are two matrix products.
    """
    top, left, height, width = boxes.unbind(1)
    rows = interpolation_weights(top, height, torch.zeros_like(flip), images.shape[2])
    columns = interpolation_weights(left, width, flip, images.shape[3])
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def grey(images: Tensor) -> Tensor:
    """Luma (n, 1, H, W) with torchvision's weights."""
    return 0.2989 * images[:, 0:1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:3]


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor * images + (1 - factor) * other in [0, 1], a factor (n,) for each image."""
    return torch.lerp(other, images, factor.view(-1, 1, 1, 1)).clamp(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor.view(-1, 1, 1, 1)).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, grey(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, grey(images), factor)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` (n,) turns: to HSV and back (Smith 1978), without leaving its value and chroma."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    safe = chroma.clamp(min=1e-8)
    angle = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    angle = angle + 6 * shift.view(-1, 1, 1)
    k = torch.stack([angle + 5, angle + 3, angle + 1], 1) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def augment(images: Tensor) -> Tensor:
    """One random view of each image: (n, 3, 32, 32) uint8 to normalised floats of the same shape.

    The assignment's transforms, with parameters of each image's own; only the order of the four jitters is shared.
    """
    n, device = len(images), images.device

    def chance(p: float) -> Tensor:
        return torch.rand(n, device=device) < p

    views = crop_flip(images.float() / 255, crop_boxes(n, images.shape[2], (0.08, 1.0), device), chance(0.5))
    jittered = chance(0.8)
    jitters = ((brightness, 0.4, 1.0), (contrast, 0.4, 1.0), (saturation, 0.4, 1.0), (hue, 0.1, 0.0))
    for index in torch.randperm(4).tolist():
        jitter, strength, neutral = jitters[index]
        factor = neutral + torch.empty(n, device=device).uniform_(-strength, strength)
        views = jitter(views, torch.where(jittered, factor, neutral))
    views = torch.where(chance(0.2).view(-1, 1, 1, 1), grey(views), views)
    return normalise(views)


def normalise(images: Tensor) -> Tensor:
    """Subtract the data set's mean and divide by its deviation, per channel; images (n, 3, H, W) in [0, 1]."""
    channels = [(images[:, i] - MEAN[i]) / STD[i] for i in range(3)]  # no tensor of constants to copy to the device
    return torch.stack(channels, 1).contiguous(memory_format=utils.memory_format(images.device))


# --- Monitors ---------------------------------------------------------------------------------------------------------


def knn_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int, temperature: float, chunk: int = 500
) -> float:
    """Accuracy of a kNN classifier by cosine similarity, votes weighted with exp(similarity / temperature), up to a
    factor that the votes of an image share.

    train: (N, F), test: (M, F), labels from 0 to 9. Wu et al., arXiv 1805.01978, section 3.4.
    """
    train, correct = F.normalize(train), []
    for features, labels in zip(test.split(chunk), test_labels.split(chunk), strict=True):
        similarity, index = (F.normalize(features) @ train.T).topk(k, dim=1)
        votes = similarity.new_zeros(len(features), 10)
        votes.scatter_add_(1, train_labels[index], ((similarity - similarity[:, :1]) / temperature).exp())
        correct.append(votes.argmax(1) == labels)
    return utils.mean(torch.cat(correct))


def output_std(z: Tensor) -> Tensor:
    """Deviation of z / |z| over the batch, mean of the channels, times sqrt(d), a scalar: 1 if spread, 0 if collapsed.

    z: (B, d). Chen & He, figure 2.
    """
    return F.normalize(z.detach().float()).std(0).mean() * math.sqrt(z.shape[1])


def effective_rank(z: Tensor) -> float:
    """Participation ratio (sum of l)^2 / sum of l^2 of the eigenvalues l of the covariance of z / |z|, from 1 to d.

    z: (B, d). It is 1 where the outputs lie on a line, as on two opposite points; 0 where all are equal, unrounded.
    """
    covariance = F.normalize(z).T.cov()
    return float(covariance.trace().square() / covariance.square().sum().clamp(min=torch.finfo(z.dtype).tiny))


def median_distance(z: Tensor) -> float:
    """Median of 1 - cosine over all pairs of different rows of z: (B, d), in float64, which mps does not have."""
    z = F.normalize(z.cpu().double())
    first, second = torch.triu_indices(len(z), len(z), offset=1)
    return float((1 - z @ z.T)[first, second].median())


# --- Training ---------------------------------------------------------------------------------------------------------


def load_images(args: argparse.Namespace) -> tuple[dict[str, Tensor], str]:
    """Return what `utils.load_rgb` does, cut to --train-images random and the first --test-images images.

    The random images are the same for all seeds.
    """
    tensors, source = utils.load_rgb(args)
    generator = torch.Generator().manual_seed(0)
    for split, num in (("train", args.train_images), ("test", args.test_images)):
        available = len(tensors[f"{split}_images"])
        if num > available or num == 1:
            raise utils.InputError(f"--{split}-images {num}: give 2 to {available}, or 0 for all")
        order = torch.randperm(available, generator=generator) if split == "train" else torch.arange(available)
        for key in (f"{split}_images", f"{split}_labels") if num else ():
            tensors[key] = tensors[key][order[:num].to(args.device)]
    for flag in ("batch_size", "knn_k"):
        if (value := getattr(args, flag)) > (num := len(tensors["train_images"])):
            raise utils.InputError(f"--{flag.replace('_', '-')} {value} is more than the {num} training images")
    return tensors, source


@torch.no_grad()
def embed(model: SimSiam, images: Tensor) -> tuple[Tensor, Tensor]:
    """Backbone features and projector outputs of unaugmented images (N, 3, 32, 32) uint8, in evaluation mode."""
    model.eval()
    dtype = next(model.parameters()).dtype
    chunks = (normalise(chunk.to(dtype) / 255) for chunk in images.split(1000))
    features, z = zip(*map(model.represent, chunks), strict=True)
    model.train()
    return torch.cat(features), torch.cat(z)


def monitor(model: SimSiam, data: dict[str, Tensor], args: argparse.Namespace) -> dict[str, float]:
    """kNN accuracy of projector and backbone, and how far the projector's outputs spread, on the test images.

    data: as from `load_images`.
    """
    labels = data["train_labels"], data["test_labels"]
    (train, train_z), (test, test_z) = embed(model, data["train_images"]), embed(model, data["test_images"])
    return {
        "knn_accuracy": knn_accuracy(train_z, labels[0], test_z, labels[1], args.knn_k, args.knn_temperature),
        "knn_accuracy_backbone": knn_accuracy(train, labels[0], test, labels[1], args.knn_k, args.knn_temperature),
        "output_std": float(output_std(test_z)),
        "effective_rank": effective_rank(test_z),
        "median_distance": median_distance(test_z[:1000]),
        "silent": silent_share(model, test),
    }


@torch.no_grad()
def silent_share(model: SimSiam, features: Tensor) -> float:
    """Share of the backbone's features (N, width) that leave the projector's last hidden layer at zero in all units.

    In evaluation mode the projector's outputs of all these are equal.
    """
    hidden = model.eval().encoder.fc[:6](features)
    model.train()
    return utils.mean((hidden == 0).all(1))


def accuracy_float64(model: SimSiam, data: dict[str, Tensor], args: argparse.Namespace) -> float:
    """The projector's kNN accuracy in float64, on the CPU, as mps does not have it.

    It exceeds that of float32 where images differ by less than float32 resolves.
    """
    model, data = copy.deepcopy(model).cpu().double(), {key: tensor.cpu() for key, tensor in data.items()}
    (_, train), (_, test) = (embed(model, data[f"{split}_images"]) for split in ("train", "test"))
    return knn_accuracy(train, data["train_labels"], test, data["test_labels"], args.knn_k, args.knn_temperature)


def make_optimizer(model: SimSiam, lr: float) -> torch.optim.SGD:
    """SGD whose groups, the encoder's and the predictor's parameters, say whether their rate is fixed (`fix_lr`)."""
    encoder, predictor = ([p for p in m.parameters() if p.requires_grad] for m in (model.encoder, model.predictor))
    groups = [{"params": encoder, "fix_lr": False}, {"params": predictor, "fix_lr": True}]
    return torch.optim.SGD(groups, lr, momentum=0.9, weight_decay=5e-4)


def checkpoint_path(args: argparse.Namespace, run: str, seed: int | str) -> Path:
    return args.out / f"checkpoint_{run}_seed{seed}.pt"


def training_config(run: str, seed: int, args: argparse.Namespace, source: str) -> dict:
    """What a checkpoint must agree with."""
    keys = ["epochs", "batch_size", "lr", "dim", "pred_dim", "precision"]
    keys += ["knn_k", "knn_temperature", "train_images", "test_images"]
    return {key: getattr(args, key) for key in keys} | {"run": run, "seed": seed, "source": source}


def train(run: str, seed: int, data: dict[str, Tensor], args: argparse.Namespace, source: str) -> dict:
    """Train one of RUNS, or go on from its checkpoint, and return its history.

    Entry 0 of each curve is the untrained network's (of loss and batch_std that of the first batch), the others are the
    epochs'; `seconds` has the epochs alone.
    """
    name, path, config = (
        f"{run} seed {seed}",
        checkpoint_path(args, run, seed),
        training_config(run, seed, args, source),
    )
    torch.manual_seed(seed)
    model = SimSiam(resnet18, args.dim, args.pred_dim, **RUNS[run])
    model.to(args.device, memory_format=utils.memory_format(args.device))
    lr = args.lr * args.batch_size / 256
    optimizer = make_optimizer(model, lr)
    modules = {"model": model, "optimizer": optimizer}
    history = utils.restore(args, path, config, modules, {key: [] for key in (*CURVES, "seconds")})
    if len(history["seconds"]) < args.epochs:
        history["provenance"] = utils.provenance(args, history.get("provenance", {}))

    def record(numbers: dict[str, float]) -> None:
        for key, value in numbers.items():
            history[key].append(value)

    if not history["seconds"]:
        record(monitor(model, data, args))
    for epoch in range(len(history["seconds"]) + 1, args.epochs + 1):
        start, steps = time.perf_counter(), []
        for group in optimizer.param_groups:
            if not group["fix_lr"]:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / args.epochs))
        order = torch.randperm(len(data["train_images"]), device=args.device)
        batches = order[: len(order) // args.batch_size * args.batch_size].split(args.batch_size)
        for batch in tqdm(batches, desc=f"{name} epoch {epoch}", leave=False, disable=None):
            images = data["train_images"][batch]
            x1, x2 = augment(images), augment(images)
            with torch.autocast(args.device.type, torch.bfloat16, enabled=args.precision == "bfloat16"):
                outputs = model(x1, x2)
            loss = model.loss(*(output.float() for output in outputs))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(torch.stack([loss.detach(), output_std(outputs[2])]))
            if args.device.type == "cpu":  # where looking at a number does not hold up the device
                utils.check_finite(steps[-1], f"in epoch {epoch} of {name}")
        numbers = torch.stack(steps)
        utils.check_finite(numbers, f"in epoch {epoch} of {name}")
        if epoch == 1:
            record(dict(zip(("loss", "batch_std"), numbers[0].tolist(), strict=True)))
        record(dict(zip(("loss", "batch_std"), numbers.mean(0).tolist(), strict=True)))
        record(monitor(model, data, args))
        record({"seconds": time.perf_counter() - start})
        if epoch == args.epochs:
            history["knn_accuracy_float64"] = accuracy_float64(model, data, args)
        utils.save_checkpoint(path, config, modules, history)
        numbers = ", ".join(f"{key} {history[key][-1]:.4g}" for key in CURVES)
        hours = history["seconds"][-1] * (args.epochs - epoch) / 3600
        print(f"{name} epoch {epoch}/{args.epochs}: {numbers}, {hours:.2f} h to go in this run", flush=True)
    return history


def finished_runs(args: argparse.Namespace, source: str) -> dict[str, dict[str, dict]]:
    """Return the histories of all trainings in OUT that are finished and fit `args`, by run and seed.

    Says which are left out, and why.
    """
    histories = {}
    for run in RUNS:
        paths = args.out.glob(checkpoint_path(args, run, "*").name)
        seeds = {int(seed): path for path in paths if (seed := path.stem.split("_seed")[1]).isdigit()}
        for seed, path in sorted(seeds.items()):
            try:
                history = utils.load_checkpoint(path, training_config(run, seed, args, source), {})["history"]
            except utils.InputError as error:
                print(f"left out: {error}", flush=True)
                continue
            if (done := len(history["seconds"])) < args.epochs:
                print(f"left out: {path} is at epoch {done} of {args.epochs}", flush=True)
            else:
                histories.setdefault(run, {})[str(seed)] = history
    return histories


def gradient_error(images: Tensor, args: argparse.Namespace) -> float:
    """Relative error of the original's explanation of the collapse without predictor, on the untrained ResNet-18.

    It says that with stop-gradient and the identity as predictor the gradient g of the symmetric loss is half of the
    gradient g' of D(z1, z2) without stop-gradient. Returns |2 g - g'| / |g'| over all parameters, in float64 on the
    CPU. images: (B, 3, 32, 32) uint8.
    """
    torch.manual_seed(args.seed)
    model = SimSiam(resnet18, args.dim, args.pred_dim, MLP_mode="no_pred_mlp").double()
    x1, x2 = (augment(images.cpu()).double() for _ in range(2))
    parameters = [p for p in model.parameters() if p.requires_grad]
    stopped = torch.autograd.grad(model.loss(*model(x1, x2)), parameters)
    model.stop_gradient = False
    _, _, z1, z2 = model(x1, x2)
    free = torch.autograd.grad(-CosineSimilarity()(z1, z2).mean(), parameters)
    difference = sum((2 * a - b).square().sum() for a, b in zip(stopped, free, strict=True))
    return float((difference / sum(b.square().sum() for b in free)).sqrt())


# --- Figures ----------------------------------------------------------------------------------------------------------


def draw_curves(metrics: dict, out: Path) -> None:
    """Write every figure, from metrics.json alone: accuracy and loss of each run, and the curves of all runs."""
    runs, curves = list(metrics["history"]), list(CURVES)
    figures = {run: ([run], curves[:2]) for run in runs} | {"comparison": (runs, curves[:6])}
    for name, (shown, keys) in figures.items():
        titles = dict.fromkeys(keys, words.RUNS[shown[0]] if len(shown) == 1 else "")
        with utils.panels(out / f"{name}.png", titles, rows=max(1, len(keys) // 3), xlabel="epoch") as panels:
            for key, axes in panels.items():
                plot(axes, metrics, shown, key)


def plot(axes: Axes, metrics: dict, runs: list[str], key: str) -> None:
    """One curve of `runs`, a thin line for each seed, from the untrained network on: the same scale in all figures."""
    histories = metrics["history"]
    drawn = [name for name in CURVES if name.startswith(key)]  # the backbone's accuracy beside the projector's
    highest = max(max(history[name]) for seeds in histories.values() for history in seeds.values() for name in drawn)
    for run in runs:
        style = {"color": f"C{list(RUNS).index(run)}", "linewidth": 0.8, "marker": ".", "markersize": 4}
        for history in histories[run].values():
            curve = history[key]
            if key == "median_distance":
                curve = [*map(words.without_rounding, curve)]
            (line,) = axes.plot(curve, clip_on=False, **style)
        line.set_label(words.RUNS[run])
    if key == "knn_accuracy" and len(runs) == 1:
        for history in histories[run].values():
            (line,) = axes.plot(history["knn_accuracy_backbone"], color="silver", linewidth=0.8, zorder=1)
        line.set_label("backbone's features")
    axes.set_ylabel(CURVES[key])
    axes.xaxis.get_major_locator().set_params(integer=True)
    if key == "median_distance":
        axes.set_yscale("symlog", linthresh=words.EQUAL)
        axes.axhline(words.ROUNDING, color="black", linewidth=0.8, zorder=0, label="rounding of float32 below 1")
    elif key == "loss":
        axes.set_ylim(-1.02, highest + 0.02)
        axes.axhline(-1, color="grey", linestyle="-.", zorder=0, label="least loss, -1")
    else:
        axes.set_ylim(0, max(0.65 if key == "knn_accuracy" else 0, 1.05 * highest))
    if key == "knn_accuracy":
        axes.axhline(0.1, color="grey", linestyle="--", zorder=0, label="chance")
        if metrics["config"]["data"] == "cifar10":
            axes.axhline(0.6, color="grey", linestyle=":", zorder=0, label="the original's 0.60 with stop-gradient")


# --- Command line -----------------------------------------------------------------------------------------------------


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; InputError for nonsense."""
    parser = utils.make_parser(__doc__, "q3_simsiam", ["cifar10", "svhn", "synthetic"], QUICK)
    add, recipe = parser.add_argument, words.RECIPE
    add("--runs", nargs="+", choices=list(RUNS), default=list(RUNS)[:3], help="to train; what OUT holds is joined")
    add("--repeats", type=utils.positive_int, default=1, help="number of seeds of each run, counted up from SEED")
    add("--epochs", type=utils.positive_int, default=recipe["epochs"], help="passes over the training images")
    add("--batch-size", type=utils.two_or_more, default=recipe["batch_size"], help="images per update")
    add("--lr", type=utils.positive_float, default=recipe["lr"], help="learning rate of SGD per 256 images of a batch")
    add("--dim", type=utils.two_or_more, default=recipe["dim"], help="width d of the projector's output")
    add("--pred-dim", type=utils.positive_int, default=recipe["pred_dim"], help="hidden width of the predictor")
    add("--knn-k", type=utils.positive_int, default=recipe["knn_k"], help="neighbours of the kNN classifier")
    add("--knn-temperature", type=utils.positive_float, default=recipe["knn_temperature"], help="of its votes")
    add("--train-images", type=utils.natural, default=0, help="size of a random subset to train on; 0 is all")
    add("--test-images", type=utils.natural, default=0, help="test images used, from the first; 0 is all")
    precisions = "of the network in training (default: bfloat16 on cuda, else float32)"
    add("--precision", choices=["float32", "bfloat16"], help=precisions)
    args = utils.parse_args(parser, argv, QUICK)
    args.runs = list(dict.fromkeys(args.runs))
    args.precision = args.precision or ("bfloat16" if args.device.type == "cuda" else "float32")
    return args


def summarise(history: dict) -> dict:
    """Return what a training ends with: the last entries of its curves, and its accuracy in float64."""
    ends = {key: history[key][-1] for key in CURVES} | {"epochs": len(history["seconds"])}
    return ends | {"knn_accuracy_float64": history.pop("knn_accuracy_float64")}


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    print(f"device: {utils.describe(args.device)}", flush=True)
    if args.figures_only:
        return redraw(args.out, draw_curves, words)
    data, source = load_images(args)
    print(f"data: {source}", flush=True)
    trainings = [(run, seed) for seed in range(args.seed, args.seed + args.repeats) for run in args.runs]
    utils.prepare_out(args, [checkpoint_path(args, *training) for training in trainings])
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
    for training in trainings:
        train(*training, data, args, source)

    histories = finished_runs(args, source)
    flat = [history for seeds in histories.values() for history in seeds.values()]
    results = {run: {seed: summarise(history) for seed, history in seeds.items()} for run, seeds in histories.items()}
    measured = [key for key in CURVES if key not in ("loss", "batch_std")]  # of the network, not of a batch
    results["untrained"] = {key: flat[0][key][0] for key in measured}
    results["gradient_error"] = gradient_error(data["train_images"][:32], args)
    results["test_images"] = len(data["test_images"])
    provenance, seconds = utils.merge(*(h.pop("provenance") for h in flat)), sum(sum(h["seconds"]) for h in flat)
    config = utils.run_config(args, source) | {"runs": list(histories)}
    utils.save_metrics(args.out, "q3_simsiam", provenance, config, seconds, histories, results)
    publish(args.out, draw_curves, words)


if __name__ == "__main__":
    utils.run(main)
