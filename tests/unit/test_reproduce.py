# SPDX-License-Identifier: Apache-2.0
"""A reproduction's plan, its budgets in figures, and its record."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.cells import MODES, PAYLOAD_SIZES, Cell, parse_modes, title
from bench.errors import BenchError, UsageError
from bench.hop import load, loopback_chain
from bench.reproduce import engine, plan
from bench.reproduce.record import LOOPBACK, Reproduction, Writer, read_meta
from bench.runs import find_run, list_runs
from tests.unit.synthetic import write_run

PLANS = {"quick": plan.quick(7), "full": plan.full(7)}

# --- plans -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "most_s"), [("quick", 180), ("full", 1800)])
def test_parts_follow_each_other_within_the_time(name: str, most_s: float) -> None:
    chosen = PLANS[name]
    assert 0 < chosen.others_until_s < chosen.loopback_until_s < chosen.chain_until_s
    assert chosen.loopback_until_s - chosen.others_until_s > chosen.today_s
    # A page and the removal of the lab come after the last part.
    assert chosen.chain_until_s + chosen.grace_s < 0.95 * most_s
    assert chosen.total_s == most_s
    assert set(chosen.limits) >= {"timeout_s", "sample_s", "total_s"}


def test_the_full_form_is_the_experiment_of_the_report() -> None:
    cells = plan.loopback_sweep(PLANS["full"]).cells
    assert {cell.size_bytes for cell in cells} == {78 * 2**i for i in range(2, 16)}
    for mode in ("socat", "legacy", "xdp"):
        measured = {(c.hops, c.size_bytes) for c in cells if c.mode == mode}
        assert measured == {(k, size) for k in (1, 2, 3, 4) for size in PAYLOAD_SIZES}
    assert {cell.requests for cell in cells if cell.mode != plan.TODAY} == {100}
    assert {cell.concurrency for cell in cells} == {1}
    assert {cell.attach for cell in cells if cell.mode in ("xdp", *plan.LEGACY_MODES)} == {
        "generic"
    }


@pytest.mark.parametrize("name", PLANS)
def test_no_cell_appears_twice(name: str) -> None:
    for sweep in (plan.loopback_sweep(PLANS[name]), plan.chain_sweep(PLANS[name])):
        assert len({cell.key for cell in sweep.cells}) == len(sweep.cells)
        assert sweep.seed == 7


def test_the_chain_has_every_mode_and_xdp_in_the_driver() -> None:
    cells = plan.chain_sweep(PLANS["quick"]).cells
    assert {(cell.mode, cell.attach) for cell in cells} == {
        ("direct", ""),
        ("socat", ""),
        ("nft", ""),
        ("xdp", "native"),
    }


# --- what a slow cell gets -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "left_s", "cells_left", "pace_s", "expected"),
    [
        (100, 1000.0, 4, 0.5, 100),  # time enough
        (100, 100.0, 4, 0.5, 50),  # a quarter of the time each
        (100, 100.0, 4, None, 50),  # half a second, until it is known better
        (100, 100.0, 4, 2.5, 10),  # a slow machine
        (100, 20.0, 10, 0.5, 8),  # too little for all: some get what says something
        (100, 4.0, 1, 0.5, 8),
        (100, 3.9, 10, 0.5, 0),
        (100, 0.0, 1, 0.5, 0),
        (100, -7.0, 1, 0.5, 0),
        (5, 100.0, 1, 0.5, 5),
        (5, 4.0, 2, 0.5, 5),  # never more than asked for
    ],
)
def test_affordable(
    asked: int, left_s: float, cells_left: int, pace_s: float | None, expected: int
) -> None:
    assert plan.affordable(asked, left_s, cells_left, pace_s) == expected


@pytest.mark.parametrize("pace_s", [0.05, 0.45, 3.0])
@pytest.mark.parametrize("budget_s", [5.0, 60.0, 600.0])
def test_a_budget_is_not_overrun_by_more_than_one_cell(pace_s: float, budget_s: float) -> None:
    left_s = budget_s
    for at in range(56):
        count = plan.affordable(100, left_s, 56 - at, pace_s)
        left_s -= count * pace_s
    assert left_s > -plan.FEWEST_REQUESTS * pace_s


def legacy(size: int, hops: int, requests: int = 100) -> Cell:
    return Cell(plan.LEGACY, "generic", hops, size, 1, requests)


def test_the_smallest_and_the_largest_payload_come_first() -> None:
    cells = tuple(legacy(size, hops) for size in (312, 624, 1248, 2496) for hops in (4, 1))
    got = [(cell.size_bytes, cell.hops) for cell in plan.legacy_order(cells)]
    assert got == [
        *((312, 1), (312, 4)),
        *((2496, 1), (2496, 4)),
        *((624, 1), (624, 4)),
        *((1248, 1), (1248, 4)),
    ]


def test_requests_change_for_one_cell_and_the_order_stays() -> None:
    sweep = plan.loopback_sweep(PLANS["quick"])
    chosen = next(cell for cell in sweep.cells if cell.mode == plan.LEGACY)
    changed, cell = plan.with_requests(sweep, chosen, 13)
    assert cell == replace(chosen, requests=13)
    assert [c.key for c in changed.cells] == [c.key for c in sweep.cells]
    assert [c for c in changed.cells if c not in sweep.cells] == [cell]


def test_texts_on_what_was_cut() -> None:
    one, two = legacy(312, 1, 10), legacy(624, 4, 20)
    assert plan.few_requests_text([one], 100).startswith(
        "the 2022 filter on loopback: 10 instead of 100 requests in 1 cell,"
    )
    assert "10 to 20 instead of 100 requests in 2 cells" in plan.few_requests_text([one, two], 100)
    assert plan.left_out_text("loopback", [one]) == (
        "loopback: 1 cell was not measured for want of time (forwarders 1; sizes 312 B)"
    )
    assert "2 cells were not" in plan.left_out_text("loopback", [one, two])
    assert "forwarders 1, 4; sizes 312, 624 B" in plan.left_out_text("loopback", [two, one])
    assert plan.blocks_text("chain of hosts", 3, 10) == (
        "chain of hosts: 3 of 10 blocks for want of time"
    )


# --- time limits -----------------------------------------------------------------------------


def test_a_time_limit_ends_what_takes_longer_and_nothing_else() -> None:
    before = signal.getsignal(signal.SIGALRM)
    begin = time.monotonic()
    with engine._time_limit(0.05) as over:
        time.sleep(5)
    assert over()
    assert time.monotonic() - begin < 2
    with engine._time_limit(5) as over:
        pass
    assert not over()
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_users_interrupt_is_none_of_a_time_limit() -> None:
    with pytest.raises(KeyboardInterrupt), engine._time_limit(5):
        raise KeyboardInterrupt


# --- modes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", plan.LEGACY_MODES)
def test_the_filter_is_no_mode_of_a_run_and_has_a_title(mode: str) -> None:
    assert mode not in MODES
    with pytest.raises(UsageError):
        parse_modes([mode])
    assert title(f"{mode}/generic").startswith("the 2022 filter")
    assert mode in loopback_chain.CHAINS


def test_every_client_port_is_at_home_at_a_port_of_its_own() -> None:
    low, high = loopback_chain.CLIENT_PORTS
    assert high - low + 1 <= loopback_chain.NAT_COUNT
    last = loopback_chain.NAT_MIN + loopback_chain.MOST_FORWARDERS * loopback_chain.NAT_COUNT
    assert loopback_chain.SERVER_PORT < loopback_chain.NAT_MIN
    assert last <= low


def test_sieges_time_out_is_all_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = Path(__file__).resolve().parents[2] / "ansible" / "roles" / "client" / "files"
    shipped = role / "siegerc"
    monkeypatch.setattr(load, "RC_FILE", shipped)
    monkeypatch.setattr(load, "HOME", tmp_path)
    assert load._rc_file(0) == shipped
    before, after = shipped.read_text(), load._rc_file(4).read_text()
    assert after != before
    assert set(after.splitlines()) - set(before.splitlines()) == {"timeout = 4"}


def a_run(folder: Path) -> Path:
    cell = Cell("direct", "", 0, 312, 1, 100)
    return write_run(folder, [cell], lambda _cell, _block: 1.0, blocks=1)


# --- the record ------------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "quick": True,
    "seed": 1,
    "requests": 100,
    "sizes_bytes": [312],
    "forwarders": [1],
    "limits": {"total_s": 180.0},
    "versions": {},
    "git_commit": None,
}


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer.create(tmp_path, VALUES)


def test_a_record_is_read_as_it_was_written(writer: Writer) -> None:
    writer.cut("one")
    writer.cut("two")
    writer.note("three")
    found = Reproduction.open(writer.path)
    assert found.meta["status"] == "running"
    assert found.meta["id"] == writer.path.name
    assert writer.path.name.startswith("reproduce-2")
    assert (found.meta["cut"], found.meta["notes"]) == (["one", "two"], ["three"])
    assert (found.loopback, found.chain) == (None, None)
    writer.finish("interrupted")
    assert Reproduction.open(writer.path).meta["status"] == "interrupted"


def test_a_part_is_a_run_below(writer: Writer) -> None:
    run = a_run(writer.path / LOOPBACK)
    writer.part(LOOPBACK, run)
    found = Reproduction.open(writer.path)
    assert found.loopback is not None
    assert found.loopback.path == run
    assert found.chain is None


def test_a_part_that_was_not_begun_is_none(writer: Writer) -> None:
    writer.update(parts={"chain": "chain/20260101-000000-0000"})
    assert Reproduction.open(writer.path).chain is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 2}, "reads up to 1"),
        ({"schema_version": None}, "schema_version is unknown"),
        ({"status": "done"}, "status is unknown"),
        ({"started_at": "yesterday"}, "started_at is not a time"),
        ({"quick": 1}, "quick is missing or of the wrong kind"),
        ({"seed": True}, "seed is missing or of the wrong kind"),
        ({"sizes_bytes": ["312"]}, "sizes_bytes are not whole numbers"),
        ({"forwarders": [0]}, "forwarders are not whole numbers"),
        ({"cut": [1]}, "cut must be texts"),
        ({"limits": {"total_s": "x"}}, "limits: total_s is not a number"),
        ({"parts": {"chain": "../../elsewhere"}}, "chain is not a run of the folder's"),
        ({"parts": {"chain": "chain/.."}}, "chain is not a run of the folder's"),
        ({"parts": {"chain": "loopback/x"}}, "chain is not a run of the folder's"),
        ({"parts": {"other": "other/x"}}, "parts are not runs"),
    ],
)
def test_a_damaged_record_is_refused_in_one_line(
    writer: Writer, changes: dict[str, Any], said: str
) -> None:
    writer.update(**changes)
    with pytest.raises(BenchError, match=said):
        read_meta(writer.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": NaN}', "[" * 100_000])
def test_no_json_is_refused_in_one_line(writer: Writer, text: str) -> None:
    (writer.path / "reproduce.json").write_text(text)
    with pytest.raises(BenchError, match="is damaged"):
        Reproduction.open(writer.path)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"has no reproduce\.json"):
        Reproduction.open(tmp_path)


def test_a_reproduction_is_no_run(writer: Writer, tmp_path: Path) -> None:
    assert list_runs(tmp_path) == []
    with pytest.raises(BenchError, match="there is no run"):
        find_run("latest", tmp_path)
    run = a_run(tmp_path)
    assert [entry.path for entry in list_runs(tmp_path)] == [run]
    assert find_run("latest", tmp_path) == run


def test_what_is_written_is_json_as_others_read_it(writer: Writer) -> None:
    document = json.loads((writer.path / "reproduce.json").read_text())
    assert document["schema_version"] == 1
    assert document["ended_at"] is None
    writer.finish("complete")
    assert json.loads((writer.path / "reproduce.json").read_text())["ended_at"].endswith("Z")
