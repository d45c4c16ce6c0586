"""What the tests of the three scripts share."""

import json


def read_metrics(out):
    """metrics.json in folder `out`, without the times and the command, which names the folder."""
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"), object_pairs_hook=without_seconds)
    del metrics["command"]
    return metrics


def without_seconds(pairs):
    return {key: value for key, value in pairs if key != "seconds"}
