"""What the engine is measured against: Diffrax and optax as a user would write them, and C."""

import ctypes
import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax

import flowopt as fo
from studies.benchmarks.measure import Run

TOL = 1e-4
_SOURCE = pathlib.Path(__file__).with_name("peers.c")


def by_flowopt(
    loss: Callable, method: fo.Method, max_steps: int, threads: int | None = None
) -> Run:
    """The engine."""

    def run(starts):
        ends = fo.ensemble(loss, starts, method, tol=TOL, max_steps=max_steps, threads=threads)
        return ends.accepted + ends.rejected

    return run


def by_diffrax(loss: Callable, method: fo.Method, max_steps: int) -> Run:
    """vmap of `diffeqsolve` with the method's own objects, until the gradient is small or not finite."""
    term = fo.FlowTerm(method.flow, loss)
    solver = method.solver
    if isinstance(method.controller, fo.GainRatio):
        solver = dataclasses.replace(solver, report_gain=True)  # pyright: ignore[reportArgumentType, reportCallIssue]
    plain = isinstance(method.solver, diffrax.Euler) and isinstance(method.flow, fo.flows.Gradient)
    if plain:
        field = lambda t, p, args: jax.tree.map(jnp.negative, jax.grad(loss)(p, None))
        start, params, ode = (lambda p: p), (lambda y: y), diffrax.ODETerm(field)
    else:
        start, params, ode = term.init, (lambda y: y.params), term

    def ended(t, y, args, **_):
        size = optax.tree.norm(jax.grad(loss)(params(y), None))
        return (size < TOL) | ~jnp.isfinite(size)

    def one(p):
        solution = diffrax.diffeqsolve(
            ode,
            solver,
            t0=0.0,
            t1=jnp.inf,
            dt0=method.step,
            y0=start(p),
            stepsize_controller=method.controller,
            event=diffrax.Event(ended),
            max_steps=max_steps,
            throw=False,
        )
        return solution.stats["num_steps"]

    batched = jax.jit(jax.vmap(one))
    return lambda starts: np.asarray(batched(starts))


def by_optax(loss: Callable, transform: optax.GradientTransformation, max_steps: int) -> Run:
    """A masked loop by hand: all runs step together until the last has ended."""

    def step(carry):
        params, state, n, live = carry
        grad = jax.grad(loss)(params, None)
        size = optax.tree.norm(grad)
        live = live & (size >= TOL) & jnp.isfinite(size) & (n < max_steps)
        updates, new = transform.update(grad, state, params)
        keep = lambda a, b: jax.tree.map(lambda x, y: jnp.where(live, x, y), a, b)
        params, state = keep(optax.apply_updates(params, updates), params), keep(new, state)
        return params, state, n + live.astype(jnp.int32), live

    @jax.jit
    def run(starts):
        state = jax.vmap(transform.init)(starts)
        runs = len(jax.tree.leaves(starts)[0])
        carry = starts, state, jnp.zeros(runs, jnp.int32), jnp.ones(runs, bool)
        return jax.lax.while_loop(lambda c: jnp.any(c[3]), jax.vmap(step), carry)[2]

    def timed(starts):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            return np.asarray(run(starts))

    return timed


def by_c(name: str, degree: int, number: float, max_steps: int) -> Run | None:
    """The function `name` of peers.c, a thread per core taking 1,024 starts at a time; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = os.path.join(folder, "peers.so")
        flags = ["-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC", f"-DPOLY={degree}"]
        subprocess.run([compiler, *flags, str(_SOURCE), "-o", library, "-lm"], check=True)
        function = getattr(ctypes.CDLL(library), name)
    array = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")
    counts = np.ctypeslib.ndpointer(np.int32, flags="C_CONTIGUOUS")
    ends = [ctypes.c_long] * 2
    numbers = [ctypes.c_double] * 2
    function.argtypes = [*ends, array, array, counts, *numbers, ctypes.c_int]
    function.restype = None

    def run(starts):
        w, b = (np.array(x) for x in starts)
        steps, most = np.zeros(len(w), np.int32), 1024
        call = lambda i: function(
            i, min(i + most, len(w)), w, b, steps, number, TOL, max_steps
        )  # ctypes lets go of the interpreter
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(call, range(0, len(w), most)))
        return steps

    return run
