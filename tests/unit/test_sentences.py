# SPDX-License-Identifier: Apache-2.0
"""The words of a verdict: what is said, what is not said, and how figures are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import START, read_run, write_run

from bench.cells import Cell
from bench.compare import compare
from bench.results import Sample
from bench.sentences import counted, figure, noise, sentences, times
from bench.sweep import cross

UNKNOWN = "noise floor not known: no mode was measured twice here"
COST_US = {"direct": 0.0, "socat": 490.0, "nft": 34.0, "xdp": 6.5}
ONE = cross(("direct", "socat", "nft", "xdp"), ("native",), (1, 3, 5), (624,), (1,), 10_000)


def took(cell: Cell, block: int) -> float:
    """Return the seconds of a sample whose response time is 100 µs and each hop's cost."""
    response_us = 100 + COST_US[cell.mode] * cell.hops + 0.1 * block
    return response_us * cell.transactions / 1e6


def said(path: Path) -> list[str]:
    """Return the sentences about a run."""
    return sentences(compare(read_run(path)))


def test_what_cannot_be_told_is_not_told(tmp_path: Path) -> None:
    cells = cross(("nft", "xdp"), ("native", "generic"), (1,), (624,), (1,), 10_000)

    def noisy(cell: Cell, block: int) -> float | Sample:
        if cell.attach == "generic" and block == 1:
            return Sample(cell, block, 3, START, None)
        return 1.0 + block / 10

    lines = said(write_run(tmp_path, cells, noisy))
    assert lines == [
        "624 bytes, 1 connection at a time: at 1 hop XDP and nft cannot be told apart, too few "
        f"samples to compare XDP (generic) with nft, XDP with XDP (generic); {UNKNOWN}."
    ]


@pytest.mark.parametrize(("cost_us", "cost"), [(0.0, "0.0"), (-0.01, "0.0"), (-3.0, "-3.0")])
def test_a_hop_that_costs_nothing(tmp_path: Path, cost_us: float, cost: str) -> None:
    """No multiple of nothing is made."""
    cells = cross(("nft", "xdp"), ("native",), (1, 3), (624,), (1,), 10_000)

    def free(cell: Cell, block: int) -> float:
        return 1.0 + (cost_us if cell.mode == "xdp" else 34.0) * cell.hops / 100

    lines = said(write_run(tmp_path, cells, free))
    assert f"XDP adds {cost} µs per hop [{cost}, {cost}], nft 34.0 µs [34.0, 34.0]; " in lines[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.0"), (6.54, "6.5"), (99.94, "99.9"), (99.96, "100"), (1234.5, "1,234")],
)
def test_figures(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.514, "0.51"), (1.0, "1.00"), (2.04, "2.0"), (9.96, "10"), (1234.0, "1,234")],
)
def test_multiples(value: float | None, text: str) -> None:
    assert times(value) == text


def test_counted() -> None:
    assert [counted(n, "hop") for n in (0, 1, 2000)] == ["0 hops", "1 hop", "2,000 hops"]


@pytest.mark.parametrize(
    ("floors", "words"),
    [
        ([], UNKNOWN),
        ([(0.018, "~")], "noise floor 1.8 %: XDP against itself"),
        (
            [(0.018, "~"), (0.2, "slower")],
            "noise floor 20.0 %: nft against itself, from which it differs",
        ),
        ([(0.1, "n too small")], "noise floor 10.0 %: XDP against itself, by too few samples"),
    ],
)
def test_noise_floors(floors: list[tuple[float, str]], words: str) -> None:
    known = [
        {
            "size_bytes": 624,
            "concurrency": 1,
            "metric": "response_us",
            "label": label,
            "noise_floor": floor,
            "verdict": verdict,
        }
        for (floor, verdict), label in zip(floors, ("xdp", "nft"), strict=False)
    ]
    comparison = {"validity": {"noise_floors": known}}
    assert noise(comparison, (624, 1), "response_us") == words
    for axis, metric in (((624, 25), "response_us"), ((624, 1), "connect_us")):
        assert noise(comparison, axis, metric) == UNKNOWN


def test_costs_that_cannot_be_told_apart_and_a_verdict_that_turns() -> None:
    axis = {"size_bytes": 624, "concurrency": 1, "metric": "response_us"}
    comparison = {
        "cells": [{**axis, "label": label, "hops": 1} for label in ("nft", "xdp")],
        "per_hop": [
            {**axis, "label": "nft", "slope_us": 30.0, "ci95": [29.0, 31.0]},
            {**axis, "label": "xdp", "slope_us": 29.5, "ci95": [28.0, 30.0]},
        ],
        "pairs": [
            {**axis, "a": "xdp", "b": "nft", "aa": False, "hops": hops, "ratio": 1, "verdict": word}
            for hops, word in ((1, "slower"), (3, "~"), (4, "slower"), (5, "faster"))
        ],
        "validity": {"noise_floors": []},
    }
    assert sentences(comparison) == [
        "624 bytes, 1 connection at a time: XDP adds 29.5 µs per hop [28.0, 30.0], nft 30.0 µs "
        "[29.0, 31.0] (not told apart from XDP); at 5 hops XDP is faster than nft (but slower at "
        f"1 and 4 hops); {UNKNOWN}."
    ]


def test_one_block_is_too_few_to_compare_the_modes(tmp_path: Path) -> None:
    (line,) = said(write_run(tmp_path, ONE, took, blocks=1))
    assert line.endswith(f"at 5 hops too few samples to compare the modes; {UNKNOWN}.")
