"""The MAP estimator: hand-worked weights, exact recovery where theory says so, and power."""

import itertools
import math

import pytest
import torch

from implementations.experiment import run_attack, run_baseline
from implementations.tabular.fredrikson2014_warfarin import (
    EXPERIMENT,
    WarfarinConfig,
    attack,
    candidates,
    confusion_log_likelihood,
    gaussian_log_likelihood,
    log_prior,
    posterior,
)
from implementations.tabular.setting import AttributeDomain, TabularConfig, TabularSetting
from implementations.threat_model import Knowledge, Scores

CPU = torch.device("cpu")


def tensor(*values):
    return torch.tensor(values, device=CPU)


def test_candidates_are_all_combinations():
    grid = candidates((4, 1), {1: 3, 4: 2, 0: 9}, CPU)
    assert sorted(map(tuple, grid.tolist())) == sorted(itertools.product(range(2), range(3)))
    assert candidates((4,), {4: 2}, CPU).tolist() == [[0], [1]]


def test_prior_multiplies_marginals():
    found = log_prior(tensor([0, 1], [1, 0]), (3, 5), {3: tensor(0.25, 0.75), 5: tensor(0.4, 0.6)})
    assert found.exp().tolist() == pytest.approx([0.25 * 0.6, 0.75 * 0.4])


def test_gaussian_by_hand():
    found = gaussian_log_likelihood(tensor(3.0), tensor(1.0), 2.0)  # one standard error away
    assert found.item() == pytest.approx(-0.5 - math.log(2) - 0.5 * math.log(2 * math.pi))


def test_confusion_by_hand():
    confusion = tensor([0.8, 0.2], [0.3, 0.7])  # a row a true class
    answers = tensor([0.9, 0.1], [0.2, 0.8])  # predicted: 0, 1
    assert confusion_log_likelihood(tensor(1, 1), answers, confusion).exp().tolist() == pytest.approx([0.3, 0.7])


def test_posterior_sums_out_what_is_unknown():
    # weights 1, 2, 3, 4 of combinations whose sensitive codes are 0, 1, 0, 1: sums 4 and 6
    found = posterior(tensor([1.0, 2.0, 3.0, 4.0]).log() - 500.0, tensor(0, 1, 0, 1), 2)
    assert found[0].tolist() == pytest.approx([0.4, 0.6], abs=1e-3)
    assert posterior(tensor([-math.inf, -math.inf]), tensor(0, 1), 2)[0].tolist() == [0.5, 0.5]


def linear_scene(coefficients, known, outcomes, marginals, error):
    """Three columns; columns 1 (two values) and 2 (three values) are unknown, 2 is sensitive; the model is linear."""
    records = torch.full((len(known), 3), torch.nan, device=CPU)
    records[:, 0] = known
    knowledge = Knowledge(
        non_sensitive_attributes=records,
        outcome=outcomes,
        marginals=marginals,
        error_statistics=torch.tensor(error, device=CPU),
        attribute_domain=AttributeDomain(2, (1, 2), {1: 2, 2: 3}),
    )
    return Scores(lambda x: x @ coefficients, CPU), knowledge


def test_equals_bayes_rule_by_enumeration():
    coefficients, outcome, error = tensor(0.5, 1.0, -2.0), 0.7, 0.9
    marginals = {1: tensor(0.3, 0.7), 2: tensor(0.5, 0.2, 0.3)}
    oracle, knowledge = linear_scene(coefficients, tensor(2.0), tensor(outcome), marginals, error)
    found = attack(oracle, knowledge, WarfarinConfig()).data[0]
    expected = [0.0, 0.0, 0.0]
    for u, s in itertools.product(range(2), range(3)):
        answer = 0.5 * 2 + 1.0 * u - 2.0 * s
        prior = marginals[1][u].item() * marginals[2][s].item()
        expected[s] += prior * math.exp(-0.5 * ((outcome - answer) / error) ** 2)
    assert found.tolist() == pytest.approx([value / sum(expected) for value in expected], rel=1e-5)
    assert oracle.queries == 6


def test_exact_model_and_distinct_effects_give_exact_recovery():
    truth = torch.arange(3, device=CPU).repeat(4)
    hidden = torch.arange(2, device=CPU).repeat(6)
    known = torch.arange(12, device=CPU).float()
    coefficients = tensor(1.0, 10.0, 100.0)
    outcomes = torch.stack([known, hidden, truth], dim=1) @ coefficients
    marginals = {1: tensor(0.5, 0.5), 2: tensor(0.98, 0.01, 0.01)}
    oracle, knowledge = linear_scene(coefficients, known, outcomes, marginals, 0.1)
    assert torch.equal(attack(oracle, knowledge, WarfarinConfig()).data.argmax(dim=1), truth)


def test_limits():
    marginals = {1: tensor(0.5, 0.5), 2: tensor(0.6, 0.1, 0.3)}
    scene = (tensor(1.0, 10.0, 100.0), tensor(0.0, 1.0), tensor(100.0, 211.0), marginals, 0.5)
    no_answers = attack(*linear_scene(*scene), WarfarinConfig(use_answers=False)).data
    assert torch.allclose(no_answers, marginals[2].expand(2, -1))
    # An error without bound says nothing either.
    vague = attack(*linear_scene(*scene), WarfarinConfig(error_scale=1e6)).data
    assert torch.allclose(vague, marginals[2].expand(2, -1), atol=1e-4)
    nothing = attack(*linear_scene(*scene), WarfarinConfig(use_answers=False, use_marginals=False)).data
    assert torch.allclose(nothing, torch.full_like(nothing, 1 / 3))


def test_without_answers_nothing_is_asked():
    oracle, knowledge = linear_scene(
        tensor(1.0, 1.0, 1.0), tensor(0.0), tensor(0.0), {1: tensor(0.5, 0.5), 2: tensor(0.2, 0.3, 0.5)}, 1.0
    )
    attack(oracle, knowledge, WarfarinConfig(use_answers=False))
    assert oracle.queries == 0
    assert knowledge.reads == {"attribute-domain", "non-sensitive-attributes", "marginals"}


def test_batches_do_not_matter():
    setting = TabularSetting(TabularConfig(people=1000, victims=100))
    whole = run_attack(EXPERIMENT, setting, WarfarinConfig()).reconstruction.data
    pieces = run_attack(EXPERIMENT, setting, WarfarinConfig(batch=97)).reconstruction.data
    assert torch.allclose(whole, pieces, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_beats_the_marginals_unless_broken(seed):
    setting = TabularSetting(TabularConfig(seed=seed))
    chance = run_baseline(setting, "marginal", seed).metrics
    found = run_attack(EXPERIMENT, setting, WarfarinConfig()).metrics
    assert found["accuracy"] >= chance["accuracy"] + 0.06
    assert found["auc"] >= chance["auc"] + 0.12
    # The wrong person's outcome carries no news of a genotype beyond what the known attributes carry.
    swapped = TabularSetting(TabularConfig(seed=seed))
    order = torch.randperm(len(swapped.outcomes), generator=torch.Generator("cpu").manual_seed(seed))
    swapped.outcomes = swapped.outcomes[order]
    assert run_attack(EXPERIMENT, swapped, WarfarinConfig()).metrics["auc"] <= chance["auc"] + 0.08


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matches_the_ideal_where_attributes_are_independent(seed):
    setting = TabularSetting(TabularConfig(seed=seed, population="single"))
    assert run_attack(EXPERIMENT, setting, WarfarinConfig()).metrics["behind_ideal"] <= 0.02


def test_a_regression_tells_of_the_population_and_an_overgrown_tree_of_its_members():
    linear = [run_attack(EXPERIMENT, TabularSetting(TabularConfig(seed=seed)), WarfarinConfig()).metrics for seed in range(3)]
    assert abs(sum(m["auc"] - m["auc_heldout"] for m in linear)) / 3 < 0.02
    options = {"data": "fair", "model": "tree", "background": "all"}
    tree = [
        run_attack(EXPERIMENT, TabularSetting(TabularConfig(seed=s, **options)), WarfarinConfig()).metrics for s in range(3)
    ]
    assert sum(m["auc"] - m["auc_heldout"] for m in tree) / 3 > 0.02


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="error_scale"):
        WarfarinConfig(error_scale=0)
    with pytest.raises(ValueError, match="batch"):
        WarfarinConfig(batch=0)
