"""Certified critical points: against the exact ones, and by independent search."""

import itertools

import numpy as np
import pytest
import sympy as sp
from scipy.optimize import root

from flowopt import benchmarks
from flowopt.benchmarks import certify_critical_points, critical_continua, network_expression
from flowopt.benchmarks.derivatives import Derivatives

HALF = sp.Rational(1, 2)
X, Y = (-1, HALF, 2), (HALF, -HALF / 2, 3 * HALF / 2)
BOX = {"poly8": 4.0, "exp5": 3.5}


def inside(boxes, x, slack=0.0):
    return np.all((boxes[..., 0] - slack <= x) & (x <= boxes[..., 1] + slack), axis=-1)


@pytest.mark.parametrize(
    "name", ["poly2", "poly3", "poly4", "poly5", "poly8", "rational", "exp2", "exp4", "exp5"]
)
def test_agrees_with_the_exact_method(name):
    problem = getattr(benchmarks, name)()
    side = BOX.get(name, 4.5)
    certificate = certify_critical_points(problem, [(-side, side)] * 2, progress=False)
    regular = [p for p in problem.critical_points if max(p.multiplicity) == 1]
    assert len(certificate.points) == len(regular)
    for exact in regular:
        at = np.array(exact.params)
        (found,) = [p for p in certificate.points if inside(np.array(p.enclosure), at)]
        assert found.nature == exact.nature
        assert found.value == pytest.approx(exact.value, rel=1e-12, abs=1e-14)
    degenerate = [p for p in problem.critical_points if max(p.multiplicity) > 1]
    for exact in degenerate:
        assert inside(certificate.undecided, np.array(exact.params), 1e-9).any()
    # What is undecided is small and next to degenerate points, or, for exp5, to points at which the
    # eigenvalues of the Hessian differ by 12 orders and more.
    assert certificate.volume_undecided < 1e-3
    difficult = problem.critical_points if name == "exp5" else degenerate
    for centre in certificate.undecided.mean(axis=2):
        assert min(np.linalg.norm(centre - np.array(p.params)) for p in difficult) < 0.1
    if name in ("poly2", "poly3", "poly4", "exp2", "exp4"):
        assert certificate.complete
    assert not certificate.limit_reached


def test_bell_is_complete_but_for_a_small_area():
    problem = benchmarks.bell()
    certificate = certify_critical_points(problem, [(-6, 6)] * 2, progress=False)
    for sign in (1, -1):
        exact = (0.0, sign * np.sqrt(2 * np.log(1.5)))
        found = [p for p in certificate.points if inside(np.array(p.enclosure), exact, 1e-15)]
        assert len(found) == 1 and found[0].nature == "minimum"
    assert len(certificate.points) == 6
    assert certificate.volume_undecided < 1e-4
    assert np.abs(certificate.undecided).max() < 0.05  # all of it around the degenerate origin
    (origin,) = [p for p in problem.critical_points if p.exact is not None]
    assert (
        origin.exact == (0, 0)
        and origin.nature == "saddle"
        and origin.exact_value == sp.Rational(1, 6)
    )
    assert "undecided" in certificate.statement and "provably" in certificate.statement


@pytest.mark.parametrize("g", ["tanh", "sigmoid", "softplus", "sine", "gelu"])
def test_one_neuron_and_three_data_agrees_with_a_multi_start_search(g):
    side = 4.0
    problem = benchmarks.neuron(g, X, Y, box=[(-side, side)] * 2)
    certificate = certify_critical_points(problem, [(-side, side)] * 2, progress=False)
    assert certificate.complete
    derivatives = Derivatives(problem.expression, problem.symbols)
    found = set()
    for start in np.random.default_rng(0).uniform(-side, side, (400, 2)):
        result = root(
            lambda x: np.array([float(v) for v in derivatives.gradient(list(x))]),
            start,
            jac=lambda x: np.array([[float(v) for v in r] for r in derivatives.hessian(list(x))]),
            tol=1e-13,
        )
        if result.success and np.abs(result.x).max() < side and np.abs(result.fun).max() < 1e-11:
            index = int(problem.classify(tuple(result.x), radius=1e-3))
            if index < 0:  # far out the gradient is small and yet not zero: Newton's step says so
                h = np.array([[float(v) for v in r] for r in derivatives.hessian(list(result.x))])
                assert np.linalg.norm(np.linalg.lstsq(h, result.fun)[0]) > 1e-3
            found.add(index)
    found -= {-1}
    assert found and len(found) >= 0.9 * len(certificate.points)


def test_one_tanh_neuron_over_a_wide_box():
    """The box of the issue; 0.6 s on one core."""
    expression, symbols = network_expression("tanh", X, Y, neurons=1, biases=True)
    expression = expression.subs(symbols[2], 1)
    certificate = certify_critical_points(
        expression, [(-10, 10)] * 2, symbols=symbols[:2], progress=False
    )
    assert certificate.complete and len(certificate.points) == 1
    assert certificate.points[0].nature == "minimum"


@pytest.fixture(scope="module")
def two_neurons():
    expression, symbols = network_expression("tanh", X, (-1, HALF, sp.Rational(5, 4)), neurons=2)
    box = [(-3, 3)] * 4
    return (
        expression,
        symbols,
        certify_critical_points(expression, box, symbols=symbols, resolution=0.1, progress=False),
    )


def test_two_tanh_neurons_have_symmetries_and_continua(two_neurons):
    expression, symbols, certificate = two_neurons
    assert len(certificate.symmetries) == 7  # exchange and two sign flips generate a group of eight
    assert not certificate.limit_reached
    assert [p.params for p in certificate.points] == [(0.0, 0.0, 0.0, 0.0)]
    continua = critical_continua(expression, certificate, symbols=symbols, samples=40)
    kinds = {(c.dimension, c.hessian_rank, round(c.value, 6), c.nature) for c in continua}
    # R = 0 along curves: three equations in four unknowns
    assert (1, 3, 0.0, "minimum") in kinds
    for c in continua:
        assert c.gradient_norm < 1e-9
        assert c.sample.shape[1] == 4


def test_critical_points_of_two_neurons_are_all_covered(two_neurons):
    """Whatever a search finds must lie in a certified region or in an undecided box: nothing was discarded wrongly."""
    expression, symbols, certificate = two_neurons
    derivatives = Derivatives(expression, symbols)
    gradient = lambda x: np.array([float(v) for v in derivatives.gradient(list(x))])
    hessian = lambda x: np.array([[float(v) for v in r] for r in derivatives.hessian(list(x))])
    found = 0
    for x in np.random.default_rng(0).uniform(-3, 3, (300, 4)):
        for _ in range(60):
            x = x - np.linalg.lstsq(hessian(x), gradient(x), rcond=1e-6)[0]
        if np.abs(x).max() < 3 and np.abs(gradient(x)).max() < 1e-13:
            found += 1
            assert (
                inside(certificate.undecided, x, 1e-6).any() or inside(certificate.regions, x).any()
            )
    assert found > 50


def test_the_duplicated_neuron_is_recognised():
    """Two neurons alike share the work of one: a line of critical points for each of its own."""
    y = (-1, HALF, sp.Rational(5, 4))
    one, symbols = network_expression("tanh", X, y, neurons=1)
    single = certify_critical_points(one, [(-3, 3)] * 2, symbols=symbols, progress=False)
    (w, v) = next(p.params for p in single.points if p.nature == "minimum" and p.params[0] > 0)
    two, symbols = network_expression("tanh", X, y, neurons=2)
    box = [(w - 0.02, w + 0.02)] * 2 + [(v / 2 - 0.05, v / 2 + 0.05)] * 2
    certificate = certify_critical_points(
        two, box, symbols=symbols, resolution=0.01, progress=False
    )
    assert not certificate.points and not certificate.complete
    continua = critical_continua(two, certificate, symbols=symbols)
    assert {(c.dimension, c.hessian_rank) for c in continua} == {(1, 3)}
    for c in continua:
        np.testing.assert_allclose(c.sample[:, :2], w, atol=1e-8)
        np.testing.assert_allclose(c.sample[:, 2:].sum(axis=1), v, atol=1e-8)
        value = next(p.value for p in single.points if p.params == (w, v))
        assert c.value == pytest.approx(value, abs=1e-8)


def test_the_work_limit_gives_an_honest_partial_answer():
    problem = benchmarks.poly3()
    whole = certify_critical_points(problem, [(-5, 5)] * 2, progress=False)
    part = certify_critical_points(problem, [(-5, 5)] * 2, max_boxes=60, progress=False)
    assert whole.complete and part.limit_reached and not part.complete
    assert part.boxes_examined <= 60
    assert "work limit was reached" in part.statement
    for point in whole.points:
        x = np.array(point.params)
        assert inside(part.undecided, x).any() or inside(part.regions, x).any()


def test_enclosures_hold_one_point_each_and_points_on_an_edge_count():
    problem = benchmarks.poly2()
    certificate = certify_critical_points(problem, [(-1, 1), (-1, 1)], progress=False)
    found = {tuple(np.round(p.params, 9) + 0.0) for p in certificate.points}
    assert found == {p.params for p in problem.critical_points if np.abs(p.params).max() <= 1}
    for (a, p), (c, q) in itertools.combinations(enumerate(certificate.points), 2):
        assert not inside(certificate.regions[a], np.array(q.params))
        assert not inside(certificate.regions[c], np.array(p.params))


def test_a_loss_of_the_users_own():
    a, c = sp.symbols("a c")
    certificate = certify_critical_points(
        (a**2 - 1) ** 2 + c**2, [(-2, 2), (-2, 2)], progress=False
    )
    assert certificate.complete
    assert [p.nature for p in certificate.points] == ["minimum", "minimum", "saddle"]


def test_degenerate_extrema_are_decided_by_the_splitting_lemma():
    from flowopt.benchmarks.degenerate import degenerate_points

    a, c = sp.symbols("a c", real=True)
    third = sp.Rational(1, 3)
    for loss, nature in (
        ((a - third) ** 4 + (c - a) ** 2, "minimum"),
        (-((a - third) ** 4) - (c - a) ** 2, "maximum"),
        ((a - third) ** 4 - (c - a) ** 2, "saddle"),
        ((a - third) ** 3 + (c - a) ** 2, "flat"),
        # the fourth order of the slice c = 0 is positive; that of the valley c = a^2 is not
        ((c - a**2) ** 2 - a**4 / 2 + a**6, "saddle"),
        ((c - a**2) ** 2 + a**6, "minimum"),
    ):
        certificate = certify_critical_points(
            loss, [(-0.3, 0.6)] * 2, symbols=(a, c), resolution=0.01, progress=False
        )
        points = degenerate_points(loss, (a, c), certificate)
        assert [p.nature for p in points] == [nature], loss


def test_the_progress_bar(capsys):
    certify_critical_points(benchmarks.poly2(), [(-2, 2)] * 2)
    assert "of the volume decided" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, error, name",
    [
        ({"loss": benchmarks.Problem(lambda p, args=None: p[0])}, ValueError, "loss"),
        ({"loss": 3.0}, TypeError, "loss"),
        ({"loss": sp.Symbol("a") * sp.gamma(sp.Symbol("a"))}, ValueError, "loss"),
        ({"box": [(0, 0), (0, 1)]}, ValueError, "box"),
        ({"box": [(0, 1)]}, ValueError, "box"),
        ({"box": [(0, np.inf), (0, 1)]}, ValueError, "box"),
        ({"box": [(1, 0), (0, 1)]}, ValueError, "box"),
        ({"box": 3}, ValueError, "box"),
        ({"resolution": 0.0}, ValueError, "resolution"),
        ({"max_boxes": 0}, ValueError, "max_boxes"),
        ({"loss": sp.Symbol("a"), "symbols": [sp.Symbol("b")]}, ValueError, "symbols"),
    ],
)
def test_bad_input_names_the_argument(change, error, name):
    arguments = {"loss": benchmarks.poly2(), "box": [(-1, 1), (-1, 1)]}
    if "loss" in change and isinstance(change["loss"], sp.Expr):
        arguments["box"] = [(-1, 1)]
    with pytest.raises(error, match=rf"^{name}:"):
        certify_critical_points(**{**arguments, **change}, progress=False)


def test_symmetries_are_closed_under_composition():
    from flowopt.benchmarks.symmetry import Symmetry, _closed, symmetries

    a, c, d = sp.symbols("a c d", real=True)
    box = np.array([[-1.0, 1.0]] * 3)
    loss = (a * c * d) ** 2 + a**2 + c**2 + d**2
    full = symmetries(loss, (a, c, d), box)
    assert len(full) == 47  # all 8 x 6 signed exchanges but for the identity
    cycle, flip = (
        Symmetry((1, 2, 0), (1, 1, 1), (a, c, d)),
        Symmetry((0, 1, 2), (-1, 1, 1), (a, c, d)),
    )
    generated = _closed([cycle, flip], (a, c, d))
    assert len(generated) == 23  # 3 x 8, but for the identity
    point = np.array([0.1, 0.2, 0.3])
    value = sp.lambdify((a, c, d), loss)
    for symmetry in full:
        assert value(*symmetry.point(point)) == pytest.approx(value(*point))
    # a box that the symmetry does not map to itself does not allow it
    assert not symmetries(a**2 + c**2, (a, c), np.array([[-1.0, 2.0], [-1.0, 3.0]]))
