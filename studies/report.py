"""Markdown and files: what every study's report is made of."""

import functools as ft
import hashlib
import pathlib
import re
import shutil
from collections.abc import Callable, Sequence

import xarray as xr
from matplotlib.figure import Figure

import flowopt
import studies
from flowopt.run.store import versions


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(share: float) -> str:
    """A share as a percentage; one that is not zero never reads as zero."""
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def verdict(holds: bool | None, claim: str, measured: str) -> str:
    """One line: the claim, whether it holds here (None: in part), and what was measured."""
    word = {True: "holds", False: "does not hold here", None: "holds in part"}[holds]
    return f"- **{word}**: {claim}. Measured: {measured}."


def save_figure(figure: Figure, path: pathlib.Path) -> None:
    """Writes the figure as PNG, and as PDF beside it."""
    for suffix in (path.suffix, ".pdf"):
        _whole(path.with_suffix(suffix), lambda beside: figure.savefig(beside, dpi=150))


def _whole(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Writes a file whole or not at all: what was there stays until the new one is complete, also on a full disk."""
    beside = path.with_name(f".new.{path.name}")  # if killed, the next time overwrites it
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def save_data(data: xr.Dataset, path: pathlib.Path) -> None:
    """Writes the data set as Zarr, in place of what was there, which goes only once the new one is whole."""
    beside = path.with_name(f".new.{path.name}")
    try:
        data.to_zarr(beside, mode="w", consolidated=False)
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def save_report(text: str, out: pathlib.Path) -> str:
    """Writes report.md, and returns it; the runs that it was made of have done their duty."""
    _whole(out / "report.md", lambda beside: beside.write_text(text + "\n"))
    shutil.rmtree(out / "unfinished", ignore_errors=True)
    return text


def unfinished(out: pathlib.Path, label: str) -> pathlib.Path:
    """Where the runs called `label` are kept while the study is under way: killed and started again, it goes on."""
    return zarr_path(out / "unfinished", label)


def zarr_path(out: pathlib.Path, label: str) -> pathlib.Path:
    """The Zarr file in `out` for what is called `label`."""
    return out / f"{re.sub(r'[^A-Za-z0-9.]+', '-', label)}.zarr"


def kept(out: pathlib.Path, label: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
    """`compute()`, or what it gave before this study was killed: kept, whole or not at all, where `unfinished` says.

    What other versions of the code have left there is made anew. The dataset is always read back from the disk, so that
    it has the same bits either way.
    """
    path = unfinished(out, label)
    if not path.exists() or xr.open_zarr(path, consolidated=False).attrs.get("code") != _code():
        save_data(compute().assign_attrs(code=_code()), path)
    data = xr.open_zarr(path, consolidated=False).load()
    del data.attrs["code"]
    for variable in data.variables.values():
        variable.encoding.clear()  # of the file it came from
    return data


@ft.cache
def _code() -> str:
    """A hash of all that results depend on here: the sources of the library and of the studies, and the versions."""
    digest = hashlib.sha256(repr(versions()).encode())
    for package in (flowopt, studies):
        folder = pathlib.Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def save_together(reports: dict[str, str], out: str | pathlib.Path) -> pathlib.Path:
    """Writes several studies' reports, with every figure in their folders, as one page; returns its path."""
    out = pathlib.Path(out)
    parts = []
    for name, text in reports.items():
        figures = [f.relative_to(out).as_posix() for f in sorted((out / name).rglob("*.png"))]
        text = re.sub(r"\]\(([^)#:]+\.png)\)", rf"]({name}/\1)", text)  # from where the page is
        rest = [f for f in figures if f"]({f})" not in text]
        parts += [text, *(f"![{pathlib.Path(f).stem}]({f})" for f in rest)]
    path = out / "report.md"
    _whole(path, lambda beside: beside.write_text("\n\n".join(parts) + "\n"))
    return path
