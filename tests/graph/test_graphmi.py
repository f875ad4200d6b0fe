"""GraphMI: smoothness and projection by hand, gradients against differences, limits, power."""

import dataclasses
import itertools

import pytest
import torch

from implementations.common.training import seeded_weights
from implementations.experiment import run_attack, run_baseline
from implementations.graph.graphmi import (
    EXPERIMENT,
    GraphMIConfig,
    attack_loss,
    better_on_both,
    project,
    smoothness,
    to_matrix,
)
from implementations.graph.networks import GCN
from implementations.graph.setting import GRAPHS, GraphSetting, pairs


def tensor(*values):
    return torch.tensor(values, device="cpu", dtype=torch.float64)


@pytest.fixture(scope="module")
def setting() -> GraphSetting:
    return GraphSetting()


def test_edges_to_a_symmetric_matrix():
    found = to_matrix(tensor(0.1, 0.2, 0.3), pairs(3, "cpu"), 3)
    assert found.tolist() == [[0, 0.1, 0.2], [0.1, 0, 0.3], [0.2, 0.3, 0]]
    batch = to_matrix(tensor([0.1, 0.2, 0.3], [1.0, 0.0, 1.0]), pairs(3, "cpu"), 3)
    assert torch.equal(batch[0], found)


def test_smoothness_by_hand():
    # Path 0 - 1 - 2 with degrees 1, 2, 1 and one feature x = (1, 2, 4):
    # (1 - 2 / sqrt 2)^2 + (2 / sqrt 2 - 4)^2
    adjacency, features = tensor([0, 1, 0], [1, 0, 1], [0, 1, 0]), tensor([1], [2], [4])
    expected = (1 - 2 / 2**0.5) ** 2 + (2 / 2**0.5 - 4) ** 2
    assert smoothness(adjacency, features, small=0.0).item() == pytest.approx(expected)


def test_smoothness_is_the_quadratic_form_of_the_laplacian():
    generator = torch.Generator("cpu").manual_seed(0)
    weights = torch.rand(10, generator=generator, dtype=torch.float64)
    adjacency = to_matrix(weights, pairs(5, "cpu"), 5)
    features = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    degree = adjacency.sum(dim=1)
    scale = torch.diag((degree + 1e-3).rsqrt())
    laplacian = scale @ (torch.diag(degree) - adjacency) @ scale
    assert smoothness(adjacency, features).item() == pytest.approx((features.T @ laplacian @ features).trace().item())
    by_pairs = sum(
        adjacency[i, j] * (features[i] * scale[i, i] - features[j] * scale[j, j]).square().sum()
        for i, j in itertools.combinations(range(5), 2)
    )
    assert smoothness(adjacency, features).item() == pytest.approx(by_pairs.item())
    assert smoothness(torch.zeros_like(adjacency), features) == 0


def test_projection_leaves_what_is_inside():
    inside = tensor(0.0, 0.25, 1.0)
    assert torch.equal(project(inside, 2.0), inside)


def test_projection_brings_what_is_outside_to_the_border():
    assert project(tensor(-0.5, 0.5, 1.5), 2.0).tolist() == [0, 0.5, 1]
    found = project(tensor(0.9, 0.8, 0.1), 1.0)  # less 0.35 each: 0.55, 0.45 and 0
    assert found.tolist() == pytest.approx([0.55, 0.45, 0.0])
    assert project(tensor(5.0, 4.2, 0.0), 1.0).tolist() == pytest.approx([0.9, 0.1, 0.0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_projection_is_the_nearest_feasible_point(seed):
    generator = torch.Generator("cpu").manual_seed(seed)
    point = 2 * torch.randn(8, generator=generator, dtype=torch.float64)
    found = project(point, 1.5)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.sum().item() <= 1.5 + 1e-9
    rivals = torch.rand(4000, 8, generator=generator, dtype=torch.float64)
    rivals = torch.cat([rivals, found + 0.05 * (rivals - 0.5)]).clamp(0, 1)
    rivals = rivals * (1.5 / rivals.sum(dim=1, keepdim=True)).clamp(max=1)
    assert (rivals - point).norm(dim=1).min() >= (found - point).norm() - 1e-6


@pytest.mark.parametrize("norm", [1, 2])
def test_gradient_agrees_with_differences(norm):
    generator = torch.Generator("cpu").manual_seed(3)
    with seeded_weights(0):
        network = GCN(4, 3, 2).double().eval()
    features = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1], device="cpu")
    config = GraphMIConfig(smooth=0.1, sparse=0.05, norm=norm)

    def loss(edges):
        adjacency = to_matrix(edges, pairs(5, "cpu"), 5)
        return attack_loss(network(adjacency, features), labels, edges, adjacency, features, config)

    edges = (0.2 + 0.6 * torch.rand(10, generator=generator, dtype=torch.float64)).requires_grad_(True)
    assert torch.autograd.gradcheck(loss, (edges,))


def test_loss_by_hand():
    logits = tensor([0.0, 0.0], [0.0, 0.0])
    edges, features = tensor(0.5), tensor([1.0], [3.0])
    adjacency = to_matrix(edges, pairs(2, "cpu"), 2)
    labels = torch.tensor([0, 1], device="cpu")
    config = GraphMIConfig(fit=2.0, smooth=1.0, sparse=0.5)
    found = attack_loss(logits, labels, edges, adjacency, features, config)
    smooth = 0.5 * (1 - 3) ** 2 / (0.5 + 1e-3)  # degrees are 0.5
    assert found.item() == pytest.approx(2 * torch.tensor(2.0, device="cpu").log().item() + smooth + 0.5 * 0.5)
    without = attack_loss(logits, labels, edges, adjacency, features, config, with_smoothness=False)
    assert (found - without).item() == pytest.approx(smooth)


def test_without_steps_it_is_the_similarity_of_the_hidden_layer(setting):
    found = run_attack(EXPERIMENT, setting, GraphMIConfig(steps=0)).metrics
    hidden = run_baseline(setting, "hidden_similarity", 0).metrics
    assert found["edge_auc_citation"] == pytest.approx(hidden["edge_auc_citation"], abs=1e-6)
    assert found["edge_ap_social"] == pytest.approx(hidden["edge_ap_social"], abs=1e-6)


def test_without_the_target_it_is_the_similarity_of_features(setting):
    found = run_attack(EXPERIMENT, setting, GraphMIConfig(steps=5, fit=0.0, encoder="features")).metrics
    plain = run_baseline(setting, "feature_similarity", 0).metrics
    assert found["edge_auc_citation"] == pytest.approx(plain["edge_auc_citation"], abs=1e-6)


def test_scores_are_symmetric_within_bounds_and_fit_better(setting):
    done = run_attack(EXPERIMENT, setting, GraphMIConfig())
    for name in GRAPHS:
        scores = done.reconstruction.data[name]
        assert torch.allclose(scores, scores.T, atol=1e-6)
        assert scores.min() >= 0
        assert scores.max() <= 1 + 1e-5
        assert done.reconstruction.notes[f"edge_mass_{name}"] <= 1 + 1e-4
        history = done.reconstruction.history[f"loss_{name}"]
        assert history[49] < 0.2 * history[0]  # before the smoothness joins


def test_optimised_edges_hold_to_the_budget(setting):
    done = run_attack(EXPERIMENT, setting, GraphMIConfig(encoder="none", steps=30, lr=200.0, sparse=0.0))
    for name in GRAPHS:
        edges = setting.private[f"adjacency_{name}"].sum() / 2
        assert done.reconstruction.data[name].sum() / 2 <= edges + 0.01


def test_sampling_draws_the_right_number_of_edges(setting):
    done = run_attack(EXPERIMENT, setting, GraphMIConfig(steps=5, samples=3))
    for name in GRAPHS:
        drawn = done.reconstruction.data[name]
        assert set(drawn.unique().tolist()) == {0, 1}
        assert torch.equal(drawn, drawn.T)
        assert drawn.sum() == setting.private[f"adjacency_{name}"].sum()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_beats_attribute_similarity_unless_broken(seed):
    setting = EXPERIMENT.build_setting(seed=seed)
    config = GraphMIConfig(seed=seed)
    runs = {name: run_baseline(setting, name, seed).metrics for name in ("feature_similarity", "random")}
    wins = better_on_both("feature_similarity", citation=0.04, social=0.12)
    assert wins(run_attack(EXPERIMENT, setting, config).metrics, runs)
    assert not wins(run_attack(EXPERIMENT, setting, dataclasses.replace(config, fit=0.0, encoder="features")).metrics, runs)
    assert not wins(runs["random"], runs)
    # An encoder that was never trained knows nothing of these graphs beyond their features.
    with seeded_weights(seed):
        networks = {name: GCN(x.shape[1], 16, int(setting.labels[name].max()) + 1) for name, x in setting.features.items()}
    untrained = setting.with_target(setting.target_of(type(setting.target.model)(networks).eval()))
    assert not wins(run_attack(EXPERIMENT, untrained, dataclasses.replace(config, steps=0)).metrics, runs)


@pytest.mark.parametrize(
    "options", [{"steps": -1}, {"lr": 0.0}, {"sparse": -1.0}, {"norm": 3}, {"encoder": "gat"}, {"samples": -2}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options)) if "sparse" not in options else "weights"):
        GraphMIConfig(**options)
