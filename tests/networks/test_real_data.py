"""Data that scikit-learn ships: shapes, splits, and what is said where it is missing."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowopt as fo
from flowopt import networks
from flowopt.benchmarks.surrogates.part import misclassified


@pytest.mark.parametrize(
    ("load", "n", "inputs", "classes"),
    [
        (networks.diabetes, 442, 10, None),
        (networks.digits, 1797, 64, 10),
        (networks.breast_cancer, 569, 30, 2),
    ],
)
def test_a_split_by_seed(load, n, inputs, classes):
    train, unseen = load(seed=0)
    assert len(train) + len(unseen) == n and len(unseen) == -(-n // 4)
    assert train.x.shape[1] == inputs and train.x.dtype == jnp.float64
    assert load(seed=0, dtype=jnp.float32)[0].x.dtype == jnp.float32
    again, other = load(seed=0)[1], load(seed=1)[1]
    assert np.array_equal(again.x, unseen.x) and not np.array_equal(other.x, unseen.x)
    # Together they are all of the data, each once.
    rows = np.concatenate([np.asarray(d.x) for d in (train, unseen)])
    both = np.concatenate([np.asarray(d.x) for d in load(seed=1)])
    assert np.array_equal(np.sort(rows, axis=0), np.sort(both, axis=0))
    if classes is None:
        assert train.y.shape == (331, 1) and train.y.dtype == jnp.float64
    else:
        shares = [np.bincount(d.y, minlength=classes) / len(d) for d in (train, unseen)]
        assert len(shares[0]) == classes and np.all(np.abs(shares[0] - shares[1]) < 0.01)


def test_a_network_learns_them():
    train, unseen = networks.breast_cancer(seed=0)
    net = networks.normalised(networks.mlp(30, 2, 3, key=jax.random.key(0)), train)
    params, rebuild = networks.split(net)
    fit = fo.minimise(networks.CrossEntropy(rebuild, l2=1e-2), params, args=train, max_steps=100)
    assert fit.outcome == "converged"
    assert misclassified(jax.vmap(rebuild(fit.params))(unseen.x), np.asarray(unseen.y)) < 0.05


def test_bad_input_is_named(monkeypatch):
    with pytest.raises(ValueError, match="`unseen` must be a share"):
        networks.digits(seed=0, unseen=1.0)
    with pytest.raises(ValueError, match="`seed`"):
        networks.diabetes(seed=-1)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"networks\.digits.*pip install 'flowopt\[data\]'"):
        networks.digits(seed=0)
