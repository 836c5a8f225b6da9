# SPDX-License-Identifier: Apache-2.0
"""Medians, their intervals, slopes: against worked values and against simulation."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.compare import ENOUGH
from bench.stats import apart, median, median_interval, slope

NUMBERS = st.floats(-1e9, 1e9)


@pytest.mark.parametrize(
    ("values", "middle"),
    [([], None), ([3.0], 3.0), ([1.0, 2.0], 1.5), ([9.0, 1.0, 2.0], 2.0), ([4, 1, 3, 2], 2.5)],
)
def test_median(values: list[float], middle: float | None) -> None:
    assert median(values) == middle


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [
        (6, 1, 6),
        (8, 1, 8),
        (9, 2, 8),
        (10, 2, 9),
        (12, 3, 10),
        (15, 4, 12),
        (17, 5, 13),
        (20, 6, 15),
        (25, 8, 18),
        (50, 18, 33),
        (100, 40, 61),
    ],
)
def test_median_interval_is_that_of_the_tables(n: int, low: int, high: int) -> None:
    """The ranks any table of 95 % intervals of the median has."""
    values = list(range(1, n + 1))
    random.Random(n).shuffle(values)
    assert median_interval(values) == (low, high)


def test_median_interval_takes_six_values() -> None:
    assert [median_interval([1.0] * n) is None for n in range(8)] == [True] * 6 + [False] * 2
    assert median_interval([1.0] * ENOUGH) == (1.0, 1.0)
    assert median_interval([1.0] * (ENOUGH - 1)) is None
    assert median_interval([1.0, 2.0], confidence=0.5) == (1.0, 2.0)


def test_median_interval_of_many_values() -> None:
    low, high = median_interval(list(range(5001))) or (0, 0)
    assert 2400 < low < 2500 < high < 2600


@pytest.mark.parametrize("n", [6, 10, 25])
def test_median_interval_covers_the_median(n: int) -> None:
    """Skewed data of known median: the interval covers it as often as it promises, or more."""
    drawn = np.random.default_rng(n).exponential(size=(4000, n))
    truth = np.log(2)
    hits = 0
    for values in drawn:
        interval = median_interval(values.tolist())
        assert interval is not None
        hits += interval[0] <= truth <= interval[1]
    assert hits / len(drawn) > 0.94


@given(st.lists(NUMBERS, min_size=6, max_size=60))
def test_median_lies_in_its_interval(values: list[float]) -> None:
    interval, middle = median_interval(values), median(values)
    assert interval is not None
    assert middle is not None
    assert interval[0] <= middle <= interval[1]
    assert min(values) <= interval[0] <= interval[1] <= max(values)


@pytest.mark.parametrize(
    ("xs", "ys", "value"),
    [
        ([], [], None),
        ([1], [5.0], None),
        ([2, 2], [1.0, 9.0], None),
        ([1, 3], [10.0, 14.0], 2.0),
        ([1, 3, 5], [100.0, 113.0, 126.0], 6.5),
        ([1, 2, 3], [1.0, 1.0, 4.0], 1.5),
    ],
)
def test_slope(xs: list[float], ys: list[float], value: float | None) -> None:
    assert slope(xs, ys) == (None if value is None else pytest.approx(value))


@given(st.lists(st.tuples(st.integers(1, 64), NUMBERS), min_size=2, max_size=30))
def test_slope_is_numpys(points: list[tuple[int, float]]) -> None:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    value = slope(xs, ys)
    if len(set(xs)) < 2:
        assert value is None
    else:
        assert value == pytest.approx(float(np.polyfit(xs, ys, 1)[0]), rel=1e-6, abs=1.0)


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        ((1, 2), (3, 4), -1),
        ((3, 4), (1, 2), 1),
        ((1, 3), (3, 4), 0),
        ((1, 9), (3, 4), 0),
        (None, (3, 4), None),
        ((1, 2), None, None),
    ],
)
def test_apart(
    a: tuple[float, float] | None, b: tuple[float, float] | None, answer: int | None
) -> None:
    assert apart(a, b) == answer
