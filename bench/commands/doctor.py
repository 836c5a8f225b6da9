# SPDX-License-Identifier: Apache-2.0
"""`bench doctor`: a read-only preflight."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from bench.commands.options import inventory_option
from bench.doctor import examine
from bench.inventory import load
from bench.plain import plain

_MARKS = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}


@click.command("doctor")
@inventory_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor_command(inventory: str | None, as_json: bool) -> int:
    """Look at every host and say what would keep a run from working. Changes nothing."""
    findings = examine(load(inventory))
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
        return 1 if problems else 0
    for finding in findings:
        remedy = f" ({finding.remedy})" if finding.remedy else ""
        click.echo(plain(f"{_MARKS[finding.level]} {finding.host}: {finding.text}{remedy}"))
    if problems:
        click.echo(f"bench: {problems} problem{'s' * (problems > 1)} found", err=True)
    return 1 if problems else 0
