# SPDX-License-Identifier: Apache-2.0
"""How often 95 % intervals hold the truth: 2,000 simulated runs each, of which it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bench.stats import Interval, bootstrap_median, paired_ratio, per_hop, unpaired_ratio

TRIALS = 2000
LEAST, MOST = 0.93, 0.97

Draw = np.random.Generator
Floats = np.ndarray
Noise = Callable[[Draw, tuple[int, ...]], Floats]
Runs = Iterator[tuple[Interval | None, float]]


def normal(draw: Draw, shape: tuple[int, ...]) -> Floats:
    return 1 + 0.1 * draw.standard_normal(shape)


def lognormal(draw: Draw, shape: tuple[int, ...]) -> Floats:
    return np.exp(0.3 * draw.standard_normal(shape))


def with_outliers(draw: Draw, shape: tuple[int, ...]) -> Floats:
    """One in twenty is drawn from five times the spread."""
    spread = np.where(draw.random(shape) < 0.05, 0.5, 0.1)
    return np.exp(spread * draw.standard_normal(shape))


def medians(draw: Draw, noise: Noise, n: int) -> Runs:
    for values in (800 * noise(draw, (TRIALS, n))).tolist():
        yield bootstrap_median(values), 800


def paired(draw: Draw, noise: Noise, n: int) -> Runs:
    """Blocks drift by a factor of three either way, and a takes 1.7 times as long as b."""
    drift = np.exp(draw.standard_normal((TRIALS, n)))
    a = 1700 * drift * noise(draw, (TRIALS, n))
    b = 1000 * drift * noise(draw, (TRIALS, n))
    for above, below in zip(a.tolist(), b.tolist(), strict=True):
        found = paired_ratio(dict(enumerate(above)), dict(enumerate(below)))
        yield found and found.interval, 1.7


def unpaired(draw: Draw, noise: Noise, n: int) -> Runs:
    a, b = 1700 * noise(draw, (TRIALS, n)), 1000 * noise(draw, (TRIALS, n))
    for above, below in zip(a.tolist(), b.tolist(), strict=True):
        yield unpaired_ratio(above, below).interval, 1.7


def costs(draw: Draw, noise: Noise, n: int) -> Runs:
    """A hop costs 40 us; what a block adds to all its figures is up to several hundred."""
    hops = np.arange(1, 6)
    block = 1000 + draw.normal(0, 200, (TRIALS, n, 1))
    table = block + 40 * hops + 100 * noise(draw, (TRIALS, n, len(hops)))
    yield from _slopes(table, 40)


def costs_with_drift(draw: Draw, noise: Noise, n: int) -> Runs:
    """Blocks slow down everything, the cost of a hop too: by a fifth, and 200 us at the client."""
    hops = np.arange(1, 6)
    block = 1000 + draw.normal(0, 200, (TRIALS, n, 1))
    drift = np.exp(0.2 * draw.standard_normal((TRIALS, n, 1)))
    table = block + drift * (40 * hops + 20 * noise(draw, (TRIALS, n, len(hops))))
    yield from _slopes(table, 40)


def _slopes(table: Floats, truth: float) -> Runs:
    for run in table.tolist():
        found = per_hop({block: dict(enumerate(row, 1)) for block, row in enumerate(run)})
        yield found and found.interval, truth


def coverage(runs: Callable[[Draw, Noise, int], Runs], noise: Noise, n: int) -> float:
    hits = [
        interval is not None and interval[0] <= truth <= interval[1]
        for interval, truth in runs(np.random.default_rng(n), noise, n)
    ]
    assert len(hits) == TRIALS
    return float(np.mean(hits))


@pytest.mark.parametrize("n", [10, 20])
@pytest.mark.parametrize("noise", [normal, lognormal, with_outliers])
@pytest.mark.parametrize("runs", [medians, paired, unpaired, costs, costs_with_drift])
def test_intervals_hold_the_truth(
    runs: Callable[[Draw, Noise, int], Runs], noise: Noise, n: int
) -> None:
    assert LEAST <= coverage(runs, noise, n) <= MOST


@pytest.mark.parametrize("n", [6, 9, 11, 12, 15])
def test_intervals_of_other_numbers_of_blocks(n: int) -> None:
    assert LEAST <= coverage(medians, lognormal, n) <= MOST


@pytest.mark.parametrize("n", [7, 8])
def test_intervals_of_seven_and_eight_blocks_err_to_the_safe_side(n: int) -> None:
    assert 0.95 <= coverage(medians, lognormal, n) <= 0.98
