"""The named methods: what they are made of, what they print, and what they refuse."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flowopt as fo

CONSTRUCTORS = {
    "gd": lambda: fo.gd(0.01),
    "momentum": lambda: fo.momentum(0.01),
    "nesterov": lambda: fo.nesterov(0.01),
    "fading_nesterov": lambda: fo.fading_nesterov(0.01),
    "inna": lambda: fo.inna(0.05),
    "adagrad": lambda: fo.adagrad(0.3),
    "rmsprop": lambda: fo.rmsprop(0.001),
    "adam": lambda: fo.adam(0.01),
    "adamw": lambda: fo.adamw(0.01),
    "nadam": lambda: fo.nadam(0.01),
    "adamax": lambda: fo.adamax(0.01),
    "adabelief": lambda: fo.adabelief(0.01),
    "amsgrad": lambda: fo.amsgrad(0.01),
    "lion": lambda: fo.lion(0.001),
    "sign_gd": lambda: fo.sign_gd(0.001),
    "newton": fo.newton,
    "damped_newton": lambda: fo.damped_newton(1.0),
    "gauss_newton": fo.gauss_newton,
    "levenberg_marquardt": fo.levenberg_marquardt,
    "proximal_point": lambda: fo.proximal_point(1.0),
    "euler_richardson": fo.euler_richardson,
    "extragradient": fo.extragradient,
    "lyapunov": fo.lyapunov,
}


def bowl(x, args):
    return jnp.array([1.0, 2.0], x.dtype) * (x - 1) + 0.1 * (x - 1) ** 3


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_prints_its_equation_its_solver_and_its_controller(name):
    method = CONSTRUCTORS[name]()
    text = str(method)
    for part in (method.flow, method.solver, method.controller):
        assert type(part).__name__ in text
    assert "theta' =" in text
    assert "h = " in text
    assert "object at" not in text and "term_compatible" not in text


def test_prints_flows_on_flows():
    text = str(fo.rmsprop(optax.constant_schedule(0.1), momentum=0.9))
    for equation in ("v' = -gamma v + f", "theta' = rate(n) f", "s' = (g^2 - s)/tau"):
        assert equation in text


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_goes_down_and_stays_in_float32(name):
    dtype = jnp.float32
    start = jnp.asarray([0.2, 1.9], dtype)
    method = CONSTRUCTORS[name]()
    if name == "proximal_point":
        method = fo.proximal_point(1.0, rtol=1e-5, atol=1e-5)
    sol = fo.least_squares(bowl, start, method, tol=1e-5, max_steps=100)
    assert sol.params.dtype == dtype
    assert sol.outcome != "diverged"
    before = 0.5 * np.sum(np.asarray(bowl(start, None)) ** 2)
    assert float(sol.value) < before


def test_proximal_point_minimises_its_model():
    # theta1 = argmin R + |theta - theta0|^2/(2 lr): its gradient vanishes there.
    fn = lambda x, _: jnp.sum((x**2 - 1) ** 2) + x[0] * x[1]
    start, lr = jnp.array([0.9, -1.2]), 0.3
    sol = fo.minimise(fn, start, fo.proximal_point(lr), tol=1e-12, max_steps=1)
    slope = jax.grad(fn)(sol.params, None) + (sol.params - start) / lr
    np.testing.assert_allclose(slope, 0, atol=1e-9)
    end = fo.minimise(fn, start, fo.proximal_point(1e4), tol=1e-8)
    assert end.outcome == "converged"


def test_newton_is_newtons_method():
    fn = lambda x, _: jnp.sum(jnp.cosh(x)) + 0.1 * x[0] * x[1]
    x = jnp.array([0.5, -0.3])
    for scale in (1.0, 0.5):
        sol = fo.minimise(fn, x, fo.newton(scale), tol=1e-14, max_steps=1)
        step = np.linalg.solve(jax.hessian(fn)(x, None), jax.grad(fn)(x, None))
        np.testing.assert_allclose(sol.params, x - scale * step, rtol=1e-12)
        assert int(sol.stats["hessian_evals"]) == 2
    damped = fo.minimise(fn, x, fo.damped_newton(2.0), tol=1e-14, max_steps=1)
    shifted = jax.hessian(fn)(x, None) + 2 * jnp.eye(2)
    np.testing.assert_allclose(
        damped.params, x - np.linalg.solve(shifted, jax.grad(fn)(x, None)), rtol=1e-12
    )


def test_semi_implicit_euler_is_staggered_euler():
    fn = lambda x, _: jnp.sum(x**4)
    flow = fo.flows.HeavyBall(0.0)
    ends = [
        fo.minimise(
            fn, jnp.ones(2), fo.Method(flow, solver, step=0.1), tol=1e-12, max_steps=20
        ).params
        for solver in (diffrax.SemiImplicitEuler(), fo.StaggeredEuler())
    ]
    np.testing.assert_array_equal(*ends)
    # And what Diffrax makes of the separable system itself.
    terms = (
        diffrax.ODETerm(lambda t, x, args: -4 * x**3),
        diffrax.ODETerm(lambda t, v, args: v),
    )
    out = diffrax.diffeqsolve(
        terms, diffrax.SemiImplicitEuler(), 0.0, 2.0, 0.1, (jnp.zeros(2), jnp.ones(2)), max_steps=21
    )
    np.testing.assert_allclose(ends[0], out.ys[1][-1], rtol=1e-12)


def test_leapfrog_midpoint_spans_two_steps():
    # y2 = y0 + 2h f(y1): on a local clock the earlier point has to be told apart.
    fn = lambda x, _: 0.5 * jnp.sum(x**2)
    method = fo.Method(fo.flows.Gradient(), diffrax.LeapfrogMidpoint(), step=0.1)
    sol = fo.minimise(fn, jnp.ones(1), method, tol=1e-12, max_steps=3)
    y = [1.0, 0.9]
    for _ in range(2):
        y.append(y[-2] - 0.2 * y[-1])
    np.testing.assert_allclose(sol.params, y[-1], rtol=1e-14)


BAD = {
    "`beta` must lie in [0, 1)": lambda: fo.momentum(0.1, 1.0),
    "`beta` must lie in [0, 1); got -0.1": lambda: fo.nesterov(0.1, -0.1),
    "`b1` must lie in [0, 1)": lambda: fo.adam(0.1, 1.5),
    "`b2` must lie in [0, 1)": lambda: fo.adamw(0.1, 0.9, 1.0),
    "`b2` must lie in (0, 1)": lambda: fo.lion(0.1, 0.9, 0.0),
    "`decay` must lie in [0, 1)": lambda: fo.rmsprop(0.1, 1.0),
    "`momentum` must lie in [0, 1)": lambda: fo.rmsprop(0.1, momentum=2.0),
    "`nesterov` needs a `momentum`": lambda: fo.rmsprop(0.1, nesterov=True),
    "`eps` must be > 0; got -1e-08": lambda: fo.adam(0.1, eps=-1e-8),
    "`eps` must be > 0; got -1": lambda: fo.adamax(0.1, eps=-1.0),
    "`eps_root` must be >= 0": lambda: fo.adagrad(0.1, eps=-1e-7),
    "`eps` must be >= 0; got -1": lambda: fo.flows.RMSProp(1.0, -1.0),
    "`eps_root` must be >= 0; got -1": lambda: fo.nadam(0.1, eps_root=-1.0),
    "`floor` must be >= 0": lambda: fo.adabelief(0.1, eps_root=-1.0),
    "`weight_decay` must be >= 0": lambda: fo.lion(0.1, weight_decay=-1.0),
    "`p` must be > 1; got 1": lambda: fo.flows.PGradient(1.0),
    "`limit` must be > 0": lambda: fo.flows.Clipped(0.0),
    "`r` must be > 0": lambda: fo.fading_nesterov(0.1, 0.0),
    "`friction` must be >= 0": lambda: fo.flows.Nesterov(-1.0),
    "`alpha` must be >= 0": lambda: fo.inna(0.1, -1.0),
    "`mu` must be > 0": lambda: fo.damped_newton(0.0),
    "`lr` must be finite and > 0": lambda: fo.amsgrad(0.0),
    "`lr` must be finite and > 0; got -1": lambda: fo.proximal_point(-1.0),
    "`step` must be finite and > 0": lambda: fo.newton(0.0),
    "`lookahead` must be <= tau1": lambda: fo.flows.NAdam(1.0, 1.0, 2.0),
    "`solver`: KenCarp4 is for an ODE split": lambda: fo.Method(
        fo.flows.Gradient(), diffrax.KenCarp4(), step=1.0
    ),
    "`solver`: SemiImplicitEuler steps two parts": lambda: fo.Method(
        fo.flows.Gradient(), diffrax.SemiImplicitEuler(), step=1.0
    ),
    "`controller`: StepTo goes by the time": lambda: fo.Method(
        fo.flows.Gradient(), diffrax.Euler(), diffrax.StepTo(ts=jnp.array([0.0, 1.0])), step=1.0
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_wrong_arguments_name_themselves(message):
    with pytest.raises(ValueError) as error:
        BAD[message]()
    assert message in str(error.value)


def test_wrong_types_name_themselves():
    for make, message in (
        (lambda: fo.flows.Momentum(3, 1.0), "`flow` must be a flowopt.AbstractFlow"),
        (lambda: fo.flows.Scheduled(fo.flows.Gradient(), 0.1), "`rate` must be a function"),
        (lambda: fo.adam("fast"), "`lr` must be a number > 0"),
    ):
        with pytest.raises(TypeError, match=message):
            make()
