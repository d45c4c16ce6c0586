"""Problem 3: SimSiam on CIFAR-10 and its ablations.

Trains SimSiam as it is, without stop-gradient and without predictor, and follows each run with a kNN classifier and
collapse monitors. "The original" is the report of one who did the assignment.

    python q3_simsiam.py --quick                        a minute on two CPU cores, synthetic digits
    python q3_simsiam.py                                the original's three runs on CIFAR-10, 100 epochs each
    python q3_simsiam.py --runs baseline --repeats 5    five seeds of one; those finished in --out stay
"""

import argparse
import copy
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18
from tqdm import tqdm

import utils
from data.augmentation import augment, normalise
from results import pages, runs
from results import simsiam as problem
from utils import natural, positive_float, positive_int, two_or_more

QUICK = {"epochs": 3, "batch_size": 64, "train_images": 1600, "test_images": 1000, "lr": 0.4, "knn_k": 20}
RUNS = {  # keyword arguments of SimSiam
    "baseline": {},
    "no_stop_gradient": {"stop_gradient": False},
    "no_predictor": {"MLP_mode": "no_pred_mlp"},
    "fixed_random_predictor": {"MLP_mode": "fixed_random_init"},
}
MONITORS = ["knn_accuracy", "knn_accuracy_backbone", "output_std", "effective_rank", "median_distance", "silent"]
CURVES = [*MONITORS, "loss", "batch_std", "seconds"]
KNN = ["knn_k", "knn_temperature"]


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The recipe: the assignment's defaults, each with its sentence."""
    parser = utils.make_parser(__doc__, "q3_simsiam", ["cifar10", "svhn", "synthetic"], QUICK)
    flag = parser.flag
    flag("--runs", str, list(RUNS)[:3], "to train; what is finished in OUT is joined", nargs="+", choices=list(RUNS))
    flag("--epochs", positive_int, 100, "passes over the training images")
    flag("--batch-size", two_or_more, 1024, "images per update")
    flag("--lr", positive_float, 0.03, "of SGD, per 256 images of a batch, with cosine decay but for the predictor")
    flag("--dim", two_or_more, 2048, "width d of the projector's output")
    flag("--pred-dim", positive_int, 512, "hidden width of the predictor")
    flag("--train-images", natural, 0, "size of a random subset to train on; 0 is all")
    flag("--precision", str, None, "in training (bfloat16 on cuda, else float32)", choices=["float32", "bfloat16"])
    parser.group = parser.add_argument_group("measuring")
    flag("--knn-k", positive_int, 200, "neighbours of the kNN classifier")
    flag("--knn-temperature", positive_float, 0.1, "temperature of its votes")
    flag("--test-images", natural, 0, "test images used, from the first; 0 is all")
    parser.set_defaults(momentum=0.9, weight_decay=5e-4, models=None)  # of SGD; there are none to be measured
    args = utils.parse_args(parser, argv, QUICK)
    args.runs = list(dict.fromkeys(args.runs))
    args.precision = args.precision or ("bfloat16" if args.device.type == "cuda" else "float32")
    return args


class CosineSimilarity(nn.Module):
    """Cosine of the angle between x and y along `dim`: x.y / max(|x| |y|, eps), broadcasting; 0 for a zero vector."""

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        norms = x.norm(dim=self.dim) * y.norm(dim=self.dim)
        return (x * y).sum(self.dim) / norms.clamp(min=self.eps)


class SimSiam(nn.Module):
    """Encoder f (backbone and projector) and predictor h of Chen & He, arXiv 2011.10566, for images (B, 3, H, W).

    base_encoder: a torchvision constructor of a network that ends in `fc`, called with num_classes and
    zero_init_residual. dim: width of z and p. pred_dim: hidden width of the predictor. MLP_mode: None, 'no_pred_mlp'
    (the predictor is the identity) or 'fixed_random_init' (weights from N(0, 0.01^2), a last bias of 0, all parameters
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
        utils.use_small_map_convolutions(self.encoder)
        width = self.encoder.fc.in_features
        self.encoder.fc = nn.Sequential(  # the projector
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, dim),
            nn.BatchNorm1d(dim, affine=False),
        )
        self.encoder.fc[6].bias.requires_grad_(False)  # the batch normalisation behind it cancels it
        self.predictor = nn.Sequential(
            nn.Linear(dim, pred_dim, bias=False),
            nn.BatchNorm1d(pred_dim),
            nn.ReLU(),
            nn.Linear(pred_dim, dim),
        )
        if MLP_mode == "no_pred_mlp":  # after the same draws, so that the runs of a seed see the same views
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


def knn_accuracy(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int, temperature: float, chunk: int = 500
) -> float:
    """Accuracy of a kNN classifier by cosine similarity, votes weighted with exp(similarity / temperature).

    train: (N, F), test: (M, F), labels from 0 to 9. Wu et al., arXiv 1805.01978, section 3.4.
    """
    train, correct = F.normalize(train), []
    for features, labels in zip(test.split(chunk), test_labels.split(chunk), strict=True):
        similarity, index = (F.normalize(features) @ train.T).topk(k, dim=1)
        votes = similarity.new_zeros(len(features), 10)
        weights = ((similarity - similarity[:, :1]) / temperature).exp()  # less the largest, against overflow
        votes.scatter_add_(1, train_labels[index], weights)
        correct.append(votes.argmax(1) == labels)
    return utils.mean(torch.cat(correct))


def output_std(z: Tensor) -> Tensor:
    """Deviation of z / |z| over the batch, mean of the channels, times sqrt(d), a scalar: 1 if spread, 0 if collapsed.

    z: (B, d). Chen & He, figure 2.
    """
    return F.normalize(z.detach().float()).std(0).mean() * math.sqrt(z.shape[1])


def effective_rank(z: Tensor) -> float:
    """Participation ratio (sum of l)^2 / sum of l^2 of the eigenvalues l of the covariance of z / |z|.

    z: (B, d). Between 1, where the outputs lie on a line, as on two opposite points, and d; 0 where all are equal.
    """
    covariance = F.normalize(z).T.cov()
    return float(covariance.trace().square() / covariance.square().sum().clamp(min=torch.finfo(z.dtype).tiny))


def median_distance(z: Tensor) -> float:
    """Median of 1 - cosine over all pairs of different rows of z: (B, d), in float64, on the CPU, as mps has none."""
    z = F.normalize(z.cpu().double())
    first, second = torch.triu_indices(len(z), len(z), offset=1)
    return float((1 - z @ z.T)[first, second].median())


def load_images(args: argparse.Namespace) -> dict:
    """Return what `utils.load_rgb` does, cut to --train-images random and the first --test-images images.

    The random images are the same for all seeds.
    """
    data = utils.load_rgb(args)
    for split, num in (("train", args.train_images), ("test", args.test_images)):
        available = len(data[f"{split}_images"])
        if num > available or num == 1:
            raise utils.InputError(f"--{split}-images {num}: give 2 to {available}, or 0 for all")
    num = args.train_images or len(data["train_images"])
    for flag, value in (("--batch-size", args.batch_size), ("--knn-k", args.knn_k)):
        if value > num:
            raise utils.InputError(f"{flag} {value} is more than the {num} training images")
    if args.train_images:
        order = torch.randperm(len(data["train_images"]), generator=torch.Generator().manual_seed(0))
        chosen = order[: args.train_images].to(args.device)
        data |= {"train_images": data["train_images"][chosen], "train_labels": data["train_labels"][chosen]}
    if args.test_images:
        data |= {key: data[key][: args.test_images] for key in ("test_images", "test_labels")}
    return data


@torch.no_grad()
def embed(model: SimSiam, images: Tensor) -> tuple[Tensor, Tensor]:
    """Backbone features and projector outputs of unaugmented images (N, 3, 32, 32) uint8, in evaluation mode.

    The model stays in this mode, on which `monitor` relies.
    """
    model.eval()
    dtype = next(model.parameters()).dtype
    outputs = [model.represent(normalise(chunk.to(dtype) / 255)) for chunk in images.split(1000)]
    features, z = zip(*outputs, strict=True)
    return torch.cat(features), torch.cat(z)


def test_accuracy(train: Tensor, test: Tensor, data: dict, args: argparse.Namespace) -> float:
    """The kNN classifier's accuracy with these vectors of the training and test images."""
    return knn_accuracy(train, data["train_labels"], test, data["test_labels"], args.knn_k, args.knn_temperature)


@torch.no_grad()
def monitor(model: SimSiam, data: dict, args: argparse.Namespace) -> dict[str, float]:
    """kNN accuracy of projector and backbone, and how far the projector's outputs spread, on the test images.

    data: as from `load_images`.
    """
    features, z = embed(model, data["train_images"])
    test_features, test_z = embed(model, data["test_images"])
    hidden = model.encoder.fc[:6](test_features)  # the projector's last hidden layer; where it is 0, outputs are equal
    return {
        "knn_accuracy": test_accuracy(z, test_z, data, args),
        "knn_accuracy_backbone": test_accuracy(features, test_features, data, args),
        "output_std": float(output_std(test_z)),
        "effective_rank": effective_rank(test_z),
        "median_distance": median_distance(test_z[:1000]),
        "silent": utils.mean((hidden == 0).all(1)),
    }


def pixel_accuracy(data: dict, args: argparse.Namespace) -> float:
    """The kNN classifier's accuracy on the normalised pixels: what needs no network."""
    train = normalise(data["train_images"] / 255).flatten(1)
    test = normalise(data["test_images"] / 255).flatten(1)
    return test_accuracy(train, test, data, args)


def accuracy_float64(model: SimSiam, data: dict, args: argparse.Namespace) -> float:
    """The projector's kNN accuracy in float64; on the CPU for mps, which has none.

    It exceeds that of float32 where images differ by less than float32 resolves.
    """
    device = "cpu" if data["train_images"].is_mps else data["train_images"].device
    model = copy.deepcopy(model).to(device, torch.float64)
    data = {key: tensor.to(device) for key, tensor in data.items() if key != "source"}
    _, train = embed(model, data["train_images"])
    _, test = embed(model, data["test_images"])
    return test_accuracy(train, test, data, args)


def make_optimizer(model: SimSiam, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD whose groups, the encoder's and the predictor's parameters, say whether their rate is fixed (`fix_lr`)."""
    encoder = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    predictor = [parameter for parameter in model.predictor.parameters() if parameter.requires_grad]
    groups = [{"params": encoder, "fix_lr": False}, {"params": predictor, "fix_lr": True}]
    return torch.optim.SGD(groups, lr, momentum=momentum, weight_decay=weight_decay)


def checkpoint_path(run: str, seed: int, args: argparse.Namespace) -> Path:
    return runs.seed_path(args, f"checkpoint_{run}", seed)


def training_config(run: str, seed: int, args: argparse.Namespace, source: str) -> dict:
    """What a checkpoint must agree with; the kNN classifier of a finished training may be another."""
    keys = ["epochs", "batch_size", "lr", "dim", "pred_dim", "precision", "train_images", "test_images"]
    config = {key: getattr(args, key) for key in [*keys, *KNN]} | {"run": run, "seed": seed, "source": source}
    path = checkpoint_path(run, seed, args)
    if path.exists():
        checkpoint = runs.read_checkpoint(path)
        if runs.progress(checkpoint["history"]) == args.epochs:
            config |= {key: checkpoint["config"].get(key) for key in KNN}
    return config


def train(run: str, seed: int, data: dict, args: argparse.Namespace) -> None:
    """Train one of RUNS, or go on from its checkpoint, where the history is kept.

    Entry 0 of each curve is the untrained network's (of loss and batch_std the first batch's), the others are the
    epochs'; `seconds` has the epochs alone.
    """
    torch.manual_seed(seed)
    model = SimSiam(resnet18, args.dim, args.pred_dim, **RUNS[run])
    model.to(args.device, memory_format=utils.memory_format(args.device))
    lr = args.lr * args.batch_size / 256
    optimizer = make_optimizer(model, lr, args.momentum, args.weight_decay)
    modules = {"model": model, "optimizer": optimizer}
    path, config = checkpoint_path(run, seed, args), training_config(run, seed, args, data["source"])
    history, done = runs.resume(path, config, modules, {key: [] for key in CURVES}, args)
    name = f"{run} seed {seed}"

    def record(numbers: dict[str, float]) -> None:
        for key, value in numbers.items():
            history[key].append(value)

    if not done:
        record(monitor(model, data, args))
    begin = time.perf_counter()
    for epoch in range(done + 1, args.epochs + 1):
        start, steps = time.perf_counter(), []
        model.train()
        for group in optimizer.param_groups:
            if not group["fix_lr"]:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / args.epochs))
        order = torch.randperm(len(data["train_images"]), device=args.device)
        batches = order[: len(order) // args.batch_size * args.batch_size].split(args.batch_size)  # whole ones
        for batch in tqdm(batches, desc=f"{name} epoch {epoch}", leave=False, disable=None):
            images = data["train_images"][batch]
            x1, x2 = augment(images), augment(images)
            with torch.autocast(args.device.type, torch.bfloat16, enabled=args.precision == "bfloat16"):
                p1, p2, z1, z2 = (output.float() for output in model(x1, x2))
            loss = model.loss(p1, p2, z1, z2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(torch.stack([loss.detach(), output_std(z1)]))
        steps = torch.stack(steps)
        utils.check_finite(steps, f"the loss in epoch {epoch} of {name}")
        if epoch == 1:
            record({"loss": steps[0, 0].item(), "batch_std": steps[0, 1].item()})
        loss, batch_std = steps.mean(0).tolist()
        numbers = {"loss": loss, "batch_std": batch_std} | monitor(model, data, args)
        record(numbers | {"seconds": time.perf_counter() - start})
        if epoch == args.epochs:
            history["knn_accuracy_float64"] = accuracy_float64(model, data, args)
        runs.save_checkpoint(path, config, modules, history)
        text = ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
        to_go = utils.time_to_go(begin, epoch - done, args.epochs - done)
        print(f"{name} epoch {epoch}/{args.epochs}: {text}, {to_go} to go in this run")


def load_model(run: str, seed: int, args: argparse.Namespace, data: dict) -> tuple[SimSiam, dict]:
    """Return a trained network and its history from its checkpoint.

    Where its curves are of another kNN classifier, `knn` has that one's settings, and `end` what this one finds.
    """
    model = SimSiam(resnet18, args.dim, args.pred_dim, **RUNS[run])
    config = training_config(run, seed, args, data["source"])
    history = runs.load_checkpoint(checkpoint_path(run, seed, args), config, {"model": model}, CURVES)
    knn = {key: config[key] for key in KNN}
    if any(knn[key] != getattr(args, key) for key in KNN):
        print(f"{run} seed {seed}: measuring its end with k = {args.knn_k}, temperature {args.knn_temperature}")
        model.to(args.device, memory_format=utils.memory_format(args.device))
        history["end"] = monitor(model, data, args) | {"knn_accuracy_float64": accuracy_float64(model, data, args)}
        history["knn"] = knn
    return model, history


def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    print(f"device: {utils.describe(args.device)}")
    if args.figures_only:
        return pages.redraw(args.out, "q3_simsiam", problem)
    data = load_images(args)
    source = data["source"]
    print(f"data: {source}")
    if args.download:
        return
    trainings = [(run, seed) for seed in range(args.seed, args.seed + args.repeats) for run in args.runs]
    runs.open_out(args, "q3_simsiam", [checkpoint_path(*training, args).name for training in trainings])
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # the monitors need float32's digits
    torch.set_float32_matmul_precision("highest")
    for run, seed in trainings:
        with runs.interruptible(checkpoint_path(run, seed, args), args):
            train(run, seed, data, args)

    histories, provenance, seconds = runs.finished_trainings(args, RUNS, partial(load_model, args=args, data=data))
    results = {run: {} for run in histories}
    for run, seeds in histories.items():
        for seed, history in seeds.items():
            ends = {"epochs": len(history["seconds"]), "knn_accuracy_float64": history.pop("knn_accuracy_float64")}
            ends |= {key: history[key][-1] for key in CURVES if key != "seconds"}
            results[run][seed] = ends | history.pop("end", {})
            results.setdefault("untrained", {key: history[key][0] for key in MONITORS})  # that of the first
    results |= {"knn_accuracy_pixels": pixel_accuracy(data, args), "test_images": len(data["test_images"])}
    metrics = runs.save_metrics(args, "q3_simsiam", source, provenance, seconds, histories, results)
    pages.publish(metrics, args.out, problem)


if __name__ == "__main__":
    utils.run(main)
