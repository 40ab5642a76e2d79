"""Tests run in float64 and with strict dtype promotion: a dtype changed behind the user's back is an error."""

import os

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # read when SciPy is loaded; see studies/__init__.py

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
