"""Verdicts on made-up numbers, and the reference: its pages say what metrics.json says."""

import math
import re
from math import inf
from statistics import fmean, stdev

import pytest

import q1_vae
import q2_gan
import q3_simsiam
import utils
from results import gan, simsiam, vae
from results.make_page import FOLDER, REFERENCE, WORDS, page, reference_metrics
from results.pages import decide, make_table, mean_error, measured, prediction_error, report, verdicts

# --- Verdicts ---------------------------------------------------------------------------------------------------------


def test_a_mean_needs_three_standard_errors_and_five_values():
    values = [-2, -1, 0, 1, 2]  # standard error sqrt(0.5) = 0.7071
    assert decide([v + 2.13 for v in values], ">", 0) == decide([v - 2.13 for v in values], "<", 0) == "supported"
    assert decide([v + 2.11 for v in values], ">", 0) == decide([v - 2.11 for v in values], ">", 0) == "not decided"
    assert decide([v - 2.13 for v in values], ">", 0) == decide([v + 2.13 for v in values], "<", 0) == "contradicted"
    assert decide([1, 1, 1, 1], ">", 0) == "not decided"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_is_close_where_three_standard_errors_stay_within_the_limit(sign):
    values = [-0.2, -0.1, 0, 0.1, 0.2]  # standard error 0.07071
    assert decide([sign * (v + 0.78) for v in values], "within", 1) == "supported"
    assert decide([sign * (v + 0.80) for v in values], "within", 1) == "not decided"
    assert decide([sign * (v + 1.22) for v in values], "within", 1) == "contradicted"


def test_a_prediction_interval_is_students():
    values = [1.0, 2.0, 4.0]  # mean 7 / 3, SD 1.5275; t(2) at 97.5% is 4.3027
    error = 4.30265 * 1.527525 * math.sqrt(4 / 3)
    for number in (7 / 3 - error, 7 / 3 + error):
        assert decide(values, "predicts", (number * 0.999, number * 0.999, inf)) == "supported"
    assert decide(values, "predicts", (7 / 3 + 1.001 * error, 99, inf)) == "contradicted"
    assert decide(values, "predicts", (-99, 7 / 3 - 1.001 * error, inf)) == "contradicted"
    assert decide(values, "predicts", (2, 3, 0.999 * error)) == "not decided"
    assert decide(values, "predicts", (2, 3, 1.001 * error)) == "supported"
    assert decide(values[:2], "predicts", (1, 2, inf)) == "not decided"
    assert measured(values, "predicts") == "2.3 [-5.3, 9.9]"


def test_every_training_must_have_collapsed():
    assert decide([0.1, 0.15], "<=", 0.15) == "supported" and decide([0.1, 0.151], "<=", 0.15) == "contradicted"


def test_numbers_are_given_with_their_error():
    assert mean_error([-2, -1, 0, 1, 2]) == "0.00 ± 0.71" and mean_error([0.5, 0.501, 0.502]) == "0.50100 ± 0.00058"
    assert mean_error([0.25]) == "0.25"


def test_table_is_aligned_markdown():
    assert make_table([["name", "x"], ["a", 0.5], ["longer", 7]]) == (
        "| name   | x      |\n| ------ | ------ |\n| a      | 0.5000 |\n| longer | 7      |"
    )


def column(words, metrics, name="verdict"):
    header, *rows = verdicts(words, metrics)
    return [row[header.index(name)] for row in rows]


# --- Problem 1 --------------------------------------------------------------------------------------------------------


def vae_metrics(elbo_analytic, elbo_mc, log_likelihood=-95.4, **changes):
    seeds = {
        str(seed): {"elbo_analytic": a, "elbo_mc": b, "log_likelihood_analytic": log_likelihood + 0.01 * seed}
        | {"log_likelihood_mc": log_likelihood - 0.01 * seed}
        for seed, (a, b) in enumerate(zip(elbo_analytic, elbo_mc, strict=True))
    }
    return {"data": vae.SOURCES[0], "config": vae.RECIPE | changes, "results": {"seeds": seeds}}


SPREAD = [-0.4, -0.2, 0, 0.2, 0.4]


def test_vae_claims_are_supported_by_trainings_around_the_originals_numbers():
    near = vae_metrics([-101.3 + d for d in SPREAD], [-101.3 - 2 * d for d in SPREAD])
    assert column(vae, near)[:2] == ["supported"] * 2 and column(vae, near)[2] == "not decided"
    assert column(vae, near)[3:] == ["supported"] * 2
    close = vae_metrics([-101.3 + d for d in SPREAD], [-101.2 + d for d in SPREAD])
    assert column(vae, close)[2] == "supported"


def test_vae_claims_can_be_contradicted():
    far = vae_metrics([-99 + 0.1 * d for d in SPREAD], [-103 + 0.1 * d for d in SPREAD], log_likelihood=-97)
    assert column(vae, far) == ["contradicted"] * 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"data": "MNIST"}, "the data are MNIST"), ({}, r"\(epochs 19, not 20\)")],
)
def test_other_data_and_another_recipe_give_numbers_without_verdicts_and_say_why(change, reason):
    metrics = vae_metrics([-101.3] * 5, [-101.3] * 5, epochs=19) | change
    assert set(column(vae, metrics)) == {"open"} and column(vae, metrics, "ours")[0] == "-101.3"
    assert re.search(reason, vae.objection(metrics))


def test_zero_images_are_called_all():
    metrics = {"data": simsiam.SOURCES[0], "config": simsiam.RECIPE | {"train_images": 5000}}
    assert "(train images 5,000, not all)" in simsiam.objection(metrics)


# --- Problem 2 --------------------------------------------------------------------------------------------------------

EVEN, THREE = [10] * 10, [2, 2, 30, 2, 2, 2, 30, 2, 30, 2]
SUPPORTED = {  # what supports every claim; by iteration, or of the last snapshot
    "sure": {0: 0.01, 7000: 0.3, 20_000: 0.6, 50_000: 0.7},
    "coverage": {0: 0.04, 7000: 0.3, 20_000: 0.5, 50_000: 0.6},
    "digits": {0: EVEN, 7000: EVEN, 20_000: THREE, 50_000: EVEN},
    "named": 0.6,
    "latent": 0.9,
    "pixel": 0.6,
    "progressive": 0.9,
}


def gan_metrics(spread=0.001, believed=None, **changes):
    """Metrics with the means of SUPPORTED, but for `changes`, and five sets of noise around them."""
    values = SUPPORTED | changes
    for key in ("sure", "coverage", "digits"):
        values[key] = SUPPORTED[key] | changes.get(key, {})

    def sets(mean, step=spread):
        return [mean + step * place for place in (-2, -1, 0, 1, 2)]

    snapshots = {}
    for iteration, digits in values["digits"].items():
        step = -spread if iteration == 50_000 else spread  # so that differences spread as well
        numbers = {key: sets(values[key][iteration], step) for key in ("sure", "coverage")}
        snapshots[str(iteration)] = numbers | {"digits": [digits] * 5}
    curves = {path: [[0.8, 0.8 * half, 0.8] for half in sets(values[path])] for path in ("latent", "pixel")}
    results = {"per_snapshot": snapshots, "held_out": {"digits": EVEN}}
    results["perturbation"] = {"named": sets(values["named"]), "starts": [30] * 5}
    results["interpolation"] = {"sure": curves, "progressive": sets(values["progressive"])}
    results["classifier"] = {"right_where_sure": 0.98, "sure": 0.85, "sure_of_scrambled": 0.05} | (believed or {})
    return {"data": gan.SOURCES[1], "config": dict(gan.RECIPE), "results": results}


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        (0, {"sure": {0: 0.06}}),
        (1, {"sure": {7000: 0.51}}),
        (2, {"sure": {20_000: 0.49}}),
        (3, {"digits": {20_000: EVEN}}),
        (4, {"coverage": {50_000: 0.52}}),
        (5, {"sure": {50_000: 0.59}}),
        (6, {"named": 0.49}),
        (7, {"latent": 0.79}),
        (8, {"pixel": 0.81}),
        (9, {"progressive": 0.74}),
    ],
)
def test_every_claim_of_problem_2_is_contradicted_by_its_own_number_alone(claim, changes):
    expected = ["supported"] * 10
    expected[claim] = "contradicted"
    assert column(gan, gan_metrics(**changes)) == expected


def test_a_difference_within_its_error_decides_nothing():
    near = {"sure": {0: 0.05, 7000: 0.5, 20_000: 0.5, 50_000: 0.5}, "coverage": {50_000: 0.55}, "named": 0.5}
    near |= {"latent": 0.8, "pixel": 0.8, "progressive": 0.75}
    assert [i for i, verdict in enumerate(column(gan, gan_metrics(**near))) if verdict != "not decided"] == [3]


def test_paths_without_a_sure_end_and_no_sure_start_give_no_number():
    metrics = gan_metrics()
    metrics["results"]["interpolation"]["sure"]["pixel"][2] = [0, 0.5, 0]
    metrics["results"]["perturbation"]["starts"][2] = 0
    for quantity in (6, 8):
        assert column(gan, metrics)[quantity] == "open" and column(gan, metrics, "ours")[quantity] == "not measured"


def test_claims_on_the_last_snapshot_need_no_other():
    metrics = gan_metrics()
    for iteration in ("0", "7000", "20000"):
        del metrics["results"]["per_snapshot"][iteration]
    assert column(gan, metrics) == ["open"] * 6 + ["supported"] * 4


@pytest.mark.parametrize("weak", [{"right_where_sure": 0.969}, {"sure": 0.799}, {"sure_of_scrambled": 0.101}])
def test_a_classifier_that_is_not_believed_decides_nothing(weak):
    metrics = gan_metrics(believed=weak)
    assert set(column(gan, metrics)) == {"open"} and "the classifier is not believed" in gan.objection(metrics)


def test_changes_of_the_digit_along_a_row():
    assert gan.changes([6, 6, -1, 3, 3, 7]) == "6, 3 at ε = 3, 7 at ε = 5"
    assert gan.changes([1, -1, 1]) == "1" and gan.changes([-1, -1]) == "-"


# --- Problem 3 --------------------------------------------------------------------------------------------------------


def simsiam_metrics(baseline=(0.59, 0.60, 0.61), collapsed=(0.1, -0.99)):
    """Metrics of a baseline and of an ablation that falls in epochs 1 (loss) and 2 (accuracy), and not for good."""
    curves = {"loss": [-0.2, -0.99, -0.97, -0.98, collapsed[1]], "knn_accuracy": [0.2, 0.25, 0.1, 0.2, collapsed[0]]}
    curves |= {"median_distance": [1.0, 0.5, -4e-15, 1e-2, 5e-4], "seconds": [60] * 4}
    healthy = {"loss": [-0.1, -0.2, -0.3, -0.25, -0.4], "knn_accuracy": [0.2, 0.3, 0.4, 0.62, 0.6]}
    history, results = {}, {"test_images": 10_000, "knn_accuracy_pixels": 0.41}
    results["untrained"] = {"knn_accuracy": 0.2, "knn_accuracy_backbone": 0.21}
    ends = {"output_std": 0.9, "effective_rank": 20, "knn_accuracy_backbone": 0.3, "silent": 0.999}
    for run in ("baseline", "no_stop_gradient", "no_predictor"):
        accuracies = baseline if run == "baseline" else collapsed[:1]
        history[run] = {str(seed): curves | (healthy if run == "baseline" else {}) for seed in range(len(accuracies))}
        results[run] = {
            str(seed): ends | {"knn_accuracy": accuracy, "loss": collapsed[1], "knn_accuracy_float64": accuracy}
            for seed, accuracy in enumerate(accuracies)
        }
    return {"data": simsiam.SOURCES[0], "config": dict(simsiam.RECIPE), "history": history, "results": results}


def test_numbers_that_support_every_claim_of_problem_3():
    assert column(simsiam, simsiam_metrics(baseline=(0.597, 0.60, 0.603))) == ["supported"] * 5


def test_every_claim_of_problem_3_can_be_contradicted():
    metrics = simsiam_metrics(baseline=(0.5795, 0.58, 0.5805), collapsed=(0.151, -0.979))
    assert column(simsiam, metrics) == ["contradicted"] * 5


@pytest.mark.parametrize("baseline", [(0.60,), (0.59, 0.61), (0.58, 0.60, 0.62)])
def test_accuracies_that_are_few_or_scattered_do_not_decide(baseline):
    assert column(simsiam, simsiam_metrics(baseline=baseline))[0] == "not decided"


def test_the_answer_gives_numbers_and_verdicts_on_the_originals_recipe_alone():
    metrics = simsiam_metrics(baseline=(0.597, 0.60, 0.603))
    text = " ".join(simsiam.answer(metrics).split())
    assert "0.600 [0.585, 0.615]: the original's 0.60 is supported" in text
    assert "stop-gradient is supported by an accuracy of 0.1 and supported by a loss of -0.99;" in text
    assert "At the end 99.9% and 99.9% of the test images" in text and "accuracies are 0.1000 and 0.1000." in text
    metrics["config"]["epochs"] = 99
    assert simsiam.answer(metrics) == ""


def test_tables_say_when_a_run_falls_and_how_its_loss_goes():
    tables = {name: " ".join(text.split()) for name, text in simsiam.tables(simsiam_metrics()).items()}
    ends = "| 0.1000 | 99.9% | 0.3000 |"
    assert f"| no predictor, seed 0 | 0.1000 | 0.2500 | 1 | 2 | 2 | at most 0.0005 {ends}" in tables["collapse"]
    assert "| stop-gradient and predictor, seed 1 | 0.6000 | 0.6200 | - | - | - | - | 0.6000 |" in tables["collapse"]
    assert "| no predictor, seed 0 | -0.9900 | 0.9 | 20.0 | 0.0005 | 0.01 | 4 |" in tables["outputs"]
    assert "| stop-gradient and predictor, seed 0 | 1 | 0.0500 | 0.0500 | 0.2000 |" in tables["smooth"]


# --- What words and scripts agree on ----------------------------------------------------------------------------------


def test_words_name_what_loaders_and_scripts_do():
    assert gan.SOURCES[0] == f"{utils.SVHN.__name__} (torchvision)"
    assert simsiam.SOURCES[0] == f"{utils.CIFAR10.__name__} (torchvision)"
    assert vae.LABELS == q1_vae.ESTIMATORS and list(simsiam.LABELS) == list(q3_simsiam.RUNS)
    for words, script in ((vae, q1_vae), (gan, q2_gan), (simsiam, q3_simsiam)):
        assert words.RECIPE.items() <= vars(script.get_args(["--device", "cpu"])).items()


# --- The reference ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=WORDS)
def reference(request):
    return request.param, reference_metrics()[request.param]


def test_report_is_the_one_of_the_committed_metrics(reference):
    name, metrics = reference
    assert (REFERENCE / name / "report.md").read_text(encoding="utf-8") == report(WORDS[name], metrics)


def test_figures_of_the_report_are_there_and_no_others(reference):
    name, metrics = reference
    named = set(re.findall(r"!\[.*\]\((.*)\)", report(WORDS[name], metrics)))
    assert named == {path.name for path in (REFERENCE / name).glob("*.png")} and len(named) >= 2


def test_joined_page_is_the_one_of_the_committed_metrics():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert text == page()
    for path in re.findall(r"\]\((reference/[^)]*)\)", text):
        assert (FOLDER / path).exists()


def test_readme_quotes_the_committed_metrics():
    metrics, text = reference_metrics(), (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    rows = {row[0]: row for row in rows}

    found, reproduced = rows["1: VAE, `q1_vae.py`"], rows["`python q1_vae.py --repeats 10`"]
    keys = ("elbo_analytic", "elbo_mc", "log_likelihood_analytic", "log_likelihood_mc")
    for key in keys:
        values = vae.by_seed(metrics["q1_vae"], key)
        assert f"{fmean(values):.2f}" in found[2]
        assert f"{fmean(values):.1f} (SD {stdev(values):.1f})" in reproduced[-1]
    assert set(column(vae, metrics["q1_vae"])) == {"supported"} and found[2].endswith(": supported")
    longer = rows["`python q1_vae.py --epochs 200 --out results/q1_vae_200`"]
    assert re.findall(r"-\d+\.\d", longer[-1]) == [f"{metrics['q1_vae_200']['results'][key]:.1f}" for key in keys]

    found, results = rows["2: WGAN, `q2_gan.py`"][2], metrics["q2_gan"]["results"]
    _, *parts = re.split("(Supported|Contradicted|Not decided): ", found)
    sections, decided = dict(zip(parts[::2], parts[1::2], strict=True)), column(gan, metrics["q2_gan"])
    words = ["noise", "indistinct", "proper", "2, 6 and 8", "diverse", "crisper", "dimensions"]
    for word, verdict in zip([*words, *["interpolation"] * 3], decided, strict=True):
        assert word in sections[verdict.capitalize()]
    quantities = gan.quantities(metrics["q2_gan"])
    limits = {claim.quantity: claim.limit for claim in gan.CLAIMS}
    of_what = "( of the samples( at 20,000| with a sure one))?"
    for quantity in ("S at 20,000", gan.THREE, gan.REACHED):
        assert re.search(f" {fmean(quantities[quantity]):.2f}{of_what}, limit {limits[quantity]}[;)]", found)
    diverse = gan.CLAIMS[4].quantity
    assert f"rises by {mean_error(quantities[diverse])}, limit {limits[diverse]}" in found
    assert f"of real images in {results['classifier']['sure']:.2f})" in found
    for name, row in (("q2_gan", "`python q2_gan.py`"), ("q2_hour", f"`{metrics['q2_hour']['command']}`")):
        results = metrics[name]["results"]
        *_, last = results["per_snapshot"].values()
        numbers = [fmean(last["sure"]), results["classifier"]["sure"], fmean(last["coverage"])]
        numbers += [fmean(gan.quantities(metrics[name])[gan.HALF_WAY.format(path)]) for path in ("latent", "pixel")]
        assert re.findall(r"\d\.\d\d", rows[row][-1]) == [f"{number:.2f}" for number in numbers]

    found, results = rows["3: SimSiam, `q3_simsiam.py`"], metrics["q3_simsiam"]["results"]
    quantities = simsiam.quantities(metrics["q3_simsiam"])
    accuracies = [quantities[f"kNN accuracy, {label}"] for label in simsiam.LABELS.values()]
    baseline, free, identity, frozen = (f"{fmean(values):.2f}" for values in accuracies)
    values = accuracies[0]
    low, high = (fmean(values) + sign * prediction_error(values) for sign in (-1, 1))
    assert f"{fmean(values):.3f}, prediction interval {low:.3f} to {high:.3f}: supported" in found[2]
    assert f"{free} without stop-gradient, {identity} without predictor, " in found[2]
    assert set(column(simsiam, metrics["q3_simsiam"])) == {"supported"} and found[2].count(": supported") == 2
    ends = (results["no_stop_gradient"]["0"], results["no_predictor"]["0"], results["untrained"])
    kept = [f"{end['knn_accuracy_backbone']:.2f}" for end in ends]
    assert found[2].endswith(f"the backbone's features give {kept[0]} and {kept[1]} (untrained: {kept[2]})")
    expected = f"{baseline} (SD over seeds {stdev(values):.3f}), {free}, {identity}"
    assert rows["`python q3_simsiam.py`"][-1] == f"{expected}; with `--runs fixed_random_predictor` {frozen}"
    assert f"{metrics['q3_simsiam']['config']['precision']}, five seeds" in found[3] and len(values) == 5
    below = [*accuracies[-1], results["untrained"]["knn_accuracy"]]
    assert max(below) < results["knn_accuracy_pixels"]  # as the page says

    results = metrics["q3_hour"]["results"]
    row = rows[f"`{metrics['q3_hour']['command']}`"]
    ends = [results[run]["0"] for run in ("baseline", "no_stop_gradient")]
    numbers = [*(end["knn_accuracy"] for end in ends), results["untrained"]["knn_accuracy"]]
    numbers += [results["knn_accuracy_pixels"], *(end["loss"] for end in ends)]
    assert re.findall(r"-?\d\.\d\d", row[-1]) == [f"{number:.2f}" for number in numbers]
