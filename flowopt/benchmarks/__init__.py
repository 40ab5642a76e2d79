"""Problems whose truth is known: exact benchmark networks and their critical points.

SymPy and python-flint are imported when a network is made, and SciPy when `surrogates` is asked for, not when this
package is.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .certificate import Certificate as Certificate
from .certify import certify_critical_points as certify_critical_points
from .continuum import Continuum as Continuum
from .continuum import critical_continua as critical_continua
from .critical_point import CriticalPoint as CriticalPoint
from .networks import bell as bell
from .networks import exp2 as exp2
from .networks import exp4 as exp4
from .networks import exp5 as exp5
from .networks import poly2 as poly2
from .networks import poly3 as poly3
from .networks import poly4 as poly4
from .networks import poly5 as poly5
from .networks import poly8 as poly8
from .networks import rational as rational
from .neuron import neuron as neuron
from .problem import Problem as Problem
from .shallow import network_expression as network_expression
from .shallow import problem_from_expression as problem_from_expression

if TYPE_CHECKING:
    from flowopt.benchmarks import surrogates as surrogates


def __getattr__(name: str) -> Any:
    if name == "surrogates":
        return importlib.import_module("flowopt.benchmarks.surrogates")
    raise AttributeError(f"module 'flowopt.benchmarks' has no attribute {name!r}")
