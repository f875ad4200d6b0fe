"""PPA: the Poincaré loss by hand, its gradient where cross-entropy has none, random views, and the choice of robust results."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from implementations.classifier import ppa
from implementations.classifier.gmi import identity_loss
from implementations.common.priors import Prior
from implementations.threat_model import Knowledge, WhiteBox

CPU = "cpu"


def random(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def test_poincare_loss_by_hand():
    logits = torch.tensor([[3.0, -1.0]], device=CPU)  # u = (0.75, -0.25), v = (0.9999, 0)
    labels = torch.zeros(1, dtype=torch.int64, device=CPU)
    between = (0.75 - 0.9999) ** 2 + 0.25**2
    inside = (1 - 0.75**2 - 0.25**2) * (1 - 0.9999**2)
    expected = math.acosh(1 + 2 * between / inside)
    assert ppa.poincare_loss(logits, labels).item() == pytest.approx(expected, rel=1e-3)


def test_poincare_loss_ignores_the_scale_of_logits_and_grows_with_the_distance():
    logits = torch.tensor([[4.0, 1.0, -1.0], [1.0, 4.0, -1.0]], device=CPU)
    labels = torch.zeros(2, dtype=torch.int64, device=CPU)
    loss = ppa.poincare_loss(logits, labels)
    torch.testing.assert_close(ppa.poincare_loss(7 * logits, labels), loss)
    assert loss[0] < loss[1]


def test_the_gradient_lives_where_that_of_cross_entropy_vanished():
    logits = torch.tensor([[40.0, 10.0, 10.0]], device=CPU, requires_grad=True)
    labels = torch.zeros(1, dtype=torch.int64, device=CPU)
    (alive,) = torch.autograd.grad(ppa.poincare_loss(logits, labels).sum(), logits)
    (dead,) = torch.autograd.grad(identity_loss(logits, labels).sum(), logits)
    assert alive.norm() > 1e-3
    assert dead.norm() < 1e-9
    assert alive[0, 0] < 0 < alive[0, 1], "the class is raised, the others are lowered towards zero"


def test_poincare_gradient_against_finite_differences():
    logits = torch.randn(3, 4, generator=random(), device=CPU, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, 2], device=CPU)
    assert torch.autograd.gradcheck(lambda x: ppa.poincare_loss(x, labels), (logits,))


def test_a_view_of_the_whole_picture_is_the_picture():
    x = torch.rand(2, 3, 8, 8, generator=random(), device=CPU)
    torch.testing.assert_close(ppa.random_views(x, (1.0, 1.0), 1.0, 0.0, random()), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ppa.random_views(x, (1.0, 1.0), 1.0, 1.1, random()), x.flip(3), atol=1e-5, rtol=1e-5)


def test_views_are_crops_of_the_asked_area():
    """On a ramp the spread of values across a view is the share of the width that it keeps."""
    ramp = torch.linspace(0, 1, 64, device=CPU).expand(500, 1, 64, 64)
    views = ppa.random_views(ramp, (0.5, 0.9), 1.2, 0.5, random())
    width = (views[:, 0, 32, -1] - views[:, 0, 32, 0]).abs()
    assert width.min() >= math.sqrt(0.5 / 1.2) - 0.03
    assert width.max() <= 1.0
    assert (views[:, 0, 32, -1] < views[:, 0, 32, 0]).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert views[:, 0, 32, 0].std() > 0.05, "places differ between pictures"


class Pictures(nn.Module):
    """A code of two numbers paints the left and the right half of a picture."""

    latent = 2

    def forward(self, z):
        return z.sigmoid()[:, None, None, :].repeat_interleave(4, dim=3).expand(-1, 1, 8, 8)


class LeftCorner(nn.Module):
    """Class 0 by the mean brightness or, twice as sure, by a single pixel: fooled by it, but only where it stays in place."""

    def forward(self, x):
        bright, pixel = x.flatten(1).mean(dim=1), x[:, 0, 0, 0]
        return torch.stack([8 * (bright - 0.5) + 16 * (pixel > 0.9), torch.zeros_like(bright)], dim=1)


def test_robust_choice_prefers_the_picture_over_the_trick():
    oracle = WhiteBox(LeftCorner(), CPU)
    honest = torch.full((1, 1, 8, 8), 0.85, device=CPU)
    trick = torch.full((1, 1, 8, 8), 0.2, device=CPU)
    trick[0, 0, 0, 0] = 1.0
    images, labels = torch.cat([honest, trick]), torch.zeros(2, dtype=torch.int64, device=CPU)
    plain = ppa.confidence(oracle, images, labels)
    robust = ppa.robustness(oracle, images, labels, ppa.PpaConfig(view_area=(0.5, 0.9)), random())
    assert plain[1] > plain[0]
    assert robust[0] > robust[1] + 0.3


class Bright(nn.Module):
    """Bright, dark, and a third class of constant logit; opposite logits of equal size would hold u in one place."""

    def forward(self, x):
        bright = 12 * (x.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([bright.relu(), (-bright).relu(), torch.ones_like(bright)], dim=1)


def test_starts_are_the_codes_that_the_target_likes_best():
    prior, oracle = Prior(Pictures(), nn.Identity(), 0.0), WhiteBox(Bright(), CPU)
    config = ppa.PpaConfig(pool=200, candidates=3, per_class=1, truncation=1.0)
    first = ppa.first_codes(oracle, prior, 2, config, random(5))
    codes = prior.sample(200, random(5))
    ranked = codes[codes.sigmoid().sum(dim=1).sort(descending=True).indices]
    torch.testing.assert_close(first[0], ranked[:3])
    assert first.shape == (2, 3, 2)


@pytest.mark.parametrize("loss", ["poincare", "cross-entropy"])
def test_the_whole_attack_on_a_toy(monkeypatch, loss):
    monkeypatch.setattr(ppa, "public_gan", lambda images, options: Prior(Pictures(), nn.Identity(), 0.0))
    knowledge = Knowledge(public_images=torch.zeros(1, 1, 8, 8, device=CPU), num_classes=2)
    config = ppa.PpaConfig(loss=loss, pool=20, candidates=3, per_class=2, steps=30, lr=0.1)
    found = ppa.attack(WhiteBox(Bright(), CPU), knowledge, config)
    assert found.data.shape == (2, 2, 1, 8, 8)
    assert found.data[0].mean() > 0.85
    assert found.data[1].mean() < 0.15
    again = ppa.attack(WhiteBox(Bright(), CPU), knowledge, config)
    assert torch.equal(found.data, again.data)


@pytest.mark.parametrize(
    "wrong",
    [{"loss": "hinge"}, {"selection": "luck"}, {"per_class": 9}, {"view_area": (0.9, 0.5)}, {"view_ratio": 0.5}, {"steps": 0}],
)
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).removeprefix("view_")):
        dataclasses.replace(ppa.PpaConfig(), **wrong)
