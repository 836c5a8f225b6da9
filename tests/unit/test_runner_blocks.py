# SPDX-License-Identifier: Apache-2.0
"""From the warm-up to the last block: what is measured in which order, what is lost, what stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recorded import raw_sample
from synthetic import tree

from bench import runner, tables, timings
from bench.cells import Cell
from bench.errors import BenchError
from bench.progress import RunProgress
from bench.rawsample import RawSample
from bench.results import RunMeta, Timing
from bench.resume import reopen
from bench.runs import RunReader
from bench.runwriter import RunWriter
from bench.sweep import Sweep, cross, order, with_twins

DATA = Path(__file__).parent / "data" / "siege"


class Played:
    """A session whose samples come from memory: 0.9 ms a connection, or what a test says."""

    def __init__(
        self,
        say: Callable[[Cell], dict[str, Any]] = lambda _: {},
        recover: Callable[[], None] = lambda: None,
    ) -> None:
        self.cells: list[Cell] = []
        self.expected_s: list[float | None] = []
        self._say = say
        self.recover = recover

    def sample(self, cell: Cell, *, expected_s: float | None = None) -> RawSample:
        """Return the next sample; what a test raises ends it before it began."""
        changes = self._say(cell)
        self.cells.append(cell)
        self.expected_s.append(expected_s)
        return raw_sample(cell, **changes)


def measuring(writer: RunWriter, sweep: Sweep, played: Played) -> runner._Measuring:
    """Return what makes the samples that a run lacks."""
    clock = runner._Clock(time.monotonic(), Timing())
    return runner._Measuring(played, sweep, writer, RunProgress(), clock)  # type: ignore[arg-type]


def begun(folder: Path, sweep: Sweep) -> RunWriter:
    """Make a run's directory."""
    return RunWriter.create(folder, RunMeta(sweep))


SWEEP = with_twins(Sweep(cross(("direct", "nft"), (), (1, 2), (624,), (1,), 0), 3, 42))


def test_a_run_from_warm_up_to_its_last_block(tmp_path: Path) -> None:
    writer, played = begun(tmp_path, SWEEP), Played()
    work = measuring(writer, SWEEP, played)
    work.warm_up()
    work.blocks(None)
    writer.finish("complete")
    run = RunReader.open(writer.path, tmp_path)
    assert len(SWEEP.cells) == 4
    frame = run.samples
    assert frame["valid"].all()
    assert frame["sample"].tolist() == [
        f"{block:03d}-{position:04d}" for block in range(4) for position in range(1, 5)
    ]
    assert frame["warmup"].tolist() == [True] * 4 + [False] * 12
    for block in range(4):
        here = frame[frame["block"] == block]
        assert here["hops"].tolist() == [cell.hops for cell in order(SWEEP, block)]
        assert here["twin"].tolist() == [cell.twin for cell in order(SWEEP, block)]
    # 0.4 s of a thousand connections a second, which none but the warm-up is without.
    assert {cell.requests for cell in run.cells} == {400}
    assert frame["requests"].tolist() == [200] * 4 + [400] * 12
    assert [(cell.key, cell.transactions) for cell in played.cells[4:]] == [
        (cell.key, 400) for block in (1, 2, 3) for cell in order(SWEEP, block)
    ]
    found = timings.of_samples(run.path)
    assert found["connections"].tolist() == frame["timed"].tolist()
    assert found["response_us_median"].tolist() == [900.0] * 16
    counted = tables.read_counters(run.path)
    assert counted.groupby("sample").size().to_dict() == {
        row.sample: 2 + row.hops for row in frame.itertuples()
    }
    forwarded = counted[counted["role"] == "hop"]
    assert set(forwarded["forwarder_flows_opened"]) == {200.0, 400.0}


def test_how_long_a_sample_may_be_left_alone(tmp_path: Path) -> None:
    """Nobody knows of a warm-up; then it is as long as the warm-up says, or as one was before."""
    writer, long = begun(tmp_path, SWEEP), iter((0.1,) * 4 + (0.3, 0.5, 0.7, 0.9) + (0.1,) * 8)
    played = Played(lambda _: {"wall_s": next(long)})
    work = measuring(writer, SWEEP, played)
    work.warm_up()
    work.blocks(None)
    assert played.expected_s[:4] == [None] * 4
    assert played.expected_s[4:8] == pytest.approx([0.4] * 4, rel=1e-3)
    took = dict(zip([cell.key for cell in order(SWEEP, 1)], (0.4, 0.5, 0.7, 0.9), strict=True))
    for block in (2, 3):
        place = 4 * block
        expected = [took[cell.key] for cell in order(SWEEP, block)]
        assert played.expected_s[place : place + 4] == pytest.approx(expected, rel=1e-3)


def lost_at(*places: int) -> Callable[[Cell], dict[str, Any]]:
    """Return what says that the samples at these places come to nothing, warm-ups counted."""
    numbers = iter(range(1000))

    def say(_: Cell) -> dict[str, Any]:
        if next(numbers) in places:
            raise BenchError("socat has ended", host="hop1")
        return {}

    return say


def test_a_sample_that_comes_to_nothing_has_its_cause_and_the_run_goes_on(tmp_path: Path) -> None:
    recovered: list[bool] = []
    writer = begun(tmp_path, SWEEP)
    work = measuring(writer, SWEEP, Played(lost_at(2, 6), lambda: recovered.append(True)))
    work.warm_up()
    work.blocks(None)
    writer.finish("complete")
    frame = RunReader.open(writer.path, tmp_path).samples
    assert len(frame) == 16
    assert frame[~frame["valid"]]["sample"].tolist() == ["000-0003", "001-0003"]
    assert frame[~frame["valid"]]["invalid_reason"].tolist() == ["hop1: socat has ended"] * 2
    assert len(recovered) == 2
    # What a run lacks is made when it is resumed.
    assert reopen(str(writer.path), tmp_path).lacks == 1


def test_three_in_a_row_that_come_to_nothing_end_the_run(tmp_path: Path) -> None:
    work = measuring(begun(tmp_path, SWEEP), SWEEP, Played(lost_at(*range(5, 99))))
    work.warm_up()
    with pytest.raises(BenchError, match="hop1: socat has ended"):
        work.blocks(None)


def test_hosts_that_cannot_go_on_end_the_run_with_the_first_cause(tmp_path: Path) -> None:
    def recover() -> None:
        raise BenchError("SSH: connection lost", host="hop1")

    writer = begun(tmp_path, SWEEP)
    work = measuring(writer, SWEEP, Played(lost_at(5), recover))
    work.warm_up()
    with pytest.raises(BenchError, match="hop1: socat has ended"):
        work.blocks(None)
    writer.finish("failed")
    assert len(RunReader.open(writer.path, tmp_path).samples) == 6


def test_requests_that_were_asked_for_stay(tmp_path: Path) -> None:
    sweep = Sweep((Cell("direct", "", 0, 624, 1, 1000), Cell("direct", "", 0, 624, 5, 30)), 1, 7)
    writer, played = begun(tmp_path, sweep), Played()
    work = measuring(writer, sweep, played)
    work.warm_up()
    work.blocks(None)
    assert sorted(cell.requests for cell in played.cells) == [30, 30, 200, 1000]
    assert RunReader.open(writer.path, tmp_path).cells == sweep.cells


@pytest.mark.parametrize(
    ("changes", "requests"),
    [
        ({}, 400),
        # By siege's own time where nothing was timed: 200 in half a second.
        ({"timer": False}, 160),
        ({"timed": None, "lost": None, "records": b""}, 160),
        ({"timer": False, "wall_s": 0.0}, 100),
        ({"timer": False, "wall_s": 20.0, "timed_out": True}, 100),
    ],
)
def test_what_a_warm_up_finds_out(tmp_path: Path, changes: dict[str, Any], requests: int) -> None:
    sweep = Sweep((Cell("direct", "", 0, 624, 1, 0),), 1, 7)
    writer = begun(tmp_path, sweep)
    measuring(writer, sweep, Played(lambda _: changes)).warm_up()
    (cell,) = json.loads((writer.path / "run.json").read_text())["sweep"]["cells"]
    assert cell["requests"] == requests


def test_a_sample_that_is_not_whole_says_so_and_the_run_goes_on(tmp_path: Path) -> None:
    """What its connections brought is not known then."""
    sweep = Sweep((Cell("direct", "", 0, 624, 1, 300),), 2, 7)
    short = (DATA / "short.txt").read_text()
    seen = iter([{}, {"stdout": short}, {}])
    writer = begun(tmp_path, sweep)
    work = measuring(writer, sweep, Played(lambda _: next(seen)))
    work.warm_up()
    work.blocks(None)
    run = RunReader.open(writer.path, tmp_path)
    assert run.samples["valid"].tolist() == [True, False, True]
    assert run.samples["invalid_reason"][1] == "5 of 300 transactions were made"
    sizes = tables.read_connections(run.path).to_pandas().groupby("sample", observed=True)["bytes"]
    assert sizes.count().to_dict() == {"000-0001": 200, "001-0001": 0, "002-0001": 300}


@pytest.mark.parametrize("measured", [0, 3, 4, 11])
def test_a_run_goes_on_where_it_stopped(tmp_path: Path, measured: int) -> None:
    """The order is that of a run nobody interrupted, and nothing is measured twice."""

    def stop(_: Cell) -> dict[str, Any]:
        if len(first.cells) == 4 + measured:
            raise KeyboardInterrupt
        return {}

    whole = begun(tmp_path / "whole", SWEEP)
    work = measuring(whole, SWEEP, Played())
    work.warm_up()
    work.blocks(None)

    first, second = Played(stop), Played()
    writer = begun(tmp_path, SWEEP)
    work = measuring(writer, SWEEP, first)
    with pytest.raises(KeyboardInterrupt):
        work.warm_up()
        work.blocks(None)
    writer.finish("interrupted")
    before = tree(writer.path)

    resumed = reopen(writer.run_id, tmp_path)
    assert resumed.lacks == 12 - measured
    resumed.begin((), None)
    work = measuring(resumed.writer, resumed.sweep, second)
    work.warm_up()
    work.blocks(None)
    resumed.writer.finish("complete")
    assert (first.cells[4:] + second.cells[4:]) == [
        replace(cell, requests=400) for block in (1, 2, 3) for cell in order(SWEEP, block)
    ]
    run, as_one = (RunReader.open(path, tmp_path) for path in (writer.path, whole.path))
    warm = run.samples["warmup"]
    assert warm.sum() == 8
    columns = [name for name in run.samples.columns if name != "started_at"]
    assert (
        run.samples[~warm][columns]
        .reset_index(drop=True)
        .equals(as_one.samples[~as_one.samples["warmup"]][columns].reset_index(drop=True))
    )
    assert run.meta["order"] == as_one.meta["order"]
    after = tree(writer.path)
    kept = {name for name in before if name.startswith("raw/siege/")}
    assert {name: before[name] for name in kept}.items() <= after.items()
    assert len(timings.of_samples(writer.path)) == 12 + 8


def test_blocks_are_added_until_there_are_enough(tmp_path: Path) -> None:
    sweep = Sweep((Cell("direct", "", 0, 624, 1, 100), Cell("nft", "", 1, 624, 1, 100)), 2, 7)
    asked: list[int] = []

    def enough(path: Path) -> bool:
        run = RunReader.open(path, tmp_path)
        asked.append(run.meta["sweep"]["blocks"])
        assert len(run.samples) == 2 + 2 * asked[-1]
        assert len(run.meta["order"]) == asked[-1]
        return asked[-1] == 5

    writer = begun(tmp_path, sweep)
    played = Played()
    work = measuring(writer, sweep, played)
    work.warm_up()
    work.blocks(enough)
    assert asked == [2, 3, 4, 5]
    assert played.cells[2:] == [cell for block in range(1, 6) for cell in order(sweep, block)]


def test_what_is_written_when_the_disk_objects(tmp_path: Path) -> None:
    """The sample that could not be kept is not in the run, and the next attempt makes it."""
    sweep = Sweep((Cell("direct", "", 0, 624, 1, 100),), 2, 7)
    writer, played = begun(tmp_path, sweep), Played()
    work = measuring(writer, sweep, played)
    work.warm_up()
    (writer.path / "raw" / "counters" / "001-0001.json").mkdir()
    with pytest.raises(BenchError, match="cannot write"):
        work.blocks(None)
    assert writer.sample_ids == {"000-0001"}
    (writer.path / "raw" / "counters" / "001-0001.json").rmdir()
    work.blocks(None)
    assert writer.sample_ids == {"000-0001", "001-0001", "002-0001"}
    assert timings.of_samples(writer.path)["connections"].tolist() == [100, 100, 100]
