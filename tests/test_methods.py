"""Methods whose parts do not fit are named at once."""

import diffrax
import pytest

import flowopt as fo

GRADIENT = fo.flows.Gradient()


class NoEnergy(fo.AbstractFlow):
    def params_field(self, params, memory, at):
        return at.grad


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: fo.gd(0.0), ValueError, "`lr`"),
        (lambda: fo.gd(-0.1), ValueError, "`lr`"),
        (lambda: fo.gd(float("nan")), ValueError, "`lr`"),
        (lambda: fo.gd("0.1"), TypeError, "`lr`"),
        (lambda: fo.momentum(0.1, 1.0), ValueError, "`beta`"),
        (lambda: fo.adam(0.1, b1=-0.1), ValueError, "`b1`"),
        (lambda: fo.adam(0.1, b2=1.0), ValueError, "`b2`"),
        (lambda: fo.adam(0.1, eps=0.0), ValueError, "`eps`"),
        (lambda: fo.euler_richardson(tol=0.0), ValueError, "`tol`"),
        (lambda: fo.euler_richardson(step=-1.0), ValueError, "`step`"),
        (lambda: fo.lyapunov(step=0.0), ValueError, "`step`"),
        (lambda: fo.lyapunov(lam=1.0), ValueError, "`lam`"),
        (lambda: fo.lyapunov(NoEnergy()), ValueError, "`flow`: NoEnergy defines no energy"),
        (lambda: fo.Method(fo.flows.Gradient, diffrax.Euler(), step=0.1), TypeError, "`flow`.*call it"),
        (lambda: fo.Method(GRADIENT, diffrax.Euler, step=0.1), TypeError, "`solver`"),
        (lambda: fo.Method(GRADIENT, diffrax.Euler(), 0.1), TypeError, "`controller`"),
        (lambda: fo.Method(GRADIENT, diffrax.Euler()), ValueError, "`step` is needed"),
        (lambda: fo.Method(GRADIENT, diffrax.Euler(), step=0), ValueError, "`step`"),
        (lambda: fo.Method(GRADIENT, diffrax.Euler(), fo.Backtracking(), step=0.1), ValueError, "EnergyGuard"),
        (lambda: fo.Method(GRADIENT, diffrax.Euler(), diffrax.PIDController(1e-3, 1e-6)), ValueError, "estimates none"),
        (lambda: fo.Method(GRADIENT, fo.EnergyGuard(diffrax.Euler()), step=0.1), ValueError, "constant step"),
        (lambda: fo.lyapunov(controller=diffrax.PIDController(1e-3, 1e-6)), ValueError, "rtol=0 and atol=1"),
        (lambda: fo.Backtracking(shrink=1.0), ValueError, "`shrink`"),
        (lambda: fo.Backtracking(grow=0.5), ValueError, "`grow`"),
        (lambda: fo.Backtracking(atol=0.0), ValueError, "`rtol` and `atol`"),
        (lambda: fo.IntegralController(safety=0.0), ValueError, "`safety`"),
        (lambda: fo.IntegralController(factormin=1.0), ValueError, "`factormin`"),
        (lambda: fo.IntegralController(atol=-1.0), ValueError, "`rtol` and `atol`"),
    ],
)  # fmt: skip
def test_bad_parts_are_named(make, error, says):
    with pytest.raises(error, match=says):
        make()
