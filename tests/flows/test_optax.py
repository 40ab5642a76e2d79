"""Every first-order classic against optax, over 1,000 steps from 20 starts."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flowopt as fo
from studies.references import REFERENCES, differences, problems

PROBLEMS = problems(20, jnp.float64)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", REFERENCES)
def test_agrees_with_optax(name, problem):
    fn, starts = PROBLEMS[problem]
    apart = differences(name, fn, starts, 1000)
    # What a step does: the same gradients give the same params.
    assert np.max(apart.replayed) <= 1e-10
    # And with the feedback of the objective, wherever optax itself does not amplify changes in the last place of
    # its params (RMSProp settles into a chaotic cycle of the size of lr around a minimum).
    steady = apart.rounding <= 1e-12
    assert np.all(apart.together[steady] <= 1e-10)
    assert np.max(apart.together) <= max(1e-10, 1e3 * np.max(apart.rounding))
    if not name.startswith(("rmsprop", "adam, eps", "adabelief")):
        assert np.mean(steady) >= 0.9


# By how much to lower the rate so that optax amplifies no rounding. Centred RMSProp is not among them: s - m^2
# cancels to the size of eps, and optax with its params nudged is 1e-4 from itself at any rate.
CALM = {
    "rmsprop": 100,
    "rmsprop, eps outside the root": 100,
    "rmsprop, initial scale": 100,
    "rmsprop, bias correction": 100,
    "rmsprop, momentum": 1000,
    "rmsprop, nesterov": 1000,
    "adam, eps_root": 10,
    "adabelief": 10,
}


@pytest.mark.parametrize("name", CALM)
def test_agrees_in_the_loop_at_a_rate_without_chaos(name):
    for fn, starts in PROBLEMS.values():
        apart = differences(name, fn, starts, 1000, REFERENCES[name][2] / CALM[name])
        assert np.max(apart.together) <= 1e-10


@pytest.mark.parametrize("name", ["momentum", "adam", "rmsprop, bias correction", "amsgrad"])
def test_agrees_with_optax_in_float32(name):
    fn, starts = problems(20, jnp.float32)["rosenbrock 10-D"]
    apart = differences(name, fn, starts, 1000)
    # 1,000 roundings of 6e-8, in the moments and in the params.
    assert np.max(apart.replayed) <= 1e-4
    steady = apart.rounding <= 1e-5
    assert np.all(apart.together[steady] <= 1e-4)


SCHEDULED = {
    "gd": (fo.gd, optax.sgd, 1e-3),
    "nesterov": (fo.nesterov, lambda lr: optax.sgd(lr, 0.9, nesterov=True), 1e-4),
    "adamw": (fo.adamw, optax.adamw, 1e-3),
    "adagrad": (fo.adagrad, optax.adagrad, 1e-2),
    "lion": (fo.lion, optax.lion, 1e-4),
    "rmsprop, momentum": (
        lambda lr: fo.rmsprop(lr, eps=1e-2, momentum=0.9),
        lambda lr: optax.rmsprop(lr, eps=1e-2, momentum=0.9),
        1e-4,
    ),
}


@pytest.mark.parametrize("name", SCHEDULED)
def test_schedules_agree_with_optax(name, monkeypatch):
    ours, theirs, lr = SCHEDULED[name]
    monkeypatch.setitem(REFERENCES, name, (ours, theirs, lr))
    cosine = optax.warmup_cosine_decay_schedule(0.1 * lr, lr, 100, 900, 0.01 * lr)
    # At its own int32 count optax evaluates its schedules in float32, also where all else is in float64.
    schedule = lambda n: cosine(jnp.asarray(n, jnp.float64))
    fn, starts = PROBLEMS["rosenbrock 10-D"]
    apart = differences(name, fn, starts, 1000, schedule)
    assert np.max(apart.replayed) <= 1e-10
    assert np.max(apart.together) <= max(1e-10, 1e3 * np.max(apart.rounding))


def test_a_schedule_of_any_function_is_read_at_whole_counts():
    # A rate that jumps: at a count off by an ulp the trajectory would be another.
    def rate(n):
        return jnp.where(n < 3, 0.1, 0.01)

    fn = lambda x, _: 0.5 * jnp.sum(x**2)
    sol = fo.minimise(fn, jnp.array([1.0]), fo.gd(rate), tol=1e-12, max_steps=5)
    np.testing.assert_allclose(sol.params, 0.9**3 * 0.99**2, rtol=1e-14)
