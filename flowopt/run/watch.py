"""A run that is looked at on its way: a callback and a progress bar, between compiled segments."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from flowopt.run.history import Recorder
from flowopt.run.loop import begin, proceed
from flowopt.run.outcome import RUNNING, code_of
from flowopt.run.settings import progress_bar
from flowopt.run.solution import Solution, solution_of
from flowopt.run.step import Stepper

Callback = Callable[[Solution], bool | None]

_SHOWN = 0.1
"""About how often the bar of a run without a callback is to move [s]."""


@dataclasses.dataclass(frozen=True)
class Watch:
    """What is recorded of a run, and shown of it on its way: see `flowopt.minimise`."""

    history: Sequence[str] | str | bool | None
    capacity: int
    callback: Callback | None
    every: int
    progress: bool | str

    def __post_init__(self):
        if self.callback is not None and not callable(self.callback):
            raise TypeError(
                "`callback` must be a function of the run so far, which returns True to end it; got "
                f"{self.callback!r}"
            )
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                f"`every` must be an int >= 1, the steps from one call of `callback` to the next; got {self.every!r}"
            )

    @property
    def live(self) -> bool:
        """Whether anything is called on the way."""
        return self.callback is not None or bool(self.progress)


def watched(
    stepper: Stepper,
    params: PyTree,
    adjoint: diffrax.AbstractAdjoint,
    recorder: Recorder | None,
    watch: Watch,
    names: tuple[str, str],
) -> Solution:
    """The run that `loop.whole` makes, in segments of which each goes on where the last one stood."""
    part = begin(stepper, params, recorder)
    if any(isinstance(x, Tracer) for x in jtu.tree_leaves((stepper, part))):
        name = "progress" if watch.callback is None else "callback"
        raise TypeError(
            f"`{name}` is called from Python while the run goes on, and here the run is itself being traced by "
            f"`jit`, `vmap` or `grad`: leave `{name}` out, or call it outside of them"
        )
    attempted = int(part.state.attempted)
    segment = 1 if watch.callback is None else watch.every
    with progress_bar(watch.progress, stepper.max_steps, attempted, "step") as bar:
        while True:
            clock = time.perf_counter()
            pause = (attempted // segment + 1) * segment
            part, speed = proceed(stepper, part, adjoint, recorder, jnp.asarray(pause, jnp.int32))
            run = solution_of(part, speed, names)
            before, attempted = attempted, int(part.state.attempted)
            if watch.progress:
                bar.set_postfix_str(_summary(run), refresh=False)
                bar.update(attempted - before)
            running = int(part.state.code) == RUNNING
            if watch.callback is None:
                if time.perf_counter() - clock < _SHOWN:
                    segment *= 2
            elif _ends(watch.callback(run)) and running:
                code = jnp.full_like(part.state.code, code_of("converged"))
                part = eqx.tree_at(lambda p: p.state.code, part, code)
                run, running = solution_of(part, speed, names), False
            if not running:
                return run


def _summary(run: Solution) -> str:
    numbers = f"loss {run.value:.3e}, |grad| {run.grad_norm:.1e}, h {run.stats['step']:.1e}"
    return numbers if run.outcome.code == RUNNING else f"{run.outcome}: {numbers}"


def _ends(answer: Any) -> bool:
    """Whether a callback's answer ends the run."""
    if answer is None:
        return False
    answer = np.asarray(answer)
    if answer.dtype != bool or answer.shape != ():
        raise TypeError(
            f"`callback` must return True to end the run, and None or False to go on; got {answer!r}"
        )
    return bool(answer)
