"""Two methods on the same starts: is the difference of their reach probabilities more than chance?"""

import numpy as np
import scipy.stats
import xarray as xr


def mcnemar(one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """The exact test of McNemar for each end, on two datasets of `flowopt.reach` from the same starts.

    Of the runs that end at an end by one method alone, each method would have half if their probabilities were the
    same. The p-value is that of the two-sided binomial test on these discordant runs; runs on which both agree
    say nothing of the difference.

    Returns a dataset over `end`: `both`, `only_one`, `only_other`, `neither` (runs); `difference` of the
    probabilities, one less other; `p_value`; and `p_holm`, adjusted for there being several ends (the ends with no
    discordant run are not counted among them).

    Raises ValueError, naming the argument, for datasets of different starts or ends.   [McNemar 1947; Holm 1979]
    """
    for name, ds in (("one", one), ("other", other)):
        if not isinstance(ds, xr.Dataset) or not {"label", "start", "end"} <= set(ds.variables):
            raise TypeError(f"`{name}` must be a dataset as flowopt.reach returns it")
    if not np.array_equal(one.start.values, other.start.values, equal_nan=True):
        raise ValueError(
            "`other` must be from the same starts as `one`, in the same order: give both the same distribution, `n` "
            "and `key`"
        )
    if not np.array_equal(one.end.values, other.end.values):
        raise ValueError("`other` must be of the same critical points as `one`")
    ends = one.end.values
    a = one.label.values == ends[:, None]
    b = other.label.values == ends[:, None]
    only_one, only_other = np.sum(a & ~b, axis=1), np.sum(b & ~a, axis=1)
    p = np.array([_two_sided(int(k), int(m)) for k, m in zip(only_one, only_other, strict=True)])
    runs = lambda x: ("end", x, {"units": "runs"})
    return xr.Dataset(
        {
            "both": runs(np.sum(a & b, axis=1)),
            "only_one": runs(only_one),
            "only_other": runs(only_other),
            "neither": runs(np.sum(~a & ~b, axis=1)),
            "difference": ("end", (only_one - only_other) / a.shape[1], {"units": "1"}),
            "p_value": ("end", p, {"units": "1"}),
            "p_holm": ("end", _holm(p, only_one + only_other > 0), {"units": "1"}),
        },
        coords={"end": ends},
        attrs={"one": one.attrs.get("method", ""), "other": other.attrs.get("method", "")},
    )


def _two_sided(k: int, m: int) -> float:
    return float(scipy.stats.binomtest(k, k + m, 0.5).pvalue) if k + m else 1.0


def _holm(p: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment among the tested; 1 for the rest."""
    adjusted = np.ones_like(p)
    order = np.flatnonzero(tested)[np.argsort(p[tested])]
    raised = p[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return adjusted
