"""Problem 3 from its metrics.json: the original's claims as data, what fills the page, the curves."""

import math
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path

import utils
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
ORIGINAL = {"baseline": 0.6, "no_stop_gradient": 0.1, "no_predictor": 0.1}  # kNN accuracy
LOW = {"knn_accuracy": 0.15, "loss": -0.98}  # at most these count as collapsed


def collapse_claim(question: str, original: str, run: str) -> Claim:
    """Return the claim that an ablation has collapsed; one training decides it."""
    keys, here = [f"accuracy_{run}", f"loss_{run}"], "accuracy {0}, loss {1}"
    limit = tuple(LOW.values())
    return Claim(
        question, original, "kNN accuracy and loss", keys, "every", limit, here, fewest=1, number=ORIGINAL[run]
    )


CLAIMS = [
    Claim(
        "3.4",
        "accuracy 0.60",
        "kNN accuracy",
        ["accuracy_baseline"],
        "compatible",
        (0.595, 0.605, 0.025),
        number=ORIGINAL["baseline"],
    ),
    collapse_claim("3.4", "no stop-gradient: 0.10, collapsed", "no_stop_gradient"),
    collapse_claim("3.5", "no predictor: 0.10", "no_predictor"),
    Claim(
        "3.5",
        "no predictor: the loss is not smooth",
        "largest rise of the loss from one epoch to the next, beside the baselines'",
        ["rise_no_predictor", "highest_rise_baseline"],
        "above",
        here="largest rise in an epoch {0}, with predictor {1}",
    ),
]
RISE = 1e-4  # of the loss from epoch to epoch, in the digits that are printed
EQUAL = 1e-13  # 1 - cosine in float64, of either sign, of outputs that are equal up to float32's rounding
objection = partial(pages.objection, sources=SOURCES, recipe=RECIPE)  # why nothing is decided


def quantities(metrics: dict) -> dict[str, list[float]]:
    """Return what the claims name: a number for every training."""
    numbers = {}
    for run, seeds in metrics["history"].items():
        numbers[f"accuracy_{run}"] = [ends["knn_accuracy"] for ends in metrics["results"][run].values()]
        numbers[f"loss_{run}"] = [ends["loss"] for ends in metrics["results"][run].values()]
        numbers[f"rise_{run}"] = [max(rises(history["loss"]), default=0.0) for history in seeds.values()]
    if baselines := numbers.get("rise_baseline"):
        numbers["highest_rise_baseline"] = [max(baselines)]
    return numbers


def rises(loss: list[float]) -> list[float]:
    """Return by how much a curve rises from one epoch to the next, where it does, from the first epoch on."""
    return [after - before for before, after in pairwise(loss[1:]) if after - before >= RISE]


def summary(metrics: dict) -> list[list]:
    """Return the numbers of a run that decides nothing."""
    values, rows = quantities(metrics), []
    for run in metrics["history"]:
        rows.append([f"kNN accuracy, {LABELS[run]}", pages.mean_error(values[f"accuracy_{run}"])])
        rows.append([f"loss, {LABELS[run]}", pages.mean_error(values[f"loss_{run}"])])
    rows.append(["kNN accuracy of raw pixels", pages.mean_error([metrics["results"]["knn_accuracy_pixels"]])])
    return rows


def other_knn(histories: Iterable[dict]) -> list[str]:
    """Return in words the kNN classifiers of curves where the results are of another."""
    others = {tuple(history["knn"].values()) for history in histories if "knn" in history}
    return [f"k = {k}, temperature {temperature}" for k, temperature in sorted(others)]


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
            row[0] += "".join(f" (curves: {other})" for other in other_knn([history]))
            collapse.append([*row, f"{100 * last['silent']:.1f}%", last["knn_accuracy_backbone"]])

            row = [name, last["loss"], f"{last['output_std']:.2g}", f"{last['effective_rank']:.1f}"]
            row += [f"{distance[-1]:.2g}", f"{min(others):.2g}" if others else "-"]
            outputs.append([*row, f"{sum(history['seconds']) / 60:.0f}"])
            up = rises(loss)
            smooth.append([name, len(up), max(up, default=0.0), float(sum(up)), loss[1] - loss[-1]])
    tables = {"collapse": collapse, "outputs": outputs, "smooth": smooth}
    return {name: make_table(rows) for name, rows in tables.items()}


def context(metrics: dict) -> dict:
    """Return what the template names."""
    baseline = quantities(metrics).get("accuracy_baseline", [])
    others = other_knn(history for seeds in metrics["history"].values() for history in seeds.values())
    low, high, widest = CLAIMS[0].limit
    results = metrics["results"]
    return tables(metrics) | {
        "untrained": f"{results['untrained']['knn_accuracy']:.4f}",
        "untrained_backbone": f"{results['untrained']['knn_accuracy_backbone']:.4f}",
        "pixels": f"{results['knn_accuracy_pixels']:.4f}",
        "trainings": len(baseline),
        "below": sum(value < 0.6 for value in baseline),
        "interval": pages.mean_error(baseline),
        "error": f"{0.5 / math.sqrt(results['test_images']):.4f}",
        "rise": f"{RISE:g}",
        "curves": f" Some curves and untrained networks are of {' and '.join(others)}." if others else "",
        "low": low,
        "high": high,
        "widest": widest,
    }


def plot_seeds(axes, seeds: dict, key: str, color: str, label: str | None = None) -> None:
    """A thin line for each seed of a run, from the untrained network on."""
    for history in seeds.values():
        (line,) = axes.plot(history[key], color=color, linewidth=0.8, clip_on=False)
    line.set_label(label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(0, len(history[key]) - 1)


def draw_runs(metrics: dict, path: Path) -> None:
    """The original's panels: accuracy and loss, a row for each run, on one scale."""
    runs, pixels = metrics["history"], metrics["results"]["knn_accuracy_pixels"]
    histories = [history for seeds in runs.values() for history in seeds.values()]
    highest_accuracy = max(max(*h["knn_accuracy"], *h["knn_accuracy_backbone"], pixels) for h in histories)
    highest_loss = max(max(history["loss"]) for history in histories)
    figure, rows = utils.subplots(len(runs), 2, height=2.6)
    for (accuracy, loss), (run, seeds) in zip(rows, runs.items(), strict=True):
        pages.mark(accuracy, pixels, "raw pixels", color="C2", linestyle="-.", linewidth=0.8)
        plot_seeds(accuracy, seeds, "knn_accuracy_backbone", "darkgrey", "backbone, each seed")
        plot_seeds(accuracy, seeds, "knn_accuracy", "C0", "projector, each seed")
        original = None if objection(metrics) else ORIGINAL.get(run)
        chance = "chance, original" if original == 0.1 else "chance"
        pages.mark(accuracy, 0.1, chance, color="black", linestyle=(0, (2, 6)), zorder=3)
        if original and original != 0.1:
            pages.mark(accuracy, original, f"original: {original:.2f}", color="C3", linestyle=":")
        others = [f"(curves: {other})" for other in other_knn(seeds.values())]
        accuracy.set(
            title=LABELS[run],
            ylabel="\n".join(["kNN accuracy", *others]),
            ylim=(0, max(0.65, 1.05 * highest_accuracy)),
        )
        plot_seeds(loss, seeds, "loss", "C4")
        loss.axhline(-1, color="black", linestyle=(0, (2, 6)))
        loss.set(title=f"{LABELS[run]}: loss", ylabel="loss (least: -1)", ylim=(-1.02, highest_loss + 0.02))
    for axes in rows[-1]:
        axes.set_xlabel("epoch")
    rows[0, 0].legend(fontsize=7)
    if metrics["config"]["quick"]:
        figure.suptitle("A short run: nothing on collapse, which takes tens of epochs")
    utils.save_figure(figure, path)


def draw_monitors(metrics: dict, path: Path) -> None:
    """How the outputs spread, a colour for each run."""
    figure, ((batch_std, std), (rank, distance)) = utils.subplots(2, 2)
    for number, run in enumerate(LABELS):
        if run in metrics["history"]:
            seeds, color, label = metrics["history"][run], f"C{number}", LABELS[run]
            plot_seeds(batch_std, seeds, "batch_std", color, label)
            plot_seeds(std, seeds, "output_std", color, label)
            plot_seeds(rank, seeds, "effective_rank", color, label)
            plot_seeds(distance, seeds, "median_distance", color, label)
    batch_std.set(title="Spread of the outputs, training batches", ylabel="std · √d (0: collapsed)", ylim=(0, None))
    std.set(title="Spread of the outputs, test images", ylabel="std · √d (0: collapsed)", ylim=(0, None))
    rank.set(title="Effective rank of the outputs", ylabel="dimensions (few: collapsed)", ylim=(0, None))
    distance.set(title="Distance of two outputs", ylabel="median of 1 - cosine (0: collapsed)")
    distance.set_yscale("symlog", linthresh=EQUAL)
    distance.set_ylim(bottom=-EQUAL)
    for axes in (batch_std, std, rank, distance):
        axes.set_xlabel("epoch")
    if metrics["config"]["quick"]:
        figure.suptitle("A short run: nothing on collapse, which takes tens of epochs")
    utils.save_figure(figure, path)


FIGURES = {"runs.png": draw_runs, "monitors.png": draw_monitors}  # all of them; metrics.json is enough
