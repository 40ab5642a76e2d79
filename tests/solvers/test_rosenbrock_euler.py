"""Rosenbrock-Euler is Levenberg-Marquardt, costs what it should, and knows when not to be trusted."""

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import flowopt as fo
from flowopt.benchmarks.more_garbow_hillstrom import residual_problems
from flowopt.objective import At, Evaluations
from flowopt.run.step import make_stepper

F = fo.flows


def network(params, args):
    """256 residuals of a tanh network with 49 params."""
    x = jnp.linspace(-2, 2, 256, dtype=params.dtype)
    w, b, v = jnp.split(params[:48], 3)
    return jnp.tanh(x[:, None] * w + b) @ v + params[48] - jnp.sin(3 * x)


START = 0.5 * jnp.asarray(np.random.default_rng(0).normal(size=49))


def stepper_of(method, residuals, start):
    return make_stepper(fo.SumOfSquares(residuals), start, method, None, 1e-300, None, None)


def advance(stepper):
    return lambda state: stepper.advance(state, (Evaluations(), Evaluations()))


@pytest.mark.parametrize("problem", residual_problems()[:4], ids=lambda p: p.name)
def test_both_ways_of_levenberg_marquardt_agree_step_by_step(problem):
    @jax.jit
    def both(x, mu):
        one = fo.Method(F.LevenbergMarquardt(mu), diffrax.Euler(), step=1.0)
        other = fo.Method(F.Gradient(), fo.RosenbrockEuler(), step=1 / mu)
        starts = [stepper_of(method, problem.residuals, x) for method in (one, other)]
        return [advance(s)(s.start(x)).params for s in starts]

    x = jnp.asarray(problem.start)
    r, J = problem.residuals(x, None), jax.jacobian(problem.residuals)(x, None)
    for mu in (1e-6, 1e-2, 1.0, 100.0):
        a, b = both(x, jnp.asarray(mu))
        # And with the step computed by numpy, from (J; sqrt(mu) I) d = (-r; 0).
        stack = np.concatenate([J, np.sqrt(mu) * np.eye(x.size)])
        d = np.linalg.lstsq(stack, np.concatenate([-r, np.zeros(x.size)]), rcond=None)[0]
        size = np.linalg.norm(d)
        assert np.linalg.norm(a - b) <= 1e-12 * size
        assert np.linalg.norm(a - x - d) <= 1e-9 * size


def flops(fn, *args):
    return jax.jit(lambda *a: fn(*a)).lower(*args).compile().cost_analysis()["flops"]


def test_a_step_costs_one_jacobian_and_one_solve():
    stepper = stepper_of(fo.levenberg_marquardt(), network, START)
    state = stepper.start(START)
    step = flops(advance(stepper), state)

    def reference(x, r, damping):
        d = fo_solve(jax.jacfwd(network)(x, None), r, damping)
        return x + d

    def fo_solve(J, r, damping):
        stack = jnp.concatenate([J, jnp.diag(damping)])
        right = jnp.concatenate([-r, jnp.zeros_like(damping)])
        return lx.linear_solve(lx.MatrixLinearOperator(stack), right, lx.QR()).value

    bare = flops(reference, START, network(START, None), jnp.ones_like(START))
    # Both count XLA's own operations; LAPACK's, the same QR on both sides, are in neither.
    assert step <= 1.2 * bare


@pytest.mark.parametrize("method", [fo.levenberg_marquardt(), fo.gauss_newton()])
def test_no_hessian_is_formed(method):
    # A Hessian would differentiate the residuals twice: tanh of something that is itself a tanh's derivative.
    # Here residuals may be differentiated once only.
    @jax.custom_jvp
    def once(x):
        return jnp.tanh(x)

    @jax.custom_jvp
    def slope(x):
        return 1 - jnp.tanh(x) ** 2

    @slope.defjvp
    def _(primals, tangents):
        raise AssertionError("differentiated twice")

    once.defjvp(lambda p, t: (once(*p), slope(*p) * t[0]))
    residuals = lambda x, _: jnp.concatenate([once(x) - 0.3, 0.1 * x])
    sol = fo.least_squares(residuals, jnp.ones(3), method, tol=1e-8, max_steps=50)
    assert sol.outcome == "converged"
    # The same residuals do notice a Hessian.
    with pytest.raises(AssertionError, match="differentiated twice"):
        fo.least_squares(residuals, jnp.ones(3), fo.newton(), tol=1e-8, max_steps=50)


def test_matrix_free_gives_the_dense_step(monkeypatch):
    for solver in (fo.RosenbrockEuler(), fo.RosenbrockEuler("exact")):
        ends = []
        for limit in (512, 8):
            monkeypatch.setattr("flowopt.objective.DENSE_LIMIT", limit)
            method = fo.Method(F.Gradient(), solver, step=1e-2)
            stepper = stepper_of(method, network, START)
            state = stepper.start(START)
            assert (state.model.matrix is None) == (limit == 8)
            ends.append(jax.jit(advance(stepper))(state).params)
        move = np.linalg.norm(ends[0] - START)
        # Conjugate gradients stop at 1e-3 of the gradient.
        assert np.linalg.norm(ends[1] - ends[0]) <= 1e-2 * move


def test_a_large_problem_runs_matrix_free():
    n = 2000
    residuals = lambda x, _: jnp.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:1]])
    start = jnp.full(n, 0.9)
    method = fo.levenberg_marquardt(1e-2, scaling="none")
    sol = fo.least_squares(residuals, start, method, tol=1e-6, max_steps=200)
    assert sol.outcome == "converged"
    # J is known by its products alone; where it is formed none are taken.
    assert int(sol.stats["hessian_products"]) > int(sol.stats["accepted"])
    small = fo.least_squares(residuals, start[:5], method, max_steps=5)
    assert int(small.stats["hessian_products"]) == 0
    with pytest.raises(ValueError, match='`scaling` must be "none" for 2000 params'):
        fo.least_squares(residuals, start, fo.levenberg_marquardt(scaling="more"))


def test_exact_hessian_converges_quadratically_and_rejects_indefinite_steps():
    fn = lambda x, _: jnp.sum((x**2 - 1) ** 2) + 0.3 * x[0] * x[1]
    method = fo.Method(F.Gradient(), fo.RosenbrockEuler("exact"), fo.GainRatio(), step=1e3)
    # Between maximum and minimum: H is negative definite, and mu = 1e-3 does not make up for it.
    sol = fo.minimise(fn, jnp.array([0.1, 0.2]), method, tol=1e-10)
    assert sol.outcome == "converged"
    assert int(sol.stats["rejected"]) > 0
    assert int(sol.stats["accepted"]) < 20
    assert np.all(np.linalg.eigvalsh(jax.hessian(fn)(sol.params, None)) > 0)
    assert int(sol.stats["hessian_evals"]) == 1 + int(sol.stats["accepted"])


def test_conjugate_gradients_stop_at_negative_curvature(monkeypatch):
    monkeypatch.setattr("flowopt.objective.DENSE_LIMIT", 1)
    fn = lambda x, _: jnp.sum((x**2 - 1) ** 2) + 0.3 * x[0] * x[1]
    method = fo.Method(F.Gradient(), fo.RosenbrockEuler("exact"), fo.GainRatio(), step=1e3)
    sol = fo.minimise(fn, jnp.array([0.1, 0.2]), method, tol=1e-10)
    assert sol.outcome == "converged"
    assert np.all(np.linalg.eigvalsh(jax.hessian(fn)(sol.params, None)) > 0)


def test_error_is_of_first_order():
    # 1 - rho goes to 0 like h: what controllers by errors rely on.
    problem = residual_problems()[0]
    x = jnp.asarray(problem.start)
    fn = fo.SumOfSquares(problem.residuals)
    solver = fo.RosenbrockEuler()

    def error(h):
        at = At(fn, x, None, Evaluations(), kind="jacobian")
        y = F.State(x, None)
        return solver.trial(F.Gradient(), y, at, jnp.asarray(h), None).error.params

    h = 2.0 ** -np.arange(12, 20)
    slope = np.polyfit(np.log(h), np.log([float(error(x)) for x in h]), 1)[0]
    assert abs(slope - 1) < 0.05


@pytest.mark.parametrize(
    "controller",
    [diffrax.PIDController(rtol=0, atol=1), fo.IntegralController(), fo.Backtracking()],
)
def test_controllers_by_errors_drive_it(controller):
    problem = residual_problems()[0]
    method = fo.Method(F.Gradient(), fo.RosenbrockEuler(), controller, step=1.0)
    sol = fo.least_squares(problem.residuals, jnp.asarray(problem.start), method, tol=1e-8)
    assert sol.outcome == "converged"


def test_in_a_plain_diffeqsolve_it_is_the_same():
    problem = residual_problems()[0]
    x = jnp.asarray(problem.start)
    term = fo.FlowTerm(F.Gradient(), fo.SumOfSquares(problem.residuals))
    out = diffrax.diffeqsolve(
        term,
        fo.RosenbrockEuler(report_gain=True),
        0.0,
        1e30,
        1.0,
        term.init(x),
        saveat=diffrax.SaveAt(t1=True),
        stepsize_controller=fo.GainRatio(),
        max_steps=20,
        throw=False,
    )
    sol = fo.least_squares(problem.residuals, x, fo.levenberg_marquardt(), tol=1e-300, max_steps=20)
    # `t1` is not reached in 20 steps: Diffrax then gives the state it has.
    np.testing.assert_allclose(out.ys.params[-1], sol.params, rtol=1e-6)


def test_wrong_arguments_name_themselves():
    with pytest.raises(ValueError, match="`scaling` must be one of"):
        fo.RosenbrockEuler(scaling="other")
    with pytest.raises(ValueError, match="`hessian` must be one of"):
        fo.RosenbrockEuler("newton")
    with pytest.raises(ValueError, match="`scaling` and `geodesic`"):
        fo.RosenbrockEuler("exact", "more")
    with pytest.raises(ValueError, match="`geodesic` must be >= 0"):
        fo.RosenbrockEuler(geodesic=-1.0)
    with pytest.raises(ValueError, match="`solver`: RosenbrockEuler linearises the gradient flow"):
        fo.Method(F.HeavyBall(1.0), fo.RosenbrockEuler(), step=1.0)
    with pytest.raises(ValueError, match="needs rtol=0 and atol=1"):
        fo.Method(
            F.Gradient(),
            fo.RosenbrockEuler(),
            diffrax.PIDController(rtol=1e-3, atol=1e-6),
            step=1.0,
        )
