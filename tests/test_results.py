"""The committed results: the pages say what metrics.json says."""

from pathlib import Path

import pytest

import utils
from results.make_page import FOLDER, SCRIPTS, command, committed_metrics, page


@pytest.fixture(params=SCRIPTS)
def committed(request):
    return SCRIPTS[request.param], FOLDER / request.param, committed_metrics(request.param)


def test_report_is_the_one_of_the_committed_metrics(committed):
    script, folder, metrics = committed
    assert (folder / "report.md").read_text(encoding="utf-8") == script.report(metrics)


def test_readme_has_the_closing_table_of_the_committed_metrics(committed):
    script, _, metrics = committed
    assert script.closing_table(metrics) in (FOLDER.parent / "README.md").read_text(encoding="utf-8")


def test_figures_of_the_report_are_there(committed):
    script, folder, metrics = committed
    named = {line.split("](")[1].rstrip(")") for line in script.report(metrics).splitlines() if line.startswith("![")}
    assert named == {path.name for path in folder.glob("*.png")} and len(named) >= 4


def test_joined_page_is_the_one_of_the_committed_metrics(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == page()


def test_joined_page_names_the_command_of_the_committed_run(committed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script, folder, metrics = committed
    _, name, *flags = command(script, metrics["config"], vars(script.get_args([]))).split()
    args = script.get_args(flags)
    assert name == f"{script.__name__}.py" and args.out == Path("results", folder.name)
    assert metrics["config"].items() <= vars(args).items()


def test_joined_page_has_every_figure_under_its_question():
    sections = (FOLDER / "README.md").read_text(encoding="utf-8").split("\n## ")
    figures = {part[:3]: {line.split("](")[1] for line in part.splitlines() if line[:2] == "!["} for part in sections}
    iterations = committed_metrics("q2_gan")["results"]["snapshots"]
    samples = ["samples", "training", *(f"samples_{iteration}" for iteration in iterations)]
    assert figures == {
        "# R": set(),
        "1.6": {"q1_vae/elbo.png)", "q1_vae/samples.png)", "q1_vae/reconstructions.png)"},
        "1.7": {"q1_vae/log_likelihood.png)"},
        "2.2": {f"q2_gan/{name}.png)" for name in samples},
        "2.3": {"q2_gan/perturbation.png)"},
        "2.4": {"q2_gan/interpolation.png)"},
        "3.4": {f"q3_simsiam/{name}.png)" for name in ("comparison", "baseline", "no_stop_gradient")},
        "3.5": {f"q3_simsiam/{name}.png)" for name in ("no_predictor", "fixed_random_predictor")},
    }


def test_problem_1_meets_the_criteria_on_the_official_data():
    metrics = committed_metrics("q1_vae")
    results, config = metrics["results"], metrics["config"]
    assert metrics["data"] == utils.AMAT_SOURCE and set(results["seeds"]) == {"0", "1", "2"}
    recipe = {"epochs": 20, "batch_size": 64, "lr": 3e-4, "latent_size": 100, "kl_samples": 10}
    assert config.items() >= (recipe | {"importance_samples": 200, "test_images": 10_000}).items()
    for name in ("mc", "analytic"):
        for numbers in results["seeds"].values():
            assert numbers[f"elbo_{name}"] > -102
            assert numbers[f"log_likelihood_{name}"] > numbers[f"test_elbo_{name}"]
        assert results["mean"][f"log_likelihood_{name}"] > -96


def test_problem_2_meets_the_criteria_of_its_long_run():
    snapshots = committed_metrics("q2_gan")["results"]["per_snapshot"]
    distances = [snapshots[iteration]["frechet"] for iteration in sorted(snapshots, key=int)]
    assert len(distances) >= 4 and distances == sorted(distances, reverse=True)
    assert snapshots[max(snapshots, key=int)]["entropy"] > 3


def test_problem_3_meets_the_criteria_on_cifar10():
    metrics = committed_metrics("q3_simsiam")
    results, config = metrics["results"], metrics["config"]
    assert config["data"] == "cifar10" and config["train_images"] == config["test_images"] == 0
    assert results["baseline"]["knn_accuracy"] >= 0.32
    for run in ("no_stop_gradient", "no_predictor"):
        assert results[run]["knn_accuracy"] <= results["baseline"]["knn_accuracy"] - 0.1
        assert results[run]["output_std"] * config["dim"] ** 0.5 <= 4 / config["batch_size"] ** 0.5
    assert results["gradient_error"] < 1e-5
