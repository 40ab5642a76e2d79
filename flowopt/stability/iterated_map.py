"""An iterated map as a system with attractors."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import xarray as xr
from jaxtyping import PyTree

from flowopt.stability.attractors import (
    Attractors,
    attractor_points,
    check_target,
    feature_label,
    outside,
)
from flowopt.stability.labels import DIVERGED, ELSEWHERE, MAX_STEPS
from flowopt.stability.systems import AbstractSystem


class Map(AbstractSystem):
    """x_{n+1} = fn(x_n, args), and where it leads.

    - `fn(state, args) -> state`, for one state, a pytree of floating arrays.
    - Either `attractors`: a list with a state for each fixed point, or a list of states for each cycle; an
      orbit ends as soon as it is within `radius` [state] of one.
    - Or `feature(states) -> int`: after `max_steps` iterations, the label of the orbit from its next
      `window` states (each leaf with one more axis, in front); `names` says what each label is.
    - `max_steps`: iterations at most; `bound`: an orbit with a number past it has diverged [state].

    Labels: the index of the attractor; -1 for a feature that is none of them, -2 no attractor within
    `max_steps`, -3 diverged. Raises TypeError or ValueError, naming the argument.
    """

    fn: Callable[[PyTree, Any], PyTree]
    attractors: Attractors | None
    feature: Callable[[PyTree], Any] | None
    args: Any
    max_steps: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    bound: float
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable[[PyTree, Any], PyTree],
        attractors: Sequence[PyTree] | None = None,
        *,
        radius: float = 1e-3,
        feature: Callable[[PyTree], Any] | None = None,
        names: Sequence[str] | None = None,
        args: Any = None,
        max_steps: int = 1_000,
        window: int = 1,
        bound: float = 1e6,
    ):
        if not callable(fn):
            raise TypeError(f"`fn` must be callable as fn(state, args); got {fn!r}")
        for name, value in (("max_steps", max_steps), ("window", window)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"`{name}` must be an int; got {value!r}")
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1; got {value}")
        if not bound > 0:
            raise ValueError(f"`bound` must be > 0; got {bound}")
        self.fn, self.feature, self.args = fn, feature, args
        self.attractors, self.names = check_target(attractors, radius, feature, names)
        self.max_steps, self.window, self.bound = max_steps, window, bound

    def end(self, start: PyTree):
        zero = jnp.zeros((), jnp.int32)
        target = self.attractors

        def label(state):
            reached = zero + ELSEWHERE if target is None else target.label(state)
            return jnp.where(outside(state, self.bound), DIVERGED, reached)

        def going_on(carry):
            n, state = carry
            return (n < self.max_steps) & (label(state) == ELSEWHERE)

        def body(carry):
            n, state = carry
            return n + 1, self.fn(state, self.args)

        n, last = jax.lax.while_loop(going_on, body, (zero, start))
        if self.feature is None:
            found = label(last)
            return jnp.where(found == ELSEWHERE, MAX_STEPS, found), n, zero

        def record(state, _):
            state = self.fn(state, self.args)
            return state, state

        last, states = jax.lax.scan(record, last, length=self.window)
        found = feature_label(self.feature(states), len(self.names), outside(last, self.bound))
        return found, n, zero

    def points(self) -> xr.Dataset:
        return attractor_points(self.attractors, self.names)
