"""The words of problem 2: closing table and answers, from a metrics.json alone."""

from itertools import pairwise

from results.pages import make_table

TITLE = "Problem 2: Wasserstein GAN"


def closing_table(metrics: dict) -> list[list]:
    """Return the rows of each claim of the original with its number, and whether the number supports it."""
    config, results = metrics["config"], metrics["results"]
    snapshots = [results["per_snapshot"][str(iteration)] for iteration in results["snapshots"]]
    frechet, sharp, entropy = ([x[key] for x in snapshots] for key in ("frechet", "sharpness", "entropy"))
    latent, pixel = results["interpolation"]["latent"], results["interpolation"]["pixel"]
    changed = [results["perturbation"]["changed"][dimension] for dimension in config["perturb_dims"]]
    dimensions = ", ".join(map(str, config["perturb_dims"]))
    accuracy, real = results["classifier_accuracy"], results["real"]["sharpness"]

    def join(*values: float) -> str:
        return ", ".join(f"{value:.4g}" for value in values)

    def falls(values: list[float]) -> bool | str:
        return all(a > b for a, b in pairwise(values)) if len(values) > 1 else "-"

    nearer, rises = falls([abs(value - real) for value in sharp[1:]]), falls([-value for value in entropy[1:]])
    surer, closer = latent["confidence"] > pixel["confidence"], latent["frechet"] < pixel["frechet"]
    confidence, distance = (join(latent[key], pixel[key]) for key in ("confidence", "frechet"))
    return [
        ["quantity", "ours", "original", "criterion", "met"],
        ["classifier's test accuracy", accuracy, "-", ">= 0.95", accuracy >= 0.95],
        ["Fréchet distance", join(*frechet), "blurred, then crisp", "falls", falls(frechet)],
        [f"sharpness (real {real:.4g})", join(*sharp), "blurred, then crisp", "nears it from the second on", nearer],
        ["entropy (bits)", join(*entropy), "few digits, then all", "rises from the second on", rises],
        ["entropy at the end (bits)", join(entropy[-1]), "diverse", "> 3.0", entropy[-1] > 3],
        [f"digit changed by {dimensions}", join(*changed), "changes the digit", ">= 0.1 for each", min(changed) >= 0.1],
        ["confidence half-way: latent, pixel", confidence, "on, off the manifold", "latent higher", surer],
        ["Fréchet distance half-way: latent, pixel", distance, "on, off the manifold", "latent lower", closer],
    ]


def recipe(metrics: dict) -> str:
    """Return the recipe in a sentence."""
    config = metrics["config"]
    return (
        f"{config['iterations']:,} generator iterations with {config['critic_updates']} critic updates each, width "
        f"{config['width']}, penalty coefficient {config['penalty']:g}, batch {config['batch_size']}, Adam "
        f"{config['lr']:g} with betas (0.5, 0.9); the original: SVHN, 50,000 iterations, 5 critic updates, width 64, "
        "Adam 0.0001"
    )


def answers(metrics: dict) -> str:
    """Return the answers to questions 2.2 to 2.4 in Markdown."""
    config, results = metrics["config"], metrics["results"]
    named = {f"iteration {i:,}": results["per_snapshot"][str(i)] for i in results["snapshots"]}
    rows = [["images", "Fréchet distance", "entropy (bits)", "confidence", "sharpness", "three most frequent digits"]]
    for name, numbers in (named | {"training images": results["real"]}).items():
        counts = {digit: count for digit, count in enumerate(numbers["histogram"]) if count}
        top = sorted(counts, key=counts.get, reverse=True)[:3]
        share = sum(counts[digit] for digit in top) / sum(counts.values())
        values = [f"{numbers[key]:.4g}" for key in ("frechet", "entropy", "confidence", "sharpness")]
        rows.append([name, *values, f"{', '.join(map(str, top))}: {100 * share:.0f}%"])
    snapshot_table = make_table(rows)

    changed, moved = results["perturbation"]["changed"], results["perturbation"]["moved"]
    ranked = sorted(range(len(changed)), key=lambda d: -changed[d])
    shown = list(dict.fromkeys([*config["perturb_dims"], *ranked[:5], ranked[-1]]))
    rows = [[d, f"{changed[d]:.3f}", f"{moved[d]:.3f}", ranked.index(d) + 1] for d in shown]
    dimension_table = make_table([["dimension", "digit changes", "image moves", "rank"], *rows])

    keys, interpolation = ("frechet", "confidence", "sharpness"), results["interpolation"]
    rows = [[name, *(f"{interpolation[name][key]:.4g}" for key in keys)] for name in ("latent", "pixel", "samples")]
    interpolation_table = make_table([["images", "Fréchet distance", "confidence", "sharpness"], *rows])
    apart = {name: interpolation[name]["frechet"] / interpolation["samples"]["frechet"] for name in ("latent", "pixel")}
    early, last = results["snapshots"][:2][-1], results["snapshots"][-1]
    start, end = (results["per_snapshot"][str(iteration)] for iteration in (early, last))

    return f"""## 2.2 What do the samples look like as training goes on?

The same noise at each snapshot. Snapshot 0 is grey, not noise, as batch normalisation in evaluation mode uses its
initial statistics. A small classifier, trained on the same labelled images, sorts {config["samples"]:,}
samples of each into digits: entropy is that of the histogram (at most 3.32 bits), confidence the mean largest
probability. The Fréchet distance compares its 128 features of the samples with those of the test images; sharpness is
the mean magnitude of the brightness gradient.

{snapshot_table}

From iteration {early:,} to {last:,} the Fréchet distance goes from {start["frechet"]:.4g} to {end["frechet"]:.4g}, the
entropy from {start["entropy"]:.3f} to {end["entropy"]:.3f} bits and the sharpness from {start["sharpness"]:.4f} to
{end["sharpness"]:.4f} (training images {results["real"]["sharpness"]:.4f}).

![samples of all snapshots](samples.png)

The critic's estimate of the Wasserstein distance, and the penalty on norms of its gradient above 1:

![critic's estimate and penalty](training.png)

## 2.3 What does a single latent dimension change?

For each latent dimension: how often the classifier's digit differs from that of the unperturbed image, over 64 noise
vectors and four ε up to {config["perturb_max"]} (standard error at most 0.07), and how far the image moves at the
largest ε (root mean square over pixels in [-1, 1]). The asked dimensions first, then the others of the five that
change the digit most, and the one that does least:

{dimension_table}

On average over all {len(changed)} dimensions the digit changes in {100 * sum(changed) / len(changed):.1f}% of the
images.

![perturbations](perturbation.png)

## 2.4 How do interpolations in latent and in pixel space differ?

Half-way is α = 0.4, 0.5 and 0.6 of 1,000 pairs in either scheme; for comparison 3,000 (or all) samples of iteration
{last:,}. The Fréchet distances of this table are of equally many images, of which three of a pair are not independent:
that of the latent path is {apart["latent"]:.1f} times, that of the pixel path {apart["pixel"]:.1f} times the one of the
samples. (A mean of two z is shorter than they are, which favours the latent path beside plain samples.)

{interpolation_table}

![interpolations](interpolation.png)
"""
