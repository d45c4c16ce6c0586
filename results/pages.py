"""What the pages of the three problems share: verdicts, tables, templates."""

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev
from types import ModuleType
from typing import NamedTuple

from scipy.stats import t

import utils
from results import runs

FOLDER = Path(__file__).parent
INTERVALS = ("<", ">", "><", "close", "compatible")  # rules that compare an interval of the mean with a limit


class Claim(NamedTuple):
    """What the original says, and what decides it.

    keys: the quantities that are compared with the limit, `quantity` in words; `here` shows them, the first in {0}, and
    after them those of `beside`, which decide nothing. rule: as in `decide`, or "" where nothing decides. fewest:
    trainings that decide. number: the original's, where it gives one.
    """

    question: str
    original: str
    quantity: str
    keys: list[str]
    rule: str = ""
    limit: object = None
    here: str = "{0}"
    fewest: int = 3
    number: float | None = None
    beside: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What was measured for a claim, in numbers (a list for each key, a number for each training) and in words.

    There are no columns where one of the keys is not measured.
    """

    claim: Claim
    columns: list[list[float]]
    here: str
    trainings: int
    verdict: str


def standard_error(values: list[float]) -> float:
    """Return the standard error of the mean of independent values; 0 for a single one."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def confidence_error(values: list[float]) -> float:
    """Return the half-width of the 95% confidence interval of the mean: t(n - 1) SD / sqrt(n); 0 for a single value."""
    return float(t.ppf(0.975, len(values) - 1)) * standard_error(values) if len(values) > 1 else 0.0


def prediction_error(values: list[float]) -> float:
    """Return the half-width of the 95% prediction interval of one more value: t(n - 1) SD sqrt(1 + 1 / n)."""
    return confidence_error(values) * math.sqrt(len(values) + 1)


def decide(claim: Claim, columns: list[list[float]]) -> str:
    """Return the verdict on a claim: a column for each of its keys, with a number for each training.

    "<", ">": the 95% confidence interval of each column's mean lies beyond the limit, or each on the other side. "><":
    that of the first lies above the limit and that of the second below it, or one of them on its other side. "close":
    the mean, with three standard errors, lies within the limit of 0. "compatible": the 95% prediction interval of one
    more training meets low to high of the limit, and its half-width is at most the third number; without a limit, it
    holds the original's number. "every": in every training the numbers are at most the limits, one for each column.
    "above": every number of the first column lies above all of the second. Fewer trainings than `fewest` decide
    nothing.
    """
    if count_trainings(claim, columns) < claim.fewest:
        return "undecided"
    if claim.rule in ("every", "above"):
        if claim.rule == "above":
            holds = {number > max(columns[1]) for number in columns[0]}
        else:
            rows = zip(*columns, strict=True)
            holds = {all(number <= limit for number, limit in zip(row, claim.limit, strict=True)) for row in rows}
        return "undecided" if len(holds) > 1 else "reproduced" if holds.pop() else "not reproduced"
    if claim.rule == "compatible":
        low, high, widest = claim.limit or (claim.number, claim.number, math.inf)
        mean, error = fmean(columns[0]), error_of(claim.rule, columns[0])
        if not low - error <= mean <= high + error:
            return "not compatible"
        return "compatible" if error <= widest else "undecided"
    if claim.rule == "><":
        sides = {side(rule, claim.limit, values) for rule, values in zip(claim.rule, columns, strict=True)}
        if "not reproduced" in sides:
            return "not reproduced"
    else:
        sides = {side(claim.rule, claim.limit, values) for values in columns}
    return sides.pop() if len(sides) == 1 else "undecided"


def count_trainings(claim: Claim, columns: list[list[float]]) -> int:
    """Return of how many trainings every quantity is there; what is "above" is compared with one number."""
    return len(columns[0]) if claim.rule == "above" else min(map(len, columns))


def side(rule: str, limit: float, values: list[float]) -> str:
    """Return on which side of the limit the mean of `values` lies with its error."""
    mean, error = fmean(values), error_of(rule, values)
    room = {"<": limit - mean, ">": mean - limit, "close": limit - abs(mean)}[rule]
    return "reproduced" if room > error else "not reproduced" if room < -error else "undecided"


def error_of(rule: str, values: list[float]) -> float:
    """Return the error that `rule` takes."""
    if rule == "close":
        return 3 * standard_error(values)
    return prediction_error(values) if rule == "compatible" else confidence_error(values)


def criterion(claim: Claim) -> str:
    """Return in words what `decide` asks for."""
    if claim.rule == "close":
        return f"within {claim.limit} of 0"
    if claim.rule == "compatible":
        if not claim.limit:
            return f"{claim.number} in the interval"
        low, high, widest = claim.limit
        return f"interval meets {low} to {high}, its half-width at most {widest}"
    if claim.rule == "every":
        return "at most " + " and ".join(map(str, claim.limit)) + " in every training"
    if claim.rule == "above":
        return "every training above all of them"
    if claim.rule == "><":
        return f"first > {claim.limit}, second < {claim.limit}"
    both = "both " if len(claim.keys) > 1 else ""
    return f"{both}{claim.rule} {claim.limit}" if claim.rule else "-"


def show(rule: str, values: list[float]) -> str:
    """Return the mean with what `decide` takes: the prediction interval in brackets, or an error after ±.

    Of "above" the smallest, of "every" the mean alone.
    """
    if not values:
        return "not measured"
    mean, error = fmean(values), error_of(rule, values)
    if rule in ("every", "above"):
        return f"{min(values) if rule == 'above' else mean:#.3g}"
    if rule == "compatible" and error:
        digits = digits_of(error)
        return f"{mean:.{digits}f} [{mean - error:.{digits}f}, {mean + error:.{digits}f}]"
    return with_error(mean, error)


def with_error(mean: float, error: float) -> str:
    """Return a number and its error, to two digits of that error; without one, two decimals, three digits below 1."""
    if not error:
        return f"{mean:.2f}" if abs(mean) >= 1 else f"{mean:#.3g}"
    return f"{mean:.{digits_of(error)}f} ± {error:.{digits_of(error)}f}"


def mean_error(values: list[float]) -> str:
    """Return the mean of values of independent trainings with the error of its 95% confidence interval."""
    return with_error(fmean(values), confidence_error(values)) if values else "not measured"


def digits_of(error: float) -> int:
    """Return how many decimals show two digits of an error."""
    return max(0, 1 - math.floor(math.log10(error)))


def in_words(key: str, value: float) -> str:
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
            other.append(f"{key.replace('_', ' ')} {in_words(key, ours)}, not {in_words(key, value)}")
    return f"No verdict: the recipe is not the original's ({'; '.join(other)})." if other else ""


def verdicts(problem: ModuleType, metrics: dict) -> list[Verdict]:
    """Return what was measured for each claim, and the verdict; "-" where nothing decides."""
    rows, quantities, objection = [], problem.quantities(metrics), problem.objection(metrics)
    for claim in problem.CLAIMS:
        decides = claim.rule and not objection
        columns, beside = ([quantities.get(key, []) for key in keys] for keys in (claim.keys, claim.beside))
        if not all(columns):
            rows.append(Verdict(claim, [], "not measured", 0, "undecided" if decides else "-"))
            continue
        here = claim.here.format(*(show(claim.rule, values) for values in (*columns, *beside)))
        verdict = decide(claim, columns) if decides else "-"
        rows.append(Verdict(claim, columns, here, count_trainings(claim, columns), verdict))
    return rows


def make_table(rows: list[list]) -> str:
    """Return a table in Markdown with aligned columns, the first row its header; floats with four decimals."""
    cells = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in cells
    )


def claims_table(rows: list[Verdict]) -> str:
    """Return what the original says, what was measured here, and the verdict."""
    header = ["question", "the original", "here", "trainings", "verdict"]
    return make_table([header, *([r.claim.question, r.claim.original, r.here, r.trainings, r.verdict] for r in rows)])


def criteria_table(rows: list[Verdict]) -> str:
    """Return by what each claim is decided."""
    header = ["question", "the original", "quantity", "criterion"]
    return make_table(
        [header, *([r.claim.question, r.claim.original, r.claim.quantity, criterion(r.claim)] for r in rows)]
    )


def closing_table(problem: ModuleType, metrics: dict) -> str:
    """Return the claims with their verdicts; of a run that decides nothing its own numbers."""
    if problem.objection(metrics):
        return make_table([["measured", "here"], *problem.summary(metrics)])
    return claims_table(verdicts(problem, metrics))


def mark(axes, height: float, name: str, **style) -> None:
    """Draw a horizontal line with its name above its right end."""
    axes.axhline(height, **style)
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(name, (0.99, height), (0, 2), **place, ha="right", va="bottom", fontsize=7)


def render(template: str, context: dict) -> str:
    """Return results/<template>.md with the names in braces replaced."""
    return (FOLDER / f"{template}.md").read_text(encoding="utf-8").format(**context)


def origin(problem: ModuleType, metrics: dict) -> str:
    """Return what was run: data, recipe, command, device, time."""
    recipe = ", ".join(f"{key.replace('_', ' ')} {in_words(key, metrics['config'][key])}" for key in problem.RECIPE)
    commit = f", trained at commit {metrics['commit']}" if "commit" in metrics else ""
    measured = f"; measured by `{metrics['measured_by']}`" if "measured_by" in metrics else ""
    torch = f"trained with torch {metrics['torch']}, " if "torch" in metrics else ""
    return f"""- Data: {metrics["data"]}.
- Recipe: {recipe}; all of it is in metrics.json.
- Command: `{metrics.get("command", "not recorded")}`{commit}{measured}.
- Device: {metrics["device"]}; {torch}measured with torch {metrics["versions"]["torch"]}.
- Time: {metrics["seconds"] / 60:,.0f} min, trainings and measuring together.{metrics.get("note", "")}"""


def report(problem: ModuleType, metrics: dict) -> str:
    """Return the page of one problem."""
    context = {"origin": origin(problem, metrics), "closing": closing_table(problem, metrics)}
    objection = problem.objection(metrics)
    context["objection"] = f"\n{objection}\n" if objection else ""
    context["criteria"] = criteria_table(verdicts(problem, metrics))
    context |= {"config": metrics["config"], "results": metrics["results"]}
    return render(problem.TEMPLATE, context | problem.context(metrics))


def redraw(out: Path, script: str, problem: ModuleType) -> None:
    """Draw curves and page again from OUT/metrics.json; InputError if it lacks what is drawn."""
    metrics = runs.read_metrics(out, script)
    try:
        publish(metrics, out, problem)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        text = f"{out / 'metrics.json'} was made by an earlier version, without what is drawn now ({error})"
        raise utils.InputError(f"{text}; the same command without --figures-only makes it anew") from error


@utils.default_style()
def publish(metrics: dict, out: Path, problem: ModuleType, images: Iterable[str] = ()) -> None:
    """Draw the figures that need the metrics alone, write report.md and end with the closing table.

    images: the names of the figures that were drawn before.
    """
    page = report(problem, metrics)
    for name, draw in problem.FIGURES.items():
        draw(metrics, out / name)
    utils.write(out / "report.md", page)
    print(closing_table(problem, metrics))
    if objection := problem.objection(metrics):
        print(objection)
    print(f"{', '.join([*images, *problem.FIGURES])}, metrics.json and report.md are in {out}")
