"""The graph setting: generators and readers, networks, metrics."""

import networkx as nx
import pytest
import torch

from implementations.common.training import seeded_weights
from implementations.experiment import Reconstruction
from implementations.graph import graphs
from implementations.graph.networks import GCN, GraphModels, normalized_adjacency, train_gcn
from implementations.graph.setting import GRAPHS, GraphConfig, GraphSetting, precision_at, strongest


def tensor(*values):
    return torch.tensor(values, device="cpu")


@pytest.fixture(scope="module")
def setting() -> GraphSetting:
    return GraphSetting()


def test_normalised_adjacency_by_hand():
    # Path 0 - 1 - 2: degrees with loops are 2, 3, 2.
    found = normalized_adjacency(tensor([0.0, 1, 0], [1, 0, 1], [0, 1, 0]))
    a, b, c = 1 / 2, 1 / 6**0.5, 1 / 3
    assert torch.allclose(found, tensor([a, b, 0.0], [b, c, b], [0.0, b, a]))
    assert torch.equal(normalized_adjacency(torch.zeros(3, 3, device="cpu")), torch.eye(3, device="cpu"))


def test_network_by_hand():
    network = GCN(2, 1, 2).eval()
    with torch.no_grad():
        network.first.weight.copy_(tensor([1.0, -1.0]))
        network.first.bias.copy_(tensor(0.5))
        network.second.weight.copy_(tensor([2.0], [-1.0]))
        network.second.bias.copy_(tensor(0.0, 1.0))
    features = tensor([1.0, 0.0], [0.0, 3.0])
    empty, linked = torch.zeros(2, 2, device="cpu"), tensor([0.0, 1.0], [1.0, 0.0])
    assert network.hidden(empty, features).tolist() == [[1.5], [0.0]]
    assert network(empty, features).tolist() == [[3.0, -0.5], [0.0, 1.0]]
    # With the edge both nodes see the mean of 1 and -3, then relu(-1 + 0.5) = 0.
    assert network(linked, features).tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_batches_of_graphs_equal_single_graphs():
    generator = torch.Generator("cpu").manual_seed(0)
    with seeded_weights(0):
        network = GCN(5, 4, 3).eval()
    adjacency, features = torch.rand(2, 6, 6, generator=generator), torch.rand(6, 5, generator=generator)
    both = network(adjacency, features)
    assert torch.allclose(both[1], network(adjacency[1], features), atol=1e-6)


def test_models_answer_by_name():
    networks = {"a": GCN(3, 2, 2), "b": GCN(4, 2, 5)}
    model = GraphModels(networks).eval()
    found = model({"b": (torch.zeros(7, 7, device="cpu"), torch.ones(7, 4, device="cpu"))})
    assert {name: tuple(logits.shape) for name, logits in found.items()} == {"b": (7, 5)}


def test_training_is_reproducible_and_learns(setting):
    graph, train = setting.graphs["citation"], setting.train["citation"]

    def trained(seed: int) -> GCN:
        with seeded_weights(0):
            network = GCN(graph.features.shape[1], 16, 4)
        train_gcn(network, *graph, train, torch.Generator("cpu").manual_seed(seed), epochs=60)
        return network

    first, second, other = trained(1), trained(1), trained(2)
    assert torch.equal(first.first.weight, second.first.weight)
    assert not torch.equal(first.first.weight, other.first.weight)
    right = (first(*graph[:2]).argmax(dim=1) == graph.labels)[train].float().mean()
    assert right > 0.9


def test_edges_become_a_simple_graph():
    edges = tensor([0, 1], [1, 0], [2, 2], [0, 1])
    graph = graphs.from_edges(edges, torch.eye(3, device="cpu"), tensor(0, 0, 1))
    assert graph.adjacency.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_citation_like_has_the_degree_and_homophily_it_says():
    degrees, within, words = [], [], []
    for seed in range(5):
        graph = graphs.citation_like(torch.Generator("cpu").manual_seed(seed))
        assert torch.equal(graph.adjacency, graph.adjacency.T)
        assert graph.adjacency.diagonal().sum() == 0
        degrees.append(graph.adjacency.sum(dim=1).mean().item())
        same = graph.labels[:, None] == graph.labels[None, :]
        within.append((graph.adjacency[same].sum() / graph.adjacency.sum()).item())
        words.append(graph.features.sum(dim=1).mean().item())
    assert sum(degrees) / 5 == pytest.approx(4.0, abs=0.2)
    assert sum(within) / 5 == pytest.approx(0.81, abs=0.03)
    assert sum(words) / 5 == pytest.approx(18, abs=0.5)


def test_social_graphs_are_those_of_networkx():
    club = graphs.karate("cpu")
    assert (len(club.labels), club.adjacency.sum() / 2, club.labels.bincount().tolist()) == (34, 78, [17, 17])
    novel = graphs.les_miserables("cpu")
    assert (len(novel.labels), novel.adjacency.sum() / 2) == (77, 254)
    assert torch.equal(novel.features, torch.eye(77, device="cpu"))


def test_nodes_of_each_class_are_labelled(setting):
    for name in GRAPHS:
        labels, train = setting.labels[name], setting.train[name]
        assert len(train.unique()) == len(train)
        assert labels[train].bincount().min() >= 2
        assert 0.15 * len(labels) <= len(train) <= 0.25 * len(labels)


def test_targets_predict(setting):
    utility = setting.utility(setting.target)
    assert utility["node_accuracy_citation"] >= 0.8
    assert utility["node_accuracy_social"] >= 0.75


def test_a_query_is_a_graph(setting):
    oracle = setting.target.grant("white-box", budget=3)
    inputs = {name: (graph.adjacency, graph.features) for name, graph in setting.graphs.items()}
    oracle(inputs)
    assert oracle.queries == 2


def test_truth_scores_one_and_its_complement_zero(setting):
    truth = {name: setting.private[f"adjacency_{name}"] for name in GRAPHS}
    best = setting.evaluate(Reconstruction(truth))
    assert set(best) == set(setting.metrics)
    assert all(value == pytest.approx(1) for value in best.values())
    worst = setting.evaluate(Reconstruction({name: -adjacency for name, adjacency in truth.items()}))
    assert worst["edge_auc_citation"] == worst["edge_precision_social"] == 0
    blind = setting.evaluate(Reconstruction({name: torch.zeros_like(adjacency) for name, adjacency in truth.items()}))
    density = setting.knowledge().edge_density["social"]
    assert blind["edge_auc_social"] == 0.5
    assert blind["edge_ap_balanced_social"] == pytest.approx(0.5)
    assert blind["edge_ap_social"] == pytest.approx(density)
    assert blind["edge_precision_social"] == pytest.approx(density)


def test_the_diagonal_does_not_count(setting):
    truth = {name: setting.private[f"adjacency_{name}"] for name in GRAPHS}
    marked = {name: adjacency + 9 * torch.eye(len(adjacency), device="cpu") for name, adjacency in truth.items()}
    assert setting.evaluate(Reconstruction(marked)) == setting.evaluate(Reconstruction(truth))


def test_shape_is_checked(setting):
    with pytest.raises(ValueError, match=r"citation.*\(240, 240\)"):
        setting.evaluate(Reconstruction({name: torch.zeros(3, 3, device="cpu") for name in GRAPHS}))


def test_precision_shares_ties():
    truth, scores = tensor(1.0, 0.0, 1.0, 0.0), tensor(0.9, 0.5, 0.5, 0.5)
    assert precision_at(2, truth, scores) == pytest.approx((1 + 1 / 3) / 2)


def test_strongest_pairs():
    scores = tensor([0.0, 0.9, 0.1], [0.9, 0.0, 0.8], [0.1, 0.8, 0.0])
    assert strongest(scores, 2).tolist() == [[False, True, False], [True, False, True], [False, True, False]]


def test_baselines_are_what_they_say(setting):
    made = {name: make(torch.Generator("cpu").manual_seed(0)) for name, make in setting.baselines().items()}
    metrics = {name: setting.evaluate(found) for name, found in made.items()}
    assert metrics["random"]["edge_auc_citation"] == pytest.approx(0.5, abs=0.05)
    assert metrics["feature_similarity"]["edge_auc_social"] == 0.5  # indicators are alike for every pair
    assert metrics["hidden_similarity"]["edge_auc_citation"] > metrics["feature_similarity"]["edge_auc_citation"]
    network, x = setting.target.model.networks["citation"], setting.features["citation"]
    hidden = torch.relu(x @ network.first.weight.T + network.first.bias)
    expected = torch.nn.functional.cosine_similarity(hidden[3], hidden[7], dim=0)
    assert made["hidden_similarity"].data["citation"][3, 7].item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_target_trains_where_gradients_are_off(tmp_path, monkeypatch):
    """A target is trained when first asked for, and that may be inside a block without gradients."""
    monkeypatch.setenv("INVERSION_ATLAS_CACHE", str(tmp_path))
    with torch.no_grad():
        assert (
            GraphSetting(GraphConfig(seed=71, epochs=3)).target.fingerprint()
            == GraphSetting(GraphConfig(seed=71, epochs=3)).target.fingerprint()
        )


def test_picture(setting):
    random = setting.baselines()["random"](torch.Generator("cpu"))
    drawn = setting.figure({"random": random, "same": setting.baselines()["same_label"](torch.Generator("cpu"))})
    assert len(drawn.axes) == 6


def write_linqs(folder, name: str, nodes: int = 24) -> None:
    """Tiny files of the LINQS layout, with a link to a paper without words, a repeated link and a loop."""
    place = folder / name
    place.mkdir(parents=True)
    lines = [f"p{i}\t{i % 2}\t{(i // 2) % 2}\t{i % 3 == 0:d}\tclass{i % 2}" for i in range(nodes)]
    (place / f"{name}.content").write_text("\n".join(lines) + "\n", encoding="utf-8")
    links = [f"p{i}\tp{(i + 2) % nodes}" for i in range(nodes)] + ["p0\tp2", "p2\tp0", "p3\tp3", "p1\tunknown"]
    (place / f"{name}.cites").write_text("\n".join(links) + "\n", encoding="utf-8")


def write_polblogs(folder, nodes: int = 20) -> None:
    """A tiny GML file with a repeated edge, as the real one has, and a lonely node."""
    (folder / "polblogs").mkdir(parents=True)
    text = "graph [\n  directed 1\n"
    for i in range(nodes + 1):
        text += f'  node [\n    id {i + 1}\n    label "blog{i}.example"\n    value {i % 2}\n    source "Blogarama"\n  ]\n'
    for i in range(nodes):
        text += f"  edge [\n    source {i + 1}\n    target {(i + 1) % nodes + 1}\n  ]\n"
    text += "  edge [\n    source 1\n    target 2\n  ]\n]\n"
    (folder / "polblogs" / "polblogs.gml").write_text(text, encoding="utf-8")


def test_paper_preset_reads_files(tmp_path):
    write_linqs(tmp_path, "cora")
    write_polblogs(tmp_path)
    setting = GraphSetting(GraphConfig(preset="paper", folder=str(tmp_path), epochs=2))
    citation, social = setting.graphs["citation"], setting.graphs["social"]
    assert (len(citation.labels), citation.adjacency.sum() / 2, citation.features.shape[1]) == (24, 24, 3)
    assert citation.features[5].tolist() == [1, 0, 0]
    assert (len(social.labels), social.adjacency.sum() / 2) == (20, 20)
    assert nx.is_connected(nx.from_numpy_array(social.adjacency.numpy()))
    assert set(setting.utility(setting.target)) == set(setting.utility_metrics)


def test_paper_preset_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no cora/cora\.content.*\n.*FOLDER"):
        GraphSetting(GraphConfig(preset="paper", folder=str(tmp_path)))
    write_linqs(tmp_path, "citeseer")
    with pytest.raises(FileNotFoundError, match=r"no polblogs/polblogs\.gml"):
        GraphSetting(GraphConfig(preset="paper", folder=str(tmp_path), citation="citeseer"))
    (tmp_path / "citeseer" / "citeseer.content").write_text("a 1 0 x\nb 1\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="lines are not"):
        graphs.linqs(tmp_path, "citeseer", "cpu")
    write_linqs(tmp_path, "cora")
    (tmp_path / "cora" / "cora.cites").write_text("x y\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="no pair of ids"):
        graphs.linqs(tmp_path, "cora", "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"citation": "cora"}, "citation in preset quick"),
        ({"social": "polblogs"}, "social in preset quick"),
        ({"nodes": 3}, "nodes"),
        ({"hidden": 0}, "hidden"),
        ({"train_share": 1.0}, "train_share"),
        ({"epochs": 0}, "epochs"),
        ({"preset": "paper"}, "folder"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GraphConfig(**options)
