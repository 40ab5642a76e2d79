"""JAX's settings and progress bars: what a run takes along from its caller into other threads and processes."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm

_NAMES = (
    "enable_x64",
    "numpy_dtype_promotion",
    "default_matmul_precision",
    "threefry_partitionable",
    "debug_nans",
)


def callers_settings() -> dict[str, Any]:
    """The settings that JAX's context managers (`jax.enable_x64(True)`, ...) have made in this thread."""
    return {name: getattr(jax.config, f"jax_{name}") for name in _NAMES}


@contextlib.contextmanager
def under(settings: dict[str, Any]) -> Iterator[None]:
    """Work under the settings of another thread: JAX keeps them per thread, and a new one has the global ones."""
    with contextlib.ExitStack() as stack:
        for name, value in settings.items():
            stack.enter_context(getattr(jax, name)(value))
        yield


@contextlib.contextmanager
def progress_bar(
    progress: bool | str | tqdm, total: int | None, done: int = 0, unit: str = "run"
) -> Iterator[tqdm]:
    """A bar of what is done, with the time left; `progress` may be one that is shown already, which goes on."""
    if isinstance(progress, tqdm):
        yield progress
        return
    label = progress if isinstance(progress, str) else None
    with tqdm(
        total=total,
        initial=done,
        disable=not progress,
        desc=label,
        leave=label is None,
        unit=unit,
        smoothing=0,
    ) as bar:
        yield bar
