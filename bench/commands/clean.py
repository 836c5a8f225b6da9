# SPDX-License-Identifier: Apache-2.0
"""`bench clean`: remove whatever a crashed run could have left."""

from __future__ import annotations

import click

from bench.clean import clean_here, clean_hosts, current_chain
from bench.commands.options import inventory_option
from bench.inventory import load


def _progress(text: str) -> None:
    click.echo(text, err=True)


@click.command("clean")
@inventory_option
def clean_command(inventory: str | None) -> None:
    """End agents and remove labs that a crashed run left. A run that is active ends, too.

    Only what carries hopbench's own names is touched.
    """
    removed = clean_here(_progress)
    chain = load(inventory) if inventory is not None else current_chain()
    if chain is not None:
        removed += clean_hosts(chain, _progress)
    click.echo(f"clean: {removed} removed" if removed else "clean: nothing was left")
