# SPDX-License-Identifier: Apache-2.0
"""Causes of odd numbers: what makes each of them speak, and what must not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from observing import IDLE, NFT, XDP, Counters, found, sample

from bench.causes.connecting import STEPS_S, steps
from bench.cells import Cell

HEALTHY: Counters = {
    "alice": {**IDLE, "TcpOutSegs": 5000.0, "TcpExtTCPSynRetrans": 0.0, "TcpOutRsts": 3.0},
    "hop1": {**IDLE, "nic_rx_packets": 9000.0, "nic_rx_dropped": 0.0, "conntrack_drop": 0.0},
    "bob": {**IDLE, "TcpExtPAWSEstab": 0.0, "TcpExtListenDrops": 0.0, "tcp_time_wait": 1000.0},
}

# name, counters, what else the run has; the level, and the hosts it is seen at
SEEN: list[tuple[str, Counters, dict[str, Any], str, tuple[str, ...]]] = [
    ("syn_retransmission", {"alice": {"TcpExtTCPSynRetrans": 1}}, {}, "note", ("alice",)),
    ("syn_retransmission", {"alice": {"TcpExtTCPSynRetrans": 50}}, {}, "problem", ("alice",)),
    ("syn_retransmission", {"hop1": {"TcpExtTCPSynRetrans": 50}}, {}, "problem", ("hop1",)),
    (
        "syn_retransmission",
        {"alice": {"TcpExtTCPSynRetrans": 3}},
        {"connect_us": [500.0] * 997 + [1.03e6, 1.031e6, 3.07e6]},
        "problem",
        ("alice",),
    ),
    # Without counters the steps have to speak for themselves.
    ("syn_retransmission", {}, {"connect_us": [1.02e6, 2.05e6, 3.08e6]}, "problem", ("alice",)),
    (
        "time_wait_collision",
        {"bob": {"TcpExtPAWSTimewait": 40}, "alice": {"TcpExtTCPSynRetrans": 40}},
        {},
        "problem",
        ("bob",),
    ),
    # Kernels before PAWSTimewait have one counter for both; here behind a proxy.
    (
        "time_wait_collision",
        {"bob": {"TcpExtPAWSEstab": 40}, "hop1": {"TcpExtTCPSynRetrans": 40}},
        {},
        "problem",
        ("bob",),
    ),
    ("checksum_corruption", {"bob": {"TcpInCsumErrors": 2}}, {}, "note", ("bob",)),
    ("checksum_corruption", {"bob": {"TcpInCsumErrors": 20}}, {}, "problem", ("bob",)),
    ("checksum_corruption", {"hop2": {"Udp6InCsumErrors": 20}}, {}, "problem", ("hop2",)),
    ("listen_overflow", {"bob": {"TcpExtListenOverflows": 9}}, {}, "problem", ("bob",)),
    ("listen_overflow", {"hop1": {"TcpExtTCPReqQFullDrop": 9}}, {}, "problem", ("hop1",)),
    ("listen_overflow", {"bob": {"TcpExtListenDrops": 1}}, {}, "note", ("bob",)),
    ("queue_drops", {"bob": {"nic_tx_dropped": 900}}, {}, "problem", ("bob",)),
    ("queue_drops", {"hop1": {"egress_rx_missed_errors": 900}}, {}, "problem", ("hop1",)),
    ("queue_drops", {"hop1": {"ethtool_rx_queue_0_drops": 900}}, {}, "problem", ("hop1",)),
    ("queue_drops", {"hop1": {"ethtool_rx_out_of_buffer": 9}}, {}, "problem", ("hop1",)),
    ("queue_drops", {"hop1": {"softnet_dropped": 9}}, {}, "problem", ("hop1",)),
    ("queue_drops", {"bob": {"TcpExtTCPBacklogDrop": 9}}, {}, "problem", ("bob",)),
    ("queue_drops", {"bob": {"nic_tx_dropped": 9, "nic_rx_packets": 1e6}}, {}, "note", ("bob",)),
    (
        "queue_drops",
        {"hop1": {"nic_rx_dropped": 30}, "bob": {"TcpRetransSegs": 30}},
        {},
        "problem",
        ("hop1",),
    ),
    (
        "conntrack_full",
        {"hop1": {"conntrack_drop": 30, "conntrack_count": 500, "conntrack_max": 500}},
        {},
        "problem",
        ("hop1",),
    ),
    ("conntrack_full", {"hop2": {"conntrack_early_drop": 30}}, {}, "problem", ("hop2",)),
    (
        "port_exhaustion",
        {},
        {"failed_us": [20.0] * 9, "port": [0] * 9},
        "problem",
        ("alice",),
    ),
    ("port_exhaustion", {"hop1": {"forwarder_dropped_no_port": 7}}, {}, "problem", ("hop1",)),
    ("port_exhaustion", {"hop1": {"forwarder_dropped_table_full": 1}}, {}, "note", ("hop1",)),
    (
        "port_exhaustion",
        {"hop1": {"conntrack_insert_failed": 9, "conntrack_drop": 9}},
        {},
        "problem",
        ("hop1",),
    ),
    (
        "port_exhaustion",
        {"hop1": {"TcpPassiveOpens": 100, "TcpActiveOpens": 60, "tcp_time_wait": 16}},
        {
            "samples": (sample(Cell("socat", "", 1, 624, 25, 100)),),
            "facts": {"hop1": {"sysctls": {"net.ipv4.ip_local_port_range": "20000 20015"}}},
        },
        "problem",
        ("hop1",),
    ),
    (
        "cpu_saturated",
        {"hop1": {"cpu_softirq_s": 1.5, "cpu_system_s": 0.5, "cpu_idle_s": 0.01}},
        {},
        "note",
        ("hop1",),
    ),
    (
        "cpu_saturated",
        {
            "hop1": {
                "cpu_softirq_s": 0.99,
                "cpu_idle_s": 3.0,
                "monotonic_s": 1.0,
                **{f"cpu{cpu}_busy_s": 0.99 if cpu == 2 else 0.01 for cpu in range(4)},
            }
        },
        {},
        "note",
        ("hop1",),
    ),
    (
        "cpu_steal",
        {"alice": {"cpu_steal_s": 0.2, "cpu_user_s": 0.8, "cpu_idle_s": 1.0}},
        {},
        "problem",
        ("alice",),
    ),
    ("timer_losses", {}, {"samples": (sample(lost=3),)}, "problem", ("alice",)),
    ("failed_requests", {}, {"samples": (sample(failed=4),)}, "problem", ()),
    # siege had an answer to a request whose connection was never seen to open: it was, unseen.
    ("timer_losses", {}, {"failed_us": [1e4], "port": [40000]}, "note", ("alice",)),
    (
        "failed_requests",
        {},
        {"samples": (replace(sample(), report=None),), "failed_us": [1e7], "port": [40000]},
        "problem",
        (),
    ),
]

NOT_SEEN: list[tuple[str, Counters, dict[str, Any]]] = [
    # The server's counter is of SYN-ACKs; slow without a repeated SYN is another matter.
    ("syn_retransmission", {"bob": {"TcpExtTCPSynRetrans": 9}}, {}),
    ("syn_retransmission", {"alice": {"TcpExtTCPSynRetrans": 0}}, {"connect_us": [1.03e6] * 9}),
    ("syn_retransmission", {}, {"connect_us": [1.03e6, 1.5e6, 1.6e6, 2.5e6, 2.6e6]}),
    ("syn_retransmission", {}, {"connect_us": [0.8e6] * 99}),
    # An old segment of an established connection; a few among many repeated SYNs.
    ("time_wait_collision", {"bob": {"TcpExtPAWSEstab": 40}}, {}),
    (
        "time_wait_collision",
        {"bob": {"TcpExtPAWSEstab": 1}, "alice": {"TcpExtTCPSynRetrans": 99}},
        {},
    ),
    ("checksum_corruption", {"bob": {"IpInHdrErrors": 9, "TcpInErrs": 9}}, {}),
    ("listen_overflow", {"bob": {"TcpExtSyncookiesRecv": 9}}, {}),
    # Verdicts of XDP programs, and frames of protocols that nobody takes.
    ("queue_drops", {"hop1": {"ethtool_rx_queue_0_xdp_drops": 9, "ethtool_rx_xdp_drop": 9}}, {}),
    ("queue_drops", {"hop1": {"nic_rx_dropped": 3}}, {}),
    ("conntrack_full", {"hop1": {"conntrack_drop": 9, "conntrack_insert_failed": 9}}, {}),
    ("conntrack_full", {"hop1": {"conntrack_count": 500, "conntrack_max": 500}}, {}),
    # A refused connection had a port; insertions fail when the table is full, too.
    ("port_exhaustion", {}, {"failed_us": [90.0] * 9}),
    (
        "port_exhaustion",
        {"hop1": {"conntrack_insert_failed": 9, "conntrack_count": 99, "conntrack_max": 100}},
        {},
    ),
    (
        "port_exhaustion",
        {"hop1": {"TcpPassiveOpens": 100, "TcpActiveOpens": 60, "tcp_time_wait": 16}},
        {"samples": (sample(Cell("socat", "", 1, 624, 25, 100)),)},
    ),
    ("cpu_saturated", {"hop1": {"cpu_user_s": 0.01, "cpu_idle_s": 0.0, "monotonic_s": 0.01}}, {}),
    ("cpu_saturated", {"hop1": {"cpu_user_s": 2.0, "monotonic_s": 1.0}}, {}),
    ("cpu_saturated", {"hop1": {"cpu0_busy_s": 1.0, "monotonic_s": 1.0, "cpu_idle_s": 1.0}}, {}),
    ("cpu_steal", {"hop1": {"cpu_steal_s": 0.01, "cpu_idle_s": 2.0}}, {}),
    # A problem found in the same samples explains failures.
    (
        "failed_requests",
        {"bob": {"TcpExtListenOverflows": 9}},
        {"samples": (sample(failed=4),)},
    ),
]


@pytest.mark.parametrize(("name", "counters", "more", "grave", "hosts"), SEEN)
def test_a_cause_is_seen(
    name: str, counters: Counters, more: dict[str, Any], grave: str, hosts: tuple[str, ...]
) -> None:
    cause = found(counters, **more)[name]
    assert (cause.level, cause.hosts) == (grave, hosts)
    assert cause.samples == ("001-0001",)
    assert all(cause.evidence)
    line = cause.line()
    assert line.startswith(cause.title)
    assert line.endswith(".")
    assert "\n" not in line
    assert json.loads(json.dumps(cause.record(), allow_nan=False))["name"] == name


@pytest.mark.parametrize(("name", "counters", "more"), NOT_SEEN)
def test_what_is_no_such_cause(name: str, counters: Counters, more: dict[str, Any]) -> None:
    assert name not in found(counters, **more)


def test_a_healthy_run_gives_nothing() -> None:
    samples = [sample(cell, number) for number, cell in enumerate((NFT, XDP), start=1)]
    assert found(HEALTHY, samples=samples, connect_us=[500.0] * 100) == {}


@pytest.mark.parametrize("step", STEPS_S)
def test_steps_of_the_syn_timer(step: int) -> None:
    late = np.array([step * 1e6 * factor + 300 for factor in (1.0, 1.02, 1.035)])
    assert steps(late) == {step: 3}
    # As a kernel of 6.18 had them.
    measured = np.array([1.035e6, 2.05e6, 3.08e6, 4.10e6, 5.12e6, 7.133e6, 19.482e6])
    assert set(steps(measured)) == {1, 2, 3, 4, 5, 7, 19}
