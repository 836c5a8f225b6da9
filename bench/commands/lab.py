# SPDX-License-Identifier: Apache-2.0
"""`bench lab`: the local lab of network namespaces."""

from __future__ import annotations

import json
import time

import click

from bench.lab import lifecycle
from bench.lab.model import DEFAULT_HOPS, DEFAULT_NAME, MAX_HOPS, Wire

_NAME = click.option("--name", default=DEFAULT_NAME, show_default=True, help="Name of the lab.")


@click.group("lab")
def lab_group() -> None:
    """The chain on this machine: each host a network namespace, joined by a wire."""


@lab_group.command("up")
@click.option(
    "--hops", type=int, default=DEFAULT_HOPS, show_default=True, help=f"Hops, 1 to {MAX_HOPS}."
)
@click.option(
    "--wire",
    type=click.Choice(["xdp", "bridge"]),
    default="xdp",
    show_default=True,
    help="What joins the hosts. A bridge costs more than the hops do.",
)
@click.option("--ipv6", is_flag=True, help="Give the hosts IPv6 addresses, not IPv4.")
@_NAME
def up(hops: int, wire: Wire, ipv6: bool, name: str) -> None:
    """Make a lab and write its inventory."""
    begin = time.monotonic()
    lab = lifecycle.up(name, hops=hops, wire=wire, family=6 if ipv6 else 4)
    took_s = time.monotonic() - begin
    click.echo(f"lab {lab.name}: {lab.hops} hops, {lab.network}, up in {took_s:.1f} s", err=True)
    click.echo(lab.inventory)


@lab_group.command("down")
@_NAME
def down(name: str) -> None:
    """Remove a lab and everything in it; fine when there is none."""
    gone = lifecycle.down(name)
    click.echo(f"lab {name}: {'removed' if gone else 'not up'}", err=True)


@lab_group.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Say which labs are up, and whether they are whole."""
    labs = lifecycle.status()
    if as_json:
        click.echo(
            json.dumps(
                [
                    {
                        "name": each.lab.name,
                        "hops": each.lab.hops,
                        "wire": each.lab.wire,
                        "family": each.lab.family,
                        "network": str(each.lab.network),
                        "inventory": str(each.lab.inventory),
                        "whole": each.whole,
                        "missing": list(each.missing),
                        "wire_programs": each.wire_programs,
                        "owner_pid": each.owner and each.owner.pid,
                    }
                    for each in labs
                ],
                indent=2,
            )
        )
        return
    if not labs:
        click.echo("no lab is up")
    for each in labs:
        lab = each.lab
        state = "up" if each.whole else "damaged"
        if each.missing:
            state += f" ({len(each.missing)} namespaces missing)"
        elif not each.whole:
            state += f" ({each.wire_programs} of {len(lab.hosts)} ports run XDP)"
        click.echo(
            f"{lab.name}: {state}, {lab.hops} hops, {lab.wire} wire, IPv{lab.family}, "
            f"{lab.network}, {lab.inventory}"
        )
