# SPDX-License-Identifier: Apache-2.0
"""A run's comparison as frames that can be drawn, and words for what they rest on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.report.figure import clean
from bench.report.panels import name
from bench.report.style import ranked
from bench.sentences import counted

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]

PLACE = ("label", "hops", "size_bytes", "concurrency")
METRICS = {
    "response_us": ("response", "us"),
    "transactions_per_s": ("transactions", "per_s"),
    "throughput_mbps": ("throughput", "mbps"),
}


def cells(comparison: Record) -> pd.DataFrame:
    """Return a row a cell that has figures: its place, n, and each metric with its interval.

    A metric's columns are `response_us`, `response_lo_us`, `response_hi_us` and so on; an end that
    is not known is NaN.
    """
    import pandas as pd

    rows = []
    for cell in comparison["cells"]:
        if cell["response_us"]["median"] is None:
            continue
        row = {key: cell[key] for key in PLACE} | {"n": cell["samples"]}
        for metric, (word, unit) in METRICS.items():
            low, high = cell[metric]["ci95"] or (math.nan, math.nan)
            middle = cell[metric]["median"]
            row[f"{word}_{unit}"] = math.nan if middle is None else middle
            row |= {f"{word}_lo_{unit}": low, f"{word}_hi_{unit}": high}
        rows.append(row)
    columns = [*PLACE, "n"]
    for word, unit in METRICS.values():
        columns += [f"{word}_{unit}", f"{word}_lo_{unit}", f"{word}_hi_{unit}"]
    found = pd.DataFrame(rows, columns=columns)
    return _in_order(found)


def costs(comparison: Record) -> pd.DataFrame:
    """Return a row a mode, size and concurrency: what a hop adds to the response time, in µs."""
    import pandas as pd

    rows = []
    for line in comparison["per_hop"]:
        if line["metric"] == "response_us":
            low, high = line["ci95"] or (math.nan, math.nan)
            hops = " ".join(map(str, line["hops"]))
            place = (line["label"], line["size_bytes"], line["concurrency"])
            rows.append((*place, line["slope_us"], low, high, line["blocks"], hops))
    columns = ["label", "size_bytes", "concurrency", "slope_us", "lo_us", "hi_us", "n", "hops"]
    return _in_order(pd.DataFrame(rows, columns=columns))


def one_by_one(frame: pd.DataFrame) -> int:
    """Return the concurrency that plots of times are drawn at: 1, or the lowest there is."""
    return int(frame["concurrency"].min()) if len(frame) else 1


def distinct(frame: pd.DataFrame, column: str) -> list[int]:
    """Return the different whole numbers of a column, ascending."""
    return sorted({int(each) for each in frame[column]})


def n_words(n: Iterable[float], ends: Iterable[float], of: str = "sample") -> str:
    """Return what medians and their intervals rest on, as a sentence of a caption."""
    counts = [int(each) for each in n]
    low, high = min(counts), max(counts)
    each = counted(low, of) if low == high else f"{low} to {high} {of}s"
    missing = [math.isnan(end) for end in ends]
    said = f"Median of n = {each}"
    if all(missing):
        return f"{said}: an interval takes 6."
    some = " where there are 6 or more" if any(missing) else ""
    return f"{said}, with its 95 % interval{some}."


def at_a_time(concurrency: int) -> str:
    """Return the words for a concurrency."""
    return f"{counted(concurrency, 'connection')} at a time"


def left_out(everything: Sequence[int], shown: Sequence[int], what: str) -> str:
    """Return a sentence that says which values are not drawn, empty where all are."""
    missing = [each for each in everything if each not in set(shown)]
    if not missing:
        return ""
    told = ", ".join(f"{each:,}" for each in missing[:8]) + (" …" if len(missing) > 8 else "")
    return f" Drawn are {len(shown)} of {len(everything)} {what}, without {told}."


def listed(parts: Sequence[str], most: int = 16) -> str:
    """Return phrases as one text, the first so many of them."""
    return "; ".join(parts[:most]) + ("; and so on" if len(parts) > most else "")


def by_label(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return each mode with its rows, in the order of legends."""
    return [(label, frame[frame["label"] == label]) for label in ranked(frame["label"])]


def names(frame: pd.DataFrame) -> list[str]:
    """Return the names of a frame's modes, in the order of legends."""
    return [name(label) for label in ranked(frame["label"])]


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    # Others read a label where it stands: in a CSV, too, it is nothing but text.
    frame["label"] = frame["label"].map(clean)
    order = {label: place for place, label in enumerate(ranked(frame["label"]))}
    keys = [key for key in ("concurrency", "size_bytes", "label", "hops") if key in frame]
    return frame.sort_values(
        keys, key=lambda column: column.map(order) if column.name == "label" else column
    ).reset_index(drop=True)
