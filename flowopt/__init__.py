"""flowopt: optimizers as ODEs. A method is a flow x a solver x a controller."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

from flowopt import benchmarks, controllers, flows, networks, solvers
from flowopt.benchmarks import CriticalPoint, Problem, certify_critical_points
from flowopt.controllers import Backtracking, GainRatio, IntegralController, LogBisection
from flowopt.flows import AbstractFlow, FlowTerm, check_flow
from flowopt.methods import (
    Method,
    adabelief,
    adagrad,
    adam,
    adamax,
    adamw,
    amsgrad,
    damped_newton,
    default_method,
    energy_momentum,
    energy_rmsprop,
    euler_richardson,
    extragradient,
    fading_nesterov,
    gauss_newton,
    gd,
    inna,
    levenberg_marquardt,
    lion,
    lyapunov,
    momentum,
    nadam,
    nesterov,
    newton,
    proximal_point,
    rmsprop,
    sign_gd,
)
from flowopt.objective import SumOfSquares
from flowopt.run.diffusion import diffuse
from flowopt.run.ensemble import Ensemble, ensemble
from flowopt.run.history import History
from flowopt.run.least_squares import least_squares
from flowopt.run.outcome import Outcome
from flowopt.run.single import minimise
from flowopt.run.solution import Solution
from flowopt.solvers import (
    EnergyGuard,
    EulerRichardson,
    Extragradient,
    RosenbrockEuler,
    StaggeredEuler,
)
from flowopt.stochastic import Stochastic, gaussian_noise, minibatch

if TYPE_CHECKING:
    from flowopt import plotting, stability
    from flowopt.interop.from_optax import (
        from_optax,
    )
    from flowopt.interop.from_optimistix import (
        from_optimistix,
    )
    from flowopt.interop.optax import (
        as_optax,
    )
    from flowopt.interop.optimistix import (
        as_optimistix,
    )
    from flowopt.plotting import (
        plot_basins,
        plot_comparison,
        plot_energy,
        plot_expansion,
        plot_sensitivity,
        plot_stability_region,
    )
    from flowopt.stability import (
        ODE,
        Map,
        basins,
        compare,
        comparison_table,
        critical_step,
        expansion,
        geometry,
        hyperparameters,
        initialised,
        mcnemar,
        normal,
        plane,
        reach,
        sensitivity,
        spectrum,
        sweep,
        uniform,
        with_hyperparameter,
    )

_MODULES = {
    # Drawing and data sets load pandas and matplotlib: seconds that a training run need not wait for.
    "flowopt.stability": (
        "Map",
        "ODE",
        "basins",
        "compare",
        "comparison_table",
        "critical_step",
        "expansion",
        "geometry",
        "hyperparameters",
        "initialised",
        "mcnemar",
        "normal",
        "plane",
        "reach",
        "sensitivity",
        "spectrum",
        "sweep",
        "uniform",
        "with_hyperparameter",
    ),
    "flowopt.plotting": (
        "plot_basins",
        "plot_comparison",
        "plot_energy",
        "plot_expansion",
        "plot_sensitivity",
        "plot_stability_region",
    ),
    # optax may be absent.
    "flowopt.interop.optax": ("as_optax",),
    "flowopt.interop.from_optax": ("from_optax",),
    "flowopt.interop.from_optimistix": ("from_optimistix",),
    "flowopt.interop.optimistix": ("as_optimistix",),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in ("stability", "plotting"):
        return importlib.import_module(f"flowopt.{name}")
    if name == "__version__":
        return importlib.metadata.version("flowopt")
    raise AttributeError(f"module 'flowopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, "plotting", "stability"])
