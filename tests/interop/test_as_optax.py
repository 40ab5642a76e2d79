"""Methods as optax transformations: the library's own iterates, in whatever optax does with a transformation."""

import os
import pathlib
import platform
import subprocess
import sys

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import QUADRATIC_START, Counter, quadratic, rosenbrock

import flowopt as fo
from studies.references import REFERENCES, problems

PROBLEMS = {
    name: (lambda p, fn=fn: fn(p, None), jax.tree.map(lambda x: x[0], starts))
    for name, (fn, starts) in problems(1, jnp.float64).items()
}
START = jnp.array([-1.2, 1.0])


def loop(tx, loss, params, steps, *, stored=False, **extra):
    """The params after an ordinary optax loop, compiled as one `scan`."""

    def step(carry, _):
        params, state = carry
        if stored:
            value, grad = optax.value_and_grad_from_state(loss)(params, state=state)
        else:
            value, grad = jax.value_and_grad(loss)(params)
        updates, state = tx.update(
            grad, state, params, value=value, grad=grad, value_fn=loss, **extra
        )
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps))(params)[0]


def own(loss, params, method, steps):
    fn = lambda p, args: loss(p)
    return fo.minimise(fn, params, method, tol=1e-300, max_steps=steps).params


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="XLA is told by a setting for x86 processors",
)
def test_the_iterates_are_the_librarys_own_to_the_bit():
    """Without fused multiply-adds, of which XLA makes others in a run than in an optax loop."""
    tests = pathlib.Path(__file__).with_name("as_optax_to_the_bit.py")
    call = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", str(tests)]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_max_isa=AVX"}
    run = subprocess.run(call, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]


@pytest.mark.parametrize(
    "method",
    [fo.adam(1e-3), fo.lyapunov(), fo.default_method(), fo.lyapunov(solver=diffrax.Heun()),
     fo.euler_richardson(), fo.newton(0.5), fo.proximal_point(1e-3)],
    ids=["adam", "guarded", "default", "guarded Heun", "euler_richardson", "newton", "proximal_point"],
)  # fmt: skip
def test_the_iterates_are_the_librarys_own_to_rounding(method):
    loss, start = PROBLEMS["rosenbrock 10-D"]
    params, _ = loop(fo.as_optax(method), loss, start, 25)
    np.testing.assert_allclose(params, own(loss, start, method, 25), rtol=1e-8, atol=1e-10)


def test_a_guarded_loop_evaluates_each_point_once():
    counter = Counter(rosenbrock)
    method = fo.lyapunov(controller=fo.Backtracking())
    ours = fo.minimise(rosenbrock, START, method, tol=1e-300, max_steps=100)
    params, _ = loop(fo.as_optax(method), lambda p: counter.fn(p, None), START, 100, stored=True)
    jax.effects_barrier()
    np.testing.assert_allclose(params, ours.params, rtol=1e-12)
    assert counter.grads == ours.stats["grad_evals"]
    assert counter.values == ours.stats["value_evals"]


def test_it_minimises_by_itself():
    loss = lambda p: rosenbrock(p)
    params, _ = loop(fo.as_optax(fo.default_method()), loss, START, 60)
    np.testing.assert_allclose(params, 1.0, atol=1e-8)
    # And stays there, with a finite step, however long the loop goes on.
    params, state = loop(fo.as_optax(fo.default_method()), loss, START, 500)
    np.testing.assert_allclose(params, 1.0, atol=1e-8)
    assert np.isfinite(state.step)


def test_in_a_chain_it_follows_what_came_before():
    loss, start = PROBLEMS["rosenbrock 10-D"]
    clip = optax.clip_by_global_norm(1.0)
    ours, _ = loop(optax.chain(clip, fo.as_optax(fo.momentum(1e-2))), loss, start, 100)
    theirs, _ = loop(optax.chain(clip, optax.sgd(1e-2, 0.9)), loss, start, 100)
    np.testing.assert_allclose(ours, theirs, rtol=1e-11)
    # After it: half the step is gradient descent of half the rate.
    half, _ = loop(optax.chain(fo.as_optax(fo.gd(1e-3)), optax.scale(0.5)), loss, start, 100)
    np.testing.assert_allclose(half, own(loss, start, fo.gd(5e-4), 100), rtol=1e-12)


@pytest.mark.parametrize("name", ["adam", "lion"])
def test_hyperparams_are_injected_as_into_optax(name):
    make, reference, lr = REFERENCES[name]
    loss, start = PROBLEMS["rosenbrock 10-D"]
    rate = optax.linear_schedule(jnp.asarray(lr), jnp.asarray(0.1 * lr), 100)
    ours = optax.inject_hyperparams(lambda learning_rate: fo.as_optax(make(learning_rate)))
    theirs = optax.inject_hyperparams(lambda learning_rate: reference(learning_rate))
    with jax.numpy_dtype_promotion("standard"):
        a, state = loop(ours(learning_rate=rate), loss, start, 150)
        b, _ = loop(theirs(learning_rate=rate), loss, start, 150)
    np.testing.assert_allclose(a, b, rtol=1e-9)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.1 * lr, rtol=1e-6)


def test_masks_and_partitions_leave_the_rest_alone():
    loss = lambda p: quadratic(p)
    mask = {"x": True, "y": False}
    frozen = optax.partition(
        {"a": fo.as_optax(fo.adam(0.1)), "b": optax.set_to_zero()}, {"x": "a", "y": "b"}
    )
    params, _ = loop(frozen, loss, QUADRATIC_START, 50)
    assert params["y"] == QUADRATIC_START["y"]
    alone = own(lambda p: quadratic({"x": p, "y": jnp.array(0.0)}), QUADRATIC_START["x"], fo.adam(0.1), 50)  # fmt: skip
    np.testing.assert_allclose(params["x"], alone, rtol=1e-12)
    masked = optax.masked(fo.as_optax(fo.momentum(0.01)), mask)
    theirs = optax.masked(optax.sgd(0.01, 0.9), mask)
    a, _ = loop(masked, loss, QUADRATIC_START, 3)
    b, _ = loop(theirs, loss, QUADRATIC_START, 3)
    np.testing.assert_allclose(a["x"], b["x"], rtol=1e-13)
    assert a["y"] == b["y"]


def test_wrappers_of_optax():
    loss, start = PROBLEMS["rosenbrock 10-D"]
    every = optax.MultiSteps(fo.as_optax(fo.gd(1e-3)), 2)
    theirs = optax.MultiSteps(optax.sgd(1e-3), 2)
    finite = optax.apply_if_finite(fo.as_optax(fo.adam(1e-3)), 3)
    for ours, reference in ((every, theirs), (finite, optax.adam(1e-3))):
        with jax.numpy_dtype_promotion("standard"):
            a, _ = loop(ours, loss, start, 20)
            b, _ = loop(reference, loss, start, 20)
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_what_is_like_params_in_the_state_can_be_told():
    tx = fo.as_optax(fo.adam(1e-3))
    state = tx.init(QUADRATIC_START)
    marked = optax.tree.map_params(tx, lambda x: x + 1, state)
    assert marked.attempted == 0
    assert sum(bool(jnp.all(x == 1)) for x in jax.tree.leaves(marked.memory)) >= 4


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["adam", "guarded"])
def test_dtypes_are_kept(dtype, name):
    method = {"adam": fo.adam(0.1), "guarded": fo.lyapunov()}[name]
    start = jax.tree.map(lambda x: x.astype(dtype), QUADRATIC_START)
    loss = lambda p: 0.5 * jnp.sum(p["x"] ** 2) + 1.5 * p["y"] ** 2
    tx = fo.as_optax(method)
    params, state = loop(tx, loss, start, 20)
    assert all(x.dtype == dtype for x in jax.tree.leaves(params))
    as_types = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert as_types(state) == as_types(tx.init(start))
    assert loss(params) < loss(start)


def test_under_vmap_each_lane_is_its_own_run():
    starts = jnp.stack([START, START + 1, -START])
    tx = fo.as_optax(fo.lyapunov())
    together = jax.vmap(lambda p: loop(tx, rosenbrock, p, 10, stored=True)[0])(starts)
    for start, end in zip(starts, together, strict=True):
        alone, _ = loop(tx, rosenbrock, start, 10, stored=True)
        np.testing.assert_allclose(end, alone, rtol=1e-9)


def test_an_equinox_module_filtered_to_its_arrays():
    net = eqx.nn.MLP(1, 1, 4, 1, jnp.tanh, key=jax.random.key(0), dtype=float)
    params, static = eqx.partition(net, eqx.is_inexact_array)
    x = jnp.linspace(-1, 1, 9)[:, None]
    loss = lambda p: jnp.mean((jax.vmap(eqx.combine(p, static))(x) - x**2) ** 2)
    for method in (fo.adam(1e-2), fo.lyapunov()):
        end, _ = loop(fo.as_optax(method), loss, params, 20)
        assert jax.tree.structure(end) == jax.tree.structure(params)
        assert loss(end) < loss(params)


def test_value_fn_is_given_the_extra_arguments_that_it_names():
    def loss(params, scale):
        return scale * jnp.sum(params**2)

    tx = fo.as_optax(fo.lyapunov())
    grad = 6.0 * START
    updates, _ = tx.update(grad, tx.init(START), START, value_fn=loss, scale=3.0, other=1)
    np.testing.assert_allclose(updates, -0.1 * grad)


def test_bad_input_is_named():
    for wrong in (fo.gd, optax.sgd(0.1)):
        with pytest.raises(TypeError, match="`method`"):
            fo.as_optax(wrong)
    with pytest.raises(ValueError, match=r"`method`.* residuals.*as_optimistix"):
        fo.as_optax(fo.levenberg_marquardt())
    free = fo.Method(fo.flows.Gradient(), diffrax.Heun(), diffrax.PIDController(rtol=1e-3, atol=1))
    with pytest.raises(ValueError, match="`method` must have a first `step`"):
        fo.as_optax(free)
    tx = fo.as_optax(fo.lyapunov())
    state = tx.init(START)
    with pytest.raises(ValueError, match="`params` must be given"):
        tx.update(START, state)
    with pytest.raises(ValueError, match=r"`value_fn` must be given.*value_fn=loss"):
        tx.update(START, state, START, value=jnp.array(1.0))
    masked = optax.masked(tx, {"x": True, "y": False})
    with pytest.raises(ValueError, match=r"`value_fn`.*optax\.masked"):
        loop(masked, lambda p: quadratic(p), QUADRATIC_START, 1)
    assert fo.as_optax(fo.gd(0.1)).update(START, fo.as_optax(fo.gd(0.1)).init(START), START)
