"""Parts of simulation codes to be replaced by small networks, each made by the numerical code that it stands for.

A `Part` draws data, `riemann_problem.sample(500, seed=0)`, as `flowopt.networks.Data`, and has an error measure.
"""

from .collisional_radiative import opacity as opacity
from .curves import runge as runge
from .curves import two_spirals as two_spirals
from .euler import riemann_problem as riemann_problem
from .part import Part as Part
from .saha import equation_of_state as equation_of_state
