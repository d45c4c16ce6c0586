"""What the pages of the three problems share: verdicts, tables, templates."""

import math
from pathlib import Path
from statistics import fmean, stdev
from types import ModuleType
from typing import NamedTuple

from scipy.stats import t

import utils

FOLDER = Path(__file__).parent


class Claim(NamedTuple):
    """What the original says, and what decides it: a quantity by its name, and what `decide` compares it with."""

    question: str
    original: str
    quantity: str
    comparison: str
    limit: float | tuple[float, float, float]


def standard_error(values: list[float]) -> float:
    """Return the standard error of the mean of independent values; 0 for a single one."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def prediction_error(values: list[float]) -> float:
    """Return the half-width of the 95% prediction interval of one more value: t(n - 1) SD sqrt(1 + 1 / n)."""
    n = len(values)
    return float(t.ppf(0.975, n - 1)) * stdev(values) * math.sqrt(1 + 1 / n) if n > 1 else 0.0


def decide(values: list[float], comparison: str, limit: float | tuple[float, float, float]) -> str:
    """Return whether values support a claim: "supported", "contradicted" or "not decided".

    "<", ">", "within": the mean of at least five lies three standard errors below, above, or within `limit` of 0.
    "<=": each, of a training of its own, is at most `limit`. "predicts": the 95% prediction interval of at least three
    trainings meets low to high, and its half-width is at most the third number of `limit`.
    """
    if comparison == "<=":
        return "supported" if max(values) <= limit else "contradicted"
    mean = fmean(values)
    if comparison == "predicts":
        low, high, widest = limit
        error = prediction_error(values)
        if len(values) < 3:
            return "not decided"
        if not low - error <= mean <= high + error:
            return "contradicted"
        return "supported" if error <= widest else "not decided"
    if len(values) < 5:  # of fewer, three standard errors are too often exceeded by chance
        return "not decided"
    room = {"<": limit - mean, ">": mean - limit, "within": limit - abs(mean)}[comparison]
    margin = 3 * standard_error(values)
    return "supported" if room > margin else "contradicted" if room < -margin else "not decided"


def criterion(claim: Claim) -> str:
    """Return in words what `decide` asks for."""
    if claim.comparison == "within":
        return f"within {claim.limit} of 0"
    if claim.comparison == "predicts":
        low, high, widest = claim.limit
        if low == high:
            return f"{low} in the interval"
        return f"interval meets {low} to {high}, its half-width at most {widest}"
    return f"{claim.comparison} {claim.limit}"


def measured(values: list[float], comparison: str) -> str:
    """Return the mean with what `decide` takes: its standard error, or the prediction interval of one more training."""
    error = prediction_error(values)
    if comparison != "predicts" or not error:
        return mean_error(values)
    mean, digits = fmean(values), digits_of(error)
    return f"{mean:.{digits}f} [{mean - error:.{digits}f}, {mean + error:.{digits}f}]"


def digits_of(error: float) -> int:
    """Return how many decimals show two digits of an error."""
    return max(0, 1 - math.floor(math.log10(error)))


def mean_error(values: list[float]) -> str:
    """Return the mean and its standard error, to two digits of that error; without one, to four digits."""
    mean, error = fmean(values), standard_error(values)
    return f"{mean:.{digits_of(error)}f} ± {error:.{digits_of(error)}f}" if error else f"{mean:.4g}"


def shown(key: str, value: float) -> str:
    """Return a value of the recipe in words."""
    if key.endswith("_images") and not value:
        return "all"
    return f"{value:,}" if isinstance(value, int) else str(value)


def objection(metrics: dict, sources: list[str], recipe: dict) -> str:
    """Return in a sentence why a run decides nothing: it has not the original's data or recipe; "" where it has."""
    if metrics["data"] not in sources:
        return f"No verdict: the data are {metrics['data']}."
    other = []
    for key, value in recipe.items():
        ours = metrics["config"][key]
        if ours != value:
            other.append(f"{key.replace('_', ' ')} {shown(key, ours)}, not {shown(key, value)}")
    return f"No verdict: the recipe is not the original's ({'; '.join(other)})." if other else ""


def verdicts(words: ModuleType, metrics: dict) -> list[list[str]]:
    """Return the closing table: a row for each claim, with its quantity and a verdict as far as there are any."""
    rows = [["question", "the original", "quantity", "ours", "criterion", "verdict"]]
    quantities, objection = words.quantities(metrics), words.objection(metrics)
    for claim in words.CLAIMS:
        ours, verdict = "not measured", "open"
        if values := quantities.get(claim.quantity):
            ours = measured(values, claim.comparison)
            verdict = "open" if objection else decide(values, claim.comparison, claim.limit)
        rows.append([claim.question, claim.original, claim.quantity, ours, criterion(claim), verdict])
    return rows


def make_table(rows: list[list]) -> str:
    """Return a table in Markdown with aligned columns, the first row its header; floats with four decimals."""
    cells = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in cells
    )


def fill(template: str, places: dict) -> str:
    """Return results/<template>.md with its places filled."""
    return (FOLDER / f"{template}.md").read_text(encoding="utf-8").format(**places)


def origin(words: ModuleType, metrics: dict) -> str:
    """Return what was run: data, recipe, command, device, time."""
    recipe = ", ".join(f"{key.replace('_', ' ')} {shown(key, metrics['config'][key])}" for key in words.RECIPE)
    commit = f", trained at commit {metrics['commit']}" if "commit" in metrics else ""
    return f"""- Data: {metrics["data"]}.
- Recipe: {recipe}; all of it is in metrics.json.
- Command: `{metrics.get("command", "not recorded")}`{commit}.
- Device: {metrics["device"]}; measured with torch {metrics["versions"]["torch"]}.
- Time: {metrics["seconds"] / 60:,.0f} min, all jobs together."""


def places_of(words: ModuleType, metrics: dict) -> dict:
    """Return what a template may name: the run's `config` and `results`, and what `words` make of them."""
    return {"config": metrics["config"], "results": metrics["results"]} | words.places(metrics)


def report(words: ModuleType, metrics: dict) -> str:
    """Return the page of one problem."""
    places = {"origin": origin(words, metrics), "verdicts": make_table(verdicts(words, metrics))}
    return fill(words.TEMPLATE, places | {"objection": words.objection(metrics)} | places_of(words, metrics))


def publish(metrics: dict, out: Path, words: ModuleType) -> None:
    """Draw the figures that need the metrics alone, write report.md and end with the closing table."""
    words.draw_curves(metrics, out)
    utils.write(out / "report.md", report(words, metrics))
    print(make_table(verdicts(words, metrics)))
    if objection := words.objection(metrics):
        print(objection)
    print(f"figures, metrics.json and report.md are in {out}")
