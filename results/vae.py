"""Problem 1 from its metrics.json: the original's claims as data, what fills the page, the curves."""

import math
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

import utils
from results import pages
from results.pages import Claim, make_table

TEMPLATE = "vae"
SOURCES = ["binarized MNIST (Larochelle's files, MD5 checked)"]
RECIPE = {"epochs": 20, "batch_size": 64, "lr": 3e-4, "latent_size": 100, "kl_samples": 10}  # the original's
RECIPE |= {"importance_samples": 200, "test_images": 10_000}
ORIGINAL = {"elbo_analytic": -101.2571, "elbo_mc": -101.2971, "log_likelihood": -95.3737}
CLAIMS = [
    Claim(
        "1.6",
        "ELBO -101.26, analytic KL",
        "validation ELBO in nats, analytic KL",
        ["elbo_analytic"],
        "compatible",
        (ORIGINAL["elbo_analytic"], ORIGINAL["elbo_analytic"], math.inf),
        number=ORIGINAL["elbo_analytic"],
    ),
    Claim(
        "1.6",
        "ELBO -101.30, Monte Carlo KL",
        "validation ELBO in nats, Monte Carlo KL",
        ["elbo_mc"],
        "compatible",
        (ORIGINAL["elbo_mc"], ORIGINAL["elbo_mc"], math.inf),
        number=ORIGINAL["elbo_mc"],
    ),
    Claim("1.6", "the two are close", "validation ELBO, analytic minus Monte Carlo KL", ["elbo_gap"], "close", 1),
    Claim(
        "1.7",
        "log p(x) -95.37",
        "test log p(x) in nats, analytic KL; beside it Monte Carlo KL",
        ["log_likelihood_analytic", "log_likelihood_mc"],
        "compatible",
        (ORIGINAL["log_likelihood"], ORIGINAL["log_likelihood"], math.inf),
        "{0}; Monte Carlo KL {1}",
        number=ORIGINAL["log_likelihood"],
    ),
]
FLOOR = -102  # nats of validation ELBO that every training should exceed
LABELS = {"analytic": "analytic KL", "mc": "Monte Carlo KL"}
objection = partial(pages.objection, sources=SOURCES, recipe=RECIPE)  # why nothing is decided


def by_seed(metrics: dict, key: str) -> list[float]:
    """Return one number for every seed."""
    return [numbers[key] for numbers in metrics["results"]["seeds"].values()]


def quantities(metrics: dict) -> dict[str, list[float]]:
    """Return what the claims name: a number for every training."""
    keys = [f"{key}_{name}" for key in ("elbo", "log_likelihood") for name in LABELS]
    numbers = {key: by_seed(metrics, key) for key in keys}
    pairs = zip(numbers["elbo_analytic"], numbers["elbo_mc"], strict=True)
    return numbers | {"elbo_gap": [analytic - mc for analytic, mc in pairs]}


def summary(metrics: dict) -> list[list]:
    """Return the numbers of a run that decides nothing."""
    rows = []
    for name, label in LABELS.items():
        rows.append([f"validation ELBO in nats, {label}", mean_std(by_seed(metrics, f"elbo_{name}"))])
        rows.append([f"test log p(x) in nats, {label}", mean_std(by_seed(metrics, f"log_likelihood_{name}"))])
    return rows


def mean_std(values: list[float]) -> str:
    """Return the mean over seeds and their standard deviation."""
    return f"{fmean(values):.2f} (SD {stdev(values):.2f})" if len(values) > 1 else f"{values[0]:.2f}"


def context(metrics: dict) -> dict:
    """Return what the template names."""
    results, config, curves = metrics["results"], metrics["config"], metrics["results"]["curves"]
    keys = [f"{key}_{name}" for key in ("elbo", "log_likelihood") for name in LABELS]
    seeds = [["seed", *(f"{key}, {label}" for key in ("ELBO", "log p(x)") for label in LABELS.values())]]
    seeds += [[seed, *(numbers[key] for key in keys)] for seed, numbers in results["seeds"].items()]
    curve = [["model", "ELBO", *(f"K = {k}" for k in curves["samples"])]]
    last, tenth = config["epochs"], max(1, config["epochs"] // 10)
    gaps = [["model", "ELBO, training images", "ELBO, test images", "gap", "log p(x) above the ELBO"]]
    gaps[0] += [
        f"validation ELBO, epochs {max(1, last - 2 * tenth + 1)} to {max(1, last - tenth)}",
        f"{last - tenth + 1} to {last}",
    ]
    for name, label in LABELS.items():
        estimates = [fmean(column) for column in zip(*curves["estimates"][name], strict=True)]
        curve.append([label, fmean(curves["elbo"][name]), *estimates])
        train, test, log_p = (
            fmean(by_seed(metrics, f"{key}_{name}")) for key in ("train_elbo", "test_elbo", "log_likelihood")
        )
        validation = [metrics["history"][f"{name}_seed{seed}"]["elbo"] for seed in results["seeds"]]
        late = fmean(value for values in validation for value in values[-tenth:])
        before = fmean(value for values in validation for value in values[-2 * tenth :][:tenth])
        gaps.append([label, train, test, train - test, log_p - test, before, late])
    elbos = [value for name in LABELS for value in by_seed(metrics, f"elbo_{name}")]
    return {key: mean_std(by_seed(metrics, key)) for key in keys} | {
        "gap": pages.show("close", quantities(metrics)["elbo_gap"]),
        "seeds": make_table(seeds),
        "curve": make_table(curve),
        "gaps": make_table(gaps),
        "trainings": len(elbos),
        "above": sum(value > FLOOR for value in elbos),
        "floor": FLOOR,
        "first_k": curves["samples"][-2],
        "last_k": f"{curves['samples'][-1]:,}",
        "rise": f"{fmean(row[-1] - row[-2] for row in curve[1:]):.2f}",
    }


def draw_curves(metrics: dict, out: Path) -> None:
    """Write the figures that need metrics.json alone: validation ELBO against epochs, log p(x) against samples."""
    draw_elbo(metrics, out / "elbo.png")
    draw_log_likelihood(metrics, out / "log_likelihood.png")


def plot_seeds(axes, x: list, curves: list[list[float]], color: str, label: str | None = None) -> None:
    """A thin line for each seed."""
    for curve in curves:
        (line,) = axes.plot(x, curve, color=color, linewidth=0.8, marker="." if len(x) < 3 else None)
    line.set_label(label)


def draw_elbo(metrics: dict, path: Path) -> None:
    """The validation ELBO against epochs with both estimators, and their difference."""
    results, history = metrics["results"], metrics["history"]
    figure, ((elbo, difference),) = utils.subplots(1, 2)
    curves = {name: [history[f"{name}_seed{seed}"]["elbo"] for seed in results["seeds"]] for name in LABELS}
    epochs = list(range(1, len(curves["mc"][0]) + 1))
    for color, (name, label) in zip(("C0", "C1"), LABELS.items(), strict=True):
        plot_seeds(elbo, epochs, curves[name], color, label)
    if not objection(metrics):
        label = f"original: {ORIGINAL['elbo_analytic']:.2f} analytic, {ORIGINAL['elbo_mc']:.2f} Monte Carlo KL"
        elbo.axhline(ORIGINAL["elbo_analytic"], color="black", linestyle=":", label=label)
    plot_seeds(difference, epochs, np.subtract(curves["analytic"], curves["mc"]), "C2")
    difference.axhline(0, color="grey", linewidth=0.8)
    num = len(results["seeds"])
    over = f"{num} seeds" if num > 1 else "one seed"
    elbo.set(title=f"Validation ELBO, {over}", xlabel="epoch", ylabel="nats per image")
    difference.set(title="Analytic minus Monte Carlo KL", xlabel="epoch", ylabel="nats per image")
    for axes in (elbo, difference):
        axes.margins(x=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
    utils.save_figure(figure, path)


def draw_log_likelihood(metrics: dict, path: Path) -> None:
    """The estimate of log p(x) against the number of samples, on every tenth test image; on all at the result's K."""
    results, curves = metrics["results"], metrics["results"]["curves"]
    num, samples = math.ceil(results["test_images"] / 10), metrics["config"]["importance_samples"]
    figure, ((axes,),) = utils.subplots(1, 1)
    for color, (name, label) in zip(("C0", "C1"), LABELS.items(), strict=True):
        plot_seeds(axes, curves["samples"], curves["estimates"][name], color, label)
        axes.axhline(np.mean(curves["elbo"][name]), color=color, linestyle="--", linewidth=0.8, label=f"ELBO, {label}")
        every = np.mean(by_seed(metrics, f"log_likelihood_{name}"))
        axes.plot(samples, every, color=color, marker="D", linestyle="", label=f"{label}, all test images")
    if not objection(metrics):
        axes.axhline(ORIGINAL["log_likelihood"], color="black", linestyle=":", label="original, all test images")
    over = f"{len(results['seeds'])} seeds" if len(results["seeds"]) > 1 else "one seed"
    axes.set(title=f"log p(x) of {num:,} of {results['test_images']:,} test images, {over}")
    axes.set(xlabel="importance samples K (logarithmic)", ylabel="estimate of log p(x) (nats)", xscale="log")
    axes.set_xticks(curves["samples"], curves["samples"])
    axes.minorticks_off()
    utils.save_figure(figure, path)
