"""Problems whose truth is known: exact benchmark networks and their critical points.

SymPy and python-flint are imported when a network is made, not when this package is.
"""

from .networks import poly2 as poly2
from .networks import poly3 as poly3
from .networks import poly4 as poly4
from .networks import poly5 as poly5
from .neuron import neuron as neuron
from .problem import CriticalPoint as CriticalPoint
from .problem import Problem as Problem
