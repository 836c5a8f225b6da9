# SPDX-License-Identifier: Apache-2.0
"""When one figure may be called faster or slower than another: ratio, interval, test, word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench import ranks, stats
from bench.stats import Interval

ENOUGH = stats.ENOUGH
"""Samples a side, and common blocks, below which nothing is said."""

LEVEL = 0.05

FASTER, SLOWER, UNCLEAR, TOO_FEW = "faster", "slower", "~", "n too small"

_MORE_IS_FASTER = ("transactions_per_s", "throughput_mbps")


@dataclass(frozen=True)
class Contrast:
    """A metric of a over that of b.

    ratio: None where there are no figures to divide. interval: its 95 % one, None where they are
    too few. values: of how many values both are. n: samples of a and of b. p_value: of the
    Mann-Whitney test, None where a side has no sample.
    """

    ratio: float | None
    interval: Interval | None
    values: int
    n: tuple[int, int]
    p_value: float | None


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Contrast:
    """Contrast two cells of one run, block -> figure: the ratio is the median of those by block."""
    estimate = stats.paired_ratio(a, b)
    return _contrast(estimate, list(a.values()), list(b.values()))


def unpaired(a: Sequence[float], b: Sequence[float]) -> Contrast:
    """Contrast a cell of one run with one of another: the ratio is that of the medians."""
    estimate = stats.unpaired_ratio(a, b) if a and b else None
    return _contrast(estimate, a, b)


def corrected(contrasts: Iterable[Contrast]) -> list[float | None]:
    """Return the p values of tests that are shown together, corrected for their number (Holm)."""
    found = [contrast.p_value for contrast in contrasts]
    after = iter(ranks.holm([p for p in found if p is not None]))
    return [None if p is None else next(after) for p in found]


def distance(ratio: float) -> float:
    """Return how far a ratio is from 1, whichever of the two is above: 0.2 for 1.2 and for 1/1.2.

    Which label of an A/A pair is the second one says nothing; |ratio - 1| would depend on it.
    """
    return max(ratio, 1 / ratio) - 1


def noise_floor(ratio: float, interval: Sequence[float] | None) -> float:
    """Return how far the same thing may be from itself: the farther end of an A/A interval.

    Without an interval it is the ratio's own distance, which is less than it should be.
    """
    return max(map(distance, interval or (ratio,)))


def verdict(
    contrast: Contrast, p_value: float | None, tests: int, metric: str, floor: float | None
) -> str:
    """Return the word for a: FASTER, SLOWER, UNCLEAR or TOO_FEW.

    p_value: corrected for the number of `tests` shown together. floor: the noise floor, None where
    it is not known. A difference needs all three: p below LEVEL, an interval without 1, and a
    ratio farther from 1 than the floor. Too few is also what could not have passed the test had a
    and b been wholly apart.
    """
    if contrast.ratio is None or contrast.interval is None or p_value is None:
        return TOO_FEW
    if min(contrast.values, *contrast.n) < ENOUGH or ranks.least_p(*contrast.n) * tests > LEVEL:
        return TOO_FEW
    low, high = contrast.interval
    within = floor is not None and distance(contrast.ratio) <= floor
    if p_value >= LEVEL or low <= 1 <= high or within:
        return UNCLEAR
    return FASTER if (contrast.ratio > 1) == (metric in _MORE_IS_FASTER) else SLOWER


def _contrast(estimate: stats.Estimate | None, a: Sequence[float], b: Sequence[float]) -> Contrast:
    return Contrast(
        ratio=estimate.value if estimate else None,
        interval=estimate.interval if estimate else None,
        values=estimate.n if estimate else 0,
        n=(len(a), len(b)),
        p_value=ranks.mann_whitney(a, b) if a and b else None,
    )
