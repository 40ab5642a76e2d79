"""The energy guard: its test, its error, its guarantee."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import BENCHMARKS, QUADRATIC_START, quadratic, rosenbrock, starts

import flowopt as fo
from flowopt.objective import Evaluations
from flowopt.run.step import make_stepper
from flowopt.solvers.energy_guard import energy_error

FLOWS = {
    "gradient": fo.flows.Gradient(),
    "heavy ball": fo.flows.HeavyBall(1.0),
    "Adam": fo.flows.Adam(0.1, 1.0),
    "uncorrected Adam": fo.flows.UncorrectedAdam(0.1, 1.0),
}


def test_energy_error_is_the_armijo_test():
    """e <= 1 iff V1 - V0 <= lam h V' + slack, and e = (1 - r)/(1 - lam)."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=10_000)
    promised = -np.abs(rng.normal(size=10_000)) * 10.0 ** rng.uniform(-10, 2, 10_000)
    after = before + promised * rng.uniform(-1, 2, 10_000)
    lam = 0.3
    e = jax.vmap(lambda b, a, p: energy_error(b, a, p, lam, 4.0))(before, after, promised)
    slack = 4 * np.finfo(float).eps * np.maximum(np.abs(before), np.abs(after))
    margin = after - before - lam * promised - slack
    clear = np.abs(margin) > 1e-3 * slack
    np.testing.assert_array_equal((e <= 1)[clear], (margin <= 0)[clear])
    big = -promised > 1e8 * slack
    r = (after - before) / promised
    np.testing.assert_allclose(e[big], np.maximum((1 - r) / (1 - lam), 0)[big], atol=1e-6)


@pytest.mark.parametrize(
    ("after", "promised", "error"),
    [
        (2.0, 0.0, np.inf),
        (1.0, 0.0, 0.0),
        (np.nan, -1.0, np.inf),
        (np.inf, -1.0, np.inf),
        (-np.inf, -1.0, np.inf),
        (0.5, np.nan, np.inf),
        (1.5, 1.0, np.inf),
        (0.5, 1.0, 0.0),
    ],
)
def test_energy_error_at_the_edges(after, promised, error):
    e = energy_error(jnp.array(1.0), jnp.array(after), jnp.array(promised), 0.5, 4.0)
    assert e == error


def test_guarded_euler_takes_the_steps_of_armijo_backtracking():
    """Against a plain loop: halve until R(y - h g) - R(y) <= -lam h |g|^2, then double."""
    fn, grad = rosenbrock, jax.grad(rosenbrock)
    y, h = jnp.array([-1.2, 1.0]), 0.1
    for _ in range(60):
        g = grad(y)
        while fn(y - h * g) - fn(y) > -0.5 * h * jnp.sum(g**2):
            h /= 2
        y, h = y - h * g, 2 * h
    method = fo.lyapunov(controller=fo.Backtracking(shrink=2, grow=2), step=0.1)
    ends = fo.minimise(
        fn, jnp.array([-1.2, 1.0]), method, tol=1e-300, stop=lambda s: s.accepted >= 60
    )
    assert ends.stats["accepted"] == 60
    np.testing.assert_allclose(ends.params, y, rtol=1e-12)
    np.testing.assert_allclose(ends.stats["step"], h, rtol=1e-12)


STEPS = {
    "Euler, integral": (fo.StaggeredEuler(), fo.IntegralController()),
    "Euler, PID": (fo.StaggeredEuler(), diffrax.PIDController(rtol=0, atol=1)),
    "Euler-Richardson, backtracking": (fo.EulerRichardson(), fo.Backtracking(2, 2)),
    "Heun, integral": (diffrax.Heun(), fo.IntegralController()),
}


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
@pytest.mark.parametrize(("solver", "controller"), STEPS.values(), ids=STEPS)
def test_no_accepted_step_raises_the_energy(flow, solver, controller):
    """Every accepted step of 512 runs on each network, starts uniform in [-5, 5]^2, against the stated slack."""
    method = fo.lyapunov(flow, solver, controller)
    runs = guarded_runs(method, flow)
    rises, accepted, diverged = zip(*(runs(i) for i in range(len(BENCHMARKS))), strict=True)
    assert sum(diverged) == 0
    assert sum(accepted) > 70_000  # over the 16 combinations: more than 10^6 steps
    # The guard's slack is 4 ulp of its own V0 and V1; this test computes both once more, with rounding of its own.
    assert max(rises) <= 8.0


def guarded_runs(method, flow):
    """512 runs of at most 200 steps on a network, given by its number: the largest rise of V in an accepted step
    [ulp of V], how many were accepted, how many runs diverged. Compiled once for all networks."""
    first = jax.tree.map(jnp.asarray, starts(512, -5, 5))
    one = jax.tree.map(lambda x: x[0], first)
    losses = [make().loss for make in BENCHMARKS]
    loss = lambda params, network: jax.lax.switch(network, losses, params)

    @jax.jit
    def run(network):
        stepper = make_stepper(loss, one, method, network, 1e-6, 200, None)
        energy = lambda s: flow.energy(*s.y, fo.FlowTerm(flow, loss).at(s.params, network))

        def step(state, _):
            new = stepper.advance(state, (Evaluations(), Evaluations()))
            kept = (new.accepted > state.accepted) & (state.code < 0)
            before = energy(state)
            rise = energy(new) - before
            ulps = rise / (jnp.finfo(float).eps * jnp.maximum(jnp.abs(before), 1e-300))
            new = jax.tree.map(lambda a, b: jnp.where(state.code < 0, a, b), new, state)
            return new, (jnp.where(kept, ulps, -jnp.inf), kept)

        one_run = lambda s: jax.lax.scan(step, stepper.start(s), length=200)
        ends, (ulps, kept) = jax.vmap(one_run)(first)
        return ulps.max(), kept.sum(), (ends.code == 3).sum()

    return lambda network: tuple(x.item() for x in run(network))


@pytest.mark.parametrize("flow", [fo.flows.Gradient(), fo.flows.HeavyBall(1.0)], ids=repr)
def test_guarded_runs_started_at_rest_near_a_minimum_converge_to_it(flow):
    """All of 500 starts within 0.2 of each minimum of poly3, the shallow ones with R = 4 and 8 among them."""
    problem = fo.benchmarks.poly3()
    for index, point in enumerate(problem.critical_points):
        if point.nature != "minimum":
            continue
        random = np.random.default_rng(index)
        r, angle = 0.2 * np.sqrt(random.uniform(size=500)), random.uniform(0, 2 * np.pi, 500)
        w, b = (float(x) for x in point.params)
        first = (w + r * np.cos(angle), b + r * np.sin(angle))
        ends = fo.ensemble(problem.loss, first, fo.lyapunov(flow), tol=1e-4)
        assert np.all(ends.outcome == "converged")
        assert np.all(problem.classify(ends.params, 0.05) == index)


def test_an_inner_error_counts_when_it_is_given_tolerances():
    guard = lambda **tolerances: fo.Method(
        fo.flows.Gradient(),
        fo.EnergyGuard(fo.EulerRichardson(), **tolerances),
        fo.IntegralController(),
        step=0.1,
    )
    run = lambda method: fo.minimise(quadratic, QUADRATIC_START, method, tol=1e-8)
    energy_alone, both = run(guard()), run(guard(rtol=0.0, atol=1e-5))
    assert energy_alone.outcome == "converged" and both.outcome == "converged"
    assert int(both.stats["accepted"]) > 1.2 * int(energy_alone.stats["accepted"])


def test_guard_in_a_plain_diffeqsolve_with_stock_pid():
    """The guard is a Diffrax solver like any other, and a stock PIDController its step-size law."""
    flow = fo.flows.HeavyBall(1.0)
    term = fo.FlowTerm(flow, rosenbrock)
    solution = diffrax.diffeqsolve(
        term,
        fo.EnergyGuard(fo.StaggeredEuler()),
        0.0,
        jnp.inf,
        0.01,
        term.init(jnp.array([-1.2, 1.0])),
        stepsize_controller=diffrax.PIDController(rtol=0, atol=1),
        event=diffrax.Event(
            lambda t, y, args, **kw: jnp.linalg.norm(jax.grad(rosenbrock)(y.params)) < 1e-6
        ),
        max_steps=20_000,
        saveat=diffrax.SaveAt(t1=True, steps=True),
    )
    assert solution.event_mask
    last = solution.stats["num_accepted_steps"] - 1
    np.testing.assert_allclose(jax.tree.map(lambda x: x[last], solution.ys.params), 1.0, atol=1e-4)
    energies = jax.vmap(lambda y: flow.energy(*y, term.at(y.params, None)))(solution.ys)[: last + 1]
    assert jnp.all(jnp.diff(energies) <= 8 * jnp.finfo(float).eps * energies[:-1])


def test_a_flow_that_climbs_stalls_and_does_not_loop():
    class Ascent(fo.flows.Gradient):
        def params_field(self, params, memory, at):
            return at.grad

    ends = fo.minimise(rosenbrock, jnp.array([-1.2, 1.0]), fo.lyapunov(Ascent()))
    assert ends.outcome == "stalled" and ends.stats["accepted"] == 0
    np.testing.assert_array_equal(ends.params, jnp.array([-1.2, 1.0]))


def test_an_energy_without_bound_below_ends_as_diverged():
    ends = fo.minimise(lambda x, args: -jnp.sum(x**3), jnp.array([1.0, 2.0]), fo.lyapunov())
    assert ends.outcome == "diverged" and jnp.all(jnp.isfinite(ends.stats["step"]))


@pytest.mark.parametrize(("dtype", "tol"), [(jnp.float64, 1e-8), (jnp.float32, 1e-3)])
def test_four_ulp_of_slack_take_a_run_to_the_root_of_the_rounding(dtype, tol):
    """Around a minimum with R = 1 the decrease left is below an ulp from |grad R| = sqrt(L ulp) = 1.5e-7 on (3.5e-3 in
    float32). Without slack nearly every run stalls there, and says so; with four ulp nearly every one converges."""
    loss = lambda x, args: 1 + 0.5 * jnp.sum(jnp.array([1.0, 10.0, 100.0], x.dtype) * x**2)
    first = jax.random.uniform(jax.random.key(0), (64, 3), dtype, -2, 2)

    def ends(slack):
        guard = fo.EnergyGuard(diffrax.Euler(), slack_ulps=slack)
        law = fo.IntegralController(safety=0.5, factormax=2.0)
        method = fo.Method(fo.flows.Gradient(), guard, law, step=0.1)
        return fo.ensemble(loss, first, method, tol=tol, max_steps=3000)

    without, four = ends(0.0), ends(4.0)
    assert np.mean(without.outcome == "stalled") > 0.95
    assert np.all(without.grad_norm < 10 * np.sqrt(100 * np.finfo(dtype).eps))
    assert np.mean(four.outcome == "converged") > 0.95


def test_guard_names_bad_arguments():
    for lam in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="lam"):
            fo.EnergyGuard(diffrax.Euler(), lam=lam)
    with pytest.raises(TypeError, match="solver"):
        fo.EnergyGuard(diffrax.Euler)
    with pytest.raises(ValueError, match="rtol"):
        fo.EnergyGuard(diffrax.Heun(), rtol=1e-3)
    with pytest.raises(ValueError, match="error estimate"):
        fo.EnergyGuard(diffrax.Euler(), rtol=1e-3, atol=1e-6)
