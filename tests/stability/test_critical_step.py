"""The largest stable step against closed forms, stability polynomials, and runs."""

import diffrax
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import scipy.optimize

import flowopt as fo
from flowopt.stability import growth_factor

matplotlib.use("Agg")
L = 4.0
QUADRATIC = fo.Problem(
    lambda x, args=None: 0.5 * jnp.sum(jnp.array([0.3, L]) * x**2), [jnp.zeros(2)]
)
POLY2 = fo.benchmarks.poly2()
EXPLICIT = [
    diffrax.Euler(),
    diffrax.Heun(),
    diffrax.Midpoint(),
    diffrax.Ralston(),
    diffrax.Bosh3(),
    diffrax.Tsit5(),
    diffrax.Dopri5(),
    diffrax.Dopri8(),
    fo.EulerRichardson(),
    fo.Extragradient(),
]
solver_name = lambda s: type(s).__name__


def of(flow, solver=None):
    return fo.Method(flow, fo.StaggeredEuler() if solver is None else solver, step=0.1)


B, G, EPS = 0.8, 0.7, 1e-8
CLOSED_FORMS = {
    # z = 1 - h L = -1.
    "gradient descent": (fo.gd, 2 / L),
    "any step of it": (fo.gd(123.0), 2 / L),
    # z^2 - (1 + b - h L) z + b = 0 has the root -1 at h L = 2 (1 + b).
    "momentum": (lambda lr: fo.momentum(lr, B), 2 * (1 + B) / L),
    # z^2 - (1 + b)(1 - h L) z + b (1 - h L) = 0 likewise at h L = 2 (1 + b)/(1 + 2 b).
    "Nesterov": (lambda lr: fo.nesterov(lr, B), 2 * (1 + B) / (1 + 2 * B) / L),
    # The same at fixed friction, b = 1 - g h, and h^2 for h: h^2 L = 2 (2 - g h).
    "heavy ball": (of(fo.flows.HeavyBall(G)), (np.sqrt(G**2 + 4 * L) - G) / L),
    # Symplectic Euler, the limit of the leapfrog: h sqrt(L) = 2.
    "no friction": (of(fo.flows.HeavyBall(0.0)), 2 / np.sqrt(L)),
    # |1 + h mu|^2 = 1 - g h + h^2 L.
    "heavy ball, Euler": (of(fo.flows.HeavyBall(G), diffrax.Euler()), G / L),
    # Order 3 on the imaginary axis: |R|^2 = 1 - y^4/12 + y^6/36.
    "no friction, order 3": (of(fo.flows.HeavyBall(0.0), diffrax.Bosh3()), np.sqrt(3 / L)),
    # Momentum with lr (1 - b1)/eps: Adam at rest, whose step must be as small as its eps.
    "Adam": (lambda lr: fo.adam(lr, B, 0.99, EPS), 2 * (1 + B) / (1 - B) * EPS / L),
    "RMSProp": (lambda lr: fo.rmsprop(lr, eps=1e-4), 2 * 1e-2 / L),
    "AdaGrad": (lambda lr: fo.adagrad(lr, 0.25, 0.0), 2 * 0.5 / L),
    "Newton": (fo.newton, 2.0),
    "damped Newton": (lambda h: fo.damped_newton(1.0, h), 2 * (L + 1) / L),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms(name):
    method, expected = CLOSED_FORMS[name]
    np.testing.assert_allclose(fo.critical_step(method, QUADRATIC, 0), expected, rtol=1e-9)


def test_every_explicit_runge_kutta_method_of_diffrax_is_among_them():
    found = [x for x in vars(diffrax).values() if isinstance(x, type)]
    found = {
        x for x in found if issubclass(x, diffrax.AbstractERK) and x is not diffrax.AbstractERK
    }
    assert found | {diffrax.Euler} <= set(map(type, EXPLICIT))


def polynomial(solver):
    """R(z) of an explicit Runge-Kutta method from its tableau: 1 + sum_k z^(k+1) b' A^k 1, as a numpy polynomial."""
    if isinstance(solver, diffrax.Euler):
        return np.polynomial.Polynomial([1.0, 1.0])
    b = np.asarray(solver.tableau.b_sol)
    A = np.zeros((len(b), len(b)))
    for i, row in enumerate(solver.tableau.a_lower):
        A[i + 1, : i + 1] = row
    ones = np.ones(len(b))
    powers = [b @ np.linalg.matrix_power(A, k) @ ones for k in range(len(b))]
    return np.polynomial.Polynomial([1.0, *powers])


@pytest.mark.parametrize("solver", EXPLICIT, ids=solver_name)
def test_the_root_on_the_boundary_of_the_stability_region(solver):
    """Of complex eigenvalues; of real ones the closed forms and the published ends tell."""
    mu = np.concatenate([np.roots([1, 0.4, c]) for c in (0.3, L)])
    R = polynomial(solver)
    outside = lambda h: np.max(np.abs(R(h * mu))) - 1
    steps = np.linspace(1e-3, 6, 6000)
    first = next(i for i, h in enumerate(steps) if outside(h) > 0)
    root = scipy.optimize.brentq(outside, steps[first - 1], steps[first], xtol=1e-15, rtol=1e-14)
    found = fo.critical_step(of(fo.flows.HeavyBall(0.4), solver), QUADRATIC, 0)
    np.testing.assert_allclose(found, root, rtol=1e-8)


def test_published_ends_of_the_real_interval():
    """Hairer and Wanner 1996, IV.2: 2, 2 and 2.51 for orders 1 to 3, 3.3 for Dormand and Prince's fifth."""
    ends = [
        L * fo.critical_step(of(fo.flows.Gradient(), s), QUADRATIC, 0)
        for s in (diffrax.Euler(), diffrax.Heun(), diffrax.Bosh3(), diffrax.Dopri5())
    ]
    np.testing.assert_allclose(ends, [2, 2, 2.5127453266, 3.3066], rtol=2e-5)


def test_no_bound_and_no_stable_step():
    saddle = next(p for p in POLY2.critical_points if p.nature == "saddle")
    step = lambda method, point: fo.critical_step(method, POLY2, point)
    for solver in (diffrax.ImplicitEuler(), fo.RosenbrockEuler("exact")):
        assert step(of(fo.flows.Gradient(), solver), 0) == np.inf
    assert step(fo.gd, saddle) == step(fo.momentum, saddle) == step(fo.adam, saddle) == 0
    assert step(of(fo.flows.Gradient(), diffrax.ImplicitEuler()), saddle) == 0
    assert step(fo.newton, saddle) == pytest.approx(2, rel=1e-9)
    # Without friction an order of 2 grows like h^4, from 0 on; two-step midpoint damps nothing.
    assert step(of(fo.flows.HeavyBall(0.0), diffrax.Heun()), 0) == 0
    assert step(of(fo.flows.Gradient(), diffrax.LeapfrogMidpoint()), 0) == 0


def test_the_controller_and_the_guard_play_no_part():
    largest = np.linalg.eigvalsh(POLY2.critical_points[0].hessian)[-1]
    for method in (fo.lyapunov(), fo.gd(0.1)):
        np.testing.assert_allclose(fo.critical_step(method, POLY2, 0), 2 / largest, rtol=1e-9)
    half = fo.critical_step(fo.extragradient(), POLY2, 0)
    # Extragradient: 1 - z + z^2 = 1 at z = 1, where an adaptive one hovers.
    np.testing.assert_allclose(half, 1 / largest, rtol=1e-9)


def test_a_zero_eigenvalue_does_not_count():
    problem = fo.Problem(lambda x, args=None: x[0] ** 4 + 0.5 * L * x[1] ** 2, [jnp.zeros(2)])
    np.testing.assert_allclose(fo.critical_step(fo.gd, problem, 0), 2 / L, rtol=1e-9)
    np.testing.assert_allclose(
        fo.critical_step(lambda lr: fo.momentum(lr, B), problem, 0), 2 * (1 + B) / L, rtol=1e-9
    )


@pytest.mark.parametrize("make", [fo.gd, fo.momentum, fo.nesterov], ids=lambda f: f.__name__)
def test_runs_stay_below_it_and_leave_above(make):
    """On poly2 itself: from a thousandth away, 1% below it converges and 1% above does not stay."""
    point = POLY2.critical_points[0]
    h = fo.critical_step(make, POLY2, point)
    start = tuple(jnp.asarray(x + 1e-5) for x in point.params)

    def distance(lr):
        end = fo.minimise(POLY2.loss, start, make(lr), tol=1e-30, max_steps=2000).params
        return np.hypot(*(np.array(end) - np.array(point.params)))

    assert distance(0.99 * h) < 1e-8
    assert not distance(1.01 * h) < 1e-2


def test_growth_factors_of_implicit_and_two_step_solvers():
    z = np.array([-1.0, -0.4 + 1.3j, 0.2 - 0.5j, 1.0, 1j])
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(
            growth_factor(diffrax.ImplicitEuler(), z)[[0, 1, 2, 4]],
            (1 / np.abs(1 - z))[[0, 1, 2, 4]],
            rtol=1e-12,
        )
    assert growth_factor(diffrax.ImplicitEuler(), 1.0) > 1e12  # its pole
    two_step = [np.max(np.abs(np.roots([1, -2 * x, -1]))) for x in z]
    np.testing.assert_allclose(growth_factor(diffrax.LeapfrogMidpoint(), z), two_step, rtol=1e-7)
    assert growth_factor(diffrax.Tsit5(), np.zeros((2, 3))).shape == (2, 3)
    for solver in (diffrax.Dopri8(), diffrax.Midpoint()):
        expected = np.abs(polynomial(solver)(z))
        np.testing.assert_allclose(growth_factor(solver, z), expected, rtol=1e-10)


def test_the_figure_holds_the_boundary_of_the_region():
    ax = fo.plot_stability_region(diffrax.Bosh3(), resolution=121)
    fo.plot_stability_region(diffrax.Euler(), ax, resolution=121, label="GD")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["Bosh3", "GD"]
    assert ax.get_xlabel().startswith("Re z") and ax.get_ylabel() == "Im z [1]"
    low, high = ax.get_xlim()
    assert -3.2 < low < -2.55 and 0.1 < high < 1.0  # closed in on
    # The line drawn for Euler is the circle |1 + z| = 1.
    lines = [c for c in ax.collections if c.get_facecolor().size == 0]
    circle = np.concatenate([path.vertices for path in lines[-1].get_paths()])
    np.testing.assert_allclose(np.hypot(circle[:, 0] + 1, circle[:, 1]), 1, atol=5e-3)


def test_arguments():
    with pytest.raises(TypeError, match=r"`method` must be a flowopt\.Method, or a function"):
        fo.critical_step(0.1, QUADRATIC, 0)
    with pytest.raises(TypeError, match=r"`method` must make a flowopt\.Method of a number"):
        fo.critical_step(lambda lr: lr, QUADRATIC, 0)
    with pytest.raises(ValueError, match="`method` makes a method whose controller changes"):
        fo.critical_step(lambda lr: fo.lyapunov(step=lr), QUADRATIC, 0)
    with pytest.raises(ValueError, match="`method`: the velocity of Sign has no derivative"):
        fo.critical_step(fo.sign_gd, QUADRATIC, 0)
    with pytest.raises(ValueError, match="`point`: problem has 1 critical points"):
        fo.critical_step(fo.gd, QUADRATIC, 1)
    with pytest.raises(TypeError, match="`solver` must be a diffrax solver"):
        fo.plot_stability_region("Euler")
    with pytest.raises(ValueError, match="`solver`: a guard judges steps and makes none"):
        fo.plot_stability_region(fo.EnergyGuard(diffrax.Heun()))
    with pytest.raises(ValueError, match="`solver`"):
        fo.plot_stability_region(diffrax.SemiImplicitEuler())
    with pytest.raises(ValueError, match="`region`"):
        fo.plot_stability_region(diffrax.Euler(), region=((1, 0), (0, 1)))
    with pytest.raises(ValueError, match="`resolution`"):
        fo.plot_stability_region(diffrax.Euler(), resolution=1)


def test_single_precision():
    with jax.enable_x64(False):
        np.testing.assert_allclose(fo.critical_step(fo.gd, QUADRATIC, 0), 2 / L, rtol=1e-2)
