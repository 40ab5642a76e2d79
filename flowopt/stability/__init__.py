"""Stability studies: where a method ends, from where it started."""

from flowopt.stability.basins import basins
from flowopt.stability.reach import reach
from flowopt.stability.starts import Uniform, uniform

__all__ = ["Uniform", "basins", "reach", "uniform"]
