"""The named networks: their points, against what is published of them, and their losses."""

import collections
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp

from flowopt import benchmarks

NETWORKS = ("poly2", "poly3", "poly4", "poly5", "poly8", "rational", "exp2", "exp4", "exp5")
NINE = {"minimum": 4, "saddle": 4, "maximum": 1}


def natures(problem):
    return dict(collections.Counter(p.nature for p in problem.critical_points))


def coordinates(problem):
    """The critical coordinates of phi_0: u = b, each with its multiplicity."""
    return {p.exact[1]: p.multiplicity[0] for p in problem.critical_points}


@pytest.mark.parametrize("name", ["poly2", "poly3", "poly4"])
def test_nine_points(name):
    assert natures(getattr(benchmarks, name)()) == NINE


def test_poly3_has_minima_of_unequal_depth():
    minima = [p for p in benchmarks.poly3().critical_points if p.nature == "minimum"]
    assert [p.exact_value for p in minima] == [0, 4, 4, 8]
    assert minima[0].exact == (0, -1)


def test_poly4_has_minima_of_equal_depth():
    minima = [p for p in benchmarks.poly4().critical_points if p.nature == "minimum"]
    assert [p.exact_value for p in minima] == [2, 2, 2, 2]


def test_poly5_has_singular_points():
    problem = benchmarks.poly5()
    assert coordinates(problem) == {-1: 3, 1: 2, sp.Rational(11, 5): 1, 3: 1}
    one = {-1: "minimum", 1: "flat", sp.Rational(11, 5): "maximum", 3: "minimum"}
    assert len(problem.critical_points) == 16
    for point in problem.critical_points:
        w, b = point.exact
        pair = {one[b], one[w + b]}
        expected = "flat" if "flat" in pair else pair.pop() if len(pair) == 1 else "saddle"
        assert point.nature == expected
        singular = np.linalg.matrix_rank(point.hessian) < 2
        assert singular == (max(point.multiplicity) > 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_vanishes_and_the_value_and_hessian_agree(name):
    problem = getattr(benchmarks, name)()
    for point in problem.critical_points:
        params = tuple(jnp.asarray(x) for x in point.params)
        gradient = jnp.stack(jax.grad(problem.loss)(params))
        hessian = np.array(jax.hessian(problem.loss)(params))
        scale = 1 + np.abs(hessian).max()
        assert float(jnp.linalg.norm(gradient)) < 1e-12 * scale
        np.testing.assert_allclose(problem.loss(params), point.value, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(point.hessian, hessian, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_exact_gradient_is_exactly_zero(name):
    problem = getattr(benchmarks, name)()
    gradient = [problem.expression.diff(v) for v in problem.symbols]
    for point in problem.critical_points:
        at = dict(zip(problem.symbols, point.exact, strict=True))
        assert [sp.simplify(d.subs(at)) for d in gradient] == [0, 0]
        assert sp.simplify(problem.expression.subs(at) - point.exact_value) == 0


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_loss_keeps_the_dtype_and_has_no_arrays_inside(name, dtype):
    problem = getattr(benchmarks, name)()
    params = (jnp.asarray(0.3, dtype), jnp.asarray(-0.7, dtype))
    assert problem.loss(params).dtype == dtype
    jaxpr = jax.make_jaxpr(problem.loss)(params)
    assert all(v.aval.shape == () for equation in jaxpr.eqns for v in equation.outvars)
    assert {v.aval.dtype for equation in jaxpr.eqns for v in equation.outvars} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_object_on_every_call(name):
    make = getattr(benchmarks, name)
    assert make() is make()
    assert make().name == name
    assert make.__doc__


def test_importing_does_not_import_sympy():
    code = "import sys, flowopt.benchmarks;sys.exit(not {'sympy', 'flint'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_poly8_has_flat_minima():
    problem = benchmarks.poly8()
    assert coordinates(problem) == {0: 1, 1: 3, 2: 3}
    one = {0: "minimum", 1: "maximum", 2: "minimum"}
    assert natures(problem) == NINE
    for point in problem.critical_points:
        w, b = point.exact
        pair = {one[b], one[w + b]}
        assert point.nature == (pair.pop() if len(pair) == 1 else "saddle")
    z = sp.Symbol("z")
    g = sp.integrate(sp.expand(280 * z * (z - 1) ** 3 * (z - 2) ** 3), z) + 1
    w, b = problem.symbols
    assert sp.expand(problem.expression - (g.subs(z, b) ** 2 + g.subs(z, w + b) ** 2) / 4) == 0


def test_rational_has_a_flat_minimum_at_the_golden_ratio():
    problem = benchmarks.rational()
    (minimum,) = [p for p in problem.critical_points if p.nature == "minimum"]
    assert sp.simplify(minimum.exact[1] - sp.GoldenRatio.expand(func=True)) == 0
    assert minimum.exact[0] == 0 and minimum.exact_value == 0
    assert minimum.multiplicity == (3, 3)
    assert not np.any(minimum.hessian)


@pytest.mark.parametrize("name, count", [("exp2", 1), ("exp4", 9), ("exp5", 16)])
def test_the_exponential_networks(name, count):
    problem = getattr(benchmarks, name)()
    assert len(problem.critical_points) == count
    assert all(p.multiplicity == (1, 1) for p in problem.critical_points)
    values = {"exp2": sp.exp(-1) / 2, "exp4": sp.exp(-1) / 2, "exp5": sp.exp(-8) / 2}
    assert problem.critical_points[0].exact_value == values[name]


@pytest.mark.parametrize(
    "name, largest",
    [
        ("poly2", 1.5e3),
        ("poly3", 1.1e6),
        ("poly4", 2.8e7),
        ("poly5", 6.6e9),
        ("poly8", 4.1e19),
        ("bell", 1.2e-5),
        ("rational", 0.11),
        ("exp2", 1.0e53),
        ("exp4", np.inf),
        ("exp5", np.inf),
    ],
)
def test_the_gradients_that_the_documentation_states(name, largest):
    problem = getattr(benchmarks, name)()
    corners = np.array([(-5.0, -5.0), (-5.0, 5.0), (5.0, -5.0), (5.0, 5.0)])
    norms = [float(jnp.hypot(*jax.grad(problem.loss)((w, b)))) for w, b in corners]
    assert f"{max(norms):.1e}" == f"{largest:.1e}"
    if np.isfinite(largest):
        stated = f"{largest:.1e}".replace("+", "").replace("e0", "e").replace("e-0", "e-")
        assert stated in problem_doc(name) or str(largest) in problem_doc(name)


def problem_doc(name):
    return " ".join((getattr(benchmarks, name).__doc__ or "").split())
