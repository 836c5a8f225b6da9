# SPDX-License-Identifier: Apache-2.0
"""From what a user asks for to the sweep that a chain can run."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from bench import cells
from bench.cells import MODES, OFFLOADS
from bench.chain import Chain
from bench.errors import UsageError
from bench.sweep import (
    DEFAULT_SWEEP,
    Sweep,
    check_hops,
    cross,
    limit_hops,
    load_sweep,
    with_twins,
)

# What is measured on the axes that no option names.
HOPS = (1, 3, 5)
SIZES = (624, 9984, 159744)
REQUESTS = "auto"
BLOCKS = 10


@dataclass(frozen=True)
class Request:
    """What to measure, in the words of the command line; None, or no mode, where nothing was said.

    file: a sweep in TOML, instead of everything that names cells. aa: whether a cell of each size
    and concurrency is measured twice.
    """

    modes: tuple[str, ...] = ()
    hops: str | None = None
    sizes: str | None = None
    concurrency: str | None = None
    requests: str | None = None
    attach: str | None = None
    offloads: str | None = None
    blocks: str | None = None
    seed: int | None = None
    file: Path | None = None
    aa: bool = True

    @property
    def names_cells(self) -> bool:
        """Whether any axis of the sweep was named."""
        axes = (self.hops, self.sizes, self.concurrency, self.requests, self.attach, self.offloads)
        return bool(self.modes) or any(axis is not None for axis in axes)


def sweep_of(request: Request) -> Sweep:
    """Return the sweep asked for: a file's, the options', or without either the default one.

    Raises UsageError.
    """
    seed = secrets.randbits(32) if request.seed is None else request.seed
    if request.file is not None and request.names_cells:
        raise UsageError("--sweep names all cells: give it without options that name some")
    if request.names_cells:
        sweep = Sweep(_crossed(request), BLOCKS, seed)
    else:
        sweep = load_sweep(request.file or DEFAULT_SWEEP, seed)
    if request.blocks is not None:
        sweep = replace(sweep, blocks=cells.parse_blocks(request.blocks))
    return with_twins(sweep) if request.aa else sweep


def _crossed(ask: Request) -> tuple[cells.Cell, ...]:
    return cross(
        cells.parse_modes(ask.modes) if ask.modes else tuple(MODES),
        ("native",) if ask.attach is None else cells.parse_attach(ask.attach),
        HOPS if ask.hops is None else cells.parse_hops(ask.hops),
        SIZES if ask.sizes is None else cells.parse_sizes(ask.sizes),
        (1,) if ask.concurrency is None else cells.parse_concurrencies(ask.concurrency),
        cells.parse_requests(REQUESTS if ask.requests is None else ask.requests),
        OFFLOADS[:1] if ask.offloads is None else cells.parse_offloads(ask.offloads),
    )


def fit(sweep: Sweep, request: Request, chain: Chain) -> tuple[Sweep, tuple[str, ...]]:
    """Return the sweep as this chain runs it, and notes on what was changed.

    Hop counts that nobody asked for are cut to those there are; XDP's attach mode is the
    inventory's unless the request says. Raises BenchError for hops that do not exist.
    """
    notes: tuple[str, ...] = ()
    if request.file is None and request.hops is None:
        sweep, note = limit_hops(sweep, len(chain.hops))
        notes = (note,) if note else ()
        if note and request.aa:
            # Without any hop, twins went with the modes that have hops.
            alone = tuple(cell for cell in sweep.cells if not cell.twin)
            sweep = with_twins(replace(sweep, cells=alone))
    check_hops(sweep, len(chain.hops), chain.inventory)
    if request.file is None and request.attach is None:
        sweep = _with_attach_of(chain, sweep)
    return sweep, notes


def _with_attach_of(chain: Chain, sweep: Sweep) -> Sweep:
    most = max(cell.hops for cell in sweep.cells)
    kinds = {hop.xdp_attach for hop in chain.hops[:most]}
    if kinds <= {"native"} or not any(cell.attach for cell in sweep.cells):
        return sweep
    if len(kinds) > 1:
        raise UsageError("hops differ in xdp_attach: say with --attach which to measure")
    kind = kinds.pop()
    changed = tuple(replace(cell, attach=kind) if cell.attach else cell for cell in sweep.cells)
    return replace(sweep, cells=changed)
