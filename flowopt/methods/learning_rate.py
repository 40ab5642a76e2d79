"""From a learning rate, or a schedule of it, to a method."""

from collections.abc import Callable
from typing import Any

from flowopt import flows, solvers
from flowopt.flows.flow import AbstractFlow
from flowopt.methods.method import Method, check_step

LearningRate = float | Callable[[Any], Any]
"""A number > 0, or a function of the step count n = 0, 1, ... (a floating scalar) that gives one."""


def staggered(make: Callable[[float], AbstractFlow], lr: LearningRate) -> Method:
    """Staggered Euler with h = lr on the flow make(h), whose time is such that a learning rate is a time.

    A schedule acts on the flow of step 1, as `flows.Scheduled`: it scales the motion of the params alone.
    """
    if callable(lr):
        return _of_count(flows.Scheduled(make(1.0), lr))
    check_step(lr, "lr")
    return Method(make(lr), solvers.StaggeredEuler(), step=lr)


def staggered_second_order(make: Callable[[float], AbstractFlow], lr: LearningRate) -> Method:
    """As `staggered`, for flows of a velocity, where a learning rate is a time squared: h = sqrt(lr)."""
    if callable(lr):
        return _of_count(flows.Scheduled(make(1.0), lr))
    check_step(lr, "lr")
    h = lr**0.5
    return Method(make(h), solvers.StaggeredEuler(), step=h)


def _of_count(flow: AbstractFlow) -> Method:
    return Method(flow, solvers.StaggeredEuler(), step=1.0)


def check_decay(**values: float) -> None:
    """Raises ValueError for the first of the named numbers that does not lie in [0, 1)."""
    for name, value in values.items():
        if isinstance(value, float | int) and not 0 <= value < 1:
            raise ValueError(f"`{name}` must lie in [0, 1); got {value}")
