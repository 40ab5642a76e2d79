"""A multilayer perceptron, and any module as params and what is not."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, PRNGKeyArray, PyTree

INITIALISERS: dict[str, Callable] = {
    "glorot_normal": jax.nn.initializers.glorot_normal(),
    "glorot_uniform": jax.nn.initializers.glorot_uniform(),
    "he_normal": jax.nn.initializers.he_normal(),
    "he_uniform": jax.nn.initializers.he_uniform(),
    "lecun_normal": jax.nn.initializers.lecun_normal(),
    "lecun_uniform": jax.nn.initializers.lecun_uniform(),
    "orthogonal": jax.nn.initializers.orthogonal(),
}


def mlp(
    in_size: int,
    out_size: int,
    width: int,
    depth: int = 1,
    activation: Callable = jnp.tanh,
    *,
    key: PRNGKeyArray,
    initialiser: str | Callable = "glorot_normal",
    dtype: Any = None,
) -> eqx.nn.MLP:
    """An `equinox.nn.MLP` of `depth` hidden layers of `width` neurons: (in_size,) -> (out_size,), to be `vmap`ped.

    Weights by `initialiser`: a name, one of `flowopt.networks.mlp.INITIALISERS`, or a function of JAX's kind, of
    (key, shape (fan in, fan out), dtype); biases 0. `dtype`: JAX's default if None.
    [Glorot and Bengio 2010; He et al. 2015; LeCun et al. 1998]

    Raises ValueError for sizes below 1 and a name that is none.
    """
    for name, size in (("in_size", in_size), ("out_size", out_size), ("width", width)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"`{name}` must be an int >= 1; got {size!r}")
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
        raise ValueError(f"`depth` must be an int >= 0, the number of hidden layers; got {depth!r}")
    if isinstance(initialiser, str) and initialiser not in INITIALISERS:
        raise ValueError(
            f"`initialiser` must be one of {', '.join(INITIALISERS)}, or a function of (key, shape, dtype); got "
            f"{initialiser!r}"
        )
    draw = INITIALISERS[initialiser] if isinstance(initialiser, str) else initialiser
    net = eqx.nn.MLP(in_size, out_size, width, depth, activation, dtype=dtype, key=key)
    weights = [layer.weight for layer in net.layers]
    keys = jax.random.split(key, len(weights))
    # Equinox holds a weight as (out, in).
    drawn = [draw(k, w.shape[::-1], w.dtype).T for k, w in zip(keys, weights, strict=True)]
    zero = [jnp.zeros(w.shape[0], w.dtype) for w in weights]
    get = lambda net: [x for layer in net.layers for x in (layer.weight, layer.bias)]
    return eqx.tree_at(get, net, [x for pair in zip(drawn, zero, strict=True) for x in pair])


class Rebuild(eqx.Module):
    """params -> the model, the inverse of `split`."""

    rest: PyTree
    """The model, less its params."""
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, params: dict[str, Array]) -> Any:
        leaves, structure = jtu.tree_flatten_with_path(self.rest, is_leaf=lambda x: x is None)
        new = [params.get(jtu.keystr(path), leaf) for path, leaf in leaves]
        if set(params) != set(self.names):
            raise ValueError(f"`params` must hold {self.names}; got {tuple(params)}")
        return jtu.tree_unflatten(structure, new)


def split(model: PyTree) -> tuple[dict[str, Array], Rebuild]:
    """(params, rebuild): the floating JAX arrays of `model` by their names, and the function back, rebuild(params).

    `model` is any pytree, such as an Equinox module. What is no floating JAX array stays in `rebuild`:
    activations, integers, keys, None, and NumPy arrays, which is where constants go that are not trained.

    Raises TypeError for a model without such arrays.
    """
    leaves, structure = jtu.tree_flatten_with_path(model, is_leaf=lambda x: x is None)
    params = {jtu.keystr(path): x for path, x in leaves if eqx.is_inexact_array(x)}
    params = {name: x for name, x in params.items() if isinstance(x, jax.Array)}
    if not params:
        raise TypeError("`model` holds no floating JAX array; give one with params to train")
    rest = [None if jtu.keystr(path) in params else x for path, x in leaves]
    return params, Rebuild(jtu.tree_unflatten(structure, rest), tuple(params))
