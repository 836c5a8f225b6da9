# SPDX-License-Identifier: Apache-2.0
"""Sweep files of a stranger: a sweep within all limits, or one line, in little time and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzzing import EVIL_NUMBERS, bench, fuzz, nested, orderly, scalars, texts
from hypothesis import strategies as st
from synthetic import tree

from bench.cells import MAX_BLOCKS, MAX_CONCURRENCY, MAX_HOPS, MAX_REQUESTS, MODES, PAYLOAD_SIZES
from bench.errors import UsageError
from bench.sweep import MAX_CELLS, load_sweep

KEYS = ("modes", "attach", "offloads", "hops", "sizes", "concurrency", "requests", "blocks")
GOOD: dict[str, Any] = {
    "modes": ["xdp", "direct"],
    "hops": "1-2",
    "sizes": [312, 624],
    "concurrency": 25,
    "requests": 50,
}


def toml(value: Any) -> str:
    """Return a value as TOML writes it, as far as it can say it at all."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:#x}" if value.bit_length() > 64 else str(value)
    if isinstance(value, list):
        return "[" + ",\n".join(map(toml, value)) + "]"
    return json.dumps(value) if isinstance(value, str) else str(value)


def write(folder: Path, table: dict[str, Any], blocks: Any = 2) -> Path:
    """Write a sweep file of one table."""
    lines = [f"{key} = {toml(value)}" for key, value in table.items()]
    path = folder / "sweep.toml"
    text = "\n".join([f"blocks = {toml(blocks)}", "[[cells]]", *lines])
    path.write_bytes(text.encode(errors="surrogatepass"))
    return path


def taken_or_refused(path: Path) -> bool:
    """Load a sweep; it is within all limits, or ends with one line. Return whether it was taken."""
    before = tree(path.parent)
    try:
        sweep = load_sweep(path)
    except UsageError as error:
        assert error.one_line().isprintable()
        assert str(path) in error.one_line()
        assert len(error.one_line()) < 600 + len(str(path))
        assert error.exit_code == 2
        return False
    finally:
        assert tree(path.parent) == before
    assert 1 <= sweep.blocks <= MAX_BLOCKS
    assert 1 <= len(sweep.cells) <= MAX_CELLS
    for cell in sweep.cells:
        assert cell.mode in MODES and cell.size_bytes in PAYLOAD_SIZES
        assert 0 <= cell.hops <= MAX_HOPS and 1 <= cell.concurrency <= MAX_CONCURRENCY
        assert 0 <= cell.requests <= MAX_REQUESTS
    return True


def test_any_value(tmp_path: Path) -> None:
    assert taken_or_refused(write(tmp_path, GOOD))

    def check(key: str, value: Any, other: str, more: Any) -> None:
        table = {**GOOD, key: value, other: more}
        taken_or_refused(write(tmp_path, table, table.pop("blocks", 2)))

    keys = st.sampled_from(KEYS)
    usual = st.sampled_from(["1-3,5", "1-1000", "xdp", "native", 312, 1, "auto", [1, 2], [], [[]]])
    values = scalars | usual | st.lists(scalars | usual, max_size=5)
    fuzz(check, keys, values, keys, values, examples=140)


def test_any_text(tmp_path: Path) -> None:
    pieces = st.sampled_from(
        [
            *("blocks = 2\n", "[[cells]]\n", "[cells]\n", "[cells.x]\n", "modes = 'nft'\n"),
            *("hops = 1\n", "sizes = 312\n", "concurrency = 1\n", "requests = 9\n", "'''", '"""'),
            *("a.b.c = 1\n", "= 1", "{a = 1}", "[", "]", "#", "\r", "\0", "\ufeff", "1979-05-27"),
            *("1e400", "nan", "inf", "0x" + "f" * 5000, "9" * 5000, "\\u0000", "\\ud800", "[[[["),
        ]
    )

    def check(parts: list[str]) -> None:
        path = tmp_path / "sweep.toml"
        path.write_bytes("".join(parts).encode(errors="surrogatepass"))
        taken_or_refused(path)

    fuzz(check, st.lists(pieces | texts, max_size=15), examples=105)


def test_any_octets(tmp_path: Path) -> None:
    def check(data: bytes) -> None:
        path = tmp_path / "sweep.toml"
        path.write_bytes(data)
        assert not taken_or_refused(path)

    fuzz(check, st.binary(max_size=200), examples=70)


BOMBS = {
    "cells": {**GOOD, "sizes": [312] * 60_000, "concurrency": [1] * 60_000},
    "hops": {**GOOD, "hops": ["1-1000"] * 90_000},
    "ranges": {**GOOD, "hops": [",".join(["1-1000"] * 2_000)] * 60},
    "modes": {**GOOD, "modes": ["xdp"] * 120_000},
    "words": {**GOOD, "modes": "x" * 900_000},
    "keys": {**GOOD, **{f"k{number}": 1 for number in range(50_000)}},
    "nesting": {**GOOD, "sizes": nested(400)},
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(tmp_path: Path, bomb: str) -> None:
    def check(table: dict[str, Any]) -> None:
        taken_or_refused(write(tmp_path, table))

    fuzz(check, st.just(BOMBS[bomb]), examples=1)


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 400_000 + " = 1",
        ("a" + ".a" * 8_000 + " = 1\n") * 20,
        "[" * 500_000,
        "a = " + "[\n" * 5_000,
        "a = " + "{a=" * 5_000,
        "[[x]]\n" * 150_000,
        "x = '''" + "\n" * 900_000,
    ],
    ids=["dots", "lines of dots", "brackets", "lists", "tables", "headers", "lines"],
)
def test_bombs_of_toml(tmp_path: Path, text: str) -> None:
    def check(data: str) -> None:
        path = tmp_path / "sweep.toml"
        path.write_text(data)
        assert not taken_or_refused(path)

    fuzz(check, st.just(text), examples=1)


@pytest.mark.parametrize("number", EVIL_NUMBERS)
def test_the_command_says_it_in_one_line(tmp_path: Path, number: float) -> None:
    path = write(tmp_path, GOOD, number)
    ended = bench("run", "--dry-run", "--sweep", path)
    assert orderly(*ended) == (number in (1, 255))
    assert ended[0] in (0, 2)
