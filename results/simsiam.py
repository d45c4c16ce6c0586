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
LOW = {"loss": -0.98, "knn_accuracy": 0.15}  # at most this counts as collapsed
RISE = 1e-4  # of the loss from epoch to epoch, in the digits that are printed
CLAIMS = [  # run, quantity, the original's value, and what counts as reaching it, fixed before the runs
    ("baseline", "knn_accuracy", "0.60", ">=", 0.595),
    ("no_stop_gradient", "knn_accuracy", "0.10", "<=", LOW["knn_accuracy"]),
    ("no_stop_gradient", "loss", "-1", "<=", LOW["loss"]),
    ("no_predictor", "knn_accuracy", "0.10", "<=", LOW["knn_accuracy"]),
    ("no_predictor", "loss", "-1", "<=", LOW["loss"]),
]
ROUNDING = 2**-24  # of a float32 just below 1
EQUAL = 1e-13  # 1 - cosine in float64, of either sign, of outputs that are equal up to float32's rounding
OTHER = (
    "These are not the original's data and recipe, with which std and loss fall in the first epochs of a collapse and "
    "the accuracy after tens of them."
)


def first_seed(seeds: dict) -> dict:
    """Return what belongs to the first seed of a run."""
    return next(iter(seeds.values()))


def is_full(config: dict) -> bool:
    """Whether a run has the original's data and recipe."""
    return config["data"] == "cifar10" and config.items() >= (RECIPE | {"train_images": 0, "test_images": 0}).items()


def closing_table(metrics: dict) -> list[list]:
    """Return the rows of every run beside the original's; another recipe is not held to the original's claims."""
    config, results = metrics["config"], metrics["results"]
    rows = [["quantity", "ours", "original", "criterion", "verdict"]]
    claims = {(run, quantity): claim for run, quantity, *claim in CLAIMS if config["data"] == "cifar10"}
    for run in config["runs"]:
        for quantity, words in QUANTITIES.items():
            value, verdict = first_seed(results[run])[quantity], ["-", "-", "-"]
            if (run, quantity) in claims:
                original, sign, limit = claims[run, quantity]
                met = value >= limit if sign == ">=" else value <= limit
                other = "shorter recipe" if config["epochs"] < RECIPE["epochs"] else "other recipe"
                verdict = [original, f"{sign} {limit}", met] if is_full(config) else [original, "-", other]
            start = f" (untrained {results['untrained'][quantity]:.4f})" if quantity == "knn_accuracy" else ""
            rows.append([f"{RUNS[run]}: {words}{start}", value, *verdict])
    error = results["gradient_error"]
    value = f"{error:.1e}" if error else "0, bit for bit"
    return [
        *rows,
        ["no predictor: 2 x gradient with stop-gradient against that without", value, "exact", "< 1e-5", error < 1e-5],
    ]


def recipe(metrics: dict) -> str:
    """Return the recipe in a sentence."""
    config = metrics["config"]
    images = " and ".join(
        f"{config[f'{split}_images'] or 'all'} {words} images"
        for split, words in (("train", "training"), ("test", "test"))
    )
    return (
        f"{'the original: ' if is_full(config) else ''}{config['epochs']} epochs, batch {config['batch_size']}, SGD "
        f"{config['lr']:g} x batch / 256 with cosine decay for the encoder and fixed for the predictor, momentum 0.9, "
        f"weight decay 5e-4, projector to {config['dim']}, predictor over {config['pred_dim']}; {images}; ResNet-18 "
        f"with its 7x7 stem and max-pool; seed {', '.join(first_seed(metrics['history']))}"
    )


def binomial_error(accuracy: float, metrics: dict) -> float:
    """Return the binomial standard error of an accuracy on the test images."""
    return math.sqrt(accuracy * (1 - accuracy) / metrics["results"]["test_images"])


def without_rounding(distance: float) -> float:
    """Return a median of 1 - cosine, 0 where it is one of outputs that are equal up to rounding."""
    return distance if distance > EQUAL else 0


def describe_baseline(metrics: dict) -> str:
    """Return how sure the baseline's accuracy is, and how far below the original's where it misses its limit."""
    results, (_, _, original, _, limit) = metrics["results"], CLAIMS[0]
    accuracy = first_seed(results["baseline"])["knn_accuracy"]
    text = f"The accuracy's binomial standard error is {binomial_error(accuracy, metrics):.4f}"
    text += f" ({results['test_images']:,} test images)."
    if is_full(metrics["config"]) and accuracy < limit:
        short = float(original) - accuracy
        errors = short / math.hypot(binomial_error(accuracy, metrics), binomial_error(float(original), metrics))
        text += (
            f" The accuracy is {limit - accuracy:.4f} below the limit {limit} and {short:.4f} below the original's "
            f"{original}: {errors:.1f} standard errors of their difference. One training cannot tell whether the seed, "
            "the source of the data or something else is the reason."
        )
    return text


def describe_collapse(run: str, metrics: dict) -> str:
    """Return what an accuracy near chance comes from."""
    numbers = first_seed(metrics["results"][run])
    single, double, silent = (numbers[key] for key in ("knn_accuracy", "knn_accuracy_float64", "silent"))
    error = binomial_error(double, metrics)
    if double - single > 3 * math.hypot(error, binomial_error(single, metrics)):
        finding = "the outputs differ by less than float32 resolves"
    else:
        finding = "the accuracy is not low by float32's rounding"
    text = (
        f"Evaluated in float64, the last weights have an accuracy of {double:.4f} ± {error:.4f}: in the end {finding}."
    )
    if silent:
        text += (
            f" In evaluation mode {100 * silent:.1f}% of the test images leave all units of the projector's last "
            "hidden layer at zero, so that their outputs are equal."
        )
    return f"{text} On the backbone's features the accuracy is {numbers['knn_accuracy_backbone']:.4f}."


def compare_rises(without: list[float], baseline: list[float]) -> str:
    """Return whether the loss rises more without predictor than with it, from the rises of each."""
    sizes = [max(rises, default=0) for rises in (without, baseline)]
    contrast = {"size": sizes[0] > sizes[1], "number": len(without) > len(baseline)}
    shown = " and ".join(what for what, more in contrast.items() if more) or "neither size nor number"
    return (
        f"Without predictor the largest rise is {sizes[0]:.4f} against the baseline's {sizes[1]:.4f}, the number "
        f"{len(without)} against {len(baseline)}: the original's contrast shows in {shown}, for which no limit was set."
    )


def describe(run: str, metrics: dict) -> str:
    """Return in a paragraph and a figure what became of one run."""
    results = metrics["results"]
    if run not in results:
        return f"{RUNS[run]}: not run."
    history = first_seed(metrics["history"][run])
    accuracy, loss, distance = (history[key] for key in ("knn_accuracy", "loss", "median_distance"))
    distance = [*map(without_rounding, distance)]
    best = max(range(len(accuracy)), key=accuracy.__getitem__)
    text = [
        f"{RUNS[run]}: the kNN accuracy goes from {accuracy[0]:.4f} untrained to {accuracy[-1]:.4f} (highest: "
        f"{accuracy[best]:.4f} in epoch {best}), the loss to {loss[-1]:.4f}. The outputs end with std x sqrt(d) "
        f"{history['output_std'][-1]:.2g}, effective rank {history['effective_rank'][-1]:.2f} and a median of "
        f"1 - cosine of {distance[-1]:.2g}."
    ]
    for key, limit in LOW.items():
        epochs = [epoch for epoch, value in enumerate(history[key]) if epoch and value <= limit]
        if epochs:
            first, after = epochs[0], len(history[key]) - 1 - epochs[0]
            stays = f", and in {len(epochs) - 1} of the {after} later epochs" if after else ""
            text.append(
                f"The {QUANTITIES[key]} is first at most {limit} in epoch {first} (median of 1 - cosine "
                f"{distance[first]:.2g}){stays}."
            )
    if equal := distance[1:].count(0):
        text.append(
            f"In {equal} of the {len(distance) - 1} epochs that median is 0: half of the pairs or more "
            "are equal, up to rounding."
        )
    trained = [*zip(accuracy, distance, strict=True)][1:]
    low = [median for value, median in trained if value <= LOW["knn_accuracy"]]
    others = [median for value, median in trained if value > LOW["knn_accuracy"]]
    if low and others:
        text.append(
            f"In the {len(low)} epochs with an accuracy of at most {LOW['knn_accuracy']} the median is at most "
            f"{max(low):.2g}, in the others at least {min(others):.2g}; just below 1 float32 rounds to {ROUNDING:.2g}."
        )
    if run == "baseline":
        text.append(describe_baseline(metrics))
    elif "baseline" in results:
        baseline = first_seed(results["baseline"])["knn_accuracy"]
        side = "below" if accuracy[-1] < baseline else "above"
        text.append(f"The accuracy ends {abs(baseline - accuracy[-1]):.4f} {side} the baseline's {baseline:.4f}.")
    if accuracy[-1] <= LOW["knn_accuracy"]:
        text.append(describe_collapse(run, metrics))
    return f"{' '.join(text)}\n\n![accuracy and loss of {run}]({run}.png)"


def answers(metrics: dict) -> str:
    """Return the answers to questions 3.4 and 3.5 in Markdown."""
    config, results = metrics["config"], metrics["results"]
    shown = QUANTITIES | {"effective_rank": "effective rank", "median_distance": "median of 1 - cosine"}
    shown |= {"knn_accuracy_float64": "kNN in float64", "knn_accuracy_backbone": "kNN, backbone"}
    rows = [["run", "minutes", *shown.values()]]
    smooth = [["run", f"rises in the {config['epochs'] - 1} epochs after the first", "largest", "sum", "net fall"]]
    rises = {
        run: [after - before for before, after in pairwise(first_seed(seeds)["loss"][1:]) if after - before >= RISE]
        for run, seeds in metrics["history"].items()
    }
    for run in ["untrained", *config["runs"]]:
        history = first_seed(metrics["history"][run]) if run in metrics["history"] else None
        numbers = first_seed(results[run]) if history else results[run]
        numbers = numbers | {"median_distance": f"{without_rounding(numbers['median_distance']):.2g}"}
        minutes = f"{sum(history['seconds']) / 60:.0f}" if history else "-"
        rows.append([RUNS.get(run, run), minutes, *(numbers.get(key, "-") for key in shown)])
        if history:
            up, loss = rises[run], history["loss"]
            smooth.append([RUNS[run], len(up), max(up, default="-"), sum(up), loss[1] - loss[-1]])
    contrast = ""
    if is_full(config) and rises.keys() >= {"no_predictor", "baseline"}:
        contrast = f"\n{compare_rises(rises['no_predictor'], rises['baseline'])}\n"
    error = results["gradient_error"]
    equal = "are bit-identical: a factor of 1/2 changes exponents alone, and both backward passes do the same"
    differ = f"differ by {error:.1e}, relative to the norm"
    other = "" if is_full(config) else f"{OTHER}\n\n"
    frozen = ""
    if "fixed_random_predictor" in results:
        frozen = f"\n## Beyond the original: a frozen predictor\n\n{describe('fixed_random_predictor', metrics)}\n"
    return f"""## 3.4 What does SimSiam learn, and what without stop-gradient?

The accuracy is that of a kNN classifier on the projector's output (k = {config["knn_k"]}, temperature
{config["knn_temperature"]:g}); chance is 0.1 for ten equally frequent classes. The loss is at least -1. The classifier
compares cosines however near to 1 all of them are, until rounding hides the differences. So there are monitors of the
test images' outputs, for which no criterion is set:

- The std of the l2-normalised outputs times sqrt(d) is 1 where they spread evenly and 0 where all are equal (Chen & He,
  figure 2). A few outliers can raise it. The panel of the training batches has it for augmented views, normalised with
  each batch's own statistics, as the mean of an epoch.
- The effective rank (sum of l)^2 / sum of l^2 of their covariance's eigenvalues l is 1 where they lie on a line, as in
  a collapse onto two opposite points, which the std calls healthy. It does not depend on their scale: where nearly all
  outputs are equal, it is that of the few others or of the rounding.
- The median of 1 - cosine over pairs of different images, at most the first 1,000, says how deep a collapse is.
- The accuracy in float64, of the last weights alone, says what rounding hides.

Epoch 0 is the untrained network, evaluated with the initial statistics of its batch normalisations; its loss and its
std of training batches are those of the first batch.

{make_table(rows)}

![all runs](comparison.png)

{other}{describe("baseline", metrics)}

{describe("no_stop_gradient", metrics)}

## 3.5 What happens without a predictor, and why?

{describe("no_predictor", metrics)}

How smoothly does the loss decrease? The original calls it smooth for the baseline and not smooth without predictor.
Epochs whose mean loss exceeds that of the epoch before by {RISE:g} or more, beside the net fall after the first epoch:

{make_table(smooth)}
{contrast}
Let D be minus the mean cosine. With stop-gradient and the identity as predictor the loss is D(z1, sg(z2)) / 2 +
D(sg(z1), z2) / 2. Its gradient is half of that of D(z1, z2) without stop-gradient: the stop-gradient changes the length
of the gradient, not its direction, and the run descends a loss that a collapse minimises. On the untrained network of
this script (float64, 32 images) twice the one gradient and the other {differ if error else equal}.
{frozen}"""
