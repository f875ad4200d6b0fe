"""GMI's losses by hand, its step against the closed form of Nesterov's method, and its projection."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from implementations.classifier import gmi
from implementations.common.priors import Prior
from implementations.threat_model import classifier_target


def test_identity_loss_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]], device="cpu")
    labels = torch.tensor([0, 1], device="cpu")
    expected = torch.tensor([-math.log(0.75), math.log(2.0)], device="cpu")
    torch.testing.assert_close(gmi.identity_loss(logits, labels), expected)


def test_total_loss_is_prior_plus_weighted_identity():
    logits = torch.zeros(1, 4, device="cpu")
    labels, realism = torch.zeros(1, dtype=torch.int64, device="cpu"), torch.tensor([0.5], device="cpu")
    torch.testing.assert_close(gmi.total_loss(logits, labels, realism, 0.0), -realism)
    torch.testing.assert_close(gmi.total_loss(logits, labels, realism, 10.0), -realism + 10 * math.log(4))


class Identity(nn.Module):
    """A generator that shows its code, and a discriminator that likes large sums."""

    latent = 2

    def forward(self, z):
        return z


class Likes(nn.Module):
    def forward(self, x):
        return x.sum(dim=1)


def tiny(lr, steps, weight=0.0, momentum=0.9):
    linear = nn.Linear(2, 2)
    oracle = classifier_target(linear, "cpu").grant("white-box")
    prior = Prior(Identity(), Likes(), 0.0)
    config = gmi.GmiConfig(lr=lr, steps=steps, identity_weight=weight, momentum=momentum)
    labels = torch.zeros(1, dtype=torch.int64, device="cpu")
    start = prior.sample(1, config.generator("cpu")).clamp(-1, 1)
    return start, gmi.search(oracle, prior, labels, config)[0]


def test_two_steps_are_nesterovs():
    start, end = tiny(lr=0.01, steps=2)
    v1 = 0.01  # v = m v + lr, with gradient -1 in each coordinate; z += -m v_prev + (1 + m) v, as in the official code
    z1 = (1 + 0.9) * v1
    v2 = 0.9 * v1 + 0.01
    z2 = z1 - 0.9 * v1 + (1 + 0.9) * v2
    torch.testing.assert_close(end, (start + z2).clamp(-1, 1))


def test_codes_stay_in_the_box():
    _, end = tiny(lr=1.0, steps=20)
    assert torch.equal(end, torch.ones_like(end))


def test_identity_loss_moves_the_code_towards_the_class():
    torch.manual_seed(0)
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], device="cpu")
    oracle = classifier_target(linear, "cpu").grant("white-box")
    prior = Prior(Identity(), Likes(), 0.0)
    labels = torch.tensor([0, 1], device="cpu")
    end, history, _ = gmi.search(oracle, prior, labels, gmi.GmiConfig(lr=0.01, steps=30, seed=2))
    assert end[0, 0] > 0.9
    assert end[1, 0] < -0.9
    assert history["identity loss"][-1] < history["identity loss"][0]


def test_snapshots_are_spread():
    assert gmi.snapshot_steps(101) == {0, 20, 40, 60, 80, 100}
    assert gmi.snapshot_steps(1) == {0}


@pytest.mark.parametrize("wrong", [{"space": "audio"}, {"start": "mean"}, {"steps": 0}, {"per_class": 0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(gmi.GmiConfig(), **wrong)
