# SPDX-License-Identifier: Apache-2.0
"""Tests of whether two samples differ, by their ranks, and what many such tests say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_EXACT_UP_TO = 50


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p value of the Mann-Whitney U test of a against b.

    The probability, if all orders of the values together are equally likely, of a U at least as
    far from its mean. Exact without ties and with up to 50 values a side, by the recursion of
    H. B. Mann and D. R. Whitney (Annals of Mathematical Statistics 18, 1947, 50-60); otherwise
    the normal approximation with corrections for ties and continuity (E. L. Lehmann,
    Nonparametrics, 1975, section 1.2 and appendix). Where all values are equal it is 1.

    It takes the samples for independent and does not pair by block. Modes measured in the same
    blocks share the blocks' drift, which makes their difference vary less than the test assumes:
    p is then too large rather than too small. That is the safe side; what pairing gains is in
    `stats.paired_ratio`. Random order within the block is what makes the orders equally likely
    if the modes do not differ.

    Raises ValueError when a sample is empty or a value is not a number.
    """
    n_a, n_b = len(a), len(b)
    values = np.asarray([*a, *b], dtype=np.float64)
    if not n_a or not n_b or np.isnan(values).any():
        raise ValueError("a rank test needs numbers on both sides")
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    u = float(ranks[:n_a].sum()) - n_a * (n_a + 1) / 2
    u = max(u, n_a * n_b - u)
    if len(counts) == len(values) and max(n_a, n_b) <= _EXACT_UP_TO:
        return min(1.0, 2 * float(_at_least(min(n_a, n_b), max(n_a, n_b))[round(u)]))
    n = n_a + n_b
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    if ties == n**3 - n:
        return 1.0
    deviation = math.sqrt(n_a * n_b / 12 * (n + 1 - ties / (n * (n - 1))))
    # Both tails of the normal distribution.
    return min(1.0, math.erfc((u - n_a * n_b / 2 - 0.5) / deviation / math.sqrt(2)))


def least_p(n_a: int, n_b: int) -> float:
    """Return the least p value that `mann_whitney` can give, exactly, for so many values.

    Of the C(n_a + n_b, n_a) ways in which the samples can lie among each other only two are
    wholly apart. Where this, times the number of tests that `holm` corrects for, is above the
    level, no data could have shown a difference, and silence says nothing.
    """
    return min(1.0, 2 / math.comb(n_a + n_b, n_a))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values corrected for their number, in the order given.

    By S. Holm (Scandinavian Journal of Statistics 6, 1979, 65-70): the i-th smallest of m times
    m - i + 1, none less than one before it, none above 1. To call different what is below a level
    then errs anywhere at all with at most that probability, however the tests depend on each
    other; pairs of modes do, each mode being in several. It holds for the p values given together:
    all that a table shows belong in one call.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted


@lru_cache(maxsize=256)
def _at_least(n: int, m: int) -> npt.NDArray[np.float64]:
    """Return P(U >= u) for each u of 0 to n m, all orders being equally likely.

    Mann and Whitney's recursion: the largest of n + m values is one of the n with probability
    n / (n + m), and then counts m towards U. Only sums of positive numbers: no digits are lost.
    """
    chances = [np.ones(1)] * (m + 1)
    for i in range(1, n + 1):
        row = [np.ones(1)]
        for j in range(1, m + 1):
            both = np.zeros(i * j + 1)
            both[j:] += chances[j] * (i / (i + j))
            both[: i * (j - 1) + 1] += row[-1] * (j / (i + j))
            row.append(both)
        chances = row
    return np.cumsum(chances[m][::-1])[::-1]
