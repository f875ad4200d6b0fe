"""XAI-aware inversion: explanations by hand, losses, the networks' form, and what a map adds to scores on a toy."""

import dataclasses

import pytest
import torch
from torch import nn

from implementations.classifier import explainers, xai_mi
from implementations.classifier.explanation_setting import ExplanationConfig, ObservedExplanations
from implementations.classifier.networks import SmallCNN
from implementations.threat_model import Knowledge


class Linear(nn.Module):
    """Two logits of a picture (1, 2, 2): its first pixel times 3, its last times -2 plus 1."""

    def forward(self, x):
        flat = x.flatten(1)
        return torch.stack([3 * flat[:, 0], 1 - 2 * flat[:, 3]], dim=1)


def pictures(*rows):
    return torch.tensor(rows, device="cpu").view(-1, 1, 2, 2)


def test_gradient_explains_the_likeliest_class():
    maps = explainers.gradient(Linear(), pictures([1.0, 0, 0, 0], [0.0, 0, 0, 0.25]))
    assert maps.flatten(1).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]  # 3 and |-2|, scaled to 1


def test_gradient_times_input_keeps_the_sign():
    maps = explainers.gradient_times_input(Linear(), pictures([1.0, 0, 0, 0], [0.0, 0, 0, 0.25]))
    assert maps.flatten(1).tolist() == [[1, 0, 0, 0], [0, 0, 0, -1]]


def test_gradient_takes_the_strongest_channel():
    class Channels(nn.Module):
        def forward(self, x):
            return (x * torch.tensor([1.0, -4.0, 2.0], device="cpu").view(3, 1, 1)).flatten(1).sum(dim=1, keepdim=True)

    x = torch.zeros(1, 3, 2, 2, device="cpu")
    gradient = explainers.input_gradient(Channels(), x)
    assert gradient.abs().amax(dim=1).unique().tolist() == [4.0]


def test_grad_cam_by_hand():
    network = nn.Module()
    network.body = nn.Sequential(nn.Identity(), nn.Flatten())
    network.head = nn.Linear(8, 1, bias=False)
    network.head.weight.data = torch.tensor([[1.0, 1, 1, 1, -1, -1, -1, -1]], device="cpu")  # mean gradients 1 and -1
    x = torch.tensor([[[[1.0, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 1.0]]]], device="cpu")
    # 2 x - 1 is 1 in one corner of each channel and 0 elsewhere; the second channel counts against and is rectified
    assert explainers.grad_cam(network, x).flatten().tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", explainers.EXPLAINERS)
def test_explanations_of_a_target_are_maps(kind):
    network = SmallCNN(3, 32, 5, width=4).eval()
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    with torch.no_grad():
        maps = explainers.EXPLAINERS[kind](network, x)
    assert maps.shape == (3, 1, 32, 32)
    assert not maps.requires_grad
    assert maps.abs().amax() <= 1
    torch.testing.assert_close(explainers.EXPLAINERS[kind](network, x[1:2]), maps[1:2], rtol=1e-3, atol=1e-4)


def test_losses_by_hand():
    rebuilt, x = torch.tensor([[[[0.5]]]], device="cpu"), torch.tensor([[[[0.1]]]], device="cpu")
    guessed, maps = torch.tensor([[[[1.0]]]], device="cpu"), torch.tensor([[[[0.5]]]], device="cpu")
    torch.testing.assert_close(xai_mi.reconstruction_loss(rebuilt, x), torch.tensor(0.16, device="cpu"))
    torch.testing.assert_close(xai_mi.transfer_loss(rebuilt, x, guessed, maps, 2.0), torch.tensor(0.66, device="cpu"))


@pytest.mark.parametrize(("size", "spatial"), [(8, True), (32, True), (32, False)])
def test_inversion_model_makes_pictures(size, spatial):
    model = xai_mi.InversionModel(5, 3, size, 4, spatial)
    made = model(torch.zeros(2, 5, device="cpu"), torch.zeros(2, 1, size, size, device="cpu"))
    assert made.shape == (2, 3, size, size)
    assert made.min() >= 0
    assert made.max() <= 1


def test_inversion_model_refuses_other_sizes():
    with pytest.raises(ValueError, match="12"):
        xai_mi.InversionModel(5, 1, 12, 4, True)


def toy(seed=0, shift=0, **changes):
    """Pictures with one bright row; scores tell its brightness and the map its place. Error of the attack on 40 of them."""
    g = torch.Generator("cpu").manual_seed(5)
    rows = torch.randint(8, (440,), generator=g, device="cpu")
    bright = 0.2 + 0.8 * torch.rand(440, generator=g, device="cpu")
    x = torch.zeros(440, 1, 8, 8, device="cpu")
    x[torch.arange(440, device="cpu"), 0, rows] = bright[:, None]

    def ask(x):
        level = x.amax(dim=(1, 2, 3))
        return torch.stack([level, 1 - level + 1e-3], dim=1), ((x > 0.1).float() * 1.0).roll(shift, 2)

    oracle = ObservedExplanations(ask, ask(x[400:]), "cpu")
    knowledge = Knowledge(public_images=x[:400], image_shape=(1, 8, 8))
    config = xai_mi.XaiMiConfig(steps=120, batch=64, width=6, surrogate_epochs=1, seed=seed, **changes)
    found = xai_mi.attack(oracle, knowledge, config)
    assert found.data.shape == (40, 1, 1, 8, 8)
    assert oracle.queries == 400, "the target is asked once for each public picture"
    return (found.data[:, 0] - x[400:]).square().mean().item()


@pytest.mark.parametrize("seed", range(2))
def test_a_map_shows_where_and_scores_do_not(seed):
    blind = toy(seed, inputs="scores")
    assert toy(seed) < 0.3 * blind
    assert toy(seed, spatial=False) < 0.5 * blind


def test_a_guessed_map_tells_no_more_than_the_scores_it_was_guessed_from():
    assert toy(inputs="guessed") > 0.6 * toy(inputs="scores")


@pytest.mark.parametrize("wrong", [{"inputs": "map"}, {"steps": 0}, {"explanation_weight": -1.0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(xai_mi.XaiMiConfig(), **wrong)


@pytest.mark.parametrize("wrong", [{"explanation": "words"}, {"architecture": "vit"}])
def test_setting_rejects_impossible_options(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExplanationConfig(**wrong)
