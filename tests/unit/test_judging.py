# SPDX-License-Identifier: Apache-2.0
"""Which samples count: siege's word, the path, the connection timer, and the hosts' troubles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cells import Cell
from bench.counters import HostDelta
from bench.judging import judge
from bench.rawsample import RawSample
from bench.results import COLUMNS

DATA = Path(__file__).parent / "data" / "siege"
STARTED = datetime(2026, 11, 23, 3, 15, tzinfo=UTC)
CELL = Cell("nft", "", 3, 312, 1, 300)
QUIET = {
    "cpu_user_s": 0.3,
    "cpu_nice_s": 0.0,
    "cpu_system_s": 0.2,
    "cpu_irq_s": 0.0,
    "cpu_softirq_s": 0.1,
    "cpu_steal_s": 0.0,
    "cpu_idle_s": 1.4,
    "cpu_iowait_s": 0.0,
    "realtime_s": 1.0,
    "monotonic_s": 1.0,
    "boottime_s": 1.0,
    "throttled_cpu": 0,
    "throttled_cgroup": 0,
    "TcpOutSegs": 1490,
    "TcpRetransSegs": 10,
}


def chain(*forwarders: Mapping[str, int], **troubles: Mapping[str, float]) -> tuple[HostDelta, ...]:
    """Return what each host counted: hops what their forwarders did, and any host its troubles."""
    hops = [(f"hop{number}", each) for number, each in enumerate(forwarders, start=1)]
    return tuple(
        HostDelta(name, role, {**QUIET, **troubles.get(name, {})}, forwarder)
        for name, role, forwarder in (
            ("client", "client", {}),
            *((name, "hop", each) for name, each in hops),
            ("server", "server", {}),
        )
    )


def flows(*opened: int) -> list[dict[str, int]]:
    """Return what hops count that see connections only."""
    return [{"flows_opened": each} for each in opened]


def packets(*seen: tuple[int, int]) -> list[dict[str, int]]:
    """Return what hops count that see each packet: (forwarded, returned) each."""
    return [
        {"flows_opened": 300, "forwarded_packets": there, "returned_packets": back}
        for there, back in seen
    ]


def raw(name: str = "success_c1", **changes: Any) -> RawSample:
    """Return what the hosts would say of a real siege."""
    values: dict[str, Any] = {
        "stdout": (DATA / f"{name}.txt").read_text(),
        "stderr": "",
        "status": 0,
        "timed_out": False,
        "started_at": STARTED.timestamp(),
        "wall_s": 0.1,
        "hosts": chain(*flows(300, 300, 300)),
    }
    return RawSample(**{**values, **changes})


def through(*opened: int) -> dict[str, Any]:
    """Return the hosts of a chain whose hops opened so many flows."""
    return {"hosts": chain(*flows(*opened))}


def test_a_sample_that_counts() -> None:
    sample = judge(CELL, 2, 7, raw(wall_s=0.125, timed=300, lost=0))
    assert sample.valid
    assert (sample.id, sample.cell, sample.started_at) == ("002-0007", CELL, STARTED)
    assert (sample.wall_s, sample.timed, sample.lost) == (0.125, 300, 0)
    assert sample.report is not None
    assert (sample.report.transactions, sample.report.elapsed_s) == (300, 0.04)


@pytest.mark.parametrize(
    ("cell", "seen", "reason"),
    [
        (CELL, raw(), ""),
        # What conntrack leaves uncounted is no detour.
        (CELL, raw(**through(300, 297, 299)), ""),
        (CELL, raw(**through(301, 350, 400)), ""),
        (CELL, raw(hosts=chain(*packets((1500, 1200), (1500, 1200), (1500, 1200)))), ""),
        (CELL, raw(hosts=chain(*packets((1501, 1199), (1480, 1215), (1490, 1200)))), ""),
        # One in fifty, and twenty more.
        (CELL, raw(hosts=chain(*packets((1450, 1200), (1401, 1244), (1450, 1200)))), ""),
        (
            CELL,
            raw(hosts=chain(*packets((1449, 1200), (1449, 1200), (1449, 1200)))),
            "the client sent 1500 packets, hop 1 forwarded 1449",
        ),
        (
            CELL,
            raw(hosts=chain(*packets((1000, 1200), (1000, 1200), (1000, 1200)))),
            "the client sent 1500 packets, hop 1 forwarded 1000",
        ),
        (
            CELL,
            raw(hosts=chain(*packets((1500, 1200), (1400, 1200), (1400, 1200)))),
            "hop 1 sent 1500 packets, hop 2 forwarded 1400",
        ),
        (
            CELL,
            raw(hosts=chain(*packets((1500, 1200), (1500, 1200), (1500, 1300)))),
            "hop 3 returned 1300 packets, hop 2 returned 1200",
        ),
        # A hop that counts connections only says nothing of packets.
        (CELL, raw(hosts=chain(*flows(300), *packets((1, 1)), *flows(300))), ""),
        (CELL, raw(**through(300, 296, 300)), "hop 2 carried 296 of 300 connections"),
        (CELL, raw(**through(0, 0, 0)), "hop 1 carried 0 of 300 connections"),
        (CELL, raw(**through(300, 300, -5)), "hop 3 carried -5 of 300 connections"),
        (Cell("direct", "", 0, 312, 1, 300), raw(**through()), ""),
        (CELL, raw(status=1), "siege ended with status 1"),
        (CELL, raw(status=-11), "siege ended with status -11"),
        (CELL, raw(status=1, **through(0, 0, 0)), "hop 1 carried 0 of 300 connections"),
        (CELL, raw(timed_out=True, wall_s=41.7, status=-9), "siege was cut off after 42 s"),
        (CELL, raw("killed", timed_out=True, wall_s=60.0), "siege was cut off after 60 s"),
        (CELL, raw("killed"), "siege printed no report (its output is empty)"),
        (CELL, raw("killed", **through(0, 0, 0)), "siege printed no report (its output is empty)"),
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
        (Cell("nft", "", 3, 624, 1, 5), raw("short", **through(5, 5, 5)), ""),
        (Cell("nft", "", 3, 9984, 25, 5000), raw("success_c25", **through(5000, 5000, 5000)), ""),
        (Cell("nft", "", 1, 2555904, 1, 20), raw("large_files", **through(20)), ""),
        (Cell("xdp", "native", 1, 624, 1, 2000), raw("first_call", **through(2000)), ""),
        # The connection timer
        (CELL, raw(timed=300, lost=0), ""),
        (CELL, raw(timed=299, lost=0), "the connection timer saw 299 of 300 connections"),
        (CELL, raw(timed=301, lost=0), "the connection timer saw 301 of 300 connections"),
        (CELL, raw(timed=0, lost=0), "the connection timer saw 0 of 300 connections"),
        (CELL, raw(timed=300, lost=1), "the connection timer lost 1 of 300 connections"),
        (CELL, raw(timed=7, lost=293), "the connection timer lost 293 of 300 connections"),
        # Without transactions there is nothing to hold its count against.
        (CELL, raw("killed", timed=0, lost=0), "siege printed no report (its output is empty)"),
    ],
)
def test_which_samples_are_valid(cell: Cell, seen: RawSample, reason: str) -> None:
    sample = judge(cell, 1, 1, seen)
    assert sample.invalid_reason.startswith(reason)
    assert sample.valid == (reason == "")
    assert len(sample.row()) == len(COLUMNS)
    assert sample.invalid_reason.isprintable()


# What befell hosts meanwhile


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({}, ""),
        # A few ticks, or a small share, are what every virtual machine has.
        ({"cpu_steal_s": 0.02, "cpu_idle_s": 0.0, "cpu_user_s": 0.0}, ""),
        ({"cpu_steal_s": 0.1}, ""),
        ({"cpu_steal_s": 0.1, "cpu_idle_s": 50.0}, ""),
        ({"cpu_steal_s": 0.11}, "the hypervisor took 5% of its CPU time"),
        ({"cpu_steal_s": 0.5}, "the hypervisor took 20% of its CPU time"),
        ({"cpu_steal_s": 0.03, "cpu_idle_s": 0, "cpu_user_s": 0}, "the hypervisor took 9% of its"),
        # Nothing but what was stolen is known, and iowait went down.
        ({**dict.fromkeys(QUIET, -1.0), "cpu_steal_s": 2}, "the hypervisor took 100% of its CPU"),
        ({"throttled_cpu": 1}, "its CPUs were throttled once"),
        ({"throttled_cpu": 12}, "its CPUs were throttled 12 times"),
        ({"throttled_cgroup": 1}, "its CPU quota ran out once"),
        ({"throttled_cgroup": 3}, "its CPU quota ran out 3 times"),
        # Read from another cgroup than before, or a CPU has gone.
        ({"throttled_cgroup": -3}, ""),
        ({"throttled_cpu": -1}, ""),
        ({"realtime_s": 1.04}, ""),
        ({"realtime_s": 0.96}, ""),
        ({"realtime_s": 1.06}, "its clock was set by +0.06 s"),
        ({"realtime_s": 0.5}, "its clock was set by -0.50 s"),
        ({"realtime_s": -3599.0}, "its clock was set by -3600.00 s"),
        ({"realtime_s": 3601.0}, "its clock was set by +3600.00 s"),
        # NTP slews a clock: it goes up to 0.05 % faster or slower.
        ({"realtime_s": 600.3, "monotonic_s": 600.0, "boottime_s": 600.0}, ""),
        (
            {"realtime_s": 601.0, "monotonic_s": 600.0, "boottime_s": 600.0},
            "its clock was set by +1.00 s",
        ),
        ({"boottime_s": 1.005}, ""),
        ({"boottime_s": 61.0}, "it was suspended for 60.0 s"),
        # The time of day goes on while a host sleeps.
        ({"boottime_s": 61.0, "realtime_s": 61.0}, "it was suspended for 60.0 s"),
    ],
)
@pytest.mark.parametrize("host", ["client", "hop2", "server"])
def test_what_befell_a_host(host: str, trouble: dict[str, float], reason: str) -> None:
    seen = raw(hosts=chain(*flows(300, 300, 300), **{host: trouble}))
    sample = judge(CELL, 1, 1, seen)
    assert sample.invalid_reason.startswith(f"{host}: {reason}" if reason else "")
    assert sample.valid == (reason == "")


def test_hosts_that_cannot_tell_are_believed() -> None:
    """Not every kernel has each file; an absence proves nothing."""
    hosts = tuple(replace(host, values={}) for host in chain(*flows(300, 300, 300)))
    assert judge(CELL, 1, 1, raw(hosts=hosts)).valid
    assert judge(Cell("direct", "", 0, 312, 1, 300), 1, 1, raw(hosts=())).valid


STEAL, HEAT, QUOTA = {"cpu_steal_s": 1.0}, {"throttled_cpu": 2}, {"throttled_cgroup": 2}
STEP, SLEEP = {"realtime_s": 9.0}, {"boottime_s": 9.0}


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (
            raw("partly_503", timed_out=True, wall_s=9.0, **through(0, 0, 0)),
            "siege was cut off after 9 s",
        ),
        (raw("all_refused", timed=3, lost=0, **through(0, 0, 0)), "40 of 300 requests failed"),
        (raw(timed=299, lost=0, **through(0, 300, 0)), "hop 1 carried 0 of 300"),
        (raw(status=1, timed=299, lost=0), "the connection timer saw 299"),
        (raw(timed=299, lost=1), "the connection timer lost 1 of 300"),
        (
            raw(status=1, hosts=chain(*flows(300, 300, 300), client=STEAL)),
            "siege ended with status 1",
        ),
        (
            raw(timed=0, lost=0, hosts=chain(*flows(300, 300, 300), client=STEAL)),
            "the connection timer saw 0",
        ),
        (
            raw(hosts=chain(*flows(300, 300, 300), client={**STEP, **HEAT}, hop3=STEAL)),
            "hop3: the hypervisor took",
        ),
        (
            raw(hosts=chain(*flows(300, 300, 300), hop1=STEAL, server=STEAL)),
            "hop1: the hypervisor took",
        ),
        (
            raw(hosts=chain(*flows(300, 300, 300), client=SLEEP, hop1={**QUOTA, **HEAT})),
            "hop1: its CPUs were throttled 2 times",
        ),
        (
            raw(hosts=chain(*flows(300, 300, 300), client=STEP, server=SLEEP)),
            "server: it was suspended",
        ),
    ],
)
def test_which_of_several_reasons_is_given(seen: RawSample, reason: str) -> None:
    assert judge(CELL, 1, 1, seen).invalid_reason.startswith(reason)


numbers = st.floats(-1e9, 1e9) | st.integers(-(2**63), 2**63)


@given(
    st.text(),
    st.booleans(),
    st.integers(-64, 255),
    st.lists(st.integers(), max_size=4),
    st.none() | st.integers(0),
)
def test_any_output_makes_a_row(
    stdout: str, timed_out: bool, status: int, opened: list[int], timed: int | None
) -> None:
    hosts = chain(*flows(*opened))
    seen = RawSample(stdout, "", status, timed_out, 0.0, 1.0, hosts, timed, timed)
    sample = judge(CELL, 1, 1, seen)
    assert not sample.valid
    assert len(sample.row()) == len(COLUMNS)
    assert sample.row()[-1].isprintable()


@given(st.dictionaries(st.sampled_from(sorted(QUIET)), numbers))
def test_any_counters_make_a_row(values: dict[str, float]) -> None:
    hosts = (HostDelta("client", "client", values), *chain(*flows(300, 300, 300))[1:])
    sample = judge(CELL, 1, 1, raw(hosts=hosts))
    assert sample.valid == (sample.invalid_reason == "")
    assert len(sample.row()) == len(COLUMNS)
    assert sample.invalid_reason.isprintable()
