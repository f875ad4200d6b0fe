"""Measured runs as a table for notebooks."""

from collections.abc import Mapping

import pandas as pd

from ..experiment import Measurement, Setting


def frame(measured: Mapping[str, Measurement], setting: Setting, metrics: list[str] | None = None) -> pd.DataFrame:
    """One row a run: its role, the chosen metrics (all of the setting's that it has by default), queries and seconds."""
    rows = {}
    for name, run in measured.items():
        chosen = metrics or [metric for metric in {**setting.utility_metrics, **setting.metrics} if metric in run.metrics]
        numbers = {metric: run.metrics[metric] for metric in chosen if metric in run.metrics}
        rows[name.replace("_", " ")] = {"role": run.role, **numbers, "queries": run.queries, "seconds": round(run.seconds, 1)}
    return pd.DataFrame.from_dict(rows, orient="index").round(3)
