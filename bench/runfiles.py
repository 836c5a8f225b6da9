# SPDX-License-Identifier: Apache-2.0
"""run.json and samples.csv, read strictly: what is not as it was written is refused in one line."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import clocks, strict_json
from bench.cells import KEY, MAX_BLOCKS, MAX_CONCURRENCY, MAX_HOPS, MAX_REQUESTS, OFFLOADS, Cell
from bench.errors import BenchError
from bench.results import COLUMNS, RUN_FILE, SAMPLES_FILE, SCHEMA_VERSION, STATUSES

NOT_A_RUN = "name a run directory, a run id that `bench list` shows, or latest"
_DAMAGED = "the run is damaged; measure again, or restore the file"
# A run of the most samples there can be has less.
_MAX_BYTES = 1 << 28
# What a cell may say, zero included. Payloads are of a few sizes, which may change.
_MOST = {
    "hops": MAX_HOPS,
    "size_bytes": 1 << 40,
    "concurrency": MAX_CONCURRENCY,
    "requests": MAX_REQUESTS,
}
_MAX_ID = 200
# What a mode, or a way to attach, may be called: it becomes a label, a file's name, a column.
_WORD = re.compile("[A-Za-z0-9_.-]{0,40}")
_SAMPLE = re.compile("[0-9]{3,15}-[0-9]{4,15}")
_TYPES: dict[str, tuple[type, ...]] = {
    "run_id": (str,),
    "status": (str,),
    "started_at": (str,),
    "ended_at": (str, type(None)),
    "timing": (dict,),
    "notes": (list,),
    "versions": (dict,),
    "git_commit": (str, type(None)),
    "seed": (int,),
    "sweep": (dict,),
    "order": (list,),
    "chain": (dict,),
    "host_facts": (dict,),
    "host_facts_after": (dict,),
    "aa": (bool,),
    "until_ci": (dict, type(None)),
    "findings": (list,),
    "changes": (list,),
    "clocks": (list,),
}

NEVER = datetime.min.replace(tzinfo=UTC)

# Schema 1 had neither these values of run.json and of a cell, nor these columns.
_SINCE_2: dict[str, Any] = {
    "aa": False,
    "until_ci": None,
    "findings": [],
    "host_facts_after": {},
    "changes": [],
}
# Added later to schema 2, which some of its runs do not have.
_ADDED: dict[str, Any] = {"clocks": []}
_CELL_SINCE_2 = {"offloads": OFFLOADS[0], "twin": False}
_COLUMNS_SINCE_2 = {
    "offloads": OFFLOADS[0],
    "twin": "false",
    "warmup": "false",
    "wall_s": "",
    "timed": "",
    "lost": "",
}

Row = dict[str, Any]


def read_run(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return run.json and the rows of samples.csv, which must belong together.

    Raises BenchError.
    """
    meta, rows = read_meta(path), read_rows(path)
    cells = {Cell(**cell).key for cell in meta["sweep"]["cells"]}
    for row in rows:
        if tuple(row[name] for name in KEY) not in cells:
            cause = f"{path / SAMPLES_FILE} is damaged: {row['sample']} is of no cell of the sweep"
            raise BenchError(cause, remedy=_DAMAGED)
    return meta, rows


def read_meta(path: Path) -> dict[str, Any]:
    """Return a run's checked run.json. Raises BenchError."""
    file = path / RUN_FILE
    missing = BenchError(f"{path} is not a run: it has no {RUN_FILE}", remedy=NOT_A_RUN)
    try:
        meta = strict_json.loads(_text(file, missing))
    except ValueError as error:
        raise BenchError(f"{file} is damaged: {error}", remedy=_DAMAGED) from error
    version = meta.get("schema_version") if isinstance(meta, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BenchError(f"{file} is no run's: it has no schema_version", remedy=NOT_A_RUN)
    if version > SCHEMA_VERSION:
        raise BenchError(
            f"{path} has results schema {version} and this hopbench reads up to {SCHEMA_VERSION}",
            remedy="upgrade hopbench",
        )
    try:
        if version == 1:
            meta = _from_schema_1(meta)
        meta = {**_ADDED, **meta}
        _check(meta)
    except ValueError as error:
        raise BenchError(f"{file} is damaged: {error}", remedy=_DAMAGED) from error
    return dict(meta)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a run's samples.csv, typed as COLUMNS says. Raises BenchError."""
    file = path / SAMPLES_FILE
    missing = BenchError(f"{path} has no {SAMPLES_FILE}", remedy=_DAMAGED)
    try:
        lines = list(csv.reader(_text(file, missing).splitlines(), strict=True))
        lines = _with_columns(lines)
        rows = [_row(number, line) for number, line in enumerate(lines[1:], start=1)]
        if len({row["sample"] for row in rows}) < len(rows):
            raise ValueError("a sample appears twice")
    except (csv.Error, ValueError) as error:
        raise BenchError(f"{file} is damaged: {error}", remedy=_DAMAGED) from error
    return rows


def require_plain(path: Path) -> None:
    """Raise BenchError unless a folder has nothing in it but files and folders.

    What is written into a run that somebody else made would follow its links.
    """
    folders = [path]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False):
                        raise BenchError(
                            f"{entry.path} is not a file of its own, but a link or a device",
                            remedy="nothing is written into a run that has such: remove it",
                        )
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from error


def moment(text: str) -> datetime:
    """Return an ISO 8601 time, or NEVER when the text is none or lacks its zone."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return NEVER
    return parsed if parsed.tzinfo else NEVER


def _text(file: Path, missing: BenchError) -> str:
    try:
        if not file.is_file():
            raise missing
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot read {file}: {error.strerror}") from error


def _from_schema_1(meta: Row) -> Row:
    meta = {**_SINCE_2, **meta}
    sweep = meta.get("sweep")
    if isinstance(sweep, dict) and isinstance(sweep.get("cells"), list):
        cells = [
            {**_CELL_SINCE_2, **cell} if isinstance(cell, dict) else cell for cell in sweep["cells"]
        ]
        meta["sweep"] = {**sweep, "cells": cells}
    return meta


def _with_columns(lines: list[list[str]]) -> list[list[str]]:
    """Return the lines of samples.csv with the columns of this schema."""
    names = lines[0] if lines else []
    if names == list(COLUMNS):
        return lines
    if names != [name for name in COLUMNS if name not in _COLUMNS_SINCE_2]:
        raise ValueError("its columns are not those of this schema")
    for number, line in enumerate(lines[1:], start=1):
        _check_length(number, line, names)
    rows = [dict(zip(names, line, strict=True)) for line in lines[1:]]
    return [
        list(COLUMNS),
        *([{**_COLUMNS_SINCE_2, **row}[name] for name in COLUMNS] for row in rows),
    ]


def _check(meta: Row) -> None:
    for key, types in _TYPES.items():
        value = meta.get(key, ...)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ValueError(f"{key} is missing or of the wrong kind")
    if len(meta["run_id"]) > _MAX_ID or not meta["run_id"].isprintable():
        raise ValueError("run_id is not a name")
    if meta["status"] not in STATUSES:
        raise ValueError("its status is unknown")
    if moment(meta["started_at"]) == NEVER:
        raise ValueError("started_at is not a time")
    if not all(isinstance(note, str) for note in meta["notes"]):
        raise ValueError("notes must be texts")
    if not all(value is None or _is_number(value) for value in meta["timing"].values()):
        raise ValueError("timing must be numbers")
    until_ci = meta["until_ci"]
    if until_ci is not None and not all(
        _is_number(until_ci.get(name)) for name in ("half_width", "limit_s")
    ):
        raise ValueError("until_ci must be numbers")
    clocks.check(meta["clocks"])
    cells, blocks = meta["sweep"].get("cells"), meta["sweep"].get("blocks")
    if not isinstance(cells, list) or not all(_is_cell(cell) for cell in cells):
        raise ValueError("sweep.cells are not cells")
    if not _is_whole(blocks) or not 0 <= blocks <= MAX_BLOCKS:
        raise ValueError(f"sweep.blocks is not a whole number up to {MAX_BLOCKS}")
    for block in meta["order"]:
        if not isinstance(block, list) or not all(_is_whole(place) for place in block):
            raise ValueError("order is not lists of places in sweep.cells")


def _is_cell(cell: object) -> bool:
    if not isinstance(cell, dict) or sorted(cell) != sorted(each.name for each in fields(Cell)):
        return False
    texts = all(
        isinstance(cell[name], str) and _WORD.fullmatch(cell[name])
        for name in ("mode", "attach", "offloads")
    )
    whole = all(_is_whole(cell[name]) and 0 <= cell[name] <= most for name, most in _MOST.items())
    return texts and whole and isinstance(cell["twin"], bool) and cell["concurrency"] > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _row(number: int, line: Sequence[str]) -> Row:
    _check_length(number, line, tuple(COLUMNS))
    row: Row = {}
    for (column, kind), text in zip(COLUMNS.items(), line, strict=True):
        try:
            row[column] = _PARSERS[kind](text)
        except ValueError as error:
            raise ValueError(f"row {number}, {column}: {text[:32]!r} {error}") from error
    if not _SAMPLE.fullmatch(row["sample"]):
        raise ValueError(f"row {number}: {row['sample'][:32]!r} is no sample's name")
    if row["valid"] and (row["elapsed_s"] is None or row["transactions"] is None):
        raise ValueError(f"row {number} is a valid sample without siege's report")
    return row


def _check_length(number: int, line: Sequence[str], names: Sequence[str]) -> None:
    if len(line) != len(names):
        raise ValueError(f"row {number} has {len(line)} fields instead of {len(names)}")


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError("is not a whole number")
    return int(text)


def _figure(text: str) -> float:
    if not re.fullmatch(r"[0-9.]{1,32}(e[+-]?[0-9]{1,3})?", text):
        raise ValueError("is not a figure")
    if not math.isfinite(number := float(text)):
        raise ValueError("is not finite")
    return number


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return text == "true"


_PARSERS: dict[str, Callable[[str], Any]] = {
    "text": str,
    "whole": _whole,
    "count": lambda text: _whole(text) if text else None,
    "figure": lambda text: _figure(text) if text else None,
    "flag": _flag,
}
