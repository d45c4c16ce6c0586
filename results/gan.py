"""Problem 2 from its metrics.json: the original's claims as data, what fills the page, the curves."""

import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import utils
from results import pages
from results.pages import Claim, make_table, mean_error

TEMPLATE = "gan"
SOURCES = [
    "SVHN (torchvision)",
    "SVHN (the first 10,000 official test images, lossless: 8,000 to train, 2,000 to test)",
]
RECIPE = {"iterations": 50_000, "critic_updates": 5, "penalty": 10, "batch_size": 64, "lr": 1e-4}  # the original's
RECIPE |= {"betas": [0.5, 0.9], "width": 64, "latent_size": 100, "perturb_dims": [3, 30, 35, 50]}
RECIPE |= {"classifier_steps": 900}
SAMPLES = 10_000  # of a snapshot, at least


def readable_claim(original: str, iteration: int, rule: str, limit: float) -> Claim:
    """Return the claim that the share of readable samples, also over real images', lies beyond a limit."""
    keys = [f"readable_{iteration}", f"readable_{iteration}_over_real"]
    quantity = f"readable samples at {iteration:,}: their share, and that divided by held-out images' share"
    return Claim("2.2", original, quantity, keys, rule, limit, "readable {0}; relative to real images: {1}")


CLAIMS = [
    readable_claim("model 0: nothing but noise", 0, "<", 0.05),
    readable_claim("after 7,000: too indistinct to detect", 7000, "<", 0.5),
    readable_claim("after 20,000: mostly proper digits", 20_000, ">", 0.5),
    Claim(
        "2.2",
        "primarily 2, 6 and 8",
        "their share of the readable samples at 20,000",
        ["two_six_eight"],
        ">",
        0.5,
        "{0} of the readable, of real ones {1}",
        beside=("two_six_eight_real",),
    ),
    Claim(
        "2.2",
        "after 50,000: far more diverse",
        "coverage at 50,000 minus at 20,000",
        ["coverage_gain"],
        ">",
        0.05,
        "coverage changes by {0}, to {1}",
        beside=("coverage_50000",),
    ),
    Claim(
        "2.2",
        "crisper",
        "sharpness at 50,000 minus at 20,000",
        ["sharpness_gain"],
        ">",
        0,
        "sharpness changes by {0}, to {1} (real images: 1)",
        beside=("sharpness_50000",),
    ),
    Claim(
        "2.3",
        "dimensions 3, 30, 35, 50 change the digit for ε from 1 to 20",
        "share of readable samples at 50,000 that reach another digit, for each of the four",
        [f"reached_{dim}" for dim in RECIPE["perturb_dims"]],
        here="of readable samples {0}, {1}, {2}, {3}; other dimensions {4}",
        beside=("reached_others",),
    ),
    Claim(
        "2.4",
        "latent interpolation stays on the data manifold, pixel does not",
        "share of readable images half-way divided by that at the ends, latent and pixel paths, at 50,000",
        ["half_way_latent", "half_way_pixel"],
        "><",
        0.8,
        "readable half-way over the ends: latent {0}, pixel {1}",
    ),
]
BELIEVED = {  # of the classifier on held-out images, fixed before any sample was measured
    "right_where_readable": (">=", 0.97),
    "readable": (">=", 0.80),
    "readable_scrambled": ("<=", 0.10),
}


def doubt(seed: dict) -> str:
    """Return why the classifier of a training is not believed; "" where it is."""
    for name, (sign, limit) in BELIEVED.items():
        value = seed["classifier"][name]
        fails = value < limit if sign == ">=" else value > limit
        if fails:
            return f"{name.replace('_', ' ')} {value:.3f}, not {sign} {limit}"
    return ""


def objection(metrics: dict) -> str:
    """Return why nothing is decided, in a sentence."""
    reason = pages.objection(metrics, SOURCES, RECIPE)
    if not reason and metrics["config"]["samples"] < SAMPLES:
        reason = f"No verdict: measured with {metrics['config']['samples']:,} samples, not {SAMPLES:,}."
    doubts = [doubt(seed) for seed in metrics["results"]["seeds"].values()]
    if all(doubts):
        reason = reason or "No verdict."
        reason += f" The classifier is not believed ({doubts[0]}): what it reads, and coverage, say little."
    return reason


def counted(metrics: dict) -> dict[str, dict]:
    """Return the seeds whose classifier is believed; all where none is, as then nothing is decided."""
    seeds = metrics["results"]["seeds"]
    return {name: seed for name, seed in seeds.items() if not doubt(seed)} or seeds


def over_ends(curve: list[float]) -> list[float]:
    """Return a curve over the mean of its ends; nothing where that is 0."""
    ends = (curve[0] + curve[-1]) / 2
    return [value / ends for value in curve] if ends else []


def half_way(curve: list[float]) -> float | None:
    """Return the middle of a curve over the mean of its ends; None where there is nothing to compare with."""
    ratios = over_ends(curve)
    return ratios[len(ratios) // 2] if ratios else None


def two_six_eight(digits: list[int]) -> float | None:
    """Return the share of 2, 6 and 8 of how often each digit is read; None of none."""
    return (digits[2] + digits[6] + digits[8]) / sum(digits) if any(digits) else None


def quantities(metrics: dict) -> dict[str, list[float]]:
    """Return what the claims name: a number for every training that counts and has the snapshots."""
    numbers = defaultdict(list)

    def add(key: str, value: float | None) -> None:
        if value is not None:
            numbers[key].append(value)

    for seed in counted(metrics).values():
        snapshots = {int(iteration): snapshot for iteration, snapshot in seed["snapshots"].items()}
        real = seed["classifier"]["readable"]
        for iteration in snapshots.keys() & {0, 7000, 20_000}:
            readable = snapshots[iteration]["readable"]
            add(f"readable_{iteration}", readable)
            if real:
                add(f"readable_{iteration}_over_real", readable / real)
        if 20_000 in snapshots:
            add("two_six_eight", two_six_eight(snapshots[20_000]["digits"]))
        add("two_six_eight_real", two_six_eight(seed["held_out"]["digits"]))
        if snapshots.keys() >= {20_000, 50_000}:
            for key in snapshots[20_000].keys() & snapshots[50_000].keys() & {"coverage", "sharpness"}:
                add(f"{key}_gain", snapshots[50_000][key] - snapshots[20_000][key])
                add(f"{key}_50000", snapshots[50_000][key])
        paths = snapshots.get(50_000, {})
        if paths.get("perturbation", {}).get("readable"):
            for dim, share in zip(metrics["config"]["perturb_dims"], paths["perturbation"]["named"], strict=True):
                add(f"reached_{dim}", share)
            if others := paths["perturbation"]["others"]:
                add("reached_others", fmean(others))
        for path, curve in paths.get("interpolation", {}).items():
            add(f"half_way_{path}", half_way(curve))
    return numbers


def entries(metrics: dict, *keys: str) -> list:
    """Return an entry of nested dicts, as far as it was measured, of every training that counts."""
    values = list(counted(metrics).values())
    for key in keys:
        values = [value[key] for value in values if value.get(key) is not None]
    return values


def iterations(metrics: dict) -> list[int]:
    """Return the iterations of all snapshots in their order."""
    return sorted({int(iteration) for seed in counted(metrics).values() for iteration in seed["snapshots"]})


def effective_digits(digits: list[int]) -> float | None:
    """Return 2 to the entropy of how often each digit is read: 1 if always the same, 10 if all alike; None of none."""
    shares = [count / sum(digits) for count in digits if count]
    return 2 ** -sum(share * math.log2(share) for share in shares) if shares else None


def summary(metrics: dict) -> list[list]:
    """Return the numbers of the last snapshot, for a run that decides nothing."""
    last = iterations(metrics)[-1]
    snapshot = ("snapshots", str(last))
    rows = [["readable real images (a classifier is 90% sure of a digit)", entries(metrics, "classifier", "readable")]]
    rows.append([f"readable samples at iteration {last:,}", entries(metrics, *snapshot, "readable")])
    rows.append(
        ["real images with a sample in their neighbourhood (coverage)", entries(metrics, *snapshot, "coverage")]
    )
    for path in ("latent", "pixel"):
        ratios = [half_way(curve) for curve in entries(metrics, *snapshot, "interpolation", path)]
        label = f"share of readable images half-way divided by that at the ends, {path} paths"
        rows.append([label, [ratio for ratio in ratios if ratio is not None]])
    return [[label, mean_error(values)] for label, values in rows]


def changes(digits: list[int]) -> str:
    """Return what is read along a row; digits are those at ε = 0, 1, 2, …, -1 where none is readable."""
    steps, last = [], -1
    for epsilon, digit in enumerate(digits):
        if digit not in (last, -1):
            steps.append(f"{digit} at ε = {epsilon}" if steps else str(digit))
            last = digit
    return ", ".join(steps) or "-"


def samples_table(metrics: dict) -> str:
    """Return what was measured of each snapshot, and of real images in the same way."""
    rows = [["images", "trainings", "readable", "effective digits", "coverage", "Fréchet distance", "sharpness", "r"]]
    images = {f"iteration {i:,}": ("snapshots", str(i)) for i in iterations(metrics)}
    images |= {"held-out images": ("held_out",), "training images": ("training",)}
    for name, keys in images.items():
        digits = [effective_digits(counts) for counts in entries(metrics, *keys, "digits")]
        row = [name, len(entries(metrics, *keys)), mean_error(entries(metrics, *keys, "readable"))]
        row.append("not measured" if None in digits else mean_error(digits))
        row += [
            mean_error(entries(metrics, *keys, key)) for key in ("coverage", "frechet", "sharpness", "memorisation")
        ]
        rows.append(row)
    return make_table(rows)


def context(metrics: dict) -> dict:
    """Return what the template names."""
    config, seeds = metrics["config"], metrics["results"]["seeds"]
    believed = [["on held-out images", *(f"seed {seed}" for seed in seeds), "needed"]]
    for name, (sign, limit) in BELIEVED.items():
        measured = [f"{seed['classifier'][name]:.3f}" for seed in seeds.values()]
        believed.append([name.replace("_", " "), *measured, f"{sign} {limit}"])
    read = [["dimension", "digits read from one z for all", "digits read from a z of its own"]]
    for i, dim in enumerate(config["perturb_dims"]):
        own = metrics["results"]["digits"][i + len(config["perturb_dims"])]
        read.append([dim, changes(metrics["results"]["digits"][i]), changes(own)])
    last = ("snapshots", str(iterations(metrics)[-1]))
    paths = [["path", "readable at α = 0", "half-way", "at α = 1"]]
    for path in ("latent", "pixel"):
        curves = entries(metrics, *last, "interpolation", path)
        row = [mean_error([curve[place] for curve in curves]) for place in (0, len(config["alphas"]) // 2, -1)]
        paths.append([path, *row])
    perturbed = [shares for shares in entries(metrics, *last, "perturbation") if shares["readable"]]
    reached = {}
    for key in ("named", "others", "random"):
        reached[f"reached_{key}"] = mean_error([fmean(shares[key]) for shares in perturbed if shares[key]])
    return reached | {
        "samples": samples_table(metrics),
        "accuracy": mean_error(entries(metrics, "classifier", "accuracy")),
        "mixes": mean_error(entries(metrics, "classifier", "readable_mixes")),
        "believed": make_table(believed),
        "starts": ", ".join(f"{shares['readable']} of {shares['samples']}" for shares in perturbed) or "not measured",
        "read": make_table(read),
        "paths": make_table(paths),
        "augmentation": ", ".join(f"{name} {size:g}" for name, size in config["augmentation"].items()),
        "epsilons": ", ".join(map(str, config["epsilons"])),
        "coverage_samples": f"{min(config['samples'], config['coverage_samples']):,}",
        "pairs": f"{min(config['samples'] // 2, config['pairs']):,}",
    }


def draw_training(metrics: dict, path: Path) -> None:
    """The critic's estimate and the penalty, a line for each seed."""
    figure, ((distance, penalty),) = utils.subplots(1, 2)
    for seed, history in metrics["history"].items():
        style = {"linewidth": 0.8, "marker": "." if len(history["iteration"]) < 20 else None, "label": f"seed {seed}"}
        distance.plot(history["iteration"], history["distance"], **style)
        penalty.plot(history["iteration"], history["penalty"], **style)
    distance.set_title("Critic's estimate of the distance")
    penalty.set_title("Lipschitz penalty")
    for axes in (distance, penalty):
        axes.set_yscale("symlog", linthresh=0.001, subs=[2, 5])  # logarithmic, but an estimate may be negative
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="generator iteration", ylabel="mean since the last point")
    utils.save_figure(figure, path)


def draw_quality(metrics: dict, path: Path) -> None:
    """What was measured of each snapshot, a line for each seed, beside real images and the limits of the claims."""
    figure, rows = utils.subplots(2, 2)
    panels = dict(zip(("readable", "coverage", "sharpness", "frechet"), rows.flat, strict=True))
    last = iterations(metrics)[-1]
    for key, axes in panels.items():
        for seed in counted(metrics).values():
            measured = {int(i): snapshot[key] for i, snapshot in seed["snapshots"].items() if key in snapshot}
            if measured:
                (line,) = axes.plot(measured.keys(), measured.values(), color="C0", marker=".", linewidth=0.8)
                line.set_clip_on(key == "sharpness")  # noise is far above
        axes.set_xticks(sorted({min(iteration, last) for iteration in (0, 7000, 20_000, last)}))  # the original's
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="generator iteration", xlim=(0, last))
        part = "held_out" if key in ("readable", "sharpness") else "training"
        if values := entries(metrics, part, key):
            pages.mark(axes, fmean(values), f"{part.replace('_', '-')} images", color="black", linestyle=":")
        if not axes.lines:
            axes.annotate("not measured", (0.5, 0.5), xycoords="axes fraction", ha="center")
    if not objection(metrics):
        style = {"color": "C3", "linewidth": 3, "solid_capstyle": "butt"}
        real = fmean(entries(metrics, "classifier", "readable"))
        for iteration, limit in ((0, 0.05), (7000, 0.5), (20_000, 0.5)):
            for height in (limit, limit * real):
                panels["readable"].plot([iteration - 1000, iteration + 1000], [height, height], **style)
        text = "limits; lower: of the share over real images'"
        panels["readable"].annotate(text, (6000, 0.53), color="C3", fontsize=8)
    panels["readable"].set(title="Readable samples", ylabel="share of the samples", ylim=(0, 1.05))
    panels["coverage"].set(title="Coverage", ylabel="share of the held-out images", ylim=(0, 1.05))
    panels["sharpness"].set(title="Sharpness", ylabel="over held-out images' (white noise: 13)", ylim=(0, 2))
    panels["frechet"].set(title="Fréchet distance, not FID", ylabel="distance (logarithmic)", yscale="log")
    utils.save_figure(figure, path)


def draw_paths(metrics: dict, path: Path) -> None:
    """Readable images along the paths of the last snapshot, over those at the ends, a line for each seed."""
    figure, ((axes,),) = utils.subplots(1, 1)
    style = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
    last = ("snapshots", str(iterations(metrics)[-1]))
    for color, name in (("C0", "latent"), ("C1", "pixel")):
        curves = [*filter(None, map(over_ends, entries(metrics, *last, "interpolation", name)))]
        for ratios in curves:
            axes.plot(metrics["config"]["alphas"], ratios, color=color, linewidth=0.8)
        if curves:
            lowest = min(ratios[len(ratios) // 2] for ratios in curves)
            axes.annotate(f"{name} interpolation", (0.5, lowest), (0, -18), color=color, **style)
    if not objection(metrics):
        axes.plot([0.47, 0.53], [0.8, 0.8], color="C3", linewidth=3)
        axes.annotate("limit, half-way", (0.5, 0.8), (0, 4), color="C3", **style)
    axes.set(title="Readable images along the paths, a line for each training")
    axes.set(xlabel="α", ylabel="divided by the mean of both ends")
    axes.set(xlim=(1, 0), ylim=(0, None))  # from z0 to z1
    axes.set_xticks([1, 0.75, 0.5, 0.25, 0], ["z0: 1", "0.75", "0.5", "0.25", "z1: 0"])
    utils.save_figure(figure, path)


FIGURES = {  # that need metrics.json alone
    "training.png": draw_training,
    "quality.png": draw_quality,
    "interpolation_curves.png": draw_paths,
}
