"""Ensembles: what a step costs, beside Diffrax, optax and C on the same starts.

`python -m studies.benchmarks.ensemble [--quick] [--runs N] [--rounds N] [--only NAME ...]`, where NAME is a method,
`network`, `growth`, `cores` or `workers`.
"""

import argparse
import functools as ft
import pathlib
import statistics
import tempfile
import time
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from distributed import Client, LocalCluster

import flowopt as fo
from studies.benchmarks.measure import LONG, Cost, Run, in_turn, peak_of
from studies.benchmarks.network import network
from studies.benchmarks.peers import TOL, by_c, by_diffrax, by_flowopt, by_optax
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
    rounds: int = 5,
) -> str:
    """Measures, and returns the report: ns per attempted step, and how many times that each peer takes."""
    runs, rounds = (256, 1) if quick else (runs, rounds)
    only = ("GD", "LM", "network", "growth", "cores", "workers") if quick and not only else only
    max_steps = 100 if quick else MAX_STEPS
    rows, held = [], []
    networks = {3: fo.benchmarks.poly3()} | ({} if quick else {5: fo.benchmarks.poly5()})
    for degree, problem in networks.items():
        starts = tuple(np.random.default_rng(0).uniform(-3, 3, (2, runs)))
        ended = tuple(np.full(runs, float(x)) for x in problem.critical_points[0].params)
        for name in METHODS:
            if only and name not in only:
                continue
            calls = _contestants(name, degree, problem.loss, max_steps)
            shape = lambda call, x: np.stack(x, axis=-1) if call == PEERS[0] else x
            costs = in_turn(
                {k: (call, shape(k, starts), shape(k, ended)) for k, call in calls.items()}, rounds
            )
            label = f"{name}, poly{degree}"
            rows.append([label, *_times(costs, rounds)])
            memory = [costs[k].memory if k in costs else None for k in ("flowopt", *PEERS)]
            held.append([label, *("-" if m is None else f"{m:.0f}" for m in memory)])
            if progress:
                print(rows[-1], flush=True)
    text = [
        "# ensemble",
        f"{runs} runs, the same starts for all; wall time per attempted step, the median of {rounds} rounds, in "
        "each of which all take their turn; for each peer the time of its step over that of flowopt. A dash: no such "
        f"peer, or no compiler. A star: one round only, as it takes more than {LONG:.0f} s.",
        table(["method", "ns a step", "compile", *(f"{peer}: times" for peer in PEERS)], rows),
        "Memory held beyond that of before [MiB]:",
        table(["method", "flowopt", *PEERS], held),
    ]
    if not only or "network" in only:
        text += [
            "## A tanh network: 50 params, 100 data",
            network(64 if quick else min(runs, 4096), rounds),
        ]
    if not only or "growth" in only:
        text += ["## As the number of runs grows (GD, poly3)", _growth(out, 3 if quick else 7)]
    if not only or "cores" in only:
        text += ["## One and two threads (GD, poly3)", _cores(runs, rounds)]
    if not only or "workers" in only:
        text += [
            "## One and two Dask workers, processes of one thread (GD, poly3)",
            _workers(runs if quick else 16 * runs, rounds),
        ]
    return save_report("\n\n".join(text), out)


def _times(costs: dict[str, Cost], rounds: int) -> list[str]:
    ours = costs["flowopt"]
    cells = [f"{1e9 * ours.step:.1f}", f"{ours.first - ours.again:.1f} s"]
    for peer in PEERS:
        if peer not in costs:
            cells.append("-")
            continue
        once = "" if len(costs[peer].seconds) == rounds else "*"
        cells.append(f"{costs[peer].step / ours.step:.2f}{once}")
    return cells


def _contestants(name: str, degree: int, loss: Any, max_steps: int) -> dict[str, Run]:
    method, transform, in_c = METHODS[name]
    fn = _sum_of_squares(degree) if name == "LM" else loss
    calls: dict[str, Run | None] = {"flowopt": by_flowopt(fn, method, max_steps)}
    if name != "LM":
        calls[PEERS[0]] = by_diffrax(lambda p, args: loss((p[0], p[1]), args), method, max_steps)
    calls[PEERS[1]] = by_diffrax(fn, method, max_steps)
    if transform is not None:
        calls[PEERS[2]] = by_optax(loss, transform, max_steps)
    if in_c is not None:
        calls[PEERS[3]] = by_c(in_c[0], degree, in_c[1], max_steps)
    if in_c is not None and name in ("GD", "Adam"):
        calls[PEERS[4]] = by_c(f"{in_c[0]}_lanes", degree, in_c[1], max_steps)
    return {k: call for k, call in calls.items() if call is not None}


def _sum_of_squares(degree: int) -> fo.SumOfSquares:
    """poly3 and poly5 as residuals, for Levenberg-Marquardt."""
    if degree == 3:
        g = lambda z: z * z * (2 * z - 3) + 5
    else:
        g = lambda z: ((((z - 4) * z + 2) * z + 8) * z - 11) * z - 12
    return fo.SumOfSquares(lambda p, args: jnp.stack([g(p[1]), g(p[0] + p[1])]) * 0.5**0.5)


def _growth(out: pathlib.Path, largest: int) -> str:
    """In memory, and from streamed starts to a store."""
    rows = []
    loss, method, drawn = fo.benchmarks.poly3().loss, fo.gd(1e-2), fo.uniform((-3, 3), (-3, 3))
    for power in range(2, largest + 1):
        n = 10**power
        starts = tuple(np.random.default_rng(0).uniform(-3, 3, (2, n)))
        call = by_flowopt(loss, method, 1000)
        here = in_turn({"": (call, starts, tuple(np.ones_like(x) for x in starts))}, 1)[""]
        how = dict(n=n, key=0, tol=TOL, max_steps=1000, store=out / f"{n}.zarr")
        stream = ft.partial(fo.ensemble, loss, drawn, method, **how)
        begin = time.perf_counter()
        peak = peak_of(stream)
        seconds = time.perf_counter() - begin
        figures = ["-" if m is None else f"{m:.0f}" for m in (here.memory, peak)]
        rows.append([f"{n:,}", f"{1e9 * here.step:.1f}", figures[0], f"{seconds:.1f}", figures[1]])
    head = ["runs", "ns a step", "memory [MiB]", "streamed to Zarr [s]", "memory [MiB]"]
    return table(head, rows)


def _cores(runs: int, rounds: int) -> str:
    starts = tuple(np.random.default_rng(0).uniform(-3, 3, (2, runs)))
    ended = tuple(np.ones_like(x) for x in starts)
    loss = fo.benchmarks.poly3().loss
    calls = {
        str(k): (by_flowopt(loss, fo.gd(1e-3), MAX_STEPS, threads=k), starts, ended) for k in (1, 2)
    }
    costs = in_turn(calls, rounds)
    rows = [[k, f"{1e9 * c.step:.2f}", f"{costs['1'].step / c.step:.2f}"] for k, c in costs.items()]
    return table(["threads", "ns a step", "times as fast as one"], rows)


def _workers(runs: int, rounds: int) -> str:
    """In turn, after a call that compiles."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as one,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as two,
        Client(one) as alone,
        Client(two) as both,
    ):
        loss, drawn = fo.benchmarks.poly3().loss, fo.uniform((-3, 3), (-3, 3))
        for turn in range(rounds + 1):
            for count, client in ((1, alone), (2, both)):
                begin = time.perf_counter()
                how: dict[str, Any] = dict(n=runs, key=0, tol=TOL, executor=client)
                fo.ensemble(loss, drawn, fo.gd(1e-3), **how)
                if turn:
                    seconds[count].append(time.perf_counter() - begin)
    median = {count: statistics.median(s) for count, s in seconds.items()}
    rows = [[str(k), f"{s:.2f}", f"{median[1] / s:.2f}"] for k, s in median.items()]
    return table(["workers", f"s for {runs:,} runs", "times as fast as one"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--runs", type=int, default=65_536)
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="methods by name")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with jax.enable_x64(True), tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        only = tuple(options.only)
        print(run(out, options.quick, True, options.runs, only, options.rounds))


if __name__ == "__main__":
    main()
