"""Intervals of a probability that was counted."""

import numpy as np
import scipy.stats
from jaxtyping import Float, Int


def clopper_pearson(
    count: Int[np.ndarray, "..."], n: int, confidence: float = 0.95
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """(lower, upper) [1]: the exact interval of a probability of which `count` in `n` trials were seen.

    It holds every p at which seeing as few, and as many, has a probability above (1 - confidence)/2. Whatever the true
    p, it is covered with a probability of at least `confidence`.   [Clopper and Pearson 1934]
    """
    k, tail = np.asarray(count), (1 - confidence) / 2
    # Where k is 0 or n the quantile has no meaning, and the bound is 0 or 1.
    lower = scipy.stats.beta.ppf(tail, np.maximum(k, 1), n - k + 1)
    upper = scipy.stats.beta.ppf(1 - tail, k + 1, np.maximum(n - k, 1))
    return np.where(k > 0, lower, 0.0), np.where(k < n, upper, 1.0)
