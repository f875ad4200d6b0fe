"""Graphs with node features and labels: a citation-like generator, social graphs, and readers of the papers' files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from ..common.folders import missing_data

TREE = """  FOLDER/
    cora/cora.content, cora/cora.cites               the text files of the LINQS release: a paper's id, its words, its class;
    citeseer/citeseer.content, citeseer/citeseer.cites   and pairs of ids (not the ind.* pickles of the Planetoid release)
    polblogs/polblogs.gml                            the political blogs of Adamic and Glance (2005) in GML"""


class LabelledGraph(NamedTuple):
    """An undirected graph: adjacency (N, N) of 0 and 1 without loops, features (N, D), classes (N,) from 0."""

    adjacency: Tensor
    features: Tensor
    labels: Tensor


def from_edges(edges: Tensor, features: Tensor, labels: Tensor) -> LabelledGraph:
    """The graph of undirected edges (E, 2); repeated edges count once, loops are dropped."""
    adjacency = features.new_zeros(len(features), len(features))
    adjacency[edges[:, 0], edges[:, 1]] = 1
    adjacency = torch.maximum(adjacency, adjacency.T).fill_diagonal_(0)
    return LabelledGraph(adjacency, features, labels)


def citation_like(
    generator: torch.Generator,
    nodes: int = 240,
    classes: int = 4,
    topics: int = 4,
    words: int = 320,
    degree: float = 4.0,
    homophily: float = 0.81,
    within_topic: float = 0.7,
    words_each: float = 18.0,
    topicality: float = 0.4,
) -> LabelledGraph:
    """A contextual stochastic block model with binary words, synthetic.

    Every node has one of `classes` subjects and, inside it, one of `topics`. The mean `degree`, the share `homophily` of links
    within a subject and the mean number of words `words_each` are Cora's; of the links within a subject the share
    `within_topic` stays within a topic. A share `topicality` of a node's words comes from its topic's own, the rest from all.
    Thus words tell of links beyond what the class tells, as citations do.
    """
    device = generator.device
    topic = torch.arange(nodes, device=device) % (classes * topics)
    labels = topic % classes
    same_topic, same = topic[:, None] == topic[None, :], labels[:, None] == labels[None, :]
    each, subject = nodes / (classes * topics), nodes / classes
    inside = degree * homophily * within_topic / (each - 1)
    beside = degree * homophily * (1 - within_topic) / (subject - each)
    across = degree * (1 - homophily) / (nodes - subject)
    chance = torch.where(same_topic, inside, torch.where(same, beside, across))
    linked = torch.rand(nodes, nodes, generator=generator, device=device) < chance
    own = topic[:, None] == (torch.arange(words, device=device) % (classes * topics))[None, :]
    rate = words_each * (topicality * own * classes * topics + (1 - topicality)) / words
    features = (torch.rand(nodes, words, generator=generator, device=device) < rate).float()
    return from_edges(linked.triu(1).nonzero(), features, labels)


def of_networkx(graph: nx.Graph, classes: Mapping, device: torch.device | str) -> LabelledGraph:
    """A networkx graph whose nodes have no attributes: a node's feature is its own indicator."""
    order = {node: index for index, node in enumerate(graph)}
    edges = torch.tensor([(order[a], order[b]) for a, b in graph.edges], device=device)
    names = sorted(set(classes.values()))
    labels = torch.tensor([names.index(classes[node]) for node in graph], device=device)
    return from_edges(edges, torch.eye(len(order), device=device), labels)


def karate(device: torch.device | str) -> LabelledGraph:
    """Zachary's karate club: 34 members, 78 friendships; the class is the club that a member joined after the split."""
    graph = nx.karate_club_graph()
    return of_networkx(graph, dict(graph.nodes(data="club")), device)


def les_miserables(device: torch.device | str) -> LabelledGraph:
    """Characters of Les Miserables: 77 of them, 254 shared scenes; the class is a community found by modularity, as there is
    no other label."""
    graph = nx.les_miserables_graph()
    found = nx.community.greedy_modularity_communities(graph, resolution=1.0)
    return of_networkx(graph, {node: index for index, members in enumerate(found) for node in sorted(members)}, device)


def linqs(folder: Path | str, name: str, device: torch.device | str) -> LabelledGraph:
    """Cora or Citeseer from FOLDER/name/name.content and .cites. Links to papers without words are dropped, as usual.

    Raises FileNotFoundError, with the expected tree, where a file is missing or not of the layout.
    """
    content, cites = (Path(folder) / name / f"{name}.{ending}" for ending in ("content", "cites"))
    for path in (content, cites):
        if not path.is_file():
            raise missing_data(folder, TREE, f"no {name}/{path.name} in it")
    rows = [line.split() for line in content.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows or len({len(row) for row in rows}) != 1 or len(rows[0]) < 3 or set("".join(rows[0][1:-1])) - {"0", "1"}:
        raise missing_data(content, TREE, "lines are not an id, words as 0 or 1, and a class, alike in number")
    index = {row[0]: place for place, row in enumerate(rows)}
    names = sorted({row[-1] for row in rows})
    features = torch.from_numpy(np.array([row[1:-1] for row in rows], dtype=np.float32)).to(device)
    labels = torch.tensor([names.index(row[-1]) for row in rows], device=device)
    pairs = [line.split() for line in cites.read_text(encoding="utf-8").splitlines() if line.strip()]
    edges = [(index[a], index[b]) for a, b in pairs if a in index and b in index]
    if not edges:
        raise missing_data(cites, TREE, "no pair of ids that are in the content file")
    return from_edges(torch.tensor(edges, device=device), features, labels)


def polblogs(folder: Path | str, device: torch.device | str) -> LabelledGraph:
    """The largest connected part of the political blogs, from FOLDER/polblogs/polblogs.gml; the class is the leaning.

    The file repeats edges, which GML readers refuse; ids, values and edges are read directly. Raises FileNotFoundError.
    """
    path = Path(folder) / "polblogs" / "polblogs.gml"
    if not path.is_file():
        raise missing_data(folder, TREE, "no polblogs/polblogs.gml in it")
    text = path.read_text(encoding="utf-8")
    graph = nx.Graph()
    for block in re.findall(r"\bnode\s*\[(.*?)\]", text, re.DOTALL):
        identity, value = re.search(r"\bid\s+(\d+)", block), re.search(r"\bvalue\s+(\d+)", block)
        if identity and value:
            graph.add_node(int(identity[1]), value=int(value[1]))
    for block in re.findall(r"\bedge\s*\[(.*?)\]", text, re.DOTALL):
        ends = re.search(r"\bsource\s+(\d+)", block), re.search(r"\btarget\s+(\d+)", block)
        if all(ends) and all(int(end[1]) in graph for end in ends):
            graph.add_edge(int(ends[0][1]), int(ends[1][1]))
    if not graph.edges:
        raise missing_data(path, TREE, "no node with a value and an edge")
    part = graph.subgraph(max(nx.connected_components(graph), key=len))
    return of_networkx(part, dict(part.nodes(data="value")), device)
