"""flowopt: optimizers as ODEs. A method is a flow x a solver x a controller."""

from flowopt import benchmarks, controllers, flows, solvers
from flowopt.benchmarks import CriticalPoint, Problem
from flowopt.controllers import Backtracking, IntegralController
from flowopt.flows import AbstractFlow, FlowTerm, check_flow
from flowopt.methods import (
    Method,
    adam,
    euler_richardson,
    extragradient,
    gd,
    lyapunov,
    momentum,
)
from flowopt.run.ensemble import Ensemble, ensemble
from flowopt.run.outcome import Outcome
from flowopt.run.single import Solution, minimise
from flowopt.solvers import EnergyGuard, EulerRichardson, Extragradient, StaggeredEuler
