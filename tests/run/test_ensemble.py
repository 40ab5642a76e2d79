"""Many runs: each as if it were alone."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import starts

import flowopt as fo
from flowopt.run import workers

POLY3 = fo.benchmarks.poly3()
METHODS = {
    "gd": fo.gd(1e-2),
    "momentum": fo.momentum(1e-3, 0.9),
    "adam": fo.adam(0.1),
    "euler_richardson": fo.euler_richardson(),
    "guarded heavy ball": fo.lyapunov(fo.flows.HeavyBall(1.0)),
    "Tsit5, PID": fo.Method(
        fo.flows.HeavyBall(2.0),
        diffrax.Tsit5(),
        diffrax.PIDController(rtol=1e-3, atol=1e-6),
        step=0.1,
    ),
    "default": fo.default_method(),
    "LM": fo.levenberg_marquardt(),
    "implicit": fo.proximal_point(0.01),
}
RESIDUALS = fo.SumOfSquares(lambda p, args: jnp.stack([cubic(p[1]), cubic(p[0] + p[1])]) * 0.5**0.5)


def cubic(z):
    return z * z * (2 * z - 3) + 5


def objective(method):
    """poly3, as residuals where the method reads them."""
    return RESIDUALS if method is METHODS["LM"] else POLY3.loss


def ends_of(method, first, **settings):
    settings = dict(tol=1e-4, max_steps=500) | settings
    return fo.ensemble(objective(method), first, method, **settings)


def same(a, b):
    for x, y in zip(jax.tree.leaves(vars(a)), jax.tree.leaves(vars(b)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_agrees_with_single_runs(method):
    """To rounding, over 60 steps: an adaptive run that hovers amplifies rounding for as long as it lasts."""
    first = starts(12)
    many = ends_of(method, first, max_steps=60)
    for i in range(12):
        start = tuple(jnp.asarray(x[i]) for x in first)
        one = fo.minimise(objective(method), start, method, tol=1e-4, max_steps=60)
        assert int(one.outcome.code) == many.outcome.code[i]
        assert (
            one.stats["accepted"] == many.accepted[i] and one.stats["rejected"] == many.rejected[i]
        )
        if one.outcome != "diverged":
            np.testing.assert_allclose([x[i] for x in many.params], one.params, 1e-6, atol=1e-14)
            np.testing.assert_allclose(many.value[i], one.value, 1e-6, atol=1e-14)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_run_depends_on_nothing_but_its_start(method, monkeypatch):
    """The same bits for any width, order, threads and neighbours, one of them NaN and one overflowing."""
    first = starts(300)
    alone = ends_of(method, first, width=64)
    same(alone, ends_of(method, first, width=16_384))
    with monkeypatch.context() as m:
        m.setattr("os.cpu_count", lambda: 1)
        same(alone, ends_of(method, first, width=64))
    order = np.random.default_rng(1).permutation(300)
    shuffled = ends_of(method, tuple(x[order] for x in first))
    for a, b in zip(jax.tree.leaves(vars(alone)), jax.tree.leaves(vars(shuffled)), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[order], b)
    bad = tuple(np.concatenate([[np.nan, 1e200], x]) for x in first)
    among = ends_of(method, bad, width=64)
    assert np.all(np.asarray(among.outcome == "diverged")[:2])
    for a, b in zip(jax.tree.leaves(vars(alone)), jax.tree.leaves(vars(among)), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b)[2:])


def test_a_run_that_diverged_is_where_it_was_before():
    """The same bits as of the run that stops there, with other runs beside it and waiting for its lane."""
    first = starts(300)
    ends = ends_of(METHODS["gd"], first, width=64, threads=1)
    diverged = np.asarray(ends.outcome == "diverged")
    assert 30 < np.sum(diverged) < 270
    assert np.all(ends.rejected == diverged)
    often = np.bincount(ends.accepted[diverged]).argmax()
    these = diverged & (ends.accepted == often)
    assert often > 1 and np.sum(these) > 3
    before = ends_of(METHODS["gd"], tuple(x[these] for x in first), max_steps=int(often))
    assert np.all(before.outcome == "max_steps")
    for a, b in zip((*ends.params, ends.value), (*before.params, before.value), strict=True):
        np.testing.assert_array_equal(a[these], b)


def test_matrix_products_round_alike_at_any_width():
    """XLA rounds a batch of products by its size: without a fixed one, guarded runs differ in their last digits."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(100, 5))), jnp.asarray(rng.normal(size=100))
    loss = lambda p, args: jnp.mean((jnp.tanh(x @ p["W"].T) @ p["v"] - y) ** 2)
    first = {"W": rng.normal(size=(1000, 7, 5)), "v": rng.normal(size=(1000, 7))}
    call = lambda **how: fo.ensemble(loss, first, fo.lyapunov(), max_steps=12, **how)
    narrow = call(width=64)
    same(narrow, call(width=1000))
    same(narrow, call(threads=1))


def test_sums_and_inner_products_of_a_runs_own_vectors_round_alike_at_any_width():
    """Those in norms, and in the loss: no matrices, so any width is allowed."""
    loss = lambda p, args: jnp.vdot(p, p) * jnp.sum(p) ** 2 + jnp.sum((p[1:] - p[:-1] ** 2) ** 2)
    first = np.random.default_rng(0).normal(size=(300, 9))
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-6)
    method = fo.Method(fo.flows.Gradient(), diffrax.Heun(), controller, step=0.1)
    call = lambda width: fo.ensemble(loss, first, method, max_steps=100, width=width)
    same(call(64), call(1024))


def _many_functions(p, args):
    """Nearly all that is `compiling.plain`, on params in any range, with derivatives."""
    x, y = p["x"], jax.nn.sigmoid(p["y"])
    unary = (
        *(jnp.abs, jnp.arccos, jnp.arcsin, jnp.arctan, jnp.arcsinh, jnp.arctanh, jnp.cbrt, jnp.cos),
        *(jnp.cosh, jnp.exp, jnp.exp2, jnp.expm1, jnp.log, jnp.log1p, jnp.round, jnp.sign, jnp.sin),
        *(
            jnp.sinh,
            jnp.sqrt,
            jnp.tan,
            jnp.tanh,
            jax.lax.rsqrt,
            jax.lax.erf,
            jax.lax.erfc,
            jnp.ceil,
        ),
        *(jax.lax.erf_inv, jnp.floor, jax.nn.softplus, jax.nn.gelu, lambda z: jnp.arccosh(1 + z)),
    )
    total = sum(jnp.sum(f(0.1 + 0.8 * y)) for f in unary)
    total += jnp.sum(jnp.arctan2(x, 1 + y)) + jnp.max(x) - jnp.min(x * y) + jnp.prod(y)
    total += jnp.sum(jnp.concatenate([x[::-1], jnp.pad(y, 1)[1:]]) ** 2) + jnp.sum(x * y)
    total += jnp.sum(jnp.where((x > 0) & (y < 0.5) | (x <= -1), x**3, x % 2) ** 2) + x[0] ** y[1]
    total += jax.lax.fori_loop(0, 3, lambda i, z: 0.5 * z + jnp.sum(jnp.clip(x, -1, 1)), 1.0)
    return total + jax.lax.cond(x[1] > 0, jnp.sum, lambda z: jnp.sum(z.reshape(3, 1).T), x)


def test_one_function_of_all_that_may_be_in_it(monkeypatch):
    """Agrees with the same loop compiled as XLA likes it, to rounding."""
    rng = np.random.default_rng(0)
    first = {k: rng.uniform(0.1, 1, (100, 3)) for k in "xy"}
    call = lambda: fo.ensemble(_many_functions, first, fo.gd(1e-3), max_steps=20, width=64)
    found, plain = [], workers.plain
    monkeypatch.setattr(workers, "plain", lambda jaxpr: found.append(plain(jaxpr)) or found[-1])
    one = call()
    assert found == [True]
    monkeypatch.setattr(workers, "_traits", lambda *_: workers._Traits(False, False, 1000, 100))
    other = call()
    np.testing.assert_array_equal(one.accepted, other.accepted)
    for k in "xy":
        np.testing.assert_allclose(one.params[k], other.params[k], rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["gd", "adam", "euler_richardson", "guarded heavy ball", "Tsit5, PID"]
)
def test_a_step_without_matrices_goes_into_one_function(name, monkeypatch):
    found, plain = [], workers.plain
    monkeypatch.setattr(workers, "plain", lambda jaxpr: found.append(plain(jaxpr)) or found[-1])
    workers._traced_traits.cache_clear()
    ends_of(METHODS[name], starts(3), max_steps=2)
    assert found == [True]


def test_what_is_not_plain_is_compiled_as_xla_likes_it(monkeypatch):
    """A median is sorted for, and drawn noise is drawn."""
    found, plain = [], workers.plain
    monkeypatch.setattr(workers, "plain", lambda jaxpr: found.append(plain(jaxpr)) or found[-1])
    first = np.random.default_rng(0).normal(size=(100, 5))
    ends = fo.ensemble(
        lambda p, args: jnp.sum((p - jnp.median(p)) ** 2), first, fo.gd(0.1), tol=1e-3
    )
    assert found == [False] and np.all(ends.outcome == "converged")
    np.testing.assert_allclose(
        ends.params, np.median(ends.params, axis=1)[:, None] + 0 * first, atol=1e-3
    )


def test_pytrees_args_and_dtypes():
    fn = lambda p, args: jnp.sum((p["x"] - args) ** 2) + p["y"] ** 2
    first = {"x": np.ones((10, 3), np.float32), "y": np.arange(10, dtype=np.float32)}
    target = jnp.array([1.0, 2.0, 3.0], jnp.float32)
    ends = fo.ensemble(fn, first, fo.gd(0.1), args=target, tol=1e-3)
    assert len(ends) == 10 and str(ends.outcome) == "converged: 10"
    assert np.all(ends.outcome == "converged") and not np.any(ends.outcome != "converged")
    assert ends.params["x"].shape == (10, 3) and ends.params["x"].dtype == np.float32
    assert ends.value.shape == ends.grad_norm.shape == ends.accepted.shape == (10,)
    np.testing.assert_allclose(ends.params["x"], np.tile(target, (10, 1)), atol=1e-3)


def test_more_runs_than_lanes_and_no_runs_at_all():
    ends = ends_of(METHODS["gd"], starts(1000), width=64)
    same(ends, ends_of(METHODS["gd"], starts(1000)))
    assert len(ends_of(METHODS["gd"], starts(0))) == 0


def test_a_second_call_compiles_nothing(monkeypatch):
    """Nor do other starts and another tolerance: nothing is traced anew."""
    traced = []

    def loss(p, args):
        traced.append(p)
        return POLY3.loss(p)

    call = lambda first, tol: fo.ensemble(loss, first, METHODS["gd"], tol=tol, max_steps=50)
    call(starts(300), 1e-4)
    assert traced
    traced.clear()
    call(starts(300, seed=1), 1e-3)
    assert not traced


def test_a_flow_may_differentiate_its_gradient():
    """An energy that reads the gradient: the engine's one evaluation has derivatives of any order."""

    class Squared(fo.AbstractFlow):
        def params_field(self, params, memory, at):
            return jax.tree.map(jnp.negative, at.grad)

        def energy(self, params, memory, at):
            return 0.5 * sum(jnp.sum(g**2) for g in jax.tree.leaves(at.grad))

    bowl = lambda p, args: p[0] ** 2 + 2 * p[1] ** 2 + p[0] ** 4
    ends = fo.ensemble(bowl, starts(20), fo.lyapunov(Squared()), tol=1e-6, max_steps=500)
    assert np.all(ends.outcome == "converged")
    np.testing.assert_allclose(ends.params, 0, atol=1e-6)


def test_settings_of_context_managers_reach_the_threads():
    with jax.enable_x64(False):
        ends = ends_of(METHODS["gd"], tuple(x.astype(np.float32) for x in starts(300)))
    assert ends.params[0].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (dict(starts=(np.ones(3), np.ones(4))), ValueError, "`starts`.*one length"),
        (dict(starts=(1.0, 2.0)), ValueError, "`starts`.*leading axis"),
        (dict(starts=(np.ones(3, int), np.ones(3))), TypeError, "`starts`.*dtype int"),
        (dict(width=0), ValueError, "`width`"),
        (dict(max_steps=None), ValueError, "`max_steps`"),
        (dict(tol=0.0), ValueError, "`tol`"),
        (dict(fn=lambda p, a: p), TypeError, "`fn`"),
    ],
)
def test_bad_input_is_named(change, error, says):
    arguments = dict(fn=POLY3.loss, starts=starts(3), method=fo.gd(0.1)) | change
    with pytest.raises(error, match=says):
        fo.ensemble(**arguments)
