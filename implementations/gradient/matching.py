"""The search that gradient matching needs: all clients and all their random starts as one batch of L-BFGS problems.

What is matched, and how labels are treated, is the papers' own and comes as functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.lbfgs import Minimum, minimize
from ..experiment import Config, Reconstruction, require
from ..threat_model import Gradients
from .networks import Update, client_gradients

Distance = Callable[[Update, Mapping[str, Tensor]], Tensor]  # two updates of A clients -> distances (A,)
SNAPSHOTS = (10, 30, 100, 300)  # evaluations after which a picture of the search is kept


@dataclass(frozen=True, kw_only=True)
class MatchingConfig(Config):
    """Starts and solver, the same for every paper that matches gradients by L-BFGS."""

    start: str = "flat"  # flat (one random colour a picture, with little noise) or normal (the papers' standard normal noise)
    starts: int = 2  # random starts of each client; the papers have 1
    race: int = 40  # evaluations after which only the start with the smallest distance goes on
    evaluations: int = 600  # of the distance and its gradient, at most; the papers' code: 300 rounds of up to 20 steps
    memory: int = 100  # pairs that L-BFGS keeps; the papers' code: 100
    line_search: bool = True  # strong-Wolfe line search; False: every full step is taken, as in the papers' code
    tolerance: float = 2e-8  # stop at this distance, relative to the squared norm of the observed gradient

    def __post_init__(self):
        require(self.start in ("flat", "normal"), f"start must be flat or normal, not {self.start!r}")
        counts = (self.starts, self.race, self.evaluations, self.memory)
        require(min(counts) >= 1, f"starts, race, evaluations and memory must be at least 1, not {counts}")
        require(self.tolerance >= 0, f"tolerance must not be negative, not {self.tolerance}")


def start_images(config: MatchingConfig, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """First guesses of the given shape (N, B, C, S, S)."""
    noise = torch.randn(shape, generator=generator, device=generator.device)
    if config.start == "normal":
        return noise
    colour = 0.25 + 0.5 * torch.rand((*shape[:3], 1, 1), generator=generator, device=generator.device)
    return colour + 0.01 * noise


def match(
    oracle: Gradients,
    distance: Distance,
    config: MatchingConfig,
    shape: tuple[int, ...],
    generator: torch.Generator,
    labels: Tensor | None = None,
    classes: int = 0,
) -> Reconstruction:
    """Batches of the given shape (B, C, S, S) whose gradients come nearest to the observed ones, one for each of V clients.

    With `labels` (V, B) these are taken for true. Without, logits over `classes` are searched for along with the pictures.
    Starts are compared by the distance alone, which is all that an adversary sees.
    """
    observed = oracle.update
    clients, batch, pixels = len(next(iter(observed.values()))), shape[0], torch.Size(shape).numel()
    client = torch.arange(clients, device=oracle.device).repeat_interleave(config.starts)  # of each run
    runs = len(client)
    scale = sum(value.flatten(1).square().sum(dim=1) for value in observed.values())  # (V,)
    gradients = client_gradients(oracle.model)
    begin = start_images(config, (runs, *shape), generator).flatten(1)
    if labels is None:
        logits = torch.randn((runs, batch * classes), generator=generator, device=oracle.device)
        begin = torch.cat([begin, logits], dim=1)
    else:
        hard = F.one_hot(labels, int(observed_classes(observed))).to(begin.dtype)  # (V, B, K)
    latest, snapshots, calls = begin.clone(), [], 0

    def pictures(z: Tensor) -> Tensor:
        return z[:, :pixels].view(-1, *shape)

    def objective(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        latest[rows] = z
        if calls in SNAPSHOTS:
            snapshots.append(latest.clone())
        with torch.enable_grad():
            z = z.clone().requires_grad_(True)
            targets = z[:, pixels:].view(-1, batch, classes).softmax(dim=-1) if labels is None else hard[client[rows]]
            found = gradients(pictures(z), targets)
            value = distance(found, {name: seen[client[rows]] for name, seen in observed.items()}) / scale[client[rows]]
            (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope

    def beaten(values: Tensor) -> Tensor:
        """After the race, all runs but the best of each client."""
        if calls < config.race:
            return torch.zeros_like(values, dtype=torch.bool)
        if not best:
            best.append(leading(values, clients))
        mask = torch.ones_like(values, dtype=torch.bool)
        mask[best[0]] = False
        return mask

    best: list[Tensor] = []
    end = minimize(
        objective,
        begin,
        config.evaluations,
        memory=config.memory,
        tolerance=config.tolerance,
        line_search=config.line_search,
        give_up=beaten if config.starts > 1 else None,
    )
    chosen = leading(end.value, clients)

    def batches(z: Tensor) -> dict[str, Tensor]:
        found = z[chosen, pixels:].view(clients, batch, classes).argmax(dim=-1) if labels is None else labels
        return {"images": pictures(z[chosen]).detach(), "labels": found}

    return Reconstruction(
        batches(end.x), curves(end, chosen), [batches(z) for z in snapshots], notes(end, chosen, config, begin)
    )


def observed_classes(observed: Mapping[str, Tensor]) -> int:
    """How many classes the last layer has, from the gradient of its weight (V, K, D)."""
    return last_layer(observed).shape[1]


def last_layer(observed: Mapping[str, Tensor]) -> Tensor:
    """The gradient of the last layer's weight (V, K, D): the last two-dimensional parameter."""
    return [value for value in observed.values() if value.dim() == 3][-1]


def leading(values: Tensor, clients: int) -> Tensor:
    """The run with the smallest value of each client, (V,); a value that is not finite never leads."""
    table = torch.where(values.isfinite(), values, torch.inf).view(clients, -1)
    return table.argmin(dim=1) + torch.arange(clients, device=values.device) * table.shape[1]


def curves(end: Minimum, chosen: Tensor) -> dict[str, list[float]]:
    """The relative distance after each evaluation: median, best and worst of the chosen runs."""
    values = torch.stack([value[chosen] for value in end.history])  # (evaluations, V)
    return {
        "median distance": values.quantile(0.5, dim=1).tolist(),
        "best client": values.amin(dim=1).tolist(),
        "worst client": values.amax(dim=1).tolist(),
    }


def notes(end: Minimum, chosen: Tensor, config: MatchingConfig, begin: Tensor) -> dict[str, float]:
    """Counts of the search: runs, restarts, evaluations, what did not converge, and the distance that was reached."""
    first, last = end.history[0][chosen], end.value[chosen]
    return {
        "runs": float(len(begin)),
        "restarts_each": float(config.starts - 1),
        "evaluations": float(end.evaluations.sum().item()),
        "diverged": (~(last < first)).float().mean().item(),  # share of clients whose search ended no nearer than it began
        "stuck": ((last > 1e-3) | end.stalled[chosen]).float().mean().item(),  # stalled, or a thousandth of the norm away
        "solved": (last <= config.tolerance).float().mean().item(),
        "distance": last.quantile(0.5).item(),
    }
