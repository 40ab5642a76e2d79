"""Ensembles: what a step costs, beside Diffrax, optax and C on the same starts.

`python -m studies.benchmarks.ensemble [--quick] [--runs N] [--only NAME ...]`.
"""

import argparse
import pathlib
import resource
import statistics
import tempfile
import time
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax

import flowopt as fo
from studies.benchmarks.peers import TOL, Run, by_c, by_diffrax, by_optax
from studies.report import save_report, table

MAX_STEPS = 10_000
METHODS = {
    "GD": (fo.gd(1e-3), optax.sgd(1e-3), ("gd", 1e-3)),
    "Adam": (fo.adam(1e-2), optax.adam(1e-2), ("adam", 1e-2)),
    "Euler-Richardson": (fo.euler_richardson(1e-2), None, ("euler_richardson", 1e-2)),
    "guarded GD": (fo.lyapunov(solver=diffrax.Euler()), None, ("guarded", 0.1)),
    "LM": (fo.levenberg_marquardt(), None, None),
}
PEERS = ("diffeqsolve, (2,) array", "diffeqsolve, two scalars", "optax loop", "C", "C over lanes")


def run(
    out: pathlib.Path,
    quick: bool = False,
    progress: bool = False,
    runs: int = 65_536,
    only: tuple[str, ...] = (),
) -> str:
    """Measures, and returns the report: ns per attempted step, and how many times that each peer takes."""
    runs, repeats = (256, 1) if quick else (runs, 5)
    max_steps = 100 if quick else MAX_STEPS
    rows = []
    for degree, problem in ((3, fo.benchmarks.poly3()), (5, fo.benchmarks.poly5())):
        starts = tuple(np.random.default_rng(0).uniform(-3, 3, (2, runs)))
        for name, (method, transform, in_c) in METHODS.items():
            if only and name not in only:
                continue
            fn = _sum_of_squares(degree) if name == "LM" else problem.loss
            array = np.stack(starts, axis=-1)
            contestants: dict[str, tuple[Run | None, Any]] = {
                "flowopt": (_by_flowopt(fn, method, max_steps), starts)
            }
            if name != "LM":
                on_array = lambda p, args, loss=problem.loss: loss((p[0], p[1]), args)
                contestants[PEERS[0]] = by_diffrax(on_array, method, max_steps), array
            contestants[PEERS[1]] = by_diffrax(fn, method, max_steps), starts
            if transform is not None:
                contestants[PEERS[2]] = by_optax(problem.loss, transform, max_steps), starts
            if in_c is not None:
                contestants[PEERS[3]] = by_c(in_c[0], degree, in_c[1], max_steps), starts
            if name == "GD":
                contestants[PEERS[4]] = by_c("gd_lanes", degree, 1e-3, max_steps), starts
            rows.append([f"{name}, poly{degree}", *_row(contestants, repeats)])
            if progress:
                print(rows[-1], flush=True)
    head = ["method", "ns a step", "compile and start", *(f"{peer}: times" for peer in PEERS)]
    text = [
        "# ensemble",
        f"{runs} runs, the same starts for all (Diffrax: a tenth of them); wall time per attempted step, the median "
        f"of {repeats}; for each peer the time of its step over that of flowopt. A dash: no such peer, or no compiler.",
        table(head, rows),
    ]
    if not only or "network" in only:
        text += ["## A tanh network: 50 params, 100 data", _network(64 if quick else 4096, repeats)]
    if not only or "growth" in only:
        text += ["## As the number of runs grows (GD, poly3)", _growth(2 if quick else 6)]
    return save_report("\n\n".join(text), out)


def _by_flowopt(fn: Any, method: fo.Method, max_steps: int) -> Run:
    def call(starts):
        ends = fo.ensemble(fn, starts, method, tol=TOL, max_steps=max_steps)
        return ends.accepted + ends.rejected

    return call


def _row(contestants: dict[str, tuple[Run | None, Any]], repeats: int) -> list[str]:
    """The figures of one method: each contestant once to compile, then `repeats` times."""
    costs, compiled = {}, 0.0
    for name, (call, starts) in contestants.items():
        if call is None:
            continue
        if name in PEERS[:2]:  # ten times slower or more
            starts = jax.tree.map(lambda x: x[: max(64, len(x) // 10)], starts)
        begin = time.perf_counter()
        steps = call(starts)
        first = time.perf_counter() - begin
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            steps = call(starts)
            times.append(time.perf_counter() - begin)
        costs[name] = statistics.median(times) / steps.sum(dtype=np.int64)
        if name == "flowopt":
            compiled = first - statistics.median(times)
    ours = costs["flowopt"]
    ratios = [f"{costs[peer] / ours:.2f}" if peer in costs else "-" for peer in PEERS]
    return [f"{1e9 * ours:.1f}", f"{compiled:.1f} s", *ratios]


def _sum_of_squares(degree: int) -> fo.SumOfSquares:
    """poly3 and poly5 as residuals, for Levenberg-Marquardt."""
    if degree == 3:
        g = lambda z: z * z * (2 * z - 3) + 5
    else:
        g = lambda z: ((((z - 4) * z + 2) * z + 8) * z - 11) * z - 12
    return fo.SumOfSquares(lambda p, args: jnp.stack([g(p[1]), g(p[0] + p[1])]) * 0.5**0.5)


def _network(runs: int, repeats: int) -> str:
    """200 steps of GD, beside vmap of diffeqsolve and the batched gradients alone."""
    rng, steps = np.random.default_rng(0), 200
    x, y = jnp.asarray(rng.normal(size=(100, 5))), jnp.asarray(rng.normal(size=100))

    def loss(p, args):
        hidden = jnp.tanh(x @ p["W"].T + p["b"])
        return 0.5 * jnp.mean((hidden @ p["v"] + p["c"] - y) ** 2)

    shapes = {"W": (7, 5), "b": (7,), "v": (7,), "c": ()}
    starts = {k: 0.5 * rng.normal(size=(runs, *shape)) for k, shape in shapes.items()}
    grad = jax.vmap(jax.grad(lambda p: loss(p, None)), in_axes=-1, out_axes=-1)
    together = min(runs, 512)
    here = {k: jnp.asarray(np.moveaxis(v[:together], 0, -1)) for k, v in starts.items()}

    @jax.jit
    def gradients(p):
        body = lambda _, p: jax.tree.map(lambda a, g: a - 1e-2 * g, p, grad(p))
        return jax.lax.fori_loop(0, steps, body, p)

    def alone(_):
        with_all_cores = [gradients(here) for _ in range(-(-runs // together))]
        jax.block_until_ready(with_all_cores)
        return np.full(runs, steps)

    method = fo.gd(1e-2)
    calls = {
        "flowopt": lambda s: _by_flowopt(loss, method, steps)(s),
        "diffeqsolve": by_diffrax(loss, method, steps),
        "gradients alone": alone,
    }
    costs = {}
    for name, call in calls.items():
        call(starts)
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            count = call(starts).sum(dtype=np.int64)
            times.append((time.perf_counter() - begin) / count)
        costs[name] = statistics.median(times)
    rows = [
        [name, f"{1e6 * cost:.2f}", f"{cost / costs['flowopt']:.2f}"]
        for name, cost in costs.items()
    ]
    return table(["", "us a step", "times"], rows)


def _growth(largest: int) -> str:
    rows = []
    for power in range(2, largest + 1):
        starts = tuple(np.random.default_rng(0).uniform(-3, 3, (2, 10**power)))
        call = _by_flowopt(fo.benchmarks.poly3().loss, fo.gd(1e-2), 1000)
        call(starts)
        begin = time.perf_counter()
        steps = call(starts)
        cost = (time.perf_counter() - begin) / steps.sum(dtype=np.int64)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append([f"{10**power:,}", f"{1e9 * cost:.1f}", f"{peak:.0f}"])
    return table(["runs", "ns a step", "most memory so far [MiB]"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--runs", type=int, default=65_536)
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="methods by name")
    options = parser.parse_args()
    with jax.enable_x64(True), tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        print(run(out, options.quick, True, options.runs, tuple(options.only)))


if __name__ == "__main__":
    main()
