# SPDX-License-Identifier: Apache-2.0
"""What is foreseen from facts: each row changes one thing on hosts that are fine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ready import (
    CHAIN,
    CLIENT,
    FACTS,
    HOPS,
    NIC,
    PLANNED,
    SERVER,
    everywhere,
    facts,
    on,
    only,
)

from bench.chain import Chain, Host
from bench.readiness import findings


def test_nothing_is_wrong() -> None:
    assert findings(CHAIN, everywhere(), PLANNED) == []
    # Nor is anything that is not known.
    for unknown in ({}, dict.fromkeys(FACTS), {"nic": dict.fromkeys(NIC), "sysctls": {}}):
        assert findings(CHAIN, {host.name: unknown for host in CHAIN.hosts}, PLANNED) == []
    assert findings(CHAIN, {}, PLANNED) == []
    assert findings(CHAIN, {"hop1": None, "server": FACTS}, PLANNED) == []  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("changes", "text", "remedy"),
    [
        ({"governor": "powersave"}, "CPU governor powersave", "cpupower frequency-set"),
        (
            {"governor": "performance, schedutil"},
            "CPU governor performance, schedutil",
            "cpupower frequency-set",
        ),
        ({"turbo": True}, "turbo is on", "echo 0 > /sys/devices/system/cpu/cpufreq/boost"),
        (
            {"turbo": True, "scaling_driver": "intel_pstate"},
            "turbo is on",
            "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo",
        ),
        (
            {"clock_source": "hpet"},
            "clock source hpet is slow to read",
            "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",
        ),
        (
            {"clock_source": "acpi_pm", "clock_sources": ["hpet", "acpi_pm"]},
            "clock source acpi_pm is slow to read",
            "dmesg",
        ),
        ({"load_1min": 2.1}, "load average 2.1 on 4 CPUs in the last minute", "end what else"),
        ({"swap__used_bytes": 70 << 20}, "73 MB are swapped out", "swapoff -a"),
        ({"sysctls__kernel.bpf_stats_enabled": "1"}, "each run of a BPF program is timed", "=0"),
        ({"nic__xdp_mode": "generic", "nic__xdp_program": 7}, "eth0 (ixgbe) already runs XDP", ""),
        (
            {"nic__qdiscs": [{"kind": "netem", "handle": "1:"}]},
            "eth0 has the qdisc netem",
            "tc qdisc del dev eth0 root",
        ),
        (
            {
                "nic__qdiscs": [{"kind": "mq"}, {"kind": "clsact"}],
                "nic__tc_filters": {"ingress": ["bpf", "matchall"]},
            },
            "eth0 has filters of tc (ingress: bpf, matchall)",
            "tc filter del dev eth0 ingress",
        ),
        (
            {"nic__tcx": {"ingress": [3, 4], "egress": []}},
            "eth0 runs BPF program 3, 4 at tc's ingress",
            "bpftool net",
        ),
        (
            {"nic__irqs": {n: {"affinity": "0-3", "effective": "2"} for n in ("40", "41")}},
            "all 2 interrupts of eth0 (ixgbe) go to CPU 2 of 4",
            "smp_affinity_list",
        ),
        (
            {"nic__irqs": {n: {"affinity": "2", "effective": None} for n in ("40", "41")}},
            "all 2 interrupts of eth0 (ixgbe) go to CPU 2 of 4",
            "smp_affinity_list",
        ),
        (
            {"nic__rps_cpus": ["0", "00000000,0000000f"]},
            "RPS is on for server and off for client, hop1, hop2",
            "rps_cpus",
        ),
        (
            {"nic__lower": "eth9", "nic__lower_nic": {**NIC, "qdiscs": [{"kind": "tbf"}]}},
            "eth9 has the qdisc tbf",
            "tc qdisc del dev eth9 root",
        ),
    ],
)
def test_one_thing_is_wrong(changes: dict[str, Any], text: str, remedy: str) -> None:
    finding = only(findings(CHAIN, on("server", **changes), PLANNED))
    assert (finding.host, finding.level) == ("server", "warning")
    assert finding.text.startswith(text)
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"swap__used_bytes": 60 << 20},
        {"load_1min": 2.0},
        {"turbo": None, "governor": None, "clock_source": "kvm-clock"},
        {"clock_source": "hyperv_clocksource_tsc_page"},
        # Little memory is the hops' concern, and so is what BPF costs and what nft has.
        {"memory__available_bytes": 100_000_000},
        {"sysctls__net.core.bpf_jit_enable": "0"},
        {"nft_tables": ["inet filter"]},
        {"nic__qdiscs": [{"kind": "noqueue"}]},
        {"nic__qdiscs": [{"kind": "clsact"}, {"kind": "pfifo"}, {"kind": "fq"}, {"kind": None}]},
        {"nic__qdiscs": None},
        {"nic__qdiscs": [{"kind": "cake"}], "sysctls__net.core.default_qdisc": "cake"},
        # One CPU, one queue or one interrupt cannot be spread.
        {"cpus": 1, "nic__irqs": {n: {"effective": "0"} for n in ("40", "41")}},
        {"nic__rx_queues": 1, "nic__irqs": {n: {"effective": "0"} for n in ("40", "41")}},
        {"nic__irqs": {"40": {"effective": "0"}}},
        {"nic__irqs": {"40": {"affinity": "0-3", "effective": None}, "41": {"affinity": "0"}}},
        {"nic__irqs": {"40": {"affinity": "x", "effective": None}, "41": {}}},
        # The server connects to nobody.
        {"tcp_time_wait": 100_000, "ip_local_port_range": ["32768", "32799"]},
        # A kernel, a CPU and a driver of its own are the server's right.
        {"kernel": "5.10", "cpu": "another", "nic__driver": "e1000"},
    ],
)
def test_that_is_fine(changes: dict[str, Any]) -> None:
    assert findings(CHAIN, on("server", **changes), PLANNED) == []


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({"nic__xdp_mode": "native", "nic__xdp_program": 7}, "problem", "eth0 (ixgbe) already"),
        (
            {
                "nic__xdp_mode": "native",
                "nic__xdp_program": 7,
                "nic__xdp_program_name": "xdp_dispatcher",
            },
            "problem",
            "eth0 (ixgbe) already runs XDP program xdp_dispatcher (id 7)",
        ),
        ({"nft_tables": ["inet filter", "ip nat"]}, "warning", "nft has tables of others (inet "),
        ({"memory__available_bytes": 150_000_000}, "warning", "150 MB of memory are left"),
        ({"sysctls__net.core.bpf_jit_enable": "0"}, "warning", "BPF is interpreted"),
        ({"tcp_time_wait": 7059}, "warning", "7059 sockets are in TIME_WAIT, of 28232 ports"),
    ],
)
def test_what_only_hops_mind(changes: dict[str, Any], level: str, text: str) -> None:
    finding = only(findings(CHAIN, on("hop2", **changes), PLANNED))
    assert (finding.host, finding.level) == ("hop2", level)
    assert finding.text.startswith(text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kernel": "6.1.0"}, "hops are not alike: kernel 6.18.0 on hop1; 6.1.0 on hop2"),
        ({"cpu": "another"}, "hops are not alike: cpu a CPU on hop1; another on hop2"),
        ({"cpus": 8}, "hops are not alike: cpus 4 on hop1; 8 on hop2"),
        ({"nic__driver": "ice"}, "hops are not alike: nic driver ixgbe on hop1; ice on hop2"),
        ({"nic__firmware": "2"}, "hops are not alike: nic firmware 1.0 on hop1; 2 on hop2"),
    ],
)
def test_hops_that_differ(changes: dict[str, Any], text: str) -> None:
    assert only(findings(CHAIN, on("hop2", **changes), PLANNED)).text == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("nic__mtu", 9000, "mtu 1500"), ("sysctls__net.core.busy_poll", "50", "busy_poll 0")],
)
def test_a_host_set_otherwise(name: str, value: Any, text: str) -> None:
    finding = only(findings(CHAIN, on("server", **{name: value}), PLANNED))
    assert finding.host == "client"
    assert finding.text.endswith(f"{text} on client, hop1, hop2; {value} on server")


def test_a_machine_is_spoken_of_once() -> None:
    machine = everywhere(boot_id="one", governor="powersave")
    finding = only(findings(CHAIN, machine, PLANNED))
    assert finding.host == "client"
    assert finding.text == "CPU governor powersave, the same for 3 other hosts on this machine"
    two = {**machine, "hop2": facts(boot_id="two", governor="powersave")}
    two["server"] = facts(boot_id="two", governor="powersave")
    assert [(finding.host, finding.text) for finding in findings(CHAIN, two, PLANNED)] == [
        ("client", "CPU governor powersave, the same for 1 other host on this machine"),
        ("hop2", "CPU governor powersave, the same for 1 other host on this machine"),
    ]
    # Hosts that do not say on which machine they are: each on its own.
    assert len(findings(CHAIN, everywhere(governor="powersave"), PLANNED)) == 4
    # The machine of a hop and of a client has to have memory for the hop.
    left = {"memory__available_bytes": 100_000_000, "boot_id": "one"}
    assert only(findings(CHAIN, everywhere(**left), PLANNED)).host == "client"


def test_the_egress_nic_is_looked_at() -> None:
    hop = Host("hop1", "hop", "198.18.0.2", "eth0", 7000, egress_nic="eth1")
    chain = Chain(Path("chain.ini"), CLIENT, (hop, HOPS[1]), SERVER)
    odd = {**NIC, "qdiscs": [{"kind": "netem"}], "rps_cpus": ["f"]}
    found = findings(chain, on("hop1", egress_nic=odd), PLANNED)
    assert [finding.text for finding in found] == [
        "RPS is on for hop1 and off for client, hop2, server",
        "eth1 has the qdisc netem",
    ]
    assert findings(CHAIN, on("hop1", egress_nic=odd), PLANNED) == []


def test_order_is_that_of_the_chain() -> None:
    odd = everywhere(governor="powersave", swap__used_bytes=1 << 30)
    found = [finding.host for finding in findings(CHAIN, odd, PLANNED)]
    assert found == [name for host in CHAIN.hosts for name in 2 * [host.name]]
