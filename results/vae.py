"""The words of problem 1: closing table and answers, from a metrics.json alone."""

from operator import sub
from statistics import fmean, stdev

from results.pages import decide, make_table, mean_error

TITLE = "Problem 1: variational autoencoder"
OFFICIAL = "binarized MNIST (Larochelle's files, MD5 checked)"  # the source for which the original's numbers hold
RECIPE = {"epochs": 20, "batch_size": 64, "lr": 3e-4, "latent_size": 100, "kl_samples": 10}  # the original's
RECIPE |= {"importance_samples": 200, "test_images": 10_000}
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


def closeness(metrics: dict) -> tuple[str, str]:
    """Return analytic minus Monte Carlo ELBO, mean with standard error, and whether it lies within CLOSE of 0."""
    gaps = [*map(sub, by_seed(metrics, "elbo_analytic"), by_seed(metrics, "elbo_mc"))]
    towards = 1 if fmean(gaps) > 0 else -1
    return mean_error(gaps), decide([towards * gap for gap in gaps], "<", CLOSE)


def closing_table(metrics: dict) -> list[list]:
    """Return the rows of ours beside the original's, whose numbers and limits hold for its data and recipe only."""
    original, samples = is_original(metrics), metrics["config"]["importance_samples"]
    rows = [["quantity", "ours", "original", "criterion", "verdict"]]

    def count(met: list[bool]) -> str | bool:
        return f"{sum(met)} of {len(met)} seeds" if len(met) > 1 else met[0]

    for name, words in ESTIMATORS.items():
        values = by_seed(metrics, key := f"elbo_{name}")
        compared = [ORIGINAL[key], f"> {LIMIT}", count([value > LIMIT for value in values])]
        rows.append([f"validation ELBO, {words}", mean_std(values), *(compared if original else ["-"] * 3)])
    gap, verdict = closeness(metrics)
    compared = ["close", f"within {CLOSE} nat", verdict]
    rows.append(["analytic minus Monte Carlo (SE)", gap, *(compared if original else ["-"] * 3)])
    for name, words in ESTIMATORS.items():
        values, bounds = (by_seed(metrics, f"{key}_{name}") for key in ("log_likelihood", "test_elbo"))
        reported, verdict = ORIGINAL["log_likelihood"], count([a > b for a, b in zip(values, bounds, strict=True)])
        rows.append([f"test log p(x), K = {samples}, {words}", mean_std(values), reported if original else "-"])
        rows[-1] += [f"> its test ELBO, {mean_std(bounds)}", verdict]
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
    """Return whether the validation ELBO falls at the end, and how far ELBOs and log p(x) lie apart, in paragraphs."""
    parts, tenth = [], max(1, metrics["config"]["epochs"] // 10)
    for name, words in ESTIMATORS.items():
        curves = [metrics["history"][f"{name}_seed{seed}"]["elbo"] for seed in metrics["results"]["seeds"]]
        late, before = (fmean(v for curve in curves for v in curve[-n:][:tenth]) for n in (tenth, 2 * tenth))
        train, test, log_p = (
            fmean(by_seed(metrics, f"{k}_{name}")) for k in ("train_elbo", "test_elbo", "log_likelihood")
        )
        moves = "still rises, longer training helps," if late > before else "falls, longer training overfits,"
        parts.append(
            f"With the {words} the ELBO is {train:.2f} nats on training and {test:.2f} on test images, a gap of "
            f"{train - test:.2f}. The validation ELBO {moves} from {before:.2f} to {late:.2f} between the last "
            f"two tenths of the epochs. On the test images log p(x) is {log_p - test:.2f} nats above the ELBO."
        )
    return "\n\n".join(parts)


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
    elbo, log_p = ([mean_std(by_seed(metrics, key)) for key in half] for half in (keys[:2], keys[2:]))
    curve_rows = [["model", "ELBO", *(f"K = {k}" for k in curves["samples"])]]
    for name, words in ESTIMATORS.items():
        estimates = [fmean(column) for column in zip(*curves["estimates"][name], strict=True)]
        curve_rows.append([words, fmean(curves["elbo"][name]), *estimates])
    gap, verdict = closeness(metrics)
    over_seeds = ", mean and standard error over seeds" if len(results["seeds"]) > 1 else ""
    return f"""## 1.6 Which ELBO do the two estimators of the KL term reach?

Trained with the analytic KL a model ends at a validation ELBO of {elbo[0]} nats per image, with the Monte Carlo KL at
{elbo[1]}. The difference for the same seed is {gap} nats{over_seeds}.
The original calls the estimators close; that three standard errors around the difference stay within {CLOSE} nat of 0
is {verdict}.

The closed form is exact for two normals, and there the estimate only adds noise. It is needed where the KL of q and p
has no closed form, as for a mixture or a flow.

{make_table(rows)}

![validation ELBO against epochs](elbo.png)
![samples from the prior](samples.png)
![reconstructions of test images](reconstructions.png)

## 1.7 How high is the log-likelihood, by importance sampling?

With K = {config["importance_samples"]} samples from q(z|x) for each of {results["test_images"]:,} test images, log p(x)
is {log_p[0]} with the analytic and {log_p[1]} with the Monte Carlo KL. On every tenth image the estimate starts at the
ELBO with K = 1 and rises with K (mean over seeds):

{make_table(curve_rows)}

![log p(x) against K](log_likelihood.png)
"""
