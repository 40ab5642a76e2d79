"""The ODEs behind the optimizers, one family per file."""

from flowopt.flows.adabelief import AdaBelief
from flowopt.flows.adagrad import AdaGrad
from flowopt.flows.adam import Adam, UncorrectedAdam
from flowopt.flows.adam_variants import AdamW, NAdam
from flowopt.flows.adamax import AdaMax
from flowopt.flows.amsgrad import AMSGrad
from flowopt.flows.check import FlowReport, check_flow
from flowopt.flows.flow import AbstractFlow, FlowTerm, State
from flowopt.flows.gauss_newton import GaussNewton, LevenbergMarquardt
from flowopt.flows.gradient import Clipped, Gradient, Normalised, PGradient, Sign
from flowopt.flows.heavy_ball import HeavyBall
from flowopt.flows.hessian_damping import HessianDamping
from flowopt.flows.lion import Lion
from flowopt.flows.momentum import Momentum
from flowopt.flows.nesterov import FadingNesterov, Nesterov
from flowopt.flows.newton import DampedNewton, Newton
from flowopt.flows.rmsprop import RMSProp
from flowopt.flows.scheduled import Scheduled

__all__ = [
    "AMSGrad",
    "AbstractFlow",
    "AdaBelief",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "Clipped",
    "DampedNewton",
    "FadingNesterov",
    "FlowReport",
    "FlowTerm",
    "GaussNewton",
    "Gradient",
    "HeavyBall",
    "HessianDamping",
    "LevenbergMarquardt",
    "Lion",
    "Momentum",
    "NAdam",
    "Nesterov",
    "Newton",
    "Normalised",
    "PGradient",
    "RMSProp",
    "Scheduled",
    "Sign",
    "State",
    "UncorrectedAdam",
    "check_flow",
]
