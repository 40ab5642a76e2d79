"""Is a critical point stable under a method? Eigenvalues of its flow, multipliers of its step, and its energy."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Bool, Complex

from flowopt.benchmarks import CriticalPoint, Problem
from flowopt.flows.flow import AbstractFlow, State
from flowopt.methods import Method
from flowopt.objective import Objective
from flowopt.run.store import versions
from flowopt.stability import linearise
from flowopt.stability.energy_verdict import stable_by_energy
from flowopt.stability.labels import check_problem
from flowopt.tree import ravel


def spectrum(method: Method, problem: Problem, point: CriticalPoint | int) -> xr.Dataset:
    """The spectrum of `method` at a critical point of `problem`, its memory at rest, and whether the point is stable.

        y' = F(y),  y = (params, memory),  F(y*) = 0:   eigenvalues mu of dF/dy(y*);
        y_{n+1} = G(y_n), one step:                     multipliers z of dG/dy(y*).

    - `point`: a `CriticalPoint` of the problem, or its index in `problem.critical_points`.

    Returns a dataset with `eigenvalue` over `mode` [1/time], the largest real part first; for a constant step
    `multiplier` over `step_mode` [1], the largest first; and as attributes:

    - `stability` of the flow: "stable", "unstable" or "undecided", and `decided_by`: "eigenvalues" (one with a
      real part > 0: unstable; all < 0: stable, and attracting) or "energy", where real parts are 0: the nature of the
      point, known exactly, and the signs of V and V' (see `energy_verdict`). A flat point that is no extremum counts as
      unstable: runs that come from one side rest there, those on the other side leave. Minima must be strict.
    - `step_stability` of the step: by the multipliers alone; "undecided" where one lies on the unit circle. With a
      controller that changes the step there is no one map: "not a constant step", and no `multiplier`.

    A real part counts as 0 below sqrt(machine eps) times the largest |mu|. Multipliers go with the eigenvalues: as
    many as these are 0 are 1 for every step, and left out of the judgement. What a flow remembers
    without effect at first order (AMSGrad's largest, AdaMax's) may have a kink; it follows the others, and its
    eigenvalue is left out. A flow whose velocity has no derivative at rest (sign, normalised, Lion, p-gradient for
    p > 2) has no eigenvalues there: NaN. Adam's has: with s = 0 it moves by m/eps, however steep sqrt(s) is
    (m/(sqrt(s) + eps) differs from m/eps by at most |m| sqrt(s)/eps^2, of order 3/2); but that is so only where
    |grad R| is far below eps.

    Dense: for up to some thousand entries of params and memory, in JAX's default precision (enable x64 for studies).

    Raises TypeError or ValueError, naming the argument; ValueError where the flow does not rest at the
    point, because a clock, a schedule or weight decay drives it on.   [Lyapunov 1892; Hirsch and Smale 1974]
    """
    if not isinstance(method, Method):
        raise TypeError(
            f"`method` must be a flowopt.Method, such as flowopt.gd(0.1); got {method!r}"
        )
    check_problem(problem)
    point = find_point(problem, point)
    fn, params = linearise.objective(problem, point, method)
    y = linearise.at_rest(method.flow, fn, params)
    A, smooth = smooth_part(method.flow, fn, y)
    mu = eigenvalues(A, smooth)
    stability, decided_by = _decide(mu, A, smooth), "eigenvalues"
    if stability == "undecided":
        scale = float(np.max(np.abs(mu), initial=0)) if np.isfinite(mu).all() else 0.0
        stability = stable_by_energy(method.flow, problem, point, y, scale)
        decided_by = "nothing" if stability == "undecided" else "energy"
    data = {"eigenvalue": ("mode", mu[np.argsort(-np.real(mu))], {"units": "1/time"})}
    step_stability = "not a constant step"
    if isinstance(method.controller, diffrax.ConstantStepSize):
        try:
            M = np.asarray(linearise.step_jacobian(method, fn, y, jnp.asarray(method.step)))
        except (
            eqx.EquinoxRuntimeError
        ):  # no such step: Newton's at a singular Hessian, an implicit one at a pole
            M = np.full_like(A, np.nan)
        z = multipliers(M, smooth)
        z = z[np.argsort(-np.abs(z))]
        data["multiplier"] = ("step_mode", z, {"units": "1"})
        step_stability = _decide_step(z, neutral(mu))
    return xr.Dataset(
        data,
        attrs={
            "problem": problem.name,
            "method": repr(method),
            "point_params": np.asarray(ravel(params)).tolist(),
            "point_value": float(point.value),
            "nature": point.nature,
            "stability": stability,
            "decided_by": decided_by,
            "step_stability": step_stability,
            **versions(),
        },
    )


def find_point(problem: Problem, point: CriticalPoint | int) -> CriticalPoint:
    """`point`, or the critical point of that index; raises, naming the argument."""
    if isinstance(point, CriticalPoint):
        return point
    if isinstance(point, bool) or not isinstance(point, int | np.integer):
        raise TypeError(
            "`point` must be a flowopt.CriticalPoint, or the index of one in `problem.critical_points`; "
            f"got {point!r}"
        )
    n = len(problem.critical_points)
    if not 0 <= point < n:
        raise ValueError(f"`point`: {problem.name} has {n} critical points, from 0; got {point}")
    return problem.critical_points[point]


def smooth_part(
    flow: AbstractFlow, fn: Objective, y: State
) -> tuple[np.ndarray, Bool[np.ndarray, " n"]]:
    """The Jacobian of the flow, and which entries take part in its spectrum.

    Those with a kink do not, if no other entry reads them at first order; if one does, none takes part.
    """
    A = linearise.flow_jacobian(flow, fn, y)
    if not np.isfinite(A).all():
        return A, np.zeros(len(A), bool)
    smooth = ~linearise.kinks(flow, fn, y)
    if np.any(A[np.ix_(smooth, ~smooth)] != 0) or not np.all(smooth[: ravel(y.params).size]):
        smooth[:] = False
    return A, smooth


def eigenvalues(A: np.ndarray, smooth: Bool[np.ndarray, " n"]) -> Complex[np.ndarray, " m"]:
    """Those of the smooth part; NaN where there is none."""
    if not smooth.any():
        return np.full(len(A), np.nan, complex)
    return np.linalg.eigvals(A[np.ix_(smooth, smooth)]).astype(complex)


def multipliers(M: np.ndarray, smooth: Bool[np.ndarray, " n"]) -> Complex[np.ndarray, " m"]:
    """Those of a step whose state is that of the flow, and then what the solver remembers."""
    if not smooth.any() or not np.isfinite(M).all():
        return np.full(len(M), np.nan, complex)
    kept = np.append(smooth, np.full(len(M) - len(smooth), True))
    return np.linalg.eigvals(M[np.ix_(kept, kept)]).astype(complex)


def neutral(mu: Complex[np.ndarray, " n"]) -> int:
    """How many eigenvalues are 0."""
    return int(np.sum(np.abs(mu) <= _zero(mu)))


def growth(z: Complex[np.ndarray, " n"], zeros: int) -> float:
    """The largest |z| - 1 but for the `zeros` multipliers nearest 1; infinite where they are not numbers."""
    if not np.isfinite(z).all():
        return float("inf")
    z = z[np.argsort(np.abs(z - 1))[zeros:]]
    return float(np.max(np.abs(z), initial=0) - 1)


def _zero(mu: np.ndarray) -> float:
    eps = np.finfo(jnp.result_type(float)).eps
    return float(np.sqrt(eps) * np.max(np.abs(mu), initial=0))


def _decide(mu: np.ndarray, A: np.ndarray, smooth: np.ndarray) -> str:
    if not np.isfinite(mu).all():
        return "undecided"
    if np.any(np.real(mu) > _zero(mu)):
        return "unstable"
    follows = np.diagonal(A)[~smooth] < 0
    return "stable" if np.all(np.real(mu) < -_zero(mu)) and np.all(follows) else "undecided"


def _decide_step(z: np.ndarray, zeros: int) -> str:
    if not np.isfinite(z).all():
        return "undecided"
    slack = np.sqrt(np.finfo(jnp.result_type(float)).eps)
    grows = growth(z, zeros)
    if abs(grows) <= slack or (zeros and grows < 0):
        return "undecided"
    return "unstable" if grows > 0 else "stable"
