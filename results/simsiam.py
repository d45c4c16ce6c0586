"""The words of problem 3: closing table and answers, from a metrics.json alone."""

import math
from itertools import pairwise

from results.pages import make_table

TITLE = "Problem 3: SimSiam and its ablations"
RUNS = {  # in the original's words
    "baseline": "stop-gradient = T",
    "no_stop_gradient": "stop-gradient = F",
    "no_predictor": "MLP = no-pred-mlp",
    "fixed_random_predictor": "MLP = fixed-random-init",
}
RECIPE = {"epochs": 100, "batch_size": 1024, "lr": 0.03, "dim": 2048, "pred_dim": 512}  # the original's
RECIPE |= {"knn_k": 200, "knn_temperature": 0.1}
QUANTITIES = {"knn_accuracy": "kNN accuracy", "loss": "loss", "output_std": "std x sqrt(d)"}
CLAIMS = [  # run, quantity, the original's value, and what counts as reaching it, fixed before the runs
    ("baseline", "knn_accuracy", "0.60", ">=", 0.595),
    ("no_stop_gradient", "knn_accuracy", "0.10", "<=", 0.15),
    ("no_stop_gradient", "loss", "-1", "<=", -0.98),
    ("no_predictor", "knn_accuracy", "0.10", "<=", 0.15),
    ("no_predictor", "loss", "-1", "<=", -0.98),
]
ROUNDING = 2**-24  # of a float32 just below 1


def is_full(config: dict) -> bool:
    """Whether a run has the original's data and recipe."""
    return config["data"] == "cifar10" and config.items() >= (RECIPE | {"train_images": 0, "test_images": 0}).items()


def closing_table(metrics: dict) -> list[list]:
    """Return the rows of every run beside the original's; a shorter recipe is not held to the original's claims."""
    config, results = metrics["config"], metrics["results"]
    rows = [["quantity", "ours", "original", "criterion", "verdict"]]
    claims = {(run, quantity): claim for run, quantity, *claim in CLAIMS if config["data"] == "cifar10"}
    for run in config["runs"]:
        for quantity, words in QUANTITIES.items():
            value, verdict = results[run][quantity], ["-", "-", "-"]
            if (run, quantity) in claims:
                original, sign, limit = claims[run, quantity]
                met = value >= limit if sign == ">=" else value <= limit
                verdict = [original, f"{sign} {limit}", met] if is_full(config) else [original, "-", "shorter recipe"]
            start = f" (untrained {results['untrained'][quantity]:.4f})" if quantity == "knn_accuracy" else ""
            rows.append([f"{RUNS[run]}: {words}{start}", value, *verdict])
    error = results["gradient_error"]
    return [*rows, ["half the gradient: relative error", f"{error:.1e}", "exact", "< 1e-5", error < 1e-5]]


def recipe(metrics: dict) -> str:
    """Return the recipe in a sentence."""
    config = metrics["config"]
    images = " and ".join(
        f"{config[f'{split}_images'] or 'all'} {words} images"
        for split, words in (("train", "training"), ("test", "test"))
    )
    return (
        f"{'the original, ' if is_full(config) else ''}{config['epochs']} epochs, batch {config['batch_size']}, SGD "
        f"{config['lr']:g} x batch / 256 with cosine decay for the encoder and fixed for the predictor, momentum 0.9, "
        f"weight decay 5e-4, projector to {config['dim']}, predictor over {config['pred_dim']}; {images}; ResNet-18 "
        f"with its 7x7 stem and max-pool; seed {config['seed']}"
    )


def first_epoch(values: list[float], limit: float) -> int | None:
    """Return the epoch from which on a curve stays at or below `limit`, None if it does not end there."""
    above = [epoch for epoch, value in enumerate(values) if value > limit]
    return None if above and above[-1] == len(values) - 1 else (above[-1] + 1 if above else 0)


def describe(run: str, metrics: dict) -> str:
    """Return in a paragraph and a figure what became of one run."""
    if run not in metrics["results"]:
        return f"{RUNS[run]}: not run."
    history = metrics["history"][run]
    accuracy, loss, distance = (history[key] for key in ("knn_accuracy", "loss", "median_distance"))
    best = max(range(len(accuracy)), key=accuracy.__getitem__)
    text = (
        f"{RUNS[run]}: the kNN accuracy goes from {accuracy[0]:.4f} untrained to {accuracy[-1]:.4f} (highest: "
        f"{accuracy[best]:.4f} in epoch {best}), the loss to {loss[-1]:.4f}. The outputs end with std x sqrt(d) "
        f"{history['output_std'][-1]:.3f}, effective rank {history['effective_rank'][-1]:.2f} and a median of "
        f"1 - cosine of {distance[-1]:.1e}."
    )
    degenerate, chance = first_epoch(loss, -0.98), first_epoch(accuracy, 0.15)
    if degenerate:
        text += f" The loss is at most -0.98 from epoch {degenerate} on; its minimum is -1."
    if degenerate and chance:
        text += (
            f" The accuracy falls to at most 0.15 in epoch {chance}, when the median of 1 - cosine goes from "
            f"{distance[chance - 1]:.1e} to {distance[chance]:.1e}."
        )
        if distance[chance] < 10 * ROUNDING:
            text += (
                f" Float32 resolves cosines near 1 in steps of {ROUNDING:.0e}: the accuracy falls when it can no "
                "longer tell the images apart. Before, neighbours were found in differences that the std of "
                f"{history['output_std'][chance - 1]:.3f} does not show."
            )
    return f"{text}\n\n![accuracy and loss of {run}]({run}.png)"


def answers(metrics: dict) -> str:
    """Return the answers to questions 3.4 and 3.5 in Markdown."""
    config, results = metrics["config"], metrics["results"]
    rows = [["run", "minutes", *QUANTITIES.values(), "effective rank", "median of 1 - cosine", "kNN, backbone"]]
    smooth = [["run", "epochs in which the loss rises", "largest rise"]]
    for run in ["untrained", *config["runs"]]:
        numbers, history = results[run], metrics["history"].get(run)
        minutes = f"{sum(history['seconds']) / 60:.0f}" if history else "-"
        rows.append([RUNS.get(run, run), minutes, *(numbers[key] for key in (*QUANTITIES, "effective_rank"))])
        rows[-1] += [f"{numbers['median_distance']:.1e}", numbers["knn_accuracy_backbone"]]
        if history:
            rises = [after - before for before, after in pairwise(history["loss"][1:])]
            text = f"{max(rises):.4f}" if max(rises, default=0) > 0 else "-"
            smooth.append([RUNS[run], f"{sum(rise > 0 for rise in rises)} of {len(rises)}", text])
    drops = ""
    if "baseline" in results:
        baseline, images = results["baseline"]["knn_accuracy"], results["test_images"]
        error = math.sqrt(baseline * (1 - baseline) / images)
        ablations = [run for run in ("no_stop_gradient", "no_predictor") if run in results]
        others = [f"{results[run]['knn_accuracy']:.4f} with {RUNS[run]}" for run in ablations]
        drops = f"The baseline's {baseline:.4f} has a binomial standard error of {error:.4f} ({images:,} test images)."
        drops += f" Beside it: {' and '.join(others)}." if others else ""
    error = results["gradient_error"]
    equal = "are bit-identical: a factor of 1/2 changes exponents alone, and the backward pass is linear"
    differ = f"differ by {error:.1e}, relative to the norm"
    frozen = describe("fixed_random_predictor", metrics) if "fixed_random_predictor" in results else ""
    return f"""## 3.4 What does SimSiam learn, and what without stop-gradient?

The accuracy is that of a kNN classifier on the projector's output (k = {config["knn_k"]}, temperature
{config["knn_temperature"]:g}); chance is 0.1. It finds the nearest neighbours however near all of them are, so three
monitors of the test images' outputs stand beside it, without a limit. The std of the l2-normalised outputs times
sqrt(d) is 1 where they spread evenly and 0 where all are equal (Chen & He, figure 2). The effective rank is 1 where
they lie on a line, as in a collapse onto two opposite points, which the std calls healthy. The median of 1 - cosine
over pairs of different images says how deep a collapse is.

{make_table(rows)}

![all runs](comparison.png)

{drops}

{describe("baseline", metrics)}

{describe("no_stop_gradient", metrics)}

## 3.5 What happens without a predictor, and why?

{describe("no_predictor", metrics)}

Does the loss decrease smoothly? From epoch to epoch:

{make_table(smooth)}

With stop-gradient and the identity as predictor the symmetric loss is -(z1 . sg(z2) + sg(z1) . z2) / 2 for normalised
outputs. Its gradient is half of that of D(z1, z2) without stop-gradient: the stop-gradient changes the length of the
gradient, not its direction, and the run descends a loss that a collapse minimises. On the network of this script
(float64, 32 images) twice the one gradient and the other {differ if error else equal}.

{frozen}
"""
