"""The stability region of a solver: its growth factor on the linear test equation."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowopt.flows.flow import AbstractFlow, State
from flowopt.methods import Method
from flowopt.solvers import EnergyGuard
from flowopt.stability.linearise import step_jacobian


class _Linear(AbstractFlow):
    """theta' = A theta."""

    matrix: Float[Array, "2 2"]

    def params_field(self, params, memory, at):
        return self.matrix @ params


def growth_factor(solver: diffrax.AbstractSolver, z: Any) -> Float[np.ndarray, "..."]:
    """|R(z)|: by what factor one step of `solver` multiplies a solution of y' = lambda y, z = h lambda.

    - `z`: an array of complex numbers.

    For a solver of several steps, the largest modulus of the roots. It is found by stepping: the complex equation is
    two real ones, and the factor is the spectral radius of the derivative of a step, so that any Diffrax solver
    of one ODE will do, explicit or implicit. Infinite where there is no step. StaggeredEuler, unlike Euler in
    the memory alone, counts as Euler.   [Dahlquist 1963; Hairer and Wanner 1996, IV.2]

    Raises TypeError or ValueError, naming the argument, for a solver that this equation does not define.
    """
    if not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(
            f"`solver` must be a diffrax solver, such as diffrax.Tsit5(); got {solver!r}"
        )
    if isinstance(solver, EnergyGuard):
        raise ValueError("`solver`: a guard judges steps and makes none; give the solver inside it")
    dtype = jnp.result_type(float)
    # A pole of R, hit exactly, would stop an implicit solver's linear algebra; an ulp or so beside it R is huge.
    z = np.asarray(z, complex) * (1 + 4 * float(jnp.finfo(dtype).eps))
    y = State(jnp.zeros(2, dtype), None)
    one = jnp.ones((), dtype)

    @eqx.filter_jit
    @jax.vmap
    def jacobian(a, b):
        flow = _Linear(jnp.array([[a, -b], [b, a]]))
        return step_jacobian(Method(flow, solver, step=1.0), _no_loss, y, one)

    parts = jnp.asarray(z.real.ravel(), dtype), jnp.asarray(z.imag.ravel(), dtype)
    steps = np.asarray(jacobian(*parts), float)
    finite = np.isfinite(steps).all(axis=(1, 2))
    radius = np.full(z.size, np.inf)
    radius[finite] = np.abs(np.linalg.eigvals(steps[finite])).max(axis=-1)
    return radius.reshape(z.shape)


def _no_loss(params: Any, args: Any) -> Float[Array, ""]:
    return jnp.zeros_like(params[0])
