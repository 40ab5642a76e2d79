"""The default method, untuned, beside SciPy's and Optimistix's BFGS, and from first steps of 1e-6 to 1e6.

Costs are in gradients: a forward pass is 1/2, a backward pass 1/2, a Hessian-vector product 2 (forward over
reverse), and so a dense Hessian of n params 2n; a dense Jacobian n. Nothing is charged for linear algebra.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import scipy.optimize
from jaxtyping import Array
from tqdm import tqdm

import flowopt as fo
from flowopt.benchmarks.more_garbow_hillstrom import ResidualProblem, residual_problems
from flowopt.benchmarks.more_garbow_hillstrom_more import general_problems, large_problems
from studies import report

TOL = 1e-6
MAX_STEPS = 2000
"""Steps attempted, for every method (iterations, for SciPy's)."""
LARGE = 600
"""Params of the large problems: above `flowopt.objective.DENSE_LIMIT`."""
FIRST_STEPS = (1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6)
NETWORKS = {"poly2": 5, "poly3": 5, "poly4": 5, "poly5": 5, "poly8": 3, "bell": 4, "rational": 4}
NETWORKS |= {"exp2": 3, "exp4": 2}
"""Half the side of the square of starts: where the network can be evaluated in float64."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A loss, a start, and the minima that are known."""

    name: str
    group: str
    fn: Callable[[Array, Any], Array]
    start: np.ndarray
    problem: ResidualProblem | None = None

    def known(self, value: float) -> bool | None:
        """Whether R = `value` is a published minimum (F to 1e-4 of it, or 1e-8); None where none is published."""
        return None if self.problem is None else self.problem.reached(value, atol=1e-8)


@dataclasses.dataclass(frozen=True)
class End:
    """How a run on a case ended, and what it cost in gradients."""

    converged: bool
    known: bool | None
    cost: float


def cases(quick: bool) -> list[Case]:
    """Moré, Garbow and Hillstrom's from their start and ten times it, large ones, and networks from random starts."""
    least, general = residual_problems(), general_problems()
    large = large_problems(LARGE)
    if quick:
        least, general, large = least[:1], general[:1], ()
    out = []
    for group, problems, scales in (
        ("least squares", least, (1, 10)),
        ("general", general, (1, 10)),
        (f"n = {LARGE}", large, (1,)),
    ):
        for problem in problems:
            fn = fo.SumOfSquares(problem.residuals)
            for scale in scales:
                name = f"{problem.name} x {scale}"
                where = group if len(scales) == 1 else f"{group}, start x {scale}"
                out.append(Case(name, where, fn, scale * np.asarray(problem.start), problem))
    rng = np.random.default_rng(0)
    for name, side in list(NETWORKS.items())[: 1 if quick else None]:
        fn = of_vector(getattr(fo.benchmarks, name)())
        for i in range(2 if quick else 20):
            out.append(Case(f"{name} #{i}", "networks", fn, rng.uniform(-side, side, 2)))
    return out


def of_vector(problem: fo.Problem) -> Callable[[Array, Any], Array]:
    """The loss of a network as a function of the vector (w, b)."""
    return lambda x, args: problem.loss((x[0], x[1]))


def flowopt_run(case: Case, method: fo.Method) -> End:
    """One run of a method of this library on R."""
    sol = fo.minimise(case.fn, jnp.asarray(case.start), method, tol=TOL, max_steps=MAX_STEPS)
    passes = int(sol.stats["value_evals"]) + int(sol.stats["grad_evals"])
    cost = 0.5 * passes + 2.0 * int(sol.stats["hessian_products"])
    return End(bool(sol.outcome == "converged"), case.known(float(sol.value)), cost)


def least_squares_run(case: Case, method: fo.Method) -> End:
    """One run of a method of this library on the residuals, which are known."""
    assert case.problem is not None
    residuals, start = case.problem.residuals, jnp.asarray(case.start)
    sol = fo.least_squares(residuals, start, method, tol=TOL, max_steps=MAX_STEPS)
    jacobians = start.size * int(sol.stats["jacobian_evals"])
    cost = 0.5 * int(sol.stats["residual_evals"]) + 1.0 * jacobians
    return End(bool(sol.outcome == "converged"), case.known(float(sol.value)), cost)


@eqx.filter_jit
def _value_and_grad(fn, x):
    return jax.value_and_grad(lambda p: fn(p, None))(x)


def scipy_run(case: Case) -> End:
    """SciPy's BFGS as it comes, but for the tolerance on the gradient's 2-norm."""

    def both(x):
        value, grad = _value_and_grad(case.fn, jnp.asarray(x))
        return float(value), np.asarray(grad)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # overflow in line searches: it goes on
        options: Any = dict(gtol=TOL, norm=2, maxiter=MAX_STEPS)
        end = scipy.optimize.minimize(both, case.start, jac=True, method="BFGS", options=options)
    value, grad = both(end.x)
    return End(bool(np.linalg.norm(grad) < TOL), case.known(value), float(end.nfev))


@eqx.filter_jit
def _optimistix(fn, start):
    # Its own test of convergence is on the params and the loss: stepped by hand, to stop by the gradient.
    solver = optx.BFGS(rtol=TOL, atol=TOL)
    options, tags = {}, frozenset()
    scalar = lambda x, args: (fn(x, args), None)
    shape = jax.eval_shape(lambda x: fn(x, None), start)
    first = solver.init(scalar, start, None, options, shape, None, tags)
    dynamic, static = eqx.partition(first, eqx.is_array)

    def norm_of(state):
        norm = jnp.linalg.norm(state.f_info.grad)
        return jnp.where(state.num_accepted_steps == 0, jnp.inf, norm)

    def going_on(carry):
        _, dynamic, steps = carry
        return (norm_of(eqx.combine(dynamic, static)) >= TOL) & (steps < MAX_STEPS)

    def body(carry):
        y, dynamic, steps = carry
        state = eqx.combine(dynamic, static)
        y, state, _ = solver.step(scalar, y, None, options, state, tags)
        return y, eqx.filter(state, eqx.is_array), steps + 1

    y, dynamic, steps = jax.lax.while_loop(going_on, body, (start, dynamic, jnp.array(0)))
    return y, steps, eqx.combine(dynamic, static).num_accepted_steps


def optimistix_run(case: Case) -> End:
    """Optimistix's BFGS as it comes, stopped by the gradient's 2-norm."""
    y, steps, accepted = _optimistix(case.fn, jnp.asarray(case.start))
    value, grad = _value_and_grad(case.fn, y)
    converged = bool(jnp.linalg.norm(grad) < TOL)
    return End(converged, case.known(float(value)), 0.5 * float(steps + accepted))


OURS, SCIPY, OPTIMISTIX = "flowopt default", "SciPy BFGS", "Optimistix BFGS"


def default(step: float = 1.0) -> fo.Method:
    """The default, with the first step as an array, so that changing it compiles nothing."""
    return fo.default_method(jnp.asarray(step))  # pyright: ignore[reportArgumentType]


def levenberg_marquardt(h0: float) -> fo.Method:
    """The default of `least_squares`, likewise."""
    return fo.levenberg_marquardt(jnp.asarray(1 / h0))  # pyright: ignore[reportArgumentType]


def alternatives() -> dict[str, fo.Method]:
    """What was considered in its place."""
    newton, flow = fo.RosenbrockEuler("exact"), fo.flows.Gradient()
    return {
        "EnergyGuard(RosenbrockEuler), IntegralController": fo.Method(
            flow, fo.EnergyGuard(newton), fo.IntegralController(), step=1.0
        ),
        "RosenbrockEuler, GainRatio(Nielsen)": fo.Method(flow, newton, fo.GainRatio(), step=1.0),
        "RosenbrockEuler, IntegralController as it comes": fo.Method(
            flow, newton, fo.IntegralController(), step=1.0
        ),
        "lyapunov(Gradient): first order": fo.lyapunov(step=1.0),
    }


def run(out: pathlib.Path, quick: bool, progress: bool) -> str:
    """Writes report.md into `out`, and returns it. `quick`: a few problems and two first steps."""
    every = cases(quick)
    first_steps = FIRST_STEPS[:: len(FIRST_STEPS) - 1] if quick else FIRST_STEPS
    ends: dict[str, list[End]] = {name: [] for name in (OURS, SCIPY, OPTIMISTIX)}
    swept = []
    for case in tqdm(every, disable=not progress, desc="default"):
        ends[OURS].append(flowopt_run(case, default()))
        ends[SCIPY].append(scipy_run(case))
        ends[OPTIMISTIX].append(optimistix_run(case))
        swept.append([flowopt_run(case, default(step)) for step in first_steps])
    few = [case for case in every if case.group.endswith("start x 1")]
    others = {
        name: [flowopt_run(case, method) for case in tqdm(few, disable=not progress, desc=name)]
        for name, method in ({} if quick else alternatives()).items()
    }
    others = {
        "the default": [e for c, e in zip(every, ends[OURS], strict=True) if c in few],
        **others,
    }
    dense = [case for case in every if "start x" in case.group]
    marquardt = [
        [least_squares_run(case, levenberg_marquardt(h)) for h in first_steps]
        for case in tqdm(dense, disable=not progress, desc="least squares")
    ]
    text = "\n\n".join(
        [
            "# default: the method without hyperparameters",
            (__doc__ or "").strip(),
            f"```\n{fo.default_method()}\n```",
            f"Every run until |grad R| < {TOL:g} or {MAX_STEPS} steps. *Converged*: the gradient is below that. "
            "*Known*: R is a published minimum, of the problems that have one. *Cost*: median, of all runs in "
            "the row; *both*: the sum over the cases on which this method and the default converge, beside that of "
            "the default.",
            by_group(every, ends),
            "## Where they end differently",
            differences(every, ends),
            "## The first step",
            first_step_table(every, swept, first_steps),
            "## What was considered in its place",
            "On the dense problems of Moré, Garbow and Hillstrom, from their start.",
            alternatives_table(others),
            "## Sums of squares",
            "`levenberg_marquardt()`, the default of `least_squares`, given the residuals of the same dense problems; "
            "h0 = 1/mu.",
            least_squares_table(marquardt, first_steps),
            "## Verdict",
            "\n".join(
                [
                    *verdicts(every, ends, swept, first_steps),
                    first_step_verdict("the default of least_squares", marquardt, first_steps),
                ]
            ),
        ]
    )
    return report.save_report(text, out)


def counts(ends: Sequence[End]) -> tuple[int, int, int]:
    """Converged, at a known minimum, and of how many."""
    known = [end.known for end in ends if end.known is not None]
    return sum(end.converged for end in ends), sum(known), len(known)


def by_group(every: list[Case], ends: dict[str, list[End]]) -> str:
    """The table of the three methods on every group of cases and on all."""
    rows = []
    for group in [*dict.fromkeys(case.group for case in every), "all"]:
        chosen = [i for i, case in enumerate(every) if group in (case.group, "all")]
        ours = [ends[OURS][i] for i in chosen]
        for name, of_all in ends.items():
            theirs = [of_all[i] for i in chosen]
            converged, known, published = counts(theirs)
            both = [
                (a.cost, b.cost)
                for a, b in zip(theirs, ours, strict=True)
                if a.converged and b.converged
            ]
            a, b = np.sum(both, axis=0) if both else (0.0, 0.0)
            rows.append(
                [
                    group,
                    name,
                    f"{converged}/{len(theirs)}",
                    f"{known}/{published}" if published else "-",
                    f"{np.median([end.cost for end in theirs]):.0f}",
                    f"{a:.0f} : {b:.0f}",
                ]
            )
    return report.table(["problems", "method", "converged", "known", "cost", "both"], rows)


def differences(every: list[Case], ends: dict[str, list[End]]) -> str:
    """The cases on which a method ends otherwise than another, or all fail."""
    word = lambda end: ("converged" if end.converged else "-") + (", known" if end.known else "")
    rows = []
    for i, case in enumerate(every):
        words = [word(of[i]) for of in ends.values()]
        if len(set(words)) > 1 or not all(of[i].converged for of in ends.values()):
            rows.append([case.name, *words])
    return report.table(["case", *ends], rows) if rows else "Nowhere."


def sweep(swept: list[list[End]]) -> tuple[np.ndarray, np.ndarray]:
    """(costs, cases x steps), and which cases converge from every first step."""
    costs = np.array([[end.cost for end in line] for line in swept])
    return costs, np.array([all(end.converged for end in line) for line in swept])


def first_step_table(every: list[Case], swept: list[list[End]], steps: Sequence[float]) -> str:
    """Totals over the cases that converge from every first step; and each case."""
    costs, sure = sweep(swept)
    spread = costs.max(1) / costs.min(1)
    totals = ["total", *(f"{x:.0f}" for x in costs[sure].sum(0)), ""]
    done = [
        "converged",
        *(str(sum(line[k].converged for line in swept)) for k in range(len(steps))),
        "",
    ]
    rows = [
        [case.name, *(f"{x:.0f}" for x in line), f"{s:.2f}" + ("" if ok else " (not all converge)")]
        for case, line, s, ok in zip(every, costs, spread, sure, strict=True)
        if case.group != "networks"
    ]
    shown = report.table(["h0", *(f"{h:g}" for h in steps), "max/min"], [done, totals, *rows])
    return (
        f"Cost by the first step. The totals are those of the {sure.sum()} of {len(every)} cases that converge from "
        f"every one; of these max/min has median {np.median(spread[sure]):.2f}, is below 2 in "
        f"{report.percent(float(np.mean(spread[sure] < 2)))}, and at most {spread[sure].max():.1f} "
        f"({every[int(np.argmax(np.where(sure, spread, 0)))].name}). Networks are in the totals, and not "
        f"listed.\n\n{shown}"
    )


def alternatives_table(others: dict[str, list[End]]) -> str:
    """Converged, known and cost of each alternative, on the same cases."""
    rows = []
    for name, of in others.items():
        converged, known, published = counts(of)
        cost = np.median([end.cost for end in of])
        rows.append([name, f"{converged}/{len(of)}", f"{known}/{published}", f"{cost:.0f}"])
    return report.table(["method", "converged", "known", "median cost"], rows)


def least_squares_table(ends: list[list[End]], steps: Sequence[float]) -> str:
    """As the table of first steps, totals only."""
    costs, sure = sweep(ends)
    total, columns = costs[sure].sum(0), list(zip(*ends, strict=True))
    rows = [
        ["converged", *(f"{counts(of)[0]}/{len(of)}" for of in columns)],
        ["known", *(f"{counts(of)[1]}/{counts(of)[2]}" for of in columns)],
        ["median cost", *(f"{np.median(column):.0f}" for column in costs.T)],
        [f"total of the {sure.sum()} that always converge", *(f"{x:.0f}" for x in total)],
    ]
    return report.table(["h0", *(f"{h:g}" for h in steps)], rows)


def verdicts(
    every: list[Case], ends: dict[str, list[End]], swept: list[list[End]], steps: Sequence[float]
) -> list[str]:
    """The claims, computed."""
    ours, lines = counts(ends[OURS]), []
    for name in (SCIPY, OPTIMISTIX):
        theirs = counts(ends[name])
        lines.append(
            report.verdict(
                ours[0] >= theirs[0] and ours[1] >= theirs[1],
                f"the default is at least as robust as {name}",
                f"{ours[0]} against {theirs[0]} of {len(every)} converge, {ours[1]} against {theirs[1]} of "
                f"{ours[2]} end at a known minimum",
            )
        )
    for name in (SCIPY, OPTIMISTIX):
        pairs = [
            (a.cost, b.cost)
            for a, b in zip(ends[OURS], ends[name], strict=True)
            if a.converged and b.converged
        ]
        ratio = np.array([a / b for a, b in pairs])
        lines.append(
            report.verdict(
                bool(np.median(ratio) <= 1),
                f"it costs no more than {name}",
                f"{np.median(ratio):.1f} times as many gradients in the median of the {len(pairs)} cases on which both "
                f"converge, and fewer in {report.percent(float(np.mean(ratio < 1)))} of them",
            )
        )
    return [*lines, first_step_verdict("the default", swept, steps)]


def first_step_verdict(name: str, swept: list[list[End]], steps: Sequence[float]) -> str:
    """Whether the total cost varies by less than a factor of 2."""
    costs, sure = sweep(swept)
    total = costs[sure].sum(0)
    return report.verdict(
        bool(total.max() < 2 * total.min()),
        f"from h0 = {steps[0]:g} to {steps[-1]:g} the total cost of {name} varies by less than 2",
        f"{total.max() / total.min():.2f}, over the {sure.sum()} of {len(swept)} cases that always converge",
    )
