"""Comparisons, sweeps and the cost of a step, against single runs and by hand."""

import diffrax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import xarray as xr

import flowopt as fo
from flowopt.run.work import work
from flowopt.stability.compare import TAUS, profile

matplotlib.use("Agg")
POLY2, POLY3 = fo.benchmarks.poly2(), fo.benchmarks.poly3()
REGION = fo.uniform((-3, 3), (-3, 3))
START = (jnp.array(0.4), jnp.array(0.7))
METHODS = {"GD": fo.gd(0.05), "guarded": fo.lyapunov()}
SETTINGS = dict(n=60, key=0, max_steps=400)


@pytest.fixture(scope="module")
def ds():
    return fo.compare([POLY2, POLY3], METHODS, REGION, factors=(0.1, 10.0), **SETTINGS)


@pytest.mark.parametrize(
    "method",
    [fo.gd(0.05), fo.lyapunov(), fo.euler_richardson(), fo.default_method()],
    ids=["GD", "guarded", "Euler-Richardson", "default"],
)
def test_the_work_is_what_a_run_counts(method):
    """(value_evals + grad_evals)/2 + 2 hessian_products, of a run that rejects steps too."""
    end = fo.minimise(POLY2.loss, START, method, max_steps=30, tol=1e-9)
    s = {k: int(v) for k, v in end.stats.items() if k.endswith(("evals", "products"))}
    cost = (s["value_evals"] + s["grad_evals"]) / 2 + 2 * s["hessian_products"]
    counted = work(POLY2.loss, START, method)
    assert counted is not None
    assert counted.of(end.stats["accepted"], end.stats["rejected"]) == cost


def test_the_work_of_an_inner_loop_is_not_known():
    implicit = fo.Method(fo.flows.Gradient(), diffrax.ImplicitEuler(), step=0.1)
    assert work(POLY2.loss, START, implicit) is None
    # And of least squares a Jacobian of n columns is n gradients.
    r = fo.SumOfSquares(lambda p, args: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]]))
    assert work(r, jnp.ones(2), fo.levenberg_marquardt()) == (2.5, 0.5, 2.0)


def test_it_says_what_reach_says(ds):
    for problem in (POLY2, POLY3):
        for name, method in METHODS.items():
            one = fo.reach(problem, method, REGION, **SETTINGS)
            row = ds.sel(problem=problem.name, optimizer=name)
            np.testing.assert_array_equal(row.label, one.label)
            for k in ("probability", "lower", "upper"):
                np.testing.assert_array_equal(row[k].sel(end=one.end), one[k])
            done = one.label.values >= -1
            assert float(row.converged) == done.mean()
            per_step = work(problem.loss, START, method)
            assert per_step is not None
            cost = np.where(done, per_step.of(one.accepted, one.rejected), np.inf)
            np.testing.assert_array_equal(row.cost, cost)
            half = np.sort(cost)[int(np.ceil(0.5 * 60)) - 1]
            assert float(row.cost_quantile.sel(quantile=0.5)) == half


def test_it_says_all_it_takes_to_run_it_again(ds):
    assert ds.attrs["methods"] == [repr(m) for m in METHODS.values()]
    assert "key [0, 0]" in ds.attrs["starts"] and ds.attrs["max_steps"] == 400
    assert {"tol", "radius", "stop", "jax version", "flowopt version"} <= set(ds.attrs)


def test_numbers_are_varied_one_at_a_time(ds):
    row = ds.sel(problem="poly2", optimizer="guarded")
    varied = fo.reach(POLY2, fo.lyapunov(step=1.0), REGION, **SETTINGS)
    one = row.sel(hyperparameter="step", factor=10.0)
    assert float(one.varied_converged) == np.mean(varied.label.values >= -1)
    # lam = 5 may not be, GD has no lam, and a guard's atol is 1: all NaN.
    assert np.isnan(row.varied_converged.sel(hyperparameter="solver.lam", factor=10.0))
    assert np.isfinite(row.varied_converged.sel(hyperparameter="solver.lam", factor=0.1))
    gd = ds.sel(problem="poly2", optimizer="GD")
    assert np.all(np.isnan(gd.varied_converged.sel(hyperparameter="solver.lam")))
    assert np.all(np.isnan(row.varied_converged.sel(hyperparameter="controller.atol")))
    # A tenfold learning rate diverges where the first step of a guarded method does not matter.
    assert float(gd.varied_converged.sel(hyperparameter="step", factor=10.0)) < 0.3
    assert float(one.varied_converged) == 1


def test_profile_by_hand():
    cost = np.array([[[1.0, 4.0, np.inf, 2.0], [2.0, 1.0, np.inf, np.nan]]])
    got = profile(cost)
    np.testing.assert_allclose(got[:, 0], [0.5, 0.25])
    np.testing.assert_allclose(got[:, TAUS.index(2.0)], [0.5, 0.5])
    np.testing.assert_allclose(got[:, TAUS.index(4.0)], [0.75, 0.5])
    np.testing.assert_allclose(got[:, -1], [0.75, 0.5])


def test_table_figure_and_zarr(ds, tmp_path):
    text = fo.comparison_table(ds)
    assert "### poly2" in text and "### poly3" in text
    assert "minimum (-2, 1)" in text and "| guarded |" in text and "% (" in text
    for line in text.splitlines():
        assert line.count("|") in (0, *(x.count("|") for x in text.splitlines() if "---" in x))
    figure = fo.plot_comparison(ds)
    assert len(figure.axes) == 5
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(METHODS)
    # The bars of a method add up to all its runs.
    for i in range(2):
        width = sum(c.patches[i].get_width() for c in figure.axes[0].containers)
        np.testing.assert_allclose(width, 1)
    matplotlib.pyplot.close(figure)
    ds.to_zarr(tmp_path / "ds.zarr", consolidated=False)
    read = xr.open_zarr(tmp_path / "ds.zarr", consolidated=False).load()
    xr.testing.assert_equal(read, ds)
    with pytest.raises(ValueError, match="`ds`"):
        fo.plot_comparison(ds.drop_vars("profile"))


def test_a_sweep_is_reach_at_each_value():
    values = (1e-3, 0.05, 0.2)
    swept = fo.sweep(POLY2, fo.gd, values, REGION, **SETTINGS)
    for value in values:
        one = fo.reach(POLY2, fo.gd(value), REGION, **SETTINGS)
        np.testing.assert_array_equal(swept.label.sel(value=value), one.label)
    make = lambda lam: fo.lyapunov(lam=lam)
    partly = fo.sweep(POLY2, make, (0.5, 1.5), REGION, **SETTINGS)
    assert float(partly.converged[0]) == 1 and np.isnan(partly.converged[1])
    assert np.all(partly.label[1] == -9)


def test_hyperparameters_by_name():
    numbers = fo.hyperparameters(fo.lyapunov(fo.flows.HeavyBall(2.0), step=0.3))
    assert numbers["flow.friction"] == 2 and numbers["step"] == 0.3 and numbers["solver.lam"] == 0.5
    changed = fo.with_hyperparameter(fo.lyapunov(fo.flows.HeavyBall(2.0)), "flow.friction", 7.0)
    assert changed.flow.friction == 7 and changed.solver.lam == 0.5


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fo.compare([], METHODS, REGION, 5, 0), ValueError, "`problems`"),
        (lambda: fo.compare([POLY2, POLY2], METHODS, REGION, 5, 0), ValueError, "`problems`"),
        (lambda: fo.compare(POLY2, {}, REGION, 5, 0), TypeError, "`methods`"),
        (lambda: fo.compare(POLY2, [fo.gd(0.1)], REGION, 5, 0), TypeError, "`methods`"),
        (lambda: fo.compare(POLY2, {"GD": "gd"}, REGION, 5, 0), TypeError, "`method`"),
        (lambda: fo.compare(POLY2, METHODS, REGION, 0, 0), ValueError, "`n`"),
        (lambda: fo.compare(POLY2, METHODS, REGION, 5, 0, factors=(0.0,)), ValueError, "`factors`"),
        (lambda: fo.compare(POLY2.loss, METHODS, REGION, 5, 0), TypeError, "`problems`"),
        (lambda: fo.sweep(POLY2, fo.gd, (), REGION, 5, 0), ValueError, "`values`"),
        (lambda: fo.sweep(POLY2, fo.gd, (-1.0,), REGION, 5, 0), ValueError, "`values`"),
        (lambda: fo.with_hyperparameter(fo.gd(0.1), "lr", 1.0), ValueError, "`name` must be among step"),
        (lambda: fo.with_hyperparameter(fo.gd(0.1), "step", -1.0), ValueError, "`step`"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
