"""Gradient flow driven by white noise: the stochastic differential equation, by Diffrax's own solvers."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from flowopt.methods.method import check_step
from flowopt.objective import Objective, check_objective, check_params
from flowopt.run.draw import leading_size
from flowopt.solvers.trial import AbstractFlowSolver
from flowopt.stochastic import as_key, key_of_start
from flowopt.tree import real_dtype


def diffuse(
    fn: Objective,
    starts: PyTree,
    sigma: float,
    t1: float,
    step: float,
    *,
    solver: diffrax.AbstractSolver | None = None,
    key: Array | int = 0,
    args: Any = None,
) -> PyTree:
    """Where d theta = -grad R dt + sigma dW is at time `t1`, from every start.

    - `starts`: a pytree of params, each leaf with one more axis, in front, of length n; so is what is returned.
    - `sigma`: [params/sqrt(time)]; where it is the same everywhere, the stationary density is ~ exp(-2 R/sigma^2).
    - `step`: the steps of the solver [time].
    - `solver`: any of Diffrax's for additive noise, of which Ito's and Stratonovich's integrals are the same:
      `diffrax.Euler()` (Euler-Maruyama), `diffrax.Heun()`, `diffrax.SEA()`, `diffrax.ShARK()`; if None
      `diffrax.SRA1()`, of strong order 3/2.
    - `key`: with the bits of a start it makes the Brownian path from there: equal starts take equal paths.

    Each step draws its increments by its number: with another `step` the path is another. A run that overflows ends as
    NaN. Raises TypeError or ValueError, naming the argument.   [Rößler 2010]
    """
    starts = check_params(starts, "starts")
    leading_size(starts)
    check_objective(fn, jax.eval_shape(lambda p: jtu.tree_map(lambda x: x[0], p), starts), args)
    for name, value in (("t1", t1), ("step", step)):
        if value is None:
            raise TypeError(f"`{name}` must be a number > 0; got None")
        check_step(value, name)
    if isinstance(sigma, bool) or not isinstance(sigma, float | int) or not 0 <= sigma < np.inf:
        raise ValueError(f"`sigma` must be finite and >= 0; got {sigma!r}")
    solver = diffrax.SRA1() if solver is None else solver
    if not isinstance(solver, diffrax.AbstractSolver) or isinstance(solver, AbstractFlowSolver):
        raise TypeError(
            f"`solver` must be one of Diffrax's own, such as diffrax.SRA1() or diffrax.Euler(); got {solver!r}"
        )
    dtype = real_dtype(starts)
    numbers = tuple(jnp.asarray(x, dtype) for x in (sigma, t1, step))
    ends = _diffuse(fn, starts, solver, as_key(key), args, numbers, -int(-t1 // step) + 1)
    return jtu.tree_map(np.asarray, ends)


class _StepByStep(diffrax.AbstractBrownianPath):
    """Increments drawn afresh for each step, by its number.

    That is all that steps of one length need. A `VirtualBrownianTree` halves the time until it comes to the step, and
    draws at each level (1,000 paths of 1,000 steps by `SRA1`, ns a step: 15,000 -> 370).
    """

    shape: PyTree[jax.ShapeDtypeStruct] = eqx.field(static=True)
    key: Array
    step: Array
    levy_area: Any = eqx.field(static=True)

    t0: ClassVar[float] = -np.inf
    t1: ClassVar[float] = np.inf

    def evaluate(self, t0, t1=None, left=True, use_levy=False):
        number = jnp.round(t0 / self.step).astype(jnp.uint32)
        key = jax.random.fold_in(self.key, number)
        path = diffrax.UnsafeBrownianPath(self.shape, key, self.levy_area)
        return path.evaluate(t0, t1, left, use_levy)


class _WhiteNoise(diffrax.AbstractTerm):
    """sigma dW, the same in every entry of the params."""

    sigma: Array
    path: diffrax.AbstractBrownianPath

    def vf(self, t, y, args):
        return self.sigma

    def contr(self, t0, t1, **kwargs):
        return self.path.evaluate(t0, t1, **kwargs)

    def prod(self, vf, control):
        return jtu.tree_map(lambda w: vf.astype(w.dtype) * w, control)


@eqx.filter_jit
def _diffuse(fn, starts, solver, key, args, numbers, max_steps):
    sigma, t1, step = numbers
    zero = jnp.zeros_like(t1)
    area = _levy_area(solver)

    def one(params):
        path = _StepByStep(jax.eval_shape(lambda: params), key_of_start(key, params), step, area)
        descent = diffrax.ODETerm(
            lambda t, y, args: jtu.tree_map(jnp.negative, jax.grad(fn)(y, args))
        )
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(descent, _WhiteNoise(sigma, path)),
            solver,
            zero,
            t1,
            step,
            params,
            args,
            adjoint=diffrax.ForwardMode(),
            max_steps=max_steps,
            throw=False,
        )
        return jtu.tree_map(lambda x: x[-1], solution.ys)

    return jax.vmap(one)(starts)


def _levy_area(solver: diffrax.AbstractSolver) -> Any:
    """What the solver reads of the path beside its increments."""
    wanted = getattr(solver, "minimal_levy_area", diffrax.AbstractBrownianIncrement)
    areas = (
        diffrax.BrownianIncrement,
        diffrax.SpaceTimeLevyArea,
        diffrax.SpaceTimeTimeLevyArea,
    )
    return next(area for area in areas if issubclass(area, wanted))
