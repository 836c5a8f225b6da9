# SPDX-License-Identifier: Apache-2.0
"""How a run is made again: the line of `bench run`, and a sweep file for what no line can say."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.cells import MODES, OFFLOADS, Cell
from bench.errors import BenchError
from bench.plan import Request, sweep_of
from bench.sweep import Sweep, cross, load_sweep, with_twins

SWEEP_FILE = "sweep.toml"

# What a sweep file need not say.
_DEFAULTS = {"attach": ["native"], "offloads": [OFFLOADS[0]], "requests": ["auto"]}


@dataclass(frozen=True)
class Again:
    """Words of a command line, and the sweep file it names, empty where it names none.

    exact: whether every sample makes as many requests as it did; otherwise the warm-up finds their
    number again, as it did then.
    """

    words: tuple[str, ...]
    file: str = ""
    exact: bool = True

    @property
    def line(self) -> str:
        """The command as it is typed."""
        return shlex.join(self.words)


def again(run_meta: Mapping[str, Any], timed: bool) -> list[Again]:
    """Return the ways to make a run again, the shortest first.

    Each was read back as `bench run` reads it and gives the run's own cells in their order. None
    where this hopbench cannot measure them: modes or sizes it does not know. timed: whether the
    run has connection times.
    """
    cells = tuple(Cell(**cell) for cell in run_meta["sweep"]["cells"])
    sweep = Sweep(cells, run_meta["sweep"]["blocks"], run_meta["seed"])
    aa = any(cell.twin for cell in cells)
    tail = (
        *("--blocks", str(sweep.blocks), "--seed", str(sweep.seed)),
        *(() if aa else ("--no-aa",)),
        *(() if timed else ("--no-timer",)),
    )
    singles = tuple(cell for cell in cells if not cell.twin)
    if not singles:
        return []
    found: list[Again] = []
    options = _options(singles)
    counts = {cell.requests for cell in singles}
    if len(counts) == 1 and _gives(options, sweep, aa, exact=True):
        return [Again(("bench", "run", *_words(options), *tail))]
    # Without any option it is the default sweep, which no options can say.
    for fewer in ({}, {**options, "requests": "auto"}):
        if not found and _gives(fewer, sweep, aa, exact=False):
            found.append(Again(("bench", "run", *_words(fewer), *tail), exact=False))
    text = sweep_file(singles, sweep.blocks)
    if _file_gives(text, sweep, aa):
        found.append(Again(("bench", "run", "--sweep", SWEEP_FILE, *tail), text))
    return found


def sweep_file(cells: Sequence[Cell], blocks: int) -> str:
    """Return cells as the TOML of a sweep file that gives them in their order."""
    parts = [f"blocks = {blocks}"]
    for table in _tables(cells):
        values = {
            "modes": _once(cell.mode for cell in table),
            "attach": _once(cell.attach for cell in table if cell.attach),
            "offloads": _once(cell.offloads for cell in table),
            "hops": _once(cell.hops for cell in table if cell.hops),
            "sizes": _once(cell.size_bytes for cell in table),
            "concurrency": _once(cell.concurrency for cell in table),
            "requests": [table[0].requests or "auto"],
        }
        lines = [
            f"{key} = {json.dumps(value if len(value) > 1 else value[0])}"
            for key, value in values.items()
            if value and value != _DEFAULTS.get(key)
        ]
        parts.append("\n".join(["[[cells]]", *lines]))
    return "\n\n".join(parts) + "\n"


def _tables(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Yield cells in groups of which each is every combination of its axes, in that order."""
    start = 0
    while start < len(cells):
        end = start + 1
        # The longest stretch; a table is seldom long, and never of two numbers of requests.
        for stop in range(start + 1, len(cells) + 1):
            if cells[stop - 1].requests != cells[start].requests:
                break
            if _crossed(cells[start:stop]) == tuple(cells[start:stop]):
                end = stop
        yield list(cells[start:end])
        start = end


def _crossed(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return every combination of the axes of cells; empty where a mode is not known."""
    modes = _once(cell.mode for cell in cells)
    if any(mode not in MODES for mode in modes):
        return ()
    return cross(
        modes,
        _once(cell.attach for cell in cells if cell.attach) or ["native"],
        _once(cell.hops for cell in cells if cell.hops) or [1],
        _once(cell.size_bytes for cell in cells),
        _once(cell.concurrency for cell in cells),
        cells[0].requests,
        _once(cell.offloads for cell in cells),
    )


def _options(cells: Sequence[Cell]) -> dict[str, str]:
    def words(values: Iterator[Any]) -> str:
        return ",".join(str(value) for value in _once(values))

    options = {
        "mode": words(cell.mode for cell in cells),
        "hops": words(cell.hops for cell in cells if cell.hops),
        "size": words(cell.size_bytes for cell in cells),
        "concurrency": words(cell.concurrency for cell in cells),
        "attach": words(cell.attach for cell in cells if cell.attach),
        "offloads": words(cell.offloads for cell in cells),
        "requests": str(cells[0].requests or "auto"),
    }
    return {name: value for name, value in options.items() if value}


def _words(options: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(word for name, value in options.items() for word in (f"--{name}", value))


def _gives(options: Mapping[str, str], sweep: Sweep, aa: bool, *, exact: bool) -> bool:
    """Return whether a line's options name the cells of a sweep, in the order they have in it."""
    request = Request(
        modes=(options["mode"],) if options else (),
        hops=options.get("hops"),
        sizes=options.get("size"),
        concurrency=options.get("concurrency"),
        requests=options.get("requests"),
        attach=options.get("attach"),
        offloads=options.get("offloads"),
        blocks=str(sweep.blocks),
        seed=sweep.seed,
        aa=aa,
    )
    try:
        return _same(sweep_of(request), sweep, exact)
    except BenchError:
        return False


def _file_gives(text: str, sweep: Sweep, aa: bool) -> bool:
    with tempfile.TemporaryDirectory(prefix="hopbench-") as folder:
        path = Path(folder, SWEEP_FILE)
        path.write_text(text, encoding="utf-8")
        try:
            found = load_sweep(path, sweep.seed)
        except BenchError:
            return False
    return _same(with_twins(found) if aa else found, sweep, exact=True)


def _same(found: Sweep, sweep: Sweep, exact: bool) -> bool:
    if exact:
        return found == sweep
    cells = tuple(replace(cell, requests=0) for cell in sweep.cells)
    return found == replace(sweep, cells=cells)


def _once(values: Any) -> list[Any]:
    return list(dict.fromkeys(values))
