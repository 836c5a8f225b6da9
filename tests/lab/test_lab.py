# SPDX-License-Identifier: Apache-2.0
"""The lab itself: up, down, status, side by side, and nothing left of one that fails."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab import files, lifecycle, network
from bench.lab.model import Lab
from tests.lab.conftest import bench, differences, inside, machine, wait_until


@pytest.fixture
def foreign_namespace() -> Iterator[str]:
    """A namespace that is not ours, with a name that a lab would want."""
    name = "hb-clash-hop2"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.parametrize("wire", ["xdp", "bridge"])
@pytest.mark.parametrize("hops", [1, 4])
def test_up_status_down(hops: int, wire: str) -> None:
    before = machine()
    up = bench("lab", "up", "--name", "one", "--hops", str(hops), "--wire", wire)
    try:
        assert up.status == 0, up.stderr
        assert Path(up.stdout.strip()).is_file()
        states = json.loads(bench("lab", "status", "--json").stdout)
        (state,) = [each for each in states if each["name"] == "one"]
        assert state["whole"] and state["hops"] == hops and state["wire"] == wire
        again = bench("lab", "up", "--name", "one")
        assert (again.status, "already up" in again.error) == (1, True)
    finally:
        assert bench("lab", "down", "--name", "one").status == 0
    assert bench("lab", "down", "--name", "one").status == 0
    assert differences(before) == {}


def test_hosts_have_what_the_datapath_needs(lab: Lab) -> None:
    """The three traps of veth: partial checksums, merged segments, a peer without a program."""
    for host in ("client", "hop3", "server"):
        features = inside(lab, host, "ethtool", "-k", "eth0")
        assert "tx-checksumming: off" in features
        assert "generic-receive-offload: on" in features
        link = json.loads(inside(lab, host, "ip", "-json", "-details", "link", "show", "eth0"))
        assert link[0]["gro_max_size"] == 65536
        assert int(inside(lab, host, "cat", "/proc/sys/net/ipv4/ip_default_ttl")) > 64
    assert network.wire_programs(lab) == len(lab.hosts)


def neighbour(lab: Lab, host: str, address: str) -> str:
    """Return what a host knows of a neighbour: its MAC address, once it has answered."""
    return inside(lab, host, "ip", "neighbour", "show", "to", address)


def test_every_host_reaches_every_other(lab: Lab) -> None:
    """ARP by broadcast passes the wire, and nothing leads out of the lab."""
    for here, there in (("client", "server"), ("server", "hop5"), ("hop2", "client")):
        address = {host.name: host.data_ip for host in lab.hosts}[there]
        probe = "import socket,sys; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); "
        probe += "s.sendto(b'x',(sys.argv[1],9))"
        inside(lab, here, "/usr/bin/python3", "-c", probe, address)
        routes = json.loads(inside(lab, here, "ip", "-json", "route"))
        assert [route["dst"] for route in routes] == [str(lab.network)]
        assert wait_until(lambda: "lladdr" in neighbour(lab, here, address)), (here, there)  # noqa: B023


def test_two_labs_side_by_side() -> None:
    first = lifecycle.up("first", hops=1)
    try:
        second = lifecycle.up("second", hops=2)
        try:
            assert first.network != second.network
            assert all(each.whole for each in lifecycle.status())
        finally:
            lifecycle.down("second")
        assert [each.whole for each in lifecycle.status() if each.lab.name == "first"] == [True]
    finally:
        lifecycle.down("first")


def test_failing_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine()

    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    for module, name in ((network, "_attach_wire"), (files, "write_inventory")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, broken)
            with pytest.raises(Exception, match="no space left"):
                lifecycle.up("half", hops=3)
        assert differences(before) == {}


def test_a_foreign_namespace_is_refused_and_kept(foreign_namespace: str) -> None:
    before = machine()
    done = bench("lab", "up", "--name", "clash", "--hops", "3")
    assert done.status == 1
    assert foreign_namespace in done.error
    assert differences(before) == {}
    assert Path(f"/run/netns/{foreign_namespace}").exists()


def test_64_hops() -> None:
    lab = lifecycle.up("big", hops=64)
    try:
        (state,) = [each for each in lifecycle.status() if each.lab.name == "big"]
        assert state.whole
        assert len(lab.hosts) == 66
    finally:
        lifecycle.down("big")


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["lab", "up", "--hops", "0"], 2, "1 to 64"),
        (["lab", "up", "--hops", "65"], 2, "1 to 64"),
        (["lab", "up", "--hops", "x"], 2, "not a valid integer"),
        (["lab", "up", "--name", "../etc"], 2, "lab name"),
        (["lab", "up", "--name", "a;reboot"], 2, "lab name"),
        (["lab", "down", "--name", ""], 2, "lab name"),
        (["lab", "up", "--wire", "tin"], 2, "wire"),
    ],
)
def test_bad_usage(arguments: list[str], status: int, word: str) -> None:
    before = machine()
    done = bench(*arguments)
    assert (done.status, word in done.stderr) == (status, True), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert differences(before) == {}
