"""Batched L-BFGS: against closed forms, against SciPy, and problem by problem against itself."""

import pytest
import scipy.optimize
import torch

from implementations.common.lbfgs import History, cubic_minimum, minimize


def with_gradient(function):
    """An objective from a function (A, D), rows -> (A,)."""

    def objective(x, rows):
        with torch.enable_grad():
            x = x.clone().requires_grad_(True)
            value = function(x, rows)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient

    return objective


def rosenbrock(x, rows):
    return (100 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(dim=1)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_quadratics_end_at_their_minima_each_with_its_own():
    centre, scale = normal(7, 12), normal(7, 12, seed=1).abs() * 50 + 0.1
    found = minimize(
        with_gradient(lambda x, rows: (scale[rows] * (x - centre[rows]).square()).sum(dim=1)),
        normal(7, 12, seed=2),
        200,
        tolerance=1e-18,
    )
    torch.testing.assert_close(found.x, centre, atol=1e-7, rtol=0)
    assert not found.stalled.any()
    assert len(set(found.evaluations.tolist())) > 1, "every problem goes at its own pace"


@pytest.mark.parametrize("size", [2, 10, 40])
def test_rosenbrock_as_good_as_scipy(size):
    start = 2 * normal(6, size)
    found = minimize(with_gradient(rosenbrock), start, 800, memory=20, tolerance=1e-16)
    theirs = [
        scipy.optimize.minimize(
            scipy.optimize.rosen, one.numpy(), jac=scipy.optimize.rosen_der, method="L-BFGS-B",
            options={"maxcor": 20, "ftol": 0, "gtol": 1e-9, "maxiter": 2000, "maxfun": 2000},
        )
        for one in start
    ]  # fmt: skip
    solved = sum(one.fun < 1e-10 for one in theirs)
    assert int((found.value < 1e-10).sum()) >= solved - 1, "a local minimum may catch one search and not the other"
    assert found.evaluations.sum() <= 1.5 * sum(one.nfev for one in theirs)


def test_a_problem_does_not_depend_on_its_neighbours():
    start = 2 * normal(5, 6)
    together = minimize(with_gradient(rosenbrock), start, 30, memory=30)
    alone = minimize(with_gradient(rosenbrock), start[3:4], 30, memory=30)
    torch.testing.assert_close(together.x[3:4], alone.x, rtol=1e-6, atol=1e-8)
    assert together.steps[3] == alone.steps[0]


def test_values_never_rise_with_line_search_and_may_without():
    start = 3 * normal(20, 8)
    searched = torch.stack(minimize(with_gradient(rosenbrock), start, 80).history)
    assert (searched.diff(dim=0) <= 0).all()
    blind = torch.stack(minimize(with_gradient(rosenbrock), start, 80, line_search=False).history)
    assert (blind.diff(dim=0) > 0).any()


def test_one_step_is_steepest_descent_of_the_given_length():
    found = minimize(with_gradient(lambda x, _: x.square().sum(dim=1)), torch.full((1, 4), 10.0), 2, first_step=0.5)
    torch.testing.assert_close((found.x - 10).norm(), torch.tensor(0.5))


def test_two_loop_recursion_is_the_inverse_of_a_quadratic():
    """After D conjugate steps the recursion knows the whole matrix: H y = s for each pair, so -H g is Newton's step."""
    matrix = torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
    gradient = torch.tensor([[2.0, 8.0, 9.0]], dtype=torch.float64)
    history = History(5, gradient)
    for axis in range(3):
        s = torch.eye(3, dtype=torch.float64)[axis][None]
        history.add(s, s @ matrix, torch.tensor([True]))
    torch.testing.assert_close(history.direction(gradient), -gradient @ matrix.inverse())


def test_history_refuses_negative_curvature():
    history = History(3, torch.ones(1, 2))
    history.add(torch.ones(1, 2), -torch.ones(1, 2), torch.tensor([True]))
    assert (history.rho == 0).all()
    torch.testing.assert_close(history.direction(torch.ones(1, 2)), -torch.ones(1, 2))


def test_cubic_minimum_of_a_known_cubic():
    """t^3 - 3 t has its minimum at 1."""
    t = torch.tensor([0.0, 2.0], dtype=torch.float64)
    f, s = t**3 - 3 * t, 3 * t.square() - 3
    found = cubic_minimum(t[:1], f[:1], s[:1], t[1:], f[1:], s[1:])
    torch.testing.assert_close(found, torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(cubic_minimum(t[1:], f[1:], s[1:], t[:1], f[:1], s[:1]), found)


def test_what_is_not_finite_stalls_and_spares_the_others():
    def half_broken(x, rows):
        return torch.where(rows == 0, torch.nan, x.square().sum(dim=1))

    found = minimize(with_gradient(half_broken), torch.ones(2, 3), 20, tolerance=1e-12)
    assert found.stalled.tolist() == [True, False]
    assert found.value[1] <= 1e-12


def test_steps_into_a_forbidden_region_are_shortened():
    """-log(x) + x is infinite at and below 0; the search still finds 1."""
    objective = with_gradient(lambda x, _: (x - x.log()).sum(dim=1))
    found = minimize(objective, torch.full((1, 1), 8.0, dtype=torch.float64), 60, first_step=50.0)
    torch.testing.assert_close(found.x, torch.ones(1, 1, dtype=torch.float64), atol=1e-5, rtol=0)


def test_given_up_problems_are_evaluated_no_more():
    seen = []

    def objective(x, rows):
        seen.append(rows.tolist())
        return with_gradient(rosenbrock)(x, rows)

    found = minimize(objective, 2 * normal(3, 4), 30, give_up=lambda values: torch.arange(3) == 1)
    assert seen[0] == [0, 1, 2]
    assert all(rows == [0, 2] for rows in seen[1:])
    assert found.evaluations[1] == 1


@pytest.mark.parametrize("wrong", [{"evaluations": 0}, {"memory": 0}, {"start": torch.ones(3)}])
def test_wrong_arguments(wrong):
    arguments = {"start": torch.ones(2, 3), "evaluations": 5, **wrong}
    with pytest.raises(ValueError, match="must be"):
        minimize(with_gradient(rosenbrock), **arguments)
