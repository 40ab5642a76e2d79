"""How XLA's CPU compiler is asked to compile steps: for their speed, and for the same bits at any number of lanes."""

import functools as ft
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.extend.core import jaxprs_in_params
from jaxtyping import Array, Bool, PyTree

_PLAIN = {
    # entry by entry
    *("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh"),
    *("cbrt", "ceil", "clamp", "copy", "convert_element_type", "cos", "cosh", "div", "eq", "erf"),
    *("erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite"),
    *("le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not"),
    *("one_minus_square", "or", "polynomial", "pow", "reduce_precision", "rem", "round", "rsqrt"),
    *("select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh"),
    *("bitcast_convert_type", "xor"),
    # rearranged
    *("broadcast_in_dim", "concatenate", "expand_dims", "iota", "pad", "reshape", "rev", "slice"),
    *("split", "squeeze", "stack", "transpose"),
    # summed up
    *("dot_general", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod"),
    "reduce_sum",
    # of others
    *("closed_call", "cond", "custom_jvp_call", "custom_vjp_call", "jit", "remat2", "scan"),
    "while",
}
"""Primitives that XLA's CPU compiler writes as loops over the entries of arrays."""


def operations(jaxpr: Any) -> int:
    """How many there are, those of functions and branches included, of loops once."""
    inner = lambda e: sum(map(operations, jaxprs_in_params(e.params)))
    return sum(max(1, inner(e)) for e in jaxpr.eqns)


def multiplies(jaxpr: Any) -> bool:
    """Whether matrices are multiplied. Inner products of two vectors of each run, as in norms, are loops over lanes."""
    return any(
        _is_product(e) or any(map(multiplies, jaxprs_in_params(e.params))) for e in jaxpr.eqns
    )


def plain(jaxpr: Any) -> bool:
    """Whether all is loops over entries: no products or factors of matrices, no sorting, no random numbers."""
    return all(
        e.primitive.name in _PLAIN
        and not _is_product(e)
        and all(map(plain, jaxprs_in_params(e.params)))
        for e in jaxpr.eqns
    )


def _is_product(equation: Any) -> bool:
    if equation.primitive.name == "conv_general_dilated":
        return True
    if equation.primitive.name != "dot_general":
        return False
    shapes = [x.aval.shape for x in equation.invars]
    summed, batch = equation.params["dimension_numbers"]
    terms = np.prod([shapes[0][i] for i in summed[0]])
    free = (
        np.prod(np.delete(shape, (*over, *alike)))
        for shape, over, alike in zip(shapes, summed, batch, strict=True)
    )
    return bool(terms > 1 and max(free) > 1)


def computed_once(live: Bool[Array, ""], fn: Callable[[], PyTree]) -> PyTree:
    """fn(), in a branch that XLA fuses with nothing else; `live` must be true, and the compiler not know it.

    XLA's CPU compiler makes a loop of its own for each array that a program returns, and into each fuses all that
    it depends on, so that what many arrays depend on is computed many times. What a conditional returns is
    computed once. (`optimization_barrier` is gone before XLA's CPU compiler fuses: it changes nothing.)
    """
    none = lambda: jtu.tree_map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fn))
    return jax.lax.cond(live, fn, none)


def once_on_cpu(live: Bool[Array, ""], fn: Callable[[], PyTree]) -> PyTree:
    """fn(), on a CPU `computed_once`. A GPU would wait for the host, to choose the branch."""
    return jax.lax.platform_dependent(cpu=lambda: computed_once(live, fn), default=fn)


def in_turn(flag: Bool[Array, ""], live: Bool[Array, ""]) -> Iterator[Bool[Array, ""]]:
    """`flag` again and again, each known a moment after the one before; `live` as for `computed_once`.

    XLA's CPU compiler hands half of its work to a second thread when more than eight operations are ready at once, as
    are those of all the leaves that wait for one flag. Of small networks that costs more than it saves (1,027 params
    on 100 data, times optax's loop: Adam 1.2 on 2 threads -> 1.0 on 1; guarded, with its judgement computed once, 1.1
    on 2 -> 1.0 on 1).
    """
    later = lambda x: once_on_cpu(live, lambda: x)
    while True:
        yield flag
        flag = later(flag)


def in_one_function(fn: Callable) -> Callable:
    """`fn`, which must be `plain`, as one function of machine code.

    XLA's CPU compiler makes a function of each group of operations that it fuses and calls one after the other, at
    0.1 us or so a call, unless all that a loop touches is smaller than 1 KiB. The attribute with which it then marks
    the loop can be set from here. A loop of lanes that fit in the processor's nearest cache becomes worth its while
    (poly3, ns a step: GD 1.6 with 2,048 lanes -> 1.0 with 256, Adam 3.8 -> 2.9). Another compiler does not know the
    attribute, and ignores it.
    """
    try:
        from jax.experimental.scheduling_groups import (
            xla_metadata_call,  # pyright: ignore[reportPrivateImportUsage]
        )
    except ImportError:  # another version of JAX
        return fn
    return xla_metadata_call(fn, inlineable="false", xla_cpu_small_call="true")


def compiled(fn: Callable) -> Callable:
    """`fn` under `equinox.filter_jit`, compiled for many lanes.

    - With the longest vectors there are: XLA takes half of AVX-512's unless told otherwise. (Poly3, ns a step: GD
      2.6 -> 1.7, Adam 5.9 -> 3.4, Euler-Richardson 6.3 -> 3.5.)
    - Without the library that large sums are given to: it adds in another order, so that the last bits of a run would
      depend on how many lanes there are (of 9 params, with 1,024 lanes and not with 128).
    """

    @ft.wraps(fn)
    def call(*args):
        return _with_options(fn)(*args)

    return call


@ft.cache
def _with_options(fn: Callable) -> Callable:
    options = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_experimental_ynn_fusion_type": ""}
    known = {name: value for name, value in options.items() if _compiles({name: value})}
    return eqx.filter_jit(fn, compiler_options=known)  # pyright: ignore[reportCallIssue]


def _compiles(options: dict[str, Any]) -> bool:
    """Whether this version of XLA knows these options."""
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except Exception:
        return False
    return True
