"""LOMMA: both terms of its loss by hand, why the logit does not saturate, the augmented loss, and distillation on a toy."""

import math

import pytest
import torch
from torch import nn

from implementations.classifier import lomma
from implementations.classifier.gmi import identity_loss
from implementations.classifier.students import StudentCNN, distillation_loss
from implementations.common.priors import Prior
from implementations.threat_model import classifier_target

CPU = "cpu"


def test_logit_loss_by_hand():
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]], device=CPU)
    labels = torch.tensor([1, 1], device=CPU)
    torch.testing.assert_close(lomma.logit_loss(logits, labels), torch.tensor([2.0, -3.0], device=CPU))


def test_the_logit_pulls_where_cross_entropy_is_content():
    logits = torch.tensor([[30.0, 0.0, 0.0]], device=CPU, requires_grad=True)
    labels = torch.zeros(1, dtype=torch.int64, device=CPU)
    (content,) = torch.autograd.grad(identity_loss(logits, labels).sum(), logits)
    (pulling,) = torch.autograd.grad(lomma.logit_loss(logits, labels).sum(), logits)
    assert content.abs().max() < 1e-6
    assert torch.equal(pulling, torch.tensor([[-1.0, 0.0, 0.0]], device=CPU))


def test_feature_penalty_by_hand_and_zero_at_the_mean():
    p_reg = torch.tensor([1.0, 2.0], device=CPU)
    features = torch.tensor([[1.0, 2.0], [3.0, 2.0]], device=CPU)
    torch.testing.assert_close(lomma.feature_penalty(features, p_reg), torch.tensor([0.0, 2.0], device=CPU))


def test_the_penalty_bounds_the_logit():
    """Without it the best features are infinite; with it they are p_reg + F w / (2 lambda)."""
    w, p_reg, weight = torch.tensor([3.0, -1.0], device=CPU), torch.tensor([0.5, 0.5], device=CPU), 2.0
    best = (p_reg + 2 * w / (2 * weight)).requires_grad_(True)
    loss = -(best @ w) + weight * lomma.feature_penalty(best[None], p_reg)[0]
    (gradient,) = torch.autograd.grad(loss, best)
    torch.testing.assert_close(gradient, torch.zeros(2, device=CPU))


def test_augmented_is_the_mean_and_without_students_the_target_alone():
    one, two = torch.tensor([1.0, 5.0], device=CPU), torch.tensor([3.0, 1.0], device=CPU)
    torch.testing.assert_close(lomma.augmented([one, two]), torch.tensor([2.0, 3.0], device=CPU))
    assert torch.equal(lomma.augmented([one]), one)


def test_watched_shows_what_enters_the_last_linear_layer():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    oracle = classifier_target(network, CPU).grant("white-box")
    x = torch.randn(5, 2, generator=torch.Generator(CPU).manual_seed(0), device=CPU)
    logits, features = lomma.Watched(oracle)(x)
    torch.testing.assert_close(features, network[:2](x))
    torch.testing.assert_close(logits, network(x))
    assert oracle.queries == 5


def test_distillation_loss_by_hand_and_zero_for_equals():
    logits = torch.tensor([[math.log(3.0), 0.0]], device=CPU)
    taught = torch.tensor([[0.5, 0.5]], device=CPU)
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert distillation_loss(logits, taught).item() == pytest.approx(expected, rel=1e-5)
    assert distillation_loss(logits, logits.softmax(dim=1)).abs().item() < 1e-6


def test_a_student_takes_pictures_and_gives_logits():
    student = StudentCNN(3, 32, 7, width=2).eval()
    assert student(torch.zeros(2, 3, 32, 32, device=CPU)).shape == (2, 7)


class Codes(nn.Module):
    latent = 2

    def forward(self, z):
        return z


class Indifferent(nn.Module):
    def forward(self, x):
        return x.sum(dim=1) * 0


def linear(weight):
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor(weight, device=CPU)
    return layer


def end_of(students, seed=2):
    """The target reads the class off the first coordinate and, as its quirk, off the second."""
    target = linear([[1.0, 2.0], [-1.0, -2.0]])
    oracle = lomma.Watched(classifier_target(target, CPU).grant("white-box"))
    config = lomma.LommaConfig(lr=0.0005, steps=20, feature_weight=0.0, students=0, seed=seed)
    labels, p_reg = torch.zeros(1, dtype=torch.int64, device=CPU), torch.zeros(2, device=CPU)
    prior = Prior(Codes(), Indifferent(), 0.0)
    start = prior.sample(1, config.generator(CPU)).clamp(-1, 1)
    moved = lomma.search(oracle, students, p_reg, prior, labels, config)[0] - start
    return moved[0], start[0]


def test_a_student_without_the_quirk_turns_the_search_away_from_it():
    alone, start = end_of([])
    student = linear([[1.0, -2.0], [-1.0, 2.0]]).requires_grad_(False)  # agrees on the first coordinate only
    together, _ = end_of([student])
    assert start.abs().max() < 0.5, "there is room to follow the quirk"
    assert alone[1] > 0.05
    assert together[1].abs() < 1e-5
    assert together[0] > 0.05


def test_objective_by_hand_with_and_without_its_penalty():
    target = lomma.Watched(classifier_target(linear([[1.0, 2.0], [-1.0, -2.0]]), CPU).grant("white-box"))
    images, labels = torch.tensor([[3.0, 1.0]], device=CPU), torch.zeros(1, dtype=torch.int64, device=CPU)  # logits 5, -5
    p_reg = torch.tensor([1.0, 1.0], device=CPU)  # the features are the images: penalty (4 + 0) / 2
    for weight, expected in ((0.0, -5.0), (1.5, -5.0 + 1.5 * 2.0)):
        config = lomma.LommaConfig(feature_weight=weight, students=0)
        value, _ = lomma.objective(target, [], p_reg, images, labels, config)
        torch.testing.assert_close(value, torch.tensor([expected], device=CPU))
    config = lomma.LommaConfig(loss="cross-entropy", feature_weight=1.5, students=0)
    value, confidence = lomma.objective(target, [], p_reg, images, labels, config)
    torch.testing.assert_close(value, torch.log1p(torch.tensor([-10.0], device=CPU).exp()))
    torch.testing.assert_close(confidence, (-value).exp())


@pytest.mark.parametrize(
    "wrong", [{"loss": "hinge"}, {"students": 4}, {"steps": 0}, {"per_class": 0}, {"feature_weight": -1.0}]
)
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        lomma.LommaConfig(**wrong)
