"""PPDG-MI's selection, distance and tuning on small numbers; a toy in which only tuning brings the second round nearer."""

import dataclasses

import pytest
import torch
from torch import nn

from implementations.classifier import ppdg_mi
from implementations.common.priors import Discriminator, Generator, Prior
from implementations.common.training import seeded_weights
from implementations.threat_model import Knowledge, classifier_target


def generator(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def small_prior():
    with seeded_weights(0):
        networks = Generator(4, 1, 8, 4), Discriminator(1, 8, 4)
    return Prior(*(network.eval().requires_grad_(False) for network in networks), 0.0)


def linear_oracle(classes=2):
    """White-box access to a target that tells dark (class 0) from bright (class 1) pictures, weakly."""
    head = nn.Linear(64, classes)
    head.weight.data = torch.linspace(-0.05, 0.05, classes, device="cpu")[:, None].expand(classes, 64).clone()
    head.bias.data = -32 * head.weight.data[:, 0]
    return classifier_target(nn.Sequential(nn.Flatten(), head), "cpu").grant("white-box")


def test_quality_is_the_probability_of_the_class_where_views_change_nothing():
    images = torch.tensor([0.5, 0.9, 0.9], device="cpu")[:, None, None, None].expand(-1, 1, 8, 8)
    labels = torch.tensor([0, 1, 0], device="cpu")
    found = ppdg_mi.quality(linear_oracle(), images, labels, generator(), 200)
    assert found[0] == pytest.approx(0.5, abs=0.03)
    assert found[1] > 0.85
    assert found[1] + found[2] == pytest.approx(1.0, abs=0.03)


def test_select_takes_the_best_of_each_class():
    images = torch.arange(8.0, device="cpu").view(2, 4, 1, 1, 1)
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.2], [0.3, 0.1, 0.2, 0.8]], device="cpu")
    assert ppdg_mi.select(images, scores, 0.5).flatten().tolist() == [1.0, 2.0, 7.0, 4.0]
    assert ppdg_mi.select(images, scores, 0.01).flatten().tolist() == [1.0, 7.0], "at least one"


def test_distance_is_zero_for_equal_pictures_only_and_knows_pixels():
    judge = small_prior().discriminator
    x = torch.rand(3, 1, 8, 8, generator=generator(), device="cpu")
    assert ppdg_mi.distance(judge, x, x).abs().max() == 0
    y = x.roll(1, dims=0)
    assert (ppdg_mi.distance(judge, x, y) > (x - y).square().mean(dim=(1, 2, 3))).all(), "layers come on top of pixels"


def test_stacked_generators_draw_as_single_ones():
    """Two sets of weights: each class's codes go through its own."""
    prior = small_prior()
    other = {name: value + 0.1 for name, value in prior.generator.named_parameters()}
    weights = {name: torch.stack([value, other[name]]) for name, value in prior.generator.named_parameters()}
    z = prior.sample(6, generator())
    found = ppdg_mi.drawn_by(prior.generator, weights, z)
    torch.testing.assert_close(found[:3], prior.generator(z[:3]))
    assert (found[3:] - prior.generator(z[3:])).abs().max() > 0.01


def test_pivots_come_near_their_pictures_from_the_mean_code():
    prior = small_prior()
    goals = prior.generator(prior.sample(5, generator(3)))
    config = ppdg_mi.PpdgMiConfig(pivot_steps=150, realism=0.0)
    pivots = ppdg_mi.find_pivots(prior, goals, generator(), config)
    near = ppdg_mi.distance(prior.discriminator, prior.generator(pivots), goals)
    mean = ppdg_mi.distance(prior.discriminator, prior.generator(torch.zeros(5, 4, device="cpu")), goals)
    assert (near < 0.5 * mean).all()


def test_tuning_makes_room_round_the_pictures_and_leaves_the_prior_alone():
    """Pictures that the prior cannot show: after tuning fresh codes of the class come nearer to them, of each to its own."""
    prior = small_prior()
    before = [value.clone() for value in prior.generator.parameters()]
    tone = torch.tensor([0.1, 0.9], device="cpu")[:, None, None, None, None]
    pseudo = tone.expand(2, 3, 1, 8, 8).contiguous()
    config = ppdg_mi.PpdgMiConfig(tune_steps=60, tune_lr=5e-3)
    pivots = ppdg_mi.find_pivots(prior, pseudo.flatten(0, 1), generator(), config)
    weights, losses = ppdg_mi.tune(prior, pseudo, pivots, config)
    assert losses[-1] < 0.5 * losses[0]
    fresh = prior.sample(20, generator(7))
    tones = ppdg_mi.drawn_by(prior.generator, weights, fresh).view(2, 10, -1).mean(dim=(1, 2))
    start = prior.generator(fresh).view(2, 10, -1).mean(dim=(1, 2))
    assert tones[0] < start[0] - 0.1
    assert tones[1] > start[1] + 0.1
    assert all(torch.equal(a, b) for a, b in zip(before, prior.generator.parameters(), strict=True))
    assert not any(value.requires_grad for value in weights.values())


def attack(tmp_path, monkeypatch, **changes):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    public = torch.rand(40, 1, 8, 8, generator=generator(), device="cpu") * 0.2 + 0.4
    options = {"prior_steps": 2, "prior_width": 4, "steps": 15, "per_class": 4, "views": 2, **changes}
    config = ppdg_mi.PpdgMiConfig(**{"tune_lr": 5e-3, "tune_steps": 30, **options})
    return ppdg_mi.attack(linear_oracle(), Knowledge(public_images=public, num_classes=2), config)


class Tones(nn.Module):
    """A generator of flat pictures, whose tone depends on the first number of the code."""

    def __init__(self):
        super().__init__()
        self.latent = 4
        self.gain, self.shift = (nn.Parameter(torch.full((1,), value, device="cpu")) for value in (1.5, 0.0))

    def forward(self, z):
        return (self.gain * z[:, 0] + self.shift).sigmoid()[:, None, None, None].expand(-1, 1, 8, 8)


def test_the_second_round_gains_by_tuning_on_the_best_and_not_by_itself(tmp_path, monkeypatch):
    """Idle search, pivots at the mean code: fresh codes fare as before, unless the generator was tuned, on the best ones."""
    prior = Prior(Tones().requires_grad_(False), small_prior().discriminator, 0.0)
    monkeypatch.setattr(ppdg_mi, "public_gan", lambda *_: prior)
    idle = {"steps": 1, "lr": 0.0, "per_class": 40, "tune_steps": 40, "tune_lr": 0.05, "pivot_steps": 1}
    found, still, any_chosen = (
        attack(tmp_path, monkeypatch, **{**idle, **changes}) for changes in ({}, {"tune_steps": 0}, {"chosen": "any"})
    )
    torch.testing.assert_close(found.trajectory[0], still.trajectory[0])
    assert abs(still.notes["quality_2"] - still.notes["quality_1"]) < 0.05
    assert found.notes["quality_2"] > still.notes["quality_2"] + 0.05
    assert found.notes["quality_2"] > any_chosen.notes["quality_2"] + 0.05
    assert found.data.shape == (2, 40, 1, 8, 8)
    assert found.trajectory[1].shape == (2, 20, 1, 8, 8)


@pytest.mark.parametrize("changes", [{"chosen": "any"}, {"rounds": 1}, {"rounds": 3}])
def test_every_option_runs(tmp_path, monkeypatch, changes):
    found = attack(tmp_path, monkeypatch, steps=2, tune_steps=1, **changes)
    rounds = changes.get("rounds", 2)
    assert len(found.history["identity loss"]) == 2 * rounds
    assert len(found.trajectory) == 2 * rounds - 1
    assert 0 <= found.data.min() <= found.data.max() <= 1


@pytest.mark.parametrize("wrong", [{"chosen": "worst"}, {"keep": 0.0}, {"tune_steps": -1}, {"rounds": 0}, {"views": 0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(ppdg_mi.PpdgMiConfig(), **wrong)
