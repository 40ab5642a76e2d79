"""Log-bisection against a plain search, and its bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import rosenbrock

import flowopt as fo


def test_log_bisection_is_the_plain_search():
    """Shrink by 30 until Armijo holds; three bisections in log h; take the longest acceptable step found."""
    fn, grad = rosenbrock, jax.grad(rosenbrock)
    y, h, attempts = jnp.array([-1.2, 1.0]), 1.0, 0

    def acceptable(h):
        g = grad(y)
        return bool(fn(y - h * g) - fn(y) <= -0.5 * h * jnp.sum(g**2))

    for _ in range(25):
        refused = None
        while True:
            attempts += 1
            if acceptable(h):
                break
            refused, h = h, h / 30
        if refused is not None:
            low, high = h, refused
            for _ in range(3):
                middle = float(np.sqrt(low) * np.sqrt(high))
                attempts += 1
                low, high = (middle, high) if acceptable(middle) else (low, middle)
            attempts += middle != low  # back to the longest acceptable one
            h = low
        y, h = y - h * grad(y), 30 * h
    method = fo.lyapunov(controller=fo.LogBisection(), step=1.0)
    end = fo.minimise(fn, jnp.array([-1.2, 1.0]), method, stop=lambda s: s.accepted >= 25)
    assert end.stats["accepted"] == 25
    assert int(end.stats["accepted"] + end.stats["rejected"]) == attempts
    np.testing.assert_allclose(end.params, y, rtol=1e-10)
    np.testing.assert_allclose(end.stats["step"], h, rtol=1e-10)


@pytest.mark.parametrize("bisections", [0, 1, 5])
def test_guarded_runs_converge_with_it(bisections):
    method = fo.lyapunov(controller=fo.LogBisection(bisections=bisections))
    end = fo.minimise(rosenbrock, jnp.array([-1.2, 1.0]), method, max_steps=200_000)
    assert end.outcome == "converged"


def test_bad_input_is_named():
    for change, error in (
        (dict(shrink=1.0), ValueError),
        (dict(grow=0.5), ValueError),
        (dict(bisections=-1), ValueError),
        (dict(bisections=1.5), TypeError),
    ):
        with pytest.raises(error, match=f"`{next(iter(change))}`"):
            fo.LogBisection(**change)
    with pytest.raises(ValueError, match="estimates none"):
        fo.Method(fo.flows.Gradient(), fo.StaggeredEuler(), fo.LogBisection(), step=0.1)
