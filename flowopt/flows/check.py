"""What the author of a flow wants to know first: does V decrease, and is V' what it should be?"""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from flowopt.flows.flow import (
    AbstractFlow,
    FlowTerm,
    State,
    check_flow_shapes,
    energy_rate,
    field,
    has_energy,
)
from flowopt.objective import Objective, check_objective, check_params
from flowopt.tree import add_scaled, real_dtype, sum_squares


@dataclasses.dataclass(frozen=True)
class FlowReport:
    """What `check_flow` found, over `samples` states on fine trajectories of the flow."""

    has_energy: bool
    """Whether the flow defines an energy; the rest is empty if not."""
    samples: int
    """States at which V and V' were finite."""
    lost: int
    """States at which they were not, or which the integration did not reach."""
    decreases: bool
    """Whether V' <= 0 at every sample, up to rounding."""
    worst_rate: float
    """The largest V' [loss/time]."""
    worst_state: State | None
    """Where it was found."""
    rate_error: float
    """Largest |V' - (central difference of V along the flow)|, beyond the noise of the difference and relative to
    the size of the terms that V' is a sum of, |grad R| |params'| + |V'|."""

    def __str__(self) -> str:
        if not self.has_energy:
            return "no energy defined: fields fit the state; V and V' not checked"
        verdict = "V' <= 0 everywhere" if self.decreases else "V increases somewhere"
        text = (
            f"{verdict} on {self.samples} states ({self.lost} lost): largest V' {self.worst_rate:.3g}; "
            f"V' against a central difference: relative error {self.rate_error:.1e}"
        )
        return text if self.decreases else f"{text}; worst at {self.worst_state}"


def check_flow(
    flow: AbstractFlow,
    fn: Objective,
    params: PyTree,
    *,
    args: Any = None,
    trajectories: int = 32,
    spread: float = 1.0,
    duration: float = 10.0,
    points: int = 64,
    key: Any = None,
) -> FlowReport:
    """Tells the author of a flow whether V decreases, where it does not, and whether V' is right.

    Integrates the flow finely (Tsit5, relative tolerance 1e-8) over `duration` [time] from
    `trajectories` starts, normal around `params` with standard deviation `spread` [params], so that
    the memory takes only values that a run can reach; samples `points` states of each.

    Raises TypeError or ValueError, naming the method at fault, where a field does not fit its state.
    """
    params = check_params(params)
    check_objective(fn, params, args)
    check_flow_shapes(flow, fn, params, args)
    for name, value in (("trajectories", trajectories), ("points", points)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1; got {value}")
    for name, value in (("spread", spread), ("duration", duration)):
        if not value > 0:
            raise ValueError(f"`{name}` must be > 0; got {value}")
    if not has_energy(flow):
        return FlowReport(False, 0, 0, False, float("nan"), None, float("nan"))

    key = jax.random.key(0) if key is None else key
    starts = _around(params, spread, trajectories, key)
    term = FlowTerm(flow, fn)
    # t = 0 itself is left out: a central difference would look before it.
    times = jnp.linspace(0, duration, points + 1, dtype=real_dtype(params))[1:]

    @jax.jit
    @jax.vmap
    def sample(start):
        solution = diffrax.diffeqsolve(
            term,
            diffrax.Tsit5(),
            jnp.zeros((), times.dtype),
            times[-1],
            None,
            term.init(start),
            args,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-10),
            max_steps=16_384,
            throw=False,
        )
        return jax.vmap(lambda y: (y, *_rates(term, y, args)))(solution.ys)

    states, rate, difference, noise, scale = sample(starts)
    rate, difference, noise, scale = (
        np.asarray(x, dtype=float).reshape(-1) for x in (rate, difference, noise, scale)
    )
    good = np.isfinite(rate) & np.isfinite(difference)
    if not good.any():
        return FlowReport(True, 0, good.size, False, float("nan"), None, float("nan"))
    worst = int(np.argmax(np.where(good, rate, -np.inf)))
    pick = lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[worst]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.maximum(np.abs(rate - difference) - noise, 0) / (scale + noise)
        increases = rate > 64 * np.finfo(times.dtype).eps * scale
    return FlowReport(
        has_energy=True,
        samples=int(good.sum()),
        lost=int((~good).sum()),
        decreases=not bool((increases & good).any()),
        worst_rate=float(rate[worst]),
        worst_state=jtu.tree_map(pick, states),
        rate_error=float(np.max(error[good], initial=0.0)),
    )


def _around(params: PyTree, spread: float, n: int, key: Any) -> PyTree:
    leaves, structure = jtu.tree_flatten(params)
    keys = jax.random.split(key, len(leaves))
    return jtu.tree_unflatten(
        structure,
        [
            leaf + spread * jax.random.normal(k, (n, *leaf.shape), leaf.dtype)
            for leaf, k in zip(leaves, keys, strict=True)
        ],
    )


def _rates(term: FlowTerm, y: State, args: Any):
    """V', a central difference of V over one small step each way, its noise, and the size of the terms of V'."""
    flow = term.flow
    at = term.at(y.params, args)
    rate = energy_rate(flow, y, at)
    f = field(flow, y, at)
    dtype = real_dtype(y.params)
    eps = jnp.finfo(dtype).eps
    size, speed = jnp.sqrt(sum_squares(y)), jnp.sqrt(sum_squares(f))
    h = (eps ** (1 / 3) * (1 + size) / (speed + jnp.finfo(dtype).tiny)).astype(dtype)
    # A flow at rest has no time scale of its own.
    h = jnp.minimum(h, jnp.asarray(1e-3, dtype))

    def energy_after(h):
        # Midpoint rule: its error over one step is O(h^3), below that of the difference.
        middle = add_scaled(y, 0.5 * h, f)
        k = field(flow, middle, term.at(middle.params, args))
        end = add_scaled(y, h, k)
        return flow.energy(end.params, end.memory, term.at(end.params, args))

    ahead, behind = energy_after(h), energy_after(-h)
    difference = (ahead - behind) / (2 * h)
    value = jnp.abs(at.value) + jnp.abs(ahead)
    scale = jnp.sqrt(sum_squares(at.grad) * sum_squares(f.params)) + jnp.abs(rate)
    rounding = eps * value / h
    truncation = 10 * eps ** (2 / 3) * (1 + size) ** 2 * jnp.maximum(scale, jnp.abs(rate))
    return rate, difference, 8 * rounding + truncation, scale
