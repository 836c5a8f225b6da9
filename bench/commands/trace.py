# SPDX-License-Identifier: Apache-2.0
"""`bench trace`: follow packets through the hops."""

from __future__ import annotations

import json

import click

from bench.cells import PAYLOAD_SIZES
from bench.commands.options import inventory_option
from bench.errors import UsageError
from bench.follow import Wanted, follow
from bench.inventory import load
from bench.trace import Journey, as_json, one_line


@click.command("trace")
@inventory_option
@click.option("--hops", type=click.IntRange(1), help="How many hops take part [all].")
@click.option(
    "--attach", type=click.Choice(["native", "generic"]), default="native", show_default=True
)
@click.option("--port", type=click.IntRange(1, 65535), help="Only this port of the client.")
@click.option(
    "--rate",
    type=click.IntRange(0),
    default=200,
    show_default=True,
    help="Most packets a second; 0 for all. When there are more, a share of them is shown.",
)
@click.option(
    "--fetch",
    type=click.IntRange(1),
    help="Download one payload of so many bytes, follow it, and end.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many packets.")
@click.option("--duration", type=click.FloatRange(0.1), help="End after so many seconds.")
@click.option("--json", "as_json_lines", is_flag=True, help="Print one JSON object a packet.")
def trace_command(
    inventory: str | None,
    hops: int | None,
    attach: str,
    port: int | None,
    rate: int,
    fetch: int | None,
    count: int | None,
    duration: float | None,
    as_json_lines: bool,
) -> None:
    """Forward by XDP and print what each hop does to each packet, one line a packet.

    Sets the chain up as `bench run --mode xdp` does, with programs that report. Traffic comes from
    --fetch, or from you: connect from the client to the first hop's port. Ends with --fetch,
    --count or --duration, else when interrupted. Not while something is measured: it costs time.
    """
    if fetch is not None and fetch not in PAYLOAD_SIZES:
        sizes = ", ".join(map(str, PAYLOAD_SIZES))
        raise UsageError(f"--fetch: there is no payload of {fetch} bytes; sizes are {sizes}")
    chain = load(inventory)
    if hops is not None and hops > len(chain.hops):
        raise UsageError(f"--hops: the inventory has {len(chain.hops)} hops")
    wanted = Wanted(
        hops=hops or len(chain.hops),
        attach=attach,
        client_port=port or 0,
        per_second=rate,
        fetch_bytes=fetch or 0,
        count=count or 0,
        duration_s=duration or 0.0,
    )
    names = [hop.name for hop in chain.hops[: wanted.hops]]

    def ready() -> None:
        ip, listen = chain.entry(wanted.hops)
        click.echo(f"forwarding from {ip} port {listen} through {wanted.hops} hops", err=True)

    def emit(journey: Journey) -> None:
        if as_json_lines:
            click.echo(json.dumps(as_json(journey, names)))
        else:
            click.echo(one_line(journey, names))

    ended = follow(chain, wanted, ready, emit)
    missed = ", of more than could be reported" if ended.missed else ""
    click.echo(f"{ended.journeys} packets{missed}", err=True)
