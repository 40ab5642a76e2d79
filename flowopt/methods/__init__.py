"""The named methods: points in flow x solver x controller."""

from flowopt.methods.adaptive import euler_richardson, extragradient, lyapunov
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

__all__ = [
    "Method",
    "adabelief",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "check_step",
    "euler_richardson",
    "extragradient",
    "fading_nesterov",
    "gd",
    "inna",
    "lion",
    "lyapunov",
    "momentum",
    "nadam",
    "nesterov",
    "rmsprop",
    "sign_gd",
]
