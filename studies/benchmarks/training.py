"""Training an MLP: what a step costs, beside optax's loop by hand, Optimistix, and gradients alone.

`python -m studies.benchmarks.training [--quick] [--params N ...] [--data N] [--rounds N] [--dtype float32]`.
"""

import argparse
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
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
from studies.benchmarks.measure import Cost, Run, in_turn, peak_memory
from studies.report import save_report, table, verdict

PARAMS = (10**2, 10**3, 10**4, 10**5, 10**6)
WORK = 2 * 10**7
"""Params times steps of one timed run, within the bounds of `STEPS`."""
STEPS = 20, 20_000
BLOCK = 1000
"""Data in a block."""
TOL = 1e-30
"""On the gradient's norm: tested at every step, and never met."""
RATES = {"GD": 1e-3, "Adam": 1e-4}
LOOP, GRADIENTS = "optax loop", "gradients alone"
OURS = {
    "GD": ("flowopt GD", fo.gd(RATES["GD"]), 1.05),
    "Adam": ("flowopt Adam", fo.adam(RATES["Adam"]), 1.05),
    "guarded": ("flowopt guarded GD", fo.lyapunov(), 1.1),
}


def network(
    params: int, data: int, dtype: Any
) -> tuple[Any, fo.networks.MeanSquaredError, fo.networks.Data]:
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
    descent = optx.GradientDescent(RATES["GD"], TOL, TOL)
    calls["Optimistix GradientDescent"] = by_optimistix(loss, data, descent, steps)
    adam = optx.OptaxMinimiser(transformation("Adam"), TOL, TOL)
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


def times(cost: Cost, other: Cost) -> tuple[float, float]:
    """How many times as long a step takes, and of the processor: medians over the rounds, in each of which both take
    their turn."""
    both = (cost.seconds, other.seconds), (cost.processor, other.processor)
    ratios = (statistics.median(a / b for a, b in zip(*pair, strict=True)) for pair in both)
    wall, processor = (ratio * other.steps / cost.steps for ratio in ratios)
    return wall, processor


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
        if quick:
            calls = {k: calls[k] for k in (GRADIENTS, f"{LOOP}, GD", OURS["GD"][0])}
        ended = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), params)
        costs = in_turn({k: (timed(c), params, ended) for k, c in calls.items()}, rounds)
        n = sum(x.size for x in params.values())
        for label, cost in costs.items():
            ratio = times(cost, costs[reference(label)])
            found[n, label] = ratio
            attempted, kept, _ = calls[label](params) if "guarded" in label else (1, 1, None)
            flops, read = (math.nan,) * 2 if quick else of_compiler(calls[label], params)
            figures = [
                f"{1e6 * cost.step:.1f}",
                *(f"{r:.3f}" for r in ratio),
                f"{1e3 * cost.again:.2f}",
            ]
            share = f"{float(kept) / float(attempted):.1%}"
            rows.append([f"{n:,}", label, *figures, share, f"{flops:.3g}", f"{read:.3g}"])
            if progress:
                print(rows[-1], flush=True)
    head = ["params", "", "us a step", "times the optax loop", "of processor time"]
    head += ["a call of no steps [ms]", "kept", "FLOPs", "bytes"]
    text = [
        "# training: what a step costs",
        f"{data} data, 8 inputs, two hidden layers of tanh, {dtype}; wall time per attempted step, the median of "
        f"{rounds} rounds, in each of which all take their turn, and the median over the rounds of its ratio to the "
        "jitted optax loop of the same method (GD, where there is no Adam in the name): of wall time, and of processor "
        "time, which other work on the machine does not touch as much. FLOPs and bytes are the compiler's, of the "
        "whole program with the body of each loop counted once.",
        table(head, rows),
        "\n".join(verdicts(found)),
        "## A gradient in blocks",
        in_blocks(10**4 if quick else 10**6),
    ]
    return save_report("\n\n".join(text), out)


def verdicts(found: dict[tuple[int, str], tuple[float, float]]) -> list[str]:
    lines = []
    for label, _, limit in OURS.values():
        ratios = {n: r for (n, name), r in found.items() if name == label and n >= 900}
        if ratios:
            met = [wall <= limit for wall, _ in ratios.values()]
            shown = ", ".join(f"{a:.3f} ({b:.3f}) at {n:,}" for n, (a, b) in ratios.items())
            claim = f"a step of {label} takes at most {limit} times one of the optax loop, for 10^3 params and more"
            holds = True if all(met) else None if any(met) else False
            lines.append(verdict(holds, claim, f"{shown}; in brackets of processor time"))
    return lines


def in_blocks(n: int) -> str:
    """A gradient over `n` data by blocks, in a process of its own: its memory, and that it is the same."""
    code = f"from studies.benchmarks.training import gradient_in_blocks; gradient_in_blocks({n})"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    peak, before, difference, seconds = map(float, told.stdout.split())
    claim = f"a gradient over {n:,} data by blocks of {BLOCK:,} takes less than 2 GiB, and is the same to 1e-12"
    shown = (
        f"the process, its data included, came to {peak:.0f} MiB, before the gradient {before:.0f} MiB; the largest "
        f"difference to the sum over ten parts, relative to the largest entry, {difference:.1e}; {seconds:.1f} s"
    )
    return verdict(peak < 2048 and difference <= 1e-12, claim, shown)


def gradient_in_blocks(n: int) -> None:
    """Prints, on one line: most memory [MiB], that before the gradient, the difference, and the seconds it took."""
    with jax.enable_x64(True):
        params, _, data = network(10**4, n, "float64")
        rebuild = network(10**4, 1, "float64")[1].rebuild
        blocks = jax.jit(jax.grad(fo.networks.MeanSquaredError(rebuild, block=BLOCK)))
        before = peak_memory()
        once = jax.block_until_ready(blocks(params, data))
        peak = peak_memory()
        begin = time.perf_counter()
        once = jax.block_until_ready(blocks(params, data))
        seconds = time.perf_counter() - begin
        # The same without blocks, a tenth of the data at a time, which is what memory allows.
        parts = jax.jit(jax.grad(fo.networks.MeanSquaredError(rebuild)))
        total = jax.tree.map(jnp.zeros_like, params)
        for i in range(10):
            part = jax.tree.map(lambda a, i=i: a[i * n // 10 : (i + 1) * n // 10], data)
            total = jax.tree.map(jnp.add, total, parts(params, part))
        gap = max(
            float(jnp.max(jnp.abs(a - b / 10)) / jnp.max(jnp.abs(a)))
            for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(total), strict=True)
        )
        print(peak, before, gap, seconds)


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
