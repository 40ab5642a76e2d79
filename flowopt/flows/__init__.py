"""The ODEs behind the optimizers, one family per file."""

from flowopt.flows.adam import Adam, UncorrectedAdam
from flowopt.flows.check import FlowReport, check_flow
from flowopt.flows.flow import AbstractFlow, FlowTerm, State
from flowopt.flows.gradient import Gradient
from flowopt.flows.heavy_ball import HeavyBall

__all__ = [
    "AbstractFlow",
    "Adam",
    "FlowReport",
    "FlowTerm",
    "Gradient",
    "HeavyBall",
    "State",
    "UncorrectedAdam",
    "check_flow",
]
