"""Problem and classify: what is known of a loss, and to which point a result belongs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowopt.benchmarks import CriticalPoint, Problem, poly2


def quadratic(params, args=None):
    return sum(jnp.sum(x * x) for x in jax.tree.leaves(params))


def double_well(params, args=None):
    (z, v) = params
    return (z * z - 1.0) ** 2 + v * v


def test_a_users_own_loss_gets_natures_from_the_hessian():
    points = [(1.0, 0.0), (-1.0, 0.0), (0.0, 0.0)]
    problem = Problem(double_well, critical_points=points, name="double well")
    assert [p.params for p in problem.critical_points] == [(-1.0, 0.0), (1.0, 0.0), (0.0, 0.0)]
    assert [p.nature for p in problem.critical_points] == ["minimum", "minimum", "saddle"]
    assert [p.value for p in problem.critical_points] == [0.0, 0.0, 1.0]
    np.testing.assert_allclose(problem.critical_points[2].hessian, [[-4.0, 0.0], [0.0, 2.0]])


def test_a_singular_hessian_is_left_undecided():
    problem = Problem(lambda p, args=None: p[0] ** 4 + p[1] ** 2, critical_points=[(0.0, 0.0)])
    assert problem.critical_points[0].nature == "undecided"


def test_classify_finds_the_nearest_point_or_none():
    problem = Problem(double_well, critical_points=[(1.0, 0.0), (-1.0, 0.0)])
    z = np.array([1.0, -1.03, 0.0, np.nan, np.inf, 1.2])
    v = np.array([0.0, 0.03, 0.0, 0.0, 0.0, 0.0])
    found = problem.classify((z, v))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [1, 0, -1, -1, -1, -1])
    np.testing.assert_array_equal(problem.classify((z, v), radius=0.3), [1, 0, -1, -1, -1, 1])
    assert problem.classify((1.0, 0.0)).shape == ()


def test_classify_takes_leaves_of_any_shape_and_batch():
    point = {"a": np.array([1.0, 2.0]), "b": 0.5}
    problem = Problem(quadratic, critical_points=[point, {"a": np.zeros(2), "b": 0.0}])
    a = np.zeros((3, 4, 2))
    b = np.zeros((3, 4))
    a[1, 2], b[1, 2] = [1.0, 2.0], 0.5
    found = problem.classify({"a": a, "b": b})
    assert found.shape == (3, 4)
    assert found[1, 2] == 1
    assert np.sum(found == 0) == 11


def test_classify_a_million_params():
    problem = poly2()
    rng = np.random.default_rng(0)
    index = rng.integers(9, size=1_000_000)
    truth = np.array([p.params for p in problem.critical_points])
    params = truth[index] + rng.uniform(-0.03, 0.03, size=(1_000_000, 2))
    np.testing.assert_array_equal(problem.classify((params[:, 0], params[:, 1])), index)


def test_overlapping_balls_give_the_nearest():
    problem = Problem(double_well, critical_points=[(1.0, 0.0), (-1.0, 0.0)])
    assert problem.classify((0.1, 0.0), radius=5.0) == 1
    assert problem.classify((-0.1, 0.0), radius=5.0) == 0


def test_a_problem_is_hashed_by_identity_and_may_be_static():
    problem = poly2()
    value = jax.jit(lambda p, q: q.loss(p), static_argnums=1)((1.0, 0.0), problem)
    assert float(value) == 0.25
    assert hash(problem) == hash(poly2())
    assert Problem(double_well) != Problem(double_well)


@pytest.mark.parametrize("radius", [0.0, -1.0, np.nan, np.inf])
def test_bad_radius(radius):
    with pytest.raises(ValueError, match="radius"):
        poly2().classify((0.0, 0.0), radius=radius)


def test_bad_input_names_the_argument():
    with pytest.raises(TypeError, match="loss"):
        Problem(3.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="params"):
        poly2().classify(np.zeros(2))
    with pytest.raises(ValueError, match="params"):
        poly2().classify((np.zeros(2), np.zeros(3)))
    with pytest.raises(ValueError, match="critical_points"):
        Problem(quadratic, critical_points=[(0.0, 0.0), [0.0, 0.0]])
    with pytest.raises(ValueError, match="critical_points"):
        Problem(quadratic, critical_points=[(0.0, np.nan)])
    with pytest.raises(ValueError, match="nature"):
        CriticalPoint(params=(0.0,), nature="lovely")
