# SPDX-License-Identifier: Apache-2.0
"""A run that was made small: its report draws the same distributions without any connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import connections, read_run, sample, write_run

from bench import tables, timings
from bench.cells import Cell
from bench.errors import BenchError
from bench.report import figures, kept
from bench.report.document import Figure, Words
from bench.report.evidence import Evidence
from bench.results import Sample
from bench.sweep import cross

DRAWN = ("distribution", "connect")


def written(tmp_path: Path) -> Path:
    """Return a run with a warm-up, a twin, failed connections and an invalid sample."""
    cells = cross(("direct", "nft"), ("native",), (1, 2), (624, 9984), (1,), 50)
    twin = replace(cells[-1], twin=True)

    def took(cell: Cell, block: int) -> float | Sample:
        if (cell, block) == (cells[0], 2):
            return replace(sample(cell, block), invalid_reason="it failed")
        return 1.0

    return write_run(
        tmp_path,
        [*cells, twin],
        took,
        blocks=3,
        warmups=True,
        connections=lambda cell, block: connections(
            300, 100.0 + 20 * cell.hops + block, spread=0.2, failed=2, seed=block
        ),
    )


def smaller(path: Path, *, spread: bool = True) -> Path:
    """Make a run small where it is."""
    timings.summarise(path, path)
    if spread:
        kept.keep(read_run(path), path)
    (path / tables.CONNECTIONS_FILE).unlink()
    return path


def drawn(path: Path) -> list[Figure]:
    """Return what is drawn of a run's connections."""
    found = figures.sections(Evidence.of(read_run(path)))
    items = [item for each in found if each.name in DRAWN for item in each.items]
    return [item for item in items if isinstance(item, Figure)]


def test_a_small_run_is_drawn_like_the_whole(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = drawn(path)
    assert [each.name for each in before] == [
        "distribution-624-1",
        "distribution-9984-1",
        "connect",
    ]
    assert drawn(smaller(path)) == before


def test_without_the_file_it_is_said_what_is_missing(tmp_path: Path) -> None:
    path = smaller(written(tmp_path), spread=False)
    found = figures.sections(Evidence.of(read_run(path)))
    said = [item for each in found if each.name in DRAWN for item in each.items]
    assert [type(each) for each in said] == [Words, Words]
    assert all("kept without its single connections" in str(each) for each in said)


def _no_curve(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="shares")


def _torn(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(shares=[np.array([0.5])] * len(frame))


def _words(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(hops="many")


@pytest.mark.parametrize("spoilt", [_no_curve, _torn, _words])
def test_a_damaged_file_is_named(
    tmp_path: Path, spoilt: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    path = smaller(written(tmp_path))
    file = path / kept.SPREAD_FILE
    spoilt(pd.read_parquet(file)).to_parquet(file)
    with pytest.raises(BenchError, match=r"spread\.parquet is damaged"):
        kept.read(read_run(path))


def test_no_parquet_at_all_is_named(tmp_path: Path) -> None:
    path = smaller(written(tmp_path))
    (path / kept.SPREAD_FILE).write_bytes(b"PAR1")
    with pytest.raises(BenchError, match=r"spread\.parquet is damaged"):
        kept.read(read_run(path))
