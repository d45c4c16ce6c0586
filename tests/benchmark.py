"""How fast the hot loops are, beside the same in the usual course style and beside their products alone.

    python tests/benchmark.py                                        a table in Markdown, in under five minutes
    python tests/benchmark.py --rows "VAE step" --json speed.json    one row, with all of its times

Ours, the baseline and the floor (the matrix products or convolutions alone) run in turn, several times; times are
medians with half of their interquartile range, the ratio is the baseline's over ours.

Tried on the CPU, without gain:
    VAE step             the likelihood as x . logits - softplus(logits), in-place operations
    importance sampling  log1p(exp) and logsigmoid for softplus, chunks of 400, 1,000 and 4,000, an allocator that keeps
                         freed memory
    critic update        real and generated images as one batch: their weight gradients leave the cache
    SimSiam step         an allocator that keeps freed memory; bfloat16, which these processors do not multiply faster
"""

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import resnet18
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
import q1_vae
import q2_gan
import q3_simsiam
import utils
from data import augmentation
from data.synthetic import synthetic_digits
from results.pages import make_table

Functions = dict[str, Callable[[], object]]  # of "ours", "baseline" and "floor"


def binary_images(n: int) -> Tensor:
    return (torch.rand(n, 784) < 0.13).byte()


def products(layers: nn.Module, x: Tensor, backward: bool) -> None:
    """The matrix products of a multilayer perceptron: forward and, if asked, those of its gradients."""
    weights = [layer.weight.detach() for layer in layers if isinstance(layer, nn.Linear)]
    inputs = [x]
    for weight in weights:
        inputs.append(inputs[-1] @ weight.T)
    gradient = inputs[-1]
    for weight, activation in zip(reversed(weights), reversed(inputs[:-1]), strict=True) if backward else ():
        gradient.T @ activation
        gradient = gradient @ weight


# --- The rows ---------------------------------------------------------------------------------------------------------


def load_binarized_mnist() -> Iterator[Functions]:
    """The three .amat files, here with random pixels; the baseline reads them line by line."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, "binarized_mnist", f"binarized_mnist_{split}.amat") for split in utils.AMAT_MD5]
        paths[0].parent.mkdir()
        for path, split, n in zip(paths, utils.AMAT_MD5, (50_000, 10_000, 10_000), strict=True):
            text = np.full((n, 784 * 2), ord(" "), np.uint8)
            text[:, ::2] = binary_images(n).numpy() + ord("0")
            text[:, -1] = ord("\n")
            path.write_bytes(text.tobytes())
            utils.AMAT_MD5[split] = hashlib.md5(text.tobytes()).hexdigest()  # of these, until the process ends

        def baseline() -> None:
            for path in paths:
                with path.open() as file:
                    torch.tensor(np.array([[int(pixel) for pixel in line.split()] for line in file], np.float32))

        yield {"ours": lambda: utils.load_amat(Path(folder)), "baseline": baseline}


def vae_step() -> Iterator[Functions]:
    """One update with the Monte Carlo KL, 10 samples, batch 64; the baseline draws its batch with a DataLoader."""
    images, vae = binary_images(10_000), q1_vae.VAE()
    fused, plain = (torch.optim.Adam(vae.parameters(), 3e-4, fused=fused) for fused in (True, False))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images.float()), 64, shuffle=True)
    batches = iter(())

    def update(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def ours() -> None:
        x = images[torch.randint(len(images), (64,))].float()
        update(-q1_vae.elbo(vae, x, "mc", 10).mean(), fused)

    def log_normal(mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        return (-0.5 * (np.log(2 * np.pi) + logvar + (z - mu) ** 2 / torch.exp(logvar))).sum(-1)

    def baseline() -> None:
        nonlocal batches
        (x,) = next(batches, None) or next(batches := iter(loader))
        mu, logvar = vae.encode(x)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        probability = torch.sigmoid(vae.decode(z))
        log_p_x = (x * torch.log(probability + 1e-8) + (1 - x) * torch.log(1 - probability + 1e-8)).sum(1)
        mu, logvar = (v.unsqueeze(1).expand(-1, 10, -1) for v in (mu, logvar))
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        kl = (log_normal(mu, logvar, z) - log_normal(torch.zeros_like(mu), torch.zeros_like(mu), z)).mean(1)
        update(-(log_p_x - kl).mean(), plain)

    def floor() -> None:
        products(vae.encoder, images[:64].float(), backward=True)
        products(vae.decoder, torch.zeros(64, 100), backward=True)

    yield {"ours": ours, "baseline": baseline, "floor": floor}


def importance_sampling() -> Iterator[Functions]:
    """log p(x) of 500 images with K = 200; the baseline repeats everything K-fold for 64 images at a time."""
    images, vae, k = binary_images(500), q1_vae.VAE(), 200

    @torch.no_grad()
    def baseline() -> None:
        for x in images.float().split(64):
            mu, logvar = (v.repeat_interleave(k, 0) for v in vae.encode(x))
            z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
            mean, x = torch.sigmoid(vae.decode(z)), x.repeat_interleave(k, 0)
            log_p_x = q1_vae.log_likelihood_bernoulli(mean, x)
            log_p_z = q1_vae.log_likelihood_normal(torch.zeros_like(z), torch.zeros_like(z), z)
            log_q_z = q1_vae.log_likelihood_normal(mu, logvar, z)
            q1_vae.log_mean_exp((log_p_x + log_p_z - log_q_z).view(-1, k))

    def floor() -> None:
        for _ in range(len(images) * k // 2000):
            products(vae.decoder, z, backward=False)

    z = torch.randn(2000, 100)
    yield {
        "ours": lambda: q1_vae.log_likelihood_importance_sampling(vae, images, k),
        "baseline": baseline,
        "floor": floor,
    }


def critic_update() -> Iterator[Functions]:
    """One update of the critic, width 64, batch 64; the baseline with torch's usual layout and Adam."""
    images = torch.randint(0, 256, (1000, 3, 32, 32), dtype=torch.uint8)

    def make(usual: bool = False, convolutions_only: bool = False) -> Callable[[], None]:
        generator, critic = q2_gan.Generator(), q2_gan.Critic()
        if convolutions_only:
            for network in (generator, critic):
                kept = [m for m in network.layers if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
                network.layers = nn.Sequential(*kept)
        memory_format = torch.contiguous_format if usual else torch.channels_last
        for network in (generator, critic):
            network.to(memory_format=memory_format)
        adam = torch.optim.Adam(critic.parameters(), 1e-4, (0.5, 0.9), fused=not usual)
        data = images.contiguous(memory_format=memory_format)

        def update() -> None:
            x = q2_gan.scale(data[torch.randint(len(data), (64,))])
            with torch.no_grad():
                y = generator(torch.randn(64, 100))
            distance = q2_gan.vf_wasserstein_distance(x, y, critic)
            critic.zero_grad()
            (10 * q2_gan.lp_reg(x, y, critic) - distance).backward()
            if not convolutions_only:
                adam.step()

        return update

    yield {"ours": make(), "baseline": make(usual=True), "floor": make(convolutions_only=True)}


def two_views() -> Iterator[Functions]:
    """Two views of 1,000 images on one thread; the baseline with torchvision, one PIL image at a time."""
    digits = torch.tensor(synthetic_digits(1000, 0)[0])
    images = F.pad(digits[:, None].expand(-1, 3, -1, -1), [2] * 4).contiguous(memory_format=torch.channels_last)
    pictures = [transforms.functional.to_pil_image(image) for image in images]
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(32, (0.08, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            transforms.RandomGrayscale(0.2),
            transforms.ToTensor(),
            transforms.Normalize(augmentation.MEAN, augmentation.STD),
        ]
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {
        "ours": lambda: (augmentation.augment(images), augmentation.augment(images)),
        "baseline": lambda: [torch.stack([transform(picture) for picture in pictures]) for _ in range(2)],
    }
    torch.set_num_threads(threads)


def simsiam_step() -> Iterator[Functions]:
    """One update with its two views, batch 1024; the baseline with torchvision's convolutions."""
    images = torch.randint(0, 256, (1024, 3, 32, 32), dtype=torch.uint8)

    def make(convolution: type[nn.Conv2d]) -> Callable[[], None]:
        model = q3_simsiam.SimSiam(resnet18).to(memory_format=torch.channels_last)
        optimizer = q3_simsiam.make_optimizer(model, 0.12, 0.9, 5e-4)
        for module in model.modules():
            if isinstance(module, utils.SmallMapConv2d):
                module.__class__ = convolution

        def update() -> None:
            loss = model.loss(*model(augmentation.augment(images), augmentation.augment(images)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return update

    yield {"ours": make(utils.SmallMapConv2d), "baseline": make(nn.Conv2d)}


def knn_monitor() -> Iterator[Functions]:
    """kNN of 10,000 test images among 50,000, 2048 features, k = 200."""
    train, test = torch.randn(50_000, 2048), torch.randn(10_000, 2048)
    labels = torch.randint(10, (50_000,))

    def floor() -> None:
        for features in test.split(500):
            features @ train.T

    yield {
        "ours": lambda: q3_simsiam.knn_accuracy(train, labels, test, labels[:10_000], 200, 0.1),
        "floor": floor,
    }


ROWS = {  # what is timed, and how often
    "load binarized MNIST": (load_binarized_mnist, 2),
    "VAE step": (vae_step, 300),
    "importance sampling": (importance_sampling, 5),
    "critic update": (critic_update, 20),
    "two views of 1,000 images": (two_views, 7),
    "SimSiam step": (simsiam_step, 3),
    "kNN monitor": (knn_monitor, 2),
}


# --- Timing -----------------------------------------------------------------------------------------------------------


def measure(functions: Functions, repeats: int) -> dict[str, list[float]]:
    """Seconds of each function, which run in turn, after one call that does not count."""
    seconds = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def row(name: str, seconds: dict[str, list[float]]) -> list[str]:
    """One line of the table; a warning on stderr where the spread exceeds the effect."""
    spread = {kind: statistics.quantiles(values, n=4, method="inclusive") for kind, values in seconds.items()}
    ours = spread["ours"][1]

    def text(kind: str) -> str:
        if kind not in spread:
            return "-"
        low, middle, high = spread[kind]
        factor, unit = (1, "s") if middle > 1 else (1000, "ms")
        return f"{middle * factor:.3g} ± {(high - low) / 2 * factor:.2g} {unit}"

    if "baseline" in spread and spread["ours"][2] > spread["baseline"][0]:
        print(f"{name}: the machine is too busy, the times of ours and the baseline overlap", file=sys.stderr)
    ratio = f"{spread['baseline'][1] / ours:.3g}" if "baseline" in spread else "-"
    over = f"{ours / spread['floor'][1]:.3g}" if "floor" in spread else "-"
    return [name, text("ours"), text("baseline"), ratio, text("floor"), over]


def main() -> None:
    parser = utils.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="what to time; default all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time, in seconds")
    args = parser.parse_args()
    torch.manual_seed(0)
    times = {}
    for name in tqdm(args.rows, leave=False, disable=None):
        make, repeats = ROWS[name]
        for functions in make():
            times[name] = measure(functions, repeats)
    header = ["work", "ours", "course style", "ratio", "floor", "ours over the floor"]
    device = utils.describe(torch.device("cpu"))
    print(f"{device}, torch {torch.__version__}\n\n{make_table([header, *(row(*item) for item in times.items())])}")
    if args.json:
        utils.write(args.json, json.dumps({"device": device, "torch": torch.__version__, "seconds": times}, indent=1))


if __name__ == "__main__":
    utils.run(main)
