"""The leaderboard on equal terms: who takes part, equally many reconstructions, records that know when they are stale."""

import json
from dataclasses import dataclass

import pytest
import torch

from implementations import leaderboard, registry
from implementations.classifier.setting import ClassifierConfig, ClassifierSetting
from implementations.experiment import Config, Experiment, Reconstruction
from implementations.threat_model import Knowledge, WhiteBox
from scripts.site.recorded import read_leaderboard

SMALL = {"identities": 3, "images": 3, "public_identities": 4, "public_images": 3, "size": 16, "distractors": 2}
TRAINING = {"epochs": 1, "evaluator_epochs": 1, "reader_people": 20, "reader_epochs": 1}


@pytest.fixture(scope="module")
def setting():
    return ClassifierSetting(ClassifierConfig(**SMALL, **TRAINING), "cpu")


@dataclass(frozen=True, kw_only=True)
class ManyConfig(Config):
    """An attack that is told how many reconstructions to give."""

    per_class: int = 7


def guess(oracle: WhiteBox, knowledge: Knowledge, config: Config) -> Reconstruction:
    """Noise, of which the seed alone decides; one query."""
    shape = (knowledge.num_classes, getattr(config, "per_class", 1), *knowledge.image_shape)
    noise = torch.rand(shape, generator=config.generator(oracle.device), device=oracle.device)
    oracle(noise[:1, 0])
    return Reconstruction(noise, notes={"remark": 1.0})


def guessing(config: Config, **options) -> Experiment:
    return Experiment(
        paper="guess",
        setting=ClassifierSetting,
        config=config,
        attack=guess,
        knowledge=("num-classes", "image-shape"),
        **options,
    )


def test_every_attack_gives_equally_many_reconstructions(setting, monkeypatch):
    seen = []
    evaluate = setting.evaluate
    monkeypatch.setattr(setting, "evaluate", lambda found: seen.append(found.data) or evaluate(found))
    many = leaderboard.measure_attack(guessing(ManyConfig()), setting, 1)
    assert [data.shape[1] for data in seen] == [2]
    assert many.queries == 1
    one_by_one = leaderboard.measure_attack(guessing(Config()), setting, 1)
    assert seen[-1].shape[1] == 2
    assert not torch.equal(seen[-1][:, 0], seen[-1][:, 1]), "each with a seed of its own"
    assert one_by_one.queries == 2
    assert one_by_one.metrics["diversity"] > 0
    for name in setting.baselines():
        if name != "random_latents":  # which trains a prior
            leaderboard.measure_baseline(name, setting, 0)
            assert seen[-1].shape[1] == 2


def test_seeds_do_not_share_repeats(setting):
    runs = [leaderboard.measure_attack(guessing(Config()), setting, seed) for seed in (0, 1)]
    assert runs[0].metrics["feature_distance"] != runs[1].metrics["feature_distance"]


def test_only_attacks_that_the_standard_scenario_serves_take_part():
    papers = leaderboard.participants()
    assert {"gmi", "brep_mi", "tb_mia", "fredrikson2015_confidence", "if_gmi"} <= set(papers)
    for paper in ("dlg", "mid", "xai_mi", "haim2022_reconstruction", "balle2022_informed"):
        assert paper in registry.modules()
        assert paper not in papers, paper
    assert leaderboard.eligible(guessing(Config()))
    assert not leaderboard.eligible(guessing(Config(), grant={"budget": 3})), "other access"

    class Other(ClassifierSetting):
        def train_target(self):
            raise NotImplementedError

    class MeasuresMore(ClassifierSetting):
        def evaluate(self, reconstruction):
            return super().evaluate(reconstruction)

    changed = {name: Experiment(**{**vars(guessing(Config())), "setting": name}) for name in (Other, MeasuresMore)}
    assert not leaderboard.eligible(changed[Other])
    assert leaderboard.eligible(changed[MeasuresMore])
    with pytest.raises(ValueError, match=r"mid needs another scenario.*gmi"):
        leaderboard.record("mid")


def test_a_record_is_written_read_and_becomes_stale(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard, "FOLDER", tmp_path / "leaderboard")
    monkeypatch.setattr(leaderboard, "find", lambda paper: guessing(ManyConfig()))
    monkeypatch.setattr(leaderboard, "modules", lambda: {"guess": "implementations.common.metrics"})
    monkeypatch.setattr(leaderboard, "scenario", lambda track, device: setting)
    leaderboard.record("guess")
    found = read_leaderboard(tmp_path)["guess"]
    assert list(found["tracks"]) == ["faces", "shifted", "digits"]
    row = found["tracks"]["digits"]["guess"]
    assert len(row["metrics"]["accuracy_top1"]["values"]) == 3
    assert not any(name.startswith("note_") for name in row["metrics"])
    assert set(row["metrics"]) == set(found["metrics_help"]) | {"identity_error"}
    assert leaderboard.stale("guess") == ""
    with monkeypatch.context() as changed:
        changed.setattr(leaderboard, "PER_CLASS", 3)
        assert "other terms" in leaderboard.stale("guess")
    with monkeypatch.context() as changed:
        changed.setattr(leaderboard, "modules", lambda: {"guess": "implementations.common.plots"})
        assert "code" in leaderboard.stale("guess")
    assert leaderboard.stale("another") == "never recorded"


def test_a_broken_record_is_named(tmp_path):
    folder = tmp_path / "leaderboard"
    folder.mkdir()
    for content in ("[", json.dumps({"paper": "other", "tracks": {}}), json.dumps({"paper": "guess", "tracks": 3})):
        (folder / "guess.json").write_text(content)
        with pytest.raises(ValueError, match=r"guess\.json.*make leaderboard ID=guess"):
            read_leaderboard(tmp_path)
