# SPDX-License-Identifier: Apache-2.0
"""`bench run`: measure a sweep and print the verdict."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from bench import current, paths
from bench.cells import OFFLOADS
from bench.chain import Chain
from bench.commands.options import inventory_option
from bench.errors import BenchError, UsageError
from bench.inventory import load
from bench.plan import BLOCKS, REQUESTS, Request, fit, sweep_of
from bench.progress import RunProgress
from bench.sweep import Sweep, order
from bench.untilci import Until, judge, parse_duration_s, parse_half_width

_MAX_SEED = 2**63 - 1


@click.command("run")
@inventory_option
@click.option(
    "--mode", "modes", multiple=True, help="direct, socat, nft, xdp; repeat or use commas."
)
@click.option("--hops", help="Hop counts, as 1-5 or 1,3,5.")
@click.option("--size", "sizes", help="Payload sizes in bytes, with commas.")
@click.option("--concurrency", help="Connections at a time, with commas.")
@click.option(
    "--requests", help=f"Requests in one sample, in total; auto: 0.4 s of them [{REQUESTS}]."
)
@click.option("--blocks", help=f"Passes over all cells, each in random order [{BLOCKS}].")
@click.option(
    "--until-ci", help="Add blocks until every pair's 95 % interval is within this, as 5%."
)
@click.option("--time-limit", help="When to stop adding blocks, as 20m [30m].")
@click.option("--attach", help="Where XDP runs: native, generic, offload; several with commas.")
@click.option(
    "--offloads", help="NICs' segmentation and receive offloads: equal, native, or both [equal]."
)
@click.option(
    "--aa/--no-aa", default=True, help="Measure one mode twice, for the noise floor [yes]."
)
@click.option("--timer/--no-timer", default=True, help="Time connections in the kernel [yes].")
@click.option("--seed", type=click.IntRange(0, _MAX_SEED), help="Seed of the order.")
@click.option("--sweep", "file", type=click.Path(path_type=Path), help="Sweep from a TOML file.")
@click.option("--resume", metavar="RUN", help="Go on with a run that was interrupted.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of runs [./results].")
@click.option("--dry-run", is_flag=True, help="Print what would be measured, and do nothing.")
def run_command(
    inventory: str | None,
    until_ci: str | None,
    time_limit: str | None,
    timer: bool,
    resume: str | None,
    output: Path | None,
    dry_run: bool,
    **asked: Any,
) -> None:
    """Measure modes and hop counts on a chain, sample by sample.

    Without an inventory, and none deployed before, it makes a lab of network namespaces on this
    machine, deploys to it, and removes it at the end. Without any option about what to measure,
    the default sweep is run: direct, socat, nft and xdp over 1, 3 and 5 hops.
    """
    began = time.monotonic()
    request = Request(**asked)
    until = _until(until_ci, time_limit)
    folder = output or paths.results_dir()
    if resume is not None:
        if dry_run:
            raise UsageError("--dry-run is for a new run; bench show says what one has")
        _print_verdict(_resume(inventory, resume, folder, request, until, timer, began))
        return
    sweep = sweep_of(request)
    if dry_run:
        if inventory is not None:
            sweep, _ = fit(sweep, request, load(inventory))
        _print_plan(sweep)
        return
    with RunProgress() as progress, _chain(inventory, sweep, progress) as chain:
        from bench.runner import Options, begin, run

        sweep, notes = fit(sweep, request, chain)
        for note in notes:
            progress.phase(note)
        writer = begin(chain, sweep, folder, notes, request.aa, until)
        options = Options(timer, _enough(until, began, progress))
        path = run(chain, sweep, writer, progress, began=began, options=options)
    _print_verdict(path)


def _until(until_ci: str | None, time_limit: str | None) -> Until | None:
    if until_ci is None:
        if time_limit is not None:
            raise UsageError("--time-limit bounds --until-ci: give both")
        return None
    half_width = parse_half_width(until_ci)
    if time_limit is None:
        return Until(half_width)
    return Until(half_width, parse_duration_s(time_limit))


def _enough(
    until: Until | None, began: float, progress: RunProgress, earlier: int = 0
) -> Callable[[Path], bool] | None:
    return judge(until, began, progress.phase, earlier) if until else None


def _resume(
    inventory: str | None,
    reference: str,
    folder: Path,
    request: Request,
    until: Until | None,
    timer: bool,
    began: float,
) -> Path:
    """Measure what an interrupted run lacks. Raises BenchError."""
    from bench.resume import reopen, require_same_chain, with_blocks
    from bench.runner import Options, run

    if request.names_cells or request.file is not None or request.seed is not None:
        raise UsageError("--resume goes on with the run's own cells and order: name none")
    if not timer or not request.aa:
        raise UsageError("--resume goes on as the run began: leave out --no-timer and --no-aa")
    resumed = with_blocks(reopen(reference, folder), request.blocks)
    if not resumed.lacks and until is None and resumed.complete:
        raise BenchError(
            f"run {resumed.writer.run_id} lacks no sample",
            remedy="ask for more with --blocks or --until-ci, or start another run",
        )
    until = until or resumed.until
    with RunProgress() as progress, _chain(inventory, resumed.sweep, progress) as chain:
        notes = require_same_chain(resumed, chain)
        for note in notes:
            progress.phase(note)
        resumed.begin(notes, until)
        enough = _enough(until, began, progress, resumed.blocks)
        options = Options(resumed.timer, enough, resumed.timing)
        return run(chain, resumed.sweep, resumed.writer, progress, began=began, options=options)


@contextlib.contextmanager
def _chain(inventory: str | None, sweep: Sweep, progress: RunProgress) -> Iterator[Chain]:
    """Yield the chain to measure: the inventory's, or a lab's for the length of this run."""
    if inventory is not None or current.recall() is not None:
        yield load(inventory)
        return
    from bench.ephemeral import ephemeral_chain

    with ephemeral_chain(max(1, *(cell.hops for cell in sweep.cells)), progress) as chain:
        yield chain


def _print_plan(sweep: Sweep) -> None:
    total = sweep.blocks * len(sweep.cells)
    requests = sweep.blocks * sum(cell.transactions for cell in sweep.cells)
    known = all(cell.requests for cell in sweep.cells)
    click.echo(
        f"{len(sweep.cells)} cells, {sweep.blocks} blocks, {total} samples, "
        + (f"{requests} requests, " if known else "")
        + f"seed {sweep.seed}; order of block 1:"
    )
    for cell in order(sweep, 1):
        how = [each for each in (cell.attach, cell.twin and "again") if each]
        kind = f" ({', '.join(how)})" if how else ""
        many = f"{cell.transactions} requests" if cell.requests else "as many requests as fit 0.4 s"
        offloads = "" if cell.offloads == OFFLOADS[0] else f"{cell.offloads} offloads, "
        click.echo(
            f"  {cell.mode}{kind}, {cell.hops} hops, {cell.size_bytes} B, "
            f"c={cell.concurrency}, {offloads}{many}"
        )


def _print_verdict(path: Path) -> None:
    from bench.runs import RunReader
    from bench.verdict import full, terminal

    terminal().print(full(RunReader.open(path, path.parent)))
    click.echo(f"results: {path}")
