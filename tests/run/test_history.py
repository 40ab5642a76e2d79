"""The history of a run: what is recorded, in bounded memory, and drawn."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from problems import quadratic, rosenbrock

import flowopt as fo

matplotlib.use("Agg")
START = jnp.array([-1.2, 1.0])
BALL = fo.lyapunov(fo.flows.HeavyBall(1.0))
QUANTITIES = {"time", "step", "value", "grad_norm", "energy", "kinetic", "rate", "defect"}


def test_every_quantity_is_what_it_says():
    """Against a plain loop of staggered Euler steps."""
    h, gamma, n = 0.01, 1.0, 50
    end = fo.minimise(
        rosenbrock,
        START,
        fo.Method(fo.flows.HeavyBall(gamma), fo.StaggeredEuler(), step=h),
        max_steps=n,
        history=True,
    )
    assert end.history is not None and set(end.history.quantities) == QUANTITIES
    x, v = START, jnp.zeros(2)
    rows = []
    for i in range(n + 1):
        value, grad = jax.value_and_grad(rosenbrock)(x)
        kinetic = 0.5 * jnp.sum(v**2)
        rows.append(
            (
                i * h,
                h if i else 0.0,
                value,
                jnp.linalg.norm(grad),
                value + kinetic,
                kinetic,
                -gamma * jnp.sum(v**2),
            )
        )
        v = v + h * (-gamma * v - grad)
        x = x + h * v
    columns = [np.array(c, float) for c in zip(*rows, strict=True)]
    for name, expected in zip(
        ("time", "step", "value", "grad_norm", "energy", "kinetic", "rate"), columns, strict=True
    ):
        np.testing.assert_allclose(end.history[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)
    energy, rate = columns[4], columns[6]
    defect = np.diff(energy) - h * rate[:-1]
    np.testing.assert_allclose(end.history["defect"], [0.0, *defect], rtol=1e-7, atol=1e-12)


def test_only_accepted_steps_are_recorded_and_recording_changes_nothing():
    plain = fo.minimise(rosenbrock, START, BALL)
    seen = fo.minimise(rosenbrock, START, BALL, history=("value", "energy"), capacity=4096)
    assert seen.history is not None and plain.history is None
    assert int(plain.stats["rejected"]) > 0
    assert len(seen.history) == int(plain.stats["accepted"]) + 1
    np.testing.assert_allclose(seen.params, plain.params, rtol=1e-9)
    np.testing.assert_allclose(seen.history["value"][-1], plain.value, rtol=1e-6)
    assert np.all(np.diff(seen.history["energy"]) <= 8e-16 * seen.history["energy"][:-1])


@pytest.mark.parametrize("capacity", [2, 16, 64])
def test_memory_is_bounded_by_dropping_every_other_record(capacity):
    full = fo.minimise(rosenbrock, START, BALL, history="value", capacity=4096).history
    thin = fo.minimise(rosenbrock, START, BALL, history="value", capacity=capacity).history
    assert full is not None and thin is not None
    assert thin.quantities["value"].shape == (capacity,)
    assert capacity // 2 <= len(thin) <= capacity
    stride = int(thin.stride)
    assert stride & (stride - 1) == 0
    np.testing.assert_array_equal(thin.accepted, np.arange(len(thin)) * stride)
    np.testing.assert_allclose(thin["value"], full["value"][::stride][: len(thin)], rtol=1e-9)


def test_under_vmap_and_without_a_veto():
    """Monitors work for unguarded methods, many at once."""
    starts = jnp.array([[-1.2, 1.0], [0.5, 0.5]])
    history = jax.vmap(
        lambda s: fo.minimise(rosenbrock, s, fo.gd(1e-3), history=True, max_steps=30).history
    )(starts)
    assert history.quantities["energy"].shape == (2, 1024)
    np.testing.assert_array_equal(history.records, [31, 31])


def test_least_squares_has_a_history_too():
    residuals = lambda x, args: jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])
    end = fo.least_squares(residuals, START, history=True)
    assert end.history is not None
    np.testing.assert_allclose(end.history["value"][0], 12.1)
    assert len(end.history) == int(end.stats["accepted"]) + 1


def test_plot_energy_draws_the_parts():
    end = fo.minimise(rosenbrock, START, BALL, history=True)
    ax = fo.plot_energy(end)
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["V, energy", "R, potential", "V - R, kinetic", "h, step"]
    assert ax.get_yscale() == "log" and "[loss]" in ax.get_ylabel()
    assert end.history is not None
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), end.history.accepted)
    matplotlib.pyplot.close(ax.figure)
    with pytest.raises(ValueError, match="`sol`"):
        fo.plot_energy(fo.minimise(rosenbrock, START, BALL))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (dict(history="loss"), ValueError, "`history` must name quantities"),
        (dict(history=()), ValueError, "`history` names nothing"),
        (dict(history=True, capacity=7), ValueError, "`capacity`"),
        (dict(history=True, capacity=0), ValueError, "`capacity`"),
        (
            dict(history="energy", method=fo.adamw(0.1)),
            ValueError,
            "`history`: 'energy' needs an energy",
        ),
    ],
)
def test_bad_input_is_named(change, error, says):
    arguments = dict(method=BALL) | change
    with pytest.raises(error, match=says):
        fo.minimise(quadratic, {"x": jnp.ones(3), "y": jnp.array(1.0)}, **arguments)
    end = fo.minimise(rosenbrock, START, BALL, history="value")
    assert end.history is not None
    with pytest.raises(KeyError, match="'energy' was not recorded"):
        end.history["energy"]
