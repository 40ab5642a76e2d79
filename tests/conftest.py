"""Tests run in float64 and with strict dtype promotion: a dtype changed behind the user's back is an error."""

import os
import pathlib

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # read when SciPy is loaded; see studies/__init__.py

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_do_not_pile_up():
    """Each holds memory maps, of which Linux allows a process 65,530: the whole suite in two workers came to 64,960 in
    one of them, and to 7 GB, and at the limit the next compilation ends the process."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists() or maps.read_text().count("\n") > 20_000:
        jax.clear_caches()
