"""Training an MLP: what a step costs, beside optax's loop by hand, Optimistix, and gradients alone.

`python -m studies.benchmarks.training [--quick] [--params N ...] [--data N] [--rounds N] [--dtype float32]`.
"""

import argparse
import math
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx

import flowopt as fo
from flowopt.tree import sum_squares
from studies.benchmarks.measure import Cost, Run, in_turn
from studies.report import save_report, table, verdict

PARAMS = (10**2, 10**3, 10**4, 10**5, 10**6)
WORK = 5 * 10**7
"""Params times steps of one timed run, within the bounds of `STEPS`."""
STEPS = 20, 20_000
TOL = 1e-30
"""On the gradient's norm: tested at every step, and never met."""
RATES = {"GD": 1e-3, "Adam": 1e-4}
LOOP, GRADIENTS = "optax loop", "gradients alone"
OURS = {
    "GD": ("flowopt GD", fo.gd(RATES["GD"]), 1.05),
    "Adam": ("flowopt Adam", fo.adam(RATES["Adam"]), 1.05),
    "guarded": ("flowopt guarded GD", fo.lyapunov(), 1.1),
}


def network(params: int, data: int, dtype: Any) -> tuple[Any, Callable, fo.networks.Data]:
    """(params, loss, data): tanh, 8 inputs, two hidden layers of such a width that there are about `params` params."""
    width = max(round((math.sqrt(121 + 4 * (params - 1)) - 10) / 2), 1)
    net = fo.networks.mlp(8, 1, width, 2, key=jax.random.key(0), dtype=dtype)
    start, rebuild = fo.networks.split(net)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(data, 8)).astype(dtype)
    y = np.sin(x.sum(axis=1, keepdims=True))
    return start, fo.networks.MeanSquaredError(rebuild), fo.networks.Data(x, y)


def transformation(name: str) -> optax.GradientTransformation:
    return optax.adam(RATES[name]) if name == "Adam" else optax.sgd(RATES["GD"])


def by_flowopt(loss: Callable, data: Any, method: fo.Method, steps: int) -> Callable:
    """`fo.minimise`, with history off: the steps attempted."""

    def run(params):
        end = fo.minimise(loss, params, method, args=data, tol=TOL, max_steps=steps)
        return end.stats["accepted"] + end.stats["rejected"], end.stats["accepted"], end.params

    return run


def by_optax(loss: Callable, data: Any, name: str, steps: int) -> Callable:
    """A jitted loop by hand, with the same test of the gradient's norm."""
    tx = transformation(name)

    @jax.jit
    def loop(params, data):
        def going_on(carry):
            _, _, norm, n = carry
            return (norm >= TOL) & (n < steps)

        def step(carry):
            params, state, norm, n = carry
            grad = jax.grad(loss)(params, data)
            updates, state = tx.update(grad, state, params)
            norm = jnp.sqrt(sum_squares(grad)).astype(norm.dtype)
            return optax.apply_updates(params, updates), state, norm, n + 1

        # Of params that are no numbers no step is made.
        norm = jnp.where(jnp.isfinite(sum_squares(params)), jnp.inf, 0.0)
        params, _, _, n = jax.lax.while_loop(
            going_on, step, (params, tx.init(params), norm, jnp.int32(0))
        )
        return n, n, params

    return lambda params: loop(params, data)


def by_optimistix(loss: Callable, data: Any, solver: Any, steps: int) -> Callable:
    """`optimistix.minimise`; its test is on the params and the loss, and is as good as never met."""

    @eqx.filter_jit
    def run(params, data):
        end = optx.minimise(loss, solver, params, data, max_steps=steps, throw=False)
        return end.stats["num_steps"], end.stats["num_steps"], end.value

    return lambda params: run(params, data)


def gradients(loss: Callable, data: Any, steps: int) -> Callable:
    """Gradients alone, each at the params that the one before led to: steps of gradient descent without any test."""
    rate = RATES["GD"]

    @jax.jit
    def run(params, data):
        n = jnp.where(jnp.isfinite(sum_squares(params)), steps, 0)
        move = lambda p, g: p - jnp.asarray(rate, p.dtype) * g
        body = lambda _, p: jax.tree.map(move, p, jax.grad(loss)(p, data))
        return n, n, jax.lax.fori_loop(0, n, body, params)

    return lambda params: run(params, data)


def contestants(loss: Callable, data: Any, steps: int) -> dict[str, Callable]:
    calls = {GRADIENTS: gradients(loss, data, steps)}
    for name in ("GD", "Adam"):
        calls[f"{LOOP}, {name}"] = by_optax(loss, data, name, steps)
        label, method, _ = OURS[name]
        calls[label] = by_flowopt(loss, data, method, steps)
    label, method, _ = OURS["guarded"]
    calls[label] = by_flowopt(loss, data, method, steps)
    never = dict(rtol=TOL, atol=TOL)
    descent = optx.GradientDescent(learning_rate=RATES["GD"], **never)
    calls["Optimistix GradientDescent"] = by_optimistix(loss, data, descent, steps)
    adam = optx.OptaxMinimiser(transformation("Adam"), **never)
    calls["Optimistix OptaxMinimiser, Adam"] = by_optimistix(loss, data, adam, steps)
    return calls


def reference(label: str) -> str:
    """The optax loop that a contestant is set against."""
    return f"{LOOP}, {'Adam' if 'Adam' in label else 'GD'}"


def timed(call: Callable) -> Run:
    def run(params):
        with jax.numpy_dtype_promotion("standard"):  # optax and Optimistix mix dtypes
            return np.asarray(jax.block_until_ready(call(params))[0])

    return run


def of_compiler(call: Callable, params: Any) -> tuple[float, float]:
    """FLOPs and bytes of the program, in which the compiler counts the body of a loop once."""
    with jax.numpy_dtype_promotion("standard"):
        cost = jax.jit(lambda p: call(p)).lower(params).compile().cost_analysis() or {}
    return cost.get("flops", math.nan), cost.get("bytes accessed", math.nan)


def times(cost: Cost, other: Cost) -> float:
    """How many times as long a step takes: the median over the rounds, in each of which both take their turn."""
    pairs = zip(cost.seconds, other.seconds, strict=True)
    return statistics.median(a / b for a, b in pairs) * other.steps / cost.steps


def run(
    out: pathlib.Path,
    quick: bool = False,
    progress: bool = False,
    sizes: tuple[int, ...] = PARAMS,
    data: int = 100,
    rounds: int = 15,
    dtype: str = "float64",
) -> str:
    """Measures, and returns the report."""
    sizes, rounds = (sizes[:1], 1) if quick else (sizes, rounds)
    rows, found = [], {}
    for size in sizes:
        params, loss, given = network(size, data, dtype)
        steps = 50 if quick else min(max(WORK // size, STEPS[0]), STEPS[1])
        calls = contestants(loss, given, steps)
        ended = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
        costs = in_turn({k: (timed(c), params, ended) for k, c in calls.items()}, rounds)
        n = sum(x.size for x in params.values())
        for label, cost in costs.items():
            ratio = times(cost, costs[reference(label)])
            found[n, label] = ratio
            attempted, kept, _ = calls[label](params) if "guarded" in label else (1, 1, None)
            flops, read = of_compiler(calls[label], params)
            figures = [f"{1e6 * cost.step:.1f}", f"{ratio:.3f}", f"{1e3 * cost.again:.2f}"]
            share = f"{float(kept) / float(attempted):.1%}"
            rows.append([f"{n:,}", label, *figures, share, f"{flops:.3g}", f"{read:.3g}"])
            if progress:
                print(rows[-1], flush=True)
    head = ["params", "", "us a step", "times the optax loop", "a call of no steps [ms]", "kept"]
    text = [
        "# training: what a step costs",
        f"{data} data, 8 inputs, two hidden layers of tanh, {dtype}; wall time per attempted step, the median of "
        f"{rounds} rounds, in each of which all take their turn, and the median over the rounds of its ratio to the "
        "jitted optax loop of the same method (GD, where there is no Adam in the name). FLOPs and bytes are the "
        "compiler's, of the whole program with the body of each loop counted once.",
        table([*head, "FLOPs", "bytes"], rows),
        "\n".join(verdicts(found)),
    ]
    return save_report("\n\n".join(text), out)


def verdicts(found: dict[tuple[int, str], float]) -> list[str]:
    lines = []
    for label, _, limit in OURS.values():
        ratios = {n: r for (n, name), r in found.items() if name == label and n >= 900}
        if ratios:
            shown = ", ".join(f"{r:.3f} at {n:,}" for n, r in ratios.items())
            holds = all(r <= limit for r in ratios.values())
            claim = f"a step of {label} takes at most {limit} times one of the optax loop, for 10^3 params and more"
            some = any(r <= limit for r in ratios.values())
            lines.append(verdict(True if holds else None if some else False, claim, shown))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--params", type=int, nargs="*", default=PARAMS, metavar="N")
    parser.add_argument("--data", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"))
    o = parser.parse_args()
    with jax.enable_x64(True), tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        print(run(out, o.quick, True, tuple(o.params), o.data, o.rounds, o.dtype))


if __name__ == "__main__":
    main()
