# SPDX-License-Identifier: Apache-2.0
"""Estimates and intervals: against worked values, against resampling, against what must hold."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.stats import (
    ENOUGH,
    Estimate,
    Interval,
    _symmetric_beta,
    bootstrap_median,
    median,
    median_interval,
    paired_ratio,
    per_hop,
    unpaired_ratio,
)

NUMBERS = st.floats(-1e9, 1e9)
TIMES = st.floats(1.0, 1e6)
SAMPLE = st.lists(NUMBERS, min_size=ENOUGH, max_size=60)

# Of ten blocks, in us: what a mode took, and one that takes half as much again.
A = (812.0, 790.5, 804.1, 799.9, 2210.0, 801.3, 808.8, 795.2, 803.0, 811.7)
B = tuple(1.5 * value + value % 7 for value in A)


@pytest.mark.parametrize(
    ("values", "middle"),
    [([], None), ([3.0], 3.0), ([1.0, 2.0], 1.5), ([9.0, 1.0, 2.0], 2.0), ([4, 1, 3, 2], 2.5)],
)
def test_median(values: list[float], middle: float | None) -> None:
    assert median(values) == middle


# --- by order statistics -----------------------------------------------------------------------


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
    assert median_interval([1.0, 2.0], confidence=0.5) == (1.0, 2.0)


def test_median_interval_of_many_values() -> None:
    low, high = median_interval(list(range(5001))) or (0, 0)
    assert 2400 < low < 2500 < high < 2600


@given(SAMPLE)
def test_median_lies_in_its_interval(values: list[float]) -> None:
    interval, middle = median_interval(values), median(values)
    assert interval is not None
    assert middle is not None
    assert interval[0] <= middle <= interval[1]
    assert min(values) <= interval[0] <= interval[1] <= max(values)


# --- by resampling -----------------------------------------------------------------------------


def resampled_medians(values: Sequence[float], corner: float, seed: int) -> np.ndarray:
    """Draw what bench.stats computes: medians of resamples of the line through the values."""
    n = len(values)
    places = (np.arange(1, n + 1) - corner) / (n + 1 - 2 * corner)
    drawn = np.random.default_rng(seed).random((60_000, n))
    return np.median(np.interp(drawn, places, np.sort(values)), axis=1)


@pytest.mark.parametrize("n", [6, 7, 10, 11, 20, 25])
def test_bootstrap_is_what_drawing_resamples_comes_to(n: int) -> None:
    values = np.random.default_rng(n).lognormal(0, 0.3, n).tolist()
    found = bootstrap_median(values)
    assert found is not None
    drawn = np.quantile(resampled_medians(values, 0.0, n), [0.025, 0.975])
    assert found == pytest.approx(tuple(drawn), abs=0.03 * (found[1] - found[0]))


@pytest.mark.parametrize(("n_a", "n_b"), [(6, 6), (7, 10), (10, 10), (11, 30)])
def test_unpaired_bootstrap_is_what_drawing_resamples_comes_to(n_a: int, n_b: int) -> None:
    draw = np.random.default_rng(n_a)
    a, b = draw.lognormal(1, 0.3, n_a).tolist(), draw.lognormal(0, 0.3, n_b).tolist()
    above, below = resampled_medians(a, 0.5, 1), resampled_medians(b, 0.5, 2)
    low, high = unpaired_ratio(a, b).interval or (0.0, 0.0)
    drawn = np.quantile(above / below, [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(drawn), abs=0.03 * (high - low))


@pytest.mark.parametrize("a", [1, 1.5, 3, 5.5, 10, 50.5, 5000])
def test_quantiles_of_the_symmetric_beta_are_scipys(a: float) -> None:
    found = _symmetric_beta(a)
    share = (np.arange(len(found)) + 0.5) / len(found)
    assert np.allclose(found, scipy_stats.beta.ppf(share, a, a), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        ([], None),
        ([1.0] * (ENOUGH - 1), None),
        ([1.0] * ENOUGH, (1.0, 1.0)),
        ([0.1] * 7, (0.1, 0.1)),
        ([0.1] * 100, (0.1, 0.1)),
        # Most are equal: so is the median of nearly every resample.
        ([*[5.0] * 18, 1.0, 9.0], (5.0, 5.0)),
    ],
)
def test_bootstrap_of_few_and_of_equal_values(
    values: list[float], interval: Interval | None
) -> None:
    assert bootstrap_median(values) == interval


@given(SAMPLE)
def test_bootstrap_interval_holds_the_median_and_nothing_beyond_the_values(
    values: list[float],
) -> None:
    low, high = bootstrap_median(values) or (math.nan, math.nan)
    middle = median(values)
    assert middle is not None
    assert min(values) <= low <= middle <= high <= max(values)


@given(SAMPLE, st.floats(-1e6, 1e6), st.floats(0.01, 100))
def test_bootstrap_goes_along_with_the_unit(
    values: list[float], shift: float, scale: float
) -> None:
    found = bootstrap_median(values)
    moved = bootstrap_median([shift + scale * value for value in values])
    mirrored = bootstrap_median([-value for value in values])
    assert found is not None
    assert moved == pytest.approx([shift + scale * end for end in found], rel=1e-6, abs=1e-3)
    assert mirrored == pytest.approx([-end for end in reversed(found)], rel=1e-6, abs=1e-3)


@given(SAMPLE, st.randoms(use_true_random=False))
def test_same_values_give_the_same_interval(values: list[float], shuffler: random.Random) -> None:
    found = bootstrap_median(values)
    np.random.seed(shuffler.randrange(1000))
    shuffler.shuffle(values)
    assert bootstrap_median(values) == found


def test_an_outlier_widens_the_interval_where_it_may_matter_and_is_never_dropped() -> None:
    values = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    plain, odd = bootstrap_median(values), bootstrap_median([*values[:-1], 1500.0])
    assert plain is not None
    assert odd is not None
    assert odd[0] == plain[0]
    assert odd[1] > 20 * plain[1]


@given(st.lists(st.sampled_from([1.0, 2.0, math.nan, math.inf, -math.inf]), max_size=12))
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    if all(map(math.isfinite, values)):
        bootstrap_median(values)
        return
    with pytest.raises(ValueError, match="not a finite number"):
        bootstrap_median(values)
    with pytest.raises(ValueError, match="not a finite number"):
        per_hop({block: {1: value, 2: value} for block, value in enumerate(values)})


# --- ratios ------------------------------------------------------------------------------------


def test_paired_ratio_is_the_median_over_blocks() -> None:
    found = paired_ratio(dict(enumerate(B)), dict(enumerate(A)))
    assert found is not None
    assert found.n == 10
    assert found.value == pytest.approx(np.median(np.divide(B, A)))
    assert found.interval == bootstrap_median(np.divide(B, A).tolist())


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ({}, {}, None),
        ({1: 2.0}, {2: 2.0}, None),
        ({1: 2.0, 2: 3.0}, {2: 1.5, 3: 9.0}, Estimate(2.0, None, 1)),
        (dict.fromkeys(range(5), 6.0), dict.fromkeys(range(5), 3.0), Estimate(2.0, None, 5)),
        # Ten blocks each, six of them in both.
        (
            dict.fromkeys(range(10), 6.0),
            dict.fromkeys(range(4, 14), 3.0),
            Estimate(2.0, (2.0, 2.0), 6),
        ),
    ],
)
def test_paired_ratio_takes_blocks_that_both_have(
    a: dict[int, float], b: dict[int, float], found: Estimate | None
) -> None:
    assert paired_ratio(a, b) == found


@given(st.lists(st.tuples(TIMES, TIMES, st.floats(0.01, 100)), min_size=ENOUGH, max_size=20))
def test_drift_of_blocks_cancels(blocks: list[tuple[float, float, float]]) -> None:
    steady = paired_ratio(
        {i: a for i, (a, _, _) in enumerate(blocks)}, {i: b for i, (_, b, _) in enumerate(blocks)}
    )
    drifting = paired_ratio(
        {i: drift * a for i, (a, _, drift) in enumerate(blocks)},
        {i: drift * b for i, (_, b, drift) in enumerate(blocks)},
    )
    assert steady is not None
    assert drifting is not None
    assert drifting.value == pytest.approx(steady.value)
    assert drifting.interval == pytest.approx(steady.interval)


def test_pairing_pays_where_blocks_drift() -> None:
    drift = np.random.default_rng(1).lognormal(0, 0.5, 10)
    a, b = np.multiply(B, drift), np.multiply(A, drift)
    paired = paired_ratio(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())))
    unpaired = unpaired_ratio(a.tolist(), b.tolist())
    assert paired is not None
    assert paired.interval is not None
    assert unpaired.interval is not None
    assert np.diff(paired.interval) < np.diff(unpaired.interval) / 10


def test_unpaired_ratio_is_that_of_the_medians() -> None:
    found = unpaired_ratio(B, A[:7])
    assert found.value == pytest.approx(np.median(B) / np.median(A[:7]))
    assert found.n == 7
    assert unpaired_ratio(A, B[:5]) == Estimate(float(np.median(A) / np.median(B[:5])), None, 5)
    assert unpaired_ratio([3.0] * 6, [2.0] * 8) == Estimate(1.5, (1.5, 1.5), 6)


@given(st.lists(TIMES, min_size=ENOUGH, max_size=30), st.lists(TIMES, min_size=ENOUGH, max_size=30))
def test_unpaired_ratio_holds_its_value_and_turns_round(a: list[float], b: list[float]) -> None:
    found, turned = unpaired_ratio(a, b), unpaired_ratio(b, a)
    assert found.interval is not None
    assert turned.interval is not None
    rounding = 1e-9 * found.value
    assert found.interval[0] - rounding <= found.value <= found.interval[1] + rounding
    assert turned.value == pytest.approx(1 / found.value)
    assert turned.interval == pytest.approx([1 / end for end in reversed(found.interval)], rel=0.02)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_ratios_are_of_positive_numbers(bad: float) -> None:
    for a, b in (([bad], [1.0]), ([1.0], [bad])):
        with pytest.raises(ValueError, match="figure that is not"):
            unpaired_ratio(a, b)
        with pytest.raises(ValueError, match="figure that is not"):
            paired_ratio({1: a[0]}, {1: b[0]})


def test_unpaired_ratio_needs_values() -> None:
    for a, b in (([], [1.0]), ([1.0], []), ([], [])):
        with pytest.raises(ValueError, match="without values"):
            unpaired_ratio(a, b)


# --- cost per hop ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "found"),
    [
        ({}, None),
        ({1: {}}, None),
        ({1: {3: 5.0}, 2: {3: 6.0}}, None),
        ({1: {1: 5.0}, 2: {2: 6.0}}, None),
        ({1: {1: 10.0, 3: 14.0}}, Estimate(2.0, None, 1)),
        ({1: {1: 100.0, 3: 113.0, 5: 126.0}}, Estimate(6.5, None, 1)),
        ({1: {1: 1.0, 2: 1.0, 3: 4.0}}, Estimate(1.5, None, 1)),
        ({1: {0: 4.0, 5: 4.0}, 2: {0: 1.0, 5: 6.0}}, Estimate(0.5, None, 2)),
        # The second block lacks a hop count: the line bends there, and its slope is another.
        ({1: {1: 1.0, 2: 2.0, 9: 90.0}, 2: {1: 1.0, 2: 2.0}}, Estimate(443 / 38, None, 1)),
        (
            {i: {1: 8.0 * i, 2: 8.0 * i + 3} for i in range(ENOUGH)},
            Estimate(3.0, (3.0, 3.0), ENOUGH),
        ),
    ],
)
def test_per_hop(blocks: dict[int, dict[int, float]], found: Estimate | None) -> None:
    result = per_hop(blocks)
    if found is None or result is None:
        assert result is found
    else:
        assert result.value == pytest.approx(found.value)
        assert (result.interval, result.n) == (found.interval, found.n)


@given(
    st.lists(st.lists(TIMES, min_size=4, max_size=4), min_size=ENOUGH, max_size=15),
    st.sets(st.integers(0, 64), min_size=4, max_size=4),
)
def test_per_hop_is_the_median_of_scipys_slopes(table: list[list[float]], hops: set[int]) -> None:
    counts = sorted(hops)
    found = per_hop({i: dict(zip(counts, row, strict=True)) for i, row in enumerate(table)})
    slopes = [float(scipy_stats.linregress(counts, row).slope) for row in table]
    assert found is not None
    assert found.n == len(table)
    assert found.value == pytest.approx(np.median(slopes), rel=1e-9, abs=1e-6)
    assert found.interval == pytest.approx(bootstrap_median(slopes), rel=1e-9, abs=1e-6)


def test_what_a_block_adds_leaves_the_cost_per_hop_alone() -> None:
    draw = np.random.default_rng(1)
    table = 500 + 25 * np.arange(1, 6) + draw.normal(0, 3, (10, 5))
    shifted = table + draw.normal(0, 1000, (10, 1))
    steady, moved = (
        per_hop({i: dict(enumerate(row, 1)) for i, row in enumerate(rows.tolist())})
        for rows in (table, shifted)
    )
    assert steady is not None
    assert moved is not None
    assert moved.value == pytest.approx(steady.value)
    assert moved.interval == pytest.approx(steady.interval)
