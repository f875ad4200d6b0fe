"""Dosovitskiy and Brox (CVPR 2016): the loss, up-convolutions, and the expected picture where features leave things open."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from implementations.common.metrics import psnr
from implementations.split.dosovitskiy2016_inverting import (
    InversionConfig,
    InversionNetwork,
    attack,
    squared_error,
    unpool,
    up_convolution,
)
from implementations.split.networks import cnn_layers, cut_after, cuts, lenet_layers
from implementations.threat_model import AccessDenied, Features, Knowledge

CPU = torch.device("cpu")


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def pictures(count: int, seed: int, size: int = 8) -> torch.Tensor:
    """Random pictures with large structures, (count, 1, size, size) in [0, 1]."""
    coarse = torch.rand((count, 1, 4, 4), generator=generator(seed), device=CPU)
    return F.interpolate(coarse, size=size, mode="bilinear")


class Folded(nn.Module):
    """Features that keep how far each half of a picture is from mid-grey, and forget on which side."""

    def forward(self, x):
        return (x - 0.5).abs().mean(dim=(1, 3))


def half_pictures(count: int, seed: int) -> torch.Tensor:
    """Pictures (count, 1, 8, 8) whose upper rows are light and whose lower rows are black or white, at random."""
    light, side = torch.rand((2, count, 1, 1, 1), generator=generator(seed), device=CPU)
    upper, lower = 0.6 + 0.4 * light, (side < 0.5).float()
    return torch.cat([upper.expand(count, 1, 4, 8), lower.expand(count, 1, 4, 8)], dim=2)


def invert(client: nn.Module, x: torch.Tensor, public: torch.Tensor, grant: str = "queries", **changes):
    oracle = Features(client, client(x), CPU, client=grant)
    config = InversionConfig(**{"width": 8, "steps": 300, "batch": 16, "lr": 5e-3, **changes})
    return oracle, attack(oracle, Knowledge(public_images=public), config)


# --- formulas


def test_squared_error_by_hand():
    rebuilt = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]], device=CPU)
    wanted = torch.tensor([[[1.0, 0.0]], [[3.0, 4.0]]], device=CPU)
    assert squared_error(rebuilt, wanted).item() == pytest.approx((4 + 25) / 2)


def test_unpooling_puts_values_in_corners_of_zeros():
    x = torch.tensor([[[[1.0, 2.0]]]], device=CPU)
    assert unpool(x).tolist() == [[[[1.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]]


def test_up_convolution_is_unpooling_and_a_convolution():
    layer = up_convolution(3, 2)
    x = torch.randn((2, 3, 4, 4), generator=generator(0), device=CPU)
    kernel = layer.weight.transpose(0, 1).flip(2, 3)  # a transposed convolution has its kernel turned
    torch.testing.assert_close(layer(x), F.conv2d(unpool(x), kernel, layer.bias, padding=2))


@pytest.mark.parametrize("architecture", ["cnn", "lenet"])
@pytest.mark.parametrize("size", [28, 32])
def test_networks_fit_every_cut(architecture, size):
    shape = (3 if architecture == "cnn" else 1, size, size)
    for cut in cuts(architecture):
        layers = cnn_layers(3, size, 10, 4) if architecture == "cnn" else lenet_layers(1, size, 10)
        sent = cut_after(layers, cut).client(torch.rand((2, *shape), generator=generator(0), device=CPU))
        rebuilt = InversionNetwork(tuple(sent.shape[1:]), shape, 4, 0.3)(sent)
        assert tuple(rebuilt.shape) == (2, *shape), cut


# --- the idea: the expected picture, learnt from pictures


def test_what_the_features_leave_open_comes_out_averaged():
    """Upper half given, lower half black or white: the expected picture is light above and grey below."""
    x = half_pictures(6, 1)
    _, found = invert(Folded(), x, half_pictures(200, 0))
    torch.testing.assert_close(found.data[:, :, :3], x[:, :, :3], atol=0.15, rtol=0)
    torch.testing.assert_close(found.data[:, :, 5:], torch.full((6, 1, 3, 8), 0.5, device=CPU), atol=0.2, rtol=0)


def test_the_error_of_features_finds_some_picture_and_not_the_expected_one():
    """Folded features do not tell light from dark; only the error of pictures knows that the upper half is light."""
    x, public = half_pictures(6, 1), half_pictures(200, 0)
    _, expected = invert(Folded(), x, public)
    oracle, fitting = invert(Folded(), x, public, grant="weights", error="features")
    assert oracle.reads == {"client-weights"}
    assert squared_error(expected.data, x) + 5 < squared_error(fitting.data, x)


def test_one_pass_recovers_what_the_features_determine():
    x = pictures(5, 0)
    oracle, found = invert(nn.Flatten(), x, pictures(300, 1))
    assert psnr(found.data, x).mean() > 18
    assert oracle.queries == 300, "every public picture is sent once"
    assert oracle.reads == {"client-queries"}
    _, wrong = invert(nn.Flatten(), x, pictures(300, 1), pairs="shuffled")
    assert psnr(wrong.data, x).mean() < psnr(found.data, x).mean() - 4


def test_features_in_other_units_are_inverted_as_well():
    x, public = pictures(5, 0), pictures(300, 1)
    _, found = invert(nn.Flatten(), x, public)

    class Loud(nn.Module):
        def forward(self, x):
            return 1000 * x.flatten(1) - 300

    _, same = invert(Loud(), x, public)
    torch.testing.assert_close(found.data, same.data, atol=0.02, rtol=0)


# --- threat model, options, claims


def test_the_client_is_only_asked():
    x = pictures(2, 0)
    for grant in ("weights", "none"):
        with pytest.raises(AccessDenied):
            invert(nn.Flatten(), x, x, grant=grant, steps=1)
    with pytest.raises(AccessDenied):
        invert(nn.Flatten(), x, x, error="features", steps=1)


@pytest.mark.parametrize(
    "changes",
    [{"width": 0}, {"steps": 0}, {"batch": 1}, {"slope": 1.0}, {"lr": 0.0}, {"error": "sound"}, {"pairs": "odd"}],
)
def test_wrong_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        InversionConfig(**changes)
