"""The reference: the pages say what metrics.json says."""

import re

import pytest

from results.make_page import FOLDER, REFERENCE, WORDS, page, reference_metrics
from results.tables import make_table, report


@pytest.fixture(params=reference_metrics())
def reference(request):
    return request.param, reference_metrics()[request.param]


def test_report_is_the_one_of_the_committed_metrics(reference):
    name, metrics = reference
    assert (REFERENCE / name / "report.md").read_text(encoding="utf-8") == report(WORDS[name], metrics)


def test_readme_has_the_closing_table_of_the_committed_metrics(reference):
    name, metrics = reference
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert make_table(WORDS[name].closing_table(metrics)) in readme


def test_figures_of_the_report_are_there_and_no_others(reference):
    name, metrics = reference
    named = set(re.findall(r"!\[.*\]\((.*)\)", report(WORDS[name], metrics)))
    assert named == {path.name for path in (REFERENCE / name).glob("*.png")} and len(named) >= 4


def test_joined_page_is_the_one_of_the_committed_metrics():
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == page()


def test_joined_page_shows_every_figure_once():
    shown = re.findall(r"!\[.*\]\((.*)\)", page())
    assert len(shown) == len(set(shown)) and {FOLDER / path for path in shown} == set(REFERENCE.glob("*/*.png"))


def test_table_is_aligned_markdown():
    assert make_table([["name", "x"], ["a", 0.5], ["longer", True]]) == (
        "| name   | x      |\n| ------ | ------ |\n| a      | 0.5000 |\n| longer | yes    |"
    )
