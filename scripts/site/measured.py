"""What the recorded results say in a few numbers: the headline of an attack, what each defense does to each attack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .atlas import Atlas
from .recorded import metric_help

UNDEFENDED = "undefended"


@dataclass(frozen=True)
class Headline:
    """An attack's headline metric beside the strongest baseline, medians over seeds."""

    metric: str
    unit: str
    says: str
    value: float
    std: float
    baseline: float | None
    baseline_name: str
    higher_is_stronger: bool

    @property
    def beats_baseline(self) -> bool:
        """Whether the method is ahead of every baseline."""
        if self.baseline is None:
            return False
        return self.value > self.baseline if self.higher_is_stronger else self.value < self.baseline


def headline(result: Mapping[str, Any] | None) -> Headline | None:
    """The headline of an attack's result, or None: defenses are measured through the attacks that they meet."""
    if not result:
        return None
    metric = result.get("headline", "")
    runs = result["runs"]
    method = runs.get("method", {}).get("metrics", {}).get(metric)
    if not method:
        return None
    about = metric_help(result, metric)
    higher = about.get("higher_is_stronger", True)
    baselines = {
        name: run["metrics"][metric]["median"]
        for name, run in runs.items()
        if run["role"] == "baseline" and metric in run["metrics"]
    }
    best = (max if higher else min)(baselines, key=lambda name: baselines[name]) if baselines else ""
    return Headline(
        metric=metric,
        unit=about.get("unit", ""),
        says=about.get("says", ""),
        value=method["median"],
        std=method.get("std", 0.0),
        baseline=baselines.get(best),
        baseline_name=best,
        higher_is_stronger=higher,
    )


@dataclass(frozen=True)
class Encounter:
    """One attack against one defense: what it recovers and what the model is worth, without and with the defense."""

    attack: str
    defense: str
    setting: str
    metric: str
    undefended: float
    defended: float
    utility: str
    utility_undefended: float
    utility_defended: float
    higher_is_stronger: bool = True

    @property
    def helps(self) -> bool:
        """Whether the attack recovers less with the defense."""
        less = self.defended < self.undefended
        return less if self.higher_is_stronger else self.defended > self.undefended


def encounters(atlas: Atlas) -> list[Encounter]:
    """Every measured pair of attack and defense."""
    found = []
    for defense, result in atlas.results.items():
        runs, metric = result["runs"], result.get("headline", "")
        without, with_it = (runs.get(name, {}).get("metrics", {}) for name in (UNDEFENDED, "method"))
        utilities = [name for name in result.get("metrics_help", {}) if name in without and name in with_it]
        for name in without:
            attack, _, last = name.rpartition(".")
            if attack and last == metric and name in with_it and utilities:
                found.append(
                    Encounter(
                        attack=attack,
                        defense=defense,
                        setting=result["setting"],
                        metric=metric,
                        undefended=without[name]["median"],
                        defended=with_it[name]["median"],
                        utility=utilities[0],
                        utility_undefended=without[utilities[0]]["median"],
                        utility_defended=with_it[utilities[0]]["median"],
                        higher_is_stronger=metric_help(result, metric).get("higher_is_stronger", True),
                    )
                )
    return found
