"""Callback and progress bar: what they are shown, and that the run is the same with and without."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import rosenbrock

import flowopt as fo
from flowopt.run.loop import begin, proceed
from flowopt.run.step import make_stepper

START = jnp.array([-1.2, 1.0])
METHODS = {
    "gd": fo.gd(1e-3),
    "adam": fo.adam(1e-2),
    "euler_richardson": fo.euler_richardson(),
    "guarded heavy ball": fo.lyapunov(fo.flows.HeavyBall(1.0)),
    "default": fo.default_method(),
}


def same_bits(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def network(dtype):
    x = jnp.linspace(-1, 1, 40, dtype=dtype)[:, None]
    net = fo.networks.mlp(1, 1, 8, 2, key=jax.random.key(0), dtype=dtype)
    params, rebuild = fo.networks.split(net)
    return rebuild, params, fo.networks.Data(x, jnp.sin(3 * x))


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("name", METHODS)
def test_the_run_is_the_same_to_the_bit(name, every):
    settings = dict(max_steps=40, history="value")
    plain = fo.minimise(rosenbrock, START, METHODS[name], **settings)
    seen = []
    run = fo.minimise(
        rosenbrock, START, METHODS[name], callback=seen.append, every=every, **settings
    )
    assert same_bits(run, plain)
    assert same_bits(seen[-1], run) and len(seen) == -(-int(run.state.attempted) // every)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", ["adam", "guarded heavy ball"])
def test_the_same_bits_in_training(name, dtype):
    rebuild, params, data = network(dtype)
    loss = fo.networks.MeanSquaredError(rebuild, l2=1e-6)
    call = lambda **how: fo.minimise(loss, params, METHODS[name], args=data, max_steps=60, **how)
    assert same_bits(call(callback=lambda run: None, every=9), call())


def test_the_same_bits_of_residuals_and_samples():
    rebuild, params, data = network(jnp.float64)
    residuals = fo.networks.Residuals(rebuild)
    call = lambda **how: fo.least_squares(residuals, params, args=data, max_steps=30, **how)
    assert same_bits(call(callback=lambda run: None, every=4), call())
    noisy = fo.gaussian_noise(rosenbrock, 0.1)
    call = lambda **how: fo.minimise(noisy, START, fo.gd(1e-3), max_steps=30, **how)
    assert same_bits(call(callback=lambda run: None, every=4), call())


def test_what_a_callback_sees():
    seen = []
    end = fo.minimise(
        rosenbrock, START, fo.adam(1e-2), max_steps=25, callback=seen.append, every=10
    )
    assert [int(run.state.attempted) for run in seen] == [10, 20, 25]
    assert [str(run.outcome) for run in seen] == ["running", "running", "max_steps"]
    assert end.outcome == "max_steps"
    for run in seen:
        there = fo.minimise(rosenbrock, START, fo.adam(1e-2), max_steps=int(run.state.attempted))
        assert same_bits((run.params, run.value, run.grad), (there.params, there.value, there.grad))
        assert run.stats["grad_evals"] == there.stats["grad_evals"] == run.state.attempted + 1
        assert run.stats["step"] == 1e-2 and isinstance(float(run.grad_norm), float)


def test_a_callback_is_called_once_where_nothing_is_left_to_do():
    seen = []
    fo.minimise(rosenbrock, jnp.ones(2), fo.gd(1e-3), callback=seen.append)
    assert [str(run.outcome) for run in seen] == ["converged"]
    done = fo.minimise(rosenbrock, START, max_steps=3)
    again = fo.minimise(rosenbrock, done.state, max_steps=3, callback=seen.append)
    assert len(seen) == 2 and again.outcome == "max_steps"


def test_a_run_that_diverges_is_seen_with_its_last_good_params():
    seen = []
    sliding = lambda x, args: jnp.sqrt(x)
    end = fo.minimise(sliding, jnp.array(1.0), fo.gd(0.1), callback=seen.append, every=5)
    assert end.outcome == seen[-1].outcome == "diverged" and jnp.isfinite(seen[-1].value)
    assert same_bits(end, fo.minimise(sliding, jnp.array(1.0), fo.gd(0.1)))


@pytest.mark.parametrize(
    "answer", [True, np.True_, jnp.array(True)], ids=lambda x: type(x).__name__
)
def test_a_callback_ends_the_run(answer):
    def enough(run):
        return answer if run.state.attempted >= 20 else None

    end = fo.minimise(rosenbrock, START, fo.gd(1e-3), callback=enough, every=10)
    there = fo.minimise(rosenbrock, START, fo.gd(1e-3), max_steps=20)
    assert end.outcome == "converged" and same_bits(end.params, there.params)
    # And it can be gone on with.
    further = fo.minimise(rosenbrock, end.state, fo.gd(1e-3), max_steps=30)
    assert same_bits(further.state, fo.minimise(rosenbrock, START, fo.gd(1e-3), max_steps=30).state)


def test_a_long_run_is_resumed_from_the_last_file(tmp_path):
    """Killed at any moment, it goes on from what the callback wrote, to the same bits."""
    file, method = tmp_path / "run.eqx", fo.adam(1e-2)
    whole = fo.minimise(rosenbrock, START, method, max_steps=60)

    def checkpoint(run):
        if run.state.attempted > 45:
            raise KeyboardInterrupt
        eqx.tree_serialise_leaves(file, run.state)

    with pytest.raises(KeyboardInterrupt):
        fo.minimise(rosenbrock, START, method, max_steps=60, callback=checkpoint, every=20)
    like = fo.minimise(rosenbrock, START, method, max_steps=0).state
    state = eqx.tree_deserialise_leaves(file, like)
    assert state.attempted == 40
    counted = []
    end = fo.minimise(rosenbrock, state, method, max_steps=60, callback=counted.append, every=20)
    assert same_bits(end.state, whole.state) and len(counted) == 1


def test_early_stopping_on_data_that_is_not_trained_on():
    rebuild, params, data = network(jnp.float64)
    noise = jax.random.normal(jax.random.key(1), data.y.shape, data.y.dtype)
    loss = fo.networks.MeanSquaredError(rebuild)
    noisy, unseen = fo.networks.Data(data.x, data.y + 0.5 * noise), data
    seen = []

    def worse(run):
        seen.append((float(loss(run.params, unseen)), run.params))
        return len(seen) > 1 and seen[-1][0] > seen[-2][0]

    end = fo.minimise(
        loss, params, fo.adam(1e-2), args=noisy, max_steps=3000, callback=worse, every=50
    )
    late = fo.minimise(loss, params, fo.adam(1e-2), args=noisy, max_steps=3000)
    assert end.outcome == "converged" and end.state.attempted < 3000
    best, early = min(seen, key=lambda pair: pair[0])
    assert best < loss(late.params, unseen) and late.value < loss(early, noisy)


def test_nothing_is_called_from_inside_a_compiled_program():
    stepper = make_stepper(rosenbrock, START, fo.gd(1e-3), None, 1e-6, 20, None)
    adjoint = diffrax.RecursiveCheckpointAdjoint()
    go = lambda p: proceed(stepper, begin(stepper, p, None), adjoint, None, jnp.int32(5))
    for program in (go, run_of(fo.gd(1e-3))):
        text = str(jax.make_jaxpr(program)(START))
        assert "while" in text and "io_callback" not in text and "debug_callback" not in text


def run_of(method, **how):
    return lambda p: fo.minimise(rosenbrock, p, method, max_steps=20, **how).value


def test_segments_compile_once():
    traced = []

    def loss(p, args):
        traced.append(1)
        return rosenbrock(p)

    counts = []
    look = lambda run: counts.append(len(traced))
    fo.minimise(loss, START, fo.gd(1e-3), max_steps=50, callback=look, every=5)
    assert len(counts) == 10 and counts[0] == counts[-1] > 0


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "how", [dict(callback=lambda run: None), dict(progress=True)], ids=lambda how: next(iter(how))
)
def test_not_while_being_traced(transform, how, capsys):
    at = jnp.stack([START, START]) if transform is jax.vmap else START
    with pytest.raises(TypeError, match=f"`{next(iter(how))}` is called from Python.*`jit`"):
        transform(run_of(fo.gd(1e-3), **how))(at)
    with pytest.raises(TypeError, match="called from Python"):
        jax.grad(lambda lr: run_of(fo.gd(lr), **how)(START))(jnp.array(1e-3))


def test_the_progress_bar(capsys):
    plain = fo.minimise(rosenbrock, START, fo.default_method())
    assert capsys.readouterr().err == ""
    run = fo.minimise(rosenbrock, START, fo.default_method(), progress=True)
    shown = capsys.readouterr().err
    assert same_bits(run, plain)
    last = shown.replace("\r", "\n").strip().split("\n")[-1]
    assert f"{int(run.state.attempted)}/10000" in last and "step" in last
    assert f"converged: loss {run.value:.3e}, |grad| {run.grad_norm:.1e}, h" in last
    fo.minimise(rosenbrock, START, fo.default_method(), max_steps=None, progress="valley")
    assert "valley" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (dict(callback=3), TypeError, "`callback` must be a function"),
        (dict(callback=lambda run: run.value), TypeError, "`callback` must return True"),
        (dict(callback=lambda run: "stop"), TypeError, "`callback` must return True"),
        (dict(every=0), ValueError, "`every`"),
        (dict(every=1.5), ValueError, "`every`"),
        (dict(every=True), ValueError, "`every`"),
    ],
)
def test_bad_input_is_named(change, error, says):
    with pytest.raises(error, match=says):
        fo.minimise(rosenbrock, START, fo.gd(1e-3), max_steps=5, **change)
    residuals = lambda x, args: jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])
    with pytest.raises(error, match=says):
        fo.least_squares(residuals, START, max_steps=5, **change)
