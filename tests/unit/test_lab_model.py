# SPDX-License-Identifier: Apache-2.0
"""What follows from a lab's name, index and hop count, and the inventory that comes with it."""

from __future__ import annotations

import ipaddress
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from bench import paths
from bench.errors import BenchError, UsageError
from bench.inventory import load
from bench.lab.files import inventory_text, read_state
from bench.lab.model import (
    ADDRESSES,
    ADDRESSES_IPV6,
    MAX_HOPS,
    MAX_LABS,
    Family,
    Lab,
    check_hops,
    check_name,
)

INDEXES = (0, 1, 255, 256, MAX_LABS - 1)
LONGEST = "a" * 16
# include/uapi/linux/if.h: IFNAMSIZ, with the final zero.
IFNAMSIZ = 16


@pytest.mark.parametrize("hops", [1, 2, MAX_HOPS])
def test_every_host_of_every_lab_is_told_apart(hops: int) -> None:
    labs = [Lab(f"lab{index}", index, hops, "xdp") for index in INDEXES]
    labs += [Lab(f"six{index}", index, hops, "xdp", 6) for index in INDEXES]
    hosts = [host for lab in labs for host in lab.hosts]
    assert len(hosts) == len(labs) * (hops + 2)
    for values in (
        {host.data_ip for host in hosts},
        {host.mac for host in hosts},
        {host.namespace for host in hosts},
    ):
        assert len(values) == len(hosts)
    assert not {lab.namespace("wire") for lab in labs} & {host.namespace for host in hosts}
    for lab in labs:
        assert [host.name for host in lab.hosts] == [
            "client",
            *(f"hop{number}" for number in range(1, hops + 1)),
            "server",
        ]
        assert len({host.port for host in lab.hosts}) == hops + 2


@pytest.mark.parametrize("index", INDEXES)
def test_addresses_are_those_for_benchmarks(index: int) -> None:
    lab = Lab(LONGEST, index, MAX_HOPS, "bridge")
    assert lab.network.prefixlen == 24
    assert lab.network.subnet_of(ADDRESSES)
    for number, host in enumerate(lab.hosts, start=1):
        address = ipaddress.IPv4Address(host.data_ip)
        assert address in lab.network
        assert address not in (lab.network.network_address, lab.network.broadcast_address)
        assert int(address) - int(lab.network.network_address) == number


@pytest.mark.parametrize("index", INDEXES)
def test_ipv6_addresses_are_those_for_benchmarks(index: int) -> None:
    lab = Lab(LONGEST, index, MAX_HOPS, "bridge", 6)
    assert lab.network.prefixlen == 64
    assert str(lab.network) == str(ipaddress.IPv6Network(f"2001:2:0:{index:x}::/64"))
    assert ipaddress.IPv6Network(lab.network).subnet_of(ADDRESSES_IPV6)
    for number, host in enumerate(lab.hosts, start=1):
        assert host.data_ip == str(ipaddress.IPv6Address(f"2001:2:0:{index:x}::{number:x}"))


@pytest.mark.parametrize("family", [4, 6])
def test_macs_are_local_and_of_one_machine(family: Family) -> None:
    """IEEE 802: bit 1 of the first octet means locally administered, bit 0 a group."""
    for number, host in enumerate(Lab("local", 257, MAX_HOPS, "xdp", family).hosts, start=1):
        octets = [int(part, 16) for part in host.mac.split(":")]
        assert len(octets) == 6
        assert octets[0] & 0b11 == 0b10
        if family == 4:
            assert ".".join(map(str, octets[2:])) == host.data_ip
        else:
            assert octets == [2, 0, 0, 1, 1, number]


def test_names_fit_where_they_go() -> None:
    lab = Lab(LONGEST, 0, MAX_HOPS, "xdp")
    for host in lab.hosts:
        assert len(host.port) < IFNAMSIZ
        assert host.namespace == f"hb-{LONGEST}-{host.name}"
        assert len(host.namespace) < 255
    assert lab.namespace("wire") == f"hb-{LONGEST}-wire"


def test_the_first_lab() -> None:
    lab = Lab("local", 0, 5, "xdp")
    assert (str(lab.network), str(lab.folder)) == ("198.18.0.0/24", "/run/hopbench/local")
    assert lab.inventory == lab.folder / "inventory.ini"
    first, last = lab.hosts[0], lab.hosts[-1]
    assert (first.name, first.data_ip, first.port) == ("client", "198.18.0.1", "p1")
    assert (last.name, last.data_ip, last.port) == ("server", "198.18.0.7", "p7")
    assert (last.namespace, last.mac) == ("hb-local-server", "02:00:c6:12:00:07")


def test_the_first_lab_of_ipv6() -> None:
    lab = Lab("local", 0, 5, "xdp", 6)
    assert str(lab.network) == "2001:2::/64"
    first, last = lab.hosts[0], lab.hosts[-1]
    assert (first.data_ip, first.mac) == ("2001:2::1", "02:00:00:00:00:01")
    assert (last.data_ip, last.mac) == ("2001:2::7", "02:00:00:00:00:07")
    assert last.namespace == "hb-local-server"


@pytest.mark.parametrize("name", ["a", "local", "a-1", "lab2", LONGEST, "a-", "a" * 15 + "9"])
def test_names_of_labs(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "-", "-a", "1a", "A", "Local", "a" * 17, "a" * 5000),
        *("a_b", "a.b", "a b", "a/b", "../a", "a/..", "/a", "a\n", "a\0", "a;b", "$(id)", "a%h"),
        *("ä", "a\u0300", "\u0430", "a\u200b"),
    ],
)
def test_no_names_of_labs(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    line = caught.value.one_line()
    assert line.startswith("lab name ")
    assert line.endswith(" is not 1 to 16 lower-case letters, digits and hyphens, a letter first")
    assert line.isprintable()
    assert len(line) < 250


@pytest.mark.parametrize("hops", [1, 2, MAX_HOPS])
def test_hop_counts(hops: int) -> None:
    assert check_hops(hops) == hops


@pytest.mark.parametrize("hops", [0, -1, MAX_HOPS + 1, 10**9])
def test_no_hop_counts(hops: int) -> None:
    with pytest.raises(UsageError, match=rf"a lab has 1 to {MAX_HOPS} hops, not {hops}"):
        check_hops(hops)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("hops", [1, 5, MAX_HOPS])
def test_the_inventory_describes_the_lab(tmp_path: Path, hops: int, family: Family) -> None:
    lab = Lab("demo", 3, hops, "xdp", family)
    path = tmp_path / "inventory.ini"
    path.write_text(inventory_text(lab))
    chain = load(str(path))
    assert [(host.name, host.data_ip) for host in chain.hosts] == [
        (host.name, host.data_ip) for host in lab.hosts
    ]
    assert chain.family == family
    assert {host.data_nic for host in chain.hosts} == {"eth0"}
    assert [host.port for host in chain.hosts] == [0, *([7000] * hops), 8000]
    for host in chain.hosts:
        assert host.ssh_vars["ansible_user"] == "root"
        assert shlex.split(host.ssh_vars["ansible_ssh_common_args"]) == [
            "-F",
            "/run/hopbench/demo/ssh_config",
        ]


@pytest.mark.parametrize(
    ("change", "family"),
    [({}, 4), ({"family": 6}, 6), ({"family": 4}, 4), ({"family": None}, None), ({"family": 5}, 5)],
)
def test_the_state_of_a_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], family: int | None
) -> None:
    monkeypatch.setattr(paths, "runtime_dir", lambda: tmp_path)
    (tmp_path / "demo").mkdir()
    state = {"index": 3, "hops": 2, "wire": "xdp", "owner": None, **change}
    (tmp_path / "demo" / "lab.json").write_text(json.dumps(state))
    if family in (4, 6):
        assert read_state("demo") == (Lab("demo", 3, 2, "xdp", 6 if family == 6 else 4), None)
    else:
        with pytest.raises(BenchError, match=r"lab.json is damaged: family"):
            read_state("demo")


def without_leading_comments(text: str) -> list[str]:
    """Return the lines from the first that is no comment."""
    lines = text.splitlines()
    while lines and lines[0].startswith("#"):
        del lines[0]
    return lines


def test_local_ini_is_the_default_lab() -> None:
    written = (paths.data_dir("inventories") / "local.ini").read_text()
    made = inventory_text(Lab("local", 0, 5, "xdp"))
    assert without_leading_comments(written) == without_leading_comments(made)


@pytest.mark.parametrize("name", ["local", "lab", "containers", "physical.example"])
def test_inventories_that_come_along(name: str) -> None:
    chain = load(str(paths.data_dir("inventories") / f"{name}.ini"))
    assert len(chain.hops) >= 3
