"""Ensemble inversion: its loss by hand, one query for all members, the ensemble as a network, a toy with a shared truth."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from implementations.classifier import ensemble_inversion
from implementations.classifier.ensembles import Ensemble, EnsembleConfig
from implementations.threat_model import Knowledge, classifier_target

CPU = "cpu"


def tensor(*values):
    return torch.tensor(values, device=CPU)


def test_loss_by_hand():
    logits = tensor([[math.log(3.0), 0.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]])  # two models, two pictures, two classes
    loss = ensemble_inversion.inversion_loss(logits, tensor(0, 1), response_weight=0.5)
    first = (-math.log(0.75) - 0.5 * math.log(3.0) + math.log(2.0)) / 2
    second = (math.log1p(math.exp(-2.0)) - 0.5 * 2.0 + math.log(2.0)) / 2
    torch.testing.assert_close(loss, tensor(first, second))


def test_without_its_second_term_the_loss_is_cross_entropy():
    logits = torch.randn(1, 4, 3, generator=torch.Generator(CPU).manual_seed(0), device=CPU)
    labels = tensor(0, 1, 2, 0)
    loss = ensemble_inversion.inversion_loss(logits, labels, 0.0)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits[0], labels, reduction="none"))


def test_the_response_term_pulls_where_cross_entropy_is_content():
    logits = tensor([[[30.0, 0.0]]]).flatten(0, 1).requires_grad_(True)  # (1, 1, 2)
    loss = ensemble_inversion.inversion_loss(logits, tensor(0), response_weight=0.1)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient, tensor([[-0.1, 0.0]]))


class Linear(nn.Module):
    """Class 1 against class 0 by a weighting (S * S,) of pixels."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x):
        value = ((x - 0.5).flatten(1) * self.weights).sum(dim=1)
        return torch.stack([-value, value], dim=1)


def truth_and_quirks(members):
    """Members all read the left half of a picture; each also reads a sixteenth of the right half, twice as strongly."""
    weights = []
    left = torch.zeros(8, 8, device=CPU)
    left[:, :4] = 0.15
    for member in range(members):
        one = left.clone()
        one[2 * member : 2 * member + 2, 4:] = 0.6
        weights.append(one.flatten())
    return Ensemble([Linear(weight) for weight in weights])


def test_ensemble_is_a_network_with_the_mean_of_log_probabilities():
    ensemble = truth_and_quirks(2)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator(CPU).manual_seed(0), device=CPU)
    one, two = (member(x).log_softmax(dim=1) for member in ensemble.members)
    torch.testing.assert_close(ensemble(x), (one + two) / 2)
    alone = Ensemble([ensemble.members[0]])
    torch.testing.assert_close(alone(x).softmax(dim=1), ensemble.members[0](x).softmax(dim=1))


def test_one_query_is_heard_from_every_member_or_from_the_chosen_one():
    ensemble = truth_and_quirks(3)
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator(CPU).manual_seed(0), device=CPU)
    oracle = classifier_target(ensemble, CPU).grant("white-box")
    logits = ensemble_inversion.Listened(oracle, ensemble_inversion.ALL)(x)
    torch.testing.assert_close(logits, torch.stack([member(x) for member in ensemble.members]))
    assert oracle.queries == 5
    oracle = classifier_target(ensemble, CPU).grant("white-box")
    chosen = ensemble_inversion.Listened(oracle, 1)
    for _ in range(2):  # nothing is left over from the call before
        torch.testing.assert_close(chosen(x), ensemble.members[1](x)[None])
    assert oracle.queries == 10


SMALL = ensemble_inversion.EnsembleInversionConfig(steps=60, lr=5e-3, ema=0.8, latent=4, prior_width=4, auxiliary="none")


def toy(members=4, **changes):
    """Contrast between the two classes in the part that all members read, and in the quirk of the first."""
    oracle = classifier_target(truth_and_quirks(members), CPU).grant("white-box")
    knowledge = Knowledge(num_classes=2, image_shape=(1, 8, 8))
    found = ensemble_inversion.attack(oracle, knowledge, dataclasses.replace(SMALL, **changes)).data
    assert found.shape == (2, 2, 1, 8, 8)
    contrast = (found[1] - found[0]).mean(dim=(0, 1))  # (8, 8)
    return contrast[:, :4].mean(), contrast[:2, 4:].mean()


@pytest.mark.parametrize("seed", range(2))
def test_all_models_show_what_they_share_and_one_shows_its_quirk(seed):
    shared, quirk = toy(seed=seed)
    alone_shared, alone_quirk = toy(seed=seed, model=0)
    assert shared > 0.3
    assert shared / quirk > 1.1 * alone_shared / alone_quirk


def test_public_pictures_are_read_only_where_they_are_used(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    public = torch.rand(40, 1, 8, 8, generator=torch.Generator(CPU).manual_seed(0), device=CPU)
    for auxiliary, read in (("none", False), ("public", True)):
        knowledge = Knowledge(num_classes=2, image_shape=(1, 8, 8), public_images=public)
        config = dataclasses.replace(SMALL, auxiliary=auxiliary, steps=2, prior_steps=2)
        ensemble_inversion.attack(classifier_target(truth_and_quirks(2), CPU).grant("white-box"), knowledge, config)
        assert ("public-images" in knowledge.reads) == read


@pytest.mark.parametrize(
    "wrong", [{"model": -2}, {"auxiliary": "private"}, {"response_weight": -1.0}, {"ema": 1.0}, {"steps": 0}]
)
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ensemble_inversion.EnsembleInversionConfig(**wrong)


@pytest.mark.parametrize("further", [(), ("cnn", "forest")])
def test_rejects_impossible_ensembles(further):
    with pytest.raises(ValueError, match="further"):
        EnsembleConfig(further=further)
