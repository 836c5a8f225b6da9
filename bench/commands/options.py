# SPDX-License-Identifier: Apache-2.0
"""Options that several subcommands share."""

from __future__ import annotations

import click

inventory_option = click.option(
    "-i",
    "--inventory",
    "inventory",
    metavar="INVENTORY",
    help="Ansible inventory: a file, a name in inventories/, or a lab that is up. "
    "Default: the one deployed last.",
)
