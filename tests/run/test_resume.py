"""A run that is interrupted, written to disk and resumed is the run that was not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import rosenbrock

import flowopt as fo

START = jnp.array([-1.2, 1.0])
METHODS = {
    "adam": fo.adam(1e-2),
    "guarded heavy ball": fo.lyapunov(fo.flows.HeavyBall(1.0)),
    "default": fo.default_method(),
}


def same_bits(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("name", METHODS)
def test_the_same_bits_by_way_of_the_disk(name, tmp_path):
    method = METHODS[name]
    whole = fo.minimise(rosenbrock, START, method, max_steps=30)
    half = fo.minimise(rosenbrock, START, method, max_steps=11)
    eqx.tree_serialise_leaves(tmp_path / "run.eqx", half.state)
    like = fo.minimise(rosenbrock, START, method, max_steps=0).state
    read = eqx.tree_deserialise_leaves(tmp_path / "run.eqx", like)
    resumed = fo.minimise(rosenbrock, read, method, max_steps=30)
    assert half.outcome == "max_steps" and half.state.attempted == 11
    assert same_bits(resumed.state, whole.state)
    assert resumed.stats["accepted"] == whole.stats["accepted"]


def test_least_squares_resumes_too():
    residuals = lambda x, _: jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])
    whole = fo.least_squares(residuals, START)
    half = fo.least_squares(residuals, START, max_steps=5)
    assert same_bits(fo.least_squares(residuals, half.state).state, whole.state)
    assert whole.outcome == "converged"


def test_what_has_ended_stays_so_until_more_is_asked():
    done = fo.minimise(rosenbrock, START)
    again = fo.minimise(rosenbrock, done.state)
    assert again.outcome == "converged" and same_bits(again.state, done.state)
    further = fo.minimise(rosenbrock, done.state, tol=1e-12)
    assert further.stats["accepted"] > done.stats["accepted"] and further.grad_norm < 1e-12
    lost = fo.minimise(rosenbrock, START, fo.gd(1.0))
    assert fo.minimise(rosenbrock, lost.state, fo.gd(1.0)).outcome == "diverged"


def test_the_state_of_another_method_is_refused():
    state = fo.minimise(rosenbrock, START, fo.adam(1e-2), max_steps=3).state
    with pytest.raises(ValueError, match="`params`: this state is of another method"):
        fo.minimise(rosenbrock, state, fo.gd(1e-2))
