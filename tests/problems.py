"""Objectives shared by the tests."""

import jax
import jax.numpy as jnp
import numpy as np

import flowopt as fo

BENCHMARKS = [fo.benchmarks.poly2, fo.benchmarks.poly3, fo.benchmarks.poly4, fo.benchmarks.poly5]


def rosenbrock(params, args=None):
    """The chained Rosenbrock function of a vector."""
    x = params
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def quadratic(params, args=None):
    """An ill-conditioned quadratic of a dict with a vector and a scalar."""
    return 0.5 * (jnp.sum(jnp.array([1.0, 10.0, 0.1]) * params["x"] ** 2) + 3.0 * params["y"] ** 2)


QUADRATIC_START = {"x": jnp.array([1.0, -2.0, 3.0]), "y": jnp.array(0.7)}


def starts(n: int, low: float = -3.0, high: float = 3.0, seed: int = 0):
    """n uniform starts (w, b)."""
    return tuple(np.random.default_rng(seed).uniform(low, high, (2, n)))


class Counter:
    """An objective that counts, at run time, how often its value and its gradient are computed."""

    def __init__(self, fn):
        self.values = self.grads = 0

        @jax.custom_vjp
        def counted(params, args):
            jax.debug.callback(self._value)
            return fn(params, args)

        def forward(params, args):
            jax.debug.callback(self._value)
            value, pullback = jax.vjp(lambda p: fn(p, args), params)
            return value, pullback

        def backward(pullback, cotangent):
            jax.debug.callback(self._grad)
            return *pullback(cotangent), None

        counted.defvjp(forward, backward)
        self.fn = counted

    def _value(self):
        self.values += 1

    def _grad(self):
        self.grads += 1
