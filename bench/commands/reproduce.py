# SPDX-License-Identifier: Apache-2.0
"""`bench reproduce`: the 2022 experiment as it was, beside its answer."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import click

from bench import paths
from bench.errors import BenchError
from bench.progress import RunProgress

_MAX_SEED = 2**63 - 1


@click.command("reproduce")
@click.option("--quick", is_flag=True, help="Less of everything, in 3 minutes instead of 30.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of results [./results].")
@click.option("--seed", type=click.IntRange(0, _MAX_SEED), help="Seed of the order.")
def reproduce_command(quick: bool, output: Path | None, seed: int | None) -> None:
    """Repeat the 2022 report's experiment, and measure what it meant to.

    On one namespace's loopback: socat, the report's XDP filter rebuilt with its faults, and this
    project's forwarder. Then a chain with one host a hop. Needs root and nothing that was deployed
    before; what it makes on this machine it removes.
    """
    began = time.monotonic()
    from bench.reproduce import engine, plan

    seed = secrets.randbits(32) if seed is None else seed
    chosen = plan.quick(seed) if quick else plan.full(seed)
    with RunProgress() as progress:
        done = engine.reproduce(chosen, output or paths.results_dir(), progress, began)
    for line in done.lines:
        click.echo(line)
    if done.page is None:
        raise BenchError(f"{done.why}; the measurements are in {done.path}")
    click.echo(f"page: {done.page}")
