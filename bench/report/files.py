# SPDX-License-Identifier: Apache-2.0
"""A document's files: the page, and each of its figures beside it as SVG, PNG and CSV."""

from __future__ import annotations

from pathlib import Path

from bench.files import make_dirs, remove_unfinished, replace_atomic, write_atomic
from bench.report.document import Document, Figure, Table
from bench.report.page import render

PLOTS_FOLDER = "plots"


def write(folder: Path, html_name: str, document: Document) -> Path:
    """Write a document below a folder and return the page's path.

    The page comes last: where it is, what it links to is there. Raises BenchError.
    """
    page = render(document)
    plots = folder / PLOTS_FOLDER
    make_dirs(plots)
    remove_unfinished(folder)
    for section in document.sections:
        for item in section.items:
            if isinstance(item, Figure):
                _write_figure(plots, item)
            elif isinstance(item, Table):
                write_atomic(plots / f"{item.name}.csv", item.csv)
    path = folder / html_name
    write_atomic(path, page)
    return path


def _write_figure(plots: Path, figure: Figure) -> None:
    from bench.report.figure import standalone

    write_atomic(plots / f"{figure.name}.svg", standalone(figure))
    write_atomic(plots / f"{figure.name}.csv", figure.csv)
    if figure.png:
        _write_bytes(plots / f"{figure.name}.png", figure.png)


def _write_bytes(path: Path, data: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    replace_atomic(path, write)
