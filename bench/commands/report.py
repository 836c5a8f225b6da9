# SPDX-License-Identifier: Apache-2.0
"""`bench report`: a run on one page, with its plots as files."""

from __future__ import annotations

from pathlib import Path

import click

from bench.errors import UsageError
from bench.files import make_dirs
from bench.paths import results_dir
from bench.runs import REPRODUCE_FILE, RunReader, find_run


@click.command("report")
@click.argument("run")
@click.option("--results", type=click.Path(path_type=Path), help="Folder of runs [./results].")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder for the page [that of the run]."
)
def report_command(run: str, results: Path | None, output: Path | None) -> None:
    """Make the page of a RUN: a path, a run id, or latest.

    It writes report.html, which needs nothing but itself, and the plots as files into plots/, and
    prints the page's path. What bench reproduce has made gets its own page again.
    """
    folder = results or results_dir()
    path = find_run(run, folder)
    if (path / REPRODUCE_FILE).is_file():
        page = _reproduced(path, output)
    else:
        page = _made(path, folder, output)
    # A path need not be text.
    click.echo(click.format_filename(page))


def _made(path: Path, folder: Path, output: Path | None) -> Path:
    # Plots take a second to import.
    from bench.report.make import make

    run = RunReader.open(path, folder)
    if output is not None:
        make_dirs(output)
    return make(run, output)


def _reproduced(path: Path, output: Path | None) -> Path:
    if output is not None:
        raise UsageError("--output is for the page of a run; a reproduction's is in its folder")
    from bench.reproduce.page import make
    from bench.reproduce.record import Reproduction

    return make(Reproduction.open(path))
