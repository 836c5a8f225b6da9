# SPDX-License-Identifier: Apache-2.0
"""`bench list`: the runs there are."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from bench.paths import results_dir
from bench.plain import plain
from bench.runs import RunEntry, list_runs


@click.command("list")
@click.option("--results", type=click.Path(path_type=Path), help="Folder of runs [./results].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def list_command(results: Path | None, as_json: bool) -> None:
    """List runs, oldest first."""
    folder = results or results_dir()
    entries = list_runs(folder)
    if as_json:
        click.echo(json.dumps([as_record(entry) for entry in entries], indent=1))
    elif entries:
        Console().print(as_table(entries))
    else:
        click.echo(f"There is no run in {folder}.", err=True)


def as_record(entry: RunEntry) -> dict[str, Any]:
    """Return an entry as JSON has it."""
    return {**asdict(entry), "path": str(entry.path), "modes": list(entry.modes)}


def as_table(entries: list[RunEntry]) -> Group:
    """Return the list as a table, and below it what is wrong with the broken ones."""
    table = Table(box=None, pad_edge=False)
    for name in ("run", "status", "modes", "samples", "invalid"):
        right = name in ("samples", "invalid")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "modes")
    for entry in entries:
        planned = entry.cells * entry.blocks
        counts = ("", "") if entry.problem else (f"{entry.samples}/{planned}", str(entry.invalid))
        words = (entry.run_id, entry.status, " ".join(entry.modes))
        table.add_row(*(Text(plain(word)) for word in words), *counts)
    return Group(table, *(Text(plain(entry.problem)) for entry in entries if entry.problem))
