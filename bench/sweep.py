# SPDX-License-Identifier: Apache-2.0
"""Which cells a run measures, how often, and in which order."""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.cells import (
    MODES,
    OFFLOADS,
    Cell,
    Key,
    parse_attach,
    parse_blocks,
    parse_concurrency,
    parse_hops,
    parse_modes,
    parse_offloads,
    parse_requests,
    parse_size,
)
from bench.errors import BenchError, UsageError

DEFAULT_SWEEP = Path(__file__).resolve().parent / "sweeps" / "default.toml"

MAX_CELLS = 10_000
_MAX_FILE_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 14
_TABLE_KEYS = ("modes", "attach", "offloads", "hops", "sizes", "concurrency", "requests")


@dataclass(frozen=True)
class Sweep:
    """The cells of a run, how many blocks measure them, and the seed of their order."""

    cells: tuple[Cell, ...]
    blocks: int
    seed: int


def cross(
    modes: Sequence[str],
    attach: Sequence[str],
    hops: Sequence[int],
    sizes: Sequence[int],
    concurrency: Sequence[int],
    requests: int,
    offloads: Sequence[str] = OFFLOADS[:1],
) -> tuple[Cell, ...]:
    """Return every combination of the axes.

    attach applies to the modes that know it, hops to the modes that have hops: `direct` appears
    once for each size and concurrency.
    """
    return tuple(
        Cell(mode, kind, count, size_bytes, users, requests, offload)
        for offload in offloads
        for mode in modes
        for kind in (attach if MODES[mode].attach else ("",))
        for count in (hops if MODES[mode].hops else (0,))
        for size_bytes in sizes
        for users in concurrency
    )


def load_sweep(path: Path, seed: int = 0) -> Sweep:
    """Return the sweep a TOML file describes.

    The file has `blocks` and one or more `[[cells]]` tables of modes, attach, offloads, hops,
    sizes, concurrency and requests. Raises UsageError that names the file and the key.
    """
    document = _read(path)
    _known_keys(document, ("blocks", "cells"), str(path))
    blocks = parse_blocks(_integer(document, "blocks", str(path)), f"{path}: blocks")
    tables = document.get("cells")
    if not isinstance(tables, list) or not tables:
        raise UsageError(f"{path}: cells must be one or more [[cells]] tables")
    cells: list[Cell] = []
    for number, table in enumerate(tables, start=1):
        cells += _cells_of(table, f"{path}: [[cells]] {number}")
        if len(cells) > MAX_CELLS:
            raise UsageError(f"{path}: cells: more than {MAX_CELLS} cells")
    for key, times in Counter(cell.key for cell in cells).items():
        if times > 1:
            mode, kind, offloads, _, hops, size_bytes, users = key
            how = "" if offloads == OFFLOADS[0] else f", {offloads} offloads"
            raise UsageError(
                f"{path}: cells: {f'{mode} {kind}'.strip()}{how}, {hops} hops, {size_bytes} bytes, "
                f"concurrency {users} appears {times} times"
            )
    return Sweep(tuple(cells), blocks, seed)


def with_twins(sweep: Sweep) -> Sweep:
    """Return the sweep with one cell of each size and concurrency a second time, as its twin.

    Two measurements of the same thing, in the same blocks, show how far apart figures are that
    differ by nothing: the noise floor. The longest chain of the mode listed last is taken, which
    is what others are held against.
    """
    best: dict[tuple[int, int], Cell] = {}
    for cell in sweep.cells:
        axis = cell.size_bytes, cell.concurrency
        if axis not in best or _distance(cell) > _distance(best[axis]):
            best[axis] = cell
    return replace(sweep, cells=(*sweep.cells, *(replace(c, twin=True) for c in best.values())))


def _distance(cell: Cell) -> tuple[bool, int, int]:
    return cell.offloads == OFFLOADS[0], list(MODES).index(cell.mode), cell.hops


def order(sweep: Sweep, block: int) -> list[Cell]:
    """Return the cells in the random order of block `block`, counted from 1, or of the warm-up, 0.

    The same seed and block give the same order in every version of Python: only seeding by a
    string and random() are relied on, which the `random` module promises to keep.
    """
    generator = random.Random(f"hopbench {sweep.seed} {block}")
    keys = [generator.random() for _ in sweep.cells]
    return [sweep.cells[i] for i in sorted(range(len(keys)), key=lambda i: (keys[i], i))]


def check_hops(sweep: Sweep, available: int, inventory: Path | str) -> None:
    """Raise BenchError when a cell needs more hops than the inventory has."""
    most = max((cell.hops for cell in sweep.cells), default=0)
    if most > available:
        has = f"{available} hop" + ("" if available == 1 else "s")
        remedy = f"use at most --hops {available}, or add" if available else "add"
        raise BenchError(
            f"{most} hops were asked for and {inventory} has {has}",
            remedy=f"{remedy} hosts to its group hops",
        )


def limit_hops(sweep: Sweep, available: int) -> tuple[Sweep, str]:
    """Return the sweep cut down to `available` hops, and a note that says so or is empty.

    Cells beyond are measured at `available` hops, once. This is for the default sweep; what a user
    asked for is not changed but checked by `check_hops`. Raises BenchError when no cell is left.
    """
    if all(cell.hops <= available for cell in sweep.cells):
        return sweep, ""
    cells: dict[Key, Cell] = {}
    for cell in sweep.cells:
        if cell.hops and not available:
            continue
        cut = replace(cell, hops=min(cell.hops, available))
        cells.setdefault(cut.key, cut)
    if not cells:
        raise BenchError("the inventory has no hops", remedy="add hosts to its group hops")
    note = f"the inventory has {available} hops: cells of the sweep with more were cut down to that"
    return replace(sweep, cells=tuple(cells.values())), note


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise UsageError(f"{path}: no such sweep file")
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path}: cannot be read: {reason}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise UsageError(f"{path}: larger than {_MAX_FILE_BYTES} bytes, which is no sweep file")
    # tomllib takes time by the square of how many parts a dotted key has, which is of one line.
    longest = max(map(len, content.splitlines()), default=0)
    if longest > _MAX_LINE_BYTES:
        raise UsageError(f"{path}: has a line of more than {_MAX_LINE_BYTES} bytes")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from error


def _cells_of(table: object, where: str) -> tuple[Cell, ...]:
    if not isinstance(table, Mapping):
        raise UsageError(f"{where}: not a table")
    _known_keys(table, _TABLE_KEYS, where)
    modes = parse_modes(_texts(table, "modes", where), f"{where}: modes")
    attach = parse_attach(
        ",".join(_texts(table, "attach", where)) if "attach" in table else "native",
        f"{where}: attach",
    )
    hops: tuple[int, ...] = ()
    if "hops" in table or any(MODES[mode].hops for mode in modes):
        hops = parse_hops(",".join(_texts(table, "hops", where)), f"{where}: hops")
    sizes = [parse_size(text, f"{where}: sizes") for text in _texts(table, "sizes", where)]
    users = [
        parse_concurrency(text, f"{where}: concurrency")
        for text in _texts(table, "concurrency", where)
    ]
    # Before they are multiplied: two lists of a megabyte would make more than memory holds.
    if max(len(hops), 1) * len(sizes) * len(users) > MAX_CELLS:
        raise UsageError(f"{where}: more than {MAX_CELLS} cells")
    auto = table.get("requests", "auto") == "auto"
    requests = parse_requests(
        "auto" if auto else _integer(table, "requests", where), f"{where}: requests"
    )
    offloads = parse_offloads(
        ",".join(_texts(table, "offloads", where)) if "offloads" in table else OFFLOADS[0],
        f"{where}: offloads",
    )
    return cross(modes, attach, hops, sizes, users, requests, offloads)


def _known_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key[:32]!r}; known are {', '.join(known)}")


def _integer(table: Mapping[str, Any], key: str, where: str) -> str:
    value = _required(table, key, where)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{where}: {key} must be a whole number")
    return _digits(value)


def _texts(table: Mapping[str, Any], key: str, where: str) -> list[str]:
    """Return a value, or a list of values, as the words a command line would have."""
    value = _required(table, key, where)
    numeric = key in ("sizes", "concurrency")
    values = value if isinstance(value, list) else [value]
    if not values:
        raise UsageError(f"{where}: {key} is empty")
    wanted: tuple[type, ...] = {
        "modes": (str,),
        "attach": (str,),
        "offloads": (str,),
    }.get(key, (int, str))
    if numeric:
        wanted = (int,)
    for item in values:
        if not isinstance(item, wanted) or isinstance(item, bool):
            kind = "numbers" if numeric else "words" if wanted == (str,) else "hop counts"
            raise UsageError(f"{where}: {key} must be {kind}")
    return [item if isinstance(item, str) else _digits(item) for item in values]


def _digits(value: int) -> str:
    # str() refuses an int of more than 4300 digits; nothing that long is within any limit.
    return str(value) if value.bit_length() < 64 else f"{value:#x}"


def _required(table: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in table:
        raise UsageError(f"{where}: {key} is missing")
    return table[key]
