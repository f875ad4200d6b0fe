"""DeePSiM (NeurIPS 2016): the losses by hand, whose turn it is, and pictures that pixels alone would leave grey."""

import math

import pytest
import torch
from torch import nn

from implementations.split.dosovitskiy2016_perceptual import (
    Discriminator,
    PerceptualConfig,
    adversarial_loss,
    attack,
    discriminator_loss,
    whose_turn,
)
from implementations.split.portraits import fine_detail
from implementations.threat_model import AccessDenied, Features, Knowledge

CPU = torch.device("cpu")
PIXELS = {"feature_weight": 0.0, "adversarial_weight": 0.0}


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def half_pictures(count: int, seed: int) -> torch.Tensor:
    """Pictures (count, 1, 8, 8) whose upper rows are light and whose lower rows are black or white, at random."""
    light, side = torch.rand((2, count, 1, 1, 1), generator=generator(seed), device=CPU)
    upper, lower = 0.6 + 0.4 * light, (side < 0.5).float()
    return torch.cat([upper.expand(count, 1, 4, 8), lower.expand(count, 1, 4, 8)], dim=2)


class Upper(nn.Module):
    """Features that know nothing of the lower half."""

    def forward(self, x):
        return x[:, :, :4].flatten(1)


class Contrast(nn.Module):
    """Features that know how far each row is from mid-grey, not on which side."""

    def forward(self, x):
        return (x - 0.5).abs().mean(dim=(1, 3))


def invert(client: nn.Module, grant: str = "weights", **changes):
    x = half_pictures(8, 1)
    oracle = Features(client, client(x), CPU, client=grant)
    small = {"width": 8, "steps": 300, "batch": 16, "lr": 5e-3, "critic_width": 4, "critic_lr": 5e-3}
    config = PerceptualConfig(**{**small, **changes})
    return oracle, x, attack(oracle, Knowledge(public_images=half_pictures(200, 0)), config)


def lower_contrast(found) -> float:
    """How far the lower half is from mid-grey: 0 for the mean of black and white, 0.5 for either."""
    return (found.data[:, :, 5:] - 0.5).abs().mean().item()


# --- formulas


def test_losses_by_hand():
    sure, unsure = torch.tensor([math.log(3.0)], device=CPU), torch.zeros(2, device=CPU)  # D = 3/4 and 1/2
    assert adversarial_loss(sure).item() == pytest.approx(-math.log(0.75))
    assert adversarial_loss(unsure).item() == pytest.approx(math.log(2))
    assert discriminator_loss(sure, -sure).item() == pytest.approx(-2 * math.log(0.75))
    assert discriminator_loss(unsure, sure).item() == pytest.approx(math.log(2) - math.log(0.25))


@pytest.mark.parametrize(
    ("ratio", "before", "after"),
    [
        (1.0, (True, True), (True, True)),
        (0.05, (True, True), (False, True)),  # the discriminator is far ahead: it rests
        (0.3, (False, True), (False, True)),  # and stays at rest
        (0.6, (False, True), (True, True)),  # until it has fallen back
        (11.0, (True, True), (True, False)),  # the generator is far ahead: it waits
        (1.0, (True, False), (True, False)),
        (0.05, (True, False), (False, True)),
    ],
)
def test_whose_turn_it_is(ratio, before, after):
    assert whose_turn(ratio, *before, PerceptualConfig()) == after


def test_the_discriminator_sees_pictures_and_features():
    judge = Discriminator(1, 4, 4, 0.3)
    images, features = half_pictures(3, 0), torch.rand((3, 4, 2, 2), generator=generator(0), device=CPU)
    assert judge(images, features).shape == (3,)
    assert not torch.equal(judge(images, features), judge(images.flip(2), features))
    assert not torch.equal(judge(images, features), judge(images, features.flip(0)))
    torch.testing.assert_close(judge(images, features), judge(images, features.mean(dim=(2, 3))))


def test_fine_detail_by_hand():
    point = torch.zeros((1, 1, 3, 3), device=CPU)
    point[0, 0, 1, 1] = 1.0  # every 3x3 mean (edges repeated) is 1/9
    assert fine_detail(point).item() == pytest.approx(math.sqrt((8 / 81 + 64 / 81) / 9))
    ramp = torch.arange(5.0, device=CPU).expand(1, 1, 5, 5)
    assert fine_detail(ramp)[0] < fine_detail(ramp[..., [0, 4, 1, 3, 2]])[0]


# --- the idea


def test_pixels_alone_give_the_mean_of_what_fits():
    _, x, found = invert(Upper(), **PIXELS)
    assert lower_contrast(found) < 0.1
    torch.testing.assert_close(found.data[:, :, :3], x[:, :, :3], atol=0.15, rtol=0)


def test_the_discriminator_forbids_the_mean():
    """It never saw grey lower halves; which side the generator takes is a chase that does not end."""
    oracle, _, found = invert(Upper(), feature_weight=0.0, image_weight=0.02, adversarial_weight=2.0)
    assert lower_contrast(found) > 0.15
    assert found.notes["discriminator_steps"] > 0
    assert oracle.reads == {"client-weights"}


def test_features_ask_for_the_contrast_that_they_know_of():
    _, _, blurred = invert(Contrast(), **PIXELS)
    _, _, found = invert(Contrast(), feature_weight=1.0, adversarial_weight=0.0)
    assert lower_contrast(blurred) < 0.1
    assert lower_contrast(found) > 0.35


def test_without_its_part_of_the_loss_the_discriminator_learns_nothing():
    _, _, found = invert(Upper(), adversarial_weight=0.0, steps=3)
    assert found.notes["discriminator_steps"] == 0


# --- threat model, options


@pytest.mark.parametrize("grant", ["queries", "none"])
def test_it_needs_the_weights_of_the_comparator(grant):
    with pytest.raises(AccessDenied):
        invert(Upper(), grant=grant, steps=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_weight": -1.0}, "weights"),
        ({"feature_weight": 0.0, "adversarial_weight": 0.0, "image_weight": 0.0}, "weights"),
        ({"critic_width": 0}, "critic_width"),
        ({"critic_lr": 0.0}, "critic_lr"),
        ({"pause_below": 0.6}, "pause_below"),
        ({"wait_above": 0.4}, "wait_above"),
        ({"error": "features"}, "error"),
        ({"pairs": "shuffled"}, "pairs"),
        ({"steps": 0}, "steps"),
    ],
)
def test_wrong_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PerceptualConfig(**changes)
