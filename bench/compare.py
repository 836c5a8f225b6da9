# SPDX-License-Identifier: Apache-2.0
"""What a run says: cells, cost per hop, every pair of modes, and how far to believe it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bench.cells import MODES, Cell
from bench.errors import BenchError
from bench.runfiles import KEY
from bench.runs import RunReader
from bench.siege import CLOCK_TICK_S
from bench.stats import Interval, apart, median, median_interval, slope

if TYPE_CHECKING:
    import pandas as pd

SHORT_S = 0.5
"""A sample below this is too short for siege's clock: one tick is more than 2 % of it."""

ENOUGH = 6
"""Samples a median needs before it has a 95 % confidence interval."""

FASTER, SLOWER, UNCLEAR, TOO_FEW = "faster", "slower", "~", "n too small"
_WORDS = {-1: FASTER, 1: SLOWER, 0: UNCLEAR, None: TOO_FEW}
_REASONS_SHOWN = 3

Key = tuple[str, str, int, int, int]


@dataclass(frozen=True)
class Timed:
    """A cell and what its usable samples say, one number a sample in each tuple.

    response_us: mean time of one transaction, siege's elapsed time x concurrency / transactions.
    per_s: transactions a second. mbps: payload in 10^6 bits a second. failed: failed requests of
    all samples, the invalid ones included.
    """

    cell: Cell
    response_us: tuple[float, ...] = ()
    per_s: tuple[float, ...] = ()
    mbps: tuple[float, ...] = ()
    failed: int = 0

    @property
    def median_us(self) -> float | None:
        """Median response time."""
        return median(self.response_us)

    @property
    def interval_us(self) -> Interval | None:
        """95 % confidence interval of the median response time."""
        return median_interval(self.response_us)


def compare(run: RunReader, other: RunReader | None = None) -> dict[str, Any]:
    """Return the statistics of a run as `bench compare --json` prints them.

    `samples` of a cell counts those its figures rest on: valid and long enough for siege's clock
    to see; `failed` counts failed requests. Modes go by their label (`xdp`, `xdp/generic`). In a
    pair, a is the mode listed later, ratio is a's median over b's, and the verdict is a's: faster,
    slower, ~ for "cannot tell" or "n too small". A mode without hops is b at every hop count.
    What takes the time of single connections is null: percentiles, connect_us, noise_floor.

    With another run, `other` joins the cells that both have, ratio being run over other. Raises
    BenchError when they have none in common.
    """
    timed = _timed(run)
    result: dict[str, Any] = {
        "run": run.run_id,
        "cells": [_cell(item) for item in timed],
        "per_hop": list(_per_hop(timed)),
        "pairs": list(_pairs(timed)),
        "validity": {"noise_floor": None, "warnings": list(_warnings(run, timed))},
    }
    if other is not None:
        result["other"] = _joined(run, timed, other)
    return result


def usable(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the samples statistics may use: valid, and of a time siege's clock could see."""
    return samples[samples["valid"] & (samples["elapsed_s"] > 0) & (samples["transactions"] > 0)]


def _timed(run: RunReader) -> list[Timed]:
    failed = run.samples.groupby(list(KEY))["failed"].sum()
    failures: dict[Any, int] = {key: int(count) for key, count in failed.items()}
    groups: dict[Any, pd.DataFrame] = dict(iter(usable(run.samples).groupby(list(KEY))))
    found = []
    for cell in run.cells:
        group = groups.get(cell.key)
        if group is None:
            found.append(Timed(cell, failed=failures.get(cell.key, 0)))
            continue
        per_s = (group["transactions"].astype("float64") / group["elapsed_s"]).tolist()
        found.append(
            Timed(
                cell,
                response_us=tuple(1e6 * cell.concurrency / rate for rate in per_s),
                per_s=tuple(per_s),
                mbps=tuple(rate * cell.size_bytes * 8 / 1e6 for rate in per_s),
                failed=failures.get(cell.key, 0),
            )
        )
    return found


def _cell(timed: Timed) -> dict[str, Any]:
    cell = timed.cell
    return {
        "mode": cell.mode,
        "attach": cell.attach,
        "hops": cell.hops,
        "size_bytes": cell.size_bytes,
        "concurrency": cell.concurrency,
        "samples": len(timed.per_s),
        "failed": timed.failed,
        "connect_us": {"median": None, "p90": None, "p99": None},
        "response_us": {"median": timed.median_us, "p90": None, "p99": None},
        "transactions_per_s": _estimate(timed.per_s),
        "throughput_mbps": _estimate(timed.mbps),
    }


def _estimate(values: Sequence[float]) -> dict[str, Any]:
    interval = median_interval(values)
    return {"median": median(values), "ci95": list(interval) if interval else None}


def _per_hop(timed: Iterable[Timed]) -> Iterator[dict[str, Any]]:
    lines: dict[tuple[str, str, int, int], dict[int, float]] = {}
    for item in timed:
        cell = item.cell
        line = lines.setdefault((cell.mode, cell.attach, cell.size_bytes, cell.concurrency), {})
        if item.median_us is not None:
            line[cell.hops] = item.median_us
    for (mode, attach, size_bytes, concurrency), line in lines.items():
        hops = sorted(line)
        slope_us = slope(hops, [line[count] for count in hops])
        if slope_us is None:
            continue
        yield {
            "mode": mode,
            "attach": attach,
            "size_bytes": size_bytes,
            "concurrency": concurrency,
            "metric": "response_us",
            "slope_us": slope_us,
            "ci95": None,
            "hops": hops,
        }


def _pairs(timed: Sequence[Timed]) -> Iterator[dict[str, Any]]:
    for (size_bytes, concurrency), group in _grouped(timed):
        baselines = [item for item in group if not item.cell.hops]
        for hops in sorted({item.cell.hops for item in group if item.cell.hops}):
            rivals = baselines + [item for item in group if item.cell.hops == hops]
            rivals.sort(key=lambda item: _rank(item.cell))
            for position, a in enumerate(rivals):
                for b in rivals[:position]:
                    if not a.cell.hops:
                        continue
                    yield {
                        "a": a.cell.label,
                        "b": b.cell.label,
                        "hops": hops,
                        "size_bytes": size_bytes,
                        "concurrency": concurrency,
                        "metric": "response_us",
                        "ratio": _ratio(a, b),
                        "ci95": None,
                        "p_value": None,
                        "verdict": _verdict(a, b),
                    }


def _grouped(timed: Iterable[Timed]) -> Iterator[tuple[tuple[int, int], list[Timed]]]:
    def axis(item: Timed) -> tuple[int, int]:
        return item.cell.concurrency, item.cell.size_bytes

    for (concurrency, size_bytes), group in groupby(sorted(timed, key=axis), key=axis):
        yield (size_bytes, concurrency), list(group)


def _rank(cell: Cell) -> tuple[bool, int, bool]:
    known = list(MODES)
    place = known.index(cell.mode) if cell.mode in known else len(known)
    return cell.hops > 0, place, cell.attach == "native"


def _ratio(a: Timed, b: Timed) -> float | None:
    if a.median_us is None or b.median_us is None:
        return None
    return a.median_us / b.median_us


def _verdict(a: Timed, b: Timed) -> str:
    return _WORDS[apart(a.interval_us, b.interval_us)]


def _joined(run: RunReader, timed: Sequence[Timed], other: RunReader) -> dict[str, Any]:
    theirs: Mapping[Key, Timed] = {item.cell.key: item for item in _timed(other)}
    shared = [(item, theirs[item.cell.key]) for item in timed if item.cell.key in theirs]
    if not shared:
        raise BenchError(
            f"runs {run.run_id} and {other.run_id} have no cell in common",
            remedy="compare runs of the same modes, hops, sizes and concurrency",
        )
    cells = [
        {
            **dict(zip(KEY, mine.cell.key, strict=True)),
            "metric": "response_us",
            "run_us": mine.median_us,
            "other_us": their.median_us,
            "ratio": _ratio(mine, their),
            "verdict": _verdict(mine, their),
        }
        for mine, their in shared
    ]
    unmatched = len(timed) + len(theirs) - 2 * len(shared)
    return {"run": other.run_id, "cells": cells, "unmatched": unmatched}


def _warnings(run: RunReader, timed: Sequence[Timed]) -> Iterator[str]:
    samples = run.samples
    planned = len(run.cells) * run.meta["sweep"]["blocks"]
    if run.meta["status"] != "complete":
        yield f"the run is {run.meta['status']}: {len(samples)} of {planned} samples are there"
    invalid = samples[~samples["valid"]]
    if len(invalid):
        reasons = Counter(str(reason) for reason in invalid["invalid_reason"])
        told = [f"{count} x {reason}" for reason, count in reasons.most_common(_REASONS_SHOWN)]
        if len(reasons) > _REASONS_SHOWN:
            told.append(f"and {len(reasons) - _REASONS_SHOWN} other reasons")
        yield (
            f"{len(invalid)} of {len(samples)} samples are invalid and left out: {'; '.join(told)}"
        )
    valid = samples[samples["valid"]]
    untimed = valid[valid["elapsed_s"] == 0]
    tick_ms = CLOCK_TICK_S * 1000
    if len(untimed):
        yield (
            f"{len(untimed)} samples ended within one {tick_ms:.0f} ms tick of siege's clock, "
            f"cannot be timed and are left out: {_by_mode(untimed)}"
        )
    short = valid[(valid["elapsed_s"] > 0) & (valid["elapsed_s"] < SHORT_S)]
    if len(short):
        yield (
            f"{len(short)} samples lasted less than {SHORT_S} s, of which one {tick_ms:.0f} ms "
            f"tick of siege's clock is more than {CLOCK_TICK_S / SHORT_S:.0%}: {_by_mode(short)}; "
            "raise --requests"
        )
    empty = sum(not item.per_s for item in timed)
    if empty:
        yield f"{empty} of {len(timed)} cells have no sample to go by"


def _by_mode(samples: pd.DataFrame) -> str:
    counts = Counter(str(mode) for mode in samples["mode"])
    return ", ".join(f"{mode} {count}" for mode, count in counts.items())
