"""The words of problem 3: the original's claims as data, and what fills the page from a metrics.json."""

import math
from functools import partial
from itertools import pairwise
from statistics import fmean

from results import pages
from results.pages import Claim, make_table

TEMPLATE = "simsiam"
SOURCES = ["CIFAR10 (torchvision)", "CIFAR-10 (the official pixels, from a lossless copy in another order)"]
RECIPE = {"epochs": 100, "batch_size": 1024, "lr": 0.03, "dim": 2048, "pred_dim": 512}  # the original's
RECIPE |= {"knn_k": 200, "knn_temperature": 0.1, "train_images": 0, "test_images": 0}
LABELS = {
    "baseline": "stop-gradient and predictor",
    "no_stop_gradient": "no stop-gradient",
    "no_predictor": "no predictor",
    "fixed_random_predictor": "frozen random predictor",
}
LOW = {"knn_accuracy": 0.15, "loss": -0.98}  # at most this counts as collapsed
CLAIMS = [
    Claim("3.4", "0.60", "kNN accuracy, stop-gradient and predictor", "predicts", (0.595, 0.605, 0.025)),
    Claim("3.4", "0.10", "kNN accuracy, no stop-gradient", "<=", LOW["knn_accuracy"]),
    Claim("3.4", "-1", "loss, no stop-gradient", "<=", LOW["loss"]),
    Claim("3.5", "0.10", "kNN accuracy, no predictor", "<=", LOW["knn_accuracy"]),
    Claim("3.5", "-1", "loss, no predictor", "<=", LOW["loss"]),
]
RISE = 1e-4  # of the loss from epoch to epoch, in the digits that are printed
EQUAL = 1e-13  # 1 - cosine in float64, of either sign, of outputs that are equal up to float32's rounding
objection = partial(pages.objection, sources=SOURCES, recipe=RECIPE)  # why nothing is decided


def quantities(metrics: dict) -> dict[str, list[float]]:
    """Return what the claims name: a number for every training."""
    numbers = {}
    for run in metrics["history"]:
        for key, name in (("knn_accuracy", "kNN accuracy"), ("loss", "loss")):
            numbers[f"{name}, {LABELS[run]}"] = [ends[key] for ends in metrics["results"][run].values()]
    return numbers


def without_rounding(distance: float) -> float:
    """Return a median of 1 - cosine, 0 where it is one of outputs that are equal up to rounding."""
    return distance if distance > EQUAL else 0.0


def first_at_most(curve: list[float], limit: float) -> object:
    """Return the first epoch in which a curve, from the untrained network on, is at most `limit`, else "-"."""
    return next((epoch for epoch, value in enumerate(curve) if epoch and value <= limit), "-")


def tables(metrics: dict) -> dict[str, str]:
    """Return the tables: when each training collapses, what its outputs look like, how smooth its loss is."""
    low = LOW["knn_accuracy"]
    collapse = [["training", "kNN accuracy", "highest accuracy", f"first epoch with loss <= {LOW['loss']}"]]
    collapse[0] += [f"first with accuracy <= {low}", f"epochs with accuracy <= {low}", "median of 1 - cosine in these"]
    collapse[0] += ["accuracy in float64", "silent images", "accuracy of the backbone"]
    outputs = [["training", "loss", "std x sqrt(d)", "effective rank", "median of 1 - cosine"]]
    outputs[0] += ["least median with a higher accuracy", "minutes"]
    smooth = [["training", "rises of the loss", "largest", "sum", "net fall"]]
    for run, seeds in metrics["history"].items():
        for seed, history in seeds.items():
            name, last = f"{LABELS[run]}, seed {seed}", metrics["results"][run][seed]
            accuracy, loss = history["knn_accuracy"], history["loss"]
            distance = [*map(without_rounding, history["median_distance"])]
            trained = [*zip(accuracy, distance, strict=True)][1:]
            collapsed = [median for value, median in trained if value <= low]
            others = [median for value, median in trained if value > low]
            first = [first_at_most(loss, LOW["loss"]), first_at_most(accuracy, low)]
            depth = [len(collapsed), f"at most {max(collapsed):.2g}"] if collapsed else ["-", "-"]
            row = [name, last["knn_accuracy"], max(accuracy), *first, *depth, last["knn_accuracy_float64"]]
            collapse.append([*row, f"{100 * last['silent']:.1f}%", last["knn_accuracy_backbone"]])

            row = [name, last["loss"], f"{last['output_std']:.2g}", f"{last['effective_rank']:.1f}"]
            row += [f"{distance[-1]:.2g}", f"{min(others):.2g}" if others else "-"]
            outputs.append([*row, f"{sum(history['seconds']) / 60:.0f}"])
            rises = [after - before for before, after in pairwise(loss[1:]) if after - before >= RISE]
            smooth.append([name, len(rises), max(rises, default=0.0), float(sum(rises)), loss[1] - loss[-1]])
    tables = {"collapse": collapse, "outputs": outputs, "smooth": smooth}
    return {name: make_table(rows) for name, rows in tables.items()}


def answer(metrics: dict) -> str:
    """Return the answer in three sentences; nothing where there are no verdicts to fill them with."""
    if objection(metrics) or not metrics["history"].keys() >= {"baseline", "no_stop_gradient", "no_predictor"}:
        return ""
    values, words = quantities(metrics), {}
    for claim in CLAIMS:
        kind, label = claim.quantity.split(", ", 1)
        name = next(run for run in LABELS if LABELS[run] == label) + ("_loss" if kind == "loss" else "")
        words[name] = pages.measured(values[claim.quantity], claim.comparison)
        words[f"{name}_verdict"] = pages.decide(values[claim.quantity], claim.comparison, claim.limit)
    for run in ("no_stop_gradient", "no_predictor"):
        ends = metrics["results"][run].values()
        words[f"{run}_silent"] = f"{100 * fmean(end['silent'] for end in ends):.1f}%"
        words[f"{run}_float64"] = f"{fmean(end['knn_accuracy_float64'] for end in ends):.4f}"
    return pages.fill("answer", words)


def places(metrics: dict) -> dict:
    """Return what the template has places for."""
    values = quantities(metrics)
    baseline = values.get(CLAIMS[0].quantity, [])
    return tables(metrics) | {
        "answer": answer(metrics),
        "means": {name: fmean(numbers) for name, numbers in values.items()},
        "trainings": len(baseline),
        "below": sum(value < float(CLAIMS[0].original) for value in baseline),
        "error": f"{0.5 / math.sqrt(metrics['results']['test_images']):.4f}",
        "rise": f"{RISE:g}",
        "interval": CLAIMS[0].limit,
        "low": LOW,
    }
