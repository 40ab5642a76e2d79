"""Contestants timed in turn, so that what else the machine does falls on all of them alike."""

import dataclasses
import pathlib
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[Any], np.ndarray]
"""From the starts to the steps that each run attempted."""
LONG = 20.0
"""A contestant that takes longer than this [s] is timed once, and left out of the later rounds."""


@dataclasses.dataclass
class Cost:
    """What one contestant took."""

    first: float
    """The first call, of runs that end at once [s]: compiling, and starting."""
    again: float
    """The same call once more [s]."""
    seconds: list[float]
    """Each round."""
    steps: int = 0
    """Attempted in one round, by all runs."""
    processor: list[float] = dataclasses.field(default_factory=list)
    """Each round, of all threads, also where others wanted the processor [s]."""
    memory: float | None = None
    """Most held in a round beyond what was held before it [MiB]; None where that is not known."""

    @property
    def step(self) -> float:
        """The median time of an attempted step [s]."""
        return statistics.median(self.seconds) / self.steps


def in_turn(contestants: dict[str, tuple[Run, Any, Any]], rounds: int) -> dict[str, Cost]:
    """The costs of contestants, each given as (run, starts, starts of the same shapes that end at once)."""
    costs = {}
    for name, (run, _, ended) in contestants.items():
        times = [_timed(run, ended)[1] for _ in range(2)]
        costs[name] = Cost(times[0], times[1], [])
    for _ in range(rounds):
        for name, (run, starts, _) in contestants.items():
            cost = costs[name]
            if cost.seconds and cost.seconds[0] > LONG:
                continue
            held = _restart_peak()
            begin = time.process_time()
            steps, seconds = _timed(run, starts)
            cost.processor.append(time.process_time() - begin)
            if held is not None:
                cost.memory = max(cost.memory or 0.0, _memory("VmHWM") - held)
            cost.steps = int(steps.sum(dtype=np.int64))
            cost.seconds.append(seconds)
    return costs


def peak_of(call: Callable[[], Any]) -> float | None:
    """Most memory held by this process during `call` beyond what it held before [MiB]; None where not known."""
    held = _restart_peak()
    call()
    return None if held is None else _memory("VmHWM") - held


def peak_memory() -> float:
    """Most memory that this process has held so far [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _timed(run: Run, starts: Any) -> tuple[np.ndarray, float]:
    begin = time.perf_counter()
    steps = run(starts)
    return steps, time.perf_counter() - begin


def _restart_peak() -> float | None:
    """Sets Linux's record of this process's largest memory to that of now, and returns it [MiB]."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    except OSError:
        return None


def _memory(name: str) -> float:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024
