"""MID: the divergence by hand and against torch.distributions, limits, and noise that repeats."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from implementations.classifier import mid
from implementations.threat_model import classifier_target


def test_information_by_hand():
    one = torch.ones(1, 1, device="cpu")
    torch.testing.assert_close(mid.information(0 * one, one), torch.zeros(1, device="cpu"))
    torch.testing.assert_close(mid.information(2 * one, one), torch.tensor([2.0], device="cpu"))
    expected = 0.5 * (4 - 1 - 2 * math.log(2))
    torch.testing.assert_close(mid.information(0 * one, 2 * one), torch.tensor([expected], device="cpu"))


def test_information_is_the_divergence_from_a_standard_normal():
    random = torch.Generator("cpu").manual_seed(0)
    mean = torch.randn(3, 5, generator=random, device="cpu")
    deviation = torch.rand(3, 5, generator=random, device="cpu") + 0.1
    standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(Normal(mean, deviation), standard).sum(dim=1)
    torch.testing.assert_close(mid.information(mean, deviation), expected)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return mid.BottleneckCNN(1, 8, 3, bottleneck=4, seed=1, use_mean=False)


def test_zero_weight_is_the_cross_entropy(network):
    x, y = torch.rand(2, 1, 8, 8, device="cpu"), torch.tensor([0, 2], device="cpu")
    plain = mid.mid_loss(network, x, y, 0.0)
    network.calls = 0
    expected = torch.nn.functional.cross_entropy(network(x), y)
    torch.testing.assert_close(plain, expected)
    network.calls = 0
    assert mid.mid_loss(network, x, y, 1.0) > plain


def test_every_query_gets_fresh_noise_that_repeats(network):
    x = torch.rand(2, 1, 8, 8, device="cpu")
    target = classifier_target(network.eval(), "cpu")
    one, other = target.grant("white-box"), target.grant("white-box")
    first, second = one(x), one(x)
    assert not torch.equal(first, second)
    assert torch.equal(first, other(x))
    network.use_mean = True
    still = classifier_target(network, "cpu").grant("white-box")
    assert torch.equal(still(x), still(x))


def test_rejects_impossible_settings():
    with pytest.raises(ValueError, match="negative"):
        mid.MidConfig(information_weight=-1.0)
    with pytest.raises(ValueError, match="unit"):
        mid.MidConfig(bottleneck=0)
