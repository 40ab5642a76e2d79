"""What is minimised, R(params) = fn(params, args), and what is known of it at a point."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import lineax as lx
from jaxtyping import Array, Float, PyTree

from flowopt.tree import ravel, real_dtype, sum_squares, unravel

Objective = Callable[[PyTree, Any], Float[Array, ""]]
ModelKind = Literal["jacobian", "hessian"]
"""What a second-order method reads: the residuals and their Jacobian, or the Hessian."""


DENSE_LIMIT = 512
"""Up to this many params, Jacobians and Hessians are matrices, solved densely; above it they are never formed."""


class SumOfSquares(eqx.Module):
    """R(params) = 1/2 sum r^2, the sum over all residuals: an objective whose residuals a flow may ask for."""

    residuals: Callable[[PyTree, Any], PyTree]
    """(params, args) -> r, a pytree of floating arrays."""

    def __call__(self, params: PyTree, args: Any) -> Float[Array, ""]:
        return 0.5 * sum_squares(self.residuals(params, args))


class Evaluations:
    """How often the objective is traced into a computation: `values` forward, `grads` backward passes, `matrices`.

    A matrix is a Jacobian or a Hessian, formed or linearised once, however many columns it has. The
    gradient J'r made of a Jacobian counts as no backward pass; the residuals that a Jacobian is taken
    at are those of a value, and count there. Of a least-squares objective the values are residual evaluations.

    Counted while JAX traces, so it costs nothing at run time; it is a count of work per step for
    whatever is straight-line code. `products` are Hessian-vector products: one for each column of a Hessian that
    is formed, and those of the iterations of `RosenbrockEuler`, which are known at run time only and added as an
    array (of a Jacobian that is never formed, pairs of products with J and J'). `exact` is False where a loop
    whose length is only known at run time (the root finder of an implicit solver) evaluates the objective.
    """

    def __init__(self):
        self.values = 0
        self.grads = 0
        self.matrices = 0
        self.products: Any = 0
        self.exact = True


class Model(NamedTuple):
    """The arrays that a second-order method keeps between steps."""

    residuals: Float[Array, " m"] | None
    """r, all of them in one vector [sqrt(loss)]; None unless the model is "jacobian"."""
    matrix: Float[Array, "k n"] | None
    """The Jacobian of r, or the Hessian of R, n params in one vector; None where it is never formed."""


class Known(NamedTuple):
    """What a run keeps of a point."""

    value: Float[Array, ""]
    grad: PyTree
    model: Model | None


_CHEAP = {
    *("add", "sub", "mul", "div", "neg", "integer_pow", "square", "max", "min", "select_n"),
    *("eq", "ne", "lt", "le", "gt", "ge", "broadcast_in_dim", "reshape", "squeeze"),
    *("transpose", "convert_element_type"),
}
"""Primitives that cost less to do again than to store: a pass over memory, which XLA fuses with the next."""


def _worth_keeping(primitive: Any, *args: Any, **params: Any) -> bool:
    return primitive.name not in _CHEAP


class At:
    """What is known of R at `params`: `value` and `grad`, each computed at most once, when first asked for.

    One forward pass serves both: the gradient pulls back through the residuals of the value, so a
    step that is judged by its value alone, and then accepted, pays the backward pass and no more.

    A method with a second-order `model` finds more: `hessian`, and of a `SumOfSquares` objective
    `residuals` and `jacobian`, as `lineax` operators on the params in one vector (`vector`, `unravel`). Up to
    `DENSE_LIMIT` params they are matrices, kept from step to step; above, they are never formed.

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
        kind: ModelKind | None = None,
        model: Model | None = None,
    ):
        self.fn = fn
        self.params = params
        self.args = args
        self.evaluations = evaluations
        self.kind: ModelKind | None = kind
        self._value = value
        self._grad = grad
        self._model = model
        self._pullback: Callable | None = None
        self._linear: tuple[Array, Callable] | None = None

    def elsewhere(self, params: PyTree) -> "At":
        """The same objective at other params, of which nothing is known yet."""
        return At(self.fn, params, self.args, self.evaluations, kind=self.kind)

    @property
    def unknown(self) -> bool:
        """Whether nothing has been evaluated here yet."""
        parts = self._value, self._grad, self._model, self._pullback, self._linear
        return all(part is None for part in parts)

    @property
    def vector(self) -> Float[Array, " n"]:
        """The params in one vector, in their order as leaves."""
        return ravel(self.params)

    def unravel(self, vector: Float[Array, " n"]) -> PyTree:
        """A pytree like the params from one vector."""
        return unravel(vector, self.params)

    @property
    def dense(self) -> bool:
        """Whether matrices are formed."""
        return sum(x.size for x in jtu.tree_leaves(self.params)) <= DENSE_LIMIT

    def _forward(self, backward_later: bool) -> None:
        """The value, and what a backward pass needs. One that comes later, if the step is kept, does again what is
        cheap: with everything stored that a derivative touches, a guarded step of a network of 10,000 params on 300
        data took 1.10 times an unguarded one; so, 1.03."""
        self.evaluations.values += 1
        if self.kind == "jacobian":
            r, _ = self._linearised()
            value = 0.5 * sum_squares(r)
            self._value = value.astype(real_dtype((value, self.params)))
            return

        # Energies are sums of values and squares, so the value is at least a float32, like those.
        def scalar(p):
            value = self.fn(p, self.args)
            return value.astype(real_dtype((value, p)))

        if backward_later and not jax.make_jaxpr(scalar)(self.params).effects:
            # Of an objective that prints or calls back, doing it again would show.
            scalar = jax.checkpoint(scalar, policy=_worth_keeping, prevent_cse=False)
        self._value, self._pullback = jax.vjp(scalar, self.params)

    def _backward(self) -> PyTree:
        if self.kind == "jacobian":
            model = self.model
            if self.dense:
                assert model.matrix is not None and model.residuals is not None
                # A batch of one row: XLA's matrix product, not a loop over the columns.
                return self.unravel(model.residuals @ model.matrix)
            self.evaluations.grads += 1
            return self.unravel(self.jacobian.T.mv(self.residuals))
        if self._pullback is None:
            self._forward(backward_later=False)
        assert self._pullback is not None and self._value is not None
        self.evaluations.grads += 1
        (grad,) = self._pullback(jnp.ones_like(self._value))
        return grad

    def _residual_vector(self, vector: Array) -> Array:
        if not isinstance(self.fn, SumOfSquares):
            raise TypeError(
                "`fn`: this method needs residuals, and the objective is a scalar loss; give the residuals to "
                "flowopt.least_squares(residuals, params, method)"
            )
        return ravel(self.fn.residuals(self.unravel(vector), self.args))

    def _linearised(self) -> tuple[Array, Callable]:
        """(r, v -> J v)."""
        if self._linear is None:
            self._linear = jax.linearize(self._residual_vector, self.vector)
        return self._linear

    @property
    def value(self) -> Float[Array, ""]:
        """R(params) [loss]."""
        if self._value is None:
            self._forward(backward_later=True)
        assert self._value is not None
        return self._value

    @property
    def grad(self) -> PyTree:
        """The gradient of R at params, of their structure [loss/params]."""
        if self._grad is None:
            self._grad = self._backward()
        return self._grad

    @property
    def model(self) -> Model:
        """The arrays behind `residuals`, `jacobian` or `hessian`, as far as they are formed."""
        if self._model is None:
            self._model = self._make_model()
        return self._model

    def _make_model(self) -> Model:
        if self.kind == "jacobian":
            r, tangent = self._linearised()
            if not self.dense:
                return Model(r, None)
            self.evaluations.matrices += 1
            n = self.vector.size
            if r.size >= n:
                columns = jax.vmap(tangent, out_axes=1)(jnp.eye(n, dtype=self.vector.dtype))
                return Model(r, columns)
            rows = jax.vmap(jax.linear_transpose(tangent, self.vector))(
                jnp.eye(r.size, dtype=r.dtype)
            )
            return Model(r, rows[0])
        if not self.dense:
            return Model(None, None)
        self.evaluations.matrices += 1
        n = self.vector.size
        self.evaluations.products += n
        product = jax.linearize(self._grad_vector, self.vector)[1]
        return Model(None, jax.vmap(product)(jnp.eye(n, dtype=self.vector.dtype)))

    def _grad_vector(self, vector: Array) -> Array:
        return ravel(jax.grad(self.fn)(self.unravel(vector), self.args))

    @property
    def residuals(self) -> Float[Array, " m"]:
        """r(params), all residuals in one vector [sqrt(loss)]; TypeError for a scalar loss."""
        self._need("jacobian")
        residuals = self.model.residuals
        assert residuals is not None
        return residuals

    @property
    def jacobian(self) -> lx.AbstractLinearOperator:
        """J = dr/dparams, from the params in one vector to the residuals in one; TypeError for a scalar loss."""
        self._need("jacobian")
        if self.model.matrix is not None:
            return lx.MatrixLinearOperator(self.model.matrix)
        self.evaluations.matrices += 1
        return lx.FunctionLinearOperator(self._linearised()[1], jax.eval_shape(lambda: self.vector))

    @property
    def hessian(self) -> lx.AbstractLinearOperator:
        """H = d grad R/dparams, symmetric, on the params in one vector."""
        self._need("hessian")
        if self.model.matrix is not None:
            return lx.MatrixLinearOperator(self.model.matrix, lx.symmetric_tag)
        self.evaluations.matrices += 1
        product = jax.linearize(self._grad_vector, self.vector)[1]
        shape = jax.eval_shape(lambda: self.vector)
        return lx.FunctionLinearOperator(product, shape, lx.symmetric_tag)

    def _need(self, kind: ModelKind) -> None:
        if self.kind is None:
            self.kind = kind
        if self.kind != kind:
            raise TypeError(
                f"`at`: the method's model is {self.kind!r}, so the {kind} is not at hand; a flow or solver that "
                f"reads it says so by `model = {kind!r}`"
            )

    def known(self) -> Known:
        """What a run keeps of this point, computed as far as it is missing."""
        grad = self.grad
        return Known(self.value, grad, None if self.kind is None else self.model)

    def if_kept(self, keep: Any, other: "At") -> Known:
        """What is known here if `keep`, else of `other`; what is still missing is computed only then."""
        if isinstance(keep, bool):
            return (self if keep else other).known()
        pick = lambda a, b: jtu.tree_map(lambda x, y: jnp.where(keep, x, y), a, b)
        if self._grad is not None and (self.kind is None or self._model is not None):
            return pick(self.known(), other.known())
        if self._pullback is not None or self._linear is not None:

            def rest():
                # What is missing is traced into the branch: nothing of it may be remembered outside.
                here = At(self.fn, self.params, self.args, self.evaluations, self._value)
                here.kind, here._grad, here._model = self.kind, self._grad, self._model
                here._pullback, here._linear = self._pullback, self._linear
                return here.known()[1:]

            rest_here = jax.lax.cond(keep, rest, lambda: other.known()[1:])
            return Known(pick(self.value, other.value), *rest_here)

        def evaluate():
            here = At(self.fn, self.params, self.args, self.evaluations, kind=self.kind)
            return here.known()

        return jax.lax.cond(keep, evaluate, other.known)


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
                f"{type(leaf).__name__}. Of a model that holds more than its params take these alone: "
                f"params, rebuild = flowopt.networks.split(model)"
            ) from e
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(
                f"`{name}` must be a pytree of floating arrays; got a leaf of dtype {array.dtype}. "
                "Convert it, for example with `jnp.asarray(x, dtype=float)`, or take the params of a model alone: "
                "params, rebuild = flowopt.networks.split(model)"
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
