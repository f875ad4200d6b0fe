"""MIRROR: bounds in P by hand, clipping, the learning rate, and both searches on a toy that a quirk of the target misleads."""

import math

import pytest
import torch
from torch import nn

from implementations.classifier import mirror
from implementations.common.style_gan import to_p
from implementations.threat_model import Scores, classifier_target

CPU = "cpu"


def seeded(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def test_bounds_by_hand_and_none():
    p = torch.tensor([[-3.0, 1.0], [1.0, 1.0]], device=CPU)  # mean -1 and 1, deviation 2 and 0
    low, high = mirror.style_bounds(torch.tensor([[-0.6, 1.0], [1.0, 1.0]], device=CPU), 1.0)
    torch.testing.assert_close(to_p(torch.stack([low, high])), torch.tensor([[-3.0, 1.0], [1.0, 1.0]], device=CPU))
    assert p.mean(dim=0).tolist() == [-1.0, 1.0]
    low, high = mirror.style_bounds(torch.randn(5, 2, generator=seeded(), device=CPU), 0.0)
    w = torch.tensor([[1e9, -1e9]], device=CPU)
    assert torch.equal(mirror.clipped(w, (low, high)), w)


def test_clipping_leaves_inside_points_alone_and_takes_others_to_the_border():
    bounds = torch.tensor([-1.0, 0.0], device=CPU), torch.tensor([1.0, 2.0], device=CPU)
    w = torch.tensor([[0.5, 3.0], [-2.0, 1.0]], device=CPU)
    assert mirror.clipped(w, bounds).tolist() == [[0.5, 2.0], [-1.0, 1.0]]


def test_learning_rate_rises_stays_and_falls_to_zero():
    config = mirror.MirrorConfig(lr=2.0, steps=100, ramp_up=0.1, ramp_down=0.2)
    rates = [mirror.learning_rate(step, config) for step in range(100)]
    assert rates[4] == pytest.approx(1.0)
    assert rates[9] == rates[50] == pytest.approx(2.0)
    assert rates[89] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.0)


def test_crossover_takes_more_of_the_better_parent():
    parents = torch.stack([torch.zeros(1, 1, 4000, device=CPU), torch.ones(1, 1, 4000, device=CPU)], dim=1)
    fitness = torch.tensor([[[-1.0], [-3.0]]], device=CPU)  # log-scores: the first is better
    child = mirror.crossover(parents, fitness, seeded())
    assert child.mean().item() == pytest.approx(0.25, abs=0.03)
    perfect = mirror.crossover(parents, torch.tensor([[[0.0], [-3.0]]], device=CPU), seeded())
    assert perfect.sum() == 0


def test_mutation_moves_a_share_of_the_coordinates_by_at_most_its_size():
    config = mirror.MirrorConfig(mutated=0.3, mutation=0.5)
    w = torch.full((2, 3, 500), 4.0, device=CPU)
    moved = mirror.mutate(w, torch.full((500,), 2.0, device=CPU), config, seeded()) - w
    assert (moved != 0).float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert 0.9 < moved.abs().max() <= 1.0


class Quirk(nn.Module):
    """Pictures are styles (B, 2). Class 0 truly lies at a first coordinate of 1; a far second coordinate fools the target."""

    def forward(self, w):
        score = 2 - (w[:, 0] - 1).square() + w[:, 1]
        return torch.stack([score, -score], dim=1)


def as_picture(w):
    return w[:, None, None, :]


class FlatQuirk(Quirk):
    def forward(self, x):
        return super().forward(x.flatten(1))


def found_by_search(clip):
    oracle = classifier_target(FlatQuirk(), CPU).grant("white-box")
    config = mirror.MirrorConfig(steps=80, lr=0.2, clip=clip, flip=0.0)
    bounds = mirror.style_bounds(torch.randn(500, 2, generator=seeded(), device=CPU), clip)
    start, labels = torch.zeros(3, 2, device=CPU), torch.zeros(3, dtype=torch.int64, device=CPU)
    return mirror.search(oracle, as_picture, start, labels, bounds, config, seeded())[0], bounds


def test_search_finds_the_class_inside_the_bounds_and_the_quirk_without():
    (inside, bounds), (free, _) = found_by_search(1.0), found_by_search(0.0)
    assert (inside <= bounds[1] + 1e-6).all()
    assert inside[:, 0].min() > 0.5
    assert free[:, 1].min() > bounds[1][1] + 0.3


def test_search_keeps_the_best_style_met():
    """With steps far too large the last style is bad; the best one met is returned."""
    oracle = classifier_target(FlatQuirk(), CPU).grant("white-box")
    config = mirror.MirrorConfig(steps=3, lr=50.0, clip=0.0, flip=0.0, ramp_down=0.01)
    start, labels = torch.tensor([[1.0, 0.0]], device=CPU), torch.zeros(1, dtype=torch.int64, device=CPU)
    free = mirror.style_bounds(start, 0.0)
    best, history, _ = mirror.search(oracle, as_picture, start, labels, free, config, seeded())
    loss = mirror.identity_loss(oracle(as_picture(best)), labels)
    assert loss.item() == pytest.approx(min(history["cross-entropy"]), rel=1e-4)


def bred(evolve, generations=15):
    """Class c likes a style of the constant 1.5 or -1.5 in each of 12 coordinates: many steps away from a random one."""

    def ask(x):
        distance = torch.stack([(x.flatten(1) - c).square().mean(dim=1) for c in (1.5, -1.5)], dim=1)
        return (-distance).softmax(dim=1)

    config = mirror.MirrorConfig(search="genetic", population=20, generations=generations, evolve=evolve, mutation=1.0)
    random = seeded(3)
    styles = torch.randn(500, 12, generator=seeded(1), device=CPU)
    bounds = mirror.style_bounds(styles, 2.0)
    oracle = Scores(ask, CPU)

    def sample(count):
        return torch.randn(count, 12, generator=random, device=CPU)

    population, history, _ = mirror.genetic(
        oracle,
        as_picture,
        sample,
        sample(40).view(2, 20, 12),
        bounds,
        to_p(styles).std(dim=0),
        config,
        random,
    )
    return population, history["best log-score"], oracle.queries


def test_breeding_beats_drawing_anew_with_the_same_queries_and_keeps_the_elite():
    population, scores, queries = bred(True)
    _, others, same = bred(False)
    assert queries == same == 2 * 20 * 16
    assert scores[-1] > 0.5 * others[-1], "log-scores: half as far from certainty"
    assert scores == sorted(scores), "the best one is never lost"
    assert population[0].mean() > 0.3 > -0.3 > population[1].mean(), "each class breeds for itself"


def test_the_black_box_form_gets_no_gradient():
    population, scores, _ = bred(True, generations=1)
    assert not population.requires_grad
    assert all(math.isfinite(score) for score in scores)


@pytest.mark.parametrize(
    "changes", [{"search": "other"}, {"clip": -1.0}, {"population": 1}, {"per_class": 30}, {"flip": 2.0}, {"ramp_up": 0.0}]
)
def test_impossible_options_are_refused(changes):
    with pytest.raises(ValueError, match=r"must|needed|needs"):
        mirror.MirrorConfig(**changes)
