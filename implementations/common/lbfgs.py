"""L-BFGS for a batch of independent problems: each has its own history, its own line search and its own pace.

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


@dataclass
class Minimum:
    """Where a batch of N problems ended. All tensors have first dimension N."""

    x: Tensor  # (N, D), the best point found
    value: Tensor  # (N,), the objective there
    steps: Tensor  # (N,), accepted steps
    evaluations: Tensor  # (N,), how often the objective was evaluated
    stalled: Tensor  # (N,), bool: stopped because no step lowered the value any more
    history: list[Tensor]  # values (N,) after each evaluation of the batch


def cubic_minimum(t1: Tensor, f1: Tensor, s1: Tensor, t2: Tensor, f2: Tensor, s2: Tensor) -> Tensor:
    """Minimiser of the cubic through values f and slopes s at t1 and t2; NaN where it has none."""
    swap = t1 > t2
    t1, t2 = torch.where(swap, t2, t1), torch.where(swap, t1, t2)
    f1, f2 = torch.where(swap, f2, f1), torch.where(swap, f1, f2)
    s1, s2 = torch.where(swap, s2, s1), torch.where(swap, s1, s2)
    d1 = s1 + s2 - 3 * (f1 - f2) / (t1 - t2)
    d2 = (d1.square() - s1 * s2).sqrt()  # NaN where the root is not real
    return t2 - (t2 - t1) * (s2 + d2 - d1) / (s2 - s1 + 2 * d2)


def direction(gradient: Tensor, s: Tensor, y: Tensor, rho: Tensor, newest: Tensor) -> Tensor:
    """-H g for each problem by the two-loop recursion, (A, D).

    `s` and `y` (A, M, D) are ring buffers of past steps and gradient changes with rho = 1 / <s, y> (A, M), 0 where empty;
    `newest` (A,) is the position of the latest pair.
    """
    rows = torch.arange(len(gradient), device=gradient.device)
    memory = s.shape[1]
    order = [(newest - k) % memory for k in range(memory)]
    q, alphas = gradient.clone(), []
    for at in order:  # newest first
        alpha = rho[rows, at] * (s[rows, at] * q).sum(dim=1)
        q -= alpha[:, None] * y[rows, at]
        alphas.append(alpha)
    latest_y, latest_rho = y[rows, newest], rho[rows, newest]
    gamma = torch.where(latest_rho > 0, 1 / (latest_rho * latest_y.square().sum(dim=1)), 1.0)  # equation 7.20
    q *= gamma[:, None]
    for at, alpha in zip(reversed(order), reversed(alphas), strict=True):
        beta = rho[rows, at] * (y[rows, at] * q).sum(dim=1)
        q += (alpha - beta)[:, None] * s[rows, at]
    return -q


@torch.no_grad()
def minimize(
    objective: Objective,
    start: Tensor,
    evaluations: int,
    memory: int = 20,
    tolerance: float = 0.0,
    c1: float = 1e-4,
    c2: float = 0.9,
    trials: int = 15,
    first_step: float = 1.0,
    watch: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Minimum:
    """Minimises N problems from `start` (N, D) with at most `evaluations` evaluations of each.

    `objective(points, rows)` gives values and gradients of the problems `rows` at `points`. A problem is finished when its
    value is at most `tolerance`, or when `trials` evaluations along the steepest descent found no lower value. `first_step`
    is the length of the first trial step. `watch(x, value)` may return a mask (N,) of problems to give up.
    """
    if start.dim() != 2:
        raise ValueError(f"start must be (problems, parameters), not {tuple(start.shape)}")
    if min(evaluations, memory, trials) < 1:
        raise ValueError("evaluations, memory and trials must be at least 1")
    count, size = start.shape
    everything = torch.arange(count, device=start.device)
    x = start.clone()
    f, g = objective(x, everything)
    used = torch.ones_like(everything)
    steps, stalled = torch.zeros_like(everything), torch.zeros_like(everything, dtype=torch.bool)
    s, y = x.new_zeros((count, memory, size)), x.new_zeros((count, memory, size))
    rho, newest = x.new_zeros((count, memory)), torch.zeros_like(everything)
    # the line search of each problem: slope at 0, trial step, and the two ends of the bracket
    d = -g
    slope0 = -(g * g).sum(dim=1)
    t = first_step / (-slope0).sqrt().clamp_min(1e-300)
    tried, zoom, fresh = torch.zeros_like(everything), torch.zeros_like(stalled), torch.ones_like(stalled)
    t_lo, f_lo, s_lo, g_lo = torch.zeros_like(f), f.clone(), slope0.clone(), g.clone()
    t_hi, f_hi, s_hi = torch.zeros_like(f), f.clone(), slope0.clone()
    done = ~f.isfinite() | (f <= tolerance) | (slope0 == 0)
    history = [f.clone()]

    for _ in range(evaluations - 1):
        if watch is not None:
            done = done | watch(x, f)
        a = everything[~done]
        if len(a) == 0:
            break
        ft, gt = objective(x[a] + t[a, None] * d[a], a)
        used[a] += 1
        tried[a] += 1
        st = (gt * d[a]).sum(dim=1)
        bad = ~(ft.isfinite() & st.isfinite())
        ft, st = torch.where(bad, torch.inf, ft), torch.where(bad, torch.inf, st)
        ta, searching = t[a], ~zoom[a]

        # one transition of every line search
        high = (ft > f[a] + c1 * ta * slope0[a]) | ((ft >= f_lo[a]) & (zoom[a] | (tried[a] > 1)))
        accept = ~high & (st.abs() <= -c2 * slope0[a])
        turned = ~high & ~accept & torch.where(searching, st >= 0, st * (t_hi[a] - t_lo[a]) >= 0)
        lower = ~high & ~accept  # the trial is the better end now
        far_t, far_f, far_s = t_lo[a].clone(), f_lo[a].clone(), s_lo[a].clone()  # the end that it replaces
        t_hi[a] = torch.where(high, ta, torch.where(turned, far_t, t_hi[a]))
        f_hi[a] = torch.where(high, ft, torch.where(turned, far_f, f_hi[a]))
        s_hi[a] = torch.where(high, st, torch.where(turned, far_s, s_hi[a]))
        t_lo[a], f_lo[a], s_lo[a] = (
            torch.where(lower, new, old[a]) for new, old in ((ta, t_lo), (ft, f_lo), (st, s_lo))
        )
        g_lo[a] = torch.where(lower[:, None], gt, g_lo[a])
        zoom[a] = zoom[a] | high | (lower & turned)

        # the next trial: extrapolate while searching, interpolate within the bracket
        guess = cubic_minimum(t_lo[a], f_lo[a], s_lo[a], t_hi[a], f_hi[a], s_hi[a])
        low, wide = torch.minimum(t_lo[a], t_hi[a]), (t_hi[a] - t_lo[a]).abs()
        inside = torch.where(guess.isfinite(), guess, low + 0.5 * wide)
        inside = inside.clamp(min=low + 0.1 * wide, max=low + 0.9 * wide)
        beyond = cubic_minimum(far_t, far_f, far_s, ta, ft, st)
        beyond = torch.where(beyond.isfinite(), beyond, 2 * ta).clamp(min=1.1 * ta, max=10 * ta)
        t[a] = torch.where(zoom[a], inside, beyond)

        # out of trials: take the better end if it is lower, else forget the history once, else give up
        spent = ~accept & ((tried[a] >= trials) | (zoom[a] & (wide * d[a].abs().amax(dim=1) < 1e-14)))
        take = spent & (f_lo[a] < f[a])
        failed = spent & ~take
        step_t = torch.where(accept, ta, t_lo[a])
        step_g = torch.where(accept[:, None], gt, g_lo[a])
        step_f = torch.where(accept, ft, f_lo[a])
        moved = accept | take
        m = a[moved]
        if len(m):
            change, bend = step_t[moved, None] * d[m], step_g[moved] - g[m]
            x[m], f[m], g[m] = x[m] + change, step_f[moved], step_g[moved]
            steps[m] += 1
            curvature = (change * bend).sum(dim=1)
            keep = curvature > 1e-12 * change.norm(dim=1) * bend.norm(dim=1)
            k = m[keep]
            newest[k] = (newest[k] + 1) % memory
            s[k, newest[k]], y[k, newest[k]] = change[keep], bend[keep]
            rho[k, newest[k]] = 1 / curvature[keep]
        gone = a[failed]
        stalled[gone[fresh[gone]]] = True
        rho[gone] = 0
        r = a[moved | failed]
        if len(r):
            fresh[r] = (rho[r] == 0).all(dim=1)
            d[r] = direction(g[r], s[r], y[r], rho[r], newest[r])
            slope0[r] = (d[r] * g[r]).sum(dim=1)
            uphill = r[slope0[r] >= 0]
            rho[uphill], fresh[uphill] = 0, True
            d[uphill] = -g[uphill]
            slope0[uphill] = -g[uphill].square().sum(dim=1)
            t[r] = torch.where(fresh[r], first_step / (-slope0[r]).sqrt().clamp_min(1e-300), 1.0)
            tried[r], zoom[r] = 0, False
            t_lo[r], f_lo[r], s_lo[r], g_lo[r] = 0.0, f[r], slope0[r], g[r]
            t_hi[r], f_hi[r], s_hi[r] = 0.0, f[r], slope0[r]
        done = done | stalled | (f <= tolerance) | (slope0 == 0)
        history.append(f.clone())
    return Minimum(x, f, steps, used, stalled, history)
