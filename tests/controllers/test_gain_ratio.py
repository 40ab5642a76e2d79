"""The step-size laws of the Levenberg-Marquardt family, each by its formula and at work."""

import jax.numpy as jnp
import numpy as np
import pytest

import flowopt as fo
from flowopt.benchmarks.more_garbow_hillstrom import residual_problems
from flowopt.controllers import Fletcher, Marquardt, More, Nielsen, Uphill
from flowopt.solvers.rosenbrock_euler import Gain

PROBLEM = residual_problems()[0]
RULES = {rule.__name__: rule() for rule in (Marquardt, Fletcher, More, Nielsen, Uphill)}


def judged(rule, rho, slope=1.5, state=None):
    """(keep, mu_next/mu, state) of a step that promised 1 of V0 = 10."""
    report = Gain(*(jnp.asarray(float(x)) for x in (max(1 - rho, 0), slope, 1.0, 10.0, 10.0 - rho)))
    keep, factor, state = rule.judge(jnp.asarray(rho), report, jnp.ones(2), state)
    return bool(keep), float(1 / factor), state


def test_marquardt():
    assert judged(Marquardt(), 0.1)[:2] == (True, 0.1)
    assert judged(Marquardt(), -0.1)[:2] == (False, 10)


def test_fletcher():
    assert judged(Fletcher(), 0.8)[:2] == (True, 0.5)
    assert judged(Fletcher(), 0.5)[:2] == (True, 1)
    # Parabola with slope -1.5 and value +1 at 1: its minimum is at 1.5/(2 (1 + 1.5)) = 0.3.
    keep, factor, _ = judged(Fletcher(), -1.0)
    np.testing.assert_allclose(factor, 1 / 0.3)
    assert not keep
    np.testing.assert_allclose(judged(Fletcher(), -1e6)[1], 10)
    np.testing.assert_allclose(judged(Fletcher(), 0.2)[1], 2)
    np.testing.assert_allclose(judged(Fletcher(), -np.inf)[1], 10)


def test_more():
    assert judged(More(), 0.75)[:2] == (True, 0.5)
    assert judged(More(), 0.5)[:2] == (True, 1)
    assert judged(More(), 0.1)[:2] == (True, 2)
    assert not judged(More(), 1e-5)[0]
    np.testing.assert_allclose(judged(More(), -1.0)[1], 1 / 0.3)


def test_nielsen():
    state = Nielsen().init(jnp.ones(2), jnp.float64)
    for rho in (0.3, 0.5, 0.7, 1.0):
        np.testing.assert_allclose(
            judged(Nielsen(), rho, state=state)[1], max(1 / 3, 1 - (2 * rho - 1) ** 3)
        )
    factors = []
    for _ in range(3):
        _, factor, state = judged(Nielsen(), -0.1, state=state)
        factors.append(factor)
    np.testing.assert_allclose(factors, [2, 4, 8])
    assert judged(Nielsen(), 0.5, state=state)[2] == 2


def test_uphill_keeps_a_rise_in_the_same_direction_only():
    rule = Uphill(b=1)
    state = rule.init(jnp.ones(2), jnp.float64)
    keep, factor, state = judged(rule, -0.5, state=state)  # no move yet to compare with
    assert not keep and factor == 2
    keep, factor, state = judged(rule, 0.5, state=state)
    assert keep and np.isclose(factor, 1 / 3)
    # As the last move: 1 - cos = 0.
    assert judged(rule, -0.5, state=state)[0]
    least, moved, last = state
    assert not judged(rule, -0.5, state=(least, moved, -last))[0]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_finds_the_minimum(name):
    start = jnp.asarray(PROBLEM.start)
    method = fo.levenberg_marquardt(1e-2, RULES[name])
    sol = fo.least_squares(PROBLEM.residuals, start, method, tol=1e-10)
    assert sol.outcome == "converged"
    np.testing.assert_allclose(sol.params, 1, rtol=1e-8)
    assert int(sol.stats["residual_evals"]) < 200


def test_geodesic_acceleration_bends_the_step():
    # Along an exponential valley the accelerated step is right to one more order.
    solver = lambda geodesic: fo.RosenbrockEuler(geodesic=geodesic)
    residuals = lambda x, _: jnp.stack([jnp.exp(x[0]) - 2, 0.1 * x[0]])
    ends = {}
    for geodesic in (0.0, 0.75):
        method = fo.Method(fo.flows.Gradient(), solver(geodesic), step=1e8)
        sol = fo.least_squares(residuals, jnp.array([0.5]), method, tol=1e-300, max_steps=1)
        ends[geodesic] = float(sol.params[0])
    exact = fo.least_squares(residuals, jnp.array([0.5]), tol=1e-12).params[0]
    assert abs(ends[0.75] - exact) < 0.5 * abs(ends[0.0] - exact)


def test_geodesic_acceleration_counts_its_derivative():
    start = jnp.asarray(PROBLEM.start)
    method = fo.levenberg_marquardt(1e-2, geodesic=0.75)
    sol = fo.least_squares(PROBLEM.residuals, start, method, tol=1e-10)
    assert sol.outcome == "converged"
    assert int(sol.stats["residual_evals"]) == 1 + 2 * int(sol.state.attempted)


def test_bounds_of_mu_hold_and_end_what_cannot_go_on():
    start = jnp.asarray(PROBLEM.start)
    bounded = fo.Method(
        fo.flows.Gradient(),
        fo.RosenbrockEuler(),
        fo.GainRatio(h_min=1e-4, h_max=10.0),
        step=1.0,
    )
    sol = fo.least_squares(PROBLEM.residuals, start, bounded, tol=1e-8)
    assert sol.outcome == "converged"
    assert 1e-4 <= float(sol.stats["step"]) <= 10
    # NaN wherever it goes: rejected until the shortest step, then stalled.
    nan = lambda x, _: jnp.where(jnp.all(x == start), x, jnp.nan)
    sol = fo.least_squares(nan, start, bounded, tol=1e-8)
    assert sol.outcome == "stalled"
    np.testing.assert_array_equal(sol.params, start)


def test_a_run_ends_where_the_promise_is_below_rounding():
    # |J'r| < 1e-12 is out of reach at R = 24.49: the run says so, and does not go on for 10,000 steps.
    problem = residual_problems()[1]
    sol = fo.least_squares(problem.residuals, jnp.asarray(problem.start), tol=1e-14)
    assert sol.outcome == "stalled"
    assert int(sol.state.attempted) < 100
    assert problem.reached(sol.value)


def test_wrong_arguments_name_themselves():
    with pytest.raises(ValueError, match="`h_min` and `h_max`"):
        fo.GainRatio(h_min=1.0, h_max=0.5)
    with pytest.raises(TypeError, match="`rule` must be a rule"):
        fo.GainRatio("nielsen")
    with pytest.raises(ValueError, match="`factor` must be > 1"):
        Marquardt(0.5)
    with pytest.raises(ValueError, match="`b` must be > 0"):
        Uphill(b=0.0)
    with pytest.raises(ValueError, match="`controller`: GainRatio judges"):
        fo.Method(fo.flows.Gradient(), fo.StaggeredEuler(), fo.GainRatio(), step=1.0)
