"""MI-Face: cost by hand, one descent step in closed form, stopping rules, rounding kills the gradient."""

import pytest
import torch
from torch import nn

from implementations.classifier import fredrikson2015_confidence as mi_face
from implementations.threat_model import Knowledge, classifier_target


def softmax_target(weight):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    linear[1].weight.data = torch.tensor(weight, device="cpu")
    return classifier_target(linear, "cpu").grant("white-box")


def knowledge():
    return Knowledge(num_classes=2, image_shape=(1, 1, 2))


def test_cost_by_hand():
    logits = torch.tensor([[0.0, 0.0], [torch.log(torch.tensor(3.0)).item(), 0.0]], device="cpu")
    labels = torch.tensor([0, 0], device="cpu")
    torch.testing.assert_close(mi_face.cost(logits, labels), torch.tensor([0.5, 0.25], device="cpu"))


def test_one_step_in_closed_form():
    """From grey, the gradient of the confidence in class 0 is p0 p1 (w0 - w1), with p0 = sigmoid(2/2 - 1/2)."""
    oracle = softmax_target([[2.0, 0.0], [0.0, 1.0]])
    found = mi_face.attack(oracle, knowledge(), mi_face.ConfidenceConfig(steps=2, lr=0.1))
    moved = found.data[0, 0].flatten()
    p = torch.sigmoid(torch.tensor(0.5, device="cpu")).item()
    step = 0.1 * p * (1 - p)
    torch.testing.assert_close(moved, torch.tensor([0.5 + 2 * step, 0.5 - step], device="cpu"))


def test_rounded_confidences_have_no_gradient():
    oracle = softmax_target([[2.0, 0.0], [0.0, 1.0]])
    found = mi_face.attack(oracle, knowledge(), mi_face.ConfidenceConfig(steps=50, decimals=1))
    assert (found.data == 0.5).all()


def test_stops_when_sure_enough_and_when_stuck():
    sure = mi_face.attack(softmax_target([[9.0, 0.0], [0.0, 9.0]]), knowledge(), mi_face.ConfidenceConfig(enough=0.8, lr=1.0))
    assert sure.notes["steps"] < 20
    flat = mi_face.attack(softmax_target([[0.0, 0.0], [0.0, 0.0]]), knowledge(), mi_face.ConfidenceConfig(patience=7))
    assert flat.notes["steps"] == 8


def test_recovers_the_most_confident_image_of_a_linear_model():
    oracle = softmax_target([[5.0, -5.0], [-5.0, 5.0]])
    found = mi_face.attack(oracle, knowledge(), mi_face.ConfidenceConfig(enough=1.0, steps=400, lr=1.0))
    torch.testing.assert_close(found.data[:, 0, 0, 0], torch.tensor([[1.0, 0.0], [0.0, 1.0]], device="cpu"), atol=0.05, rtol=0)


@pytest.mark.parametrize("wrong", [{"start": "mean"}, {"enough": 0.0}, {"steps": 0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        mi_face.ConfidenceConfig(**wrong)
