"""No guarded run diverges, and no step that one keeps breaks the inequality: flows x laws x networks.

By default each flow, law and network has its turn, on 256 starts. `FLOWOPT_GUARDED_RUNS=2000` runs all 470 triples on
as many starts each, 940,000 runs in all, and takes five minutes. Where the loss or its gradient overflows at the start
itself (exp4 and exp5 beyond |z| = 6 or so) nothing can be run, and the run says `diverged` before its first step.
"""

import itertools
import os

import diffrax
import jax
import jax.flatten_util
import jax.numpy as jnp
import pytest
from problems import starts

import flowopt as fo
from flowopt.flows.flow import FlowTerm, energy_rate
from flowopt.objective import Evaluations
from flowopt.run.step import make_stepper

FLOWS = {
    "gradient": fo.flows.Gradient(),
    "p-gradient": fo.flows.PGradient(3.0),
    "sign": fo.flows.Sign(),
    "clipped": fo.flows.Clipped(1.0),
    "heavy ball": fo.flows.HeavyBall(1.0),
    "Nesterov": fo.flows.Nesterov(1.0, 0.1),
    "RMSProp": fo.flows.RMSProp(1.0),
    "uncorrected Adam": fo.flows.UncorrectedAdam(0.1, 1.0),
    "Newton": fo.flows.Newton(),
    "Gauss-Newton": fo.flows.GaussNewton(),
}
LAWS = {
    "backtracking": fo.Backtracking(2, 1e4),
    "log-bisection": fo.LogBisection(),
    "PID": diffrax.PIDController(rtol=0, atol=1),
    "integral": fo.IntegralController(safety=0.5),
    "Barzilai-Borwein": fo.IntegralController(safety=1.0),
}
NETWORKS = ["poly2", "poly3", "poly4", "poly5", "poly8", "bell", "rational", "exp2", "exp4", "exp5"]
ACTIVATIONS = {
    "poly2": lambda z: z**2 - 1,
    "poly3": lambda z: 2 * z**3 - 3 * z**2 + 5,
    "poly4": lambda z: z**4 - 2 * z**2 + 3,
    "poly5": lambda z: z**5 - 4 * z**4 + 2 * z**3 + 8 * z**2 - 11 * z - 12,
}
RUNS = int(os.environ.get("FLOWOPT_GUARDED_RUNS", "0"))


def triples():
    every = [
        (flow, law, network)
        for flow, law, network in itertools.product(FLOWS, LAWS, NETWORKS)
        if flow != "Gauss-Newton" or network in ACTIVATIONS
    ]
    if RUNS:
        return every
    # One triple for each flow, with each law twice and each network once, as far as Gauss-Newton has residuals.
    networks = NETWORKS[1:] + NETWORKS[:1]
    return list(zip(FLOWS, [*LAWS, *LAWS], networks, strict=True))


@pytest.mark.parametrize(("flow", "law", "network"), triples())
def test_no_guarded_run_diverges_and_no_kept_step_breaks_the_inequality(flow, law, network):
    flow = FLOWS[flow]
    method = fo.lyapunov(flow, controller=LAWS[law])
    fn = getattr(fo.benchmarks, network)().loss
    if flow.model == "jacobian":
        g = ACTIVATIONS[network]
        fn = fo.SumOfSquares(lambda p, args: jnp.stack([g(p[1]), g(p[0] + p[1])]) / 2**0.5)
    excess, kept, codes = run(fn, flow, method, RUNS or 256)
    assert codes["diverged"] == 0
    assert codes["running"] == 0  # every one has converged or says why not
    assert kept > 0
    assert (
        excess <= 8.0
    )  # the guard's slack is 4 ulp; this test computes both energies once more, rounding anew


def run(fn, flow, method, n):
    """n runs from [-5, 5]^2: largest V(y1) - V(y0) - lam h V'(y0) of a kept step [roundings], steps kept, outcomes.

    A rounding is what V changes by when its arguments are rounded, or V itself: eps (|V| + |dV/dy| |y|). Near a minimum
    with R = 0 that is more than an ulp of V, and compiled twice, here and in the step, V differs by so much. Of the
    worst step of each run so measured, the rounding is then measured too (`noise`): with V = |g|^2/2 at a flat minimum
    (Newton on `rational`) what cancels inside g is 100 times that estimate.
    """
    first = jax.tree.map(jnp.asarray, starts(n, -5, 5))
    stepper = make_stepper(fn, jax.tree.map(lambda x: x[0], first), method, None, 1e-6, 400, None)

    def energy_at(y):
        return flow.energy(*y, FlowTerm(flow, fn).at(y.params, None))

    def energies(state):
        at = stepper.known_at(state, Evaluations())
        slopes = jax.grad(energy_at)(state.y)
        products = jax.tree.map(lambda g, x: jnp.sum(jnp.abs(g * x)), slopes, state.y)
        energy = flow.energy(*state.y, at)
        rounding = jnp.finfo(float).eps * (jnp.abs(energy) + sum(jax.tree.leaves(products)))
        return energy, energy_rate(flow, state.y, at), rounding

    def step(state):
        new = stepper.advance(state, (Evaluations(), Evaluations()))
        (before, rate, one), (after, _, other) = energies(state), energies(new)
        kept = (new.accepted > state.accepted) & (state.code < 0)
        demanded = method.solver.lam * state.step * jnp.minimum(rate, 0)
        rounding = jnp.maximum(jnp.maximum(one, other), jnp.finfo(float).tiny)
        excess = jnp.where(kept, after - before - demanded, -jnp.inf)
        seen = excess / rounding, excess, rounding, state.y, new.y
        return select(state.code < 0, new, state), seen, kept

    def body(carry):
        state, worst, kept = carry
        state, seen, now = jax.vmap(step)(state)
        worst = jax.vmap(select)(seen[0] > worst[0], seen, worst)
        return state, worst, kept + now.astype(int)

    @jax.jit
    def go(first):
        state = jax.vmap(stepper.start)(first)
        none = jnp.full(n, -jnp.inf)
        carry = state, (none, none, jnp.ones(n), state.y, state.y), jnp.zeros(n, int)
        state, worst, kept = jax.lax.while_loop(lambda c: jnp.any(c[0].code < 0), body, carry)
        _, excess, rounding, *ends = worst
        measured = [jax.vmap(lambda y: noise(energy_at, y))(y) for y in ends]
        return state, excess / jnp.maximum(rounding, jnp.maximum(*measured)), kept

    state, worst, kept = go(first)
    begun = state.accepted + state.rejected > 0
    names = {-1: "running", 0: "converged", 1: "max_steps", 2: "stalled", 3: "diverged"}
    codes = {name: int(((state.code == code) & begun).sum()) for code, name in names.items()}
    return float(worst.max()), int(kept.sum()), codes


def select(condition, a, b):
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def noise(fn, y):
    """The largest change of fn(y) over 16 y that differ by an ulp of each number at most."""
    flat, back = jax.flatten_util.ravel_pytree(y)
    ulps = jax.random.randint(jax.random.key(0), (16, flat.size), -1, 2).astype(float)
    near = jax.vmap(lambda k: fn(back(flat * (1 + k * jnp.finfo(float).eps))))(ulps)
    return jnp.nanmax(jnp.abs(near - fn(y)), initial=0.0)
