# SPDX-License-Identifier: Apache-2.0
"""What is foreseen from facts: each row changes one thing on hosts that are fine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nested import changed

from bench.chain import Chain, Host
from bench.finding import Finding
from bench.readiness import Planned, findings

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


# Ports, queues and tables

MANY = 28233  # One connection more than the range of ports has.


@pytest.mark.parametrize(
    ("host", "planned", "hosts"),
    [
        # The client's connections end at the server, with nft, XDP and without hops.
        ("client", Planned(MANY + 2488, 25, ("nft",)), ["client"]),
        ("server", Planned(MANY + 2488, 25, ("direct",)), ["client"]),
        ("client", Planned(30720, 25, ("nft",)), []),
        ("hop1", Planned(10**6, 25, ("nft", "xdp")), []),
        # With socat also at every hop, which has its own ports.
        ("hop1", Planned(10**6, 25, ("socat",)), ["client", "hop1"]),
        ("server", Planned(MANY, 25, ("socat",)), ["hop1", "hop2"]),
        ("server", Planned(MANY - 1, 25, ("socat",)), []),
        # It is how many a minute that counts.
        ("server", Planned(10**6, 25, ("nft",), 500.0), []),
        ("server", Planned(10**6, 25, ("nft",), 520.0), ["client"]),
        ("server", Planned(1000, 25, ("nft",), 10_000.0), []),
    ],
)
def test_ports_that_have_to_rest(host: str, planned: Planned, hosts: list[str]) -> None:
    found = findings(CHAIN, on(host, **without_timestamps()), planned)
    assert [finding.host for finding in found] == hosts
    for finding in found:
        assert finding.level == "warning"
        assert f"timestamps on {host} a port" in finding.text
        assert "net.ipv4.tcp_timestamps=1" in finding.remedy


@pytest.mark.parametrize("value", ["1", "2", None])
def test_timestamps_let_ports_be_used_again(value: str | None) -> None:
    changes = {"sysctls__net.ipv4.tcp_timestamps": value}
    assert findings(CHAIN, everywhere(**changes), Planned(10**9, 25, ("nft",))) == []


@pytest.mark.parametrize(
    ("host", "concurrency", "modes", "found"),
    [
        ("client", 100, ("direct",), []),
        ("client", 101, ("direct",), ["client"]),
        ("hop2", 101, ("nft", "xdp"), []),
        ("hop2", 101, ("socat",), ["hop2"]),
        ("server", 101, ("socat",), []),
    ],
)
def test_more_at_a_time_than_ports(
    host: str, concurrency: int, modes: tuple[str, ...], found: list[str]
) -> None:
    few = on(host, ip_local_port_range=["40000", "40099"], tcp_time_wait=0)
    problems = findings(CHAIN, few, Planned(1000, concurrency, modes))
    assert [finding.host for finding in problems] == found
    for finding in problems:
        assert finding.level == "problem"
        assert finding.text.startswith("101 connections at a time, and 100 ports")


@pytest.mark.parametrize(
    ("host", "modes", "found"),
    [
        ("server", ("direct",), ["server"]),
        ("hop1", ("direct",), []),
        ("hop1", ("socat",), ["hop1"]),
        ("client", ("socat",), []),
    ],
)
def test_short_queues(host: str, modes: tuple[str, ...], found: list[str]) -> None:
    short = on(host, **{"sysctls__net.core.somaxconn": "24"})
    warnings = findings(CHAIN, short, Planned(1000, 25, modes))
    assert [finding.host for finding in warnings] == found
    assert findings(CHAIN, short, Planned(1000, 24, modes)) == []


@pytest.mark.parametrize(
    ("planned", "text"),
    [
        (Planned(5000, 25, ("nft",)), ""),
        (Planned(5001, 25, ("xdp",)), ""),
        (Planned(5001, 25, ("nft",)), "has room for 5000 connections, and nft may need 5001"),
        # A port that is used again takes its old place.
        (Planned(10**6, 25, ("nft",)), "and nft may need 30720"),
        (Planned(10**6, 25, ("nft",), 50.0), "and nft may need 6000"),
        (Planned(10**6, 25, ("nft",), 40.0), ""),
    ],
)
def test_a_table_that_fills_up(planned: Planned, text: str) -> None:
    few = on("hop1", **{"sysctls__net.netfilter.nf_conntrack_max": "5000"})
    found = findings(CHAIN, few, planned)
    assert [finding.host for finding in found] == (["hop1"] if text else [])
    assert not text or text in found[0].text


@pytest.mark.parametrize(("concurrency", "problems"), [(16, 0), (17, 1)])
def test_few_ports_of_a_nat(concurrency: int, problems: int) -> None:
    hop = Host("hop1", "hop", "198.18.0.2", "eth0", 7000, nat_ports=(2000, 2015))
    chain = Chain(Path("chain.ini"), CLIENT, (hop,), SERVER)
    assert len(findings(chain, everywhere(), Planned(100, concurrency, ("xdp",)))) == problems
    assert findings(chain, everywhere(), Planned(100, concurrency, ("nft",))) == []


def test_ranges_of_client_and_hops_overlap() -> None:
    same = {**everywhere(), "client": facts()}
    finding = only(findings(CHAIN, same, PLANNED))
    assert "overlaps that of hop1" in finding.text
    for modes in (("nft",), ("socat",), ("direct", "xdp")):
        assert findings(CHAIN, same, Planned(100, 1, modes)) == []
