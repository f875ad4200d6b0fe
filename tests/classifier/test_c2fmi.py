"""C2FMI: vectors and losses by hand, blends and children, and both stages on toys where the answer is known."""

import pytest
import torch
from torch import nn

from implementations.classifier import c2fmi, embedder

CPU = "cpu"


def seeded(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def test_sure_scores_by_hand():
    found = c2fmi.sure_scores(3, 0.1, torch.device(CPU))
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], device=CPU))


def test_matching_loss_by_hand():
    one, two = torch.tensor([[1.0, 2.0]], device=CPU), torch.tensor([[0.0, 4.0]], device=CPU)
    assert c2fmi.matching_loss(one, two).tolist() == [5.0]


def test_inverse_model_learns_which_features_go_with_which_scores():
    random = seeded()
    scores = torch.randn(400, 4, generator=random, device=CPU).softmax(dim=1)
    features = scores.log() @ torch.randn(4, 3, generator=random, device=CPU) / 10
    config = c2fmi.C2fmiConfig(inverse_width=32, inverse_steps=400, inverse_lr=0.01)
    inverse = c2fmi.train_inverse(scores[:300], features[:300], config)
    error = c2fmi.matching_loss(inverse(scores[300:]), features[300:]).mean()
    assert error < 0.3 * c2fmi.matching_loss(features[:300].mean(dim=0), features[300:]).mean()
    assert not any(parameter.requires_grad for parameter in inverse.parameters())


class Pictures(nn.Module):
    def synthesis(self, w):
        return w


class Holder:
    generator = Pictures()


def test_coarse_stage_moves_styles_to_the_wanted_feature_without_the_target():
    network = nn.Linear(6, 2, bias=False).requires_grad_(False)
    network.weight.copy_(torch.randn(2, 6, generator=seeded(), device=CPU))
    start, wanted = torch.zeros(3, 6, device=CPU), torch.randn(3, 2, generator=seeded(1), device=CPU)
    config = c2fmi.C2fmiConfig(coarse_steps=150, coarse_lr=0.05)
    found, curve = c2fmi.coarse_stage(Holder(), network, wanted, start, config)
    torch.testing.assert_close(network(found), wanted, atol=0.05, rtol=0)
    assert curve[-1] < 0.01 * curve[0]


def test_blends_by_hand():
    founders = torch.full((1, 3, 2), 1.0, device=CPU)
    strangers = torch.full((1, 2, 2), 11.0, device=CPU)
    found = c2fmi.extended(founders, strangers, seeded())
    assert found.shape == (1, 5, 2)
    assert torch.equal(found[:, :3], founders)
    torch.testing.assert_close(found[:, 3:], torch.full((1, 2, 2), 0.7 * 1 + 0.3 * 11, device=CPU))


def test_blends_are_of_three_different_founders():
    founders = torch.eye(3, device=CPU)[None]
    blend = c2fmi.extended(founders, torch.zeros(1, 20, 3, device=CPU), seeded())[0, 3:]
    expected = torch.tensor([0.175, 0.175, 0.35], device=CPU).expand(20, 3)
    torch.testing.assert_close(blend.sort(dim=1).values, expected)


def test_children_by_hand_without_chance():
    """No differences, nothing inherited: a share of the way to the best member."""
    population = torch.tensor([[[0.0], [4.0]]], device=CPU)
    fitness = torch.tensor([[0.1, 0.9]], device=CPU)
    config = c2fmi.C2fmiConfig(pull=0.25, inherited=0.0)
    child = c2fmi.children_of(population, fitness, 0.0, config, seeded())
    assert child.tolist() == [[[1.0], [4.0]]]


def test_children_keep_about_the_inherited_share():
    population = torch.randn(2, 5, 400, generator=seeded(), device=CPU)
    config = c2fmi.C2fmiConfig(inherited=0.3)
    child = c2fmi.children_of(population, torch.rand(2, 5, generator=seeded(), device=CPU), 0.1, config, seeded(1))
    changed = (child != population).float().mean(dim=2)
    best_left_out = changed.sort(dim=1).values
    assert best_left_out[:, 1:].mean().item() == pytest.approx(0.7, abs=0.05)


def test_classes_evolve_apart():
    population = torch.zeros(2, 3, 4, device=CPU)
    population[1] = 100.0
    child = c2fmi.children_of(population, torch.rand(2, 3, device=CPU), 0.5, c2fmi.C2fmiConfig(), seeded())
    assert torch.equal(child, population), "equal members have nothing to differ by"


def evolved(generations=40, **changes):
    """Each of two classes likes one place: (1, 1) or (-1, -1) in the first two of six coordinates."""
    places = torch.tensor([1.0, -1.0], device=CPU)[:, None, None]
    config = c2fmi.C2fmiConfig(generations=generations, **changes)

    def score(w):
        return (-(w[:, :, :2] - places).square().sum(dim=2)).exp()

    start = torch.randn(2, 12, 6, generator=seeded(), device=CPU)
    return start, score, *c2fmi.fine_stage(score, start, config, seeded(1))


def test_evolution_finds_each_class_and_never_loses_a_member():
    start, score, population, fitness, curve, snapshots = evolved()
    torch.testing.assert_close(score(population), fitness)
    assert (fitness >= score(start)).all()
    assert curve == sorted(curve)
    assert fitness.max(dim=1).values.min() > 0.95
    assert fitness.mean() > score(start).mean() + 0.3
    assert snapshots[-1].shape == (2, 1, 6)


def test_without_differences_nothing_new_is_tried():
    start, score, _, fitness, _, _ = evolved(difference=0.0, inherited=0.0, pull=1.0)
    torch.testing.assert_close(fitness, score(start).max(dim=1, keepdim=True).values.expand_as(fitness))


def test_no_generations_ask_once_and_change_nothing():
    start, _, population, _, curve, _ = evolved(generations=0)
    assert torch.equal(population, start)
    assert len(curve) == 1


def test_instance_loss_by_hand_and_small_for_matching_views():
    one = torch.eye(2, device=CPU)
    apart = embedder.instance_loss(one, one, 0.1)
    wrong = embedder.instance_loss(one, one.flip(0), 0.1)
    assert apart < 1e-3
    assert wrong > 5
    same = torch.tensor([[1.0, 0.0]], device=CPU).expand(2, 2)
    assert embedder.instance_loss(same, same, 1.0).item() == pytest.approx(torch.tensor(3.0).log().item())


def test_features_have_length_one():
    network = embedder.Embedder(3, 16, 5, width=2).eval()
    features = network(torch.rand(4, 3, 16, 16, generator=seeded(), device=CPU))
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4, device=CPU))


@pytest.mark.parametrize(
    "changes", [{"kept": 2}, {"kept": 7}, {"per_class": 5}, {"inherited": 1.0}, {"background": 0.0}, {"generations": -1}]
)
def test_impossible_options_are_refused(changes):
    with pytest.raises(ValueError, match=r"must|needed"):
        c2fmi.C2fmiConfig(**changes)
