"""L-BFGS for a batch of independent problems: each has its own curvature, its own line search and its own pace.

`torch.optim.LBFGS` sees one problem with one line search for all its parameters. Here row i of a batch is a problem of its
own. One call of the objective evaluates every unfinished problem once, at its own trial point, whatever state its line search
is in; a problem that accepts a step starts its next search at once, and one that is finished is evaluated no more.

The method is Nocedal and Wright, Numerical Optimization (2nd ed.): algorithm 7.4 with the scaling of equation 7.20, and the
strong-Wolfe line search of algorithms 3.5 and 3.6 with cubic interpolation (equation 3.59).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # points (A, D), rows (A,) -> values (A,), gradients (A, D)
TINY = 1e-30


@dataclass
class Minimum:
    """Where a batch of N problems ended. All tensors have first dimension N."""

    x: Tensor  # (N, D), the last point; with line search the best one too
    value: Tensor  # (N,), the objective there
    steps: Tensor  # (N,), accepted steps
    evaluations: Tensor  # (N,), how often the objective was evaluated
    stalled: Tensor  # (N,), bool: stopped because no step lowered the value any more, or the value was not finite
    history: list[Tensor]  # values (N,) after each evaluation of the batch


def cubic_minimum(t1: Tensor, f1: Tensor, s1: Tensor, t2: Tensor, f2: Tensor, s2: Tensor) -> Tensor:
    """Minimiser of the cubic through values f and slopes s at t1 and t2; NaN where it has none (equation 3.59)."""
    swap = t1 > t2
    t1, t2 = torch.where(swap, t2, t1), torch.where(swap, t1, t2)
    f1, f2 = torch.where(swap, f2, f1), torch.where(swap, f1, f2)
    s1, s2 = torch.where(swap, s2, s1), torch.where(swap, s1, s2)
    d1 = s1 + s2 - 3 * (f1 - f2) / (t1 - t2)
    d2 = (d1.square() - s1 * s2).sqrt()
    return t2 - (t2 - t1) * (s2 + d2 - d1) / (s2 - s1 + 2 * d2)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (A,) of the rows of a and b (A, D)."""
    return (a * b).sum(dim=1)


class History:
    """The last `memory` pairs of step s and gradient change y of each of A problems.

    A slot of the ring holds one pair of every problem, with rho = 1 / <s, y>; 0 where the problem had none to give then. So a
    problem whose line searches take more trials than its neighbours' keeps fewer pairs of its own.
    """

    def __init__(self, memory: int, gradient: Tensor):
        count, size = gradient.shape
        self.s, self.y = gradient.new_zeros((2, memory, count, size))
        self.rho = gradient.new_zeros((memory, count))
        self.gamma = gradient.new_ones(count)
        self.slot = 0

    def add(self, s: Tensor, y: Tensor, given: Tensor) -> None:
        """Keeps pairs (A, D) of the problems `given` (A,) whose curvature is positive."""
        curvature, squares = dot(s, y), dot(y, y)
        given = given & (curvature > 1e-10 * dot(s, s).sqrt() * squares.sqrt())
        if given.any():
            self.s[self.slot], self.y[self.slot] = s, y
            self.rho[self.slot] = torch.where(given, 1 / curvature, 0.0)
            self.gamma = torch.where(given, curvature / squares, self.gamma)  # equation 7.20
            self.slot = (self.slot + 1) % len(self.rho)

    def forget(self, which: Tensor) -> None:
        """Empties the histories of the problems `which` (A,), bool."""
        self.rho[:, which] = 0
        self.gamma[which] = 1

    def keep(self, which: Tensor) -> None:
        """Drops all but the problems `which` (A,), bool."""
        self.s, self.y, self.rho, self.gamma = self.s[:, which], self.y[:, which], self.rho[:, which], self.gamma[which]

    def direction(self, gradient: Tensor) -> Tensor:
        """-H g for each problem by the two-loop recursion (algorithm 7.4), (A, D)."""
        order = [at % len(self.rho) for at in range(self.slot, self.slot + len(self.rho))]  # oldest first
        order = [at for at, some in zip(order, self.rho[order].any(dim=1).tolist(), strict=True) if some]
        q, alphas = gradient.clone(), {}
        for at in reversed(order):
            alphas[at] = self.rho[at] * dot(self.s[at], q)
            q.addcmul_(alphas[at][:, None], self.y[at], value=-1)
        q *= self.gamma[:, None]
        for at in order:
            beta = self.rho[at] * dot(self.y[at], q)
            q.addcmul_((alphas[at] - beta)[:, None], self.s[at])
        return -q


@dataclass
class Search:
    """The line searches of A problems: d (A, D), everything else (A,). t is the trial step, lo and hi are the bracket's ends.

    While `zoom` is False no bracket is known, and lo is the last trial. `f0` and `slope0` are value and slope at t = 0.
    """

    d: Tensor
    f0: Tensor
    slope0: Tensor
    t: Tensor
    tried: Tensor
    zoom: Tensor
    t_lo: Tensor
    f_lo: Tensor
    s_lo: Tensor
    g_lo: Tensor  # (A, D), the gradient at lo
    t_hi: Tensor
    f_hi: Tensor
    s_hi: Tensor

    @classmethod
    def along(cls, d: Tensor, f: Tensor, g: Tensor, t: Tensor) -> "Search":
        """Fresh searches from points with values f and gradients g, first trial t."""
        slope, zero = dot(d, g), torch.zeros_like(f)
        ends = (zero, f, slope, g, zero, f, slope)
        return cls(d, f, slope, t, torch.zeros_like(f, dtype=torch.int64), torch.zeros_like(f, dtype=torch.bool), *ends)

    def select(self, which: Tensor) -> "Search":
        """The searches of the problems `which` (A,) alone."""
        return Search(*(value[which] for value in vars(self).values()))

    def merge(self, other: "Search", where: Tensor) -> "Search":
        """The searches of `other` where `where` (A,) is True, these elsewhere."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Search(*(torch.where(where[:, None] if a.dim() == 2 else where, b, a) for a, b in pairs))

    def advance(self, f: Tensor, g: Tensor, c1: float, c2: float) -> Tensor:
        """Takes in value f and gradient g at the trial; chooses the next one. True (A,) where the strong-Wolfe rule holds."""
        t, slope = self.t, dot(g, self.d)
        bad = ~(f.isfinite() & slope.isfinite())
        f, slope = torch.where(bad, torch.inf, f), torch.where(bad, torch.inf, slope)
        self.tried = self.tried + 1
        high = (f > self.f0 + c1 * t * self.slope0) | ((f >= self.f_lo) & (self.tried > 1))
        accept = ~high & (slope.abs() <= -c2 * self.slope0)
        lower = ~high & ~accept  # the trial becomes the better end
        turned = lower & torch.where(self.zoom, slope * (self.t_hi - self.t_lo) >= 0, slope >= 0)
        old_t, old_f, old_s = self.t_lo, self.f_lo, self.s_lo
        self.t_hi, self.f_hi, self.s_hi = (
            torch.where(high, new, torch.where(turned, old, end))
            for new, old, end in ((t, old_t, self.t_hi), (f, old_f, self.f_hi), (slope, old_s, self.s_hi))
        )
        self.t_lo, self.f_lo, self.s_lo = (
            torch.where(lower, new, old) for new, old in ((t, old_t), (f, old_f), (slope, old_s))
        )
        self.g_lo = torch.where(lower[:, None], g, self.g_lo)
        self.zoom = self.zoom | high | turned

        low, width = torch.minimum(self.t_lo, self.t_hi), (self.t_hi - self.t_lo).abs()
        inside = cubic_minimum(self.t_lo, self.f_lo, self.s_lo, self.t_hi, self.f_hi, self.s_hi)
        inside = torch.where(inside.isfinite(), inside, low + 0.5 * width).clamp(low + 0.1 * width, low + 0.9 * width)
        beyond = cubic_minimum(old_t, old_f, old_s, t, f, slope)
        beyond = torch.where(beyond.isfinite(), beyond, 2 * t).clamp(1.1 * t, 10 * t)
        self.t = torch.where(self.zoom, inside, beyond)
        return accept


@torch.no_grad()
def minimize(
    objective: Objective,
    start: Tensor,
    evaluations: int,
    memory: int = 20,
    tolerance: float = 0.0,
    c1: float = 1e-4,
    c2: float = 0.9,
    trials: int = 12,
    first_step: float = 1.0,
    line_search: bool = True,
    give_up: Callable[[Tensor], Tensor] | None = None,
) -> Minimum:
    """Minimises N problems from `start` (N, D) with at most `evaluations` evaluations of each.

    `objective(points, rows)` gives values and gradients of the problems `rows` at `points`. A problem is finished when its
    value is at most `tolerance`, or when `trials` evaluations along the steepest descent found no lower value. `first_step`
    is the length of the first trial step. `give_up(values)` may name problems (N,) to stop, from all values so far. Without
    `line_search` every full quasi-Newton step is taken, as `torch.optim.LBFGS` does by default, whatever it does to the value;
    a problem whose value is no longer finite stalls where it was before.
    """
    if start.dim() != 2:
        raise ValueError(f"start must be (problems, parameters), not {tuple(start.shape)}")
    if min(evaluations, memory, trials) < 1:
        raise ValueError("evaluations, memory and trials must be at least 1")
    rows = torch.arange(len(start), device=start.device)
    x = start.clone()
    f, g = objective(x, rows)
    found = Minimum(x.clone(), f.clone(), torch.zeros_like(rows), torch.ones_like(rows), ~f.isfinite(), [f.clone()])
    pairs = History(memory, g)
    plain = torch.ones_like(found.stalled)  # the search goes along the steepest descent
    search = Search.along(-g, f, g, first_step / g.norm(dim=1).clamp_min(TINY))

    for _ in range(evaluations - 1):
        going = ~found.stalled[rows] & (f > tolerance) & (search.slope0 < 0)
        if give_up is not None:
            going &= ~give_up(found.value)[rows]
        if not going.all():
            rows, x, f, g, plain, search = rows[going], x[going], f[going], g[going], plain[going], search.select(going)
            pairs.keep(going)
        if len(rows) == 0:
            break
        t = search.t
        ft, gt = objective(x + t[:, None] * search.d, rows)
        accept = search.advance(ft, gt, c1, c2)
        if not line_search:
            accept = ft.isfinite() & gt.isfinite().all(dim=1)
            found.stalled[rows[~accept]] = True
        # out of trials: take the better end of the bracket if it is lower; else forget the history; without one, stall
        spent = ~accept & (search.tried >= trials)
        take = spent & (search.f_lo < f)
        failed = spent & ~take
        moved = accept | take
        found.evaluations[rows] += 1
        found.steps[rows[moved]] += 1
        found.stalled[rows[failed & plain]] = True
        if (moved | failed).any():
            change = torch.where(moved, torch.where(accept, t, search.t_lo), 0.0)[:, None] * search.d
            new_g = torch.where(accept[:, None], gt, torch.where(take[:, None], search.g_lo, g))
            pairs.add(change, new_g - g, moved)
            pairs.forget(failed)
            x, g, f = x + change, new_g, torch.where(accept, ft, torch.where(take, search.f_lo, f))
            d = pairs.direction(g)
            uphill = dot(d, g) >= 0
            pairs.forget(uphill)
            d = torch.where(uphill[:, None], -g, d)
            fresh = ~pairs.rho.any(dim=0)
            length = torch.where(fresh, first_step / g.norm(dim=1).clamp_min(TINY), 1.0)
            search = search.merge(Search.along(d, f, g, length), moved | failed)
            plain = torch.where(moved | failed, fresh, plain)
            found.x[rows], found.value[rows] = x, f
        found.history.append(found.value.clone())
    if line_search and len(rows):  # what unfinished searches have found
        better = (search.f_lo < f) & ~found.stalled[rows]
        x, f = x + torch.where(better, search.t_lo, 0.0)[:, None] * search.d, torch.where(better, search.f_lo, f)
        found.x[rows], found.value[rows] = x, f
        found.history[-1] = found.value.clone()
    return found
