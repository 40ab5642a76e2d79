"""A user's own network: exact points for each kind of activation, and errors."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp

from flowopt.benchmarks import neuron

z = sp.Symbol("z")


def test_a_string_a_float_and_a_fraction_are_read_exactly():
    a = neuron("a**2 - 0.1", (0, 0.5), (Fraction(1, 3), 0.2))
    b = neuron(
        z**2 - sp.Rational(1, 10), (0, sp.Rational(1, 2)), (sp.Rational(1, 3), sp.Rational(1, 5))
    )
    assert [p.exact for p in a.critical_points] == [p.exact for p in b.critical_points]
    assert a.expression == b.expression


@pytest.mark.parametrize(
    "g, y",
    [
        (sp.tanh(z), (0.5, -0.25)),
        (1 / (1 + sp.exp(-z)), (0.5, 0.75)),
        (1 / sp.cosh(z), (0.5, 0)),
        (sp.exp(-(z**2) / 2), (0.5, Fraction(1, 3))),
        (sp.exp(-(z**2) / 2), (1, 0)),
        (sp.exp(-(z**2) / 2), (-1, 2)),
        (z * sp.exp(-z), (0, 0)),
        (z / (1 + z**2), (0.25, 0.5)),
        ((z**3 - sp.sqrt(2) * z), (1, 0)),
        (z**5 - z - 1, (0, 3)),
    ],
)
def test_the_points_are_critical_and_none_on_a_grid_is_missed(g, y):
    problem = neuron(g, (0, 1), y)
    phi = [sp.lambdify(z, sp.diff((g - sp.nsimplify(t, rational=True)) ** 2, z)) for t in y]
    grid = np.linspace(-20, 20, 200_001) + 1.234567e-5
    counts = []
    for derivative in phi:
        values = derivative(grid)
        counts.append(int(np.sum(np.sign(values[1:]) * np.sign(values[:-1]) < 0)))
    odd = [p for p in problem.critical_points if p.nature != "flat"]
    assert len(odd) == counts[0] * counts[1]
    for point in problem.critical_points:
        params = tuple(jnp.asarray(x) for x in point.params)
        gradient = np.array(jax.grad(problem.loss)(params))
        assert np.abs(gradient).max() < 1e-12 * (1 + np.abs(point.hessian).max())
        np.testing.assert_allclose(problem.loss(params), point.value, atol=1e-14, rtol=1e-12)


def test_poles_are_no_critical_points():
    problem = neuron(1 / z + z, (0, 1), (0, 0))
    assert sorted({p.exact[1] for p in problem.critical_points}) == [-1, 1]


@pytest.mark.parametrize(
    "g, x, y, error, name",
    [
        (z * sp.Symbol("a"), (0, 1), (0, 0), ValueError, "g"),
        (sp.Integer(3), (0, 1), (0, 0), ValueError, "g"),
        (z - z, (0, 1), (0, 0), ValueError, "g"),
        (sp.sin(z) ** 2 + sp.cos(z) ** 2, (0, 1), (0, 0), ValueError, "g"),
        ("z +* 2", (0, 1), (0, 0), ValueError, "g"),
        ([z], (0, 1), (0, 0), TypeError, "g"),
        (z**2, (1, 1), (0, 0), ValueError, "x"),
        (z**2, (1, 1.0), (0, 0), ValueError, "x"),
        (z**2, (sp.sqrt(8), 2 * sp.sqrt(2)), (0, 0), ValueError, "x"),
        (z**2, (), (), ValueError, "x"),
        (z**2, (1,), (0,), ValueError, "x"),
        (z**2, (0, 1), (0,), ValueError, "y"),
        (z**2, (0, 1), (0, float("nan")), ValueError, "y"),
        (z**2, (0, float("inf")), (0, 0), ValueError, "x"),
        (z**2, (0, sp.nan), (0, 0), ValueError, "x"),
        (z**2, (0, sp.I), (0, 0), ValueError, "x"),
        (z**2, (0, True), (0, 0), TypeError, "x"),
        (z**2, (0, z), (0, 0), TypeError, "x"),
        (z**2, (0, "a b"), (0, 0), ValueError, "x"),
    ],
)
def test_bad_input_names_the_argument(g, x, y, error, name):
    with pytest.raises(error, match=rf"^{name}:"):
        neuron(g, x, y)
