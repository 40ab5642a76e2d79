"""Networks: their params, their losses by hand, blocks, normalisation, and arguments that cannot be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowopt as fo
from flowopt import networks
from flowopt.networks import CrossEntropy, Data, MeanSquaredError, Residuals

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 2))
Y = np.stack([np.sin(X[:, 0]), X[:, 0] * X[:, 1], X[:, 1] ** 2], axis=1)
LABELS = RNG.integers(0, 3, 37)
W = RNG.uniform(0, 2, 37)
NET = networks.mlp(2, 3, 5, key=KEY, dtype=float)
PARAMS, REBUILD = networks.split(NET)


def test_split_gives_the_arrays_and_the_way_back():
    assert {x.shape for x in PARAMS.values()} == {(5, 2), (5,), (3, 5), (3,)}
    assert eqx.tree_equal(REBUILD(PARAMS), NET)
    model = dict(net=NET, n=3, off=None, table=np.ones(2), key=KEY)
    params, rebuild = networks.split(model)
    assert len(params) == 4 and rebuild(params)["n"] == 3 and rebuild(params)["off"] is None
    with pytest.raises(ValueError, match="`params` must hold"):
        rebuild({"x": jnp.ones(2)})
    with pytest.raises(TypeError, match="`model` holds no floating"):
        networks.split(dict(n=3))


@pytest.mark.parametrize("model", [NET, eqx.filter(NET, eqx.is_array), {"n": jnp.arange(3)}])
def test_minimise_says_what_to_pass_for_what_is_no_params(model):
    with pytest.raises(TypeError, match=r"`params`.*flowopt\.networks\.split\(model\)"):
        fo.minimise(lambda p, a: jnp.array(0.0), model, fo.gd(0.1))


def test_initialisers():
    he = networks.mlp(400, 300, 300, key=KEY, initialiser="he_normal", dtype=jnp.float32)
    assert he.layers[0].weight.dtype == jnp.float32
    np.testing.assert_allclose(np.std(he.layers[0].weight), np.sqrt(2 / 400), rtol=0.02)
    np.testing.assert_array_equal(he.layers[0].bias, 0)
    wide = networks.mlp(10, 1, 400, key=KEY)  # glorot: 2/(in + out)
    np.testing.assert_allclose(np.std(wide.layers[0].weight), np.sqrt(2 / 410), rtol=0.05)
    by_hand = lambda key, shape, dtype: jnp.ones(shape, dtype)
    ones = networks.mlp(2, 1, 3, 2, key=KEY, initialiser=by_hand)
    assert len(ones.layers) == 3 and np.all(ones.layers[1].weight == 1)


def outputs(params):
    w1, b1, w2, b2 = params.values()
    return np.tanh(X @ w1.T + b1) @ w2.T + b2


@pytest.mark.parametrize("weights", [None, W], ids=["all alike", "weighted"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_losses_by_hand(weights, l2):
    scale = np.array([1.0, 2.0, 0.5])
    w = np.ones(37) if weights is None else weights
    decay = 0.5 * l2 * sum(float(jnp.sum(x**2)) for x in PARAMS.values() if x.ndim == 2)
    squares = np.sum(w * np.sum(((outputs(PARAMS) - Y) / scale) ** 2, axis=1)) / (2 * np.sum(w))
    data = Data(X, Y, weights)
    loss = MeanSquaredError(REBUILD, l2, scale)
    np.testing.assert_allclose(loss(PARAMS, data), squares + decay, rtol=1e-13)
    residuals = fo.SumOfSquares(Residuals(REBUILD, l2, scale))
    np.testing.assert_allclose(residuals(PARAMS, data), squares + decay, rtol=1e-13)
    z = outputs(PARAMS)
    entropy = np.log(np.sum(np.exp(z), axis=1)) - z[np.arange(37), LABELS]
    got = CrossEntropy(REBUILD, l2)(PARAMS, Data(X, LABELS, weights))
    np.testing.assert_allclose(got, np.sum(w * entropy) / np.sum(w) + decay, rtol=1e-13)


@pytest.mark.parametrize("block", [1, 8, 37, 100])
def test_blocks_give_the_same_loss_and_gradient(block):
    for make, data in (
        (MeanSquaredError, Data(X, Y, W)),
        (CrossEntropy, Data(X, LABELS)),
    ):
        whole = jax.value_and_grad(make(REBUILD, 0.1))(PARAMS, data)
        parts = jax.value_and_grad(make(REBUILD, 0.1, block=block))(PARAMS, data)
        for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.max(np.abs(b)))


def test_a_gradient_in_blocks_needs_little_memory():
    """By the compiler's own account: what a gradient over 10^5 data needs beside its arguments."""
    params, rebuild = networks.split(networks.mlp(10, 1, 64, 2, key=KEY, dtype=float))
    shape = jax.ShapeDtypeStruct
    x, y = shape((100_000, 10), float), shape((100_000, 1), float)
    data = jax.eval_shape(Data, x, y)

    def temporaries(block):
        grad = jax.jit(jax.grad(MeanSquaredError(rebuild, block=block)))
        return grad.lower(params, data).compile().memory_analysis().temp_size_in_bytes

    whole, parts = temporaries(None), temporaries(1000)
    assert whole > 1e8
    assert parts < 2.5e7


def test_the_losses_go_with_the_methods():
    data = Data(X, Y)
    fit = fo.least_squares(Residuals(REBUILD, 1e-4), PARAMS, args=data, tol=1e-8, max_steps=500)
    assert fit.outcome == "converged"
    loss = MeanSquaredError(REBUILD, 1e-4, block=10)
    np.testing.assert_allclose(loss(fit.params, data), fit.value, rtol=1e-12)
    adam = fo.minimise(loss, PARAMS, fo.adam(1e-2), args=data, max_steps=50)
    assert adam.value < loss(PARAMS, data)
    classes = fo.minimise(CrossEntropy(REBUILD, 1e-2), PARAMS, args=Data(X, LABELS), max_steps=200)
    assert classes.outcome == "converged"


def test_normalisation_is_part_of_the_model_and_not_trained():
    x, y = 1e5 + 1e3 * X, 1e-7 * Y + 3.0
    y[:, 2] = 4.0
    data = Data(x, y)
    model = networks.normalised(NET, data)
    params, rebuild = networks.split(model)
    assert len(params) == 4
    inside = jax.vmap(NET)((x - x.mean(0)) / x.std(0))
    expected = y.mean(0) + np.array([*y.std(0)[:2], 1.0]) * inside
    np.testing.assert_allclose(jax.vmap(rebuild(params))(data.x), expected, rtol=1e-13)
    loss = Residuals(rebuild, scale=model.scale_y)
    fit = fo.least_squares(loss, params, args=data, max_steps=300)
    assert fit.value < 1e-2


def test_logits_are_not_normalised():
    model = networks.normalised(NET, Data(1e3 + 10 * X, LABELS))
    np.testing.assert_allclose(model(1e3 + 10 * X.mean(0)), NET(jnp.zeros(2)), atol=1e-9)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="`y` must have one target for each of the 37"):
        Data(X, Y[:-1])
    with pytest.raises(ValueError, match="`weights` must have shape"):
        Data(X, Y, W[:-1])
    with pytest.raises(TypeError, match="`x` must be floating"):
        Data(np.arange(3), np.arange(3))
    with pytest.raises(ValueError, match="`data`: the model gives"):
        MeanSquaredError(REBUILD)(PARAMS, Data(X, Y[:, 0]))
    with pytest.raises(TypeError, match="`data` must have integer classes"):
        CrossEntropy(REBUILD)(PARAMS, Data(X, Y))
    with pytest.raises(ValueError, match="`block`"):
        MeanSquaredError(REBUILD, block=0)
    with pytest.raises(ValueError, match="`l2`"):
        Residuals(REBUILD, -1.0)
    with pytest.raises(TypeError, match="`rebuild`"):
        CrossEntropy(PARAMS)
    with pytest.raises(ValueError, match="`initialiser`"):
        networks.mlp(1, 1, 1, key=KEY, initialiser="glorot")
    with pytest.raises(ValueError, match="`width`"):
        networks.mlp(1, 1, 0, key=KEY)
