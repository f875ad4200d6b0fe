"""Recorded results: measured over seeds, written atomically to docs/results/<id>.json, read by one function.

`python -m implementations.results gmi` (that is `make results ID=gmi`) measures and records; `--stale` does so for every
result whose code changed.
"""

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from scripts.site.recorded import SCHEMA, read_result

from .common.cache import describe, write_atomically
from .common.progress import console, progress
from .common.provenance import ROOT, code_hash, commit, versions
from .experiment import Experiment, Measurement, Metric, Setting, run_experiment
from .registry import experiments, find, modules

RESULTS = ROOT / "docs" / "results"
SEEDS = (0, 1, 2)


def experiment_hash(paper: str) -> str:
    """Hash of all code that can move this paper's numbers: its module, and those of the papers it is measured with."""
    found = find(paper)
    others = {run.paper for run in found.references.values()} | set(found.against)
    names = [modules()[name] for name in sorted({paper, *others})]
    return hashlib.sha256("".join(code_hash(name) for name in names).encode()).hexdigest()[:16]


def measure_seeds(experiment: Experiment, setting: Setting, seeds: Sequence[int] = SEEDS) -> list[dict[str, Measurement]]:
    """All runs of an experiment, once a seed. The setting, and so the target, stays the same: seeds are the method's."""
    return [
        run_experiment(
            experiment,
            setting,
            dataclasses.replace(experiment.config, seed=seed),
            watch=lambda names, seed=seed: progress(names, f"{experiment.paper}, seed {seed}"),
        )
        for seed in seeds
    ]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, mean and standard deviation over seeds, with the values themselves."""
    return {
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "values": list(values),
    }


def summary(repeats: Sequence[Measurement], metrics: Iterable[str]) -> dict[str, Any]:
    """The named metrics of one run with their spread over seeds, median queries and seconds, the peak of memory."""
    return {
        "metrics": {metric: spread([repeat.metrics[metric] for repeat in repeats]) for metric in metrics},
        "queries": statistics.median(repeat.queries for repeat in repeats),
        "seconds": round(statistics.median(repeat.seconds for repeat in repeats), 2),
        "peak_memory_mb": round(max(repeat.peak_memory_mb for repeat in repeats), 1),
    }


def explained(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """What each metric means, as plain data."""
    return {name: dataclasses.asdict(metric) for name, metric in metrics.items()}


def origin(device: torch.device, code: str) -> dict[str, Any]:
    """Where and when numbers were measured, and with which code (its hash)."""
    return {
        "device": device_name(device),
        "versions": versions(),
        "commit": commit(),
        "code_hash": code,
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """A record as JSON, written atomically. Raises ValueError for a number that is not finite."""
    write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def result_of(
    experiment: Experiment, setting: Setting, measured: Sequence[dict[str, Measurement]], seeds: Sequence[int]
) -> dict[str, Any]:
    """The result as plain JSON data. A claim's verdict is taken on the medians; `seeds_holding` counts single seeds."""
    runs = {}
    for name, first in measured[0].items():
        repeats = [one[name] for one in measured]
        runs[name] = {
            "role": first.role,
            "says": first.says,
            **summary(repeats, first.metrics),
            "reads": list(first.reads),
            "config": first.config,
        }
    medians = {name: {metric: s["median"] for metric, s in run["metrics"].items()} for name, run in runs.items()}
    singles = [{name: one.metrics for name, one in seed.items()} for seed in measured]
    claims = {
        name: {
            "reproduced": claim.holds(medians),
            "ablation": claim.ablation,
            "ablation_fails": not claim.holds(medians, of=claim.ablation),
            "run": claim.run,
            "seeds_holding": sum(claim.holds(single) for single in singles),
            "reason": claim.not_reproduced,
        }
        for name, claim in experiment.claims.items()
    }
    return {
        "schema": SCHEMA,
        "paper": experiment.paper,
        "setting": setting.name,
        "preset": setting.config.preset,
        "toy": setting.config.preset == "quick",
        "config": describe(experiment.config),
        "setting_config": describe(setting.config) | {"folder": ""},
        "seeds": list(seeds),
        "runs": runs,
        "claims": claims,
        "headline": setting.headline,
        "metrics_help": explained({**setting.utility_metrics, **setting.metrics}),
        "samples": setting.samples(shown(experiment, measured[0])),
        **origin(setting.device, experiment_hash(experiment.paper)),
    }


def shown(experiment: Experiment, runs: dict[str, Measurement]) -> dict[str, Any]:
    """The reconstructions worth a picture: baselines first, then the method and all else that gave one."""
    return {name: run.reconstruction for name, run in runs.items() if run.reconstruction is not None}


def device_name(device: torch.device) -> str:
    """The processor in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {os.cpu_count()} cores, {platform.machine()}"


def picture(setting: Setting, reconstructions: dict[str, Any]) -> bytes:
    """The setting's figure as a PNG."""
    return as_png(setting.figure(reconstructions))


def tradeoff_picture(experiment: Experiment, setting: Setting, measured: Sequence[dict[str, Measurement]]) -> bytes:
    """For a defense: utility against what the first attack recovers, medians over seeds."""
    from .common.plots import tradeoff

    utility = next(iter(setting.utility_metrics))
    leak = f"{experiment.against[0]}.{setting.headline}"
    points = {
        name: tuple(statistics.median(one[name].metrics[metric] for one in measured) for metric in (utility, leak))
        for name in measured[0]
    }
    label = f"{setting.headline.replace('_', ' ')} of {experiment.against[0]}"
    return as_png(tradeoff(points, utility.replace("_", " "), label))


def as_png(drawn: Any) -> bytes:
    """A figure as the bytes of a PNG; the figure is closed."""
    from matplotlib import pyplot as plt

    buffer = BytesIO()
    drawn.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    plt.close(drawn)
    return buffer.getvalue()


def record(paper: str, seeds: Sequence[int] = SEEDS, device: str = "cpu") -> dict[str, Any]:
    """Measures, then writes docs/results/<id>.json and <id>.png. Nothing is written unless all runs ended."""
    experiment = find(paper)
    setting = experiment.build_setting(device)
    measured = measure_seeds(experiment, setting, seeds)
    result = result_of(experiment, setting, measured, seeds)
    if experiment.defend is not None:
        image = tradeoff_picture(experiment, setting, measured)
    else:
        image = picture(setting, shown(experiment, measured[0]))
    write_atomically(RESULTS / f"{paper}.png", image)
    write_record(RESULTS / f"{paper}.json", result)
    return result


def load_result(paper: str, folder: Path | None = None) -> dict[str, Any] | None:
    """A recorded result, or None where there is none. Raises ValueError for a file that is not one."""
    path = (folder or RESULTS) / f"{paper}.json"
    return read_result(path) if path.exists() else None


def stale(paper: str) -> str:
    """Why a paper's result must be recorded again, or an empty text."""
    result = load_result(paper)
    if result is None:
        return "never recorded"
    if result["code_hash"] != experiment_hash(paper):
        return "the code that it depends on changed"
    return "" if (RESULTS / f"{paper}.png").exists() else "its picture is missing"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m implementations.results", description="Measure and record results.")
    parser.add_argument("papers", nargs="*", help="ids; none means all that are stale")
    parser.add_argument("--check", action="store_true", help="only say which are stale; exit 1 if any is")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args(words)
    reasons = {paper: stale(paper) for paper in (options.papers or experiments())}
    if options.check:
        for paper, reason in reasons.items():
            if reason:
                print(f"docs/results/{paper}.json: {reason}; run make results ID={paper}")
        return int(any(reasons.values()))
    for paper in options.papers or [paper for paper, reason in reasons.items() if reason]:
        result = record(paper, options.seeds, options.device)
        for name, claim in result["claims"].items():
            verdict = "reproduced" if claim["reproduced"] else "NOT reproduced"
            fails = "" if claim["ablation_fails"] else f"; BUT its ablation {claim['ablation']} passes too"
            console.print(f"{paper}: {name}: {verdict} ({claim['seeds_holding']}/{len(options.seeds)} seeds){fails}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
