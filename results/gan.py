"""The words of problem 2: closing table and answers, from a metrics.json alone."""

import itertools
import math
from statistics import fmean

from results.pages import decide, make_table, mean_error

TITLE = "Problem 2: Wasserstein GAN"
ACCURACY = 0.95  # of the classifier on the test images, from which its numbers are taken for true
STATISTICS = {  # of a snapshot's samples
    "frechet": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "entropy": "entropy (bits)",
    "confidence": "confidence",
    "top_three": "three most frequent digits",
}


def entropy(histogram: list[int]) -> float:
    """Return the entropy of a histogram in bits; log2(10) = 3.32 for ten equally frequent digits."""
    total = sum(histogram)
    return sum(count / total * math.log2(total / count) for count in histogram if count)


def top_three(histogram: list[int]) -> float:
    """Return the share of the three most frequent digits; 0.3 for ten equally frequent ones."""
    return sum(sorted(histogram)[-3:]) / sum(histogram)


def sets_of(numbers: dict, name: str) -> list[float]:
    """Return a statistic for every set of images that was measured."""
    of_histogram = {"entropy": entropy, "top_three": top_three}.get(name)
    return [of_histogram(histogram) for histogram in numbers["histogram"]] if of_histogram else numbers[name]


def phases(results: dict) -> list[int]:
    """Return the snapshots nearest, as a ratio, to those of the original's samples: 0, 14, 40 and 100%."""
    end = results["snapshots"][-1]
    places = (place * end + 1 for place in (0, 0.14, 0.4, 1))
    return [min(results["snapshots"], key=lambda i: abs(math.log((i + 1) / place))) for place in places]


def claims(metrics: dict) -> dict[str, list[list]]:
    """Return by question what the original says, and the quantity that decides: its values, comparison and limit.

    A value for each set of noise. The limits were fixed before the run.
    """
    results = metrics["results"]
    start, early, middle, end = phases(results)
    latent, pixel, moved = (results[key] for key in ("latent", "pixel", "perturbation"))

    def at(name: str, iteration: int) -> list[float]:
        return sets_of(results["per_snapshot"][str(iteration)], name)

    def minus(values: list[float], others: list[float]) -> list[float]:
        return [value - other for value, other in zip(values, others, strict=True)]

    def rise(name: str, before: int, after: int) -> tuple[str, list[float]]:
        return f"{name} at {after:,} minus at {before:,}", minus(at(name, after), at(name, before))

    def apart(path: dict) -> list[float]:
        half = len(path["distance"][0]) // 2
        return [d[half] / samples for d, samples in zip(path["distance"], at("distance", end), strict=True)]

    over_random = minus(*([fmean(steps) for steps in moved[key]] for key in ("asked", "random")))
    return {
        "2.2": [
            ["nothing but noise", f"precision at {start}", at("precision", start), "<", 0.05],
            ["too indistinct, then proper", *rise("precision", early, middle), ">", 0],
            ["primarily 2, 6 and 8", f"three digits' share at {middle:,}", at("top_three", middle), ">", 0.5],
            ["far more diverse", *rise("recall", middle, end), ">", 0],
            ["far more diverse", *rise("entropy", middle, end), ">", 0],
            ["crisper", *rise("precision", middle, end), ">", 0],
            ["crisper", *rise("confidence", middle, end), ">", 0],
        ],
        "2.3": [["these change the digit", "changes, minus those of random directions", over_random, ">", 0]],
        "2.4": [
            ["latent: on the manifold", "latent half-way: distance over samples'", apart(latent), "<", 1.1],
            ["pixel: not on the manifold", "pixel half-way: distance over samples'", apart(pixel), ">", 1.1],
            ["progressively", "latent: largest step over mean step", latent["largest_step"], "<", 3],
            ["progressively", "latent: digits on a path", latent["digits"], ">", 2],
        ],
    }


def closing_table(metrics: dict) -> list[list]:
    """Return the rows of each claim of the original with its number, and whether the number supports it."""
    accuracy = metrics["results"]["classifier_accuracy"]
    rows = [["quantity", "ours", "original", "criterion", "verdict"]]
    rows.append(["classifier's test accuracy", accuracy, "-", f">= {ACCURACY}", accuracy >= ACCURACY])
    for said, quantity, values, sign, limit in itertools.chain(*claims(metrics).values()):
        rows.append([quantity, mean_error(values), said, f"{sign} {limit}", decide(values, sign, limit)])
    return rows


def recipe(metrics: dict) -> str:
    """Return the recipe in a sentence."""
    config = metrics["config"]
    return (
        f"{config['iterations']:,} generator iterations with {config['critic_updates']} critic updates each, width "
        f"{config['width']}, penalty coefficient {config['penalty']:g}, batch {config['batch_size']}, Adam "
        f"{config['lr']:g} with betas (0.5, 0.9), seed {config['seed']}; the original: SVHN, 50,000 iterations, 5 "
        "critic updates, width 64, Adam 0.0001"
    )


def verdicts(metrics: dict, question: str) -> str:
    """Return a line for each claim that belongs to `question`."""
    return "\n".join(
        f'- "{said}": **{decide(values, sign, limit)}**. {quantity}: {mean_error(values)}, {sign} {limit} was due.'
        for said, quantity, values, sign, limit in claims(metrics)[question]
    )


def changes(dimension: int, digits: list[int]) -> str:
    """Return what is read along one dimension, in the original's words; digits are those at ε = 0, 1, 2, …"""
    sure = [(epsilon, digit) for epsilon, digit in enumerate(digits) if digit >= 0]
    steps = [f"{b} at ε = {epsilon}" for (_, a), (epsilon, b) in itertools.pairwise(sure) if a != b]
    path = " to ".join([str(sure[0][1]), *steps]) if sure else "never sure"
    return f"- Dimension {dimension}: {path}{'' if steps or not sure else ' throughout'}."


def answers(metrics: dict) -> str:
    """Return the answers to questions 2.2 to 2.4 in Markdown."""
    config, results = metrics["config"], metrics["results"]
    last, perturbation = results["snapshots"][-1], results["perturbation"]
    size = sum(results["real"]["histogram"][0])
    rows = [["images", *STATISTICS.values()]]
    for name, numbers in {**results["per_snapshot"], "real": results["real"]}.items():
        totals = [sum(column) for column in zip(*numbers["histogram"], strict=True)]
        top = sorted(sorted(range(10), key=totals.__getitem__)[-3:])
        name = "other half of the test images" if name == "real" else f"iteration {int(name):,}"
        rows.append([name, *(mean_error(sets_of(numbers, key)) for key in STATISTICS)])
        rows[-1][-1] += f" ({', '.join(map(str, top))})"
    final = fmean(results["per_snapshot"][str(last)]["precision"])
    half = next(i for i in results["snapshots"] if fmean(results["per_snapshot"][str(i)]["precision"]) >= final / 2)

    steps = [["steps to another digit", *(f"ε = {epsilon}" for epsilon in perturbation["epsilons"])]]
    asked = ", ".join(map(str, config["perturb_dims"]))
    for name, words in {"asked": f"dimensions {asked}", "random": "random directions"}.items():
        steps.append([words, *(mean_error(column) for column in zip(*perturbation[name], strict=True))])
    by_dimension = [fmean(column) for column in zip(*perturbation["by_dimension"], strict=True)]
    ranks = [1 + sum(share > by_dimension[dimension] for share in by_dimension) for dimension in config["perturb_dims"]]
    shown = zip(config["perturb_dims"], perturbation["digits"], strict=True)

    return f"""## 2.2 What do the samples look like as training goes on?

The same noise at each snapshot, with batch-normalisation statistics estimated anew from noise for each:

![samples of all snapshots](samples.png)

A small classifier, trained on the same labelled images, reads {size:,} samples in each of {len(perturbation["asked"])}
independent sets of noise, each beside a random half of the test images. Precision is the share of samples within the
neighbourhood of a real image (k = 5) in the classifier's 128 features, normalised to unit length, recall the share of
real images within that of a sample. The Fréchet distance is in the same features. The last row measures the other half
of the test images in the same way: the least distance to expect. Entropy is that of the digits, at most 3.32 bits.
Numbers are means with standard errors over the sets, so they describe this training run only.

{make_table(rows)}

![quality of the snapshots](quality.png)

Precision reaches half of its final value by iteration {half:,}. The original's sentences, each decided by a quantity
fixed before the run:

{verdicts(metrics, "2.2")}

The critic's estimate of the Wasserstein distance, and the penalty on norms of its gradient above 1:

![critic's estimate and penalty](training.png)

## 2.3 What does a single latent dimension change?

Each row starts from the first noise vector left of whose image the classifier is sure (probability at least 0.9); under
each image the digit that it is sure of.

![perturbations](perturbation.png)

{chr(10).join(changes(*row) for row in shown)}

Over more noise vectors, how often does a step lead from one sure digit to another? Beside it, steps of the same length
in random directions:

{make_table(steps)}

{verdicts(metrics, "2.3")}

Of all {len(by_dimension)} dimensions, ordered by how often they change the digit, dimensions {asked} are at places
{", ".join(map(str, ranks))}.

## 2.4 How do interpolations in latent and in pixel space differ?

![interpolations](interpolation.png)

For pairs of noise vectors the mean distance, in the classifier's features, to the nearest real image, and the
classifier's confidence on the way:

![distance and confidence on the way](interpolation_curves.png)

{verdicts(metrics, "2.4")}

A pixel path has {mean_error(results["pixel"]["digits"])} digits. The original says of pixel interpolation both that one
can "barely tell the interpolated image from the original" and that it "does not remain in the data manifold"; only one
of the two can hold, and the distance decides which.
"""
