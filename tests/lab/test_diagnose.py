# SPDX-License-Identifier: Apache-2.0
"""Every cause of odd numbers, provoked for real, has to be named at the right host."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.lab.model import NIC, Lab
from tests.lab.conftest import bench, inside, processes
from tests.lab.endpoints import counted

_CONNTRACK_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")
# What goes with load on a machine that all hosts share, what some kernels keep from the timer, and
# what a hypervisor gives to others.
_ALWAYS = {"cpu_saturated", "timer_losses", "cpu_steal"}

Causes = dict[str, dict[str, Any]]


@pytest.fixture
def diagnose(odd: Lab, tmp_path: Path) -> Callable[..., Causes]:
    """Return what runs a sweep and returns its causes by name."""

    def run(mode: str, **options: object) -> Causes:
        words = {"hops": 1, "size": 624, "blocks": 1, **options}
        pairs = [word for name, value in words.items() for word in (f"--{name}", str(value))]
        done = bench(
            *("run", "-i", odd.name, "--mode", mode, "--no-aa", "--output", tmp_path), *pairs
        )
        assert done.status == 0, done.stderr
        told = bench("diagnose", "latest", "--results", tmp_path, "--json")
        assert told.status == 0, told.stderr
        return {each["name"]: each for each in json.loads(told.stdout)["causes"]}

    return run


def expect(causes: Causes, name: str, *hosts: str, level: str = "problem", beside: str = "") -> str:
    """Check that a cause is found at these hosts, and no other problem; return its evidence."""
    assert name in causes, list(causes)
    assert causes[name]["level"] == level, causes[name]
    assert causes[name]["hosts"] == list(hosts), causes[name]
    problems = {each for each, cause in causes.items() if cause["level"] == "problem"}
    assert problems - _ALWAYS <= {name, *beside.split()}, causes
    assert causes[name]["samples"]["count"] > 0
    return "\n".join(causes[name]["evidence"])


# --- what is done to the hosts -----------------------------------------------------------------


@contextlib.contextmanager
def rules(lab: Lab, host: str, chain: str, rule: str) -> Iterator[None]:
    """Have a host's netfilter follow one more rule."""
    text = f"add table ip odd\nadd chain ip odd c {{ {chain}; }}\nadd rule ip odd c {rule}\n"
    inside(lab, host, "nft", text)
    try:
        yield
    finally:
        inside(lab, host, "nft", "delete table ip odd")


@contextlib.contextmanager
def sysctl(lab: Lab, host: str, name: str, value: str) -> Iterator[None]:
    """Set a host's sysctl for a while."""
    before = inside(lab, host, "sysctl", "-n", name).strip()
    inside(lab, host, "sysctl", "-qw", f"{name}={value}")
    try:
        yield
    finally:
        inside(lab, host, "sysctl", "-qw", f"{name}={before}")


@contextlib.contextmanager
def meanwhile(again: Callable[[threading.Event], None]) -> Iterator[None]:
    """Call something over and over in the background; it waits by the event, set at the end."""
    over = threading.Event()

    def loop() -> None:
        while not over.is_set():
            again(over)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def programs(lab: Lab, host: str, name: str) -> dict[int, str]:
    """Return what runs under a name at a host: process ids and command lines."""
    pids = subprocess.run(
        ["ip", "netns", "pids", lab.namespace(host)], capture_output=True, text=True, check=True
    ).stdout.split()
    return {pid: text for pid, text in processes(name) if str(pid) in pids}


def measuring(lab: Lab) -> set[int]:
    """Return the siege that makes a sample at this moment, by its process id."""
    # Facts ask siege for its version.
    return {pid for pid, text in programs(lab, "client", "siege").items() if "http:" in text}


@contextlib.contextmanager
def once_a_sample(
    lab: Lab, name: str, start: Callable[[], None], end: Callable[[], None]
) -> Iterator[None]:
    """Start a fault in the midst of every sample; end it when a server's counter rose by 20."""
    seen: set[int] = set()

    def provoke(over: threading.Event) -> None:
        sample = measuring(lab) - seen
        if sample:
            seen.update(sample)
            enough = counted(lab, "server").get(name, 0) + 20
            start()
            while counted(lab, "server").get(name, 0) < enough and sample & measuring(lab):
                over.wait(0.01)
            end()
        over.wait(0.02)

    with meanwhile(provoke):
        yield


# --- causes ------------------------------------------------------------------------------------


def test_syn_retransmission(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    syn = "tcp dport 8000 tcp flags & (syn | ack) == syn numgen inc mod 15 == 0 drop"
    with rules(odd, "server", "type filter hook input priority 0", syn):
        causes = diagnose("direct", concurrency=10, requests=100)
    assert "1 s (" in expect(causes, "syn_retransmission", "client")


def test_time_wait_collision(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    """A hop that gives every connection one of a few source ports, as the report of 2022 did."""
    source = f"tcp dport 8000 snat to {odd.hosts[1].data_ip}:40000-40031"
    with rules(odd, "hop1", "type nat hook postrouting priority srcnat - 10", source):
        causes = diagnose("nft", concurrency=10, requests=80)
    told = expect(causes, "time_wait_collision", "server", beside="port_exhaustion")
    assert "PAWS" in told
    assert causes["syn_retransmission"]["level"] == "note"


def test_checksum_corruption(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    """A veth that leaves checksums to the receiver, while XDP forwards."""

    def partial(state: str) -> None:
        inside(odd, "client", "ethtool", "-K", NIC, "tx", state)

    try:
        with once_a_sample(odd, "TcpInCsumErrors", lambda: partial("on"), lambda: partial("off")):
            causes = diagnose("xdp", concurrency=20, requests=8000)
    finally:
        partial("off")
    assert "TcpInCsumErrors" in expect(causes, "checksum_corruption", "server")


def test_listen_overflow(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    """A short queue, and a server that does not come to accepting for a while."""

    def send(number: int) -> None:
        for pid in programs(odd, "server", "nginx"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    with (
        sysctl(odd, "server", "net.core.somaxconn", "8"),
        once_a_sample(
            odd,
            "TcpExtListenOverflows",
            lambda: send(signal.SIGSTOP),
            lambda: send(signal.SIGCONT),
        ),
    ):
        causes = diagnose("direct", concurrency=50, requests=8000)
    assert "net.core.somaxconn 8" in expect(causes, "listen_overflow", "server")


def test_queue_drops(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    """More connections send at once than a veth's ring of 256 places takes."""
    causes = diagnose("direct", concurrency=50, size=2555904, requests=150, offloads="native")
    hosts = causes.get("queue_drops", {}).get("hosts", [])
    # The client's own ring may overflow, too, where it does not get to run for a while.
    assert set(hosts) in ({"server"}, {"client", "server"})
    assert re.search("NIC ring: .*server: nic_tx_dropped", expect(causes, "queue_drops", *hosts))


def test_conntrack_full(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    count = int(inside(odd, "hop1", "cat", "/proc/sys/net/netfilter/nf_conntrack_count"))
    before = _CONNTRACK_MAX.read_text()

    def mend(over: threading.Event) -> None:
        """Make room once connections were turned away, or they would be till siege gives up."""
        head, *lines = inside(odd, "hop1", "cat", "/proc/net/stat/nf_conntrack").splitlines()
        place = head.split().index("drop")
        if sum(int(line.split()[place], 16) for line in lines) >= 20:
            _CONNTRACK_MAX.write_text(before)
        over.wait(0.1)

    try:
        # Room for what verifies the way and the warm-up, but not for the sample.
        _CONNTRACK_MAX.write_text(str(count + 300))
        with meanwhile(mend):
            causes = diagnose("nft", concurrency=20, requests=2000)
    finally:
        _CONNTRACK_MAX.write_text(before)
    assert "conntrack_drop" in expect(causes, "conntrack_full", "hop1")


def test_port_exhaustion(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    with sysctl(odd, "client", "net.ipv4.ip_local_port_range", "20000 20015"):
        causes = diagnose("direct", concurrency=50, requests=500)
    told = expect(causes, "port_exhaustion", "client")
    assert "ports 20000 to 20015" in told


def test_cpu_saturated(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    """As many idle loops at a hop as there are CPUs."""
    loop = ["ip", "netns", "exec", odd.namespace("hop1"), "sh", "-c", "while :; do :; done"]
    loops = [subprocess.Popen(loop) for _ in range(os.cpu_count() or 1)]
    try:
        causes = diagnose("socat", concurrency=25, requests=400)
    finally:
        for each in loops:
            each.kill()
            each.wait()
    told = expect(causes, "cpu_saturated", "client", "hop1", "server", level="note")
    assert "the machine that client, hop1 and server share: all CPUs" in told


def test_offload_mismatch(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    """GRO merges at one hop, though the run has turned that off."""

    def merge(over: threading.Event) -> None:
        # Not while the run itself sets it, which it would notice.
        if not any("http:" in text for _, text in processes("siege")):
            over.wait(0.01)
            return
        inside(odd, "hop1", "ip", "link", "set", "dev", NIC, "gro_max_size", "65536")
        over.wait(0.05)

    with meanwhile(merge):
        causes = diagnose("nft,xdp", concurrency=5, size=2555904, requests=150)
    told = expect(causes, "offload_mismatch", "hop1", beside="queue_drops")
    assert "segments a packet" in told


def test_nothing(odd: Lab, diagnose: Callable[..., Causes]) -> None:
    """The same lab once everything is mended."""
    assert set(diagnose("direct,nft,xdp", concurrency=1, requests=300)) <= _ALWAYS
