"""The committed results: the pages say what metrics.json says."""

import json
from pathlib import Path

import pytest

import q1_vae

ROOT = Path(__file__).parent.parent
SCRIPTS = {"q1_vae": q1_vae}


@pytest.fixture(params=SCRIPTS)
def committed(request):
    folder = ROOT / "results" / request.param
    return SCRIPTS[request.param], folder, json.loads((folder / "metrics.json").read_text())


def test_report_is_the_one_of_the_committed_metrics(committed):
    script, folder, metrics = committed
    assert (folder / "report.md").read_text() == script.report(metrics)


def test_readme_has_the_closing_table_of_the_committed_metrics(committed):
    script, _, metrics = committed
    assert script.closing_table(metrics) in (ROOT / "README.md").read_text()


def test_figures_of_the_report_are_there(committed):
    script, folder, metrics = committed
    named = {line.split("](")[1].rstrip(")") for line in script.report(metrics).splitlines() if line.startswith("![")}
    assert named == {path.name for path in folder.glob("*.png")} and len(named) >= 4
