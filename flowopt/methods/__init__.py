"""The named methods: points in flow x solver x controller."""

from flowopt.methods.adaptive import (
    energy_momentum,
    energy_rmsprop,
    euler_richardson,
    extragradient,
    lyapunov,
)
from flowopt.methods.default import default_method
from flowopt.methods.first_order import (
    adabelief,
    adagrad,
    adam,
    adamax,
    adamw,
    amsgrad,
    fading_nesterov,
    gd,
    inna,
    lion,
    momentum,
    nadam,
    nesterov,
    rmsprop,
    sign_gd,
)
from flowopt.methods.method import Method, check_step
from flowopt.methods.second_order import (
    damped_newton,
    gauss_newton,
    levenberg_marquardt,
    newton,
    proximal_point,
)

__all__ = [
    "Method",
    "adabelief",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "check_step",
    "damped_newton",
    "default_method",
    "energy_momentum",
    "energy_rmsprop",
    "euler_richardson",
    "extragradient",
    "fading_nesterov",
    "gauss_newton",
    "gd",
    "inna",
    "levenberg_marquardt",
    "lion",
    "lyapunov",
    "momentum",
    "nadam",
    "nesterov",
    "newton",
    "proximal_point",
    "rmsprop",
    "sign_gd",
]
