# SPDX-License-Identifier: Apache-2.0
"""`bench show`: one run, summed up."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.text import Text

from bench.clocks import sentence
from bench.compare import compare
from bench.paths import results_dir
from bench.plain import plain
from bench.runs import RunReader
from bench.validity import findings
from bench.verdict import full, header, terminal


@click.command("show")
@click.argument("run")
@click.option("--results", type=click.Path(path_type=Path), help="Folder of runs [./results].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def show_command(run: str, results: Path | None, as_json: bool) -> None:
    """Sum up a RUN: a path, a run id, or latest."""
    reader = RunReader.open(run, results or results_dir())
    comparison = compare(reader)
    if as_json:
        summary = {"path": str(reader.path), "run": reader.meta, "summary": comparison}
        click.echo(json.dumps(summary, indent=1, allow_nan=False))
        return
    console = terminal()
    console.print(header(reader.meta), Text(), full(reader, comparison))
    for finding in findings(reader.meta):
        remedy = f" ({finding['remedy']})" if finding["remedy"] else ""
        text = f"{finding['host']}: {finding['text']}{remedy}"
        console.print(Text(plain(f"Before the run, {finding['level']}: {text}")))
    if said := sentence(reader.meta["clocks"]):
        console.print(Text(plain(said)))
    for note in reader.meta["notes"]:
        console.print(Text(plain(f"Note: {note}")))
