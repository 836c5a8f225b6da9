# SPDX-License-Identifier: Apache-2.0
"""The spread of a run's connections as a file, for a run whose single connections were not kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import tables, timings
from bench.files import replace_atomic
from bench.report.spread import CELLS, PLACE, SAMPLES, Spread, places, six, spread_of
from bench.runs import RunReader

SPREAD_FILE = "spread.parquet"
"""A row a cell: what `Spread.cells` has, and its curve as `shares` and `response_us`, two lists."""

_CURVE = ("shares", "response_us")
_WHOLE = (*PLACE[1:], "samples", "connections")
_TYPES: dict[str, Any] = dict.fromkeys(CELLS[1:], float) | dict.fromkeys(_WHOLE, int)


def keep(run: RunReader, folder: Path) -> None:
    """Write how a run's connections spread into another folder, which has its timings.parquet.

    Raises BenchError for a damaged run.
    """
    found = spread_of(run)
    curves = [found.curves[place] for place in range(len(found.cells))]
    frame = found.cells.copy()
    for at, name in enumerate(_CURVE):
        frame[name] = [each[at].tolist() for each in curves]
    replace_atomic(folder / SPREAD_FILE, lambda path: frame.to_parquet(path, index=False))


def read(run: RunReader) -> Spread:
    """Return the spread of a run's connections, which may be kept as they are or as a file.

    Empty for a run without either. Raises BenchError for damaged files.
    """
    import pandas as pd

    file = run.path / SPREAD_FILE
    if tables.has_connections(run.path) or not file.exists():
        return spread_of(run)
    try:
        frame = pd.read_parquet(file)
        if list(frame.columns) != [*CELLS, *_CURVE]:
            raise ValueError("its columns are not those of this schema")
        curves = dict(enumerate(map(_curve, frame[list(_CURVE)].to_dict("records"))))
        cells = frame[list(CELLS)].astype(_TYPES)
    except (OSError, ValueError, TypeError) as error:
        raise tables.damaged(file, error) from error
    return Spread(cells, _samples(run), curves)


def _curve(row: Mapping[Any, Any]) -> tuple[Any, Any]:
    shares, times_us = (np.asarray(row[name], np.float64) for name in _CURVE)
    if len(shares) != len(times_us) or not len(shares) or shares.ndim != 1:
        raise ValueError("a curve has no points, or shares without times")
    return shares, times_us


def _samples(run: RunReader) -> Any:
    import pandas as pd

    cell_of = places(run)
    rows = [
        (
            *cell_of[str(sample)],
            int(row["connections"] - row["failed"]),
            *(six(row[f"{metric}_median"]) for metric in timings.METRICS),
        )
        for sample, row in timings.of_samples(run.path).iterrows()
        if str(sample) in cell_of and row["connections"] > row["failed"]
    ]
    rows.sort(key=lambda row: row[: len(PLACE)])
    return pd.DataFrame(rows, columns=list(SAMPLES))
