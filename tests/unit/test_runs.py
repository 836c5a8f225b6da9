# SPDX-License-Identifier: Apache-2.0
"""Run directories as they are read: found, checked, listed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import START, sample, write_run

from bench.cells import Cell
from bench.errors import BenchError
from bench.results import COLUMNS, Sample
from bench.runs import RunReader, find_run, list_runs

CELLS = (Cell("direct", "", 0, 624, 1, 100), Cell("xdp", "native", 3, 624, 25, 110))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run of two blocks, the last sample of which has no report."""

    def took(cell: Cell, block: int) -> float | Sample:
        lost = Sample(cell, block, 2, START, None, "killed, after 60 s")
        return lost if (cell.mode, block) == ("xdp", 2) else 0.25 * block

    return write_run(tmp_path / "results", CELLS, took, blocks=2)


def test_what_was_written_is_read(run: Path) -> None:
    reader = RunReader.open(run, Path("nowhere"))
    assert reader.run_id == run.name
    assert reader.cells == CELLS
    frame = reader.samples
    assert list(frame.columns) == list(COLUMNS)
    assert frame["sample"].tolist() == ["001-0001", "001-0002", "002-0001", "002-0002"]
    assert frame["attach"].tolist() == ["", "native", "", "native"]
    assert frame["elapsed_s"].tolist()[:3] == [0.25, 0.25, 0.5]
    assert frame["transactions"].isna().tolist() == [False, False, False, True]
    assert frame["valid"].tolist() == [True, True, True, False]
    assert frame["invalid_reason"].tolist()[-1] == "killed, after 60 s"


@pytest.mark.parametrize("blocks", [1, 2])
def test_dtypes_do_not_depend_on_the_data(tmp_path: Path, blocks: int) -> None:
    full = write_run(tmp_path, CELLS, lambda *_: 1.0, blocks=blocks)
    lost = write_run(tmp_path, CELLS, lambda cell, b: Sample(cell, b, cell.hops, START, None))
    empty = write_run(tmp_path, (), lambda *_: 1.0)
    want = {
        "text": pd.StringDtype(),
        "whole": "int64",
        "count": "Int64",
        "figure": "float64",
        "flag": "bool",
    }
    for path in (full, lost, empty):
        dtypes = RunReader.open(path, tmp_path).samples.dtypes
        for column, kind in COLUMNS.items():
            assert dtypes[column] == want[kind], column


def test_ways_to_name_a_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = run.parent
    monkeypatch.chdir(results.parent)
    for reference in (run, str(run), run.name, "latest", f"results/{run.name}", f"{run}/"):
        assert find_run(reference, results).resolve() == run
    shutil.move(run, "elsewhere")
    assert find_run("elsewhere", results) == Path("elsewhere")
    assert RunReader.open("./elsewhere", results).run_id == run.name


@pytest.mark.parametrize(
    "reference",
    ["nothing", "", ".", "..", "../results", "a/../../b", "a\0b", "x" * 5000, "~", "*", "\x1b[31m"],
)
def test_names_of_no_run(run: Path, reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    with pytest.raises(BenchError) as caught:
        RunReader.open(reference, run.parent)
    line = caught.value.one_line()
    assert line.isprintable()
    assert len(line) < 400
    assert caught.value.exit_code == 1


def test_an_id_never_leaves_the_results_folder(tmp_path: Path, run: Path) -> None:
    """`../results/RUN` is a path below the working directory, not below the results folder."""
    with pytest.raises(BenchError, match="there is no run"):
        RunReader.open(f"../results/{run.name}", tmp_path / "results")


def test_latest_goes_by_the_runs_own_record(tmp_path: Path) -> None:
    newest = write_run(tmp_path, CELLS, lambda *_: 1.0, now=START + timedelta(days=2))
    write_run(tmp_path, CELLS, lambda *_: 1.0, now=START + timedelta(days=1))
    broken = write_run(tmp_path, CELLS, lambda *_: 1.0, now=START + timedelta(days=3))
    (broken / "samples.csv").unlink()
    os.utime(newest, (0, 0))
    renamed = newest.rename(tmp_path / "a-reference")
    assert find_run("latest", tmp_path) == renamed


def test_no_latest(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BenchError, match=r"there is no run in .* \(make one with bench run\)"):
            find_run("latest", folder)


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a run's run.json."""
    document = json.loads((run / "run.json").read_text())
    change(document)
    (run / "run.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema_version=3), "upgrade hopbench"),
        (lambda d: d.update(schema_version=3), "schema 3 and this hopbench reads up to 2"),
        (lambda d: d.update(schema_version="1"), "it has no schema_version"),
        (lambda d: d.pop("schema_version"), "it has no schema_version"),
        (lambda d: d.pop("sweep"), "sweep is missing or of the wrong kind"),
        (lambda d: d.update(seed=True), "seed is missing or of the wrong kind"),
        (lambda d: d.update(seed=1.5), "seed is missing or of the wrong kind"),
        (lambda d: d.update(status="done"), "its status is unknown"),
        (lambda d: d.update(started_at="yesterday"), "started_at is not a time"),
        (lambda d: d.update(started_at="2026-11-23T03:15:00"), "started_at is not a time"),
        (lambda d: d.update(notes=[1]), "notes must be texts"),
        (lambda d: d.update(timing={"ready_s": "soon"}), "timing must be numbers"),
        (lambda d: d.update(timing={"ready_s": float("nan")}), "NaN is not a number"),
        (lambda d: d.update(order=[1]), "order is not lists"),
        (lambda d: d["sweep"].pop("blocks"), "sweep.blocks is not a whole number"),
        (lambda d: d["sweep"].update(cells={}), "sweep.cells are not cells"),
        (lambda d: d["sweep"]["cells"][0].pop("hops"), "sweep.cells are not cells"),
        (lambda d: d["sweep"]["cells"][0].update(hops="1"), "sweep.cells are not cells"),
        (lambda d: d["sweep"]["cells"][0].update(concurrency=0), "sweep.cells are not cells"),
        (lambda d: d["sweep"]["cells"].pop(), "001-0002 is of no cell of the sweep"),
    ],
)
def test_strange_run_json(run: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    edit(run, change)
    with pytest.raises(BenchError) as caught:
        RunReader.open(run, run.parent)
    assert said in caught.value.one_line()
    assert str(run) in caught.value.one_line()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"1", b"null", b"\xff", b"[" * 100_000, b'{"schema_version": 1}'],
)
def test_damaged_run_json(run: Path, content: bytes) -> None:
    (run / "run.json").write_bytes(content)
    with pytest.raises(BenchError) as caught:
        RunReader.open(run, run.parent)
    assert len(caught.value.one_line()) < 400


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sample,", "samples,", "its columns are not those of this schema"),
        ("sample,block", "block,sample", "its columns are not those of this schema"),
        ("invalid_reason", "invalid_reason,more", "its columns are not those of this schema"),
        ("001-0001,1,", "001-0001,1,1,", "row 1 has 31 fields instead of 30"),
        ("001-0001,1,", "001-0001,one,", "row 1, block: 'one' is not a whole number"),
        ("001-0001,1,", "001-0001,,", "row 1, block: '' is not a whole number"),
        ("001-0001", "001-0002", "a sample appears twice"),
        (",0.25,", ",inf,", "row 1, elapsed_s: 'inf' is not a figure"),
        (",0.25,", ",1e999,", "row 1, elapsed_s: '1e999' is not finite"),
        (",0.25,", ",-1,", "row 1, elapsed_s: '-1' is not a figure"),
        (",0.25,", ",,", "row 1 is a valid sample without siege's report"),
        (",true,", ",True,", "row 1, valid: 'True' is neither true nor false"),
        ("direct", "socat", "001-0001 is of no cell of the sweep"),
        ("direct", '"direct', "is damaged"),
        ("direct", "d" * 200_000, "is damaged"),
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


def test_files_that_are_something_else(run: Path) -> None:
    for name, said in (("samples.csv", "has no samples.csv"), ("run.json", "has no run.json")):
        (run / name).unlink()
        os.mkfifo(run / name)
        with pytest.raises(BenchError, match=said):
            RunReader.open(run, run.parent)


def test_the_list_shows_broken_runs_and_goes_on(run: Path) -> None:
    results = run.parent
    later = START + timedelta(days=1)
    unfinished = write_run(
        results, CELLS, lambda *_: 1.0, blocks=1, warmups=True, status="running", now=later
    )
    (results / "empty").mkdir()
    (results / ".hidden").mkdir()
    (results / "a-file").write_text("")
    newer = results / "newer"
    shutil.copytree(run, newer)
    edit(newer, lambda document: document.update(schema_version=9))
    entries = list_runs(results)
    assert [(entry.path, entry.status) for entry in entries] == [
        (results / "empty", "broken"),
        (newer, "broken"),
        (run, "complete"),
        (unfinished, "running"),
    ]
    assert "no run.json" in entries[0].problem
    assert "schema 9" in entries[1].problem
    known = entries[2]
    assert (known.modes, known.cells, known.blocks) == (("direct", "xdp"), 2, 2)
    assert (known.samples, known.invalid, known.problem) == (4, 1, "")
    # Warm-ups are no samples of the sweep.
    assert (entries[3].samples, entries[3].blocks) == (2, 1)


def test_a_list_of_nothing(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot read"):
        list_runs(tmp_path / "file")


def test_a_run_without_a_sample_can_be_read(tmp_path: Path) -> None:
    path = write_run(tmp_path, CELLS, lambda *_: sample(CELLS[0]), blocks=0)
    assert len(RunReader.open(path, tmp_path).samples) == 0
