"""Write every report.md of the reference, and results/README.md, which joins them: python -m results.make_page"""

import json

import utils
from results import gan, simsiam, vae
from results.pages import FOLDER, fill, make_table, places_of, report, verdicts

REFERENCE = FOLDER / "reference"
SCRIPTS = {"q1_vae": vae, "q2_gan": gan, "q3_simsiam": simsiam}
WORDS = SCRIPTS | {"q1_vae_200": vae, "q2_hour": gan, "q3_hour": simsiam}  # with runs of other recipes


def reference_metrics() -> dict[str, dict]:
    """Return what the committed runs measured, by name."""
    return {name: json.loads((REFERENCE / name / "metrics.json").read_text(encoding="utf-8")) for name in WORDS}


def page() -> str:
    """Return results/README.md: every verdict, the original's figures, what else was found, how it was measured."""
    metrics = reference_metrics()
    rows, runs = [], [["run", "data", "device", "time, all jobs together"]]
    for name, numbers in metrics.items():
        minutes = f"{numbers['seconds'] / 60:,.0f} min"
        runs.append([f"[{name}](reference/{name}/report.md)", numbers["data"], numbers["device"], minutes])
        if name in SCRIPTS:
            header, *claims = verdicts(WORDS[name], numbers)
            rows += claims
    places = {"verdicts": make_table([header, *rows]), "runs": make_table(runs)}
    for place, name in (("vae", "q1_vae"), ("long", "q1_vae_200"), ("gan", "q2_gan"), ("simsiam", "q3_simsiam")):
        places[place] = places_of(WORDS[name], metrics[name])
    return fill("page", places)


if __name__ == "__main__":
    for name, metrics in reference_metrics().items():
        utils.write(REFERENCE / name / "report.md", report(WORDS[name], metrics))
    utils.write(FOLDER / "README.md", page())
