"""A tanh network of 50 params and 100 data: beside Diffrax, and beside its gradients alone."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

import flowopt as fo
from studies.benchmarks.measure import Run, in_turn
from studies.benchmarks.peers import by_diffrax, by_flowopt
from studies.report import table

STEPS, LR = 200, 1e-2


def network(runs: int, rounds: int) -> str:
    """`STEPS` steps of GD of each run: a table."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(100, 5))), jnp.asarray(rng.normal(size=100))

    def loss(p, args):
        hidden = jnp.tanh(x @ p["W"].T + p["b"])
        return 0.5 * jnp.mean((hidden @ p["v"] + p["c"] - y) ** 2)

    shapes = {"W": (7, 5), "b": (7,), "v": (7,), "c": ()}
    starts = {k: 0.5 * rng.normal(size=(runs, *shape)) for k, shape in shapes.items()}
    method = fo.gd(LR)
    calls = {"flowopt": by_flowopt(loss, method, STEPS)}
    for width in (128, 512, 2048):
        calls[f"gradients alone, {width} lanes"] = _gradients(loss, min(width, runs))
    calls["diffeqsolve"] = by_diffrax(loss, method, STEPS)
    ended = {k: np.full_like(v, np.nan) for k, v in starts.items()}
    costs = in_turn({name: (call, starts, ended) for name, call in calls.items()}, rounds)
    ours = costs["flowopt"].step
    rows = [[name, f"{1e6 * c.step:.2f}", f"{c.step / ours:.2f}"] for name, c in costs.items()]
    return table(["", "us a step", "times"], rows)


def _gradients(loss, width: int) -> Run:
    """Steps of nothing but the gradient, lanes last, a thread per core taking `width` starts at a time."""
    grad = jax.vmap(jax.grad(lambda p: loss(p, None)), in_axes=-1, out_axes=-1)

    @jax.jit
    def descend(p):
        body = lambda _, p: jax.tree.map(lambda a, g: a - LR * g, p, grad(p))
        return jax.lax.fori_loop(0, STEPS, body, p)

    def run(starts):
        n = len(starts["c"])
        lanes = lambda i: {k: np.moveaxis(v[i : i + width], 0, -1) for k, v in starts.items()}
        with jax.enable_x64(True), ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in [pool.submit(_under_x64, descend, lanes(i)) for i in range(0, n, width)]:
                done.result()
        return np.full(n, STEPS)

    return run


def _under_x64(descend, lanes):
    with jax.enable_x64(True):
        return jax.block_until_ready(descend(lanes))
