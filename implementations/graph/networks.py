"""Graph convolutional networks on dense adjacency matrices, and their training."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Graphs = Mapping[str, tuple[Tensor, Tensor]]  # by name: adjacency (..., N, N) in [0, 1] and node features (N, D)


def normalized_adjacency(adjacency: Tensor) -> Tensor:
    """D^(-1/2) (A + I) D^(-1/2) with the degrees D of A + I (Kipf and Welling, ICLR 2017); (..., N, N), differentiable."""
    looped = adjacency + torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
    scale = looped.sum(dim=-1).rsqrt()  # at least 1 for non-negative weights, so finite
    return scale[..., :, None] * looped * scale[..., None, :]


class GCN(nn.Module):
    """Two graph convolutions with a ReLU between; logits (..., N, C) of every node."""

    def __init__(self, features: int, hidden: int, classes: int, dropout: float = 0.5):
        super().__init__()
        self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, classes)
        self.dropout = dropout
        for layer in (self.first, self.second):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def hidden(self, adjacency: Tensor, features: Tensor) -> Tensor:
        """The first layer's output relu(A^ X W1 + b1), (..., N, H)."""
        support = features @ self.first.weight.T
        return F.relu(normalized_adjacency(adjacency) @ support + self.first.bias)

    def forward(self, adjacency: Tensor, features: Tensor) -> Tensor:
        inner = F.dropout(self.hidden(adjacency, features), self.dropout, self.training)
        return normalized_adjacency(adjacency) @ (inner @ self.second.weight.T) + self.second.bias


class GraphModels(nn.Module):
    """One GCN for each private graph, by name. A query is one graph with its features."""

    def __init__(self, networks: Mapping[str, GCN]):
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def forward(self, graphs: Graphs) -> dict[str, Tensor]:
        """Logits of the nodes of each given graph."""
        return {name: self.networks[name](adjacency, features) for name, (adjacency, features) in graphs.items()}

    def hidden(self, graphs: Graphs) -> dict[str, Tensor]:
        """First-layer activations of the nodes of each given graph."""
        return {name: self.networks[name].hidden(adjacency, features) for name, (adjacency, features) in graphs.items()}


@torch.enable_grad()
def train_gcn(
    network: GCN,
    adjacency: Tensor,
    features: Tensor,
    labels: Tensor,
    train: Tensor,
    generator: torch.Generator,
    epochs: int = 200,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
) -> None:
    """Trains in place on the labels of the nodes in `train` (indices), with Adam; the graph itself is seen whole."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)
    keep = 1 - network.dropout
    network.eval()  # dropout is drawn below, from the generator
    for _ in range(epochs):
        optimizer.zero_grad()
        inner = network.hidden(adjacency, features)
        mask = (torch.rand(inner.shape, generator=generator, device=inner.device) < keep).to(inner.dtype) / keep
        logits = normalized_adjacency(adjacency) @ (inner * mask @ network.second.weight.T) + network.second.bias
        F.cross_entropy(logits[train], labels[train]).backward()
        optimizer.step()
