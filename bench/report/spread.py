# SPDX-License-Identifier: Apache-2.0
"""How the times of single connections spread: quantiles of each cell, medians of each sample.

Five million connections are read column by column and put in order once; what is kept of them is
a few hundred figures a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import tables
from bench.cells import label
from bench.report.figure import clean
from bench.runs import RunReader

if TYPE_CHECKING:
    import pandas as pd

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

_POINTS = 200
ENDS = (0.05, 0.95)
"""Between which quantiles a cell's whiskers reach."""


@dataclass(frozen=True)
class Spread:
    """What is left of a run's established connections, of samples that are valid and no warm-ups.

    cells: a row a cell: label, hops, size_bytes, concurrency, samples, connections, and the
    median and ENDS of both times, in µs. samples: a row a sample: its cell and medians. curves:
    by a row's place in `cells`, the response time at each of a list of quantiles.
    """

    cells: pd.DataFrame
    samples: pd.DataFrame
    curves: dict[int, tuple[Floats, Floats]]


PLACE = ("label", "hops", "size_bytes", "concurrency")
_TIMES = ("connect", "response")
_CUTS = [f"{time}_{what}_us" for time in _TIMES for what in ("median", "low", "high")]
CELLS = (*PLACE, "samples", "connections", *_CUTS)
SAMPLES = (*PLACE, "connections", "connect_median_us", "response_median_us")


def spread_of(run: RunReader) -> Spread:
    """Return how a run's connections spread; empty for a run without their times.

    Raises BenchError when connections.parquet is damaged.
    """
    import pandas as pd

    if not tables.has_connections(run.path):
        return Spread(pd.DataFrame(columns=list(CELLS)), pd.DataFrame(columns=list(SAMPLES)), {})
    cell_of_sample = places(run)
    order = {place: at for at, place in enumerate(sorted(set(cell_of_sample.values())))}
    codes, names, connect_us, response_us = _read(run)
    # The place of each connection's cell, -1 for one that is in no statistic.
    cell_of = np.array(
        [order[cell_of_sample[each]] if each in cell_of_sample else -1 for each in names], np.int32
    )
    rows: list[tuple[Any, ...]] = []
    samples: list[tuple[Any, ...]] = []
    curves: dict[int, tuple[Floats, Floats]] = {}
    by_sample = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[by_sample], np.arange(len(names) + 1))
    for place, at in order.items():
        found: list[tuple[Floats, Floats]] = []
        for code in np.flatnonzero(cell_of == at):
            here = by_sample[edges[code] : edges[code + 1]]
            times = connect_us[here], response_us[here]
            established = ~(np.isnan(times[0]) | np.isnan(times[1]))
            connect, response = (each[established] for each in times)
            if len(response):
                found.append((connect, response))
                middles = (six(np.median(each)) for each in (connect, response))
                samples.append((*place, len(response), *middles))
        if not found:
            continue
        connect, response = (np.sort(np.concatenate(each)) for each in zip(*found, strict=True))
        curves[len(rows)] = _condensed(response)
        cuts = [
            six(cut) for values in (connect, response) for cut in np.quantile(values, [0.5, *ENDS])
        ]
        rows.append((*place, len(found), len(response), *cuts))
    return Spread(
        pd.DataFrame(rows, columns=list(CELLS)),
        pd.DataFrame(samples, columns=list(SAMPLES)),
        curves,
    )


def places(run: RunReader) -> dict[str, tuple[str, int, int, int]]:
    """Return each usable sample's cell; what is measured twice is left out the second time."""
    known = run.samples
    known = known[known["valid"] & ~known["warmup"] & ~known["twin"]]
    return {
        str(row["sample"]): (
            clean(label(row["mode"], row["attach"], row["offloads"])),
            int(row["hops"]),
            int(row["size_bytes"]),
            int(row["concurrency"]),
        )
        for row in known.to_dict("records")
    }


def _read(run: RunReader) -> tuple[np.ndarray[Any, Any], list[str], Floats, Floats]:
    table = tables.read_connections(run.path, ("sample", "connect_us", "response_us"))
    words = table["sample"].combine_chunks()
    # An empty table's chunks join to an array without a dictionary.
    codes = words.indices.to_numpy() if len(words) else np.empty(0, np.int32)
    names = [str(each) for each in words.dictionary.to_pylist()] if len(words) else []
    return codes, names, table["connect_us"].to_numpy(), table["response_us"].to_numpy()


def _condensed(ordered: Floats) -> tuple[Floats, Floats]:
    """Return quantiles, and the values at them: all of few values, of many those that show."""
    n = len(ordered)
    if n <= _POINTS:
        shares = np.arange(1, n + 1) / n
        return _rounded(shares), _rounded(ordered)
    tails = np.geomspace(1 / n, 0.01, 20, endpoint=False)
    middle = np.linspace(0.01, 0.99, _POINTS - 42)
    shares = np.concatenate([[0.0], tails, middle, 1 - tails[::-1], [1.0]])
    return _rounded(shares), _rounded(np.quantile(ordered, shares))


def _rounded(values: Floats) -> Floats:
    return np.array([six(each) for each in values], np.float64)


def six(value: float) -> float:
    """Return a figure to six digits: what is drawn and what the CSV has are then the same."""
    return float(f"{value:.6g}")
