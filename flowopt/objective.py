"""What is minimised, R(params) = fn(params, args), and what is known of it at a point."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree

from flowopt.tree import real_dtype

Objective = Callable[[PyTree, Any], Float[Array, ""]]


class Evaluations:
    """How often the objective is traced into a computation: `values` forward, `grads` backward passes.

    Counted while JAX traces, so it costs nothing at run time; it is a count of work per step for
    whatever is straight-line code. `exact` is False where a loop whose length is only known at run
    time (the root finder of an implicit solver) evaluates the objective.
    """

    def __init__(self):
        self.values = 0
        self.grads = 0
        self.exact = True


class At:
    """What is known of R at `params`: `value` and `grad`, each computed at most once, when first asked for.

    One forward pass serves both: the gradient pulls back through the residuals of the value, so a
    step that is judged by its value alone, and then accepted, pays the backward pass and no more.

    Lives only while a step is traced; what a run keeps between steps are the arrays.
    """

    def __init__(
        self,
        fn: Objective,
        params: PyTree,
        args: Any,
        evaluations: Evaluations,
        value: Float[Array, ""] | None = None,
        grad: PyTree | None = None,
    ):
        self.fn = fn
        self.params = params
        self.args = args
        self.evaluations = evaluations
        self._value = value
        self._grad = grad
        self._pullback: Callable | None = None

    def elsewhere(self, params: PyTree) -> "At":
        """The same objective at other params, of which nothing is known yet."""
        return At(self.fn, params, self.args, self.evaluations)

    def _forward(self) -> None:
        # Energies are sums of values and squares, so the value is at least a float32, like those.
        def scalar(p):
            value = self.fn(p, self.args)
            return value.astype(real_dtype((value, p)))

        self._value, self._pullback = jax.vjp(scalar, self.params)
        self.evaluations.values += 1

    def _backward(self) -> PyTree:
        if self._pullback is None:
            self._forward()
        assert self._pullback is not None and self._value is not None
        self.evaluations.grads += 1
        (grad,) = self._pullback(jnp.ones_like(self._value))
        return grad

    @property
    def value(self) -> Float[Array, ""]:
        """R(params) [loss]."""
        if self._value is None:
            self._forward()
        assert self._value is not None
        return self._value

    @property
    def grad(self) -> PyTree:
        """The gradient of R at params, of their structure [loss/params]."""
        if self._grad is None:
            self._grad = self._backward()
        return self._grad

    def if_kept(self, keep: Any, other: "At") -> tuple[Float[Array, ""], PyTree]:
        """(value, grad) here if `keep`, else those of `other`; what is still missing is computed only then."""
        if isinstance(keep, bool):
            chosen = self if keep else other
            return chosen.value, chosen.grad
        if self._grad is not None:
            value, grad = self.value, self._grad
        elif self._pullback is not None:
            value = self.value
            grad = jax.lax.cond(keep, self._backward, lambda: other.grad)
        else:
            # Traced into the branch: nothing of it may be remembered outside.
            def evaluate():
                here = At(self.fn, self.params, self.args, self.evaluations)
                return here.value, here.grad

            return jax.lax.cond(keep, evaluate, lambda: (other.value, other.grad))
        pick = lambda a, b: jnp.where(keep, a, b)
        return pick(value, other.value), jtu.tree_map(pick, grad, other.grad)


def check_params(params: PyTree, name: str = "params") -> PyTree:
    """`params` as a pytree of floating JAX arrays; raises TypeError where a leaf is none."""
    leaves, structure = jtu.tree_flatten(params, is_leaf=lambda x: x is None)
    if not leaves:
        raise ValueError(
            f"`{name}` holds no arrays; give a pytree with at least one floating array"
        )
    out = []
    for leaf in leaves:
        try:
            array = jnp.asarray(leaf)
        except (TypeError, ValueError) as e:
            raise TypeError(
                f"`{name}` must be a pytree of floating arrays; got a leaf {leaf!r} of type "
                f"{type(leaf).__name__}"
            ) from e
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(
                f"`{name}` must be a pytree of floating arrays; got a leaf of dtype {array.dtype}. "
                "Convert it, for example with `jnp.asarray(x, dtype=float)`"
            )
        out.append(array)
    return jtu.tree_unflatten(structure, out)


def check_objective(fn: Objective, params: PyTree, args: Any, name: str = "fn") -> None:
    """Raises TypeError or ValueError unless fn(params, args) is a floating scalar."""
    if not callable(fn):
        raise TypeError(f"`{name}` must be callable as {name}(params, args); got {fn!r}")
    out = jax.eval_shape(lambda p: fn(p, args), params)
    leaves = jtu.tree_leaves(out)
    if len(leaves) != 1 or jtu.tree_structure(out) != jtu.tree_structure(0):
        raise TypeError(f"`{name}` must return one scalar, the loss; got {out}")
    if out.shape != ():
        raise ValueError(
            f"`{name}` must return a scalar, the loss; got an array of shape {out.shape}. "
            "Reduce it, for example with `jnp.mean`"
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"`{name}` must return a floating scalar; got dtype {out.dtype}")
