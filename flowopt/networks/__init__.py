"""Networks of Equinox, their data and their losses, for `flowopt.minimise` and `flowopt.least_squares`."""

from flowopt.networks.data import Data, Normalised, normalised
from flowopt.networks.losses import CrossEntropy, MeanSquaredError, Residuals
from flowopt.networks.mlp import Rebuild, mlp, split

__all__ = [
    "CrossEntropy",
    "Data",
    "MeanSquaredError",
    "Normalised",
    "Rebuild",
    "Residuals",
    "mlp",
    "normalised",
    "split",
]
