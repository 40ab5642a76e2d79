"""Where the flows and their discrete methods are stable, by the spectrum at every critical point."""

from collections import Counter

import diffrax
import numpy as np

import flowopt as fo
from studies import report
from studies.instability.leaving import ADAPTIVE


def counts(problems: list[fo.Problem], flows: dict[str, fo.AbstractFlow]) -> Counter:
    """How often (nature, stability, decided by) is found."""
    found: Counter = Counter()
    for problem in problems:
        for flow in flows.values():
            method = fo.Method(flow, diffrax.Heun(), ADAPTIVE, step=0.1)
            for point in problem.critical_points:
                ds = fo.spectrum(method, problem, point)
                found[point.nature, ds.attrs["stability"], ds.attrs["decided_by"]] += 1
    return found


def critical_steps(problem: fo.Problem, quick: bool) -> dict[str, float]:
    """The largest stable learning rate at the steepest minimum."""
    least = [p for p in problem.critical_points if p.nature == "minimum"]
    steepest = max(least, key=lambda p: np.linalg.eigvalsh(np.asarray(p.hessian))[-1])
    makers = {
        "GD": fo.gd,
        "Adam, eps 1e-8": fo.adam,
        "Adam, eps 1e-3": lambda lr: fo.adam(lr, eps=1e-3),
        "momentum 0.9": fo.momentum,
        "Nesterov 0.9": fo.nesterov,
    }
    names = list(makers)[: 2 if quick else None]
    return {name: fo.critical_step(makers[name], problem, steepest) for name in names}


def counts_table(found: Counter) -> str:
    rows = [[*key, str(n)] for key, n in sorted(found.items())]
    return report.table(["nature", "the flow there is", "decided by", "points x flows"], rows)


def steps_table(steps: dict[str, float]) -> str:
    text = (
        "The largest learning rate at which every minimum of poly2 is stable (`critical_step`), by multipliers, "
        "memory at rest. Adam's is proportional to eps: at rest it is momentum with learning rate (1 - b1) lr/eps, "
        "so at usual learning rates no minimum is a stable fixed point of its step: one must be left before sqrt(s) "
        "has grown to hold it.\n\n"
    )
    rows = [[name, f"{value:.4g}"] for name, value in steps.items()]
    return text + report.table(["method", "critical lr"], rows)
