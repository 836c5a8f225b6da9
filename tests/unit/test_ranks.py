# SPDX-License-Identifier: Apache-2.0
"""Mann-Whitney against scipy and by counting all orders; Holm by hand and by what must hold."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from bench.ranks import holm, least_p, mann_whitney

SIZES = st.integers(1, 50)
SEEDS = st.integers(0, 2**32)
SHARES = st.lists(st.floats(0, 1), max_size=30)


@given(SIZES, SIZES, SEEDS, st.sampled_from([0.0, 0.3, 1.0, 3.0]))
def test_without_ties_it_is_scipys_exact_one(n_a: int, n_b: int, seed: int, shift: float) -> None:
    draw = np.random.default_rng(seed)
    a, b = draw.normal(shift, 1, n_a), draw.normal(0, 1, n_b)
    expected = mannwhitneyu(a, b, method="exact").pvalue
    assert mann_whitney(a.tolist(), b.tolist()) == pytest.approx(expected, rel=1e-9)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=80),
    st.lists(st.integers(0, 5), min_size=1, max_size=80),
)
def test_with_ties_it_is_scipys_normal_one(a: list[int], b: list[int]) -> None:
    if len({*a, *b}) == len(a) + len(b):
        return
    expected = mannwhitneyu(a, b, method="asymptotic").pvalue
    assert mann_whitney(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n_a", "n_b"), [(51, 3), (51, 51), (200, 170), (1, 400)])
def test_of_many_it_is_scipys_normal_one(n_a: int, n_b: int) -> None:
    draw = np.random.default_rng(n_a)
    a, b = draw.normal(0.2, 1, n_a), draw.normal(0, 1, n_b)
    expected = mannwhitneyu(a, b, method="asymptotic").pvalue
    assert mann_whitney(a.tolist(), b.tolist()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        ([1.0], [2.0], 1.0),
        ([1.0], [1.0], 1.0),
        ([7.0] * 10, [7.0] * 12, 1.0),
        ([7.0] * 60, [7.0] * 60, 1.0),
        ([1, 2, 3], [4, 5, 6], 0.1),
        ([1, 2, 3, 4], [5, 6, 7, 8], 2 / 70),
        ([1, 2, 3, 5], [4, 6, 7, 8], 4 / 70),
        (list(range(10)), list(range(10, 20)), 2 / 184756),
    ],
)
def test_worked_values(a: list[float], b: list[float], p: float) -> None:
    assert mann_whitney(a, b) == pytest.approx(p, rel=1e-12)
    assert mann_whitney(b, a) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (2, 3), (4, 4), (3, 6), (5, 5)])
def test_exact_p_counts_the_orders(n_a: int, n_b: int) -> None:
    """Of all ways to deal out the ranks, p is the share of those at least as far from the mean."""
    n = n_a + n_b
    deals = [set(deal) for deal in combinations(range(n), n_a)]
    away = [abs(sum(deal) - n_a * (n - 1) / 2) for deal in deals]
    for deal, distance in zip(deals, away, strict=True):
        p = mann_whitney(list(deal), [rank for rank in range(n) if rank not in deal])
        assert p == pytest.approx(sum(other >= distance for other in away) / len(deals))


@given(
    st.lists(st.floats(1, 100), min_size=1, max_size=20), st.lists(st.floats(1, 100), min_size=1)
)
def test_only_ranks_count(a: list[float], b: list[float]) -> None:
    p = mann_whitney(a, b)
    assert 0 < p <= 1
    assert mann_whitney(b, a) == pytest.approx(p)
    assert mann_whitney([4 * value for value in a], [4 * value for value in b]) == p


@pytest.mark.parametrize(("a", "b"), [([], [1.0]), ([1.0], []), ([1.0, math.nan], [2.0])])
def test_what_cannot_be_ranked_is_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="numbers on both sides"):
        mann_whitney(a, b)


def test_p_is_below_the_level_as_often_as_it_says() -> None:
    """Of the same thing twice; and where blocks drift and both share it, less often."""
    draw = np.random.default_rng(1)
    drift = draw.normal(0, 2, (2000, 10))
    for common, least, most in ((0 * drift, 0.03, 0.05), (drift, 0.0, 0.01)):
        a, b = (common + draw.normal(0, 1, drift.shape) for _ in range(2))
        hits = [mann_whitney(x, y) < 0.05 for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        assert least <= np.mean(hits) <= most


@given(SIZES, SIZES)
def test_least_p_is_that_of_samples_wholly_apart(n_a: int, n_b: int) -> None:
    a, b = list(range(n_a)), list(range(n_a, n_a + n_b))
    assert least_p(n_a, n_b) == pytest.approx(mann_whitney(a, b), rel=1e-9)


@pytest.mark.parametrize(
    ("n_a", "n_b", "p"),
    [(0, 5, 1.0), (1, 1, 1.0), (3, 3, 0.1), (4, 4, 2 / 70), (10, 10, 2 / 184756)],
)
def test_least_p(n_a: int, n_b: int, p: float) -> None:
    assert least_p(n_a, n_b) == pytest.approx(p)


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04, 0.001, 0.9, 0.01], [0.08, 0.004, 0.9, 0.03]),
        ([0.5, 0.6, 0.7], [1.0, 1.0, 1.0]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ],
)
def test_holm(raw: list[float], adjusted: list[float]) -> None:
    assert holm(raw) == pytest.approx(adjusted)


@given(SHARES)
def test_holm_keeps_the_order_and_never_helps(raw: list[float]) -> None:
    adjusted = holm(raw)
    assert all(p <= q <= 1 for p, q in zip(raw, adjusted, strict=True))
    by_raw = [q for _, q in sorted(zip(raw, adjusted, strict=True))]
    assert by_raw == sorted(adjusted)


@given(SHARES)
def test_holm_is_its_formula(raw: list[float]) -> None:
    m, ordered = len(raw), sorted(raw)
    steps = [min(1.0, (m - i) * p) for i, p in enumerate(ordered)]
    assert sorted(holm(raw)) == [max(steps[: i + 1]) for i in range(m)]


@given(SHARES, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order(raw: list[float], shuffler: object) -> None:
    places = list(range(len(raw)))
    shuffler.shuffle(places)  # type: ignore[attr-defined]
    adjusted = holm(raw)
    assert holm([raw[place] for place in places]) == [adjusted[place] for place in places]


def test_holm_errs_anywhere_at_all_as_often_as_it_says() -> None:
    """Twenty tests of things that do not differ."""
    p_values = np.random.default_rng(1).random((5000, 20))
    families = [min(holm(row)) < 0.05 for row in p_values.tolist()]
    assert 0.04 <= np.mean(families) <= 0.06
