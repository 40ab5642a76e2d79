"""optax transformations as methods."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import rosenbrock

import flowopt as fo

START = jnp.array([-1.2, 1.0])


def test_its_iterates_are_optaxs():
    tx = optax.adam(1e-2)
    with jax.numpy_dtype_promotion("standard"):
        ours = fo.minimise(rosenbrock, START, fo.from_optax(tx), tol=1e-300, max_steps=100)
        params, state = START, tx.init(START)
        for _ in range(100):
            updates, state = tx.update(jax.grad(rosenbrock)(params), state, params)
            params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(ours.params, params, rtol=1e-12)
    assert ours.stats["value_evals"] is None


def test_a_line_search_and_an_ensemble():
    method = fo.from_optax(optax.lbfgs())
    with jax.numpy_dtype_promotion("standard"):
        assert fo.minimise(rosenbrock, START, method, max_steps=100).outcome == "converged"
        starts = jnp.stack([START, START + 1, 0.5 * START])
        ends = fo.ensemble(rosenbrock, starts, method, max_steps=100)
    assert np.all(ends.outcome == "converged")
    np.testing.assert_allclose(ends.params, 1.0, atol=1e-5)


def test_there_and_back_again():
    method = fo.from_optax(fo.as_optax(fo.momentum(1e-3)))
    ours = fo.minimise(rosenbrock, START, fo.momentum(1e-3), tol=1e-300, max_steps=50)
    back = fo.minimise(rosenbrock, START, method, tol=1e-300, max_steps=50)
    np.testing.assert_allclose(back.params, ours.params, rtol=1e-13)


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="`transformation`"):
        fo.from_optax(optax.adam)
