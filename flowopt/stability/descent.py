"""A problem under a method, as a system whose attractors are critical points."""

import dataclasses
from typing import Any

import xarray as xr
from jaxtyping import PyTree

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.run.ensemble import ensemble
from flowopt.run.step import Stop
from flowopt.stability.labels import check_problem, describe, describe_points, label_ends
from flowopt.stability.systems import AbstractSystem, Ends

_DEFAULTS = dict(args=None, tol=1e-4, max_steps=10_000, radius=0.05, stop=None)


@dataclasses.dataclass(frozen=True)
class Descent:
    """What `flowopt.basins` and `flowopt.reach` run where they are given a problem and a method."""

    problem: Problem
    method: Method
    args: Any
    tol: float
    max_steps: int
    radius: float
    stop: Stop | None

    def ends(self, starts: PyTree, progress: bool | str = False) -> Ends:
        ends = ensemble(
            self.problem.loss,
            starts,
            self.method,
            args=self.args,
            tol=self.tol,
            max_steps=self.max_steps,
            stop=self.stop,
            progress=progress,
        )
        return Ends(label_ends(self.problem, ends, self.radius), ends.accepted, ends.rejected)

    def points(self) -> xr.Dataset:
        return describe_points(self.problem)

    def describe(self, starts: str) -> dict[str, Any]:
        return describe(
            self.problem, self.method, self.tol, self.max_steps, self.radius, self.stop, starts
        )


def as_system(problem: Any, method: Method | None, **settings: Any) -> AbstractSystem | Descent:
    """`problem` under `method` with these settings; or `problem` itself, where it is a system and carries its own."""
    if not isinstance(problem, AbstractSystem):
        check_problem(problem)
        if method is None:
            raise TypeError("`method` is needed with a problem, such as flowopt.gd(0.1)")
        return Descent(problem, method, **settings)
    given = [] if method is None else ["method"]
    for name, value in settings.items():
        default = _DEFAULTS[name]
        if value is not default and (default is None or value != default):
            given.append(name)
    if given:
        names = ", ".join(f"`{name}`" for name in given)
        raise TypeError(f"{names}: for a problem only; a {type(problem).__name__} has its own")
    return problem
