"""Class models: the objective by hand, the closed form for a linear network, and what a probability does instead."""

import dataclasses

import pytest
import torch
from torch import nn

from implementations.classifier import simonyan2014_deep_inside as deep_inside
from implementations.threat_model import Knowledge, classifier_target


def test_score_and_probability_by_hand():
    logits = torch.tensor([[2.0, 2.0], [1.0, 3.0]], device="cpu")
    labels = torch.tensor([0, 1], device="cpu")
    torch.testing.assert_close(deep_inside.class_score(logits, labels), torch.tensor([2.0, 3.0], device="cpu"))
    expected = torch.tensor([0.5, 1 / (1 + torch.e**-2)], device="cpu")
    torch.testing.assert_close(deep_inside.class_probability(logits, labels), expected)


def test_a_constant_on_all_scores_moves_the_score_only():
    logits, labels = torch.tensor([[2.0, 1.0]], device="cpu"), torch.zeros(1, dtype=torch.int64, device="cpu")
    assert deep_inside.class_score(logits + 5, labels) == deep_inside.class_score(logits, labels) + 5
    torch.testing.assert_close(deep_inside.class_probability(logits + 5, labels), deep_inside.class_probability(logits, labels))


def test_objective_by_hand():
    value = torch.tensor([7.0, 7.0], device="cpu")
    picture = torch.tensor([[1.0, -2.0], [0.0, 0.0]], device="cpu").view(2, 1, 1, 2)
    torch.testing.assert_close(deep_inside.objective(value, picture, 0.5), torch.tensor([4.5, 7.0], device="cpu"))
    assert torch.equal(deep_inside.objective(value, picture, 0.0), value)


class Linear(nn.Module):
    """Scores linear in the picture around mid-grey."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x * 2 - 1).flatten(1) @ self.weight.T


def invert(weight, **changes):
    oracle = classifier_target(Linear(weight), "cpu").grant("white-box")
    knowledge = Knowledge(num_classes=len(weight), image_shape=(1, 2, 2))
    return deep_inside.attack(oracle, knowledge, dataclasses.replace(deep_inside.DeepInsideConfig(), **changes))


@pytest.mark.parametrize("seed", range(3))
def test_linear_network_gives_its_weights_exactly(seed):
    weight = torch.randn(3, 4, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    found = invert(weight, penalty=2.0, lr=0.05, steps=400)
    expected = ((weight / (2 * 2.0) + 1) / 2).clamp(0, 1)  # the maximum of w.I - lambda |I|^2 is w / (2 lambda)
    torch.testing.assert_close(found.data.view(3, 4), expected, rtol=0, atol=1e-4)


def test_probability_draws_what_the_other_classes_are_not():
    weight = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], device="cpu")
    score = invert(weight, penalty=2.0, lr=0.05, steps=400).data.view(2, 4)
    probability = invert(weight, penalty=2.0, lr=0.05, steps=400, objective="probability").data.view(2, 4)
    torch.testing.assert_close(score[0, 1:], torch.full((3,), 0.5, device="cpu"))  # untouched
    assert probability[0, 1] < 0.49, "lowering the other class raises the probability as well"


def test_without_a_penalty_the_picture_grows_without_end():
    weight = torch.tensor([[0.3, -0.3, 0.3, -0.3]], device="cpu")
    free, held = (invert(weight, penalty=penalty, lr=0.5, steps=60) for penalty in (0.0, 0.5))
    assert free.notes["clipped"] == 1.0
    assert held.notes["clipped"] == 0.0
    assert free.history["norm"][-1] > 2 * free.history["norm"][len(free.history["norm"]) // 2]


def test_one_step_is_plain_ascent():
    weight = torch.tensor([[0.2, 0.0, -0.4, 0.1]], device="cpu")
    found = invert(weight, lr=1.0, steps=1)
    torch.testing.assert_close(found.data.view(4), ((weight[0] + 1) / 2))


@pytest.mark.parametrize("wrong", [{"objective": "loss"}, {"penalty": -1.0}, {"lr": 0.0}, {"steps": 0}, {"start": -1.0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(deep_inside.DeepInsideConfig(), **wrong)
