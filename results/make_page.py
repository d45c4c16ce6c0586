"""Write every report.md of the reference, and results/README.md, which joins them: python -m results.make_page"""

import json

import utils
from results import gan, simsiam, vae
from results.pages import FOLDER, claims_table, mean_error, render, report, show, verdicts

REFERENCE = FOLDER / "reference"
SCRIPTS = {"q1_vae": vae, "q2_gan": gan, "q3_simsiam": simsiam}
RUNS = SCRIPTS | {"q1_vae_200": vae, "q2_hour": gan, "q3_hour": simsiam}  # with those of other recipes


def reference_metrics() -> dict[str, dict]:
    """Return what the committed runs measured, by name."""
    return {name: json.loads((REFERENCE / name / "metrics.json").read_text(encoding="utf-8")) for name in RUNS}


def page() -> str:
    """Return results/README.md: every verdict, deviations, the original's figures, what was easy and what was hard."""
    metrics = reference_metrics()
    vae_context, gan_context, simsiam_context = (SCRIPTS[name].context(metrics[name]) for name in SCRIPTS)
    accuracies = simsiam.quantities(metrics["q3_simsiam"])["accuracy_baseline"]
    context = {
        "claims": claims_table([row for name in SCRIPTS for row in verdicts(SCRIPTS[name], metrics[name])]),
        "vae_seeds": len(metrics["q1_vae"]["results"]["seeds"]),
        "vae_epochs": metrics["q1_vae"]["config"]["epochs"],
        "vae_rise": vae_context["rise"],
        "vae_first_k": vae_context["first_k"],
        "vae_last_k": vae_context["last_k"],
        "gan_real": mean_error(gan.entries(metrics["q2_gan"], "classifier", "readable")),
        "gan_reached_others": gan_context["reached_others"],
        "simsiam_accuracy": show("compatible", accuracies),
        "simsiam_trainings": simsiam_context["trainings"],
        "simsiam_precision": metrics["q3_simsiam"]["config"]["precision"],
    }
    return render("page", context)


if __name__ == "__main__":
    for name, metrics in reference_metrics().items():
        utils.write(REFERENCE / name / "report.md", report(RUNS[name], metrics))
    utils.write(FOLDER / "README.md", page())
