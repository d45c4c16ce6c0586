"""Verdicts on made-up numbers, and the reference: its pages say what metrics.json says."""

import math
import re
from math import inf
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from PIL import Image

import q1_vae
import q2_gan
import q3_simsiam
import utils
from results import gan, make_page, reader, simsiam, vae
from results.make_page import FOLDER, REFERENCE, RUNS, page, reference_metrics
from results.pages import (
    Claim,
    closing_table,
    decide,
    make_table,
    mean_error,
    report,
    show,
    verdicts,
)

# --- Verdicts ---------------------------------------------------------------------------------------------------------


def claim(rule, limit=None, **more):
    return Claim("", "", "", [], rule, limit, **more)


def shifted(*shifts):
    return [[value + shift for value in (-1, 0, 1)] for shift in shifts]  # t(2) at 97.5% is 4.3027


ERROR = 4.30265 / math.sqrt(3)  # of the mean of -1, 0 and 1


def test_a_mean_needs_its_confidence_interval_beyond_the_limit():
    near, far = 0.999 * ERROR, 1.001 * ERROR
    assert decide(claim(">", 0), shifted(far)) == decide(claim("<", 0), shifted(-far)) == "reproduced"
    assert decide(claim(">", 0), shifted(near)) == decide(claim(">", 0), shifted(-near)) == "undecided"
    assert decide(claim(">", 0), shifted(-far)) == decide(claim("<", 0), shifted(far)) == "not reproduced"
    assert decide(claim(">", 5), shifted(5 + far)) == "reproduced"


def test_fewer_than_three_trainings_decide_nothing():
    for rule, limit in ((">", 0), ("<", 99), ("close", 99), ("compatible", (8.9, 9.1, inf))):
        assert decide(claim(rule, limit), [[9.0, 9.001]]) == "undecided"
        assert decide(claim(rule, limit), [[9.0, 9.001, 9.002]]) != "undecided"
    assert decide(claim("><", 5), [[9.0, 9.001, 9.002], [1.0]]) == "undecided"


def test_a_share_and_that_over_real_images_have_to_agree():
    far = 2 * ERROR
    assert decide(claim(">", 0), shifted(far, far)) == "reproduced"
    assert decide(claim(">", 0), shifted(-far, -far)) == "not reproduced"
    assert decide(claim(">", 0), shifted(-far, far)) == decide(claim(">", 0), shifted(far, 0)) == "undecided"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_is_close_where_three_standard_errors_stay_within_the_limit(sign):
    values = [-0.2, -0.1, 0, 0.1, 0.2]  # standard error 0.07071
    close = claim("close", 1)
    assert decide(close, [[sign * (v + 0.78) for v in values]]) == "reproduced"
    assert decide(close, [[sign * (v + 0.80) for v in values]]) == "undecided"
    assert decide(close, [[sign * (v + 1.22) for v in values]]) == "not reproduced"
    assert show("close", values) == "0.00 ± 0.21"


def test_a_prediction_interval_is_students():
    values = [1.0, 2.0, 4.0]  # mean 7 / 3, SD 1.5275
    error = 4.30265 * 1.527525 * math.sqrt(4 / 3)

    def verdict(low, high, widest=inf):
        return decide(claim("compatible", (low, high, widest)), [values])

    for number in (7 / 3 - error, 7 / 3 + error):
        assert verdict(number * 0.999, number * 0.999) == "compatible"
        assert decide(claim("compatible", number=number * 0.999), [values]) == "compatible"
        assert decide(claim("compatible", number=number * 1.001), [values]) == "not compatible"
    assert verdict(7 / 3 + 1.001 * error, 99) == "not compatible"
    assert verdict(-99, 7 / 3 - 1.001 * error) == "not compatible"
    assert verdict(2, 3, 0.999 * error) == "undecided"
    assert verdict(2, 3, 1.001 * error) == "compatible"
    assert show("compatible", values) == "2.3 [-5.3, 9.9]"


def test_every_training_must_keep_every_limit():
    every = claim("every", (0.15, -0.98), fewest=1)
    assert decide(every, [[0.1, 0.15], [-0.98, -0.99]]) == "reproduced"
    assert decide(every, [[0.151, 0.1], [-0.99, -0.979]]) == "not reproduced"
    assert decide(every, [[0.1, 0.2], [-0.99, -0.99]]) == "undecided"
    assert decide(claim("every", (0,)), [[-1, -1]]) == "undecided"


def test_every_training_must_lie_above_all_others():
    above = claim("above")
    assert decide(above, [[0.3, 0.4, 0.5], [0.1, 0.2]]) == "reproduced"
    assert decide(above, [[0.2, 0.1, 0.0], [0.1, 0.2]]) == "not reproduced"
    assert decide(above, [[0.3, 0.2, 0.5], [0.1, 0.2]]) == "undecided"


def test_numbers_are_given_with_their_error():
    assert mean_error([-1, 0, 1]) == "0.0 ± 2.5" and mean_error([0.5, 0.501, 0.502]) == "0.5010 ± 0.0025"
    assert mean_error([0.25]) == "0.250" and mean_error([-101.267]) == "-101.27" and mean_error([]) == "not measured"
    assert show(">", [0.5, 0.501, 0.502]) == "0.5010 ± 0.0025" and show("every", [0.1, 0.2]) == "0.150"
    assert show("above", [0.2, 0.1]) == "0.100"


def test_table_is_aligned_markdown():
    assert make_table([["name", "x"], ["a", 0.5], ["longer", 7]]) == (
        "| name   | x      |\n| ------ | ------ |\n| a      | 0.5000 |\n| longer | 7      |"
    )


def column(problem, metrics, name="verdict"):
    return [getattr(row, name) for row in verdicts(problem, metrics)]


# --- Problem 1 --------------------------------------------------------------------------------------------------------


def vae_metrics(elbo_analytic, elbo_mc, log_likelihood=-95.4, **changes):
    seeds = {
        str(seed): {"elbo_analytic": a, "elbo_mc": b, "log_likelihood_analytic": log_likelihood + 0.01 * seed}
        | {"log_likelihood_mc": log_likelihood - 0.01 * seed}
        for seed, (a, b) in enumerate(zip(elbo_analytic, elbo_mc, strict=True))
    }
    return {"data": vae.SOURCES[0], "config": vae.RECIPE | changes, "results": {"seeds": seeds}}


SPREAD = [-0.4, -0.2, 0, 0.2, 0.4]


def test_vae_claims_are_reproduced_by_trainings_around_the_originals_numbers():
    near = vae_metrics([-101.3 + d for d in SPREAD], [-101.3 - 2 * d for d in SPREAD])
    assert column(vae, near) == ["compatible", "compatible", "undecided", "compatible"]
    close = vae_metrics([-101.3 + d for d in SPREAD], [-101.2 + d for d in SPREAD])
    assert column(vae, close)[2] == "reproduced"
    assert column(vae, close, "here")[3] == "-95.380 [-95.428, -95.332]; Monte Carlo KL -95.420 [-95.468, -95.372]"


def test_vae_claims_can_fail():
    far = vae_metrics([-99 + 0.1 * d for d in SPREAD], [-103 + 0.1 * d for d in SPREAD], log_likelihood=-97)
    assert column(vae, far) == ["not compatible", "not compatible", "not reproduced", "not compatible"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"data": "MNIST"}, "the data are MNIST"), ({}, r"\(epochs 19, not 20\)")],
)
def test_other_data_and_another_recipe_give_numbers_without_verdicts_and_say_why(change, reason):
    metrics = vae_metrics([-101.3] * 5, [-101.3] * 5, epochs=19) | change
    assert set(column(vae, metrics)) == {"-"}
    assert re.search(reason, vae.objection(metrics))
    table = closing_table(vae, metrics)
    assert "verdict" not in table and "| test log p(x) in nats, Monte Carlo KL   | -95.42 (SD 0.02)" in table


def test_zero_images_are_called_all():
    metrics = {"data": simsiam.SOURCES[0], "config": simsiam.RECIPE | {"train_images": 5000}}
    assert "(train images 5,000, not all)" in simsiam.objection(metrics)


# --- Problem 2 --------------------------------------------------------------------------------------------------------

REPRODUCED = {  # what reproduces every claim; by iteration, or of the last snapshot
    "readable": {0: 0.01, 7000: 0.3, 20_000: 0.6, 50_000: 0.7},
    "coverage": {0: 0.04, 7000: 0.3, 20_000: 0.5, 50_000: 0.6},
    "sharpness": {0: 9.0, 7000: 0.8, 20_000: 0.9, 50_000: 1.0},
    "two_six_eight": 0.6,  # at 20,000
    "latent": 0.9,
    "pixel": 0.6,
}
OFFSETS = (-1, 0, 1)  # of three trainings, in units of `spread`


def gan_metrics(spread=0.001, believed=None, real=0.85, **changes):
    """Metrics of three trainings around the means of REPRODUCED, but for `changes`; believed: of their classifiers."""
    values = REPRODUCED | changes
    for key in ("readable", "coverage", "sharpness"):
        values[key] = REPRODUCED[key] | changes.get(key, {})
    seeds = {}
    for number, offset in enumerate(OFFSETS):
        shift, snapshots = spread * offset, {}
        for iteration in (0, 7000, 20_000, 50_000):
            step = 2 * shift if iteration == 50_000 else shift  # so that differences spread as well
            numbers = {key: values[key][iteration] + step for key in ("readable", "coverage", "sharpness")}
            share = round(3000 * (values["two_six_eight"] + shift))
            numbers["digits"] = [9000 - 3 * share, 0, share, 0, 0, 0, share, 0, share, 0]
            snapshots[str(iteration)] = numbers
        curves = {path: [0.8, 0.8 * (values[path] + shift), 0.8] for path in ("latent", "pixel")}
        paths = {"samples": 200, "readable": 90, "named": [0.4, 0.5, 0.6, 0.7 + shift], "others": [0.4, 0.5]}
        snapshots["50000"] |= {"interpolation": curves, "perturbation": paths}
        judged = {"right_where_readable": 0.98, "readable": real, "readable_scrambled": 0.05} | (believed or {})
        held_out = {"digits": [100] * 10}
        seeds[str(number + 1)] = {"classifier": judged, "held_out": held_out, "snapshots": snapshots}
    return {"data": gan.SOURCES[1], "config": gan.RECIPE | {"samples": gan.SAMPLES}, "results": {"seeds": seeds}}


ALL = [*["reproduced"] * 6, "-", "reproduced"]


def test_numbers_that_reproduce_every_claim_of_problem_2():
    assert column(gan, gan_metrics()) == ALL
    here = column(gan, gan_metrics(), "here")
    assert here[1] == "readable 0.3000 ± 0.0025; relative to real images: 0.3529 ± 0.0029"
    assert here[3] == "0.6000 ± 0.0025 of the readable, of real ones 0.300"
    assert here[6] == "of readable samples 0.400, 0.500, 0.600, 0.7000 ± 0.0025; other dimensions 0.450"
    assert set(column(gan, gan_metrics(), "trainings")) == {3}
    assert here[7].endswith("latent 0.9000 ± 0.0025, pixel 0.6000 ± 0.0025")


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (0, {"readable": {0: 0.06}}),
        (1, {"readable": {7000: 0.51}}),
        (2, {"readable": {20_000: 0.42}}),
        (3, {"two_six_eight": 0.49}),
        (4, {"coverage": {50_000: 0.54}}),
        (5, {"sharpness": {50_000: 0.89}}),
        (7, {"latent": 0.79}),
        (7, {"pixel": 0.81}),
    ],
)
def test_every_claim_of_problem_2_fails_by_its_own_number_alone(number, changes):
    expected = list(ALL)
    expected[number] = "not reproduced"
    assert column(gan, gan_metrics(**changes)) == expected


def test_a_share_on_the_other_side_of_the_limit_than_over_real_images_decides_nothing():
    """Of 0.46 of the samples and 0.54 of real images' share."""
    between = gan_metrics(readable={0: 0.045, 7000: 0.46, 20_000: 0.46})
    assert [i for i, verdict in enumerate(column(gan, between)) if verdict == "undecided"] == [0, 1, 2]


def test_one_kind_of_path_alone_does_not_reproduce_the_claim_on_both():
    assert column(gan, gan_metrics(latent=0.8))[7] == column(gan, gan_metrics(pixel=0.8))[7] == "undecided"
    assert column(gan, gan_metrics(latent=0.8, pixel=0.81))[7] == "not reproduced"


def test_a_difference_within_its_error_decides_nothing():
    near = {"readable": {0: 0.05, 7000: 0.5, 20_000: 0.5}, "coverage": {50_000: 0.55}, "sharpness": {50_000: 0.9}}
    near |= {"two_six_eight": 0.5, "latent": 0.8, "pixel": 0.8}
    assert set(column(gan, gan_metrics(**near, real=1))) == {"undecided", "-"}


def test_crisper_is_told_with_the_sharpness_that_is_reached():
    here = column(gan, gan_metrics(sharpness={20_000: 1.2, 50_000: 1.1}), "here")[5]
    assert here == "sharpness changes by -0.1000 ± 0.0025, to 1.1000 ± 0.0050 (real images: 1)"


def test_a_training_counts_in_the_rows_whose_snapshots_it_has():
    metrics = gan_metrics()
    del metrics["results"]["seeds"]["3"]["snapshots"]["50000"]
    assert column(gan, metrics, "trainings") == [3, 3, 3, 3, 2, 2, 2, 2]
    assert column(gan, metrics) == [*["reproduced"] * 4, "undecided", "undecided", "-", "undecided"]


def test_where_nothing_is_readable_a_quantity_is_not_measured():
    metrics = gan_metrics()
    for seed in metrics["results"]["seeds"].values():
        seed["snapshots"]["50000"]["interpolation"]["pixel"] = [0, 0.5, 0]
        seed["snapshots"]["50000"]["perturbation"]["readable"] = 0
        seed["snapshots"]["20000"]["digits"] = [0] * 10
    for number in (3, 6, 7):
        assert column(gan, metrics, "here")[number] == "not measured" and column(gan, metrics, "trainings")[number] == 0
    assert column(gan, metrics)[3] == column(gan, metrics)[7] == "undecided"
    assert set(column(gan, metrics | {"data": "digits"})) == {"-"}


def test_a_path_that_fewer_trainings_have_counts_as_often_as_it_is_there():
    metrics = gan_metrics()
    metrics["results"]["seeds"]["3"]["snapshots"]["50000"]["interpolation"]["pixel"] = [0, 0, 0]
    assert column(gan, metrics)[7] == "undecided" and column(gan, metrics, "trainings")[7] == 2


WEAK = [{"right_where_readable": 0.969}, {"readable": 0.799}, {"readable_scrambled": 0.101}]


@pytest.mark.parametrize("weak", WEAK)
def test_a_training_whose_classifier_is_not_believed_does_not_count(weak):
    metrics = gan_metrics()
    metrics["results"]["seeds"]["2"]["classifier"] |= weak
    assert set(column(gan, metrics, "trainings")) == {2}
    none = gan_metrics(believed=weak)
    assert set(column(gan, none)) == {"-"} and "The classifier is not believed" in gan.objection(none)


def test_too_few_samples_decide_nothing():
    metrics = gan_metrics()
    metrics["config"]["samples"] = gan.SAMPLES - 1
    assert set(column(gan, metrics)) == {"-"} and "measured with 9,999 samples, not 10,000" in gan.objection(metrics)


def test_tables_are_of_the_trainings_that_count():
    metrics = gan_metrics()
    metrics["results"]["seeds"]["2"]["classifier"]["readable"] = 0.7
    assert gan.entries(metrics, "classifier", "readable") == [0.85, 0.85]
    assert gan.entries(metrics, "snapshots", "0", "readable") == pytest.approx([0.009, 0.011])


def test_effective_digits_count_those_that_are_read_alike():
    assert gan.effective_digits([5, 5, 0, 5, 5, *[0] * 5]) == pytest.approx(4)
    assert gan.effective_digits([7, *[0] * 9]) == 1 and gan.effective_digits([0] * 10) is None


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


def test_numbers_that_reproduce_the_claims_of_problem_3():
    metrics = simsiam_metrics(baseline=(0.597, 0.60, 0.603))
    metrics["history"]["baseline"]["0"]["loss"] = [-0.1, -0.2, -0.3]  # without a rise
    assert column(simsiam, metrics) == ["compatible", "reproduced", "reproduced", "undecided"]
    assert column(simsiam, metrics, "trainings") == [3, 1, 1, 1]
    assert column(simsiam, metrics, "here")[1:] == [
        "accuracy 0.100, loss -0.990",
        "accuracy 0.100, loss -0.990",
        "largest rise in an epoch 0.0200, with predictor 0.0500",
    ]


@pytest.mark.parametrize("collapsed", [(0.151, -0.99), (0.1, -0.979)])
def test_the_claims_of_problem_3_can_fail(collapsed):
    metrics = simsiam_metrics(baseline=(0.5795, 0.58, 0.5805), collapsed=collapsed)
    assert column(simsiam, metrics) == ["not compatible", "not reproduced", "not reproduced", "undecided"]


@pytest.mark.parametrize(
    ("rises", "verdict"), [((0.06, 0.07, 0.08), "reproduced"), ((0.01, 0.02, 0.03), "not reproduced")]
)
def test_three_trainings_decide_whether_the_loss_is_less_smooth_than_the_baselines(rises, verdict):
    metrics = simsiam_metrics()
    for seed, rise in enumerate(rises):
        history = metrics["history"]["no_predictor"]["0"] | {"loss": [0.0, -0.5, -0.6, -0.6 + rise]}
        metrics["history"]["no_predictor"][str(seed)] = history
    assert column(simsiam, metrics)[3] == verdict


@pytest.mark.parametrize("baseline", [(0.60,), (0.59, 0.61), (0.58, 0.60, 0.62)])
def test_accuracies_that_are_few_or_scattered_do_not_decide(baseline):
    assert column(simsiam, simsiam_metrics(baseline=baseline))[0] == "undecided"


def test_tables_say_when_a_run_falls_and_how_its_loss_goes():
    tables = {name: " ".join(text.split()) for name, text in simsiam.tables(simsiam_metrics()).items()}
    ends = "| 0.1000 | 99.9% | 0.3000 |"
    assert f"| no predictor, seed 0 | 0.1000 | 0.2500 | 1 | 2 | 2 | at most 0.0005 {ends}" in tables["collapse"]
    assert "| stop-gradient and predictor, seed 1 | 0.6000 | 0.6200 | - | - | - | - | 0.6000 |" in tables["collapse"]
    assert "| no predictor, seed 0 | -0.9900 | 0.9 | 20.0 | 0.0005 | 0.01 | 4 |" in tables["outputs"]
    assert "| stop-gradient and predictor, seed 0 | 1 | 0.0500 | 0.0500 | 0.2000 |" in tables["smooth"]


# --- What claims and scripts agree on ---------------------------------------------------------------------------------


def test_claims_name_what_loaders_and_scripts_do():
    assert gan.SOURCES[0] == f"{utils.SVHN.__name__} (torchvision)"
    assert simsiam.SOURCES[0] == f"{utils.CIFAR10.__name__} (torchvision)"
    assert list(simsiam.LABELS) == list(q3_simsiam.RUNS)
    for problem, script in ((vae, q1_vae), (gan, q2_gan), (simsiam, q3_simsiam)):
        assert problem.RECIPE.items() <= vars(script.get_args(["--device", "cpu"])).items()


def test_every_claim_has_a_row_in_the_figure_of_all_claims(monkeypatch, tmp_path):
    """With a dot at each mean that decides it, of the VAE less the original's number."""
    drawn = []
    monkeypatch.setattr(make_page, "save_figure", lambda figure, path: drawn.extend(figure.axes))
    metrics = {"q1_vae": vae_metrics([-101.3] * 3, [-101.4] * 3), "q2_gan": gan_metrics()}
    make_page.draw_claims(metrics | {"q3_simsiam": simsiam_metrics()}, tmp_path)

    def positions(panel, marker):
        lines = [line for line in drawn[panel].lines if line.get_marker() == marker and line.get_color() != "C3"]
        return [(line.get_ydata()[0], round(float(line.get_xdata()[0]), 4)) for line in lines]

    def limits(panel):
        lines = [line for line in drawn[panel].lines if line.get_color() == "C3"]
        return [(round(np.mean(line.get_ydata())), round(float(line.get_xdata()[0]), 4)) for line in lines]

    assert positions(0, "o") == [(0, -0.0429), (1, -0.1029), (2, 0.1), (3, -0.0163)]
    assert positions(0, "D") == [(0, 0), (1, 0), (3, 0)] and limits(0) == [(2, -1), (2, 1)]
    *_, ticks = (line for line in drawn[0].lines if line.get_marker() == "|")
    assert ticks.get_xdata() == pytest.approx([-0.0263, -0.0163, -0.0063])
    dots = [(0, 0.01), (0, 0.0118), (1, 0.3), (1, 0.3529), (2, 0.6), (2, 0.7059), (3, 0.6), (4, 0.1), (5, 0.1)]
    assert positions(1, "o") == [*dots, (6, 0.4), (6, 0.5), (6, 0.6), (6, 0.7), (7, 0.9), (7, 0.6)]
    assert positions(1, "^") == [(0, 0.85)] and list(drawn[1].lines[-2].get_xdata()) == [0.85, 0.85, 0.85, 0.3]
    assert positions(1, "x") == [(6, 0.45)]
    assert limits(1) == [(0, 0.05), (1, 0.5), (2, 0.5), (3, 0.5), (4, 0.05), (5, 0), (7, 0.8)]
    assert positions(2, "o") == [(0, 0.1), (1, 0.1), (2, 0.02)] and limits(2) == [(0, 0.15), (1, 0.15), (2, 0.05)]
    assert positions(3, "o") == positions(3, "D") == [(0, 0.6)] and limits(3) == [(0, 0.595), (0, 0.605)]
    ((low, high),) = drawn[1].containers[2].lines[2][0].get_segments()  # of 0.3
    assert (low[0], high[0]) == pytest.approx((0.3 - 0.00248, 0.3 + 0.00248), abs=1e-5)
    assert not drawn[2].containers[0].has_xerr and drawn[3].containers[0].has_xerr
    labels = [label.get_text().replace("\n", " ") for axes in drawn for label in axes.get_yticklabels()]
    assert len(labels) == len(vae.CLAIMS + gan.CLAIMS + simsiam.CLAIMS)
    assert labels[2] == "the two are close (within 1 of 0) · reproduced" and labels[-1] == "accuracy 0.60 · undecided"
    assert labels[11].endswith("pixel does not (first > 0.8, second < 0.8) · reproduced") and "·" not in labels[10]


def test_figure_of_all_claims_shows_all_of_the_reference_and_says_how_many_trainings(monkeypatch, tmp_path):
    panels = []
    monkeypatch.setattr(make_page, "save_figure", lambda figure, path: panels.extend(figure.axes))
    make_page.draw_claims(reference_metrics(), tmp_path)
    for axes in panels:
        low, high = axes.get_xlim()
        bars = [bar for errors in axes.containers for lines in errors.lines[2] for bar in lines.get_segments()]
        ends = [x for line in axes.lines for x in line.get_xdata()] + [x for bar in bars for x in bar[:, 0]]
        assert all(low <= x <= high for x in ends)
    numbers = [re.search(r"trainings: ([\d to]*\d)", axes.get_title()).group(1) for axes in panels]
    assert numbers == ["10", "1 to 3", "1", "5"]


def test_curves_show_limits_and_the_originals_numbers(drawn):
    metrics = reference_metrics()
    for draw in (vae.draw_elbo, vae.draw_log_likelihood):
        draw(metrics["q1_vae"], Path(f"{draw.__name__}.png"))
    (dotted,) = (line for line in drawn["draw_elbo"].axes[0].lines if line.get_linestyle() == ":")
    assert set(dotted.get_ydata()) == {-101.2571}
    bars = [line.get_ydata() for line in drawn["draw_elbo"].axes[1].lines if line.get_color() == "C3"]
    assert [list(bar) for bar in bars] == [[-1, -1], [1, 1]]
    (diamond,) = (line for line in drawn["draw_log_likelihood"].axes[0].lines if line.get_color() == "k")
    assert [*diamond.get_xydata()[0]] == [200, -95.3737]
    gan.draw_quality(metrics["q2_gan"], Path("quality.png"))
    limits = [line.get_xydata().mean(0) for line in drawn["quality"].axes[0].lines if line.get_color() == "C3"]
    real = fmean(gan.entries(metrics["q2_gan"], "classifier", "readable"))
    expected = [[i, y] for i, limit in ((0, 0.05), (7000, 0.5), (20_000, 0.5)) for y in (limit, limit * real)]
    assert np.array(limits) == pytest.approx(np.array(expected))
    assert [*drawn["quality"].axes[0].get_xticks()] == [0, 7000, 20_000, 50_000]


@pytest.mark.parametrize(("name", "limits"), [("q2_gan", 1), ("q2_hour", 0)])
def test_paths_show_a_limit_where_it_decides(name, limits, drawn):
    gan.draw_paths(reference_metrics()[name], Path("paths.png"))
    (axes,) = drawn["paths"].axes
    assert [list(line.get_ydata()) for line in axes.lines if line.get_color() == "C3"] == [[0.8, 0.8]] * limits


# --- The reference ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=RUNS)
def reference(request):
    return request.param, reference_metrics()[request.param]


def test_report_is_the_one_of_the_committed_metrics(reference):
    name, metrics = reference
    assert (REFERENCE / name / "report.md").read_text(encoding="utf-8") == report(RUNS[name], metrics)


def test_figures_of_the_report_are_there_and_no_others(reference):
    name, metrics = reference
    named = set(re.findall(r"!\[.*\]\((.*)\)", report(RUNS[name], metrics)))
    assert named == {path.name for path in (REFERENCE / name).glob("*.png")} and len(named) >= 2


def test_joined_page_is_the_one_of_the_committed_metrics():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert text == page()
    for path in re.findall(r"\]\((reference/[^)]*)\)", text):
        assert (FOLDER / path).exists()


def test_the_three_sentences_of_the_joined_page_are_what_the_verdicts_say():
    metrics, text = reference_metrics(), " ".join(page().split())
    assert (
        "The **VAE**'s ELBO and log p(x) are compatible with" in text
        and "two estimators of the KL term differ by 0.03 ± 0.45" in text
    )
    assert column(vae, metrics["q1_vae"]) == ["compatible", "compatible", "reproduced", "compatible"]
    assert "after 7,000 iterations most samples are unreadable, as in the original; after 20,000 the readable" in text
    assert "ones are not primarily 2, 6 and 8. The others are not: measures disagree at 20,000," in text
    assert "differ too much at 0, only one has reached 50,000, or no rule fits" in text
    decided = {1: "reproduced", 3: "not reproduced", 6: "-"}
    assert column(gan, metrics["q2_gan"]) == [decided.get(row, "undecided") for row in range(8)]
    assert column(gan, metrics["q2_gan"], "trainings") == [3, 3, 3, 3, 1, 1, 1, 1]
    assert "0.60 is compatible" in text and "the accuracy falls to 0.10, as in the original" in text
    assert "Without stop-gradient, and without predictor, one training each" in text
    assert column(simsiam, metrics["q3_simsiam"], "trainings")[1:3] == [1, 1]
    assert column(simsiam, metrics["q3_simsiam"])[:3] == ["compatible", "reproduced", "reproduced"]
    accuracies = simsiam.quantities(metrics["q3_simsiam"])["accuracy_baseline"]
    assert "narrowly: all 5 trainings end below it" in text and len(accuracies) == 5 and max(accuracies) < 0.6
    assert f"The mean here is {0.6 - fmean(accuracies):.2f} lower" in text


@pytest.mark.parametrize(("name", "most"), [("results/README.md", 900), ("README.md", 1100)])
def test_pages_are_short(name, most):
    words = (FOLDER.parent / name).read_text(encoding="utf-8").split()
    assert len([word for word in words if re.search(r"\w", word)]) <= most  # without a table's bars


def test_page_says_how_many_images_and_paths_problem_2_has():
    metrics, text = reference_metrics()["q2_gan"], page()
    assert metrics["data"].endswith("8,000 to train, 2,000 to test)")
    assert "8,000 of the test images" in text and "2,000 others held out" in text
    assert f"along {metrics['config']['pairs']:,} paths" in text


def test_pages_say_how_many_of_the_gans_trainings_end_early():
    ends = [history["iteration"][-1] for history in reference_metrics()["q2_gan"]["history"].values()]
    assert (len(ends), sorted(set(ends)), ends.count(20_000)) == (3, [20_000, 50_000], 2)
    assert "3 seeds, two to 20,000 iterations" in page() and "only one has reached 50,000" in " ".join(page().split())
    text = " ".join((FOLDER.parent / "README.md").read_text(encoding="utf-8").split())
    assert "Two of its three trainings end at 20,000, so that the first row is of one." in text
    assert "Two of problem 2's three trainings end at 20,000 iterations" in text


def test_page_says_how_often_the_gan_sees_its_images():
    config, text = reference_metrics()["q2_gan"]["config"], page()
    images = config["iterations"] * config["critic_updates"] * config["batch_size"]
    assert f"73,257 training images, {images / 73_257:.0f} passes" in text
    first = min(max(history["iteration"]) for history in reference_metrics()["q2_gan"]["history"].values())
    assert f"8,000 of the test images, {images / 8000:,.0f} or {images / 8000 * first / 50_000:.0f} passes" in text


@pytest.fixture(scope="module")
def readme():
    """The cells of README's tables, by the first cell of a row."""
    lines = (FOLDER.parent / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_readme_says_what_was_found(readme):
    metrics = reference_metrics()
    means = [fmean(vae.by_seed(metrics["q1_vae"], key)) for key in ("elbo_analytic", "log_likelihood_analytic")]
    originals = [vae.ORIGINAL[key] for key in ("elbo_analytic", "log_likelihood")]
    assert readme["1: VAE"][0] == f"ELBO {originals[0]:.1f}, log p(x) {originals[1]:.1f} nats"
    assert readme["1: VAE"][1] == f"{means[0]:.1f}, {means[1]:.1f} (10 seeds): compatible"
    assert max(column(vae, metrics["q1_vae"], "trainings")) == 10
    found = "indistinct: reproduced; 2, 6, 8: not reproduced; the others: not decided (8,000 images of SVHN's test set)"
    assert readme["2: WGAN"][1] == found
    accuracy = fmean(simsiam.quantities(metrics["q3_simsiam"])["accuracy_baseline"])
    assert readme["3: SimSiam"][1] == f"{accuracy:.3f} (5 seeds): compatible; 0.10: reproduced"


@pytest.mark.parametrize("name", ["q1_vae", "q1_vae_200"])
def test_readme_says_what_to_expect_of_problem_1(name, readme):
    metrics = reference_metrics()[name]
    expected = []
    for key in ("elbo_analytic", "elbo_mc", "log_likelihood_analytic", "log_likelihood_mc"):
        values = vae.by_seed(metrics, key)
        expected.append(f"{fmean(values):.1f}" + (f" (SD {stdev(values):.1f})" if len(values) > 1 else ""))
    command = "python q1_vae.py --repeats 10" if name == "q1_vae" else metrics["command"]
    assert readme[f"`{command}`"][1:] == expected


@pytest.mark.parametrize("name", ["q2_gan", "q2_hour"])
def test_readme_says_what_to_expect_of_problem_2(name, readme):
    metrics = reference_metrics()[name]
    last = ("snapshots", str(gan.iterations(metrics)[-1]))
    curves = [gan.entries(metrics, *last, "interpolation", path) for path in ("latent", "pixel")]
    finished = [seed for seed in gan.counted(metrics).values() if last[1] in seed["snapshots"]]
    values = [gan.entries(metrics, *last, "readable"), [seed["classifier"]["readable"] for seed in finished]]
    values += [gan.entries(metrics, *last, "coverage"), *([*map(gan.half_way, curve)] for curve in curves)]
    command = "python q2_gan.py" if name == "q2_gan" else metrics["command"].replace(" --device cpu", "")
    assert readme[f"`{command}`"][1:] == [f"{fmean(numbers):.2f}" for numbers in values]


def test_readme_says_what_to_expect_of_problem_3(readme):
    metrics = reference_metrics()
    quantities = simsiam.quantities(metrics["q3_simsiam"])
    first, *ablations = (quantities[f"accuracy_{run}"] for run in simsiam.LABELS)
    expected = [f"{fmean(first):.2f} (SD {stdev(first):.3f})", *(f"{fmean(values):.2f}" for values in ablations)]
    expected[3] += " with `--runs fixed_random_predictor`"
    assert readme["`python q3_simsiam.py`"][1:] == expected
    short = simsiam.quantities(metrics["q3_hour"])
    expected = [f"{fmean(short[f'accuracy_{run}']):.2f}" for run in ("baseline", "no_stop_gradient")]
    assert readme[f"`{metrics['q3_hour']['command']}`"][1:] == [*expected, "-", "-"]


def test_readmes_lines_write_samples_of_a_model(tmp_path, monkeypatch):
    """64 of them; of a thousand a classifier reads as many as the metrics say, within four standard errors."""
    (lines,) = re.findall(r"```python\n(.*?)```", (FOLDER.parent / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "results").symlink_to(FOLDER)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    exec(lines, names)
    with Image.open("samples.png") as picture:
        assert picture.size == (8 * 34 + 2, 8 * 34 + 2)
    folder, iteration = re.search(r"(\w+)/model_snapshot_(\d+)_seed1", lines).groups()
    classifier = reader.Classifier().eval()
    classifier.load_state_dict(torch.load(REFERENCE / folder / "model_classifier_seed1.pt")["states"]["classifier"])
    samples = q2_gan.generate(names["generator"], torch.randn(1000, 100))
    readable = (reader.read_digits(classifier, samples, 0.9) >= 0).float().mean().item()
    measured = reference_metrics()[folder]["results"]["seeds"]["1"]["snapshots"][iteration]["readable"]
    assert readable == pytest.approx(measured, abs=4 * math.sqrt(0.25 / 1000))
