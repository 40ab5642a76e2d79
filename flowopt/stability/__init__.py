"""Stability studies: where a method ends, from where it started."""

from flowopt.stability.basins import basins
from flowopt.stability.geometry import geometry
from flowopt.stability.iterated_map import Map
from flowopt.stability.ode import ODE
from flowopt.stability.plane import Plane, plane
from flowopt.stability.reach import reach
from flowopt.stability.starts import Uniform, uniform

__all__ = [
    "ODE",
    "Map",
    "Plane",
    "Uniform",
    "basins",
    "geometry",
    "plane",
    "reach",
    "uniform",
]
