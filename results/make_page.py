"""Write every report.md of the reference, and results/README.md, which joins them: python -m results.make_page"""

import json
from pathlib import Path

from results import gan, simsiam, vae
from results.pages import make_table, report

FOLDER = Path(__file__).parent
REFERENCE = FOLDER / "reference"
WORDS = {"q1_vae": vae, "q1_vae_200": vae, "q2_gan": gan, "q3_simsiam": simsiam}


def reference_metrics() -> dict[str, dict]:
    """Return what the committed runs measured, by script."""
    paths = {name: REFERENCE / name / "metrics.json" for name in WORDS}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def page() -> str:
    """Return results/README.md: what was run, every verdict, and the answer to each question with its figures."""
    runs, verdicts, answers = [["problem", "data", "device", "time, summed over runs", "report"]], [], []
    for name, metrics in reference_metrics().items():
        words, number = WORDS[name], name[1]
        time = f"{metrics['seconds'] / 60:.0f} min"
        runs.append([number, metrics["data"], metrics["device"], time, f"[{name}](reference/{name}/report.md)"])
        header, *rows = words.closing_table(metrics)
        text = words.answers(metrics)
        if name == "q1_vae_200":  # it adds to the recipe's answers, and has no claims of the original to decide
            rows, text = [], words.beyond(metrics)
        verdicts += [[number, *row] for row in rows]
        answers.append(text.replace("](", f"](reference/{name}/"))
    joined = "\n".join(answers)
    return f"""# Results

What was run; each problem's own report has its recipe. The answers follow, by the assignment's numbers; questions that
ask for code alone are answered in the scripts.

{make_table(runs)}

Ours beside the original's, each with this project's criterion for it; "-" where there is none.
Problem 1: nats per image, mean and standard deviation (SD) over seeds, or standard error (SE). Problem 2: means over
independent sets of noise with their standard errors; a claim is supported or contradicted beyond three of them.

{make_table([["problem", *header], *verdicts])}

{joined}"""


if __name__ == "__main__":
    for name, metrics in reference_metrics().items():
        (REFERENCE / name / "report.md").write_text(report(WORDS[name], metrics), encoding="utf-8")
    (FOLDER / "README.md").write_text(page(), encoding="utf-8")
