# SPDX-License-Identifier: Apache-2.0
"""Statistics of small samples: pure functions of numbers, each with the source of its formula."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from fractions import Fraction

CONFIDENCE = 0.95

Interval = tuple[float, float]


def median(values: Sequence[float]) -> float | None:
    """Return the median, the mean of the two middle values for an even number; None for none."""
    return statistics.median(values) if values else None


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Return the order-statistic confidence interval of the median, or None when n is too small.

    The interval is (x[k], x[n+1-k]) of the sorted values, counted from 1, with the largest k for
    which it covers the median with at least the confidence asked for. Whatever the distribution,
    as long as the values are independent, that probability is 1 - 2 P(B < k) with B binomial
    (n, 1/2). At 95 % it takes 6 values: of 5, even smallest and largest cover only 93.75 %.

    Source: H. A. David and H. N. Nagaraja, Order Statistics, 3rd ed., 2003, section 7.1. The
    interpolated form of T. P. Hettmansperger and S. J. Sheather (Statistics & Probability Letters
    4, 1986, 75-79) is shorter but only approximate, and is not used.
    """
    n = len(values)
    # In whole numbers, so that no n is too large: how many of the 2^n equally likely patterns of
    # below and above may fall outside on one side.
    allowed = Fraction(1 - confidence).limit_denominator(10**6) * 2**n / 2
    outside, k = math.comb(n, 0), 0
    while k < n // 2 and outside <= allowed:
        k += 1
        outside += math.comb(n, k)
    if k == 0:
        return None
    ordered = sorted(values)
    return ordered[k - 1], ordered[n - k]


def slope(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return the slope of the least-squares line through (x, y), None below two different x.

    Source: any text, e.g. N. R. Draper and H. Smith, Applied Regression Analysis, 3rd ed., 1998,
    section 1.2: the sum of (x - mean x)(y - mean y) over that of (x - mean x)².
    """
    if len(set(xs)) < 2:
        return None
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    above = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return above / math.fsum((x - mean_x) ** 2 for x in xs)


def apart(a: Interval | None, b: Interval | None) -> int | None:
    """Return -1 when a lies wholly below b, 1 when above, 0 when they meet, None without both.

    That two 95 % intervals do not meet is a stricter test than one at the 5 % level (N. Schenker
    and J. F. Gentleman, The American Statistician 55, 2001, 182-186): it errs towards silence.
    """
    if a is None or b is None:
        return None
    return -1 if a[1] < b[0] else 1 if a[0] > b[1] else 0
