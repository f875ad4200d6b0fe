"""Experiments, claims and results on a toy setting that needs no training."""

import dataclasses
import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from implementations import registry, results
from implementations.experiment import (
    Claim,
    Config,
    Experiment,
    Metric,
    Reconstruction,
    Run,
    Setting,
    SettingConfig,
    field_comments,
    require,
    run_attack,
    run_experiment,
)
from implementations.threat_model import Knowledge, WhiteBox, classifier_target


class CoinSetting(Setting):
    """The private datum is one number; the target is its identity map."""

    name = "coin"
    config_type = SettingConfig
    headline = "error"
    metrics = {"error": Metric("distance to the private number", "", False)}

    def __init__(self, config=None, device="cpu"):
        super().__init__(config, device)
        self.private = {"value": torch.tensor([3.0, 4.0], device=device)}
        self.victim = classifier_target(nn.Linear(1, 1), device)

    @property
    def target(self):
        return self.victim

    def knowledge(self):
        return Knowledge(outcome=3.0, marginals=1.0)

    def baselines(self):
        def zero(_):
            """nothing at all"""
            return Reconstruction(torch.zeros(1, device=self.device))

        return {"zero": zero}

    def evaluate(self, reconstruction):
        return {"error": (reconstruction.data - self.private["value"][0]).abs().item()}

    def figure(self, reconstructions):
        from implementations.common.plots import bars

        return bars(dict.fromkeys(reconstructions, 1.0), "error")


@dataclass(frozen=True, kw_only=True)
class CoinConfig(Config):
    scale: float = 1.0  # factor on the answer
    greedy: bool = False  # reads knowledge that it did not declare

    def __post_init__(self):
        require(self.scale >= 0, "scale must not be negative")


def attack(oracle: WhiteBox, knowledge: Knowledge, config: CoinConfig) -> Reconstruction:
    if config.greedy:
        _ = knowledge.marginals
    if config.scale == 7:
        oracle.model.weight.data.zero_()
    return Reconstruction(torch.full((1,), config.scale * knowledge.outcome, device=oracle.device))


def experiment(**changes):
    given = {
        "paper": "coin",
        "setting": CoinSetting,
        "config": CoinConfig(),
        "attack": attack,
        "knowledge": ("outcome",),
        "ablations": {"off": Run(says="without", config={"scale": 0.0})},
        "claims": {"works": Claim(check=lambda m, runs: m["error"] < runs["zero"]["error"] / 2, ablation="off")},
    }
    return Experiment(**{**given, **changes})


def test_runs_method_baselines_and_ablations():
    measured = run_experiment(experiment(), CoinSetting())
    assert {name: run.role for name, run in measured.items()} == {"zero": "baseline", "method": "method", "off": "ablation"}
    assert measured["method"].metrics["error"] == 0
    assert measured["off"].metrics["error"] == 3
    assert measured["method"].reads == ("outcome",)
    claim = experiment().claims["works"]
    numbers = {name: run.metrics for name, run in measured.items()}
    assert claim.holds(numbers)
    assert not claim.holds(numbers, of="off")


def test_undeclared_knowledge_is_out_of_reach():
    with pytest.raises(AttributeError, match="does not know 'marginals'"):
        run_attack(experiment(), CoinSetting(), CoinConfig(greedy=True))


def test_the_attacked_copy_is_not_the_target():
    setting = CoinSetting()
    before = setting.target.fingerprint()
    run_attack(experiment(), setting, CoinConfig(scale=7))
    assert setting.target.fingerprint() == before


def test_access_is_read_from_the_signature():
    assert experiment().access == "white-box"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": None}, "exactly one of"),
        ({"measure": lambda setting, config: {}}, "exactly one of"),
        ({"claims": {"x": Claim(check=lambda m, r: True, ablation="none")}}, "no ablation 'none'"),
        ({"variants": {"off": Run(says="twice")}}, "must differ"),
        ({"against": ("gmi",)}, "against"),
    ],
)
def test_incomplete_experiments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        experiment(**changes)


def test_configurations_validate_and_describe_themselves():
    assert field_comments(CoinConfig) == {
        "seed": "seed of every random draw of the method",
        "scale": "factor on the answer",
        "greedy": "reads knowledge that it did not declare",
    }
    with pytest.raises(ValueError, match="negative"):
        dataclasses.replace(CoinConfig(), scale=-1.0)
    with pytest.raises(TypeError):
        CoinConfig(unknown=1)


def test_permuting_keeps_values_and_moves_them():
    setting = CoinSetting()
    moved = [setting.with_private_permuted(seed).private["value"].tolist() for seed in range(6)]
    assert [4.0, 3.0] in moved
    assert all(sorted(values) == [3.0, 4.0] for values in moved)
    assert setting.private["value"].tolist() == [3.0, 4.0]


def test_another_victim_by_options():
    run = Run(says="another seed", options={"seed": 5})
    found = run_experiment(experiment(variants={"other": run}), CoinSetting(), names=["other"])
    assert found["other"].metrics["error"] == 0


def test_a_result_is_written_whole_and_read_back(tmp_path, monkeypatch):
    coin = experiment()
    monkeypatch.setattr(results, "find", lambda paper: coin)
    monkeypatch.setattr(results, "modules", lambda: {"coin": "implementations.common.metrics"})
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    results.record("coin", seeds=(0, 1))
    result = results.load_result("coin", tmp_path)
    assert result["runs"]["method"]["metrics"]["error"] == {"median": 0.0, "mean": 0.0, "std": 0.0, "values": [0.0, 0.0]}
    assert result["claims"]["works"]["reproduced"]
    assert result["claims"]["works"]["ablation_fails"]
    assert result["claims"]["works"]["seeds_holding"] == 2
    assert result["toy"]
    assert (tmp_path / "coin.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coin.json", "coin.png"]
    assert results.stale("coin") == ""


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"schema": 99, "paper": "coin"})])
def test_a_damaged_result_is_named(tmp_path, content):
    (tmp_path / "coin.json").write_text(content)
    with pytest.raises(ValueError, match=r"coin\.json.*make results ID=coin"):
        results.load_result("coin", tmp_path)


def test_spread():
    assert results.spread([1.0, 2.0, 6.0]) == {
        "median": 2.0,
        "mean": 3.0,
        "std": pytest.approx(7**0.5),
        "values": [1.0, 2.0, 6.0],
    }


def test_an_unknown_paper_names_the_nearest():
    with pytest.raises(KeyError, match="did you mean gmi"):
        registry.find("gmmi")
