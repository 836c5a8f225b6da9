# SPDX-License-Identifier: Apache-2.0
"""`bench datapath`: what the forwarder costs per packet."""

from __future__ import annotations

import json

import click
from rich.console import Console

from bench.compare import ENOUGH
from bench.datapath import FLOWS, Wanted, measure, parse_flows
from bench.datapath_summary import summary
from bench.datapath_table import render


def _progress(text: str) -> None:
    click.echo(text, err=True)


@click.command("datapath")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.option("--quick", is_flag=True, help="Measure for seconds only; intervals become wide.")
@click.option(
    "--rounds", type=click.IntRange(ENOUGH), help="Rounds in all, however long they take."
)
@click.option(
    "--flows",
    metavar="N,N,…",
    default=",".join(map(str, FLOWS)),
    show_default=True,
    help="Numbers of established flows.",
)
@click.option("--steps", is_flag=True, help="Also what single choices cost: lookups, clocks, …")
@click.option("--family", type=click.Choice(["4", "6"]), default="4", show_default=True)
def datapath_command(
    as_json: bool, quick: bool, rounds: int | None, flows: str, steps: bool, family: str
) -> None:
    """Measure ns per packet of the forwarder beside baselines, on this machine.

    Baselines are an empty program, one that returns packets to their sender, and a router that
    asks the kernel's tables for each packet. Needs root and no inventory, and takes a CPU for
    half a minute, with --steps two: leave the machine alone meanwhile.
    """
    wanted = Wanted(int(family), parse_flows(flows), steps, quick, rounds)
    found = summary(measure(wanted, _progress), wanted)
    if as_json:
        click.echo(json.dumps(found, indent=1, allow_nan=False))
    else:
        Console().print(render(found))
