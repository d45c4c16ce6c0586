"""The committed results: the pages say what metrics.json says."""

import json
from pathlib import Path

import pytest

import q1_vae
import q2_gan
import utils

ROOT = Path(__file__).parent.parent
SCRIPTS = {"q1_vae": q1_vae, "q2_gan": q2_gan}


@pytest.fixture(params=SCRIPTS)
def committed(request):
    folder = ROOT / "results" / request.param
    return SCRIPTS[request.param], folder, json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_report_is_the_one_of_the_committed_metrics(committed):
    script, folder, metrics = committed
    assert (folder / "report.md").read_text(encoding="utf-8") == script.report(metrics)


def test_readme_has_the_closing_table_of_the_committed_metrics(committed):
    script, _, metrics = committed
    assert script.closing_table(metrics) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_figures_of_the_report_are_there(committed):
    script, folder, metrics = committed
    named = {line.split("](")[1].rstrip(")") for line in script.report(metrics).splitlines() if line.startswith("![")}
    assert named == {path.name for path in folder.glob("*.png")} and len(named) >= 4


def test_problem_1_meets_the_criteria_on_the_official_data():
    metrics = json.loads((ROOT / "results" / "q1_vae" / "metrics.json").read_text(encoding="utf-8"))
    results, config = metrics["results"], metrics["config"]
    assert metrics["data"] == utils.AMAT_SOURCE and set(results["seeds"]) == {"0", "1", "2"}
    recipe = {"epochs": 20, "batch_size": 64, "lr": 3e-4, "latent_size": 100, "kl_samples": 10}
    assert config.items() >= (recipe | {"importance_samples": 200, "test_images": 10_000}).items()
    for name in ("mc", "analytic"):
        for numbers in results["seeds"].values():
            assert numbers[f"elbo_{name}"] > -102
            assert numbers[f"log_likelihood_{name}"] > numbers[f"test_elbo_{name}"]
        assert results["mean"][f"log_likelihood_{name}"] > -96
