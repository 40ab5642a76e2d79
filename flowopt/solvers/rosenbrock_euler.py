"""Rosenbrock-Euler: one linearly implicit Euler step, which on the gradient flow is Levenberg-Marquardt."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import lineax as lx
from jaxtyping import Array, Float

from flowopt import linear
from flowopt.flows.gradient import Gradient
from flowopt.objective import At, ModelKind, SumOfSquares
from flowopt.solvers.energy_guard import energy_error
from flowopt.solvers.trial import AbstractFlowSolver, Trial
from flowopt.tree import add_scaled, all_finite, ravel


class Gain(NamedTuple):
    """What a step promised and what it gave: the report to `flowopt.GainRatio`."""

    excess: Float[Array, ""]
    """max(0, 1 - rho): rho = (V0 - V1)/(what the quadratic model promised), infinite where V1 is not finite [1]."""
    slope: Float[Array, ""]
    """-<grad R, d>/(what the model promised), in [1, 2] [1]."""
    promised: Float[Array, ""]
    """The decrease promised by the quadratic model [loss]."""
    before: Float[Array, ""]
    """V0 [loss]."""
    after: Float[Array, ""]
    """V1 [loss]."""


class RosenbrockEuler(AbstractFlowSolver):
    """(M/h + A) d = -grad R(theta),  theta1 = theta + d,  for the gradient flow in the metric M, theta' = -M^-1 grad R.

    `hessian="gauss_newton"`: A = J'J, of a sum of squares. With M = I it is the step of Levenberg and Marquardt
    with mu = 1/h, found without forming J'J. `hessian="exact"`: A = H, Newton's method with the
    shift 1/h, of any R; where M/h + H is not positive definite the step fails, and a controller shortens
    it (matrix-free: conjugate gradients stop at negative curvature with the descent they have).
    [Rosenbrock 1963; Hairer and Wanner 1996, IV.7]

    `scaling`, for the Gauss-Newton matrix: the metric M = diag(D^2), with D_j = 1 ("none"), the norm of column j of J
    ("marquardt" [1963]) or the largest it has had ("more" [1978]; a column of zeros counts as 1). Scaled steps do
    not depend on the units of the params, and h is then a number; for "none" it is in params^2/loss.

    `geodesic` > 0: adds the geodesic acceleration a = -1/2 (M/h + J'J)^-1 J' r''(d, d), for a second
    directional derivative of r, wherever 2 |a| <= geodesic |d|; where it is longer the linear model is not to
    be trusted and the step fails. 0.75 is the authors' value.   [Transtrum and Sethna 2012]

    The error it reports is 1 - rho, with rho the gain over the promised gain: it goes to 0 like h, so any
    controller by errors works (rtol = 0, atol <= 1: keep where rho >= 1 - atol).
    `flowopt.GainRatio` is told more. A step costs one residual evaluation; the Jacobian is taken only
    if it is kept. Dense QR or Cholesky up to `flowopt.objective.DENSE_LIMIT` params; CG above it,
    where `scaling` must be "none", for the columns of J are not at hand.
    """

    hessian: Literal["gauss_newton", "exact"] = "gauss_newton"
    """A."""
    scaling: Literal["none", "marquardt", "more"] = "none"
    """M."""
    geodesic: float = 0.0
    """Longest geodesic acceleration, relative to half the step; 0 for none [1]."""
    slack_ulps: float = 4.0
    """Rounding allowed in V1 - V0, in units of the last place of |V|."""
    report_gain: bool = False
    """Report a `Gain` in place of an error; set by `flowopt.Method` for controllers that want it."""

    def __check_init__(self):
        for name, value, allowed in (
            ("hessian", self.hessian, ("gauss_newton", "exact")),
            ("scaling", self.scaling, ("none", "marquardt", "more")),
        ):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}; got {value!r}")
        if isinstance(self.geodesic, float | int) and not self.geodesic >= 0:
            raise ValueError(f"`geodesic` must be >= 0; got {self.geodesic}")
        if self.hessian == "exact" and (self.scaling != "none" or self.geodesic != 0):
            raise ValueError(
                '`scaling` and `geodesic` are made of the Jacobian of the residuals: for hessian="exact" they '
                'must be "none" and 0'
            )

    @property
    def gives_error(self) -> bool:
        return True

    @property
    def model(self) -> ModelKind:
        return "jacobian" if self.hessian == "gauss_newton" else "hessian"

    def order(self, terms):
        return 1

    def start(self, flow, y, at):
        if not isinstance(flow, Gradient):
            raise ValueError(
                f"`solver`: RosenbrockEuler linearises the gradient flow, flowopt.flows.Gradient(); got "
                f"{type(flow).__name__}"
            )
        if self.scaling != "none" and not at.dense:
            raise ValueError(
                f'`scaling` must be "none" for {at.vector.size} params: above flowopt.objective.DENSE_LIMIT the '
                "columns of the Jacobian are not formed"
            )
        return jnp.zeros_like(at.vector) if self.scaling == "more" else None

    def trial(self, flow, y, at, h, state):
        grad = ravel(at.grad)
        mu = 1 / h.astype(grad.dtype)
        failed = jnp.array(False)
        if self.hessian == "exact":
            d, definite, products = linear.positive(at.hessian, grad, mu)
            if not at.dense:
                at.evaluations.products += products
            kinetic = mu * (d @ d)
            bent = -(grad @ d) - kinetic
            failed = ~definite & jnp.array(at.dense)
        else:
            jacobian, residuals = at.jacobian, at.residuals
            metric, state = self._metric(jacobian, grad, state)
            damping = jnp.sqrt(mu) * metric
            d, products = linear.damped_step(jacobian, residuals, damping)
            at.evaluations.products += products
            image = jacobian.mv(d)
            kinetic, bent = jnp.sum(jnp.square(damping * d)), image @ image
            if not (isinstance(self.geodesic, float | int) and self.geodesic == 0):
                a = self._acceleration(at, jacobian, damping, d)
                size = lambda v: jnp.linalg.norm(metric * v)
                failed = ~(2 * size(a) <= self.geodesic * size(d))
                d = jnp.where(failed, d, d + a)
        move = jnp.ones_like(h), at.unravel(d)
        end = y._replace(params=add_scaled(y.params, *move))
        there = at.elsewhere(end.params)
        promised = (kinetic + 0.5 * bent).astype(at.value.dtype)
        excess = energy_error(at.value, there.value, -promised, 0.0, self.slack_ulps)
        excess = jnp.where(failed | ~all_finite(end), jnp.inf, excess)
        if self.report_gain:
            slope = (kinetic + bent) / jnp.where(promised > 0, promised, 1).astype(grad.dtype)
            error: Any = Gain(excess, slope, promised, at.value, there.value)
        else:
            error = jtu.tree_map(lambda x: excess.astype(x.dtype), end)
        return Trial(end, error, there, True, state, move)

    def _metric(
        self, jacobian: lx.AbstractLinearOperator, like: Array, largest: Array | None
    ) -> tuple[Array, Array | None]:
        """D, and what is remembered of it."""
        if self.scaling == "none":
            return jnp.ones_like(like), None
        columns = jnp.sqrt(jnp.sum(jnp.square(jacobian.as_matrix()), axis=0))
        if largest is not None:
            largest = columns = jnp.maximum(columns, largest)
        return jnp.where(columns == 0, 1, columns), largest

    def _acceleration(
        self, at: At, jacobian: lx.AbstractLinearOperator, damping: Array, d: Array
    ) -> Array:
        """-1/2 (J'J + damping^2)^-1 J' r''(d, d); the derivative is one pass of Taylor mode, counted as a value."""
        fn = at.fn
        assert isinstance(fn, SumOfSquares)
        at.evaluations.values += 1

        def along(s):
            return ravel(fn.residuals(at.unravel(at.vector + s * d), at.args))

        zero, one = jnp.zeros((), d.dtype), jnp.ones((), d.dtype)
        _, bend = jax.jvp(lambda s: jax.jvp(along, (s,), (one,))[1], (zero,), (one,))
        a, products = linear.damped_step(jacobian, bend, damping)
        at.evaluations.products += products
        return 0.5 * a
