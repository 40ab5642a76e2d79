"""Stability studies: where a method ends, from where it started, and whether it would stay there."""

from flowopt.stability.basins import basins
from flowopt.stability.critical_step import critical_step
from flowopt.stability.geometry import geometry
from flowopt.stability.iterated_map import Map
from flowopt.stability.ode import ODE
from flowopt.stability.plane import Plane, plane
from flowopt.stability.reach import reach
from flowopt.stability.region import growth_factor
from flowopt.stability.spectrum import spectrum
from flowopt.stability.starts import Uniform, uniform

__all__ = [
    "ODE",
    "Map",
    "Plane",
    "Uniform",
    "basins",
    "critical_step",
    "geometry",
    "growth_factor",
    "plane",
    "reach",
    "spectrum",
    "uniform",
]
