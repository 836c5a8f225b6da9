# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of wiring, links, CPUs and slots: each row changes one thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nested import changed

from bench import doctor_machine, doctor_wiring, xdp_drivers
from bench.chain import Chain, Host
from bench.hop import facts_read, reach

CLIENT = Host("client", "client", "198.18.0.1", "eth0", 0)
HOP1 = Host("hop1", "hop", "198.18.0.2", "eth1", 7000, egress_nic="eth2")
HOP2 = Host("hop2", "hop", "198.18.0.3", "eth0", 7001)
SERVER = Host("server", "server", "198.18.0.4", "eth0", 8000)
CHAIN = Chain(Path("chain.ini"), CLIENT, (HOP1, HOP2), SERVER)
MACS = {host.data_ip: f"02:00:00:00:00:0{at}" for at, host in enumerate(CHAIN.hosts)}
SEEN: dict[str, Any] = {
    host.name: {"boot_id": host.name, "nic": {"mac": MACS[host.data_ip]}} for host in CHAIN.hosts
}


def way(to: Host, **changes: Any) -> dict[str, Any]:
    """Return the way to a host as it should be, from hop1, with some of it changed."""
    good = {"nic": "eth2", "gateway": None, "source": "198.18.0.9", "local": False}
    return {**good, "mac": MACS[to.data_ip], **changes}


def said(ways: dict[str, Any], ssh_nic: str | None = "mgmt0") -> list[tuple[str, str]]:
    """Return (level, text) of what is found on hop1's ways."""
    found = doctor_wiring.of_ways(CHAIN, HOP1, {"ssh_nic": ssh_nic, "ways": ways}, SEEN)
    return [(each.level, each.text) for each in found]


def test_ssh_by_a_veth_is_not_interrupted() -> None:
    for driver, words in (("ixgbe", "SSH comes by eth1"), ("veth", None)):
        seen = {**SEEN, "hop1": {"boot_id": "hop1", "nic": {"driver": driver}}}
        ways = {to.data_ip: way(to) for to in (HOP2, SERVER)}
        found = list(doctor_wiring.of_ways(CHAIN, HOP1, {"ssh_nic": "eth1", "ways": ways}, seen))
        assert [each.text.split(",")[0] for each in found] == ([words] if words else [])


def test_who_follows() -> None:
    names = [[to.name for to in doctor_wiring.following(CHAIN, host)] for host in CHAIN.hosts]
    assert names == [["hop1", "server"], ["hop2", "server"], ["server"], []]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, None),
        ({"mac": MACS[HOP2.data_ip].upper()}, None),
        ({"nic": None}, "there is no way to hop2 (198.18.0.3)"),
        ({"nic": "mgmt0"}, "the way to hop2 (198.18.0.3) leaves by mgmt0, not by eth2"),
        ({"gateway": "198.18.0.254"}, "the way to hop2 (198.18.0.3) leads by the router 198.18.0"),
        ({"mac": None}, "hop2 (198.18.0.3) does not answer on eth2"),
        ({"mac": MACS[SERVER.data_ip]}, f"{MACS[SERVER.data_ip]} answers for hop2 (198.18.0.3)"),
        ({"local": True}, "hop2 (198.18.0.3) has an address that is this host's own"),
    ],
)
def test_the_next_host(changes: dict[str, Any], text: str | None) -> None:
    found = said({HOP2.data_ip: way(HOP2, **changes), SERVER.data_ip: way(SERVER)})
    assert [level for level, _ in found] == ["problem"] * (text is not None)
    assert text is None or found[0][1].startswith(text)


def test_a_server_out_of_reach_is_no_problem_with_all_hops() -> None:
    ((level, text),) = said({HOP2.data_ip: way(HOP2), SERVER.data_ip: way(SERVER, mac=None)})
    assert (level, text) == ("warning", "server is not a neighbour on eth2")


@pytest.mark.parametrize(
    ("nic", "found"), [("eth1", 1), ("eth2", 1), ("mgmt0", 0), (None, 0), ("eth0", 0)]
)
def test_ssh_by_a_data_nic(nic: str | None, found: int) -> None:
    good = {HOP2.data_ip: way(HOP2), SERVER.data_ip: way(SERVER)}
    assert len(said(good, nic)) == found


@pytest.mark.parametrize(
    ("nic", "level", "text"),
    [
        ({"duplex": "half"}, "warning", "eth0 (ice) runs at half duplex"),
        ({"master": "br0"}, "problem", "eth0 (ice) belongs to br0"),
        ({"kind": "bond"}, "warning", "eth0 is a bond of several NICs"),
        ({"wireless": True}, "warning", "eth0 (ice) is wireless"),
        ({"pause": {"rx": 1, "tx": 1}}, "warning", "eth0 (ice) sends and obeys pause frames"),
        ({"eee": {"enabled": 1, "active": 1}}, "warning", "eth0 (ice) and the other end let their"),
        ({"eee": {"enabled": 1, "active": 0}}, "", ""),
        ({"pause": {"rx": 1, "tx": 0}, "duplex": "full", "kind": "veth"}, "", ""),
    ],
)
def test_links(nic: dict[str, Any], level: str, text: str) -> None:
    found = list(doctor_wiring.of_link(HOP2, "eth0", {"driver": "ice", **nic}))
    assert [each.level for each in found] == [level] * bool(level)
    assert all(each.text.startswith(text) for each in found)


@pytest.mark.parametrize(
    ("speeds", "slot", "text"),
    [
        ([10000, 10000, 10000, 10000], True, None),
        ([10000, 1000, 10000, 10000], True, "1 Gb/s on hop1; 10 Gb/s on client, hop2, server"),
        ([10000, 1000, 10000, 10000], False, None),
        ([10000, None, 2500, 10000], True, "2.5 Gb/s on hop2; 10 Gb/s on client, server"),
    ],
)
def test_speeds(speeds: list[int | None], slot: bool, text: str | None) -> None:
    pcie = {"speed": "8.0 GT/s PCIe"} if slot else None
    seen = {
        host.name: {"nic": {"speed_mbps": speed, "pcie": pcie}}
        for host, speed in zip(CHAIN.hosts, speeds, strict=True)
    }
    found = [each.text for each in doctor_wiring.of_speeds(CHAIN, seen)]
    assert found == ([f"links are not alike: {text}"] if text else [])


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"cpuidle": {"states": {"POLL": 0, "C1": 2}}}, None),
        ({"cpuidle": {"states": {"C1": 2, "C6": 133, "C1E": 10}}}, "CPUs may sleep as deep as C6"),
        ({"cpuidle": {"states": {"C1": 2, "C1E": 10}}}, "CPUs may sleep as deep as C1E"),
        ({"cpuidle": None, "smt": None}, None),
        ({"smt": True, "virtualisation": {"hypervisor": False}}, "two threads share a core (SMT)"),
        ({"smt": True, "virtualisation": {"hypervisor": True}}, None),
        ({"smt": False}, None),
        ({"irqbalance": True}, "irqbalance runs"),
    ],
)
def test_cpus_once_a_machine(facts: dict[str, Any], text: str | None) -> None:
    seen = {host.name: {"boot_id": "same", **facts} for host in CHAIN.hosts}
    found = list(doctor_machine.of_machines(CHAIN, seen))
    assert [each.host for each in found] == ["client"] * (text is not None)
    assert all(each.text.startswith(str(text)) for each in found)
    apart = {host.name: {"boot_id": host.name, **facts} for host in CHAIN.hosts}
    assert len(list(doctor_machine.of_machines(CHAIN, apart))) == 4 * len(found)


SLOT = {"speed": "8.0 GT/s PCIe", "width": "8", "max_speed": "8.0 GT/s PCIe", "max_width": "8"}
NODES = {"topology": {"numa_nodes": 2, "cpus_of_node": {"0": "0-3", "1": "4-7"}}}


@pytest.mark.parametrize(
    ("nic", "text"),
    [
        ({"pcie": SLOT}, None),
        ({"pcie": None}, None),
        ({"pcie": {**SLOT, "width": "4"}}, "eth0 (ice) has 4 lanes of 8 GT/s, and could have 8 of"),
        ({"pcie": {**SLOT, "max_speed": "16.0 GT/s PCIe"}}, "eth0 (ice) has 8 lanes of 8 GT/s"),
        ({"pcie": {**SLOT, "max_speed": "Unknown"}}, None),
        ({"coalescing": {"adaptive_rx": 1, "rx_usecs": 50}}, "eth0 (ice) adapts how long"),
        ({"coalescing": {"adaptive_rx": 0, "adaptive_tx": 1}}, "eth0 (ice) adapts how long"),
        ({"coalescing": {"adaptive_rx": 0, "rx_usecs": 50}}, "eth0 (ice) holds interrupts back"),
        ({"coalescing": {"adaptive_rx": 0, "rx_usecs": 3}}, None),
        ({"coalescing": {"adaptive_rx": None, "rx_usecs": None}}, None),
        ({"numa_node": 1, "irqs": {"9": {"effective": "0"}}}, "eth0 (ice) is at NUMA node 1"),
        ({"numa_node": 1, "irqs": {"9": {"effective": "5"}}}, None),
        ({"numa_node": 1, "irqs": {"9": {"effective": None, "affinity": "0-7"}}}, None),
        ({"numa_node": -1, "irqs": {"9": {"effective": "0"}}}, None),
        ({"numa_node": 1, "irqs": {}}, None),
        ({"aspm": ["l1", "l1_1"]}, "eth0 (ice) has a PCIe link that may sleep (ASPM l1, l1_1)"),
        ({"aspm": []}, None),
        ({"dma": "DMA-FQ"}, "an IOMMU translates what eth0 (ice) reads and writes"),
        ({"dma": "DMA"}, "an IOMMU translates"),
        ({"dma": "identity"}, None),
        ({"dma": None}, None),
    ],
)
def test_a_nic_and_its_place(nic: dict[str, Any], text: str | None) -> None:
    found = list(doctor_machine.of_nic(HOP2, "eth0", {"driver": "ice", **nic}, NODES))
    assert len(found) == (text is not None)
    assert all(each.text.startswith(str(text)) and each.level == "warning" for each in found)


TWO_NICS: dict[str, Any] = {
    "nic": {"networks": ["198.18.0.2/24", "fe80::2/64"], "arp_ignore": "0"},
    "egress_nic": {"addresses": ["198.18.0.102", "fe80::3"], "arp_ignore": "0"},
    "sysctls": {"net.ipv4.conf.all.arp_ignore": "0"},
}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, 1),
        # One of them answers still.
        ({"nic__arp_ignore": "1"}, 1),
        ({"nic__arp_ignore": "1", "egress_nic__arp_ignore": "2"}, 0),
        ({"sysctls": {"net.ipv4.conf.all.arp_ignore": "1"}}, 0),
        # Back to back: networks of their own.
        ({"egress_nic__addresses": ["198.18.1.2", "fe80::3"]}, 0),
        ({"egress_nic__addresses": []}, 0),
        ({"egress_nic": None}, 0),
        # A host that does not say.
        ({"nic__networks": None}, 0),
        ({"sysctls": {}}, 0),
    ],
)
def test_two_nics_on_one_network(changes: dict[str, Any], found: int) -> None:
    facts = changed(TWO_NICS, changes)
    said = list(doctor_wiring.of_two_nics(HOP1, facts))
    assert [each.text for each in said] == [
        "eth1 and eth2 are on one network, and each answers for the other's address"
    ] * found
    assert list(doctor_wiring.of_two_nics(HOP2, facts)) == []


# --- drivers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "kernel"),
    [("6.1.0-56-amd64", (6, 1)), ("6.12.43+deb13-cloud-amd64", (6, 12)), ("odd", None)],
)
def test_kernels(release: str, kernel: tuple[int, int] | None) -> None:
    assert xdp_drivers.kernel_of(release) == kernel


def test_the_table_of_drivers() -> None:
    assert not xdp_drivers.WITHOUT & set(xdp_drivers.DRIVERS)
    assert set(xdp_drivers.DRIVERS) >= xdp_drivers.OFFLOAD_DRIVERS
    for driver in xdp_drivers.DRIVERS.values():
        # XDP itself came with 4.8.
        assert driver.first_kernel >= (4, 8)
        assert 1500 <= driver.max_mtu <= xdp_drivers.PAGE_MTU


# --- on the host ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "route", "nic"),
    [
        ("192.0.2.1 51000 192.0.2.9 22", '[{"dev": "mgmt0"}]', "mgmt0"),
        ("fe80::1%mgmt0 51000 fe80::2%mgmt0 22", '[{"dev": "mgmt0"}]', "mgmt0"),
        ("192.0.2.1 51000 192.0.2.1 22", '[{"type": "local", "dev": "lo"}]', None),
        ("UNKNOWN 65535 UNKNOWN 65535", '[{"dev": "mgmt0"}]', None),
        (None, "[]", None),
        ("", "[]", None),
        ("192.0.2.1 51000 192.0.2.9 22", "RTNETLINK answers: Network is unreachable", None),
    ],
)
def test_the_nic_of_ssh(
    monkeypatch: pytest.MonkeyPatch, connection: str | None, route: str, nic: str | None
) -> None:
    monkeypatch.setattr(facts_read, "said", lambda argv: route)
    assert reach._ssh_nic(connection) == nic
