"""One leaderboard on equal terms: every attack that can meet the standard scenario of `classifier`, with the same victims.

A recorded result (docs/results/<id>.json) shows a paper in the scenario that its claims are about, with as many
reconstructions as they need. Here claims do not count: all attacks meet the same targets with the same public pictures, give
the same number of reconstructions of each class, all of them evaluated, and are measured with the same seeds, on three tracks.
Whatever else a method has to set is as in its recorded result, chosen on faces; nobody tuned for the other tracks.

`python -m implementations.leaderboard gmi` (that is `make leaderboard ID=gmi`) measures and records one paper in
docs/results/leaderboard/<id>.json; without ids, all whose code changed.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from scripts.site.recorded import SCHEMA, is_note, read_standing

from .classifier.setting import ClassifierConfig, ClassifierSetting
from .common.progress import console, progress
from .common.provenance import ROOT, code_hash
from .experiment import Experiment, Measurement, Reconstruction, run_attack, run_baseline
from .registry import experiments, find, modules
from .results import SEEDS, explained, origin, summary, write_record

FOLDER = ROOT / "docs" / "results" / "leaderboard"
BASELINES = "baselines"  # name of the record of what can be had without an attack
PER_CLASS = 2  # reconstructions of each class
TRACKS: dict[str, dict[str, Any]] = {  # SettingConfig fields that differ from the standard scenario
    "faces": {},
    "shifted": {"public_domain": "shifted"},
    "digits": {"data": "digits"},
}
OWN_TARGET = {"sparse_mi"}  # attacks that another kind of target is needed for, and so cannot take part


def eligible(experiment: Experiment) -> bool:
    """Whether an attack needs no more than the standard scenario grants.

    A setting derived from it counts as the same where it only measures more: where `evaluate` and helpers differ, but neither
    target nor knowledge.
    """
    if experiment.attack is None or experiment.paper in OWN_TARGET or not issubclass(experiment.setting, ClassifierSetting):
        return False
    standard = all(
        getattr(experiment.setting, name) is getattr(ClassifierSetting, name)
        for name in ("__init__", "_faces", "_digits", "target", "train_target", "knowledge", "baselines")
    )
    return standard and not experiment.grant


def participants() -> list[str]:
    """Ids of all attacks of the leaderboard, sorted."""
    return [paper for paper, experiment in experiments().items() if eligible(experiment)]


@cache
def scenario(track: str, device: str) -> ClassifierSetting:
    """The setting of a track; all papers that one process measures share it."""
    return ClassifierSetting(ClassifierConfig(**TRACKS[track]), device)


def measure_attack(experiment: Experiment, setting: ClassifierSetting, seed: int) -> Measurement:
    """One seed of an attack with `PER_CLASS` reconstructions of each class.

    A method that gives one reconstruction is run so many times with seeds of its own; queries and seconds add up.
    """
    config = dataclasses.replace(experiment.config, seed=seed)
    if hasattr(config, "per_class"):
        return run_attack(experiment, setting, dataclasses.replace(config, per_class=PER_CLASS))
    runs = [
        run_attack(experiment, setting, dataclasses.replace(config, seed=PER_CLASS * seed + again))
        for again in range(PER_CLASS)
    ]
    together = torch.cat([run.reconstruction.data[:, :1] for run in runs], dim=1)
    return dataclasses.replace(
        runs[0],
        metrics=setting.evaluate(Reconstruction(together)),
        seconds=sum(run.seconds for run in runs),
        queries=sum(run.queries for run in runs),
        peak_memory_mb=max(run.peak_memory_mb for run in runs),
    )


def measure_baseline(name: str, setting: ClassifierSetting, seed: int) -> Measurement:
    """One seed of a baseline, cut or repeated to `PER_CLASS` pictures of each class."""
    done = run_baseline(setting, name, seed)
    data = done.reconstruction.data
    data = data[:, torch.arange(PER_CLASS, device=data.device) % data.shape[1]]
    return dataclasses.replace(done, metrics=setting.evaluate(Reconstruction(data)))


def row(repeats: Sequence[Measurement]) -> dict[str, Any]:
    """Metrics with their spread over seeds, median queries and seconds; notes of the method on itself are left out."""
    return summary(repeats, [name for name in repeats[0].metrics if not is_note(name)])


def rows(name: str, setting: ClassifierSetting, seeds: Sequence[int], track: str) -> dict[str, Any]:
    """The rows of one record on one track, by paper or baseline."""
    if name == BASELINES:
        return {
            baseline: row([measure_baseline(baseline, setting, seed) for seed in seeds]) for baseline in setting.baselines()
        }
    experiment = find(name)
    return {name: row([measure_attack(experiment, setting, seed) for seed in progress(seeds, f"{name}, {track}")])}


def terms(seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """What is equal for all; a record under other terms is stale."""
    return {"per_class": PER_CLASS, "seeds": list(seeds), "tracks": {name: dict(options) for name, options in TRACKS.items()}}


def hash_of(name: str) -> str:
    """Hash of all code that can move a record's numbers."""
    return code_hash("implementations.classifier.setting" if name == BASELINES else modules()[name])


def record(name: str, seeds: Sequence[int] = SEEDS, device: str = "cpu") -> dict[str, Any]:
    """Measures on all tracks, then writes docs/results/leaderboard/<name>.json. Nothing is written unless all runs ended."""
    if name != BASELINES and not eligible(find(name)):
        raise ValueError(f"{name} needs another scenario than the leaderboard's; it takes {', '.join(participants())}")
    result = {
        "schema": SCHEMA,
        "paper": name,
        "terms": terms(seeds),
        "tracks": {track: rows(name, scenario(track, device), seeds, track) for track in TRACKS},
        "headline": ClassifierSetting.headline,
        "metrics_help": explained(scenario("faces", device).metrics),
        **origin(torch.device(device), hash_of(name)),
    }
    write_record(FOLDER / f"{name}.json", result)
    return result


def stale(name: str) -> str:
    """Why a record must be made again, or an empty text."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return "never recorded"
    found = read_standing(path)
    if found["terms"] != terms():
        return "it was measured under other terms"
    return "" if found["code_hash"] == hash_of(name) else "the code that it depends on changed"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m implementations.leaderboard", description="Measure on equal terms.")
    parser.add_argument("papers", nargs="*", help=f"ids, or {BASELINES}; none means all that are stale")
    parser.add_argument("--check", action="store_true", help="only say which are stale; exit 1 if any is")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(words)
    names = options.papers or [BASELINES, *participants()]
    reasons = {name: stale(name) for name in names}
    if options.check:
        left = sorted({path.stem for path in FOLDER.glob("*.json")} - {BASELINES, *participants()})
        for name, reason in reasons.items():
            if reason:
                print(f"docs/results/leaderboard/{name}.json: {reason}; run make leaderboard ID={name}")
        for name in left:
            print(f"docs/results/leaderboard/{name}.json: no attack of the leaderboard; delete it")
        return int(any(reasons.values()) or bool(left))
    for name in options.papers or [name for name, reason in reasons.items() if reason]:
        result = record(name, device=options.device)
        for track, found in result["tracks"].items():
            for who, measured in found.items():
                value = measured["metrics"]["accuracy_top1"]
                console.print(f"{track}: {who}: accuracy_top1 {value['mean']:.3f} ± {value['std']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
