"""The contestants of the study `surrogates`: this library's, optax's, Optimistix's and SciPy's, from the same start.

Each fits a network to data by a budget of steps and says what it spent. Nothing is tuned but Adam.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import scipy.optimize
from jax.flatten_util import ravel_pytree

import flowopt as fo
from flowopt.objective import DENSE_LIMIT
from flowopt.tree import sum_squares

LM, DEFAULT, GUARDED, ADAM = (
    "flowopt least_squares", "flowopt minimise", "flowopt lyapunov", "optax Adam, tuned"
)  # fmt: skip
OURS = (LM, DEFAULT, GUARDED)
TOL = 1e-8
"""On the gradient's norm, or as the others' rtol and atol, ftol, xtol and gtol."""
RATES = (1e-4, 1e-1)
"""Of Adam's learning rate, searched uniformly in its logarithm."""
SEARCH_SEED = 7


@dataclasses.dataclass(frozen=True)
class Budget:
    """Most steps of each kind of method."""

    second: int
    """Levenberg-Marquardt."""
    newton: int
    """Newton's method."""
    quasi: int
    """BFGS and L-BFGS."""
    first: int
    """Adam, and gradient descent guarded by energy."""
    searched: int
    """Random draws of Adam's constants."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """The params a method ends with, and what it spent to get there."""

    params: Any
    evaluations: float
    """Calls of the loss, its gradient, Hessian, residuals or Jacobian, each of them one."""
    cost: float
    """The same in gradients: a forward pass 1/2, a Jacobian as many as there are params, a Hessian twice that."""


def size(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def algebra(name: str, data: Any, params: Any, budget: Budget) -> float:
    """What a fit by the method `name` may do for its linear algebra, in multiplications by LAPACK."""
    n, m = size(params), data.y.size
    if name in (LM, DEFAULT) and n > DENSE_LIMIT:
        # Products with a matrix that is not formed, each some passes over all data and params: of a Hessian up to 2 n
        # a step; of a Jacobian about 200.
        products = 200 * budget.second if name == LM else 2 * n * budget.newton
        return products * 6.0 * len(data) * n
    each = {
        LM: (budget.second, m * n**2),
        "Optimistix LM": (budget.second, m * n**2),
        # MINPACK factorises column by column, at a third of LAPACK's speed.
        "SciPy LM": (budget.second, 3 * m * n**2),
        DEFAULT: (budget.newton, n**3 / 3),
        "Optimistix BFGS": (budget.quasi, 5 * n**2),
        # It multiplies whole matrices where a rank of two would do.
        "SciPy BFGS": (budget.quasi, 2 * n**3),
    }
    steps, work = each.get(name, (0, 0))
    return float(steps * work)


def least_squares(residuals, params, data, budget: Budget) -> Fit:
    end = fo.least_squares(residuals, params, args=data, tol=TOL, max_steps=budget.second)
    r, j = int(end.stats["residual_evals"]), int(end.stats["jacobian_evals"])
    if size(params) <= DENSE_LIMIT:
        return Fit(end.params, r + j, 0.5 * r + size(params) * j)
    products = int(end.stats["hessian_products"])  # with J and J', which is never formed
    return Fit(end.params, r + 2 * products, 0.5 * r + products)


def minimise(residuals, params, data, budget: Budget, method=None, steps=None) -> Fit:
    loss = fo.networks.MeanSquaredError(residuals.rebuild)
    steps = budget.newton if steps is None else steps
    end = fo.minimise(loss, params, method, args=data, tol=TOL, max_steps=steps)
    passes = int(end.stats["value_evals"]) + int(end.stats["grad_evals"])
    products = int(end.stats.get("hessian_products", 0))
    return Fit(end.params, passes + products / size(params), 0.5 * passes + 2.0 * products)


def guarded(residuals, params, data, budget: Budget) -> Fit:
    return minimise(residuals, params, data, budget, fo.lyapunov(), budget.first)


@eqx.filter_jit
def _optimistix_lm(residuals, params, data, steps):
    solver = optx.LevenbergMarquardt(rtol=TOL, atol=TOL)
    return optx.least_squares(residuals, solver, params, data, max_steps=steps, throw=False)


def optimistix_lm(residuals, params, data, budget: Budget) -> Fit:
    end = _optimistix_lm(residuals, params, data, budget.second)
    steps = int(end.stats["num_steps"])
    return Fit(end.value, 2 * steps, (0.5 + size(params)) * steps)


@eqx.filter_jit
def _optimistix_bfgs(residuals, params, data, steps):
    loss = fo.networks.MeanSquaredError(residuals.rebuild)
    solver = optx.BFGS(rtol=TOL, atol=TOL)
    return optx.minimise(loss, solver, params, data, max_steps=steps, throw=False)


def optimistix_bfgs(residuals, params, data, budget: Budget) -> Fit:
    end = _optimistix_bfgs(residuals, params, data, budget.quasi)
    steps, accepted = int(end.stats["num_steps"]), int(end.state.num_accepted_steps)
    return Fit(end.value, steps + accepted, 0.5 * (steps + accepted))


@eqx.filter_jit
def _flat(residuals, rebuild, flat, data):
    return residuals(rebuild(flat), data).ravel()


@eqx.filter_jit
def _jacobian(residuals, rebuild, flat, data):
    return jax.jacfwd(lambda p: residuals(rebuild(p), data).ravel())(flat)


@eqx.filter_jit
def _value_and_grad(residuals, rebuild, flat, data):
    loss = fo.networks.MeanSquaredError(residuals.rebuild)
    return jax.value_and_grad(lambda p: loss(rebuild(p), data))(flat)


def scipy_lm(residuals, params, data, budget: Budget) -> Fit:
    """MINPACK's."""
    flat, rebuild = ravel_pytree(params)
    rebuild = jax.tree_util.Partial(rebuild)
    calls = dict.fromkeys(("r", "J"), 0)

    def counted(kind, fn):
        def call(p):
            calls[kind] += 1
            return np.asarray(fn(residuals, rebuild, jnp.asarray(p), data))

        return call

    jacobian: Any = counted("J", _jacobian)
    end = scipy.optimize.least_squares(
        counted("r", _flat), np.asarray(flat), jacobian, method="lm",
        max_nfev=budget.second, ftol=TOL, xtol=TOL, gtol=TOL,
    )  # fmt: skip
    r, j = calls["r"], calls["J"]
    return Fit(rebuild(jnp.asarray(end.x)), r + j, 0.5 * r + flat.size * j)


def by_scipy(method: str) -> Callable[..., Fit]:
    """One of `scipy.optimize.minimize`, given value and gradient together."""

    def fit(residuals, params, data, budget: Budget) -> Fit:
        flat, rebuild = ravel_pytree(params)
        rebuild = jax.tree_util.Partial(rebuild)

        def both(p):
            value, grad = _value_and_grad(residuals, rebuild, jnp.asarray(p), data)
            return float(value), np.asarray(grad)

        options: Any = dict(maxiter=budget.quasi, gtol=TOL)
        if method == "L-BFGS-B":
            options |= dict(maxfun=10 * budget.quasi, ftol=TOL**2)
        start = np.asarray(flat)
        end = scipy.optimize.minimize(both, start, jac=True, method=method, options=options)
        return Fit(rebuild(jnp.asarray(end.x)), 2 * end.nfev, end.nfev)

    return fit


@eqx.filter_jit
def _optax_lbfgs(residuals, params, data, steps):
    """optax's loop, until the gradient is small: the params, and the calls of value and gradient together."""
    loss, tx = fo.networks.MeanSquaredError(residuals.rebuild), optax.lbfgs()
    value_fn = lambda p: loss(p, data)
    known = optax.value_and_grad_from_state(value_fn)

    def going_on(carry):
        _, _, n, _, size = carry
        return (n < steps) & (size >= TOL**2)

    def step(carry):
        params, state, n, calls, _ = carry
        value, grad = known(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=value_fn)
        calls = calls + optax.tree.get(state, "num_linesearch_steps")
        return optax.apply_updates(params, updates), state, n + 1, calls, sum_squares(grad)

    start = params, tx.init(params), 0, jnp.asarray(1), jnp.asarray(jnp.inf)
    params, _, _, calls, _ = jax.lax.while_loop(going_on, step, start)
    return params, calls


def optax_lbfgs(residuals, params, data, budget: Budget) -> Fit:
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        params, calls = _optax_lbfgs(residuals, params, data, budget.quasi)
    return Fit(params, 2 * int(calls), int(calls))


@eqx.filter_jit
def _adam(residuals, params, data, rates, decays, steps):
    """Adam from stacked `params`, by the stacked `rates`, which fall as a cosine where it `decays`: the last params."""
    loss = fo.networks.MeanSquaredError(residuals.rebuild)
    adam = optax.scale_by_adam()

    def one(params, rate, decays):
        def step(carry, n):
            params, state = carry
            updates, state = adam.update(jax.grad(loss)(params, data), state)
            lr = rate * jnp.where(decays, 0.5 * (1 + jnp.cos(jnp.pi * n / steps)), 1.0)
            return (jax.tree.map(lambda p, u: p - lr * u, params, updates), state), None

        return jax.lax.scan(step, (params, adam.init(params)), jnp.arange(steps))[0][0]

    return jax.vmap(one)(params, rates, decays)


def tuned_adam(residuals, starts: list, data, budget: Budget, error: Callable) -> list[Fit]:
    """All starts, by the constants that give the least `error` from the first: the search is charged to each."""
    generator, k = np.random.default_rng(SEARCH_SEED), budget.searched
    rates = jnp.asarray(np.exp(generator.uniform(np.log(RATES[0]), np.log(RATES[1]), k)))
    decays = jnp.asarray(generator.integers(0, 2, k).astype(bool))
    stack = lambda many: jax.tree.map(lambda *x: jnp.stack(x), *many)
    each = lambda many, n: [jax.tree.map(lambda x, i=i: x[i], many) for i in range(n)]
    with jax.numpy_dtype_promotion("standard"):
        tried = _adam(residuals, stack([starts[0]] * k), data, rates, decays, budget.first)
        errors = [error(params) for params in each(tried, k)]
        best = int(np.argmin(np.nan_to_num(errors, nan=np.inf)))
        n = len(starts)
        chosen = jnp.full(n, rates[best]), jnp.full(n, decays[best])
        ends = _adam(residuals, stack(starts), data, *chosen, budget.first)
    calls = (k + 1) * budget.first
    return [Fit(params, 2 * calls, calls) for params in each(ends, n)]


UNTUNED: dict[str, Callable[..., Fit]] = {
    LM: least_squares,
    DEFAULT: minimise,
    GUARDED: guarded,
    "Optimistix LM": optimistix_lm,
    "SciPy LM": scipy_lm,
    "Optimistix BFGS": optimistix_bfgs,
    "SciPy BFGS": by_scipy("BFGS"),
    "SciPy L-BFGS-B": by_scipy("L-BFGS-B"),
    "optax L-BFGS": optax_lbfgs,
}
METHODS = (*UNTUNED, ADAM)
