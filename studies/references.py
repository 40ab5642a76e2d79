"""Every named method beside the optax transformation it claims to be, and their trajectories."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax

import flowopt as fo
from flowopt.objective import At, Evaluations
from flowopt.run.step import make_stepper
from flowopt.solvers.native import native
from flowopt.tree import sum_squares

REFERENCES: dict[str, tuple[Callable[[Any], fo.Method], Callable[[Any], Any], float]] = {
    "gd": (fo.gd, optax.sgd, 1e-3),
    "sign_gd": (fo.sign_gd, optax.sign_sgd, 1e-3),
    "momentum": (lambda lr: fo.momentum(lr, 0.9), lambda lr: optax.sgd(lr, 0.9), 1e-4),
    "nesterov": (
        lambda lr: fo.nesterov(lr, 0.9),
        lambda lr: optax.sgd(lr, 0.9, nesterov=True),
        1e-4,
    ),
    "adagrad": (fo.adagrad, optax.adagrad, 1e-2),
    "rmsprop": (fo.rmsprop, optax.rmsprop, 1e-3),
    "rmsprop, eps outside the root": (
        lambda lr: fo.rmsprop(lr, eps_in_sqrt=False),
        lambda lr: optax.rmsprop(lr, eps_in_sqrt=False),
        1e-3,
    ),
    "rmsprop, initial scale": (
        lambda lr: fo.rmsprop(lr, 0.95, 1e-6, 1.0),
        lambda lr: optax.rmsprop(lr, 0.95, 1e-6, 1.0),
        1e-3,
    ),
    "rmsprop, centred": (
        lambda lr: fo.rmsprop(lr, centered=True),
        lambda lr: optax.rmsprop(lr, centered=True),
        1e-3,
    ),
    "rmsprop, bias correction": (
        lambda lr: fo.rmsprop(lr, bias_correction=True),
        lambda lr: optax.rmsprop(lr, bias_correction=True),
        1e-3,
    ),
    "rmsprop, momentum": (
        lambda lr: fo.rmsprop(lr, momentum=0.9),
        lambda lr: optax.rmsprop(lr, momentum=0.9),
        1e-4,
    ),
    "rmsprop, nesterov": (
        lambda lr: fo.rmsprop(lr, momentum=0.9, nesterov=True),
        lambda lr: optax.rmsprop(lr, momentum=0.9, nesterov=True),
        1e-4,
    ),
    "adam": (fo.adam, optax.adam, 1e-3),
    "adam, eps_root": (
        lambda lr: fo.adam(lr, 0.8, 0.99, 1e-6, 1e-8),
        lambda lr: optax.adam(lr, 0.8, 0.99, 1e-6, 1e-8),
        1e-3,
    ),
    "adamw": (
        lambda lr: fo.adamw(lr, weight_decay=1e-2),
        lambda lr: optax.adamw(lr, weight_decay=1e-2),
        1e-3,
    ),
    "nadam": (fo.nadam, optax.nadam, 1e-3),
    "adamax": (fo.adamax, optax.adamax, 1e-3),
    "adabelief": (fo.adabelief, optax.adabelief, 1e-3),
    "amsgrad": (fo.amsgrad, optax.amsgrad, 1e-3),
    "lion": (fo.lion, optax.lion, 1e-3),
}
"""name: (flowopt's constructor, optax's, a learning rate that suits it)."""


class Difference(NamedTuple):
    """How far two runs are apart, for each start: max over the steps of |a - b|_2/|b|_2."""

    together: Any
    """Ours and optax's, each on the gradients it meets."""
    replayed: Any
    """Ours, given the gradients that optax met: what one step does, without the feedback of the objective."""
    rounding: Any
    """optax's own, when its params are changed by a unit in the last place at every step, up or down at random:
    what rounding alone grows to."""


def differences(name: str, fn: Callable, starts: Any, steps: int, lr: Any = None) -> Difference:
    """Our method beside its reference, from every start."""
    ours, theirs, default = REFERENCES[name]
    lr = default if lr is None else lr
    method, transformation = ours(lr), theirs(lr)
    stepper = make_stepper(
        fn, jtu.tree_map(lambda x: x[0], starts), method, None, 1e-300, None, None
    )
    solver = native(method.solver)
    assert method.step is not None

    def reference(carry):
        # optax mixes dtypes where strict promotion forbids it.
        with jax.numpy_dtype_promotion("standard"):
            params, state = carry
            grad = jax.grad(fn)(params, None)
            updates, state = transformation.update(grad, state, params)
            return (optax.apply_updates(params, updates), state), grad

    def apart(a, b):
        size = jnp.sqrt(sum_squares(b))
        return jnp.sqrt(sum_squares(jtu.tree_map(jnp.subtract, a, b))) / size

    def step(carry, k):
        state, y, theirs, nudged = carry
        state = stepper.advance(state, (Evaluations(), Evaluations()))
        h = jnp.asarray(method.step, state.step.dtype)
        theirs, grad = reference(theirs)
        at = At(fn, y.params, None, Evaluations(), state.value, grad)
        y = solver.trial(method.flow, y, at, h, None).y
        nudged, _ = reference(nudged)
        ulp = jnp.sign(jnp.sin(jnp.square(k)))
        nudge = lambda x: x * (1 + jnp.finfo(x.dtype).eps * ulp).astype(x.dtype)
        nudged = (jtu.tree_map(nudge, nudged[0]), nudged[1])
        ends = (state.params, y.params, nudged[0])
        return (state, y, theirs, nudged), Difference(*(apart(x, theirs[0]) for x in ends))

    @jax.jit
    @jax.vmap
    def largest(start):
        state = stepper.start(start)
        begin = lambda x: (x, transformation.init(x))
        carry = (state, state.y, begin(start), begin(start))
        counts = jnp.arange(1, steps + 1, dtype=state.step.dtype)
        along = jax.lax.scan(step, carry, counts)[1]
        return Difference(*(jnp.max(x) for x in along))

    return Difference(*(np.asarray(x) for x in largest(starts)))


def rosenbrock(x: Any, args: Any) -> Any:
    """The extended Rosenbrock function of any even dimension; its minimum is 0 at (1, ..., 1)."""
    a, b = x[::2], x[1::2]
    return jnp.sum(100 * (b - a**2) ** 2 + (1 - a) ** 2)


def tanh_network(params: Any, args: Any) -> Any:
    """The squared loss of a 1-4-1 tanh network on 16 points of a sine."""
    dtype = params["w1"].dtype
    x = jnp.linspace(-2, 2, 16, dtype=dtype)
    hidden = jnp.tanh(x[:, None] * params["w1"] + params["b1"])
    return 0.5 * jnp.mean((hidden @ params["w2"] + params["b2"] - jnp.sin(2 * x)) ** 2)


NETWORKS = ("poly2", "poly3", "poly4", "poly5")


def networks(params: Any, args: Any) -> Any:
    """The sum of the benchmark networks' losses, each in a weight and a bias of its own.

    Methods that work entry by entry, as all of `REFERENCES` do, run on each as if it were alone.
    """
    losses = [
        getattr(fo.benchmarks, name)().loss((params["w"][name], params["b"][name]), args)
        for name in NETWORKS
    ]
    return sum(losses[1:], losses[0])


def problems(n: int, dtype: Any, seed: int = 0) -> dict[str, tuple[Callable, Any]]:
    """name: (loss, n random starts) of the losses on which methods are compared with their references."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    out: dict[str, tuple[Callable, Any]] = {
        "rosenbrock 10-D": (rosenbrock, 0.5 * normal(n, 10)),
        "tanh network": (
            tanh_network,
            dict(w1=normal(n, 4), b1=normal(n, 4), w2=normal(n, 4), b2=normal(n)),
        ),
    }
    draw = lambda: {name: 0.5 * normal(n) for name in NETWORKS}
    out["poly2 to poly5"] = (networks, dict(w=draw(), b=draw()))
    return out
