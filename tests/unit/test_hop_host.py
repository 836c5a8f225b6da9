# SPDX-License-Identifier: Apache-2.0
"""The agent's sources, and what it does with this host: ports, neighbours, rules, children."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import paths
from bench.hop import compiler, config, net, process, program, version, xdp
from bench.hop.address import proc_address
from bench.hop.errors import HopError
from bench.hop.nft import NftForwarder
from bench.hop.socat import SocatForwarder

REPOSITORY = Path(__file__).parents[2]


def fails(work: Any, *arguments: Any) -> HopError:
    """Return the error that a call ends with; its cause is a phrase."""
    with pytest.raises(HopError) as caught:
        work(*arguments)
    assert caught.value.cause
    assert not caught.value.cause.endswith(".")
    return caught.value


# Sources


def test_our_own_sources() -> None:
    """Every local include is there, and the agent's version covers it."""
    assert paths.data_dir("bpf") == compiler.SOURCES
    for file in [*compiler.SOURCES.glob("*.c"), *compiler.SOURCES.glob("*.h")]:
        for included in re.findall(r'^#include "(.*)"$', file.read_text(), re.MULTILINE):
            assert (compiler.SOURCES / included).is_file(), f"{file.name} includes {included}"


def test_counters_are_those_of_the_c_structure() -> None:
    text = "\n".join(file.read_text() for file in compiler.SOURCES.glob("*.[ch]"))
    macro = text[text.index("#define COUNTERS(X)") :].split("\n\n")[0]
    listed = [line.split("(")[1].split(")")[0] for line in macro.splitlines()[1:]]
    assert program.counter_names() == listed
    assert len(set(listed)) == len(listed)
    assert {"flows_opened", "forwarded_packets", "dropped_no_route"} <= set(listed)
    for name in listed:
        assert re.search(rf"\b{name}\b", text.replace(macro, "")), f"{name} is never counted"


@pytest.mark.parametrize(
    ("ephemeral", "expected"),
    [
        ((32768, 60999), (1024, 32767)),
        ((10000, 30000), (30001, 65535)),
        ((1024, 32767), (32768, 65535)),
        ((2048, 65535), (1024, 2047)),
        ((1, 64511), (64512, 65535)),
        ((1, 500), (1024, 65535)),
        ((65535, 65535), (1024, 65534)),
        ((33280, 33280), (1024, 33279)),
    ],
)
def test_ports_for_flows(ephemeral: tuple[int, int], expected: tuple[int, int]) -> None:
    low, high = xdp.port_range(ephemeral)
    assert (low, high) == expected
    assert not {low, high} & set(range(ephemeral[0], ephemeral[1] + 1))


@pytest.mark.parametrize(
    "ephemeral", [(1, 65535), (1, 64512), (1024, 65535), (2047, 65535), (2047, 64513)]
)
def test_no_ports_for_flows(ephemeral: tuple[int, int]) -> None:
    error = fails(xdp.port_range, ephemeral)
    assert "net.ipv4.ip_local_port_range leaves no ports" in error.cause
    assert error.remedy == "narrow it to half its size"


def test_a_version_is_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = version.digest()
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    for file in compiler.SOURCES.glob("*.[ch]"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(version, "SOURCES", tmp_path)
    version.digest.cache_clear()
    try:
        assert version.digest() == first
        (tmp_path / "nat.h").write_text((tmp_path / "nat.h").read_text() + "\n")
        version.digest.cache_clear()
        assert version.digest() != first
    finally:
        version.digest.cache_clear()


# This host


def test_counters_of_this_host() -> None:
    before = net.tcp_counters()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        listener.accept()[0].close()
    after = net.tcp_counters()
    assert before.keys() == after.keys()
    assert after["PassiveOpens"] > before["PassiveOpens"]
    assert after["ActiveOpens"] > before["ActiveOpens"]


def test_ephemeral_ports_of_this_host() -> None:
    low, high = net.ephemeral_ports()
    assert 0 < low < high < 65536


@pytest.mark.parametrize(
    ("family", "local", "foreign"),
    [
        (socket.AF_INET, "127.0.0.1", "198.18.255.254"),
        (socket.AF_INET6, "::1", "2001:2:0:ffff::fffe"),
    ],
)
def test_ports_that_are_taken(family: socket.AddressFamily, local: str, foreign: str) -> None:
    with socket.create_server((local, 0), family=family) as listener:
        port = listener.getsockname()[1]
        error = fails(net.require_free_port, local, port)
        name = Path("/proc/self/comm").read_text().strip()
        assert error.cause == f"port {port} is taken by {name} (process {os.getpid()})"
    net.require_free_port(local, port)
    error = fails(net.require_free_port, foreign, port)
    assert error.cause == f"{foreign} is not an address of this host"
    # UDP is nobody's business here: no socket of the forwarders listens for it.
    with socket.socket(family, socket.SOCK_DGRAM) as other:
        other.bind((local, port))
        net.require_free_port(local, port)


@pytest.mark.parametrize(
    ("address", "device", "gateway", "states", "cause"),
    [
        ("127.0.0.1", "eth0", None, ["REACHABLE"], ""),
        ("127.0.0.1", "eth0", None, ["STALE"], ""),
        ("127.0.0.1", "eth0", "198.18.0.9", ["PERMANENT"], ""),
        ("127.0.0.1", "eth1", None, ["REACHABLE"], ""),
        ("127.0.0.1", "eth2", None, ["REACHABLE"], "the way to {} leaves by eth2, not {nics}"),
        ("127.0.0.1", "eth0", None, ["FAILED"], "next hop {} does not answer ARP on eth0"),
        ("127.0.0.1", "eth0", "198.18.0.9", [], "next hop 198.18.0.9 does not answer ARP on eth0"),
        ("::1", "eth0", None, ["DELAY"], ""),
        ("::1", "eth1", "fe80::9", ["REACHABLE"], ""),
        ("::1", "eth2", None, ["REACHABLE"], "the way to {} leaves by eth2, not {nics}"),
        ("::1", "eth1", "fe80::9", ["INCOMPLETE"], "next hop fe80::9 does not answer {ns} on eth1"),
    ],
)
@pytest.mark.parametrize("nics", [("eth0",), ("eth0", "eth1")])
def test_the_next_hop_answers_or_not(
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    device: str,
    gateway: str | None,
    states: list[str],
    cause: str,
    nics: tuple[str, ...],
) -> None:
    found = {"dev": device, "prefsrc": "198.18.0.2"} | ({"gateway": gateway} if gateway else {})

    def answer(*arguments: str) -> Any:
        if arguments[:2] == ("route", "get"):
            return [found]
        assert arguments == ("neigh", "show", "to", gateway or address, "dev", device)
        return [{"state": states}] if states else []

    monkeypatch.setattr(net, "ip_json", answer)
    monkeypatch.setattr(net, "NEIGHBOUR_LIMIT_S", 0.05)
    if device not in nics:
        cause = "the way to {} leaves by " + f"{device}, not {{nics}}"
    cause = cause.format(address, nics=" or ".join(nics), ns="neighbour solicitations")
    if cause:
        assert fails(net.resolve, address, nics).cause == cause
    else:
        assert net.resolve(address, nics) == net.route(address, nics) == (device, "198.18.0.2")


def test_a_way_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "ip_json", lambda *_: [{"dev": "eth1"}])
    for work in (net.route, net.resolve):
        error = fails(work, "fd00::3", ("eth0", "eth1"))
        assert error.cause == "eth1 has no address to reach fd00::3 with"


@pytest.mark.parametrize(
    ("family", "settings", "fib", "stack"),
    [
        (4, {"eth0/forwarding": 1}, "", ""),
        (4, {"eth0/forwarding": 0, "all/forwarding": 1}, "forwarding is off on eth0", None),
        (6, {"eth0/forwarding": 0, "all/forwarding": 1}, "forwarding is off on eth0", None),
        (6, {"eth0/forwarding": 1, "all/forwarding": 1}, "", ""),
        (6, {"eth0/forwarding": 1, "all/forwarding": 0}, "", "this kernel's stack forwards IPv6"),
        (
            6,
            {"eth0/forwarding": 1, "all/forwarding": 0, "eth0/force_forwarding": 0},
            "",
            "forwarding of IPv6 is off on eth0",
        ),
        (6, {"eth0/forwarding": 1, "all/forwarding": 0, "eth0/force_forwarding": 1}, "", ""),
    ],
)
def test_who_forwards(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: int,
    settings: dict[str, int],
    fib: str,
    stack: str | None,
) -> None:
    """fib: why bpf_fib_lookup would not; stack: why the stack would not, None for the same."""
    for name, value in settings.items():
        file = tmp_path / f"ipv{family}" / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    monkeypatch.setattr(net, "SYSCTL", tmp_path)
    for work, cause in (
        (net.require_forwarding, fib),
        (net.require_stack_forwarding, fib if stack is None else stack),
    ):
        if cause:
            error = fails(work, "eth0", family)
            assert error.cause.startswith(cause)
            assert error.remedy
        else:
            work("eth0", family)


@pytest.mark.skipif(sys.byteorder != "little", reason="the texts are a little-endian kernel's")
@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("198.18.0.2", "020012C6:1B58"),
        ("127.0.0.1", "0100007F:1B58"),
        ("2001:2::2", "02000120000000000000000002000000:1B58"),
        ("::1", "00000000000000000000000001000000:1B58"),
    ],
)
def test_sockets_in_proc(address: str, text: str) -> None:
    assert proc_address(address, 7000) == text
    if address.endswith("1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, 0), family=family) as listener:
            here = proc_address(address, listener.getsockname()[1])
            assert here in Path("/proc/net/tcp6" if ":" in address else "/proc/net/tcp").read_text()


def test_what_is_not_installed() -> None:
    error = fails(process.tool, "no-such-program")
    assert (error.cause, error.remedy) == ("no-such-program is not installed", "run bench deploy")


def test_forwarders_that_were_not_started() -> None:
    place = config.Place("lo", "127.0.0.1", 7000)
    for forwarder in (SocatForwarder(place), NftForwarder(place)):
        assert forwarder.counters()["flows_opened"] == 0
        forwarder.stop()
        forwarder.stop()


class FakeNft:
    """libnftables' answers, in place of the kernel's."""

    def __init__(self, refuse: str = "") -> None:
        self.said: list[str] = []
        self.refuse = refuse

    def cmd(self, text: str) -> tuple[int, str, str]:
        self.said.append(text)
        if text.startswith("list table"):
            return (0, "{}", "") if self.refuse == "table" else (1, "", "No such file")
        if text.startswith("list counters"):
            counter = {"counter": {"name": "flows", "packets": 4}}
            other = {"counter": {"name": "masqueraded", "packets": 3}}
            return 0, json.dumps({"nftables": [{"metainfo": {}}, counter, other]}), ""
        return (1, "", "Error: syntax error\nadd\n^^^") if self.refuse == "rules" else (0, "", "")


@pytest.mark.parametrize(
    ("refuse", "cause"),
    [
        ("", ""),
        ("table", "the nft table ip hopbench is already there, and nobody owns it"),
        ("rules", "nft refuses the rules: Error: syntax error"),
    ],
)
@pytest.mark.parametrize(
    ("ip", "place", "next_ip", "end"),
    [
        ("ip", config.Place("eth0", "198.18.0.2", 7000), "198.18.0.3", "198.18.0.3:8000"),
        (
            "ip6",
            config.Place("eth0", "2001:2::2", 7000, egress_nic="eth1"),
            "2001:2:0:1::3",
            "[2001:2:0:1::3]:8000",
        ),
    ],
)
def test_what_nft_is_told(
    monkeypatch: pytest.MonkeyPatch,
    refuse: str,
    cause: str,
    ip: str,
    place: config.Place,
    next_ip: str,
    end: str,
) -> None:
    asked = []
    monkeypatch.setattr(net, "require_stack_forwarding", lambda *each: asked.append(each))
    monkeypatch.setattr(net, "require_free_port", lambda address, port: None)
    monkeypatch.setattr(net, "route", lambda address, nics: (nics[-1], place.data_ip))
    forwarder = NftForwarder(place)
    nft = FakeNft(refuse)
    forwarder._nft = nft
    target = config.Target("nft", "native", next_ip, 8000)
    if cause:
        assert fails(forwarder.start, target).cause == cause
        forwarder.stop()
        # What is another's stays.
        assert not [text for text in nft.said if text.startswith("delete")]
        return
    assert forwarder.start(target) == {"table": "hopbench"}
    assert asked == [(nic, place.family) for nic in place.nics]
    assert nft.said[:2] == ["list table ip hopbench", "list table ip6 hopbench"]
    lines = nft.said[-1].splitlines()
    assert f"add table {ip} hopbench {{ flags owner; }}" in lines
    assert all(line.split()[2] == ip for line in lines if line)
    match = 'iifname "eth0" {} daddr {} meta l4proto {{ tcp, udp }} th dport 7000 '
    assert match.format(ip, place.data_ip) in nft.said[-1]
    assert f"counter name flows dnat to {end}\n" in nft.said[-1]
    match = 'oifname "{}" ct status dnat {} daddr {} meta l4proto {{ tcp, udp }} th dport 8000 '
    assert match.format(place.nics[-1], ip, next_ip) in nft.said[-1]
    assert forwarder.counters() == {"flows_opened": 4, "flows_masqueraded": 3}
    assert nft.said[-1] == f"list counters table {ip} hopbench"
    forwarder.stop()
    assert nft.said[-1] == f"delete table {ip} hopbench"


def test_a_child_ends_with_its_agent() -> None:
    code = (
        f"import sys, time; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from bench.hop import process\n"
        "print(process.spawn(['/bin/sleep', '60']).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}/comm").read_text() == "sleep\n"
        parent.kill()
    until = time.monotonic() + 5
    while alive(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(child)


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_children_are_waited_for() -> None:
    quick = process.spawn(["/bin/sh", "-c", "echo why >&2; exit 3"])
    assert not process.wait_for(lambda: False, 5.0, quick)
    assert quick.stderr is not None
    assert (quick.wait(), quick.stderr.read()) == (3, b"why\n")
    process.end(quick)
    slow = process.spawn(["/bin/sleep", "60"])
    assert not process.wait_for(lambda: False, 0.05, slow)
    assert process.wait_for(lambda: True, 0.05, slow)
    process.end(slow)
    assert slow.returncode == -signal.SIGKILL
    process.end(slow)
