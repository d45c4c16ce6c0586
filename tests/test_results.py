"""The reference: the pages say what metrics.json says."""

import re
import statistics

import pytest

import utils
from results import gan, vae
from results.make_page import FOLDER, REFERENCE, WORDS, page, reference_metrics
from results.pages import make_table, report


@pytest.fixture(params=reference_metrics())
def reference(request):
    return request.param, reference_metrics()[request.param]


def test_report_is_the_one_of_the_committed_metrics(reference):
    name, metrics = reference
    assert (REFERENCE / name / "report.md").read_text(encoding="utf-8") == report(WORDS[name], metrics)


def readme_rows():
    lines = (FOLDER.parent / "README.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_readme_quotes_the_committed_metrics():
    metrics = reference_metrics()
    (first,) = (row for row in readme_rows() if row[0].startswith("1: VAE"))
    (table,) = (row for row in readme_rows() if row[0] == "`python q1_vae.py --repeats 10`")
    keys = ("elbo_analytic", "elbo_mc", "log_likelihood_analytic", "log_likelihood_mc")
    for key in keys:
        values = vae.by_seed(metrics["q1_vae"], key)
        assert f"{statistics.fmean(values):.2f}" in first[2]
        assert f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}" in table[-1]
    assert vae.closeness(metrics["q1_vae"])[1] in first[2] and len(values) == 10
    (longer,) = (row for row in readme_rows() if row[0].startswith("`python q1_vae.py --epochs 200"))
    numbers = [f"{metrics['q1_vae_200']['results'][key]:.1f}" for key in keys]
    assert re.findall(r"-\d+\.\d", longer[-1]) == numbers
    (second,) = (row for row in readme_rows() if row[0].startswith("2: WGAN"))
    decided = [row[-1] for row in gan.closing_table(metrics["q2_gan"])[2:]]
    counts = [decided.count(verdict) for verdict in ("supported", "contradicted", "not decided")]
    assert "of {} claims {} are supported, {} contradicted, {} not decided".format(len(decided), *counts) in second[2]
    assert f"{metrics['q2_gan']['config']['iterations']:,} of 50,000 iterations" in second[3]
    (third,) = (row for row in readme_rows() if row[0].startswith("3: SimSiam"))
    (table,) = (row for row in readme_rows() if row[0] == "`python q3_simsiam.py`")
    results = metrics["q3_simsiam"]["results"]
    accuracy = {run: f"{results[run]['0']['knn_accuracy']:.2f}" for run in metrics["q3_simsiam"]["history"]}
    assert third[2].startswith(accuracy["baseline"]) and f"kNN accuracy {accuracy['baseline']}," in table[-1]
    for run, how in {"no_stop_gradient": "without stop-gradient", "no_predictor": "without predictor"}.items():
        assert all(f"{accuracy[run]} {how}" in cell for cell in (third[2], table[-1]))
    assert f"{accuracy['fixed_random_predictor']} with a frozen one" in table[-1]


def test_readme_quotes_the_benchmark():
    lines = (REFERENCE / "benchmark.md").read_text(encoding="utf-8").splitlines()
    measured = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    measured = {row[0]: [re.sub(" ± [^ ]*", "", cell) for cell in row[1:4]] for row in measured}
    quoted = [row for row in readme_rows() if len(row) == 4 and row[0].split(",")[0] in measured]
    assert len(quoted) == 6  # with the header
    for work, *numbers in quoted:
        assert numbers == measured[work.split(",")[0]]


def test_figures_of_the_report_are_there_and_no_others(reference):
    name, metrics = reference
    named = set(re.findall(r"!\[.*\]\((.*)\)", report(WORDS[name], metrics)))
    assert named == {path.name for path in (REFERENCE / name).glob("*.png")}
    if name == "q3_simsiam":  # one for each run, and the comparison
        assert len(named) == len(metrics["history"]) + 1
    else:
        assert len(named) >= 4


def test_official_data_are_named_alike_by_loader_and_words():
    assert WORDS["q1_vae"].OFFICIAL == utils.AMAT_SOURCE


def test_joined_page_is_the_one_of_the_committed_metrics():
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == page()


def test_joined_page_shows_every_figure_once():
    shown = re.findall(r"!\[.*\]\((.*)\)", page())
    assert len(shown) == len(set(shown)) and {FOLDER / path for path in shown} == set(REFERENCE.glob("*/*.png"))


def test_table_is_aligned_markdown():
    assert make_table([["name", "x"], ["a", 0.5], ["longer", True]]) == (
        "| name   | x      |\n| ------ | ------ |\n| a      | 0.5000 |\n| longer | yes    |"
    )
