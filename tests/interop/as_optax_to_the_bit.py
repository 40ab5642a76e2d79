"""The iterates of an optax loop are those of `minimise`, to the bit where products and sums are not fused.

Run by test_as_optax.py, in a process of its own whose XLA is told not to.
"""

import jax
import numpy as np
import pytest
from test_as_optax import PROBLEMS, loop, own

import flowopt as fo
from studies.references import REFERENCES


def same_bits(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


ON_ROSENBROCK = (
    "gd",
    "nesterov",
    "adagrad",
    "adam",
    "amsgrad",
    "lion",
    "rmsprop, nesterov",
)
CASES = [(name, "rosenbrock 10-D") for name in ON_ROSENBROCK] + [
    (name, "tanh network") for name in ("adam", "rmsprop, momentum")
]


@pytest.mark.parametrize(("name", "problem"), CASES)
def test_the_iterates_are_the_librarys_own_to_the_bit(name, problem):
    make, _, lr = REFERENCES[name]
    loss, start = PROBLEMS[problem]
    params, _ = loop(fo.as_optax(make(lr)), loss, start, 200)
    assert same_bits(params, own(loss, start, make(lr), 200))


GUARDED = {
    "guarded Euler": fo.lyapunov(),
    "guarded Euler, backtracking": fo.lyapunov(controller=fo.Backtracking()),
    "guarded heavy ball": fo.lyapunov(fo.flows.HeavyBall(1.0)),
    "never above the first energy": fo.Method(
        fo.flows.HeavyBall(1.0),
        fo.EnergyGuard(fo.StaggeredEuler(), nonmonotone=True),
        fo.Backtracking(2, 2),
        step=0.1,
    ),
    "energy_rmsprop": fo.energy_rmsprop(),
}


GUARDED_CASES = [(name, "rosenbrock 10-D") for name in GUARDED] + [
    (name, "tanh network") for name in ("guarded Euler", "energy_rmsprop")
]


@pytest.mark.parametrize(("name", "problem"), GUARDED_CASES)
def test_guarded_iterates_are_the_librarys_own_to_the_bit(name, problem):
    loss, start = PROBLEMS[problem]
    method = GUARDED[name]
    ours = fo.minimise(lambda p, args: loss(p), start, method, tol=1e-300, max_steps=200)
    assert problem != "rosenbrock 10-D" or ours.stats["rejected"] > 5
    params, _ = loop(fo.as_optax(method), loss, start, 200, stored=True)
    assert same_bits(params, ours.params)
