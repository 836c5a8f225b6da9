# SPDX-License-Identifier: Apache-2.0
"""`bench run`: measure a sweep and print the verdict."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import click

from bench import current, paths
from bench.chain import Chain
from bench.commands.options import inventory_option
from bench.inventory import load
from bench.plan import BLOCKS, REQUESTS, Request, fit, sweep_of
from bench.progress import RunProgress
from bench.sweep import Sweep, order

_MAX_SEED = 2**63 - 1


@click.command("run")
@inventory_option
@click.option(
    "--mode", "modes", multiple=True, help="direct, socat, nft, xdp; repeat or use commas."
)
@click.option("--hops", help="Hop counts, as 1-5 or 1,3,5.")
@click.option("--size", "sizes", help="Payload sizes in bytes, with commas.")
@click.option("--concurrency", help="Connections at a time, with commas.")
@click.option("--requests", help=f"Requests in one sample, in total [{REQUESTS}].")
@click.option("--blocks", help=f"Passes over all cells, each in random order [{BLOCKS}].")
@click.option("--attach", help="Where XDP runs: native, generic, offload; several with commas.")
@click.option("--seed", type=click.IntRange(0, _MAX_SEED), help="Seed of the order.")
@click.option("--sweep", "file", type=click.Path(path_type=Path), help="Sweep from a TOML file.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of runs [./results].")
@click.option("--dry-run", is_flag=True, help="Print what would be measured, and do nothing.")
def run_command(
    inventory: str | None,
    modes: tuple[str, ...],
    hops: str | None,
    sizes: str | None,
    concurrency: str | None,
    requests: str | None,
    blocks: str | None,
    attach: str | None,
    seed: int | None,
    file: Path | None,
    output: Path | None,
    dry_run: bool,
) -> None:
    """Measure modes and hop counts on a chain, sample by sample.

    Without an inventory, and none deployed before, it makes a lab of network namespaces on this
    machine, deploys to it, and removes it at the end. Without any option about what to measure,
    the default sweep is run: direct, socat, nft and xdp over 1, 3 and 5 hops.
    """
    began = time.monotonic()
    request = Request(modes, hops, sizes, concurrency, requests, attach, blocks, seed, file)
    sweep = sweep_of(request)
    if dry_run:
        if inventory is not None:
            sweep, _ = fit(sweep, request, load(inventory))
        _print_plan(sweep)
        return
    with RunProgress() as progress, _chain(inventory, sweep, progress) as chain:
        sweep, notes = fit(sweep, request, chain)
        for note in notes:
            progress.phase(note)
        path = _measure(chain, sweep, output or paths.results_dir(), progress, began, notes)
    _print_verdict(path)


@contextlib.contextmanager
def _chain(inventory: str | None, sweep: Sweep, progress: RunProgress) -> Iterator[Chain]:
    """Yield the chain to measure: the inventory's, or a lab's for the length of this run."""
    if inventory is not None or current.recall() is not None:
        yield load(inventory)
        return
    from bench.ephemeral import ephemeral_chain

    with ephemeral_chain(max(1, *(cell.hops for cell in sweep.cells)), progress) as chain:
        yield chain


def _measure(
    chain: Chain,
    sweep: Sweep,
    output: Path,
    progress: RunProgress,
    began: float,
    notes: tuple[str, ...],
) -> Path:
    from bench.runner import run

    return run(chain, sweep, output, progress, began=began, notes=notes)


def _print_plan(sweep: Sweep) -> None:
    total = sweep.blocks * len(sweep.cells)
    requests = sweep.blocks * sum(cell.transactions for cell in sweep.cells)
    click.echo(
        f"{len(sweep.cells)} cells, {sweep.blocks} blocks, {total} samples, "
        f"{requests} requests, seed {sweep.seed}; order of block 1:"
    )
    for cell in order(sweep, 1):
        kind = f" ({cell.attach})" if cell.attach else ""
        click.echo(
            f"  {cell.mode}{kind}, {cell.hops} hops, {cell.size_bytes} B, "
            f"c={cell.concurrency}, {cell.transactions} requests"
        )


def _print_verdict(path: Path) -> None:
    from rich.console import Console

    from bench.compare import compare
    from bench.runs import RunReader
    from bench.verdict import render

    reader = RunReader.open(path, path.parent)
    # Without a terminal rich would fold tables at 80 columns.
    console = Console(width=None if os.isatty(1) else 110)
    console.print(render(reader.meta, compare(reader)))
    click.echo(f"results: {path}")
