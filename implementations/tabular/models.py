"""Targets over records: linear and logistic regression, decision trees, a small perceptron, and how they are fitted."""

from collections.abc import Mapping

import torch
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.cache import cached_module
from ..common.training import seeded_weights

DEPTH = 7  # of a decision tree at most
MIN_LEAF = 10  # training people in a leaf at least; the least-squares fits need no such guard


class Encoder(nn.Module):
    """Records (B, D) to inputs (B, E): numbers are standardised, a code becomes an indicator of each value but its first."""

    def __init__(self, columns: int, discrete: Mapping[int, int]):
        super().__init__()
        self.discrete = dict(discrete)
        self.numbers = [column for column in range(columns) if column not in discrete]
        self.width = len(self.numbers) + sum(count - 1 for count in discrete.values())
        self.register_buffer("mean", torch.zeros(len(self.numbers), device="cpu"))
        self.register_buffer("deviation", torch.ones(len(self.numbers), device="cpu"))

    def fit(self, records: Tensor) -> None:
        """Takes mean and standard deviation of the numbers from training records."""
        if not self.numbers:
            return
        numbers = records[:, self.numbers]
        self.mean.copy_(numbers.mean(dim=0))
        self.deviation.copy_(numbers.std(dim=0).clamp(min=1e-6))

    def forward(self, records: Tensor) -> Tensor:
        parts = [(records[:, self.numbers] - self.mean) / self.deviation]
        parts += [F.one_hot(records[:, column].long(), count)[:, 1:] for column, count in self.discrete.items()]
        return torch.cat([part.to(records.dtype) for part in parts], dim=1)


class Linear(nn.Module):
    """Linear regression (B,) by least squares, or logistic regression with logits (B, C)."""

    def __init__(self, columns: int, discrete: Mapping[int, int], classes: int):
        super().__init__()
        self.encoder = Encoder(columns, discrete)
        self.layer = nn.Linear(self.encoder.width, max(classes, 1))
        self.classes = classes

    def forward(self, records: Tensor) -> Tensor:
        out = self.layer(self.encoder(records))
        return out if self.classes else out.squeeze(1)

    def fit(self, records: Tensor, outcomes: Tensor) -> None:
        self.encoder.fit(records)
        with torch.no_grad():
            inputs = self.encoder(records)
        if self.classes:
            fit_by_newton(self.layer, inputs, outcomes)
            return
        design = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1).double()
        # A tiny ridge: a genotype that nobody in the training set has gets no effect instead of an arbitrary one.
        gram = design.T @ design + 1e-6 * torch.eye(design.shape[1], device=design.device, dtype=design.dtype)
        weights = torch.linalg.solve(gram, design.T @ outcomes.double())
        with torch.no_grad():
            self.layer.weight.copy_(weights[None, :-1])
            self.layer.bias.copy_(weights[-1:])


def fit_by_newton(layer: nn.Linear, inputs: Tensor, labels: Tensor, decay: float = 1e-3) -> None:
    """Multinomial logistic regression by L-BFGS, with a small L2 penalty so that a minimum exists."""
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(inputs), labels) + decay * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


class Perceptron(nn.Module):
    """One hidden layer of 32 units; a number (B,) or logits (B, C)."""

    def __init__(self, columns: int, discrete: Mapping[int, int], classes: int):
        super().__init__()
        self.encoder = Encoder(columns, discrete)
        self.body = nn.Sequential(nn.Linear(self.encoder.width, 32), nn.ReLU(), nn.Linear(32, max(classes, 1)))
        self.classes = classes

    def forward(self, records: Tensor) -> Tensor:
        out = self.body(self.encoder(records))
        return out if self.classes else out.squeeze(1)

    def fit(self, records: Tensor, outcomes: Tensor, steps: int = 150) -> None:
        """Full-batch AdamW, stopped early; a regression starts from the mean outcome."""
        self.encoder.fit(records)
        if not self.classes:
            with torch.no_grad():
                self.body[-1].bias.fill_(outcomes.mean().item())
        optimizer = torch.optim.AdamW(self.body.parameters(), lr=0.01, weight_decay=1.0)
        loss_of = F.cross_entropy if self.classes else F.mse_loss
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(self(records), outcomes).backward()
            optimizer.step()


class Tree(nn.Module):
    """A decision tree of scikit-learn as buffers: a number (B,), or logarithms of class shares (B, C) as logits."""

    def __init__(self, columns: int, discrete: Mapping[int, int], classes: int):
        super().__init__()
        nodes = 2 ** (DEPTH + 1)
        self.classes = classes
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(nodes, dtype=torch.int64, device="cpu"))
        self.register_buffer("threshold", torch.zeros(nodes, device="cpu"))
        self.register_buffer("leaf", torch.zeros(nodes, max(classes, 1), device="cpu"))

    def fit(self, records: Tensor, outcomes: Tensor) -> None:
        kind = DecisionTreeClassifier if self.classes else DecisionTreeRegressor
        grown = kind(max_depth=DEPTH, min_samples_leaf=MIN_LEAF, random_state=0)
        tree = grown.fit(records.cpu().numpy(), outcomes.cpu().numpy()).tree_
        count, like = tree.node_count, self.leaf

        def given(values: object) -> Tensor:
            return torch.as_tensor(values, device=like.device)

        inner = given(tree.children_left) >= 0
        own = torch.arange(count, device=like.device)
        self.left[:count] = torch.where(inner, given(tree.children_left), own)  # a leaf leads to itself
        self.right[:count] = torch.where(inner, given(tree.children_right), own)
        self.feature[:count] = given(tree.feature).clamp(min=0)
        self.threshold[:count] = given(tree.threshold).float()
        value = given(tree.value[:, 0]).float()  # (nodes, outputs)
        if self.classes:
            shares = value / value.sum(dim=1, keepdim=True)
            value = like.new_full((count, self.classes), 1e-3).log()
            value[:, given(grown.classes_)] = shares.clamp(min=1e-3).log()
        self.leaf[:count] = value

    def forward(self, records: Tensor) -> Tensor:
        node = torch.zeros(len(records), dtype=torch.int64, device=records.device)
        for _ in range(DEPTH):
            asked = records.gather(1, self.feature[node][:, None]).squeeze(1)
            node = torch.where(asked <= self.threshold[node], self.left[node], self.right[node])
        return self.leaf[node] if self.classes else self.leaf[node].squeeze(1)


MODELS = {"linear": Linear, "tree": Tree, "mlp": Perceptron}


def fitted(
    kind: str,
    records: Tensor,
    outcomes: Tensor,
    discrete: Mapping[int, int],
    classes: int,
    seed: int,
) -> nn.Module:
    """A model of one kind (linear, tree, mlp) fitted to training records (N, D) and outcomes (N,), cached.

    `discrete` maps positions of discrete columns to their number of values; `classes` is 0 for a regression. Raises KeyError
    for an unknown kind.
    """

    def make() -> nn.Module:
        with seeded_weights(seed):
            return MODELS[kind](records.shape[1], discrete, classes)

    @torch.enable_grad()
    def train(model: nn.Module) -> None:
        model.fit(records, outcomes)

    key = [kind, records, outcomes, sorted(discrete.items()), classes, seed]
    return cached_module(f"table-{kind}", __name__, key, make, train, records.device)
