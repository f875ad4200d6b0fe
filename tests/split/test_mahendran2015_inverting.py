"""Mahendran and Vedaldi (CVPR 2015): the three terms by hand, exact inversion where nothing is lost, else the prior."""

import math

import pytest
import torch
from torch import nn

from implementations.common.metrics import psnr
from implementations.split.mahendran2015_inverting import (
    EXPERIMENT,
    InvertingConfig,
    alpha_norm,
    attack,
    feature_loss,
    step_size,
    total_variation,
)
from implementations.threat_model import AccessDenied, Features, Knowledge

CPU = torch.device("cpu")


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def smooth_images(count: int, seed: int, size: int = 8) -> torch.Tensor:
    """Random pictures with large structures, (count, 1, size, size) in [0, 1]."""
    coarse = torch.rand((count, 1, 4, 4), generator=generator(seed), device=CPU)
    return nn.functional.interpolate(coarse, size=size, mode="bilinear")


class Rotation(nn.Module):
    """A multiple of an orthogonal matrix on the pixels: nothing of the input is lost."""

    def __init__(self, pixels: int, scale: float = 1.0):
        super().__init__()
        square = torch.randn((pixels, pixels), generator=generator(3), device=CPU)
        self.matrix = nn.Parameter(scale * torch.linalg.qr(square).Q)

    def forward(self, x):
        return x.flatten(1) @ self.matrix.T


class EverySecondColumn(nn.Module):
    def forward(self, x):
        return x[..., ::2]


def invert(client: nn.Module, x: torch.Tensor, **changes):
    oracle = Features(client, client(x), CPU, client="weights")
    plain = {"tv_weight": 0.0, "alpha_weight": 0.0, "lr": 0.3, "steps": 200, "restarts": 1}
    return oracle, attack(oracle, Knowledge(image_shape=tuple(x.shape[1:])), InvertingConfig(**{**plain, **changes}))


# --- formulas


def test_feature_loss_by_hand():
    sent = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]], device=CPU)
    given = torch.tensor([[[1.0, 1.0]], [[3.0, 4.0]]], device=CPU)
    assert feature_loss(sent, given).tolist() == pytest.approx([1 / 2, 1.0])


def test_alpha_norm_by_hand():
    x = torch.tensor([[[[1.0, -2.0]]], [[[0.5, 0.0]]]], device=CPU)
    assert alpha_norm(x, 6).tolist() == pytest.approx([65.0, 0.5**6])
    assert alpha_norm(x, 3).tolist() == pytest.approx([9.0, 0.125])


def test_total_variation_by_hand():
    two = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]], device=CPU)
    # corner (0, 0): down 2, right 1; (0, 1): down 3; (1, 0): right 2; (1, 1): nothing
    assert total_variation(two, 2.0).item() == pytest.approx(5 + 9 + 4)
    assert total_variation(two, 1.0).item() == pytest.approx(math.sqrt(5) + 3 + 2)


def test_with_the_square_a_gradual_change_costs_less_than_a_jump():
    jump = torch.tensor([0.0, 0.0, 1.0, 1.0], device=CPU).expand(1, 1, 1, 4)
    ramp = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0], device=CPU).expand(1, 1, 1, 4)
    assert total_variation(ramp, 1.0).item() == pytest.approx(total_variation(jump, 1.0).item())
    assert total_variation(ramp, 2.0).item() == pytest.approx(total_variation(jump, 2.0).item() / 3)


def test_gradients_are_right_and_finite_where_flat():
    x = torch.rand((2, 1, 3, 3), generator=generator(1), dtype=torch.float64, device=CPU).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: total_variation(x, 1.0) + alpha_norm(x, 6.0), (x,))
    flat = torch.zeros((1, 1, 3, 3), device=CPU, requires_grad=True)
    (total_variation(flat, 1.0) + alpha_norm(flat, 6.0)).sum().backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat))


def test_steps_shrink_in_three_stages():
    config = InvertingConfig(steps=8, lr=1.0)
    assert [step_size(step, config) for step in range(8)] == [1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]


# --- inversion


def test_a_rotation_is_inverted_exactly():
    x = smooth_images(3, 0)
    oracle, found = invert(Rotation(64), x)
    torch.testing.assert_close(found.data, x, atol=2e-3, rtol=0)
    assert oracle.queries == 3 * 200
    assert oracle.reads == {"client-weights"}
    assert found.history["features"][-1] < 1e-4 < found.history["features"][0]
    _, wrong = invert(Rotation(64), x, weights="shuffled")
    assert (psnr(wrong.data, x) < psnr(found.data, x) - 20).all()


def test_the_scale_of_the_representation_plays_no_part():
    x = smooth_images(3, 0)
    prior = {"tv_weight": 0.1, "alpha_weight": 1e8, "lr": 0.05}
    one, other = (invert(Rotation(64, scale), x, steps=40, **prior)[1].data for scale in (1.0, 1000.0))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_each_input_is_inverted_for_itself():
    x = smooth_images(3, 0)
    x[1] = 0.5 + 0.1 * (x[1] - 0.5)
    _, together = invert(Rotation(64), x)
    _, alone = invert(Rotation(64), x[1:2])
    torch.testing.assert_close(together.data[1:2], alone.data, atol=2e-3, rtol=0)


def test_total_variation_fills_in_what_the_representation_does_not_hold():
    x = smooth_images(4, 5, size=16)
    _, bare = invert(EverySecondColumn(), x)
    _, prior = invert(EverySecondColumn(), x, tv_weight=0.02)
    assert (psnr(prior.data, x) > psnr(bare.data, x) + 5).all()


def test_the_alpha_norm_keeps_values_in_range():
    """Every second column is free: the noise of the start stays in it, out of range too, unless the norm forbids it."""
    x = smooth_images(4, 5, size=16)
    _, bare = invert(EverySecondColumn(), x, lr=0.05)
    _, kept = invert(EverySecondColumn(), x, lr=0.05, alpha_weight=InvertingConfig().alpha_weight)
    outside = [((found.data == 0) | (found.data == 1)).float().mean().item() for found in (bare, kept)]
    assert outside[0] > 0.02
    assert outside[1] < 0.5 * outside[0]


def test_restarts_show_what_is_left_open_and_the_best_is_kept():
    x = smooth_images(3, 5, size=16)
    _, determined = invert(Rotation(256), x, restarts=3, steps=100)
    _, open_ = invert(EverySecondColumn(), x, restarts=3, steps=100)
    assert determined.notes["spread"] < 0.01 < open_.notes["spread"]
    prior = {"tv_weight": 0.02, "steps": 20}
    _, one = invert(EverySecondColumn(), x, restarts=1, **prior)
    _, best = invert(EverySecondColumn(), x, restarts=8, **prior)
    assert best.data.shape == one.data.shape == x.shape
    rough = [total_variation(found.data, 2.0).mean().item() for found in (best, one)]
    assert rough[0] <= rough[1] + 0.5


# --- threat model, options


@pytest.mark.parametrize("grant", ["queries", "none"])
def test_it_needs_the_weights(grant):
    oracle = Features(Rotation(64), Rotation(64)(smooth_images(1, 0)), CPU, client=grant)
    with pytest.raises(AccessDenied):
        attack(oracle, Knowledge(image_shape=(1, 8, 8)), InvertingConfig(steps=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 1.0},
        {"beta": 0.5},
        {"alpha_weight": -1.0},
        {"tv_weight": -1.0},
        {"deviation": 0.0},
        {"lr": 0.0},
        {"momentum": 1.0},
        {"steps": 0},
        {"restarts": 0},
        {"weights": "none"},
    ],
)
def test_wrong_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        InvertingConfig(**changes)


def test_claims_fail_where_the_numbers_say_no():
    """Checks on made-up metrics: each claim needs what it says, in both directions."""
    runs = {
        "public_mean": {"psnr": 14.0},
        "nearest_public": {"psnr": 13.0},
        "noise": {"psnr": 8.0},
        "method": {"psnr": 18.0, "ssim": 0.5, "recognizable": 1.0, "note_spread": 0.08},
        "no_prior": {"psnr": 14.0, "ssim": 0.2, "recognizable": 0.1, "note_spread": 0.15},
        "wrong_client": {"psnr": 11.0, "ssim": 0.1, "recognizable": 0.1, "note_spread": 0.08},
        "shallow_cut": {"psnr": 30.0, "ssim": 0.9, "recognizable": 1.0, "note_spread": 0.02},
        "deep_cut": {"psnr": 13.0, "ssim": 0.2, "recognizable": 0.2, "note_spread": 0.14},
    }
    for name, claim in EXPERIMENT.claims.items():
        assert claim.holds(runs), name
        assert not claim.holds(runs, of=claim.ablation), name
    layers, deeper = EXPERIMENT.claims["layers-keep-the-picture"], EXPERIMENT.claims["deeper-leaves-more-open"]
    assert not layers.holds({**runs, "shallow_cut": runs["method"]})
    assert not deeper.holds({**runs, "deep_cut": runs["shallow_cut"]})
