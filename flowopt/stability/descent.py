"""A problem under a method, as a system whose attractors are critical points."""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import PyTree

from flowopt.benchmarks.problem import Problem
from flowopt.methods import Method
from flowopt.run.draw import Distribution
from flowopt.run.ensemble import ensemble
from flowopt.run.step import Stop
from flowopt.stability.labels import check_problem, describe, describe_points, label_ends
from flowopt.stability.systems import AbstractSystem, Ends

_DEFAULTS = dict(
    args=None, tol=1e-4, max_steps=10_000, radius=0.05, stop=None, store=None, executor=None
)


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
    store: str | os.PathLike | None = None
    executor: Any = None

    def ends(
        self,
        starts: PyTree | Distribution,
        progress: bool | str = False,
        *,
        n: int | None = None,
        key: Any = None,
    ) -> Ends:
        """How the runs from `starts` end, given or drawn as by `flowopt.ensemble`."""
        ends = ensemble(
            self.problem.loss,
            starts,
            self.method,
            n=n,
            key=key,
            args=self.args,
            tol=self.tol,
            max_steps=self.max_steps,
            stop=self.stop,
            store=self.store,
            executor=self.executor,
            about={"problem": self.problem.name},
            progress=progress,
        )
        labels = label_ends(self.problem, ends, self.radius)
        return Ends(labels, np.asarray(ends.accepted), np.asarray(ends.rejected))

    def stored_at(self, name: str) -> "Descent":
        """The same, its runs kept in a store of their own below this one's."""
        if self.store is None:
            return self
        return dataclasses.replace(self, store=pathlib.Path(self.store) / name)

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
