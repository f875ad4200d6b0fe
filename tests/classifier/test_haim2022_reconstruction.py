"""Reconstruction from weights: losses by hand, the smooth ReLU, the margin setting, and a network whose data must come back."""

import dataclasses
import math

import pytest
import torch

from implementations.classifier import haim2022_reconstruction as haim
from implementations.classifier import margin_setting as margin
from implementations.common.training import seeded_weights
from implementations.threat_model import Knowledge, WhiteBox


def random(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def test_smooth_relu_is_relu_in_value_and_sigmoid_in_derivative():
    h = torch.tensor([-0.5, 0.0, 0.02, 3.0], device="cpu", requires_grad=True)
    value = haim.smooth_relu(h, 10.0)
    assert torch.equal(value, h.relu())
    (slope,) = torch.autograd.grad(value.sum(), h, create_graph=True)
    torch.testing.assert_close(slope, (10 * h).sigmoid())
    assert torch.autograd.grad(slope.sum(), h)[0][1] == pytest.approx(2.5), "its second derivative is there: 10 / 4 at 0"


def test_output_is_that_of_the_network():
    with seeded_weights(0):
        network = margin.MarginMLP(torch.full((1, 1, 2, 2), 0.5, device="cpu"), 5, 0.5)
    x = torch.rand(3, 1, 2, 2, generator=random(), device="cpu")
    found = haim.output(x.flatten(1) - 0.5, list(network.parameters()), 100.0)
    torch.testing.assert_close(found, network(x))


def test_stationarity_by_hand():
    """Phi = w x: the gradient is x, so that the loss is (w - mean of lambda y x)^2."""
    weight = torch.tensor([2.0], device="cpu", requires_grad=True)
    x, y = torch.tensor([1.0, 3.0], device="cpu"), torch.tensor([1.0, -1.0], device="cpu")
    loss = haim.stationarity_loss(weight * x, torch.tensor([4.0, 0.5], device="cpu"), y, [weight])
    assert loss.item() == pytest.approx((2 - (4 - 1.5) / 2) ** 2)


def test_penalties_by_hand():
    assert haim.multiplier_penalty(torch.tensor([0.1, 0.3, 5.0], device="cpu"), 0.3).item() == pytest.approx(0.04)
    assert haim.range_penalty(torch.tensor([[0.5, -1.5, 1.0]], device="cpu")).item() == pytest.approx(0.25)
    outputs, signs = torch.tensor([3.0, 1.0, -2.0], device="cpu"), torch.tensor([1.0, 1.0, -1.0], device="cpu")
    assert haim.output_loss(outputs, signs).item() == pytest.approx(-2 - 2)


def test_log_loss_is_the_logistic_loss_and_survives_where_that_is_zero():
    margins = torch.tensor([0.5, -1.0, 3.0], device="cpu")
    expected = (1 + (-margins).exp()).log().sum().log()
    torch.testing.assert_close(margin.log_loss(margins), expected)
    far = torch.tensor([300.0, 301.0], device="cpu", requires_grad=True)
    assert margin.log_loss(far).item() == pytest.approx(-300 + math.log(1 + math.exp(-1)), abs=1e-3)
    assert torch.autograd.grad(margin.log_loss(far), far)[0][0].item() == pytest.approx(-1 / (1 + math.exp(-1)), abs=1e-3)


def test_network_is_homogeneous_of_degree_three():
    with seeded_weights(1):
        network = margin.MarginMLP(torch.zeros(1, 1, 2, 2, device="cpu"), 7, 0.3)
    x = torch.rand(4, 1, 2, 2, generator=random(), device="cpu")
    before = network(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 2
    torch.testing.assert_close(network(x), 8 * before)


def test_contrast_and_brightness_do_not_count():
    x = torch.rand(3, 1, 4, 4, generator=random(), device="cpu")
    torch.testing.assert_close(margin.stretched(0.1 + 0.2 * x), margin.stretched(x))
    assert margin.correlation_distance(x, 0.1 + 0.2 * x).diagonal().abs().max() < 1e-5
    assert margin.correlation_distance(x, -x).diagonal() == pytest.approx(4 * 15 / 16)


def toy(seed=0, **changes):
    """Distance of each of four training pictures to the nearest of eight candidates."""
    data = torch.rand(4, 1, 4, 4, generator=random(3), device="cpu")
    signs = torch.tensor([-1.0, -1.0, 1.0, 1.0], device="cpu")
    with seeded_weights(1):
        network = margin.MarginMLP(torch.full((1, 1, 4, 4), 0.5, device="cpu"), 100, first_scale=1e-2)
    margin.train_to_the_margin(network, data, signs, margin.MarginConfig(steps=400))
    assert (signs * network(data)).min() > 0.3, "the network has its pictures by heart"
    config = haim.HaimConfig(per_class=4, steps=400, seed=seed, **changes)
    found = haim.attack(WhiteBox(network, "cpu"), Knowledge(image_shape=(1, 4, 4)), config)
    assert found.data.shape == (2, 4, 1, 4, 4)
    return margin.correlation_distance(data, found.data.flatten(0, 1)).min(dim=1).values


@pytest.mark.parametrize("seed", range(2))
def test_training_pictures_come_back_and_raising_the_output_does_not_find_them(seed):
    distances = toy(seed)
    assert distances.mean() < 0.35
    assert (distances < 0.3).sum() >= 3
    assert toy(seed, objective="output").mean() > 2 * distances.mean()


@pytest.mark.parametrize("wrong", [{"objective": "none"}, {"per_class": 0}, {"lr": 0.0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(haim.HaimConfig(), **wrong)


@pytest.mark.parametrize("wrong", [{"data": "faces"}, {"size": 20}, {"per_class": 0}])
def test_setting_rejects_impossible_options(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        margin.MarginConfig(**wrong)
