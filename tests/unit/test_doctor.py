# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of facts: each row changes one thing on a host that is fine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nested import changed

from bench import doctor, readiness_ports
from bench.chain import Chain, Host
from bench.finding import Finding

NIC: dict[str, Any] = {
    "driver": "ixgbe",
    "up": True,
    "mtu": 1500,
    "mac": "02:00:00:00:00:02",
    "addresses": ["198.18.0.2", "2001:2::2", "fe80::2"],
    "rx_queues": 4,
    "channels": {"combined": 4, "combined_max": 4},
    "offloads": {"large-receive-offload": "off", "rx-gro-hw": "off", "rx-vlan-offload": "on"},
    "xdp_mode": "",
    "xdp_program": None,
    "forwarding": "1",
    "forwarding_ipv6": "1",
    "force_forwarding_ipv6": "1",
    "accept_local": "1",
    "send_redirects": "0",
    "vlan_id": None,
    "lower": None,
    "lower_nic": None,
}
FACTS: dict[str, Any] = {
    "kernel": "6.18.0",
    "os": "Debian GNU/Linux 13 (trixie)",
    "cpus": 4,
    "uid": 0,
    "time": 1000.0,
    "load_1min": 0.0,
    "governor": "performance",
    "tools": dict.fromkeys(("siege", "socat", "nft", "nginx", "unshare"), "1.0"),
    "modules": {"bcc": "0.29.1", "nftables": "present"},
    "kernel_headers": "/usr/src/linux-headers-6.18.0",
    "bpf": True,
    "ip_local_port_range": ["32768", "60999"],
    "send_redirects_all": "0",
    "forwarding_ipv6_all": "0",
    "nic": NIC,
    "egress_nic": None,
}
HOP = {"name": "hop1", "role": "hop", "data_ip": "198.18.0.2", "data_nic": "eth0", "port": 7000}


def facts(**changes: Any) -> dict[str, Any]:
    """Return the facts with some changed: `nic__mtu=9000`, `nic__offloads__rx-gro-hw="on"`."""
    return changed(FACTS, changes)


def said(changes: dict[str, Any], **host: Any) -> list[Finding]:
    """Return what the doctor finds on a hop, leaving out what is fine."""
    found = doctor._host(Host(**{**HOP, **host}), facts(**changes), (1000.0, 1000.0))
    return [finding for finding in found if finding.level != "ok"]


IPV6 = {"data_ip": "2001:2::2"}
VIRTIO = {"nic__driver": "virtio_net", "nic__channels": {"combined": 2, "combined_max": 4}}
UNTAGGED = {**NIC, "offloads": {"rx-vlan-offload": "off"}}
VLAN = {"nic__driver": "802.1Q VLAN Support", "nic__vlan_id": 7, "nic__lower": "eth9"}


def test_nothing_is_wrong() -> None:
    for host in ({}, IPV6, {"xdp_attach": "generic"}, {"nat_ports": (1024, 32767)}):
        assert said({}, **host) == []
    two = {"egress_nic": {**NIC, "addresses": []}}
    assert said(two, egress_nic="eth1") == []
    texts = [finding.text for finding in doctor._host(Host(**HOP), facts(), (1000.0, 1000.0))]
    assert texts[-1] == "eth0 (ixgbe): driver is known to run XDP natively"


@pytest.mark.parametrize(
    ("changes", "host", "level", "text", "remedy"),
    [
        ({"nic": None}, {}, "problem", "no NIC eth0", "correct data_nic in the inventory"),
        (
            {},
            {"egress_nic": "eth1"},
            "problem",
            "no NIC eth1",
            "correct egress_nic in the inventory",
        ),
        (
            {"nic__addresses": ["198.18.0.3"]},
            {},
            "problem",
            "eth0 (ixgbe) does not have",
            "data_ip",
        ),
        (
            {},
            {"data_ip": "2001:2::9"},
            "problem",
            "eth0 (ixgbe) does not have 2001:2::9",
            "data_ip",
        ),
        ({"nic__up": False}, {}, "problem", "eth0 (ixgbe) is down", "ip link set eth0 up"),
        ({"nic__driver": "e1000"}, {}, "problem", "eth0 (e1000): driver has no native", "another"),
        ({"nic__driver": "iavf"}, {}, "warning", "eth0 (iavf): driver is not known", "try it"),
        (
            {"nic__driver": "ice", "kernel": "5.4.0-150-generic"},
            {},
            "warning",
            "eth0 (ice): Linux 5.4.0-150-generic is older than native XDP in this driver, which "
            "came with 5.5",
            "use Linux 5.5 or later",
        ),
        (
            {"nic__driver": "bonding", "kernel": "5.14.0"},
            {},
            "warning",
            "eth0 (bonding): Linux 5.14.0 is older than native XDP in this driver, which came with "
            "5.15",
            "use Linux 5.15",
        ),
        (
            {"nic__driver": "ena", "nic__channels": {"combined": 5, "combined_max": 8}},
            {},
            "problem",
            "eth0 (ena) has 5 queues of at most 8, and native XDP wants half of them free",
            "ethtool -L eth0 combined 4",
        ),
        (
            {"nic__driver": "igc", "nic__mtu": 1501},
            {},
            "problem",
            "MTU 1501 on eth0 (igc): native XDP without fragments needs a packet in one page, "
            "1500 bytes",
            "ip link set eth0 mtu 1500",
        ),
        (
            {"nic__virtual_functions": 4},
            {},
            "problem",
            "eth0 (ixgbe) has 4 virtual functions (SR-IOV), with which it refuses native XDP",
            "echo 0 > /sys/class/net/eth0/device/sriov_numvfs",
        ),
        (
            {"cpus": 129},
            {},
            "problem",
            "eth0 (ixgbe) refuses native XDP on more than 128 CPUs, and here are 129",
            "nr_cpus=128",
        ),
        (
            {
                "nic__driver": "bnxt_en",
                "nic__channels": {"combined": 0, "combined_max": 8, "rx": 4},
            },
            {},
            "problem",
            "eth0 (bnxt_en) has its queues apart, 4 to receive by",
            "ethtool -L eth0 rx 0 tx 0 combined 4",
        ),
        ({"nic__driver": None}, {}, "warning", "eth0 (unknown driver): driver is not", "try it"),
        (
            {"nic__xdp_mode": "native", "nic__xdp_program": 7},
            {},
            "problem",
            "eth0 (ixgbe) already runs XDP program 7",
            "detach it",
        ),
        (
            {"nic__offloads__large-receive-offload": "on"},
            {},
            "warning",
            "large-receive-offload is on",
            "ethtool -K eth0 lro off",
        ),
        (
            {"nic__offloads__rx-gro-hw": "on"},
            {},
            "warning",
            "rx-gro-hw is on",
            "ethtool -K eth0 rx-gro-hw off",
        ),
        (
            {"nic__mtu": 3051},
            {},
            "problem",
            "MTU 3051 on eth0 (ixgbe): native XDP without fragments needs a packet in one page",
            "ip link set eth0 mtu 1500",
        ),
        ({"nic__forwarding": "0"}, {}, "problem", "forwarding is off on eth0", "run bench deploy"),
        (
            {"nic__forwarding_ipv6": "0"},
            IPV6,
            "problem",
            "forwarding is off on eth0",
            "run bench deploy",
        ),
        (
            {"nic__force_forwarding_ipv6": "0"},
            IPV6,
            "problem",
            "force_forwarding is off on eth0",
            "run bench deploy",
        ),
        (
            {"nic__force_forwarding_ipv6": None},
            IPV6,
            "warning",
            "before Linux 6.17 the stack forwards IPv6 for all NICs or for none: nft will not",
            "leave nft out",
        ),
        (
            {"nic__accept_local": "0"},
            {},
            "warning",
            "accept_local is off on eth0",
            "run bench deploy",
        ),
        ({"send_redirects_all": "1"}, {}, "warning", "ICMP redirects are on", "sysctl net.ipv4"),
        ({"nic__send_redirects": "1"}, {}, "warning", "ICMP redirects are on", "run bench deploy"),
        (
            {},
            {"nat_ports": (30000, 40000)},
            "problem",
            "nat_ports 30000-40000 overlap net.ipv4.ip_local_port_range 32768-60999",
            "choose nat_ports outside",
        ),
        ({}, {"nat_ports": (60999, 65535)}, "problem", "nat_ports 60999-65535 overlap", "choose"),
        ({}, {"nat_ports": (1024, 32768)}, "problem", "nat_ports 1024-32768 overlap", "choose"),
        (
            {},
            {"xdp_attach": "offload"},
            "warning",
            "eth0 (ixgbe): driver is not known to run XDP on the NIC itself",
            "set xdp_attach=native",
        ),
        (
            {**VIRTIO, "cpus": 3},
            {},
            "warning",
            "eth0 (virtio_net) has 2 queues of at most 4, and XDP wants one for each of 3 CPUs",
            "ethtool -L eth0 combined 1",
        ),
        (
            VIRTIO,
            {},
            "warning",
            "eth0 (virtio_net) has 2 queues of at most 4, and XDP wants one for each of 4 CPUs",
            "give the virtual machine 8 queues",
        ),
        (
            {**VLAN, "nic__lower_nic": NIC},
            {},
            "problem",
            "eth9 takes VLAN tags off (rx-vlan-offload): XDP cannot tell VLAN 7",
            "ethtool -K eth9 rxvlan off",
        ),
        (
            {**VLAN, "nic__lower_nic": {**NIC, "driver": "e1000", "offloads": {}}},
            {},
            "problem",
            "eth9 (e1000): driver has no native XDP",
            "another NIC",
        ),
    ],
)
def test_one_thing_is_wrong(
    changes: dict[str, Any], host: dict[str, Any], level: str, text: str, remedy: str
) -> None:
    (finding,) = said(changes, **host)
    assert (finding.host, finding.level) == ("hop1", level)
    assert finding.text.startswith(text)
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("changes", "host"),
    [
        # Of IPv4 alone, or of IPv6 alone.
        ({"nic__forwarding": "0", "nic__accept_local": "0", "send_redirects_all": "1"}, IPV6),
        ({"nic__forwarding_ipv6": None, "nic__force_forwarding_ipv6": None}, {}),
        ({"nic__force_forwarding_ipv6": None, "forwarding_ipv6_all": "1"}, IPV6),
        ({"nic__force_forwarding_ipv6": "0", "forwarding_ipv6_all": "1"}, IPV6),
        # A kernel that does not say.
        ({"nic__accept_local": None}, {}),
        ({"nic__mtu": None}, {}),
        ({"nic__channels": {"combined": None, "combined_max": None}, "nic__driver": "veth"}, {}),
        # What native XDP alone minds.
        ({"nic__mtu": 9000, "nic__driver": "e1000"}, {"xdp_attach": "generic"}),
        ({"nic__mtu": 9000, "nic__driver": "nfp"}, {"xdp_attach": "offload"}),
        ({"nic__mtu": 3050}, {}),
        ({"nic__virtual_functions": 4, "cpus": 256}, {"xdp_attach": "generic"}),
        ({"nic__virtual_functions": 4, "nic__driver": "ice", "cpus": 256}, {}),
        ({"nic__virtual_functions": 0, "cpus": 128}, {}),
        (
            {
                "nic__driver": "bnxt_en",
                "nic__channels": {"combined": 4, "combined_max": 8, "rx": 0},
            },
            {},
        ),
        ({"nic__mtu": 3498, "nic__driver": "mlx5_core"}, {}),
        ({"nic__driver": "ice", "kernel": "5.5.0"}, {}),
        ({"nic__driver": "ice", "kernel": "5.4.0"}, {"xdp_attach": "generic"}),
        ({"nic__driver": "ena", "nic__channels": {"combined": 4, "combined_max": 8}}, {}),
        ({"nic__offloads__large-receive-offload": "on", "nic__driver": "veth"}, {}),
        ({"nic__offloads__rx-gro-hw": "on", **VIRTIO, "cpus": 2}, {}),
        # Queues for every CPU, and a driver that shares none.
        ({**VIRTIO, "cpus": 2}, {}),
        ({"nic__channels": {"combined": 4, "combined_max": 4}}, {}),
        ({**VLAN, "nic__lower_nic": {**NIC, "offloads": {"rx-vlan-offload": "off"}}}, {}),
        ({}, {"nat_ports": (61000, 65535)}),
        ({"ip_local_port_range": []}, {"nat_ports": (30000, 40000)}),
    ],
)
def test_that_is_fine(changes: dict[str, Any], host: dict[str, Any]) -> None:
    assert said(changes, **host) == []


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"egress_nic": {**NIC, "up": False}}, ["eth1 (ixgbe) is down"]),
        ({"egress_nic": {**NIC, "driver": "e1000"}}, ["eth1 (e1000): driver has no native XDP"]),
        ({"egress_nic": {**NIC, "forwarding": "0"}}, ["forwarding is off on eth1 (ixgbe)"]),
        ({"egress_nic": {**NIC, "mtu": 9000}}, ["MTU 9000 on eth1 (ixgbe)"]),
        (
            {"egress_nic": {**NIC, "vlan_id": 7, "lower": "eth9", "lower_nic": UNTAGGED}},
            ["only one of eth0 and eth1 is a VLAN"],
        ),
        (
            {**VLAN, "nic__lower_nic": UNTAGGED, "egress_nic": NIC},
            ["only one of eth0 and eth1 is a VLAN"],
        ),
        (
            {
                **VLAN,
                "nic__lower_nic": UNTAGGED,
                "egress_nic": {**NIC, "vlan_id": 8, "lower": "eth9", "lower_nic": UNTAGGED},
            },
            [],
        ),
        # The host's own setting is said once.
        ({"egress_nic": NIC, "send_redirects_all": "1"}, ["ICMP redirects are on"]),
        # The data NIC is looked at as well.
        (
            {"egress_nic": {**NIC, "up": False}, "nic__up": False},
            ["eth0 (ixgbe) is down", "eth1 (ixgbe) is down"],
        ),
    ],
)
def test_the_egress_nic(changes: dict[str, Any], texts: list[str]) -> None:
    findings = said(changes, egress_nic="eth1")
    assert len(findings) == len(texts)
    for finding, text in zip(findings, texts, strict=True):
        assert finding.text.startswith(text)


@pytest.mark.parametrize("role", ["client", "server"])
def test_what_only_hops_need(role: str) -> None:
    changes = {"nic__driver": "e1000", "nic__mtu": 9000, "nic__forwarding": "0"}
    settings = {"egress_nic": "eth1", "nat_ports": (30000, 40000), "xdp_attach": "offload"}
    assert said(changes, role=role, **settings) == []
    assert [finding.text for finding in said({"nic": None}, role=role)] == ["no NIC eth0"]


def test_the_client_needs_bpf_for_its_timer() -> None:
    changes = {"bpf": False, "modules__bcc": None, "kernel_headers": None}
    texts = [finding.text for finding in said(changes, role="client")]
    assert len(texts) == 3
    assert "BPF" in texts[0] and "python3-bpfcc" in texts[1] and "headers" in texts[2]
    assert said(changes, role="server") == []


@pytest.mark.parametrize(
    ("theirs", "overlap"),
    [((32768, 60999), True), ((1024, 2048), True), ((1024, 2047), False), ((61000, 65535), False)],
)
def test_ports_of_client_and_hops(theirs: tuple[int, int], overlap: bool) -> None:
    client = Host("client", "client", "198.18.0.1", "eth0", 0)
    server = Host("server", "server", "198.18.0.3", "eth0", 8000)
    chain = Chain(Path("chain.ini"), client, (Host(**HOP),), server)
    seen = {
        "client": facts(ip_local_port_range=["2048", "60999"]),
        "hop1": facts(ip_local_port_range=list(map(str, theirs))),
    }
    assert bool(list(readiness_ports.overlapping(chain, seen))) is overlap
