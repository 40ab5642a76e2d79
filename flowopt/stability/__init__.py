"""Stability studies: where a method ends, from where it started, and whether it would stay there."""

from flowopt.stability.basins import basins
from flowopt.stability.critical_step import critical_step
from flowopt.stability.reach import reach
from flowopt.stability.region import growth_factor
from flowopt.stability.spectrum import spectrum
from flowopt.stability.starts import Uniform, uniform

__all__ = ["Uniform", "basins", "critical_step", "growth_factor", "reach", "spectrum", "uniform"]
