"""The table of what goes with what is what is found by trying."""

import pathlib

import diffrax
import jax.numpy as jnp
import pytest

import flowopt as fo
from studies.compatibility import FLOWS, between, render

ROOT = pathlib.Path(__file__).parent.parent


def test_the_table_in_the_readme_is_the_one_found():
    readme = (ROOT / "README.md").read_text()
    assert between(readme) == render().strip() + "\n", "run python -m studies.compatibility"


def test_every_public_flow_is_in_the_table():
    kinds = {type(flow) for flow in FLOWS}
    public = {
        kind
        for name in fo.flows.__all__
        if isinstance(kind := getattr(fo.flows, name), type) and issubclass(kind, fo.AbstractFlow)
    }
    assert kinds == public - {fo.AbstractFlow}


RUN = ("NAdam", "AMSGrad", "AdaMax", "Lion", "Momentum", "Scheduled", "Newton", "GaussNewton")


@pytest.mark.parametrize(
    "flow", [f for f in FLOWS if type(f).__name__ in RUN], ids=lambda flow: type(flow).__name__
)
def test_a_flow_descends_under_a_runge_kutta_solver(flow):
    # Not traced only: run.
    controller = diffrax.PIDController(rtol=1e-4, atol=1e-6)
    method = fo.Method(flow, diffrax.Heun(), controller, step=1e-4)
    residuals = lambda x, _: jnp.stack([x[0] - 1, 2 * (x[1] + x[0] ** 2)])
    start = jnp.array([0.2, 0.3])
    sol = fo.least_squares(residuals, start, method, tol=1e-4, max_steps=150)
    assert sol.outcome != "diverged"
    assert float(sol.value) < 0.5 * float(jnp.sum(residuals(start, None) ** 2))
