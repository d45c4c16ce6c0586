"""The reference: the pages say what metrics.json says."""

import re

import pytest

import utils
from results.make_page import FOLDER, REFERENCE, WORDS, page, reference_metrics
from results.pages import make_table, report


@pytest.fixture(params=reference_metrics())
def reference(request):
    return request.param, reference_metrics()[request.param]


def test_report_is_the_one_of_the_committed_metrics(reference):
    name, metrics = reference
    assert (REFERENCE / name / "report.md").read_text(encoding="utf-8") == report(WORDS[name], metrics)


def test_readme_quotes_the_committed_metrics():
    readme, results = (
        (FOLDER.parent / "README.md").read_text(encoding="utf-8"),
        reference_metrics()["q1_vae"]["results"],
    )
    assert f"{results['log_likelihood_mc']:.2f}" in readme
    for key in ("elbo_analytic", "elbo_mc", "log_likelihood_analytic"):
        assert f"{results[key]:.2f}" in readme
        assert f"{results['mean'][key]:.1f} ± {results['std'][key]:.1f}" in readme
    last = list(reference_metrics()["q2_gan"]["results"]["per_snapshot"].values())[-1]
    assert f"Fréchet distance {last['frechet']:.1f} at the end" in readme


def test_readme_quotes_the_benchmark():
    def rows(path):
        lines = path.read_text(encoding="utf-8").splitlines()
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]

    measured = {row[0]: row[3] for row in rows(REFERENCE / "benchmark.md")}
    quoted = {
        row[0].split(",")[0].split(" with")[0]: row[3] for row in rows(FOLDER.parent / "README.md") if len(row) == 4
    }
    assert len(quoted.items() & measured.items()) == 4  # three rows and the header


def test_figures_of_the_report_are_there_and_no_others(reference):
    name, metrics = reference
    named = set(re.findall(r"!\[.*\]\((.*)\)", report(WORDS[name], metrics)))
    assert named == {path.name for path in (REFERENCE / name).glob("*.png")} and len(named) >= 4


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
