"""BREP-MI: the sphere, the repulsion estimate by hand and against the true normal, and the walk to a known centre."""

import pytest
import torch
from torch import nn

from implementations.classifier import brep_mi
from implementations.common.priors import Prior
from implementations.threat_model import Knowledge, LabelOnly


def test_points_lie_on_the_sphere():
    random = torch.Generator("cpu").manual_seed(0)
    radius = torch.tensor([1.0, 3.0], device="cpu")
    offsets = brep_mi.sphere(50, 2, 5, radius, random)
    torch.testing.assert_close(offsets.norm(dim=2), radius[:, None].expand(2, 50))
    assert offsets.mean(dim=1).norm(dim=1).max() < 1.0


def test_repulsion_by_hand():
    offsets = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]]], device="cpu")
    inside = torch.tensor([[False, True, True, True]], device="cpu")
    radius = torch.tensor([2.0], device="cpu")
    torch.testing.assert_close(brep_mi.repulsion(offsets, inside, radius), torch.tensor([[-0.25, 0.0]], device="cpu"))


def test_nothing_outside_means_no_direction():
    offsets = torch.ones(1, 3, 2, device="cpu")
    inside = torch.ones(1, 3, dtype=torch.bool, device="cpu")
    assert brep_mi.repulsion(offsets, inside, torch.ones(1, device="cpu")).abs().sum() == 0


def test_repulsion_points_away_from_a_plane():
    random = torch.Generator("cpu").manual_seed(1)
    radius = torch.tensor([1.0], device="cpu")
    offsets = brep_mi.sphere(4000, 1, 3, radius, random)
    direction = brep_mi.repulsion(offsets, offsets[:, :, 0] < 0.2, radius)[0]
    assert torch.nn.functional.cosine_similarity(direction, torch.tensor([-1.0, 0.0, 0.0], device="cpu"), dim=0) > 0.99


class Codes(nn.Module):
    latent = 2

    def forward(self, z):
        return z.view(-1, 1, 1, 2)


def walk(monkeypatch, direction, seed):
    """Two classes are discs round (0.8, 0) and (-0.8, 0), radius 0.7; all else is a third class."""
    centres = torch.tensor([[0.8, 0.0], [-0.8, 0.0]], device="cpu")

    def ask(x):
        distance = torch.cdist(x.flatten(1), centres)
        return torch.cat([0.7 - distance, torch.zeros(len(x), 1, device="cpu")], dim=1)

    monkeypatch.setattr(brep_mi, "public_gan", lambda images, options: Prior(Codes(), nn.Identity(), 0.0))
    oracle = LabelOnly(ask, "cpu")
    config = brep_mi.BrepMiConfig(direction=direction, points=32, radius=0.3, rounds=60, growth=1.15, seed=seed)
    found = brep_mi.attack(oracle, Knowledge(public_images=torch.zeros(1, device="cpu"), num_classes=2), config)
    return (found.data.view(2, 2) - centres).norm(dim=1).mean().item(), found


def test_the_walk_ends_near_the_centre_and_a_random_walk_does_not(monkeypatch):
    away, found = zip(*(walk(monkeypatch, "repulsion", seed) for seed in range(3)), strict=True)
    astray, _ = zip(*(walk(monkeypatch, "random", seed) for seed in range(3)), strict=True)
    assert sum(away) / 3 < 0.2
    assert sum(astray) / 3 > 1.5 * sum(away) / 3
    assert all(result.notes["classes_found"] == 1.0 for result in found)


@pytest.mark.parametrize("wrong", [{"direction": "up"}, {"radius": 0.0}, {"inside": 0.0}, {"points": 0}])
def test_rejects_impossible_settings(wrong):
    with pytest.raises(ValueError, match="|".join([*wrong, "counts"])):
        brep_mi.BrepMiConfig(**wrong)
