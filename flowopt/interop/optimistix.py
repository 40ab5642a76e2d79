"""A method as an optimistix solver."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx
from jaxtyping import Array, Bool, PyTree

from flowopt.methods import Method
from flowopt.methods.method import check_step
from flowopt.objective import Evaluations, Objective, SumOfSquares
from flowopt.run.outcome import code_of
from flowopt.run.step import RunState, Stepper
from flowopt.solvers.trial import model_kind
from flowopt.tree import sum_squares


class _Running(eqx.Module):
    run: RunState
    """The run, less its params, which optimistix keeps."""
    converged: Bool[Array, ""]


class FlowMinimiser(optx.AbstractMinimiser):
    """A method for `optimistix.minimise`, and `least_squares`: see `flowopt.as_optimistix`."""

    method: Method
    rtol: float
    atol: float
    norm: Callable[[PyTree], Any]

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        return _start(self, lambda p, a: fn(p, a)[0], y, args)

    def step(self, fn, y, args, options, state, tags):
        new, state = _advance(self, lambda p, a: fn(p, a)[0], y, args, state)
        return new, state, fn(y, args)[1]

    def terminate(self, fn, y, args, options, state, tags):
        return _ended(state)

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, fn(y, args)[1], _stats(state)


class FlowLeastSquares(optx.AbstractLeastSquaresSolver):
    """A method for `optimistix.least_squares` alone: see `flowopt.as_optimistix`."""

    method: Method
    rtol: float
    atol: float
    norm: Callable[[PyTree], Any]

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        return _start(self, SumOfSquares(lambda p, a: fn(p, a)[0]), y, args)

    def step(self, fn, y, args, options, state, tags):
        new, state = _advance(self, SumOfSquares(lambda p, a: fn(p, a)[0]), y, args, state)
        # Compiled away where there is none.
        return new, state, fn(y, args)[1]

    def terminate(self, fn, y, args, options, state, tags):
        return _ended(state)

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, fn(y, args)[1], _stats(state)


def as_optimistix(
    method: Method,
    rtol: float = 1e-8,
    atol: float = 1e-8,
    norm: Callable[[PyTree], Any] = optx.max_norm,
) -> FlowMinimiser | FlowLeastSquares:
    """`method` as an optimistix solver: `optimistix.minimise(fn, flowopt.as_optimistix(method), y0)`.

    An `optimistix.AbstractMinimiser`, which `optimistix.least_squares` takes too; for a method that needs residuals
    (`levenberg_marquardt`, `gauss_newton`) an `AbstractLeastSquaresSolver`. One step of it is one attempted step of
    the method, so `max_steps` counts the refused ones as well.

    Ends by optimistix's own (Cauchy's) test, after a step that was kept: |dy| < atol + rtol |y| and |df| <
    atol + rtol |f|, each by `norm`. This is a test of progress, not of the gradient: a method of tiny steps passes
    it anywhere, and so does a run that stands still, as one does at the limit of its precision; `grad_norm` in
    `stats`, beside `accepted` and `rejected`, tells. A run that diverges has the result
    `optimistix.RESULTS.nonlinear_divergence`. Adjoints (the implicit one by default), `has_aux`, `throw` and `vmap` are
    optimistix's; no `options` are read.

    Raises TypeError or ValueError for a `method` that is none and for tolerances that are not positive.
    """
    if not isinstance(method, Method):
        raise TypeError(
            f"`method` must be a flowopt.Method, such as flowopt.default_method(); got {method!r}"
        )
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is None:
            raise TypeError(f"`{name}` must be a number > 0; got None")
        check_step(value, name)
    if not callable(norm):
        raise TypeError(f"`norm` must be a function of a pytree; got {norm!r}")
    kind = FlowMinimiser
    if model_kind(method.flow, method.solver) == "jacobian":
        kind = FlowLeastSquares
    return kind(method=method, rtol=rtol, atol=atol, norm=norm)


def _stepper(solver: Any, objective: Objective, args: PyTree) -> Stepper:
    return Stepper(solver.method, objective, args, 0.0, None)


def _start(solver: Any, objective: Objective, y: PyTree, args: PyTree) -> _Running:
    run = _stepper(solver, objective, args).start(y)
    return _Running(_with_params(run, None), jnp.array(False))


def _advance(
    solver: Any, objective: Objective, y: PyTree, args: PyTree, state: _Running
) -> tuple[PyTree, _Running]:
    old = _with_params(state.run, y)
    new = _stepper(solver, objective, args).advance(old, (Evaluations(), Evaluations()))

    def small(before, after):
        change = jtu.tree_map(
            lambda a, b: jnp.abs(b - a) / (solver.atol + solver.rtol * jnp.abs(b)), before, after
        )
        return solver.norm(change) < 1

    finite = jnp.isfinite(sum_squares(new.params))
    code = jnp.where(finite, new.code, code_of("diverged")).astype(new.code.dtype)
    new = eqx.tree_at(lambda run: run.code, new, code)
    kept = new.accepted > old.accepted
    converged = kept & small(y, new.params) & small(old.value, new.value)
    return new.params, _Running(_with_params(new, None), converged)


def _ended(state: _Running) -> tuple[Bool[Array, ""], optx.RESULTS]:
    diverged = state.run.code == code_of("diverged")
    result = optx.RESULTS.where(
        diverged, optx.RESULTS.nonlinear_divergence, optx.RESULTS.successful
    )
    return diverged | state.converged | (state.run.code == code_of("stalled")), result


def _with_params(run: RunState, params: PyTree) -> RunState:
    is_none = lambda x: x is None
    return eqx.tree_at(lambda r: r.y, run, run.y._replace(params=params), is_leaf=is_none)


def _stats(state: _Running) -> dict[str, Any]:
    run = state.run
    return {"accepted": run.accepted, "rejected": run.rejected, "grad_norm": run.grad_norm}
