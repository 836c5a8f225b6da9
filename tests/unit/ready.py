# SPDX-License-Identifier: Apache-2.0
"""Facts of hosts that are ready to measure, and of some where one thing is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nested import changed

from bench.chain import Chain, Host
from bench.finding import Finding
from bench.readiness import Planned

NIC: dict[str, Any] = {
    "driver": "ixgbe",
    "firmware": "1.0",
    "mtu": 1500,
    "rx_queues": 4,
    "xdp_mode": "",
    "xdp_program": None,
    "rps_cpus": ["0", "00000000,00000000", None],
    "qdiscs": [{"kind": "mq", "handle": "0:"}, {"kind": "fq_codel", "handle": "0:"}],
    "tc_filters": {},
    "tcx": {"ingress": [], "egress": None},
    "irqs": {
        "40": {"affinity": "0-3", "effective": "0"},
        "41": {"affinity": "0-3", "effective": "1"},
    },
    "lower": None,
    "lower_nic": None,
}
FACTS: dict[str, Any] = {
    "kernel": "6.18.0",
    "cpu": "a CPU",
    "cpus": 4,
    "boot_id": None,
    "load_1min": 0.0,
    "governor": "performance",
    "scaling_driver": "acpi-cpufreq",
    "turbo": False,
    "clock_source": "tsc",
    "clock_sources": ["tsc", "hpet"],
    "memory": {"total_bytes": 8_000_000_000, "available_bytes": 7_000_000_000},
    "swap": {"total_bytes": 1 << 30, "used_bytes": 0},
    "nft_tables": [],
    "tcp_time_wait": 100,
    "ip_local_port_range": ["32768", "60999"],
    "sysctls": {
        "net.core.default_qdisc": "pfifo_fast",
        "net.core.somaxconn": "4096",
        "net.core.busy_poll": "0",
        "net.core.bpf_jit_enable": "1",
        "net.ipv4.tcp_timestamps": "1",
        "net.netfilter.nf_conntrack_max": "262144",
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait": "120",
        "kernel.bpf_stats_enabled": "0",
    },
    "nic": NIC,
    "egress_nic": None,
}
CLIENT = Host("client", "client", "198.18.0.1", "eth0", 0)
HOPS = tuple(Host(f"hop{n}", "hop", f"198.18.0.{n + 1}", "eth0", 7000) for n in (1, 2))
SERVER = Host("server", "server", "198.18.0.9", "eth0", 8000)
CHAIN = Chain(Path("chain.ini"), CLIENT, HOPS, SERVER)
# The client's ports lie apart from the hops'.
OTHER_PORTS = {"ip_local_port_range": ["2048", "32767"]}
PLANNED = Planned(1_000_000, 25, ("direct", "socat", "nft", "xdp"))


def facts(**changes: Any) -> dict[str, Any]:
    """Return the facts with some changed: `nic__mtu=9000`."""
    return changed(FACTS, changes)


def everywhere(**changes: Any) -> dict[str, dict[str, Any]]:
    """Return every host's facts, all with the same changes."""
    found = {host.name: facts(**changes) for host in CHAIN.hosts}
    found["client"] = facts(**{**OTHER_PORTS, **changes})
    return found


def on(host: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return every host's facts, those of one changed."""
    own = {**OTHER_PORTS, **changes} if host == "client" else changes
    return {**everywhere(), host: facts(**own)}


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    assert finding.remedy
    return finding


def without_timestamps(value: str = "0") -> dict[str, Any]:
    return {"sysctls__net.ipv4.tcp_timestamps": value}
