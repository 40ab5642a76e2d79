"""Eigenvalues and multipliers against closed forms, verdicts against the exact natures of critical points."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowopt as fo

POLY2, POLY5 = fo.benchmarks.poly2(), fo.benchmarks.poly5()
CURVATURES = np.array([0.7, 4.0, -1.5])
ORIGIN = [jnp.zeros(3)]
SADDLE = fo.Problem(lambda x, args=None: 0.5 * jnp.sum(jnp.array(CURVATURES) * x**2), ORIGIN)
EPS = 1e-8


def roots(*coefficients):
    """The roots of several polynomials, all in one array, by their coefficients (arrays or numbers)."""
    return np.concatenate(
        [np.roots(c) for c in np.transpose(np.broadcast_arrays(*coefficients))]
    ).astype(complex)


def same(measured, expected, rtol=1e-9):
    """Whether two lists of complex numbers agree in any order, relative to the largest."""
    measured, expected = np.array(measured), np.array(expected, complex)
    assert len(measured) == len(expected)
    for x in expected:
        i = np.argmin(np.abs(measured - x))
        assert abs(measured[i] - x) <= rtol * max(1, abs(x)), (x, measured)
        measured = np.delete(measured, i)


def adam_flow(c, tau1, tau2):
    return [*roots(np.ones(3), 1 / tau1, c / (tau1 * EPS)), *[-1 / tau2] * 3]


C, H = CURVATURES, 0.05
FLOWS = {
    "gradient": (fo.flows.Gradient(), -C),
    "heavy ball": (fo.flows.HeavyBall(0.8), roots(np.ones(3), 0.8, C)),
    "Nesterov": (
        fo.flows.Nesterov(0.8, 0.3),
        roots(np.ones(3), 0.8 + 0.3 * C, C),
    ),
    "Hessian damping": (fo.flows.HessianDamping(0.5, 0.1), roots(np.ones(3), 0.5 + 0.1 * C, C)),
    "Adam": (fo.flows.Adam(2.0, 5.0, EPS), [*adam_flow(C, 2.0, 5.0), -1 / 2.0, -1 / 5.0]),
    "uncorrected Adam": (fo.flows.UncorrectedAdam(2.0, 5.0, EPS), adam_flow(C, 2.0, 5.0)),
    # The largest so far does not act back at first order, and has a kink: it is left out.
    "AMSGrad": (
        fo.flows.AMSGrad(2.0, 5.0, 0.1, EPS),
        [*adam_flow(C, 2.0, 5.0), -1 / 2.0, -1 / 5.0],
    ),
    "AdaBelief": (
        fo.flows.AdaBelief(2.0, 5.0, 1e-30, EPS**2),
        [*adam_flow(C, 2.0, 5.0), -1 / 2.0, -1 / 5.0],
    ),
    "RMSProp": (fo.flows.RMSProp(2.0, 0.0, 0.09), [*(-C / 0.3), *[-1 / 2.0] * 3]),
    "AdaGrad": (fo.flows.AdaGrad(2.0, 0.0, 0.0, 0.25), [*(-C / 0.5), 0, 0, 0]),
    "Newton": (fo.flows.Newton(), [-1, -1, -1]),
    "damped Newton": (fo.flows.DampedNewton(2.0), -C / (C + 2.0)),
    "clipped": (fo.flows.Clipped(0.1), -C),
}


@pytest.mark.parametrize("name", FLOWS)
def test_eigenvalues_of_every_flow(name):
    flow, expected = FLOWS[name]
    ds = fo.spectrum(fo.Method(flow, diffrax.Euler(), step=H), SADDLE, 0)
    same(ds.eigenvalue.values, expected)
    same(ds.multiplier.values, 1 + H * np.array(expected), 1e-8)
    assert np.all(np.diff(np.real(ds.eigenvalue.values)) <= 0)
    newton = name == "Newton"  # attracted by every critical point
    assert ds.nature == "saddle" and ds.stability == ("stable" if newton else "unstable")
    assert ds.decided_by == "eigenvalues" and ds.eigenvalue.units == "1/time"


STEPS = {
    "gd": (fo.gd(0.2), 1 - 0.2 * C),
    "momentum": (fo.momentum(0.04, 0.9), roots(np.ones(3), -(1 + 0.9 - 0.04 * C), 0.9)),
    "nesterov": (
        fo.nesterov(0.04, 0.9),
        roots(np.ones(3), -(1 + 0.9) * (1 - 0.04 * C), 0.9 * (1 - 0.04 * C)),
    ),
    "adam": (
        fo.adam(1e-8, 0.9, 0.99, EPS),
        [*roots(np.ones(3), -(1.9 - 0.1 * C), 0.9), *[0.99] * 3, 0.9, 0.99],
    ),
    "proximal point": (fo.proximal_point(0.3), 1 / (1 + 0.3 * C)),
    # Two steps: y2 = y0 - 2 h C y1; its clock is no part of it.
    "leapfrog midpoint": (
        fo.Method(fo.flows.Gradient(), diffrax.LeapfrogMidpoint(), step=0.1),
        [*roots(np.ones(3), 0.2 * C, -1), 0],
    ),
    "Heun": (
        fo.Method(fo.flows.Gradient(), diffrax.Heun(), step=0.1),
        1 - 0.1 * C + 0.005 * C**2,
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_multipliers_of_a_step(name):
    method, expected = STEPS[name]
    ds = fo.spectrum(method, SADDLE, 0)
    same(ds.multiplier.values, expected, 1e-8)
    assert ds.step_stability == "unstable"
    assert np.all(np.diff(np.abs(ds.multiplier.values)) <= 1e-12)


def test_runs_grow_and_shrink_by_the_multipliers():
    """Momentum on poly2 itself, near a saddle: the distance grows by |z| a step."""
    method = fo.momentum(0.01, 0.5)
    index = next(i for i, p in enumerate(POLY2.critical_points) if p.nature == "saddle")
    point = POLY2.critical_points[index]
    z = np.abs(fo.spectrum(method, POLY2, index).multiplier.values[0])

    def distance(steps):
        start = tuple(jnp.asarray(x + 1e-9) for x in point.params)
        end = fo.minimise(POLY2.loss, start, method, tol=1e-30, max_steps=steps).params
        return np.hypot(*(np.array(end) - np.array(point.params)))

    assert z > 1.01
    np.testing.assert_allclose((distance(90) / distance(60)) ** (1 / 30), z, rtol=1e-4)


@pytest.mark.parametrize("problem", [POLY2, POLY5], ids=lambda p: p.name)
@pytest.mark.parametrize(
    "flow",
    [
        fo.flows.Gradient(),
        fo.flows.HeavyBall(1.0),
        fo.flows.Adam(0.1, 1.0),
        fo.flows.AdaGrad(0.1),
        fo.flows.Sign(),
    ],
    ids=lambda f: type(f).__name__,
)
def test_minima_are_stable_and_all_else_is_not(problem, flow):
    """Also where the Hessian is singular, by the energy; a flat point is left on one side."""
    method = fo.Method(flow, diffrax.Euler(), step=1e-3)
    for point in problem.critical_points:
        ds = fo.spectrum(method, problem, point)
        assert ds.stability == ("stable" if point.nature == "minimum" else "unstable")
        regular = point.multiplicity == (1, 1)
        if isinstance(flow, fo.flows.Gradient | fo.flows.HeavyBall | fo.flows.Adam) and regular:
            assert ds.decided_by == "eigenvalues"
        if isinstance(flow, fo.flows.Sign):
            assert ds.decided_by == "energy" and np.isnan(ds.eigenvalue.values).all()
            assert np.isnan(ds.multiplier.values).all() and ds.step_stability == "undecided"


def test_what_the_energy_cannot_decide_is_undecided():
    find = lambda problem, *wanted: next(
        p for p in problem.critical_points if (p.nature, p.multiplicity) == wanted
    )
    flat, least = find(POLY5, "flat", (2, 2)), find(POLY5, "minimum", (3, 3))
    verdict = lambda flow, point: fo.spectrum(
        fo.Method(flow, diffrax.Euler(), step=1e-3), POLY5, point
    )
    # Without friction nothing is lost: a minimum is stable all the same, of the rest the energy says nothing.
    assert verdict(fo.flows.HeavyBall(0.0), least).stability == "stable"
    assert verdict(fo.flows.HeavyBall(0.0), flat).stability == "undecided"
    assert verdict(fo.flows.HeavyBall(0.1), flat).stability == "unstable"
    # No energy known; an energy that is not made of R; a flow that is not defined at a singular Hessian.
    for flow in (fo.flows.NAdam(0.1, 1.0, 0.01), fo.flows.Newton()):
        assert verdict(flow, least).stability == "undecided"
        assert verdict(flow, flat).decided_by == "nothing"

    # The sign of V' is looked at, not taken on trust.
    class Uphill(fo.AbstractFlow):
        def params_field(self, params, memory, at):
            return at.grad

        def energy(self, params, memory, at):
            return at.value

    assert verdict(Uphill(), least).stability == verdict(Uphill(), flat).stability == "undecided"


def test_a_method_that_chooses_its_steps_has_a_flow_alone():
    ds = fo.spectrum(fo.lyapunov(), POLY2, 0)
    assert "multiplier" not in ds and ds.step_stability == "not a constant step"
    assert ds.stability == "stable" and ds.problem == "poly2" and "flowopt version" in ds.attrs


def test_sums_of_squares():
    """Gauss-Newton at a residual that stays: theta' = -J^+ r, whose Jacobian is -(J'J)^-1 H."""

    def residuals(x, args):
        return jnp.stack([x[0], x[1] ** 2 + 1.0, 2 * x[1]])

    problem = fo.Problem(fo.SumOfSquares(residuals), [jnp.zeros(2)])
    same(fo.spectrum(fo.gauss_newton(), problem, 0).eigenvalue.values, [-1, -6 / 4])
    with pytest.raises(TypeError, match="`method`: it needs residuals"):
        fo.spectrum(fo.gauss_newton(), POLY2, 0)


def test_single_precision():
    with jax.enable_x64(False):
        ds = fo.spectrum(fo.momentum(0.04, 0.9), POLY2, 0)
        assert ds.stability == ds.step_stability == "stable"
        np.testing.assert_allclose(np.real(ds.eigenvalue.values), -0.25, rtol=1e-5)


def test_arguments():
    with pytest.raises(TypeError, match=r"`method` must be a flowopt\.Method"):
        fo.spectrum(fo.flows.Gradient(), POLY2, 0)
    with pytest.raises(TypeError, match="`problem`"):
        fo.spectrum(fo.gd(0.1), POLY2.loss, 0)
    with pytest.raises(TypeError, match=r"`point` must be a flowopt\.CriticalPoint"):
        fo.spectrum(fo.gd(0.1), POLY2, (0.0, 1.0))
    with pytest.raises(ValueError, match="`point`: poly2 has 9 critical points, from 0; got 9"):
        fo.spectrum(fo.gd(0.1), POLY2, 9)
    for method, what in (
        (fo.adamw(0.1), "params"),
        (fo.fading_nesterov(0.1), "memory"),
        (fo.gd(lambda n: 0.1 / (1 + n)), "memory"),
    ):
        with pytest.raises(ValueError, match=f"(?s)does not rest at `point`.* its {what} on"):
            fo.spectrum(method, POLY2, 0)
