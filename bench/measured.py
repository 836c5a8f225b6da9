# SPDX-License-Identifier: Apache-2.0
"""What each cell of a run measured: one figure a metric and sample, sorted by block.

Where the run has connection times, a sample's figures come from them: the median over its
connections, and connections a second by the kernel's clock. Without them they are siege's elapsed
time over its transactions, which is a mean and by a clock of 10 ms.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import tables
from bench.cells import KEY, Cell
from bench.errors import BenchError
from bench.results import SAMPLES_FILE
from bench.runs import RunReader

if TYPE_CHECKING:
    import pandas as pd

TIMES = ("response_us", "connect_us")
RATES = ("transactions_per_s", "throughput_mbps")
QUANTILES = ("p90", "p99")

_REMEDY = "the run is damaged; measure again, or restore the file"


@dataclass(frozen=True)
class Measured:
    """A cell and the figures of its usable samples.

    figures: metric -> block -> figure. response_us and connect_us: a sample's median, in µs, with
    response_us_p90 and so on beside it; transactions_per_s; throughput_mbps, payload in 10^6 bits
    a second. Without connection times there are no connect_us and no percentiles. failed: failed
    requests of all samples but warm-ups, the invalid ones included. invalid: invalid samples.
    """

    cell: Cell
    figures: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    failed: int = 0
    invalid: int = 0

    def of(self, metric: str) -> Mapping[int, float]:
        """Return block -> figure of a metric, empty where there is none."""
        return self.figures.get(metric, {})

    def values(self, metric: str) -> list[float]:
        """Return the figures of a metric, a sample each."""
        return list(self.of(metric).values())

    @property
    def samples(self) -> int:
        """How many samples the figures rest on."""
        return len(self.of("response_us"))


@dataclass(frozen=True)
class Figures:
    """What a run's cells measured.

    timed: whether by connection times. unusable: valid samples without figures, by mode: they
    have no connection times, or siege's clock did not tick while they lasted.
    """

    cells: tuple[Measured, ...]
    timed: bool
    unusable: Counter[str]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The times there are."""
        return TIMES if self.timed else TIMES[:1]


def measured(run: RunReader) -> Figures:
    """Return the figures of a run's cells, twins included, in the order of its sweep.

    Only samples that are valid and no warm-ups count, and none of those is dropped for its value.
    Raises BenchError when connections.parquet is damaged or a cell was measured twice in a block.
    """
    samples = run.samples[~run.samples["warmup"]]
    times = _times(run)
    cells = {cell.key: cell for cell in run.cells}
    figures: dict[Any, dict[str, dict[int, float]]] = {key: {} for key in cells}
    unusable: Counter[str] = Counter()
    seen: set[Any] = set()
    rows: list[dict[str, Any]] = samples[samples["valid"]].to_dict("records")  # type: ignore[assignment]
    for row in rows:
        found = _by_siege(row) if times is None else _by_times(row, times.get(row["sample"]))
        if not found:
            unusable[str(row["mode"])] += 1
            continue
        key, block = tuple(row[name] for name in KEY), row["block"]
        if (key, block) in seen:
            cause = f"{row['sample']} is its cell's second sample in block {block}"
            raise BenchError(f"{run.path / SAMPLES_FILE} is damaged: {cause}", remedy=_REMEDY)
        seen.add((key, block))
        for metric, value in found.items():
            figures[key].setdefault(metric, {})[block] = value
    failed = samples.groupby(list(KEY))["failed"].sum().to_dict()
    invalid = samples[~samples["valid"]].groupby(list(KEY)).size().to_dict()
    found_in = (
        Measured(cell, figures[key], int(failed.get(key, 0)), int(invalid.get(key, 0)))
        for key, cell in cells.items()
    )
    return Figures(tuple(found_in), times is not None, unusable)


def _times(run: RunReader) -> Mapping[str, Mapping[str, float]] | None:
    """Return what connection times say of the run's samples, None where it has none."""
    from bench import timings

    if not timings.known(run.path):
        return None
    file = run.path / tables.CONNECTIONS_FILE
    try:
        found: pd.DataFrame = timings.of_samples(run.path)
        known = found.index.isin(run.samples["sample"])
        times: dict[Any, Any] = found[known].to_dict("index")
    # What numpy and Arrow say to columns that are missing or of another kind.
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BenchError(f"{file} is damaged: {reason}", remedy=_REMEDY) from error
    return times or None


def _by_times(row: Mapping[str, Any], times: Mapping[str, float] | None) -> dict[str, float]:
    if times is None or not times["span_s"] > 0:
        return {}
    found = {metric: times[f"{metric}_median"] for metric in TIMES}
    found |= {
        f"{metric}_{name}": times[f"{metric}_{name}"] for metric in TIMES for name in QUANTILES
    }
    rate = (times["connections"] - times["failed"]) / times["span_s"]
    return _sound({**found, **_rates(rate, row)})


def _by_siege(row: Mapping[str, Any]) -> dict[str, float]:
    if not row["elapsed_s"] > 0 or not row["transactions"] > 0:
        return {}
    rate = row["transactions"] / row["elapsed_s"]
    return _sound({"response_us": 1e6 * row["concurrency"] / rate, **_rates(rate, row)})


def _rates(per_s: float, row: Mapping[str, Any]) -> dict[str, float]:
    return {
        "transactions_per_s": per_s,
        "throughput_mbps": per_s * row["size_bytes"] * 8 / 1e6,
    }


def _sound(figures: dict[str, float]) -> dict[str, float]:
    """Return the figures if they are such: no time or rate is zero, negative or without end."""
    return figures if all(0 < value < math.inf for value in figures.values()) else {}
