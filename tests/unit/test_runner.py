# SPDX-License-Identifier: Apache-2.0
"""Between siege and the results: which samples are valid, what comes first, how long it takes."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import runner
from bench.cells import MAX_CONCURRENCY, MAX_REQUESTS, PAYLOAD_SIZES, Cell
from bench.chain import Chain, Host
from bench.session import MAX_SAMPLE_S, RawSample, describe, forwarding_of, sample_limit_s
from bench.sweep import Sweep, cross

DATA = Path(__file__).parent / "data" / "siege"
STARTED = datetime(2026, 11, 23, 3, 15, tzinfo=UTC)
CELL = Cell("nft", "", 3, 312, 1, 300)


def raw(name: str = "success_c1", **changes: Any) -> RawSample:
    """Return what the client would report of a real siege."""
    values: dict[str, object] = {
        "stdout": (DATA / f"{name}.txt").read_text(),
        "stderr": "",
        "status": 0,
        "timed_out": False,
        "started_at": STARTED.timestamp(),
        "wall_s": 0.1,
        "segments_sent": 1500,
        "counted": tuple({"flows_opened": n} for n in changes.pop("flows", (300, 300, 300))),
    }
    return RawSample(**{**values, **changes})  # type: ignore[arg-type]


def counted(*packets: tuple[int, int]) -> tuple[dict[str, int], ...]:
    """Return what hops count that see each packet: (forwarded, returned) each."""
    return tuple(
        {"flows_opened": 300, "forwarded_packets": there, "returned_packets": back}
        for there, back in packets
    )


def test_a_sample_that_counts() -> None:
    sample = runner._judge(CELL, 2, 7, raw())
    assert sample.valid
    assert (sample.id, sample.cell, sample.started_at) == ("002-0007", CELL, STARTED)
    assert sample.report is not None
    assert (sample.report.transactions, sample.report.elapsed_s) == (300, 0.04)


@pytest.mark.parametrize(
    ("cell", "seen", "reason"),
    [
        (CELL, raw(), ""),
        # What conntrack leaves uncounted is no detour.
        (CELL, raw(flows=(300, 297, 299)), ""),
        (CELL, raw(flows=(301, 350, 400)), ""),
        (CELL, raw(counted=counted((1500, 1200), (1500, 1200), (1500, 1200))), ""),
        (CELL, raw(counted=counted((1501, 1199), (1480, 1215), (1490, 1200))), ""),
        (
            CELL,
            raw(counted=counted((1000, 1200), (1000, 1200), (1000, 1200))),
            "the client sent 1500 packets, hop 1 forwarded 1000",
        ),
        (
            CELL,
            raw(counted=counted((1500, 1200), (1400, 1200), (1400, 1200))),
            "hop 1 sent 1500 packets, hop 2 forwarded 1400",
        ),
        (
            CELL,
            raw(counted=counted((1500, 1200), (1500, 1200), (1500, 1300))),
            "hop 3 returned 1300 packets, hop 2 returned 1200",
        ),
        (CELL, raw(flows=(300, 296, 300)), "hop 2 carried 296 of 300 connections"),
        (CELL, raw(flows=(0, 0, 0)), "hop 1 carried 0 of 300 connections"),
        (CELL, raw(flows=(300, 300, -5)), "hop 3 carried -5 of 300 connections"),
        (Cell("direct", "", 0, 312, 1, 300), raw(flows=()), ""),
        (CELL, raw(status=1), "siege ended with status 1"),
        (CELL, raw(status=-11), "siege ended with status -11"),
        (CELL, raw(status=1, flows=(0, 0, 0)), "hop 1 carried 0 of 300 connections"),
        (CELL, raw(timed_out=True, wall_s=41.7, status=-9), "siege was cut off after 42 s"),
        (CELL, raw("killed", timed_out=True, wall_s=60.0), "siege was cut off after 60 s"),
        (CELL, raw("killed"), "siege printed no report (its output is empty)"),
        (CELL, raw("killed", flows=(0, 0, 0)), "siege printed no report (its output is empty)"),
        (CELL, raw(stdout="Killed\n"), "siege printed no report (its output ends with 'Killed')"),
        (
            CELL,
            raw(stdout="\x1b[2J{}"),
            "siege printed no report (its output ends with '\\x1b[2J{}')",
        ),
        (Cell("nft", "", 3, 624, 5, 500), raw("partly_503"), "103 of 500 requests failed"),
        (Cell("nft", "", 3, 624, 5, 200), raw("partly_dropped"), "46 of 200 requests failed"),
        (Cell("nft", "", 3, 624, 4, 40), raw("all_refused"), "40 of 40 requests failed"),
        (Cell("nft", "", 3, 624, 2, 200), raw("gave_up"), "4 of 200 requests failed"),
        (Cell("nft", "", 3, 624, 2, 20), raw("all_404"), "20 of 20 responses were HTTP errors"),
        (Cell("nft", "", 3, 9984, 3, 300), raw("stopped"), "0 of 300 transactions were made"),
        (Cell("nft", "", 3, 624, 300, 300), raw("users_capped"), "255 of 300 transactions were"),
        (Cell("nft", "", 3, 624, 1, 300), raw(), "0.09 MB were transferred instead of 0.18 MB"),
        (Cell("nft", "", 3, 624, 1, 5), raw("short", flows=(5, 5, 5)), ""),
        (Cell("nft", "", 3, 9984, 25, 5000), raw("success_c25", flows=(5000,) * 3), ""),
        (Cell("nft", "", 1, 2555904, 1, 20), raw("large_files", flows=(20,)), ""),
        (Cell("xdp", "native", 1, 624, 1, 2000), raw("first_call", flows=(2000,)), ""),
    ],
)
def test_which_samples_are_valid(cell: Cell, seen: RawSample, reason: str) -> None:
    sample = runner._judge(cell, 1, 1, seen)
    assert sample.invalid_reason.startswith(reason)
    assert sample.valid == (reason == "")
    assert len(sample.row()) == 24
    assert sample.invalid_reason.isprintable()


@given(st.text(), st.booleans(), st.integers(-64, 255), st.lists(st.integers(), max_size=4))
def test_any_output_makes_a_row(
    stdout: str, timed_out: bool, status: int, flows: list[int]
) -> None:
    counted = tuple({"flows_opened": each} for each in flows)
    seen = RawSample(stdout, "", status, timed_out, 0.0, 1.0, 0, counted)
    sample = runner._judge(CELL, 1, 1, seen)
    assert not sample.valid
    assert len(sample.row()) == 24
    assert sample.row()[-1].isprintable()


@pytest.mark.parametrize(
    ("name", "flows", "line"),
    [
        (
            "success_c1",
            (300, 300, 300),
            "block 2/6 nft, 3 hops, 312 B, c=1: 7500 transactions/s",
        ),
        (
            "success_c1",
            (0, 0, 0),
            "block 2/6 nft, 3 hops, 312 B, c=1: invalid, hop 1 carried 0 of 300 connections",
        ),
        (
            "killed",
            (0, 0, 0),
            "block 2/6 nft, 3 hops, 312 B, c=1: invalid, siege printed no report "
            "(its output is empty)",
        ),
    ],
)
def test_the_line_of_a_sample(name: str, flows: tuple[int, ...], line: str) -> None:
    assert runner._line(2, 6, runner._judge(CELL, 2, 1, raw(name, flows=flows))) == line


def test_a_sample_too_short_for_siege() -> None:
    cell = Cell("direct", "", 0, 624, 1, 5)
    sample = runner._judge(cell, 1, 1, raw("short", flows=()))
    assert runner._line(1, 1, sample) == ("block 1/1 direct, 624 B, c=1: below siege's clock tick")


A, B, C = (Cell("nft", "", hops, 624, 1, 100) for hops in (1, 2, 3))


@pytest.mark.parametrize(
    ("took_s", "rest", "blocks", "block", "left_s"),
    [
        # The first sample of all: the others are taken to be like it.
        ({A: 2.0}, [B, C], 1, 1, 4.0),
        ({A: 2.0}, [B, C], 3, 1, 4.0 + 2 * 6.0),
        ({A: 2.0, B: 4.0}, [C], 1, 1, 3.0),
        ({A: 2.0, B: 4.0}, [C], 2, 1, 3.0 + 9.0),
        ({A: 2.0, B: 4.0, C: 9.0}, [], 2, 1, 15.0),
        ({A: 2.0, B: 4.0, C: 9.0}, [A], 2, 2, 2.0),
        ({A: 2.0, B: 4.0, C: 9.0}, [], 2, 2, 0.0),
    ],
)
def test_the_time_left(
    took_s: dict[Cell, float], rest: list[Cell], blocks: int, block: int, left_s: float
) -> None:
    sweep = Sweep((A, B, C), blocks, 1)
    assert runner._left_s(took_s, rest, sweep, block) == pytest.approx(left_s)


def test_every_way_is_verified_once() -> None:
    cells = cross(
        ("direct", "nft", "xdp"), ("native", "generic"), (1, 3, 5), (624, 9984), (1, 25), 100
    )
    ways = runner._forwardings(Sweep(cells, 6, 1))
    assert set(ways) == {forwarding_of(cell) for cell in cells}
    assert len(ways) == len(set(ways)) == 1 + 3 + 6
    for (mode, attach, hops), after in pairwise(ways):
        assert (mode, attach) != after[:2] or hops > after[2]
    assert [ways.index(way) for way in ways if way[0] == "nft"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("forwarding", "words"),
    [
        (("direct", "", 0), "direct"),
        (("nft", "", 1), "nft, 1 hop"),
        (("nft", "", 5), "nft, 5 hops"),
        (("xdp", "native", 1), "xdp (native), 1 hop"),
        (("xdp", "generic", 3), "xdp (generic), 3 hops"),
    ],
)
def test_words_for_a_way(forwarding: tuple[str, str, int], words: str) -> None:
    assert describe(forwarding) == words


@pytest.mark.parametrize(
    ("cell", "limit_s"),
    [
        (Cell("nft", "", 1, 312, 1, 1), 20),
        (Cell("nft", "", 1, 624, 1, 100), 25),
        (Cell("nft", "", 1, 624, 25, 10000), 526),
        (Cell("nft", "", 1, 2555904, 1, 100), 280),
        (Cell("nft", "", 1, 312, 3, 100), 25),
        (Cell("nft", "", 1, 2555904, MAX_CONCURRENCY, MAX_REQUESTS), MAX_SAMPLE_S),
    ],
)
def test_how_long_a_sample_may_take(cell: Cell, limit_s: int) -> None:
    assert sample_limit_s(cell) == limit_s


@given(
    st.sampled_from(PAYLOAD_SIZES),
    st.integers(1, MAX_CONCURRENCY),
    st.integers(1, MAX_REQUESTS),
)
def test_a_limit_is_one_an_agent_takes(size_bytes: int, concurrency: int, requests: int) -> None:
    limit_s = sample_limit_s(Cell("xdp", "native", 5, size_bytes, concurrency, requests))
    assert 20 <= limit_s <= MAX_SAMPLE_S <= 3600


def test_where_each_hop_forwards_to() -> None:
    client, *hops, server = (
        Host(name, "hop", f"198.18.0.{number}", "eth0", 7000 + number)
        for number, name in enumerate(("client", "hop1", "hop2", "hop3", "server"), start=1)
    )
    chain = Chain(Path("chain.ini"), client, tuple(hops), server)
    assert [host.name for host in chain.hosts] == ["client", "hop1", "hop2", "hop3", "server"]
    assert chain.entry(0) == ("198.18.0.5", 7005)
    for count in (1, 2, 3):
        assert chain.entry(count) == ("198.18.0.2", 7002)
        following = [chain.next_of(index, count) for index in range(count)]
        ways = [(hop.data_ip, hop.port) for hop in (*hops[1:count], server)]
        assert following == ways
