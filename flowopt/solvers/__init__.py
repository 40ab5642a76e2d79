"""How one step is made: the solvers that the classics need and Diffrax lacks, and the energy guard."""

from flowopt.solvers.energy_guard import EnergyGuard
from flowopt.solvers.euler_richardson import EulerRichardson
from flowopt.solvers.extragradient import Extragradient
from flowopt.solvers.rosenbrock_euler import Gain, RosenbrockEuler
from flowopt.solvers.staggered_euler import StaggeredEuler
from flowopt.solvers.trial import AbstractFlowSolver, Trial

__all__ = [
    "AbstractFlowSolver",
    "EnergyGuard",
    "EulerRichardson",
    "Extragradient",
    "Gain",
    "RosenbrockEuler",
    "StaggeredEuler",
    "Trial",
]
