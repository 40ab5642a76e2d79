"""How long the next step is: step-size laws beside those of Diffrax."""

from flowopt.controllers.backtracking import Backtracking
from flowopt.controllers.gain_ratio import (
    AbstractRule,
    Fletcher,
    GainRatio,
    Marquardt,
    More,
    Nielsen,
    Uphill,
)
from flowopt.controllers.integral import IntegralController
from flowopt.controllers.log_bisection import LogBisection

__all__ = [
    "AbstractRule",
    "Backtracking",
    "Fletcher",
    "GainRatio",
    "IntegralController",
    "LogBisection",
    "Marquardt",
    "More",
    "Nielsen",
    "Uphill",
]
