"""The verdicts of the study `convexity` follow from the numbers."""

import numpy as np
import xarray as xr

from studies import convexity


def fact(solidity, alpha):
    return dict(solidity=solidity, mean_solidity=solidity, alpha=alpha)


def numbers(**solidity):
    return {
        ("poly2", name): fact(solidity.get(kind, 0.5), 0.95 if kind == "first" else 0.4)
        for kind, names in (
            ("flow", (convexity.FLOW, "heavy ball flow")),
            ("constant", convexity.CONSTANT),
            ("first", convexity.FIRST_ORDER),
            ("inertia", convexity.INERTIA),
        )
        for name in names
    }


def words(found):
    return [line.split("**")[1] for line in convexity.verdicts(found, ["poly2"])]


def test_verdicts_are_computed():
    no = "does not hold here"
    assert words(numbers(flow=0.95, first=0.93)) == ["holds", "holds", "holds", no]
    assert words(numbers(flow=0.95, first=0.85)) == ["holds", no, "holds", no]
    mixed = numbers(flow=0.95, first=0.93, inertia=0.7)
    mixed["poly2", convexity.FIRST_ORDER[2]] = fact(0.4, 0.5)
    assert words(mixed) == ["holds in part", "holds in part", "holds in part", "holds"]


def test_refinement_counts_what_it_misses():
    labels = np.zeros((64, 64), int)
    labels[3, 5] = labels[37:, 20:] = 1
    text = convexity.refinement({("poly2", "GD"): xr.Dataset({"label": (("w", "b"), labels)})})
    assert "| poly2 | GD |" in text and "| <0.1% |" in text
