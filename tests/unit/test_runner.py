# SPDX-License-Identifier: Apache-2.0
"""Between siege and the results: what is said of a sample, what comes first, how long it takes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import raw_sample

from bench import runner
from bench.cells import MAX_CONCURRENCY, MAX_REQUESTS, PAYLOAD_SIZES, Cell
from bench.chain import Chain, Host
from bench.judging import judge
from bench.results import Sample
from bench.session import MAX_SAMPLE_S, describe, forwarding_of, sample_limit_s
from bench.sweep import Sweep, cross

DATA = Path(__file__).parent / "data" / "siege"
CELL = Cell("nft", "", 3, 312, 1, 300)


def judged(cell: Cell, name: str, flows: tuple[int, ...]) -> Sample:
    """Return the sample that a real siege made, hops having opened so many flows."""
    seen = raw_sample(cell, stdout=(DATA / f"{name}.txt").read_text(), timer=False)
    client, server = seen.hosts[0], seen.hosts[-1]
    hops = (replace(client, role="hop", forwarder={"flows_opened": each}) for each in flows)
    return judge(cell, 2, 1, replace(seen, hosts=(client, *hops, server)))


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
    assert runner._line(2, 6, judged(CELL, name, flows)) == line
    again = line.replace("3 hops", "3 hops, again")
    assert runner._line(2, 6, judged(replace(CELL, twin=True), name, flows)) == again


def test_a_sample_too_short_for_siege() -> None:
    cell = Cell("direct", "", 0, 624, 1, 5)
    sample = judged(cell, "short", ())
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
    took = {cell.key: each_s for cell, each_s in took_s.items()}
    assert runner._left_s(took, rest, sweep, block) == pytest.approx(left_s)


def test_every_way_is_verified_once() -> None:
    cells = cross(
        ("direct", "nft", "xdp"), ("native", "generic"), (1, 3, 5), (624, 9984), (1, 25), 100
    )
    ways = runner._ways(cells)
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
