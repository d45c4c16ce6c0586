"""Problem 2 from its metrics.json: the original's claims as data, what fills the page, the curves."""

import math
from pathlib import Path
from statistics import fmean

import numpy as np

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
THREE = "share of the three most frequent sure digits at 20,000, minus held-out images'"
REACHED = "share of samples with a sure digit that reach another, mean of the four"
HALF_WAY = "S at α = 0.5 over S at the ends, {}"
STEPS = "share of steps away from the start and nearer to the end, in pixels"
CLAIMS = [
    Claim("2.2", "model 0: nothing but noise", "S at 0", "<", 0.05),
    Claim("2.2", "after 7,000: too indistinct to detect the numbers", "S at 7,000", "<", 0.5),
    Claim("2.2", "after 20,000: the majority of the digits are proper", "S at 20,000", ">", 0.5),
    Claim("2.2", "primarily 2, 6 and 8", THREE, ">", 0.2),
    Claim("2.2", "after 50,000: far more diverse", "coverage at 50,000 minus at 20,000", ">", 0.05),
    Claim("2.2", "crisper", "S at 50,000 minus at 20,000", ">", 0),
    Claim("2.3", "dimensions 3, 30, 35, 50 change the digit for ε from 1 to 20", REACHED, ">", 0.5),
    Claim("2.4", "latent interpolation stays on the data manifold", HALF_WAY.format("latent"), ">", 0.8),
    Claim("2.4", "pixel interpolation does not", HALF_WAY.format("pixel"), "<", 0.8),
    Claim("2.4", "latent: the digit changes progressively", STEPS, ">", 0.75),
]
BELIEVED = {  # of the classifier on held-out images, fixed before any sample was measured
    "right_where_sure": (">=", 0.97),
    "sure": (">=", 0.80),
    "sure_of_scrambled": ("<=", 0.10),
}


def three_most_frequent(histogram: list[int]) -> float:
    """Return the share of the three most frequent digits; 0 where there is none."""
    return sum(sorted(histogram)[-3:]) / max(1, sum(histogram))


def most_frequent(histograms: list[list[int]]) -> str:
    """Return the share of the three most frequent digits over sets of noise, and which they are in all together."""
    totals = [sum(counts) for counts in zip(*histograms, strict=True)]
    digits = sorted(range(10), key=totals.__getitem__, reverse=True)[:3]
    return f"{mean_error([*map(three_most_frequent, histograms)])} ({', '.join(map(str, digits))})"


def quantities(metrics: dict) -> dict[str, list[float]]:
    """Return what the claims name, as far as it was measured: a number for every set of noise."""
    results = metrics["results"]
    snapshots = {int(iteration): numbers for iteration, numbers in results["per_snapshot"].items()}
    numbers = {f"S at {iteration:,}": snapshot["sure"] for iteration, snapshot in snapshots.items()}
    if 20_000 in snapshots:
        real = three_most_frequent(results["held_out"]["digits"])
        numbers[THREE] = [three_most_frequent(digits) - real for digits in snapshots[20_000]["digits"]]
    if 20_000 in snapshots and 50_000 in snapshots:
        for name, key in (("S", "sure"), ("coverage", "coverage")):
            pairs = zip(snapshots[50_000][key], snapshots[20_000][key], strict=True)
            numbers[f"{name} at 50,000 minus at 20,000"] = [late - early for late, early in pairs]
    if all(results["perturbation"]["starts"]):
        numbers[REACHED] = results["perturbation"]["named"]
    numbers[STEPS] = results["interpolation"]["progressive"]
    for path in ("latent", "pixel"):
        curves = results["interpolation"]["sure"][path]
        if all(curve[0] + curve[-1] for curve in curves):  # else there is nothing to compare with
            numbers[HALF_WAY.format(path)] = [2 * curve[len(curve) // 2] / (curve[0] + curve[-1]) for curve in curves]
    return numbers


def objection(metrics: dict) -> str:
    """Return why nothing is decided, in a sentence."""
    if reason := pages.objection(metrics, SOURCES, RECIPE):
        return reason
    classifier = metrics["results"]["classifier"]
    for name, (sign, limit) in BELIEVED.items():
        fails = classifier[name] < limit if sign == ">=" else classifier[name] > limit
        if fails:
            failed = f"{name.replace('_', ' ')} {classifier[name]:.3f}, not {sign} {limit}"
            return f"No verdict: the classifier is not believed ({failed})."
    return ""


def changes(digits: list[int]) -> str:
    """Return what is read along a row; digits are those at ε = 0, 1, 2, …, -1 where the classifier is not sure."""
    steps, last = [], -1
    for epsilon, digit in enumerate(digits):
        if digit not in (last, -1):
            steps.append(f"{digit} at ε = {epsilon}" if steps else str(digit))
            last = digit
    return ", ".join(steps) or "-"


def places(metrics: dict) -> dict:
    """Return what the template has places for."""
    results, config = metrics["results"], metrics["config"]
    training, held_out, classifier = results["training"], results["held_out"], results["classifier"]
    perturbation = results["perturbation"]
    samples = [["images", "S", "coverage", "Fréchet distance, not FID", "three most frequent", "r"]]
    for iteration, numbers in results["per_snapshot"].items():
        top = most_frequent(numbers["digits"])
        memorised = mean_error(numbers["memorisation"]) if "memorisation" in numbers else "-"
        row = [mean_error(numbers[key]) for key in ("sure", "coverage", "frechet")]
        samples.append([f"iteration {int(iteration):,}", *row, top, memorised])
    samples.append(["real images, phases scrambled", f"{classifier['sure_of_scrambled']:.4f}", "-", "-", "-", "-"])
    row = [f"{classifier['sure']:.4f}", mean_error(training["coverage"]), mean_error(training["frechet"])]
    samples.append(["real images", *row, most_frequent([held_out["digits"]]), "-"])

    believed = [["on held-out images", "measured", "needed"]]
    believed += [
        [name.replace("_", " "), classifier[name], f"{sign} {limit}"] for name, (sign, limit) in BELIEVED.items()
    ]
    read = [["dimension", "digits read from one z for all", "digits read from a z of its own"]]
    for i, dim in enumerate(config["perturb_dims"]):
        own = results["digits"][i + len(config["perturb_dims"])]
        read.append([dim, changes(results["digits"][i]), changes(own)])
    paths = [["S along the path", "α = 0", "α = 0.5", "α = 1"]]
    for path in ("latent", "pixel"):
        along = [*map(mean_error, zip(*results["interpolation"]["sure"][path], strict=True))]
        paths.append([path, along[0], along[len(along) // 2], along[-1]])
    return {
        "samples": make_table(samples),
        "memorised": memorised,  # by the last snapshot
        "believed": make_table(believed),
        "reached_named": mean_error(perturbation["named"]),
        "reached_all": mean_error(perturbation["all"]),
        "reached_random": mean_error(perturbation["random"]),
        "sure_starts": f"{fmean(perturbation['starts']):.0f}",
        "read": make_table(read),
        "paths": make_table(paths),
        "limits": {name: limit for name, (_, limit) in BELIEVED.items()},
        "augmentation": ", ".join(f"{name} {size:g}" for name, size in config["augmentation"].items()),
        "epsilons": ", ".join(map(str, config["epsilons"])),
        "progressive": mean_error(results["interpolation"]["progressive"]),
    }


def draw_curves(metrics: dict, out: Path) -> None:
    """Write the figures that need metrics.json alone: training, quality of the snapshots, interpolation."""
    draw_training(metrics, out / "training.png")
    draw_quality(metrics, out / "quality.png")
    draw_paths(metrics, out / "interpolation_curves.png")


def draw_training(metrics: dict, path: Path) -> None:
    training = metrics["history"]["training"]
    figure, ((distance, penalty),) = utils.subplots(1, 2)
    iterations = training["iteration"]
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
        axes.set(xlabel="generator iteration", ylabel=f"mean of {iterations[0]} iterations (linear below 0.001)")
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
