# SPDX-License-Identifier: Apache-2.0
"""`bench compare`: the statistics of a run, or of two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bench.compare import compare
from bench.paths import results_dir
from bench.runs import RunReader
from bench.verdict import render, render_other, render_pairs, terminal


@click.command("compare")
@click.argument("run", default="latest")
@click.argument("other", required=False)
@click.option("--results", type=click.Path(path_type=Path), help="Folder of runs [./results].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def compare_command(run: str, other: str | None, results: Path | None, as_json: bool) -> None:
    """Compare the modes of a RUN with each other, and with an OTHER run cell by cell.

    RUN and OTHER are a path, a run id, or latest, which RUN is when it is left out. Runs that have
    no mode in common are compared mode against mode.
    """
    folder = results or results_dir()
    first = RunReader.open(run, folder)
    second = RunReader.open(other, folder) if other else None
    comparison = compare(first, second)
    if as_json:
        click.echo(json.dumps(comparison, indent=1, allow_nan=False))
        return
    console = terminal()
    if second is not None:
        console.print(render_other(comparison))
    else:
        console.print(render(first.meta, comparison), render_pairs(comparison))
