# SPDX-License-Identifier: Apache-2.0
"""`bench diagnose`: causes of a run's odd numbers, with their evidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from bench.causes.model import Cause, counted
from bench.diagnose import diagnose
from bench.paths import results_dir
from bench.plain import plain
from bench.runs import RunReader


@click.command("diagnose")
@click.argument("run")
@click.option("--results", type=click.Path(path_type=Path), help="Folder of runs [./results].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def diagnose_command(run: str, results: Path | None, as_json: bool) -> None:
    """Name causes of odd numbers in a RUN (a path, a run id, or latest), with evidence."""
    reader = RunReader.open(run, results or results_dir())
    causes = diagnose(reader)
    if as_json:
        document = {
            "run": reader.run_id,
            "samples": len(reader.samples),
            "causes": [cause.record() for cause in causes],
        }
        click.echo(json.dumps(document, indent=1, allow_nan=False))
        return
    click.echo("\n\n".join(_blocks(causes, len(reader.samples))))


def _blocks(causes: Sequence[Cause], samples: int) -> list[str]:
    if not causes:
        return [f"No cause found: nothing odd in {counted(samples, 'sample')}."]
    return [
        "\n".join(
            [
                plain(f"{cause.level.capitalize()}: {cause.line()}"),
                *(plain(f"  - {line}") for line in cause.evidence),
                f"  What helps: {cause.remedy}.",
            ]
        )
        for cause in causes
    ]
