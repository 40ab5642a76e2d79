"""Networks of Equinox, their data and their losses, for `flowopt.minimise` and `flowopt.least_squares`."""

from flowopt.networks.data import Data, Normalised, normalised
from flowopt.networks.losses import CrossEntropy, MeanSquaredError, Residuals
from flowopt.networks.mlp import Rebuild, mlp, split
from flowopt.networks.real_data import breast_cancer, diabetes, digits

__all__ = [
    "CrossEntropy",
    "Data",
    "MeanSquaredError",
    "Normalised",
    "Rebuild",
    "Residuals",
    "breast_cancer",
    "diabetes",
    "digits",
    "mlp",
    "normalised",
    "split",
]
