# SPDX-License-Identifier: Apache-2.0
"""The programs that run on a host before any deploy: facts and clean."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from bench.hop import clean, ethtool, facts, facts_nic, facts_read

# What `ip -json -details address show` says, shortened.
VETH = {
    "ifname": "eth0",
    "mtu": 1500,
    "address": "02:00:c6:12:00:02",
    "qdisc": "noqueue",
    "gro_max_size": 65536,
    "linkinfo": {"info_kind": "veth"},
    "xdp": {"mode": 1, "prog": {"id": 71}},
    "addr_info": [
        {"family": "inet", "local": "198.18.0.2", "prefixlen": 24},
        {"family": "inet6", "local": "2001:2::2", "prefixlen": 64},
    ],
}
VLAN = {
    "ifname": "eth0.7",
    "link": "eth0",
    "mtu": 1496,
    "linkinfo": {"info_kind": "vlan", "info_data": {"protocol": "802.1Q", "id": 7}},
    "addr_info": [],
}


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (VETH, (None, None)),
        (VLAN, (7, "eth0")),
        ({**VLAN, "link": None}, (7, None)),
        ({}, (None, None)),
        ({"linkinfo": None}, (None, None)),
    ],
)
def test_vlans(link: dict[str, Any], expected: tuple[int | None, str | None]) -> None:
    assert facts_nic._vlan(link) == expected


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with eth0 and, on it, eth0.7."""
    links = {"eth0": VETH, "eth0.7": VLAN}

    def said(argv: list[str]) -> str | None:
        name = argv[-1]
        return json.dumps([links[name]]) if argv[0] == "ip" and name in links else None

    is_dir = os.path.isdir
    names = {f"/sys/class/net/{name}" for name in links}
    monkeypatch.setattr(facts_read, "said", said)
    monkeypatch.setattr(facts_read, "text", lambda path: path.split("/net/")[-1])
    monkeypatch.setattr(facts_nic.os.path, "isdir", lambda path: path in names or is_dir(path))
    monkeypatch.setattr(ethtool, "features", lambda name: {"rx-vlan-hw-parse": True})


@pytest.mark.usefixtures("host")
def test_a_nic() -> None:
    nic = facts_nic.collect("eth0")
    assert nic is not None
    assert nic["addresses"] == ["198.18.0.2", "2001:2::2"]
    assert nic["gro_max_size"] == 65536
    assert nic["qdiscs"] == [{"kind": "noqueue", "handle": None}]
    assert (nic["xdp_mode"], nic["xdp_program"]) == ("native", 71)
    assert nic["offloads"]["rx-vlan-offload"] == "on"
    assert nic["offloads"]["large-receive-offload"] is None
    assert (nic["vlan_id"], nic["lower"], nic["lower_nic"]) == (None, None, None)
    assert {key: nic[key] for key in nic if "forward" in key or "accept" in key} == {
        "forwarding": "ipv4/conf/eth0/forwarding",
        "forwarding_ipv6": "ipv6/conf/eth0/forwarding",
        "force_forwarding_ipv6": "ipv6/conf/eth0/force_forwarding",
        "accept_local": "ipv4/conf/eth0/accept_local",
    }


@pytest.mark.usefixtures("host")
def test_a_nic_of_a_vlan() -> None:
    nic = facts_nic.collect("eth0.7")
    assert nic is not None
    assert (nic["vlan_id"], nic["lower"]) == (7, "eth0")
    assert nic["lower_nic"] == facts_nic.collect("eth0")


@pytest.mark.parametrize("name", ["", "hb-none"])
def test_no_nic(name: str) -> None:
    assert facts_nic.collect(name) is None


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        ([], ("", "")),
        (["lo"], ("lo", "")),
        (["lo", ""], ("lo", "")),
        (["lo", "eth1"], ("lo", "eth1")),
    ],
)
def test_the_facts_program(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    asked: tuple[str, str],
) -> None:
    monkeypatch.setattr(facts_nic, "collect", lambda name: {"name": name})
    monkeypatch.setattr(facts_read, "said", lambda argv: None)
    assert facts.main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["nic"]["name"], found["egress_nic"]["name"]) == asked
    assert "forwarding_ipv6_all" in found
    # No tool is there, and each of them is said to be missing.
    assert set(found["tools"].values()) == {None}
    assert {"siege", "nginx", "nft", "socat", "clang"} <= set(found["tools"])
    assert found["nft_tables"] is None


@pytest.mark.parametrize(
    ("there", "gone"),
    [
        ((), []),
        (("ip",), ["nft table ip hopbench"]),
        (("ip6",), ["nft table ip6 hopbench"]),
        (("ip", "ip6"), ["nft table ip hopbench", "nft table ip6 hopbench"]),
    ],
)
def test_tables_of_both_families_go(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], gone: list[str]
) -> None:
    def run(argv: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        assert argv[:3] == ["/sbin/nft", "delete", "table"] and argv[4] == "hopbench"
        return subprocess.CompletedProcess(argv, 0 if argv[3] in there else 1)

    monkeypatch.setattr(clean.shutil, "which", lambda name, path: f"/sbin/{name}")
    monkeypatch.setattr(clean.subprocess, "run", run)
    assert clean._delete_tables() == gone
    monkeypatch.setattr(clean.shutil, "which", lambda name, path: None)
    assert clean._delete_tables() == []
