"""Markdown and files: what every study's report is made of."""

import pathlib
import re
import shutil
from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure


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
    figure.savefig(path, dpi=150)
    figure.savefig(path.with_suffix(".pdf"), dpi=150)


def save_data(data: xr.Dataset, path: pathlib.Path) -> None:
    """Writes the data set as Zarr, in place of what was there."""
    data.to_zarr(path, mode="w", consolidated=False)


def save_report(text: str, out: pathlib.Path) -> str:
    """Writes report.md, and returns it; the runs that it was made of have done their duty."""
    (out / "report.md").write_text(text + "\n")
    shutil.rmtree(out / "unfinished", ignore_errors=True)
    return text


def unfinished(out: pathlib.Path, label: str) -> pathlib.Path:
    """Where the runs called `label` are kept while the study is under way: killed and started again, it goes on."""
    return out / "unfinished" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', label)}.zarr"


def save_together(reports: dict[str, str], out: str | pathlib.Path) -> pathlib.Path:
    """Writes several studies' reports, and every figure in their folders, as one page; returns its path."""
    out = pathlib.Path(out)
    parts = []
    for name, text in reports.items():
        figures = sorted((out / name).rglob("*.png"))
        parts += [text, *(f"![{f.stem}]({f.relative_to(out).as_posix()})" for f in figures)]
    path = out / "report.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path
