"""The words of problem 2: closing table and answers, from a metrics.json alone."""

import itertools
import math
from operator import sub, truediv
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

    A value for each set of noise.
    """
    results = metrics["results"]
    start, early, middle, end = phases(results)
    real, latent, pixel, moved = (results[key] for key in ("real", "latent", "pixel", "perturbation"))

    def at(name: str, iteration: int) -> list[float]:
        return sets_of(results["per_snapshot"][str(iteration)], name)

    def rise(name: str, before: int, after: int) -> tuple[str, list[float]]:
        return f"{name}: {after:,} minus {before:,}", [*map(sub, at(name, after), at(name, before))]

    def halfway(path: dict) -> list[float]:
        return [d[len(d) // 2] / samples for d, samples in zip(path["distance"], at("distance", end), strict=True)]

    three = [*map(sub, at("top_three", middle), sets_of(real, "top_three"))]
    apart = [*map(truediv, at("distance", end), real["distance"])]
    more_digits = [*map(sub, latent["digits"], pixel["digits"])]
    asked, random = ([fmean(steps) for steps in moved[key]] for key in ("asked", "random"))
    return {
        "2.2": [
            ["nothing but noise", f"precision at {start}", at("precision", start), "<", 0.05],
            ["too indistinct", f"precision at {early:,}", at("precision", early), "<", 0.5],
            ["most digits are proper", *rise("precision", early, middle), ">", 0],
            ["primarily three digits", f"three most frequent at {middle:,}, minus real images'", three, ">", 0.2],
            ["far more diverse", *rise("recall", middle, end), ">", 0.05],
            ["far more diverse", *rise("entropy", middle, end), ">", 0.1],
            ["crisper", *rise("precision", middle, end), ">", 0],
            ["crisper", *rise("confidence", middle, end), ">", 0],
        ],
        "2.3": [
            ["these dimensions change the digit", "share of steps to another digit, all ε", asked, ">", 0.1],
            [
                "these more than others",
                "that share minus random directions'",
                [*map(sub, asked, random)],
                ">",
                0,
            ],
        ],
        "2.4": [
            ["samples on the manifold", "distance: samples over real images", apart, "<", 1.1],
            ["latent: on the manifold", "distance: latent half-way over samples", halfway(latent), "<", 1.1],
            ["pixel: not on the manifold", "distance: pixel half-way over samples", halfway(pixel), ">", 1.1],
            ["latent: progressively", "largest step on a path over its mean step", latent["largest_step"], "<", 3],
            ["latent: progressively", "digits on a path, minus pixel's", more_digits, ">", 0],
        ],
    }


def verdict(metrics: dict, claim: list) -> str:
    """Return what one of the `claims` comes to, or why nothing can be decided."""
    results = metrics["results"]
    if metrics["config"]["data"] == "synthetic":
        return "not decided: built-in digits"
    if results["classifier_accuracy"] < ACCURACY:
        return "not decided: weak classifier"
    return decide(*claim[2:]) if len(set(phases(results))) == 4 else "not decided: too few snapshots"


def closing_table(metrics: dict) -> list[list]:
    """Return the rows of each claim of the original with its number, and whether the number supports it."""
    accuracy = metrics["results"]["classifier_accuracy"]
    rows = [["quantity", "ours", "original", "criterion", "verdict"]]
    rows.append(["classifier's test accuracy", accuracy, "-", f">= {ACCURACY}", accuracy >= ACCURACY])
    for claim in itertools.chain(*claims(metrics).values()):
        said, quantity, values, sign, limit = claim
        rows.append([quantity, mean_error(values), said, f"{sign} {limit}", verdict(metrics, claim)])
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
    lines = []
    for claim in claims(metrics)[question]:
        said, quantity, values, sign, limit = claim
        side = "above" if sign == ">" else "below"
        number = f"{quantity}: {mean_error(values)}, limit {side} {limit}"
        lines.append(f"- {said[0].upper()}{said[1:]}: **{verdict(metrics, claim)}** ({number}).")
    return "\n".join(lines)


def changes(dimension: int, digits: list[int]) -> str:
    """Return what is read along one dimension, in the original's words; digits are those at ε = 0, 1, 2, …"""
    sure = [(epsilon, digit) for epsilon, digit in enumerate(digits) if digit >= 0]
    steps = ", then ".join(f"{b} at ε = {epsilon}" for (_, a), (epsilon, b) in itertools.pairwise(sure) if a != b)
    always = "throughout" if len(sure) == len(digits) else "wherever it is sure"
    path = f"{sure[0][1]} {f'to {steps}' if steps else always}" if sure else "never sure"
    return f"- Dimension {dimension}: {path}."


def answers(metrics: dict) -> str:
    """Return the answers to questions 2.2 to 2.4 in Markdown."""
    config, results = metrics["config"], metrics["results"]
    perturbation, size = results["perturbation"], sum(results["real"]["histogram"][0])
    rows = [["images", *STATISTICS.values()]]
    for name, numbers in {**results["per_snapshot"], "real": results["real"]}.items():
        totals = [sum(column) for column in zip(*numbers["histogram"], strict=True)]
        top = sorted(digit for digit in sorted(range(10), key=totals.__getitem__)[-3:] if totals[digit])
        name = "other half of the test images" if name == "real" else f"iteration {int(name):,}"
        rows.append([name, *(mean_error(sets_of(numbers, key)) for key in STATISTICS)])
        rows[-1][-1] += f" ({', '.join(map(str, top))})"
    asked = ", ".join(map(str, config["perturb_dims"]))
    steps = [["steps to another digit", *(f"ε = {epsilon}" for epsilon in perturbation["epsilons"])]]
    for key, words in {"asked": f"dimensions {asked}", "all": "all dimensions", "random": "random directions"}.items():
        steps.append([words, *(mean_error(column) for column in zip(*perturbation[key], strict=True))])
    compared = " / ".join(f"{iteration:,}" for iteration in phases(results))
    told = "\n".join(changes(*row) for row in zip(config["perturb_dims"], perturbation["digits"], strict=True))
    (off_manifold,) = (verdict(metrics, claim) for claim in claims(metrics)["2.4"] if claim[0].startswith("pixel"))
    return f"""## 2.2 What do the samples look like as training goes on?

The same noise at each snapshot, with batch-normalisation statistics estimated anew from noise for each:

![samples of all snapshots](samples.png)

A small classifier, trained on the same labelled images, reads {size:,} samples in each of {len(perturbation["asked"])}
independent sets of noise, each beside a random half of the test images. Precision is the share of samples within the
neighbourhood of a real image (k = {results["neighbours"]}, without the widest twentieth of them) in the classifier's
features, normalised to unit length, recall the share of real images within that of a sample. The Fréchet distance is in
the same features. The last row measures the other half of the test images in the same way: what real images reach.
Scattered samples have wide neighbourhoods, so that recall alone may exceed that of real images. Entropy is that of the
digits, at most 3.32 bits. The last column is the share of each set's three most frequent digits; in brackets are those
of all sets.

{make_table(rows)}

![quality of the snapshots](quality.png)

Numbers are means with standard errors over the sets of noise; a claim counts as supported or contradicted beyond three
of them, which chance exceeds in one case of 25. They describe this training run, classifier and test set only. The
snapshots compared ({compared}) are those nearest to the original's, at 0, 14, 40 and 100% of the
iterations. Where recall or entropy is near its maximum at the third of them already, it cannot rise by what "far more"
asks for. Nothing is decided on the built-in digits, by a classifier whose accuracy is below {ACCURACY}, or where these
are not four different snapshots. The original's sentences, in its order:

{verdicts(metrics, "2.2")}

The critic's estimate of the Wasserstein distance, and the penalty on norms of its gradient above 1:

![critic's estimate and penalty](training.png)

## 2.3 What does a single latent dimension change?

Each row starts from a noise vector of its own: the first ones whose image the classifier is sure of (probability at
least {results["sure"]}). Under each image stands the digit that it is sure of, "?" where it is not.

![perturbations](perturbation.png)

{told}

How often does a step lead from one sure digit to another? Beside the dimensions that were asked for, all of them, and
steps of the same length in random directions:

{make_table(steps)}

{verdicts(metrics, "2.3")}

## 2.4 How do interpolations in latent and in pixel space differ?

![interpolations](interpolation.png)

For pairs of noise vectors the mean distance, in the classifier's features, to the nearest real image, and the
classifier's confidence on the way:

![distance and confidence on the way](interpolation_curves.png)

{verdicts(metrics, "2.4")}

Points half-way are compared with plain samples, and only those with real images.

The original says of pixel interpolation both that one can "barely tell the interpolated image from the original" and
that it "does not remain in the data manifold". The first says the opposite of the second. The second: {off_manifold}.
"""
