"""What the reports of the three problems share: tables, the frame of a page, the end of a run. No torch is needed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from types import ModuleType


def standard_error(values: list[float]) -> float:
    """Return the standard error of the mean of independent values; 0 for a single one."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def mean_error(values: list[float]) -> str:
    """Return the mean and, of several values, its standard error, to that error's precision."""
    mean, error = fmean(values), standard_error(values)
    if not error:
        return f"{mean:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def decide(values: list[float], sign: str, limit: float) -> str:
    """Return whether the mean lies three standard errors beyond `limit`, on the side that `sign` ("<", ">") names."""
    if len(values) < 5:  # of fewer, three standard errors are too often exceeded by chance
        return "not decided"
    excess = (fmean(values) - limit) * (1 if sign == ">" else -1)
    margin = 3 * standard_error(values)
    return "supported" if excess > margin else "contradicted" if excess < -margin else "not decided"


def make_table(rows: list[list]) -> str:
    """Return a table with aligned columns, the first row its header; floats with four decimals, truth as yes and no."""

    def text(cell: object) -> str:
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        return f"{cell:.4f}" if isinstance(cell, float) else str(cell)

    cells = [[text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in cells
    )


def report(words: ModuleType, metrics: dict) -> str:
    """Return the page of one problem: what was run, the closing table, the answers."""
    made_by = f"`{metrics['command']}`" if "command" in metrics else "not recorded"
    commit = f", trained at commit {metrics['commit']}" if "commit" in metrics else ""
    return f"""# {words.TITLE}

- Data: {metrics["data"]}.
- Recipe: {words.recipe(metrics)}.
- Command: {made_by}{commit}.
- Device: {metrics["device"]}, torch {metrics["versions"]["torch"]}.
- Time: {metrics["seconds"] / 60:.0f} minutes, summed over runs.

{make_table(words.closing_table(metrics))}

{words.answers(metrics)}"""


def redraw(out: Path, draw_curves: Callable[[dict, Path], None], words: ModuleType) -> None:
    """Do what `publish` does where there is no finished training to evaluate, and say so."""
    print(f"{out} holds no finished training; metrics.json alone can give the curves", flush=True)
    publish(out, draw_curves, words)


def publish(out: Path, draw_curves: Callable[[dict, Path], None], words: ModuleType) -> None:
    """Draw the figures that need `out`/metrics.json alone, write report.md and end with the closing table.

    Raises OSError where there is no metrics.json to draw from.
    """
    try:
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        if not metrics.keys() >= {"config", "history", "results"}:
            raise ValueError
    except (OSError, ValueError, AttributeError) as error:
        raise OSError(f"{out} holds neither a finished training nor an intact metrics.json to draw from") from error
    draw_curves(metrics, out)
    (out / "report.md").write_text(report(words, metrics), encoding="utf-8")
    print(f"{make_table(words.closing_table(metrics))}\nfigures, metrics.json and report.md are in {out}")
