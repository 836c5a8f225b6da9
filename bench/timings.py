# SPDX-License-Identifier: Apache-2.0
"""What single connections say of each sample: their number, quantiles, and its true length."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench import tables
from bench.files import replace_atomic

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99}
METRICS = ("connect_us", "response_us")

COLUMNS = (
    "connections",
    "failed",
    *(f"{metric}_{name}" for metric in METRICS for name in QUANTILES),
    "span_s",
)

SUMMARY_FILE = "timings.parquet"
"""What `of_samples` returns, of a run whose single connections were not kept."""


def known(run: Path) -> bool:
    """Whether the run has times of single connections, or what they came to in each sample."""
    return tables.has_connections(run) or (run / SUMMARY_FILE).exists()


def summarise(run: Path, folder: Path) -> None:
    """Write what the connections of a run come to in each sample into another folder."""
    replace_atomic(folder / SUMMARY_FILE, of_samples(run).to_parquet)


def of_samples(run: Path) -> pd.DataFrame:
    """Return a row a sample, by its id, with the columns COLUMNS.

    connections: all that were begun; failed: those of them that were never established. Quantiles
    are over the established ones, interpolated linearly (type 7 of R. J. Hyndman and Y. Fan, The
    American Statistician 50, 1996, 361-365; numpy's own), NaN where there are none. span_s: from
    the first SYN to the last response. Takes a second and 400 MB for five million connections.
    Raises BenchError for a damaged file.
    """
    import pandas as pd

    if not tables.has_connections(run) and (run / SUMMARY_FILE).exists():
        return _read_summary(run / SUMMARY_FILE)
    table = tables.read_connections(run, ("sample", "start_s", *METRICS))
    words = table["sample"].combine_chunks()
    codes = words.indices.to_numpy() if len(words) else np.empty(0, np.int32)
    start_s = _floats(table["start_s"])
    times = {metric: _floats(table[metric]) for metric in METRICS}
    del table
    # Mostly in order already, a sample after the other.
    order = np.argsort(codes, kind="stable")
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    found, names = [], []
    for rows in np.split(order, edges) if len(order) else []:
        names.append(str(words.dictionary[int(codes[rows[0]])]))
        found.append(_row(start_s[rows], {metric: each[rows] for metric, each in times.items()}))
    return pd.DataFrame(found, index=pd.Index(names, dtype="str", name="sample"), columns=COLUMNS)


def _read_summary(file: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        found = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise tables.damaged(file, error) from error
    if list(found.columns) != list(COLUMNS) or found.index.name != "sample":
        raise tables.damaged(file, "its columns are not those of this schema")
    return found


def _floats(column: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values: np.ndarray[tuple[int], np.dtype[np.float64]] = column.to_numpy()  # type: ignore[attr-defined]
    return values


def _row(
    start_s: np.ndarray[tuple[int], np.dtype[np.float64]],
    times: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]],
) -> dict[str, float]:
    ended = ~np.isnan(times["response_us"])
    row: dict[str, float] = {"connections": len(start_s), "failed": int((~ended).sum())}
    for metric, values in times.items():
        known = values[~np.isnan(values)]
        cuts = np.quantile(known, list(QUANTILES.values())) if len(known) else [np.nan] * 3
        row |= {f"{metric}_{name}": float(cut) for name, cut in zip(QUANTILES, cuts, strict=True)}
    last_s = start_s[ended] + times["response_us"][ended] / 1e6
    row["span_s"] = float(last_s.max() - start_s.min()) if len(last_s) else np.nan
    return row
