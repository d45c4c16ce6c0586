"""The words of problem 1: closing table and answers, from a metrics.json alone."""

from statistics import fmean, stdev

from results.pages import decide, make_table, mean_error

TITLE = "Problem 1: variational autoencoder"
OFFICIAL = "binarized MNIST (Larochelle's files, MD5 checked)"  # the source for which the original's numbers hold
RECIPE = {"epochs": 20, "batch_size": 64, "lr": 3e-4, "latent_size": 100, "kl_samples": 10}  # the original's
ORIGINAL = {"elbo_mc": -101.2971, "elbo_analytic": -101.2571, "log_likelihood": -95.3737}
LIMIT = -102  # nats of validation ELBO
CLOSE = 1  # nat between the estimators, within which they are called close
ESTIMATORS = {"analytic": "analytic KL", "mc": "Monte Carlo KL"}


def is_original(metrics: dict) -> bool:
    """Whether a run has the original's data and recipe, so that its numbers can be compared."""
    return metrics["data"] == OFFICIAL and metrics["config"].items() >= RECIPE.items()


def by_seed(metrics: dict, key: str) -> list[float]:
    """Return one number for every seed."""
    return [numbers[key] for numbers in metrics["results"]["seeds"].values()]


def mean_std(values: list[float]) -> str:
    """Return the mean over seeds and their standard deviation."""
    return f"{fmean(values):.2f} (SD {stdev(values):.2f})" if len(values) > 1 else f"{values[0]:.4f}"


def differences(metrics: dict) -> list[float]:
    """Return the validation ELBO with the analytic KL minus that with the Monte Carlo KL, for every seed."""
    return [a - b for a, b in zip(*(by_seed(metrics, f"elbo_{name}") for name in ESTIMATORS), strict=True)]


def closing_table(metrics: dict) -> list[list]:
    """Return the rows of ours beside the original's, whose numbers and limits hold for its data and recipe only."""
    original, samples = is_original(metrics), metrics["config"]["importance_samples"]
    rows = [["quantity", "ours", "original", "criterion", "verdict"]]

    def add(quantity: str, values: list[float], reported: float, criterion: str, met: list[bool]) -> None:
        verdict = f"{sum(met)} of {len(met)} seeds" if len(met) > 1 else met[0]
        rows.append([quantity, mean_std(values), reported if original else "-", criterion, verdict])

    for name, words in ESTIMATORS.items():
        values = by_seed(metrics, key := f"elbo_{name}")
        add(f"validation ELBO, {words}", values, ORIGINAL[key], f"> {LIMIT}", [value > LIMIT for value in values])
    gaps = differences(metrics)
    distances = [gap if fmean(gaps) > 0 else -gap for gap in gaps]
    verdict = decide(distances, "<", CLOSE)
    rows.append(["analytic minus Monte Carlo, ± SE", mean_error(gaps), "close", f"within {CLOSE} nat", verdict])
    for name, words in ESTIMATORS.items():
        values, bounds = (by_seed(metrics, f"{key}_{name}") for key in ("log_likelihood", "test_elbo"))
        met, criterion = [a > b for a, b in zip(values, bounds, strict=True)], f"> its test ELBO {mean_std(bounds)}"
        add(f"test log p(x), K = {samples}, {words}", values, ORIGINAL["log_likelihood"], criterion, met)
    return rows


def recipe(metrics: dict) -> str:
    """Return the recipe in a sentence."""
    config = metrics["config"]
    return (
        f"{config['epochs']} epochs, batch {config['batch_size']}, Adam {config['lr']:g}, {config['latent_size']} "
        f"latent variables, {config['kl_samples']} samples for the Monte Carlo KL, "
        f"seeds {', '.join(metrics['results']['seeds'])}"
    )


def overfitting(metrics: dict) -> str:
    """Return in a paragraph how far training and validation ELBO, and ELBO and log p(x), lie apart at the end."""
    parts, seeds = [], metrics["results"]["seeds"]
    for name, words in ESTIMATORS.items():
        histories = [metrics["history"][f"{name}_seed{seed}"] for seed in seeds]
        train, valid = (fmean(history[key][-1] for history in histories) for key in ("train_elbo", "elbo"))
        losses = [max(history["elbo"]) - history["elbo"][-1] for history in histories]
        best = [1 + history["elbo"].index(max(history["elbo"])) for history in histories]
        gap = fmean(by_seed(metrics, f"log_likelihood_{name}")) - fmean(by_seed(metrics, f"test_elbo_{name}"))
        parts.append(
            f"With the {words} the ELBO ends at {train:.2f} nats on the training and {valid:.2f} on the validation "
            f"images; the latter was highest after {fmean(best):.0f} of {metrics['config']['epochs']} epochs, and is "
            f"{fmean(losses):.2f} lower at the end. On the test images log p(x) is {gap:.2f} nats above the ELBO."
        )
    return " ".join(parts)


def beyond(metrics: dict) -> str:
    """Return what a run with another number of epochs adds to the answers."""
    elbo, log_p = (
        " and ".join(f"{mean_std(by_seed(metrics, f'{key}_{name}'))} ({words})" for name, words in ESTIMATORS.items())
        for key in ("elbo", "log_likelihood")
    )
    return f"""## Beyond the recipe: {metrics["config"]["epochs"]} epochs

The same networks, trained for longer, reach a validation ELBO of {elbo} and a test log p(x) of {log_p}.
{overfitting(metrics)}

![validation ELBO against epochs](elbo.png)
![samples from the prior](samples.png)
![reconstructions of test images](reconstructions.png)
![log p(x) against K](log_likelihood.png)
"""


def answers(metrics: dict) -> str:
    """Return the answers to questions 1.6 and 1.7 in Markdown."""
    results, config, curves = metrics["results"], metrics["config"], metrics["results"]["curves"]
    keys = [f"{key}_{name}" for key in ("elbo", "log_likelihood") for name in ESTIMATORS]
    rows = [["seed", *keys], *([seed, *(numbers[key] for key in keys)] for seed, numbers in results["seeds"].items())]
    pace = {
        name: fmean(metrics["history"][f"{name}_seed{next(iter(results['seeds']))}"]["seconds"]) for name in ESTIMATORS
    }
    elbo, log_p = ([mean_std(by_seed(metrics, key)) for key in half] for half in (keys[:2], keys[2:]))
    curve_rows = [["model", "ELBO", *(f"K = {k}" for k in curves["samples"])]]
    for name, words in ESTIMATORS.items():
        estimates = [fmean(column) for column in zip(*curves["estimates"][name], strict=True)]
        curve_rows.append([words, fmean(curves["elbo"][name]), *estimates])
    return f"""## 1.6 Which ELBO do the two estimators of the KL term reach?

Trained with the analytic KL a model ends at a validation ELBO of {elbo[0]} nats per image, with the Monte Carlo KL at
{elbo[1]}. The analytic one minus the other, same seed: {mean_error(differences(metrics))} (standard error). For two
normals the closed form is exact, and the estimate only adds noise; it is needed where q or p has no closed-form KL, a
mixture or a flow. An epoch takes {pace["analytic"]:.1f} s with the analytic and {pace["mc"]:.1f} s with the Monte Carlo
KL. {overfitting(metrics)} Validation ELBO and test log p(x) of every seed:

{make_table(rows)}

![validation ELBO against epochs](elbo.png)
![samples from the prior](samples.png)
![reconstructions of test images](reconstructions.png)

## 1.7 How high is the log-likelihood, by importance sampling?

With K = {config["importance_samples"]} samples from q(z|x) for each of {results["test_images"]:,} test images, log p(x)
is {log_p[0]} (analytic KL) and {log_p[1]} (Monte Carlo KL). On every tenth image the estimate starts at the ELBO with
K = 1 and rises with K (mean over seeds):

{make_table(curve_rows)}

![log p(x) against K](log_likelihood.png)
"""
