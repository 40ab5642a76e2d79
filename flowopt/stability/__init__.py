"""Stability studies: where a method ends, from where it started, and whether it would stay there."""

from flowopt.stability.basins import basins
from flowopt.stability.compare import compare, comparison_table
from flowopt.stability.critical_step import critical_step
from flowopt.stability.expansion import expansion
from flowopt.stability.geometry import geometry
from flowopt.stability.hyperparameters import hyperparameters, sweep, with_hyperparameter
from flowopt.stability.iterated_map import Map
from flowopt.stability.ode import ODE
from flowopt.stability.paired import mcnemar
from flowopt.stability.plane import Plane, plane
from flowopt.stability.reach import reach
from flowopt.stability.region import growth_factor
from flowopt.stability.sensitivity import sensitivity
from flowopt.stability.spectrum import spectrum
from flowopt.stability.starts import Initialised, Normal, Uniform, initialised, normal, uniform

__all__ = [
    "ODE",
    "Initialised",
    "Map",
    "Normal",
    "Plane",
    "Uniform",
    "basins",
    "compare",
    "comparison_table",
    "critical_step",
    "expansion",
    "geometry",
    "growth_factor",
    "hyperparameters",
    "initialised",
    "mcnemar",
    "normal",
    "plane",
    "reach",
    "sensitivity",
    "spectrum",
    "sweep",
    "uniform",
    "with_hyperparameter",
]
