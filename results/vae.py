"""The words of problem 1: closing table and answers, from a metrics.json alone."""

from results.pages import make_table

TITLE = "Problem 1: variational autoencoder"
OFFICIAL = "binarized MNIST (Larochelle's files, MD5 checked)"  # the source for which the original's numbers hold
ORIGINAL = {"elbo_mc": -101.2971, "elbo_analytic": -101.2571, "log_likelihood": -95.3737}
ESTIMATORS = {"analytic": "analytic KL", "mc": "Monte Carlo KL"}


def closing_table(metrics: dict) -> list[list]:
    """Return the rows of ours beside the original's, whose numbers and limits hold for the official data only."""
    official, samples = metrics["data"] == OFFICIAL, metrics["config"]["importance_samples"]
    results, seeds = metrics["results"], metrics["results"]["seeds"].values()
    rows = [["quantity", "ours", "original", "criterion", "met"]]

    def add(quantity: str, key: str, original: float, criterion: str, met: list[bool]) -> None:
        verdict = f"{sum(met)} of {len(met)} seeds" if len(met) > 1 else met[0]
        reported = original if official else "-"
        rows.append([quantity, results[key], reported, criterion, "-" if criterion == "-" else verdict])

    for name, words in ESTIMATORS.items():
        key = f"elbo_{name}"
        met = [numbers[key] > -102 for numbers in seeds]
        add(f"validation ELBO, {words}", key, ORIGINAL[key], "> -102" if official else "-", met)
    for name, words in ESTIMATORS.items():
        key, bound = f"log_likelihood_{name}", f"test_elbo_{name}"
        met = [numbers[key] > numbers[bound] for numbers in seeds]
        quantity = f"test log p(x), K = {samples}, {words}"
        add(quantity, key, ORIGINAL["log_likelihood"], f"> its test ELBO {results[bound]:.4f}", met)
        if official and len(seeds) > 1:
            mean = results["mean"][key]
            rows.append([f"its mean over {len(seeds)} seeds, {words}", mean, "-", "> -96", mean > -96])
    return rows


def recipe(metrics: dict) -> str:
    """Return the recipe in a sentence."""
    config = metrics["config"]
    return (
        f"{config['epochs']} epochs, batch {config['batch_size']}, Adam {config['lr']:g}, {config['latent_size']} "
        f"latent variables, {config['kl_samples']} samples for the Monte Carlo KL, "
        f"seeds {', '.join(metrics['results']['seeds'])}"
    )


def answers(metrics: dict) -> str:
    """Return the answers to questions 1.6 and 1.7 in Markdown."""
    results, config, curves = metrics["results"], metrics["config"], metrics["results"]["curves"]
    seeds = results["seeds"]
    keys = [key for key in results["mean"] if not key.startswith("test")]
    rows = [["seed", *keys]]
    rows += [[seed, *(numbers[key] for key in keys)] for seed, numbers in seeds.items()]
    if len(seeds) > 1:
        rows += [[word, *(results[word][key] for key in keys)] for word in ("mean", "std")]
    first = next(iter(seeds))
    pace = {name: sum(metrics["history"][f"{name}_seed{first}"]["seconds"]) / config["epochs"] for name in ESTIMATORS}
    gaps = ", ".join(f"{numbers['elbo_analytic'] - numbers['elbo_mc']:+.2f}" for numbers in seeds.values())
    gains = {name: results[f"log_likelihood_{name}"] - results[f"test_elbo_{name}"] for name in ESTIMATORS}
    curve_rows = [["model", "ELBO", *(f"K = {k}" for k in curves["mc"]["samples"])]]
    curve_rows += [[ESTIMATORS[name], curve["elbo"], *curve["estimates"]] for name, curve in curves.items()]
    return f"""## 1.6 Which ELBO do the two estimators of the KL term reach?

The model trained with the analytic KL ends at a validation ELBO of {results["elbo_analytic"]:.4f} nats per image, the
one trained with the Monte Carlo KL at {results["elbo_mc"]:.4f}. Analytic minus Monte Carlo, seed by seed: {gaps}.
An epoch takes {pace["analytic"]:.1f} s with the analytic and {pace["mc"]:.1f} s with the Monte Carlo KL. Validation
ELBO and test log-likelihood of every seed:

{make_table(rows)}

![validation ELBO against epochs](elbo.png)
![samples from the prior](samples.png)
![reconstructions of test images](reconstructions.png)

## 1.7 How high is the log-likelihood, by importance sampling?

With K = {config["importance_samples"]} samples from q(z|x) for each of {results["test_images"]:,} test images, log p(x)
is {results["log_likelihood_analytic"]:.4f} (analytic KL) and {results["log_likelihood_mc"]:.4f} (Monte Carlo KL),
{gains["analytic"]:.2f} and {gains["mc"]:.2f} nats above the test ELBO of the same models.
On every tenth image the estimate starts at the ELBO with K = 1 and rises with K:

{make_table(curve_rows)}

![log p(x) against K](log_likelihood.png)
"""
