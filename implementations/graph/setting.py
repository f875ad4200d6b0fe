"""Setting `graph`: graph convolutional networks trained on private graphs are exposed; the edges are rebuilt.

There are two private graphs, each with a network of its own: `citation`, whose nodes have words that tell of their links, and
`social`, whose nodes have no attributes, so that each one's feature is its own indicator. Every metric is given for both.

Graphs travel by name: a model, or an oracle around it, takes {name: (adjacency (N, N), features (N, D))} and gives
{name: logits (N, C)}; each entry is one query. A reconstruction's `data` is {name: scores (N, N)}, symmetric,
higher where an edge is more likely; the diagonal does not count.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import networkx as nx
import torch
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from ..common.cache import cached_module
from ..common.plots import figure as house_figure
from ..common.training import seeded_weights
from ..experiment import Metric, Reconstruction, Setting, SettingConfig, require
from ..threat_model import Knowledge, Target, WhiteBox
from . import graphs
from .graphs import LabelledGraph
from .networks import GCN, GraphModels, train_gcn

GRAPHS = ("citation", "social")
CLASS_COLOURS = ("#3f51b5", "#2a9d8f", "#b5487a", "#c9a227", "#7a7f87", "#7cb342")  # none like that of a wrong edge
SOURCES = {"quick": (("synthetic",), ("karate", "les_miserables")), "paper": (("cora", "citeseer"), ("polblogs",))}


@dataclass(frozen=True, kw_only=True)
class GraphConfig(SettingConfig):
    """Graphs and targets."""

    citation: str = ""  # quick: synthetic; paper: cora or citeseer; empty for the first
    social: str = ""  # quick: karate or les_miserables (real); paper: polblogs; empty for the first
    nodes: int = 240  # of the synthetic citation graph
    hidden: int = 16  # units of the hidden layer of each network
    train_share: float = 0.2  # share of each class whose labels the network is trained on, at least two nodes; papers: 0.1
    epochs: int = 200  # of training

    def __post_init__(self):
        super().__post_init__()
        for name, sources in zip(GRAPHS, SOURCES[self.preset], strict=True):
            chosen = getattr(self, name)
            require(chosen in ("", *sources), f"{name} in preset {self.preset} is {' or '.join(sources)}, not {chosen!r}")
        require(self.nodes >= 32, f"nodes must be at least 32, not {self.nodes}")
        require(self.hidden >= 1, f"hidden must be at least 1, not {self.hidden}")
        require(0 < self.train_share < 1, f"train_share must lie in (0, 1), not {self.train_share}")
        require(self.epochs >= 1, f"epochs must be at least 1, not {self.epochs}")

    def source(self, name: str) -> str:
        """Where the graph of this name comes from."""
        return getattr(self, name) or SOURCES[self.preset][GRAPHS.index(name)][0]


def pairs(nodes: int, device: torch.device | str) -> Tensor:
    """Every unordered pair of nodes once, (2, P)."""
    return torch.triu_indices(nodes, nodes, 1, device=device)


def cosine_similarity(vectors: Tensor) -> Tensor:
    """Cosine of each pair of rows of (N, D), (N, N); 0 for a row of zeros."""
    unit = F.normalize(vectors, dim=1)
    return unit @ unit.T


class GraphSetting(Setting):
    """Two private graphs, a network trained on each; features, labels and the number of edges are known."""

    name = "graph"
    config_type = GraphConfig
    headline = "edge_auc_citation"
    metrics = {
        f"{name}_{graph}": Metric(f"{says}, {graph} graph")
        for graph in GRAPHS
        for name, says in {
            "edge_auc": "area under the ROC curve of edges against all other pairs",
            "edge_ap": "average precision over all pairs",
            "edge_ap_balanced": "average precision with as much weight on other pairs as on edges",
            "edge_precision": "share of true edges among as many highest-scored pairs as there are edges",
        }.items()
    }
    utility_metrics = {
        f"node_accuracy_{graph}": Metric(f"share of right classes of unlabelled nodes, {graph} graph", "", False)
        for graph in GRAPHS
    }

    def __init__(self, config: GraphConfig | None = None, device: torch.device | str = "cpu"):
        super().__init__(config, device)
        self.graphs = {name: self._load(name) for name in GRAPHS}
        self.private = {f"adjacency_{name}": graph.adjacency.clone() for name, graph in self.graphs.items()}
        self.features = {name: graph.features for name, graph in self.graphs.items()}
        self.labels = {name: graph.labels for name, graph in self.graphs.items()}
        self.train = {name: self._labelled(place, graph) for place, (name, graph) in enumerate(self.graphs.items())}

    def _load(self, name: str) -> LabelledGraph:
        source, folder = self.config.source(name), self.config.folder
        if source == "synthetic":
            return graphs.citation_like(self.config.generator(self.device, 1), self.config.nodes)
        if source in ("karate", "les_miserables"):
            return getattr(graphs, source)(self.device)
        return graphs.polblogs(folder, self.device) if source == "polblogs" else graphs.linqs(folder, source, self.device)

    def _labelled(self, place: int, graph: LabelledGraph) -> Tensor:
        """Nodes whose labels the network is trained on: a share of each class, two at least."""
        generator, chosen = self.config.generator(self.device, 2 + place), []
        for label in graph.labels.unique():
            members = (graph.labels == label).nonzero().squeeze(1)
            order = torch.randperm(len(members), generator=generator, device=self.device)
            chosen.append(members[order[: max(2, round(self.config.train_share * len(members)))]])
        return torch.cat(chosen)

    @functools.cached_property
    def target(self) -> Target:
        return self.target_of(GraphModels({name: self._network(name) for name in GRAPHS}).eval())

    def _network(self, name: str) -> GCN:
        """One trained network, from the cache where it was trained before."""
        config, graph, train = self.config, self.graphs[name], self.train[name]

        def make() -> GCN:
            with seeded_weights(config.seed):
                return GCN(graph.features.shape[1], config.hidden, int(graph.labels.max()) + 1)

        def fit(network: GCN) -> None:
            train_gcn(network, *graph, train, config.generator(self.device, 4), config.epochs)

        key = [*graph, train, config.hidden, config.epochs, config.seed]
        return cached_module(f"gcn-{name}", f"{__package__}.networks", key, make, fit, self.device)

    def target_of(self, model: GraphModels, name: str = "undefended") -> Target:
        """A Target around networks for both graphs; it grants white-box access."""
        return Target(model, {"white-box": lambda **options: WhiteBox(model, self.device, **options)}, name)

    def knowledge(self) -> Knowledge:
        """Terms, each by name of the graph: node-features (N, D), node-labels (N,), edge-density (edges over pairs)."""
        density = {}
        for name, graph in self.graphs.items():
            count = len(graph.labels)
            density[name] = graph.adjacency.sum().item() / (count * (count - 1))
        return Knowledge(node_features=dict(self.features), node_labels=dict(self.labels), edge_density=density)

    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        def random(generator: torch.Generator) -> Reconstruction:
            """A random score for every pair."""
            scores = {}
            for name, labels in self.labels.items():
                half = torch.rand(len(labels), len(labels), generator=generator, device=self.device).triu(1)
                scores[name] = half + half.T
            return Reconstruction(scores)

        def same_label(generator: torch.Generator) -> Reconstruction:
            """1 for two nodes of one class, else 0: the known labels alone, without the model."""
            return Reconstruction({name: (y[:, None] == y[None, :]).float() for name, y in self.labels.items()})

        def feature_similarity(generator: torch.Generator) -> Reconstruction:
            """Cosine similarity of node features, without the model; this is the paper's own baseline."""
            return Reconstruction({name: cosine_similarity(x) for name, x in self.features.items()})

        def hidden_similarity(generator: torch.Generator) -> Reconstruction:
            """Cosine similarity of the first hidden layer on a graph without edges, relu(X W1 + b1); nothing is optimised."""
            empty = {name: (torch.zeros(len(x), len(x), device=x.device), x) for name, x in self.features.items()}
            model = self.target.model
            with torch.no_grad():
                hidden = model.hidden(empty)
            return Reconstruction({name: cosine_similarity(h) for name, h in hidden.items()})

        made = (random, same_label, feature_similarity, hidden_similarity)
        return {make.__name__: make for make in made}

    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        found = {}
        for name in GRAPHS:
            adjacency, scores = self.private[f"adjacency_{name}"], reconstruction.data[name]
            if scores.shape != adjacency.shape:
                raise ValueError(f"{name}: scores must be {tuple(adjacency.shape)}, not {tuple(scores.shape)}")
            first, second = pairs(len(adjacency), self.device)
            edge = adjacency[first, second].cpu().double()
            score = scores.detach()[first, second].cpu().double()
            edges = int(edge.sum())
            balance = torch.where(edge > 0, 1.0, edges / (len(edge) - edges))
            found |= {
                f"edge_auc_{name}": float(roc_auc_score(edge, score)),
                f"edge_ap_{name}": float(average_precision_score(edge, score)),
                f"edge_ap_balanced_{name}": float(average_precision_score(edge, score, sample_weight=balance)),
                f"edge_precision_{name}": precision_at(edges, edge, score),
            }
        return found

    @torch.no_grad()
    def utility(self, target: Target) -> dict[str, float]:
        logits = target.model({name: (graph.adjacency, graph.features) for name, graph in self.graphs.items()})
        found = {}
        for name, labels in self.labels.items():
            unseen = torch.ones_like(labels, dtype=torch.bool)
            unseen[self.train[name]] = False
            found[f"node_accuracy_{name}"] = (logits[name].argmax(dim=1) == labels)[unseen].float().mean().item()
        return found

    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> Figure:
        """A column for the private graphs and one a method: its highest-scored pairs, right ones dark, wrong ones orange."""
        shown = dict(list(reconstructions.items())[:5])
        drawn, axes = house_figure(1.9 * (1 + len(shown)), 4.1, nrows=2, ncols=1 + len(shown), squeeze=False)
        for row, name in zip(axes, GRAPHS[::-1], strict=True):
            truth = self.private[f"adjacency_{name}"].cpu() > 0
            row[0].set_ylabel(name)
            self._draw(row[0], name, truth, truth)
            for place, found in zip(row[1:], shown.values(), strict=True):
                self._draw(place, name, truth, strongest(found.data[name].detach().cpu(), int(truth.sum()) // 2))
        for place, title in zip(axes[0], ["private", *shown], strict=True):
            place.set_title(title.replace("_", " "), fontsize=9)
        return drawn

    def _draw(self, place, name: str, truth: Tensor, guess: Tensor) -> None:
        """A small graph as nodes and lines, a large one as a matrix with nodes in the order of their classes."""
        labels = self.labels[name].cpu()
        place.set_xticks([])
        place.set_yticks([])
        place.spines[:].set_color("#d1d5db")
        if len(labels) > 100:
            order = labels.argsort(stable=True)
            right, wrong = (kept[order][:, order] for kept in (guess & truth, guess & ~truth))
            for kept, colour in ((wrong, "#e0792b"), (right, "#1f2937")):
                rows, columns = kept.nonzero().T.numpy()
                place.scatter(columns, rows, s=1.2, c=colour, linewidths=0)
            place.set_xlim(0, len(labels))
            place.set_ylim(len(labels), 0)
            place.set_aspect("equal")
            return
        where = nx.spring_layout(nx.from_numpy_array(truth.numpy()), seed=3)
        for kept, colour, width in ((guess & ~truth, "#e0792b", 0.5), (guess & truth, "#1f2937", 0.8)):
            for a, b in kept.triu(1).nonzero().tolist():
                place.plot(*zip(where[a], where[b], strict=True), color=colour, linewidth=width, zorder=1)
        colours = [CLASS_COLOURS[label % len(CLASS_COLOURS)] for label in labels.tolist()]
        place.scatter(*zip(*(where[node] for node in range(len(labels))), strict=True), s=14, c=colours, zorder=2)


def precision_at(count: int, truth: Tensor, scores: Tensor) -> float:
    """Share of true ones among the `count` highest scores; equal scores share the last places in proportion."""
    last = scores.topk(count).values[-1]
    above, tied = scores > last, scores == last
    return ((truth[above].sum() + (count - above.sum()) * truth[tied].mean()) / count).item()


def strongest(scores: Tensor, count: int) -> Tensor:
    """The `count` highest-scored pairs as a symmetric mask (N, N); among equal scores, any."""
    first, second = pairs(len(scores), scores.device)
    shuffled = torch.randperm(len(first), generator=torch.Generator(scores.device).manual_seed(0), device=scores.device)
    first, second = first[shuffled], second[shuffled]
    chosen = scores[first, second].argsort(descending=True, stable=True)[:count]
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[first[chosen], second[chosen]] = True
    return mask | mask.T
