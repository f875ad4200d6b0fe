"""The filter of draws by hand, what guidance and labels do on a toy, and the options."""

import dataclasses

import pytest
import torch

from implementations.classifier import liu2024_unstoppable as liu
from implementations.threat_model import Knowledge, LabelOnly


def generator(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def bright(x):
    """Scores of two classes: dark (0) and bright (1) pictures."""
    tone = x.mean(dim=(1, 2, 3))
    return torch.stack([0.5 - tone, tone - 0.5], dim=1)


def oracle():
    return LabelOnly(bright, "cpu")


def flat(*tones):
    return torch.tensor(tones, device="cpu")[:, None, None, None].expand(-1, 1, 8, 8).clone()


def test_robustness_counts_the_views_that_keep_the_label():
    images, labels = flat(0.1, 0.9, 0.9, 0.5), torch.tensor([0, 1, 0, 1], device="cpu")
    asked = oracle()
    found = liu.robustness(asked, images, labels, generator(), 20)
    assert found[:3].tolist() == [1.0, 1.0, 0.0]
    assert 0.2 < found[3] < 0.8, "a picture on the boundary keeps its label in some views only"
    assert asked.queries == 80


def test_representativeness_is_largest_at_the_mean_of_the_class():
    draws = flat(0.0, 0.4, 0.8, 0.5, 0.5, 0.5).view(2, 3, 1, 8, 8)
    found = liu.representativeness(draws)
    assert found[0].tolist() == pytest.approx([-1.0, 0.0, -1.0])
    assert found[1].tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-5)


def test_filter_prefers_robust_draws_and_among_equals_representative_ones():
    draws = flat(0.0, 0.3, 0.8, 0.5).view(1, 4, 1, 8, 8)  # mean 0.4
    equal = torch.ones(1, 4, device="cpu")
    assert liu.filter_draws(draws, equal, 2, 4)[0, :, 0, 0, 0].tolist() == pytest.approx([0.3, 0.5])
    one_vote = torch.tensor([[1.0, 0.75, 0.75, 0.75]], device="cpu")
    assert liu.filter_draws(draws, one_vote, 1, 4)[0, 0, 0, 0, 0] == 0.0, "one vote of four outweighs any distance"


def pictures():
    return (flat(*([0.2] * 40 + [0.8] * 40)) + 0.05 * torch.randn(80, 1, 8, 8, generator=generator(), device="cpu")).clamp(0, 1)


def config(**changes):
    small = {"prior_steps": 150, "prior_width": 8, "gan_steps": 2, "gan_width": 2, "draw_steps": 5, "draws": 4, "per_class": 2}
    return liu.Liu2024UnstoppableConfig(**{**small, "views": 0, **changes})


def test_labels_alone_give_pictures_of_each_class(tmp_path, monkeypatch):
    """With the class the draws are of its tone; without it they are not, so that the label is what makes them so."""
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    asked = oracle()
    found = liu.attack(asked, Knowledge(public_images=pictures(), num_classes=2), config())
    tones = found.data.mean(dim=(1, 2, 3, 4))
    assert tones[0] < 0.35 < 0.65 < tones[1]
    assert asked.queries == 80, "one answer for each public picture and none for the draws"
    free = liu.attack(oracle(), Knowledge(public_images=pictures(), num_classes=2), config(condition="nothing", draws=16))
    assert (bright(free.trajectory[0][0]).argmax(dim=1) == 1).any(), "draws for class 0 without the label are of both kinds"


@pytest.mark.parametrize("changes", [{"kind": "gan"}, {"views": 2}, {"condition": "nothing"}, {"guidance": 1.0}])
def test_every_option_runs(tmp_path, monkeypatch, changes):
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    found = liu.attack(oracle(), Knowledge(public_images=pictures(), num_classes=2), config(**{"prior_steps": 2, **changes}))
    assert found.data.shape == (2, 2, 1, 8, 8)
    assert found.trajectory[0].shape == (2, 4, 1, 8, 8)
    assert 0 <= found.data.min() <= found.data.max() <= 1


@pytest.mark.parametrize(
    "wrong", [{"kind": "vae"}, {"condition": "text"}, {"guidance": 0.5}, {"per_class": 9}, {"views": -1}, {"draw_steps": 0}]
)
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(liu.Liu2024UnstoppableConfig(), **wrong)
