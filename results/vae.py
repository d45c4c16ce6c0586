"""Problem 1 from its metrics.json: the original's claims as data, what fills the page, the curves."""

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
        number=ORIGINAL["elbo_analytic"],
    ),
    Claim(
        "1.6",
        "ELBO -101.30, Monte Carlo KL",
        "validation ELBO in nats, Monte Carlo KL",
        ["elbo_mc"],
        "compatible",
        number=ORIGINAL["elbo_mc"],
    ),
    Claim("1.6", "the two are close", "validation ELBO, analytic minus Monte Carlo KL", ["elbo_gap"], "close", 1),
    Claim(
        "1.7",
        "log p(x) -95.37",
        "test log p(x) in nats, analytic KL; beside it Monte Carlo KL",
        ["log_likelihood_analytic"],
        "compatible",
        here="{0}; Monte Carlo KL {1}",
        number=ORIGINAL["log_likelihood"],
        beside=("log_likelihood_mc",),
    ),
]
FLOOR = -102  # nats of validation ELBO that every training should exceed
LABELS = {"analytic": "analytic KL", "mc": "Monte Carlo KL"}
objection = partial(pages.objection, sources=SOURCES, recipe=RECIPE)  # why nothing is decided


def by_seed(metrics: dict, key: str) -> list[float]:
    """Return one number for every seed that has it."""
    return [numbers[key] for numbers in metrics["results"]["seeds"].values() if key in numbers]


def trained(metrics: dict) -> dict[str, str]:
    """Return the estimators with a training, with their names."""
    return {name: label for name, label in LABELS.items() if by_seed(metrics, f"elbo_{name}")}


def elbo_curves(metrics: dict, name: str) -> dict[str, list[float]]:
    """Return the validation ELBO after each epoch, of every seed trained with an estimator."""
    keys = {seed: f"{name}_seed{seed}" for seed in metrics["results"]["seeds"]}
    return {seed: metrics["history"][key]["elbo"] for seed, key in keys.items() if key in metrics["history"]}


def quantities(metrics: dict) -> dict[str, list[float]]:
    """Return what the claims name: a number for every training."""
    keys = [f"{key}_{name}" for key in ("elbo", "log_likelihood") for name in LABELS]
    numbers = {key: by_seed(metrics, key) for key in keys}
    seeds = [seed for seed in metrics["results"]["seeds"].values() if {"elbo_analytic", "elbo_mc"} <= seed.keys()]
    return numbers | {"elbo_gap": [seed["elbo_analytic"] - seed["elbo_mc"] for seed in seeds]}


def summary(metrics: dict) -> list[list]:
    """Return the numbers of a run that decides nothing."""
    rows = []
    for name, label in trained(metrics).items():
        rows.append([f"validation ELBO in nats, {label}", mean_std(by_seed(metrics, f"elbo_{name}"))])
        rows.append([f"test log p(x) in nats, {label}", mean_std(by_seed(metrics, f"log_likelihood_{name}"))])
    return rows


def mean_std(values: list[float]) -> str:
    """Return the mean over seeds and their standard deviation."""
    if len(values) > 1:
        return f"{fmean(values):.2f} (SD {stdev(values):.2f})"
    return f"{values[0]:.2f}" if values else "not measured"


def context(metrics: dict) -> dict:
    """Return what the template names."""
    results, config, curves = metrics["results"], metrics["config"], metrics["results"]["curves"]
    keys = [f"{key}_{name}" for key in ("elbo", "log_likelihood") for name in LABELS]
    seeds = [["seed", *(f"{key}, {label}" for key in ("ELBO", "log p(x)") for label in LABELS.values())]]
    seeds += [[seed, *(numbers.get(key, "-") for key in keys)] for seed, numbers in results["seeds"].items()]
    curve = [["model", "ELBO", *(f"K = {k}" for k in curves["samples"])]]
    last, tenth = config["epochs"], max(1, config["epochs"] // 10)
    gaps = [["model", "ELBO, training images", "ELBO, test images", "gap", "log p(x) above the ELBO"]]
    gaps[0] += [
        f"validation ELBO, epochs {max(1, last - 2 * tenth + 1)} to {max(1, last - tenth)}",
        f"{last - tenth + 1} to {last}",
    ]
    for name, label in trained(metrics).items():
        estimates = [fmean(column) for column in zip(*curves["estimates"][name], strict=True)]
        curve.append([label, fmean(curves["elbo"][name]), *estimates])
        train, test, log_p = (
            fmean(by_seed(metrics, f"{key}_{name}")) for key in ("train_elbo", "test_elbo", "log_likelihood")
        )
        validation = elbo_curves(metrics, name).values()
        late = fmean(value for values in validation for value in values[-tenth:])
        before = fmean(value for values in validation for value in values[-2 * tenth :][:tenth])
        gaps.append([label, train, test, train - test, log_p - test, before, late])
    elbos = [value for name in LABELS for value in by_seed(metrics, f"elbo_{name}")]
    gap = quantities(metrics)["elbo_gap"]
    return {key: mean_std(by_seed(metrics, key)) for key in keys} | {
        "gap": f"{pages.show('close', gap)} nats" if gap else "not measured",
        "largest_gap": f"{max(map(abs, gap)):.2f}" if gap else "not measured",
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


def seeds_in_words(metrics: dict) -> str:
    num = max(len(elbo_curves(metrics, name)) for name in LABELS)
    return f"{num} seeds" if num > 1 else "one seed"


def plot_seeds(
    axes, x: list, curves: list[list[float]], color: str, label: str | None = None, width: float = 0.8
) -> None:
    """A line for each seed."""
    for number, curve in enumerate(curves):
        marker = "." if len(x) < 3 else None
        axes.plot(x, curve, color=color, linewidth=width, marker=marker, label=None if number else label)


def draw_elbo(metrics: dict, path: Path) -> None:
    """The validation ELBO against epochs with both estimators, and their difference."""
    figure, ((elbo, difference),) = utils.subplots(1, 2)
    analytic, mc = (elbo_curves(metrics, name) for name in LABELS)
    epochs = range(1, metrics["config"]["epochs"] + 1)
    plot_seeds(elbo, epochs, analytic.values(), "lightblue", LABELS["analytic"], width=6)  # the other lies on it
    plot_seeds(elbo, epochs, mc.values(), "C1", LABELS["mc"])
    if not objection(metrics):
        label = f"original: {ORIGINAL['elbo_analytic']:.2f} analytic, {ORIGINAL['elbo_mc']:.2f} Monte Carlo KL"
        elbo.axhline(ORIGINAL["elbo_analytic"], color="black", linestyle=":", label=label)
        label = "limits of the mean difference at the end"
        for limit in (-1, 1):
            difference.plot(epochs[-2:], [limit, limit], color="C3", linewidth=3, label=label)
    plot_seeds(difference, epochs, [np.subtract(analytic[seed], mc[seed]) for seed in analytic if seed in mc], "C2")
    difference.axhline(0, color="grey", linewidth=0.8)
    elbo.set(title=f"Validation ELBO, {seeds_in_words(metrics)}", xlabel="epoch", ylabel="nats per image")
    difference.set(title="ELBO: analytic minus Monte Carlo KL", xlabel="epoch", ylabel="nats per image")
    for axes in (elbo, difference):
        axes.margins(x=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
    utils.save_figure(figure, path)


def draw_log_likelihood(metrics: dict, path: Path) -> None:
    """The estimate of log p(x) against the number of samples, on every tenth test image; on all at the result's K."""
    curves, samples = metrics["results"]["curves"], metrics["config"]["importance_samples"]
    figure, ((axes,),) = utils.subplots(1, 1)
    for name, label in trained(metrics).items():
        color = {"analytic": "C0", "mc": "C1"}[name]
        plot_seeds(axes, curves["samples"], curves["estimates"][name], color, label)
        every = np.mean(by_seed(metrics, f"log_likelihood_{name}"))
        size = {"analytic": 9, "mc": 5}[name]  # they lie on each other
        axes.plot(samples, every, color + "D", markersize=size, label=f"{label}, all test images")
    if not objection(metrics):
        axes.plot(samples, ORIGINAL["log_likelihood"], "kD", label=f"original: {ORIGINAL['log_likelihood']:.2f}")
    axes.set(title=f"log p(x) of every tenth test image, {seeds_in_words(metrics)}; diamonds: of all")
    axes.set(xlabel="importance samples K (logarithmic)", ylabel="estimate of log p(x) (nats)", xscale="log")
    axes.set_xticks(curves["samples"], curves["samples"])
    axes.minorticks_off()
    utils.save_figure(figure, path)


FIGURES = {"elbo.png": draw_elbo, "log_likelihood.png": draw_log_likelihood}  # that need metrics.json alone
