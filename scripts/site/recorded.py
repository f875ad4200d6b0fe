"""The one reader of recorded results and pictures: plain JSON and PNG heads, without importing torch."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1
REQUIRED = ("paper", "setting", "runs", "claims", "seeds", "toy")


def read_result(path: Path) -> dict[str, Any]:
    """One docs/results/<id>.json. Raises ValueError naming the file where it is no result."""
    again = f"record it again with make results ID={path.stem}"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); {again}") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or result.get("paper") != path.stem:
        raise ValueError(f"{path}: not a result of {path.stem} in schema {SCHEMA}; {again}")
    if missing := [key for key in REQUIRED if key not in result]:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; {again}")
    return result


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Every docs/results/<id>.json by id. Raises ValueError naming the file for one that is no result."""
    return {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}


def read_leaderboard(folder: Path) -> dict[str, dict[str, Any]]:
    """Every docs/results/leaderboard/<id>.json by id. Raises ValueError naming the file for one that is no such record."""
    found = {}
    for path in sorted((folder / "leaderboard").glob("*.json")):
        again = f"record it again with make leaderboard ID={path.stem}"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON ({error}); {again}") from error
        if not isinstance(record, dict) or record.get("paper") != path.stem or not isinstance(record.get("tracks"), dict):
            raise ValueError(f"{path}: not a record of {path.stem} in the leaderboard; {again}")
        found[path.stem] = record
    return found


def read_pictures(folder: Path) -> dict[str, tuple[int, int]]:
    """Width and height of every docs/results/<id>.png by id."""
    found = {}
    for path in sorted(folder.glob("*.png")):
        with path.open("rb") as file:
            head = file.read(24)
        if head[:8] != b"\x89PNG\r\n\x1a\n":
            raise ValueError(f"{path}: not a PNG picture")
        found[path.stem] = struct.unpack(">II", head[16:24])
    return found


def verdicts(result: Mapping[str, Any] | None) -> tuple[int, int]:
    """How many claims were reproduced, and how many were checked."""
    claims = (result or {}).get("claims", {})
    return sum(bool(claim["reproduced"]) for claim in claims.values()), len(claims)


def metric_help(result: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """What is known of a metric; `gmi.accuracy_top1` is the metric accuracy_top1 of the attack gmi on a defended target."""
    return result.get("metrics_help", {}).get(metric.rpartition(".")[2], {})


def metric_names(result: Mapping[str, Any]) -> list[str]:
    """All metrics of all runs: headline first, then those that the setting explains in its order, then the rest; no notes."""
    headline, explained = result.get("headline", ""), list(result.get("metrics_help", {}))
    names: dict[str, None] = {}
    for run in result["runs"].values():
        names |= dict.fromkeys(run["metrics"])

    def place(metric: str) -> tuple[int, int]:
        last = metric.rpartition(".")[2]
        return (0, 0) if last == headline else (1, explained.index(last)) if last in explained else (2, 0)

    return sorted((name for name in names if not is_note(name)), key=place)


def is_note(metric: str) -> bool:
    """Whether a number is a remark of the method on its own run (restarts, seconds of training) and no metric."""
    return metric.rpartition(".")[2].startswith("note_")
