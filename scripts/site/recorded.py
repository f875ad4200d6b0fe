"""The one reader of recorded results and pictures: plain JSON and PNG heads, without importing torch."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1
REQUIRED = dict.fromkeys(("paper", "setting", "runs", "claims", "seeds", "toy"), object)  # of a result
STANDING = {"terms": dict, "tracks": dict, "code_hash": str}  # of a record of the leaderboard


def read_record(path: Path, what: str, target: str, required: Mapping[str, type]) -> dict[str, Any]:
    """A JSON file that `make <target>` wrote. Raises ValueError naming the file, the fault and that remedy."""
    again = f"record it again with make {target} ID={path.stem}"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); {again}") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or record.get("paper") != path.stem:
        raise ValueError(f"{path}: not a {what} of {path.stem} in schema {SCHEMA}; {again}")
    if missing := [key for key, kind in required.items() if key not in record or not isinstance(record[key], kind)]:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; {again}")
    return record


def read_result(path: Path) -> dict[str, Any]:
    """One docs/results/<id>.json. Raises ValueError naming the file where it is no result."""
    return read_record(path, "result", "results", REQUIRED)


def read_standing(path: Path) -> dict[str, Any]:
    """One docs/results/leaderboard/<id>.json. Raises ValueError naming the file where it is no record of the leaderboard."""
    return read_record(path, "leaderboard's record", "leaderboard", STANDING)


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Every docs/results/<id>.json by id. Raises ValueError naming the file for one that is no result."""
    return {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}


def read_leaderboard(folder: Path) -> dict[str, dict[str, Any]]:
    """Every docs/results/leaderboard/<id>.json by id. Raises ValueError naming the file for one that is no such record."""
    return {path.stem: read_standing(path) for path in sorted((folder / "leaderboard").glob("*.json"))}


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
