"""How long the next step is: step-size laws beside those of Diffrax."""

from flowopt.controllers.backtracking import Backtracking
from flowopt.controllers.integral import IntegralController
from flowopt.controllers.log_bisection import LogBisection

__all__ = ["Backtracking", "IntegralController", "LogBisection"]
