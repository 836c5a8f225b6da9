# SPDX-License-Identifier: Apache-2.0
"""What warms a cell up, and how many requests its samples then make."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cells import MAX_CONCURRENCY, MAX_REQUESTS, Cell
from bench.sweep import Sweep, order, with_twins
from bench.warmup import LEAST_REQUESTS, SAMPLE_S, WARMUP_REQUESTS, calibrated, warmup_of

OPEN = Cell("nft", "", 3, 624, 1, 0)


@pytest.mark.parametrize(
    ("concurrency", "requests", "warmup"),
    [
        (1, 0, 200),
        (25, 0, 200),
        (300, 0, 300),
        (1, 100, 100),
        (1, 10_000, 200),
        (300, 10_000, 300),
        (300, 100, 100),
        (1, 1, 1),
    ],
)
def test_what_warms_a_cell_up(concurrency: int, requests: int, warmup: int) -> None:
    cell = replace(OPEN, concurrency=concurrency, requests=requests)
    assert warmup_of(cell) == replace(cell, requests=warmup)
    twin = replace(cell, twin=True)
    assert warmup_of(twin) == replace(twin, requests=warmup)


@pytest.mark.parametrize(
    ("rate_per_s", "concurrency", "requests"),
    [
        (None, 1, 100),
        (0.0, 1, 100),
        (1.0, 1, 100),
        (250.0, 1, 100),
        (1000.0, 1, 400),
        (7118.0, 1, 2800),
        (7130.0, 1, 2900),
        (20_000.0, 1, 8000),
        (2_487_000.0, 1, 990_000),
        (1e12, 1, 1_000_000),
        (1000.0, 500, 500),
        (None, 1000, 1000),
    ],
)
def test_requests_are_what_fits_a_sample(
    rate_per_s: float | None, concurrency: int, requests: int
) -> None:
    cell = replace(OPEN, concurrency=concurrency)
    (found,) = calibrated(Sweep((cell,), 1, 1), {cell: rate_per_s}).cells
    assert found == replace(cell, requests=requests)


def test_a_cell_that_was_not_warmed_up_makes_the_least() -> None:
    assert calibrated(Sweep((OPEN,), 1, 1), {}).cells[0].requests == LEAST_REQUESTS


def test_a_twin_makes_as_many_as_its_original() -> None:
    """However its own warm-up went: they differ by nothing but their label."""
    sweep = with_twins(Sweep((OPEN, replace(OPEN, size_bytes=9984)), 2, 7))
    rates = {cell: 9000.0 if cell.twin else 3000.0 + cell.size_bytes for cell in sweep.cells}
    found = {cell.key: cell.requests for cell in calibrated(sweep, rates).cells}
    assert len(found) == 4
    for cell in sweep.cells:
        assert found[cell.key] == found[replace(cell, twin=False).key] in (1400, 5200)


def test_requests_that_were_asked_for_stay() -> None:
    asked = Cell("xdp", "native", 3, 624, 25, 110)
    sweep = Sweep((OPEN, asked), 2, 7)
    found = calibrated(sweep, {OPEN: 1000.0, asked: 9999.0})
    assert found == replace(sweep, cells=(replace(OPEN, requests=400), asked))
    assert calibrated(found, {}) == found


rates_per_s = st.none() | st.floats(0, 1e12)


@given(rates_per_s, st.integers(1, MAX_CONCURRENCY))
def test_any_rate(rate_per_s: float | None, concurrency: int) -> None:
    cell = replace(OPEN, concurrency=concurrency)
    (found,) = calibrated(Sweep((cell,), 1, 1), {cell: rate_per_s}).cells
    assert LEAST_REQUESTS <= found.requests <= MAX_REQUESTS
    # Nobody of them has nothing to do.
    assert found.transactions >= concurrency
    digits = str(found.requests)
    assert not digits[2:].strip("0")
    wanted = (rate_per_s or 0.0) * SAMPLE_S
    if max(LEAST_REQUESTS, concurrency) + 1 < wanted < MAX_REQUESTS:
        assert found.requests == pytest.approx(wanted, rel=0.06)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_faster_cell_makes_no_fewer(one: float, other: float) -> None:
    slow, fast = sorted((one, other))
    less, more = (
        calibrated(Sweep((OPEN,), 1, 1), {OPEN: rate}).cells[0].requests for rate in (slow, fast)
    )
    assert less <= more


@given(st.integers(1, MAX_CONCURRENCY), st.integers(0, MAX_REQUESTS))
def test_any_warm_up(concurrency: int, requests: int) -> None:
    cell = replace(OPEN, concurrency=concurrency, requests=requests)
    found = warmup_of(cell)
    assert replace(found, requests=requests) == cell
    assert 1 <= found.requests <= max(WARMUP_REQUESTS, concurrency)
    assert not requests or found.requests <= requests


def test_order_stays_when_requests_are_found_out() -> None:
    sweep = with_twins(Sweep((OPEN, replace(OPEN, hops=1), replace(OPEN, hops=2)), 2, 7))
    found = calibrated(sweep, dict.fromkeys(sweep.cells, 5000.0))
    for block in range(4):
        assert [c.key for c in order(found, block)] == [c.key for c in order(sweep, block)]
