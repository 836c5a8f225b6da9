# SPDX-License-Identifier: Apache-2.0
"""Runs of results schema 1: read, listed and compared, as if written today without a timer.

The run below data/schema1 was written by a hopbench of that time, two blocks of two cells, the last
sample without siege's report.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import tables, timings
from bench.cells import Cell
from bench.compare import compare
from bench.errors import BenchError
from bench.results import COLUMNS
from bench.runs import RunReader, list_runs
from bench.sweep import Sweep, order

DATA = Path(__file__).parent / "data" / "schema1"
CELLS = (Cell("direct", "", 0, 624, 1, 100), Cell("xdp", "native", 3, 624, 25, 110))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a copy of the run."""
    return Path(shutil.copytree(DATA, tmp_path / "results" / "20261123-031500-0bf8"))


def test_what_it_did_not_know_is_what_was_so_then(run: Path) -> None:
    reader = RunReader.open(run, run.parent)
    assert reader.cells == CELLS
    assert all((cell.offloads, cell.twin) == ("equal", False) for cell in reader.cells)
    assert [cell.label for cell in reader.cells] == ["direct", "xdp"]
    meta = reader.meta
    assert (meta["schema_version"], meta["aa"], meta["until_ci"]) == (1, False, None)
    assert (meta["findings"], meta["changes"], meta["host_facts_after"]) == ([], [], {})
    assert meta["host_facts"] == {"client": {"kernel": "6.1"}}


def test_its_samples_have_the_columns_and_types_of_today(run: Path) -> None:
    frame = RunReader.open(run, run.parent).samples
    assert list(frame.columns) == list(COLUMNS)
    dtypes = {
        "text": pd.StringDtype(),
        "whole": "int64",
        "count": "Int64",
        "figure": "float64",
        "flag": "bool",
    }
    for column, kind in COLUMNS.items():
        assert frame[column].dtype == dtypes[kind], column
    assert frame["sample"].tolist() == ["001-0001", "001-0002", "002-0001", "002-0002"]
    assert frame["mode"].tolist() == ["xdp", "direct", "direct", "xdp"]
    assert frame["elapsed_s"].tolist()[:3] == [0.25, 0.25, 0.5]
    assert frame["valid"].tolist() == [True, True, True, False]
    assert frame["invalid_reason"].tolist()[3] == "siege was cut off, after 60 s"
    assert set(frame["offloads"]) == {"equal"}
    assert not frame["twin"].any() and not frame["warmup"].any()
    assert frame[["wall_s", "timed", "lost"]].isna().all().all()


def test_its_order_is_that_of_the_same_seed_today(run: Path) -> None:
    meta = RunReader.open(run, run.parent).meta
    sweep = Sweep(CELLS, meta["sweep"]["blocks"], meta["seed"])
    assert meta["order"] == [
        [CELLS.index(cell) for cell in order(sweep, block)] for block in (1, 2)
    ]


def test_it_has_neither_connections_nor_counters(run: Path) -> None:
    assert not tables.has_connections(run)
    assert len(timings.of_samples(run)) == 0
    assert len(tables.read_counters(run)) == 0


def test_it_is_listed(run: Path) -> None:
    (entry,) = list_runs(run.parent)
    assert (entry.run_id, entry.status, entry.problem) == (run.name, "complete", "")
    assert (entry.modes, entry.cells, entry.blocks) == (("direct", "xdp"), 2, 2)
    assert (entry.samples, entry.invalid) == (4, 1)


def test_it_is_compared(run: Path) -> None:
    found = json.loads(json.dumps(compare(RunReader.open(run, run.parent)), allow_nan=False))
    assert [(cell["label"], cell["samples"]) for cell in found["cells"]] == [
        ("direct", 2),
        ("xdp", 1),
    ]
    # Elapsed over transactions, times the concurrency.
    assert [cell["response_us"]["median"] for cell in found["cells"]] == [3750.0, 50_000.0]
    assert found["validity"]["samples"]["invalid"] == 1


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a run's run.json."""
    document = json.loads((run / "run.json").read_text())
    change(document)
    (run / "run.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("sweep"), "sweep is missing or of the wrong kind"),
        (lambda d: d.update(sweep=[]), "sweep is missing or of the wrong kind"),
        (lambda d: d["sweep"].update(cells=7), "sweep.cells are not cells"),
        (lambda d: d["sweep"].update(cells=[7]), "sweep.cells are not cells"),
        (lambda d: d["sweep"]["cells"][0].pop("hops"), "sweep.cells are not cells"),
        (lambda d: d["sweep"]["cells"][0].update(more=1), "sweep.cells are not cells"),
        (lambda d: d.update(aa="yes"), "aa is missing or of the wrong kind"),
        (lambda d: d.pop("host_facts"), "host_facts is missing or of the wrong kind"),
        (lambda d: d.update(schema_version=2), "host_facts_after is missing"),
    ],
)
def test_strange_run_json(run: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    edit(run, change)
    with pytest.raises(BenchError) as caught:
        RunReader.open(run, run.parent)
    assert said in caught.value.one_line()
    assert str(run) in caught.value.one_line()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sample,", "samples,", "its columns are not those of this schema"),
        ("attach,", "attach,offloads,", "its columns are not those of this schema"),
        (",valid", ",lost,valid", "its columns are not those of this schema"),
        ("001-0001,1,", "001-0001,1,1,", "row 1 has 25 fields instead of 24"),
        ("001-0001,1,", "001-0001,", "row 1 has 23 fields instead of 24"),
        ("001-0001,1,", "001-0001,one,", "row 1, block: 'one' is not a whole number"),
        ("001-0001", "001-0002", "a sample appears twice"),
        (",true,", ",yes,", "row 1, valid: 'yes' is neither true nor false"),
        (",0.25,", ",,", "row 1 is a valid sample without siege's report"),
        ("native", "generic", "001-0001 is of no cell of the sweep"),
    ],
)
def test_strange_samples(run: Path, old: str, new: str, said: str) -> None:
    file = run / "samples.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(BenchError) as caught:
        RunReader.open(run, run.parent)
    assert said in caught.value.one_line()
    assert str(file) in caught.value.one_line()
