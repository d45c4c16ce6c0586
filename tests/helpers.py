"""What the tests of the three scripts share."""

import json


def read_metrics(out):
    """metrics.json in folder `out`, without the times and the command, which names the folder."""
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    del metrics["seconds"], metrics["command"]
    for history in metrics["history"].values():
        history.pop("seconds", None)
    return metrics
