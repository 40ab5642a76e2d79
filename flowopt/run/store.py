"""Results on disk: one Zarr chunk per task, a mark for each that is whole, and what they are results of."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any, TypeVar

import jax.tree_util as jtu
import numpy as np

T = TypeVar("T")

_CONTENT = "ends of runs, written by flowopt.ensemble"
_ATTRIBUTES = {
    "params": {"units": "params"},
    "value": {"units": "loss"},
    "grad_norm": {"units": "loss/params"},
    "accepted": {"units": "steps"},
    "rejected": {"units": "steps"},
    "outcome": {
        "flag_values": [-1, 0, 1, 2, 3],
        "flag_meanings": "not_run converged max_steps stalled diverged",
    },
}


def versions() -> dict[str, str]:
    """The versions of the packages that a result may depend on, as attributes of a dataset."""
    packages = ("flowopt", "jax", "jaxlib", "diffrax", "equinox", "numpy")
    return {f"{package} version": _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # on the path, and not installed
        return "not installed"


def columns(ends: Any) -> dict[str, Any]:
    """The arrays of an ensemble by name: `value`, ...; of the params, `params.` and the path of the leaf."""
    found = {}
    for path, leaf in jtu.tree_flatten_with_path(vars(ends))[0]:
        name = jtu.keystr(path, simple=True, separator=".").replace("/", "_")
        found["outcome" if name == "outcome.code" else name] = leaf
    return found


def from_columns(like: T, arrays: Any) -> T:
    """The inverse of `columns`: an ensemble like `like`, with its arrays taken from `arrays` by name."""
    structure = jtu.tree_structure(vars(like))
    filled = jtu.tree_unflatten(structure, [arrays[name] for name in columns(like)])
    return type(like)(**filled)


@dataclasses.dataclass(frozen=True)
class Store:
    """A Zarr group at `path`: an array over `run` for each of the `columns`, and `finished` over the chunks."""

    path: str
    n: int
    chunk: int

    def write(self, first: int, ends: Any) -> None:
        """Writes the chunk that begins with run `first`, and then marks it: each file whole or not at all."""
        import zarr

        # A chunk that equals the fill value would be left out, and -0.0 come back as 0.0.
        with _explained(self.path), zarr.config.set({"array.write_empty_chunks": True}):
            group = zarr.open_group(self.path, mode="r+")
            for name, column in columns(ends).items():
                group[name][first : first + len(ends)] = np.asarray(column)  # pyright: ignore
            group["finished"][first // self.chunk] = True  # pyright: ignore

    def unfinished(self) -> list[int]:
        """The first run of every chunk that is not marked."""
        import zarr

        finished: Any = zarr.open_group(self.path, mode="r")["finished"]
        return (np.flatnonzero(~finished[:]) * self.chunk).tolist()

    def read(self, like: T) -> T:
        """An ensemble whose arrays are `xarray.DataArray`s that stay on disk until they are used."""
        import xarray as xr

        return from_columns(like, xr.open_zarr(self.path, consolidated=False, chunks=None))


@contextlib.contextmanager
def _explained(path: str | os.PathLike) -> Iterator[None]:
    """Says of an OSError what it means for the results."""
    try:
        yield
    except OSError as e:
        raise OSError(
            e.errno,
            f"`store`: {e.strerror or e}; what was finished before is kept, and the same call goes on from there",
            os.fspath(path),
        ) from e


def open_store(
    path: str | os.PathLike, like: Any, n: int, chunk: int, description: dict[str, Any]
) -> Store:
    """The store at `path`, made if there is none.

    Raises ValueError, and changes nothing, where something else is there, or results of another description;
    OSError where it cannot be written.
    """
    path = pathlib.Path(path)
    description = json.loads(json.dumps({"content": _CONTENT, **description}))
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        _create(path, like, n, chunk, description)
    _check(path, description)
    return Store(str(path.absolute()), n, chunk)


def _check(path: pathlib.Path, description: dict[str, Any]) -> None:
    import zarr

    try:
        there = dict(zarr.open_group(path, mode="r").attrs)
    except (OSError, ValueError) as e:  # no group: a file, or a folder of something else
        there = {}
        if isinstance(e, PermissionError):
            raise
    if there.get("content") != _CONTENT:
        raise ValueError(
            f"`store`: {path} is there already and holds no results of flowopt.ensemble; nothing was written. "
            "Give a path at which there is nothing"
        )
    # What the method and the objective are is told by the step's digest; their names only say it to the reader.
    decisive = {k for k in {*there, *description} if not k.startswith(("method", "objective"))}
    if all(there.get(k) == description.get(k) for k in decisive):
        return
    differing = [
        f"{k} is {there.get(k)!r} there and {description.get(k)!r} here"
        for k in sorted({*there, *description})
        if there.get(k) != description.get(k)
    ]
    raise ValueError(
        f"`store`: {path} holds results of another description, and nothing was written: "
        + "; ".join(differing)
        + ". Give another path, or remove it"
    )


def _create(path: pathlib.Path, like: Any, n: int, chunk: int, description: dict[str, Any]) -> None:
    """Made beside its place and moved there, so that there is all of it or nothing."""
    import zarr

    beside = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        with _explained(path):
            group = zarr.create_group(beside, attributes=description)
            for name, column in columns(like).items():
                axes = [f"{name}_{i}" for i in range(len(column.shape))]
                group.create_array(
                    name,
                    shape=(n, *column.shape),
                    chunks=(chunk, *column.shape),
                    dtype=column.dtype,
                    fill_value=np.nan if np.issubdtype(column.dtype, np.floating) else -1,
                    dimension_names=["run", *axes],
                    attributes=_ATTRIBUTES[name.partition(".")[0]],
                )
            group.create_array(
                "finished",
                shape=(-(-n // chunk),),
                chunks=(1,),
                dtype=bool,
                fill_value=False,
                dimension_names=["chunk"],
            )
            os.rename(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
