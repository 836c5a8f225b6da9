# SPDX-License-Identifier: Apache-2.0
"""What each cell took, in the report's quantity: seconds for 100 requests, one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench import stats, timings
from bench.reproduce import seed
from bench.reproduce.plan import LEGACY_MODES
from bench.runs import RunReader

if TYPE_CHECKING:
    import pandas as pd

REPORT, LOOPBACK, CHAIN = "report", "loopback", "chain"
PARTS = (REPORT, LOOPBACK, CHAIN)
REQUESTS = seed.REQUESTS

COLUMNS = (
    "part",
    "mode",
    "forwarders",
    "size_bytes",
    "elapsed_s",
    "lo_s",
    "hi_s",
    "n",
    "siege_s",
    "asked",
    "made",
    "done",
    "failed",
    "per_100_s",
    "problem",
)
"""A row a cell. part: one of PARTS. elapsed_s: what `made` requests took, with its 95 % interval
from lo_s to hi_s over n samples where there are enough; NaN where nothing can be said, `problem`
saying why. siege_s: the same by siege's own clock of 10 ms. asked, made: requests that were wanted
and that siege got to; done, failed: those answered and not. per_100_s: elapsed_s at 100 requests
made, which is a forecast where `made` is another number."""


def frame(
    loopback: RunReader | None, chain: RunReader | None, report: pd.DataFrame
) -> pd.DataFrame:
    """Return the cells of the report and of both runs, those of a missing run left out."""
    import pandas as pd

    rows = [_of_report(row) for row in report.to_dict("records")]
    for part, run in ((LOOPBACK, loopback), (CHAIN, chain)):
        if run is not None:
            rows += _of_run(part, run)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_report(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        **_empty(REPORT, row["mode"], row["forwarders"], row["size_bytes"]),
        "elapsed_s": row["elapsed_s"],
        "n": 1,
        "siege_s": row["elapsed_s"],
        "asked": REQUESTS,
        "made": REQUESTS,
        "per_100_s": row["elapsed_s"],
    }


def _empty(part: str, mode: str, forwarders: int, size_bytes: int) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    counts = dict.fromkeys(("n", "asked", "made", "done", "failed"), 0)
    names = {"part": part, "mode": mode, "forwarders": forwarders, "size_bytes": size_bytes}
    return {**values, **counts, **names, "problem": ""}


def _of_run(part: str, run: RunReader) -> list[dict[str, Any]]:
    samples = run.samples[~run.samples["warmup"] & ~run.samples["twin"]]
    samples = samples[samples["concurrency"] == 1]
    counted = _counted(run)
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    ways: dict[tuple[str, int, int], tuple[str, str]] = {}
    for row in samples.to_dict("records"):
        key = (str(row["mode"]), int(row["hops"]), int(row["size_bytes"]))
        # This experiment has one way to attach and one set of offloads a mode: the first there is.
        way = (str(row["attach"]), str(row["offloads"]))
        if ways.setdefault(key, way) == way:
            found.setdefault(key, []).append(_sample(row, counted.get(str(row["sample"]))))
    return [_cell(part, key, each) for key, each in found.items()]


def _counted(run: RunReader) -> dict[str, dict[str, float]]:
    """Return what connection times say of each sample, by its id; empty without any."""
    if not timings.known(run.path):
        return {}
    found = timings.of_samples(run.path).to_dict("index")
    return {str(sample): {str(k): v for k, v in row.items()} for sample, row in found.items()}


def _sample(row: Mapping[Any, Any], times: Mapping[str, float] | None) -> dict[str, Any]:
    """Return what a sample made, and how long it took by the best clock there is."""
    done, failed = (_whole(row[name]) for name in ("transactions", "failed"))
    reported = _number(row["elapsed_s"]) is not None
    if not reported and times:  # siege was cut off, the kernel had seen what it did
        failed = int(times["failed"])
        done = int(times["connections"]) - failed
    siege_s, span_s = _number(row["elapsed_s"]), times and _number(times["span_s"])
    smooth = bool(row["valid"]) and not failed
    # From the first SYN to the last response says nothing of failures after that.
    elapsed_s = span_s if smooth and span_s else siege_s or (_number(row["wall_s"]) or None)
    return {
        "valid": bool(row["valid"]),
        "reason": str(row["invalid_reason"]),
        "asked": int(row["requests"]),
        "done": done,
        "failed": failed,
        "elapsed_s": elapsed_s,
        "siege_s": siege_s,
    }


def _cell(
    part: str, key: tuple[str, int, int], samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    mode, forwarders, size_bytes = key
    empty = _empty(part, mode, forwarders, size_bytes)
    usable = [
        each
        for each in samples
        # Of the report's filter failures are what is to be seen; elsewhere they disqualify.
        if (each["valid"] or mode in LEGACY_MODES)
        and each["elapsed_s"]
        and each["done"] + each["failed"] > 0
    ]
    if not usable:
        counts = {name: sum(each[name] for each in samples) for name in ("asked", "done", "failed")}
        made = counts["done"] + counts["failed"]
        return {**empty, **counts, "made": made, "problem": _problem(samples)}
    if all(each["done"] + each["failed"] == REQUESTS for each in usable):
        taken_s = [float(each["elapsed_s"]) for each in usable]
        middle = sorted(usable, key=lambda each: each["elapsed_s"])[(len(usable) - 1) // 2]
        low, high = stats.bootstrap_median(taken_s) or (math.nan, math.nan)
        known = {"elapsed_s": stats.median(taken_s), "lo_s": low, "hi_s": high}
        counts = {name: middle[name] for name in ("asked", "done", "failed")}
    else:  # samples of other lengths have no common median: what they did in all
        known = {"elapsed_s": sum(float(each["elapsed_s"]) for each in usable)}
        counts = {name: sum(each[name] for each in usable) for name in ("asked", "done", "failed")}
    made = counts["done"] + counts["failed"]
    by_siege = [each["siege_s"] for each in usable if each["siege_s"] is not None]
    return {
        **empty,
        **known,
        **counts,
        "n": len(usable),
        "siege_s": stats.median(by_siege) if by_siege else math.nan,
        "made": made,
        "per_100_s": float(known["elapsed_s"] or 0) * REQUESTS / made,
    }


def _problem(samples: Sequence[Mapping[str, Any]]) -> str:
    reasons = dict.fromkeys(each["reason"] for each in samples if each["reason"])
    return "no valid sample: " + (next(iter(reasons), "") or "nothing was measured")


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):  # pandas' NA
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int:
    number = _number(value)
    return 0 if number is None else int(number)
