# SPDX-License-Identifier: Apache-2.0
"""What hosts counted during a sample: differences, gauges, and what is read from them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import raw_sample

from bench.cells import Cell
from bench.counters import HostDelta, difference
from bench.hop.host import HostCounters

CELL = Cell("nft", "", 2, 624, 1, 100)


def snapshot(counts: dict[str, float], **gauges: float) -> dict[str, dict[str, float]]:
    """Return a host's counters at one moment."""
    return {"counts": counts, "gauges": gauges}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (snapshot({}), snapshot({}), {}),
        (snapshot({"TcpOutSegs": 7}), snapshot({"TcpOutSegs": 9}), {"TcpOutSegs": 2}),
        (snapshot({"TcpOutSegs": 7}), snapshot({"TcpOutSegs": 7}), {"TcpOutSegs": 0}),
        (snapshot({"x": 7}), snapshot({"x": 5}), {"x": -2}),
        # A queue that came, a module that went.
        (snapshot({}), snapshot({"ethtool_rx3": 5}), {"ethtool_rx3": 5}),
        (snapshot({"conntrack_drop": 5}), snapshot({}), {}),
        (
            snapshot({}, tcp_orphan=3, tcp_inuse=9),
            snapshot({}, tcp_orphan=1),
            {"tcp_orphan": 1},
        ),
        (
            snapshot({"monotonic_s": 10.5}),
            snapshot({"monotonic_s": 11.0}, conntrack_max=65536),
            {"monotonic_s": 0.5, "conntrack_max": 65536},
        ),
    ],
)
def test_differences(before: Any, after: Any, found: dict[str, float]) -> None:
    assert difference(before, after) == found


counts = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 2**60))


@given(counts, counts)
def test_what_was_counted_before_and_meanwhile_is_what_is_there_after(
    before: dict[str, float], grown: dict[str, float]
) -> None:
    after = {name: before.get(name, 0) + more for name, more in grown.items()}
    assert difference(snapshot(before), snapshot(after)) == grown


def test_this_host_over_no_time() -> None:
    """As its agent says it: through JSON."""
    host = HostCounters(("lo",))
    before, after = (json.loads(json.dumps(host.snapshot())) for _ in range(2))
    found = difference(before, after)
    assert 0 <= found["monotonic_s"] < 5
    assert found["TcpOutSegs"] >= 0
    assert all(isinstance(value, int | float) for value in found.values())


def test_a_row_has_everything_by_its_name() -> None:
    delta = HostDelta("hop1", "hop", {"TcpOutSegs": 3.0}, {"flows_opened": 7, "drops": 0})
    assert delta.row() == {
        "host": "hop1",
        "role": "hop",
        "TcpOutSegs": 3.0,
        "forwarder_flows_opened": 7,
        "forwarder_drops": 0,
    }
    assert HostDelta("s", "server").row() == {"host": "s", "role": "server"}


def test_what_the_hops_counted() -> None:
    raw = raw_sample(CELL)
    assert [host.role for host in raw.hosts] == ["client", "hop", "hop", "server"]
    assert raw.counted == ({"flows_opened": 100},) * 2
    assert raw.flows == (100, 100)
    direct = raw_sample(Cell("direct", "", 0, 624, 1, 100))
    assert (direct.counted, direct.flows) == ((), ())


@pytest.mark.parametrize(
    ("values", "segments"),
    [
        ({}, 0),
        ({"TcpOutSegs": 400.0}, 400),
        ({"TcpOutSegs": 400.0, "TcpRetransSegs": 3.0}, 403),
        ({"TcpRetransSegs": 3.0}, 3),
    ],
)
def test_segments_that_the_client_sent(values: dict[str, float], segments: int) -> None:
    """The kernel counts a repeated segment apart from the others (RFC 4022, tcpOutSegs)."""
    server = HostDelta("server", "server", {"TcpOutSegs": 77})
    raw = raw_sample(CELL, hosts=(HostDelta("client", "client", values), server))
    assert raw.segments_sent == segments
    assert raw_sample(CELL, hosts=()).segments_sent == 0
