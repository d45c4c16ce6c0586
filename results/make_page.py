"""Write every report.md of the reference, and results/README.md, which joins them: python -m results.make_page"""

import json
import textwrap
from pathlib import Path
from statistics import fmean

from results import gan, simsiam, vae
from results.pages import (
    FOLDER,
    INTERVALS,
    Claim,
    Verdict,
    claims_table,
    criterion,
    error_of,
    render,
    report,
    show,
    verdicts,
)
from utils import Figure, default_style, save_figure, write

REFERENCE = FOLDER / "reference"
SCRIPTS = {"q1_vae": vae, "q2_gan": gan, "q3_simsiam": simsiam}
RUNS = SCRIPTS | {"q1_vae_200": vae, "q2_hour": gan, "q3_hour": simsiam}  # the rest: other recipes


def reference_metrics() -> dict[str, dict]:
    """Return what the committed runs measured, by name."""
    return {name: json.loads((REFERENCE / name / "metrics.json").read_text(encoding="utf-8")) for name in RUNS}


def page() -> str:
    """Return results/README.md: every verdict, deviations, the original's figures, what was easy and what was hard."""
    metrics = reference_metrics()
    vae_context = vae.context(metrics["q1_vae"])
    accuracies = simsiam.quantities(metrics["q3_simsiam"])["accuracy_baseline"]
    context = {
        "claims": claims_table([row for name in SCRIPTS for row in verdicts(SCRIPTS[name], metrics[name])]),
        "vae_seeds": len(metrics["q1_vae"]["results"]["seeds"]),
        "gan_real": f"{fmean(gan.entries(metrics['q2_gan'], 'classifier', 'readable')):.2f}",
        "simsiam_accuracy": show("compatible", accuracies),
        "simsiam_trainings": len(accuracies),
        "simsiam_precision": metrics["q3_simsiam"]["config"]["precision"],
    }
    context |= {f"vae_{key}": vae_context[key] for key in ("gap", "rise", "first_k", "last_k")}
    return render("page", context)


def limits_of(claim: Claim, columns: list[list[float]]) -> list[float]:
    """Return where a claim is decided, on the axis of its first column."""
    if claim.rule == "close":
        return [-claim.limit, claim.limit]
    if claim.rule == "every":
        return claim.limit[:1]
    if claim.rule == "compatible":
        return claim.limit[:2] if claim.limit else []
    if claim.rule == "above":
        return columns[1] if columns else []
    return [claim.limit] if claim.rule in ("<", ">", "><") else []


def draw_claim(axes, row: int, verdict: Verdict, shift: float = 0) -> None:
    """One row: dots with the interval that decides, a tick for each training, limit and original, all less `shift`."""
    claim, columns = verdict.claim, verdict.columns
    if claim.rule in ("every", "above"):  # of a collapse the accuracy
        columns = columns[:1]
    for number, column in enumerate(columns):
        color, values = f"C{number}" if claim.rule else "C0", [value - shift for value in column]
        axes.plot(values, [row] * len(values), color=color, marker="|", linestyle="", label="a training")
        error = error_of(claim.rule, values) if claim.rule in INTERVALS else 0
        mean = fmean(values)
        axes.errorbar(mean, row, xerr=error or None, color=color, marker="o", label="mean and deciding interval")
    for limit in limits_of(claim, verdict.columns):
        axes.plot([limit, limit], [row - 0.4, row + 0.4], color="C3", linewidth=2, label="limit")
    if claim.number is not None:
        style = {"markersize": 7, "markerfacecolor": "none", "zorder": 3}  # what lies below shows through
        axes.plot(claim.number - shift, row, "kD", label="the original", **style)


def label_of(verdict: Verdict) -> str:
    """Return claim, limit and verdict of a row."""
    ending = f" · {verdict.verdict}" if verdict.claim.rule else ""
    words = {"every": "at most the limit", "above": "above the limit", "compatible": "", "": ""}  # of what is drawn
    limit = words.get(verdict.claim.rule, criterion(verdict.claim))
    return textwrap.fill(verdict.claim.original + (f" ({limit})" if limit else "") + ending, 62)


def trainings(rows: list[Verdict]) -> str:
    """Return how many trainings the rows have: "3", or "1 to 3" where they differ."""
    numbers = [row.trainings for row in rows]
    return " to ".join(map(str, sorted({min(numbers), max(numbers)})))


@default_style()
def draw_claims(metrics: dict[str, dict], path: Path) -> None:
    """A panel for each problem, a row for each claim; SimSiam's 0.60 on an axis of its own."""
    rows = {name: verdicts(SCRIPTS[name], metrics[name]) for name in SCRIPTS}
    accuracy, *ablations = rows["q3_simsiam"]
    figure = Figure(figsize=(9, 8.5), layout="constrained")
    axes = figure.subplots(4, 1, height_ratios=[4, 9, 3, 1.2])
    for panel, claims in zip(axes, (rows["q1_vae"], rows["q2_gan"], ablations, [accuracy]), strict=True):
        for row, verdict in enumerate(claims):
            draw_claim(panel, row, verdict, (verdict.claim.number or 0) if panel is axes[0] else 0)
        panel.set_yticks(range(len(claims)), map(label_of, claims), fontsize=8)
        panel.set_ylim(len(claims) - 0.5, -0.5)
        panel.grid(alpha=0.3)
    real, quantities = gan.entries(metrics["q2_gan"], "classifier", "readable"), gan.quantities(metrics["q2_gan"])
    real = [fmean(real)] * 3 + [fmean(quantities["two_six_eight_real"])]
    axes[1].plot(real, range(4), "k^", label="real images")
    axes[1].plot(fmean(quantities["reached_others"]), 6, "kx", label="other dimensions")
    titles = [
        f"VAE, trainings: {trainings(rows['q1_vae'])}; nats above the original's; third row: analytic less Monte Carlo",
        f"WGAN, trainings: {trainings(rows['q2_gan'])}; orange: relative to real images, in the last row pixel paths",
        f"SimSiam's ablations, trainings: {trainings(ablations)}; kNN accuracy; last: rise of loss, limit: baselines",
        f"SimSiam, trainings: {trainings([accuracy])}; kNN accuracy; between the limits it rounds to 0.60",
    ]
    for panel, title, limits in zip(axes, titles, ((-1.1, 1.1), (-0.1, 1.05), (0, 0.17), (0.57, 0.61)), strict=True):
        panel.set_title(title, fontsize=9)
        panel.set_xlim(limits)
    save_figure(figure, path)


if __name__ == "__main__":
    metrics = reference_metrics()
    for name in RUNS:
        write(REFERENCE / name / "report.md", report(RUNS[name], metrics[name]))
    draw_claims(metrics, REFERENCE / "claims.png")
    write(FOLDER / "README.md", page())
