# SPDX-License-Identifier: Apache-2.0
"""When a difference may be called one."""

from __future__ import annotations

import statistics

import pytest
from scipy import stats as scipy_stats

from bench.contrast import (
    FASTER,
    SLOWER,
    TOO_FEW,
    UNCLEAR,
    Contrast,
    corrected,
    distance,
    noise_floor,
    paired,
    unpaired,
    verdict,
)

TIME, RATE = "response_us", "transactions_per_s"
HALF = Contrast(0.5, (0.48, 0.52), 10, (10, 10), 1e-5)
DOUBLE = Contrast(2.0, (1.9, 2.1), 10, (10, 10), 1e-5)
CLOSE = Contrast(0.98, (0.97, 0.99), 10, (10, 10), 1e-5)


@pytest.mark.parametrize(
    ("contrast", "p_value", "tests", "metric", "floor", "word"),
    [
        (HALF, 0.001, 1, TIME, None, FASTER),
        (DOUBLE, 0.001, 1, TIME, None, SLOWER),
        (HALF, 0.001, 1, RATE, None, SLOWER),
        (DOUBLE, 0.001, 1, RATE, None, FASTER),
        (HALF, 0.049, 1, TIME, 0.02, FASTER),
        (HALF, 0.05, 1, TIME, None, UNCLEAR),
        # What the interval holds, and what is within the noise floor, is no difference.
        (Contrast(0.9, (0.8, 1.0), 10, (10, 10), 1e-5), 0.001, 1, TIME, None, UNCLEAR),
        (Contrast(1.1, (1.0, 1.2), 10, (10, 10), 1e-5), 0.001, 1, TIME, None, UNCLEAR),
        (CLOSE, 0.001, 1, TIME, 0.02, FASTER),
        (CLOSE, 0.001, 1, TIME, 0.021, UNCLEAR),
        # A floor above 100 % hides no factor of three.
        (Contrast(0.3, (0.29, 0.31), 10, (10, 10), 1e-5), 0.001, 1, TIME, 1.2, FASTER),
        (HALF, 0.001, 1, TIME, 1.0, UNCLEAR),
        # Too few samples on a side, or blocks in common.
        (Contrast(0.5, (0.4, 0.6), 6, (6, 6), 0.002), 0.002, 1, TIME, None, FASTER),
        (Contrast(0.5, (0.4, 0.6), 6, (5, 6), 0.004), 0.004, 1, TIME, None, TOO_FEW),
        (Contrast(0.5, (0.4, 0.6), 6, (6, 5), 0.004), 0.004, 1, TIME, None, TOO_FEW),
        (Contrast(0.5, None, 5, (10, 10), 1e-5), 0.001, 1, TIME, None, TOO_FEW),
        (Contrast(None, None, 0, (10, 10), 1e-5), 0.001, 1, TIME, None, TOO_FEW),
        (Contrast(None, None, 0, (0, 10), None), None, 0, TIME, None, TOO_FEW),
        # Six against six wholly apart is p = 2 / 924: with 23 tests it can pass, with 24 not.
        (Contrast(0.5, (0.4, 0.6), 6, (6, 6), 2 / 924), 23 * 2 / 924, 23, TIME, None, FASTER),
        (Contrast(0.5, (0.4, 0.6), 6, (6, 6), 2 / 924), 24 * 2 / 924, 24, TIME, None, TOO_FEW),
    ],
)
def test_words(
    contrast: Contrast, p_value: float, tests: int, metric: str, floor: float | None, word: str
) -> None:
    assert verdict(contrast, p_value, tests, metric, floor) == word


@pytest.mark.parametrize(
    ("ratio", "far"), [(1.0, 0.0), (1.2, 0.2), (1 / 1.2, 0.2), (4.0, 3.0), (0.25, 3.0)]
)
def test_distance_does_not_depend_on_which_is_a(ratio: float, far: float) -> None:
    assert distance(ratio) == pytest.approx(far)


@pytest.mark.parametrize(
    ("ratio", "interval", "floor"),
    [(1.0, (0.99, 1.03), 0.03), (1.0, (0.8, 1.1), 0.25), (1.05, None, 0.05), (1.0, [1, 1], 0.0)],
)
def test_noise_floor(ratio: float, interval: tuple[float, float], floor: float) -> None:
    assert noise_floor(ratio, interval) == pytest.approx(floor)


def test_p_values_are_corrected_for_those_that_there_are() -> None:
    found = [Contrast(1.0, None, 1, (1, 1), p) for p in (0.01, None, 0.04, 0.03)]
    # Holm by hand: 3 x 0.01, 2 x 0.03, and 0.04, which must not be below the one before it.
    assert corrected(found) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert corrected([]) == []


A = [103.0, 98.0, 110.0, 95.0, 101.5, 99.0, 107.0, 96.0]
B = [120.0, 97.0, 131.0, 118.0, 100.0, 125.0, 140.0]


def test_two_cells_of_a_run() -> None:
    """Blocks 2 to 8 are common, and not in the same order."""
    a = dict(enumerate(A, start=1))
    b = {8 - place: value for place, value in enumerate(B)}
    found = paired(a, b)
    by_hand = sorted(a[block] / b[block] for block in range(2, 9))
    assert (found.n, found.values) == ((8, 7), 7)
    assert found.ratio == by_hand[3]
    assert found.interval is not None
    assert by_hand[0] <= found.interval[0] < by_hand[3] < found.interval[1] <= by_hand[-1]
    exact = scipy_stats.mannwhitneyu(A, B, method="exact").pvalue
    assert found.p_value == pytest.approx(exact)


def test_a_factor_that_is_the_same_in_each_block_has_no_spread() -> None:
    found = paired({b: 3.0 * b for b in range(1, 7)}, {b: 4.0 * b for b in range(1, 7)})
    assert found.ratio == 0.75
    assert found.interval == (0.75, 0.75)


def test_cells_of_two_runs() -> None:
    found = unpaired(A, B)
    assert (found.n, found.values) == ((8, 7), 7)
    assert found.ratio == statistics.median(A) / statistics.median(B)
    assert found.p_value == pytest.approx(scipy_stats.mannwhitneyu(A, B, method="exact").pvalue)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], []), ([], [1.0])])
def test_nothing_to_contrast(a: list[float], b: list[float]) -> None:
    sides = (dict(enumerate(a)), dict(enumerate(b)))
    for found in (unpaired(a, b), paired(*sides)):
        assert found == Contrast(None, None, 0, (len(a), len(b)), None)
    assert paired({1: 1.0}, {2: 1.0}) == Contrast(None, None, 0, (1, 1), 1.0)
