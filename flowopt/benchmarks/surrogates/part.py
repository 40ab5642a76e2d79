"""What every part to be replaced has: data by a seed, and a measure of a network's error."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

from flowopt.networks.data import Data


def rms(predicted: Float[np.ndarray, "n k"], target: Float[np.ndarray, "n k"]) -> float:
    """The root of the mean square of predicted - target over data and outputs [outputs]; NaN if a prediction is."""
    return float(np.sqrt(np.mean((np.asarray(predicted) - np.asarray(target)) ** 2)))


def misclassified(predicted: Float[np.ndarray, "n k"], target: Shaped[np.ndarray, " n"]) -> float:
    """The share of data whose largest logit is not their class; a datum with a NaN among its logits counts as wrong."""
    predicted = np.asarray(predicted)
    right = (np.argmax(predicted, axis=1) == np.asarray(target)) & ~np.isnan(predicted).any(axis=1)
    return float(np.mean(~right))


@dataclasses.dataclass(frozen=True)
class Part:
    """A function that a network is to replace: how its data are drawn, and what counts as error."""

    name: str
    inputs: tuple[str, ...]
    """What each input is, and its unit."""
    outputs: tuple[str, ...]
    """What each output is, and its unit; of a classification, the classes."""
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
    """(generator, n) -> inputs (n, ...) and targets (n, ...), in float64."""
    error: Callable[[np.ndarray, np.ndarray], float] = rms
    """(predicted, target) -> one number, 0 for a perfect network. Of logarithms, the rms relative error if small."""

    def sample(self, n: int, seed: int) -> Data:
        """`n` data, the same for the same `seed`; in JAX's default precision.

        Raises ValueError unless n is an int >= 1.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"`n` must be an int >= 1, how many data to draw; got {n!r}")
        return Data(*self.draw(np.random.default_rng(seed), n))
