# SPDX-License-Identifier: Apache-2.0
"""Counters of a host: against this machine's own tools, and what odd texts are read as."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.hop import ethtool, host

NETWORK = Path("/proc/self/net")


def nics() -> list[str]:
    """Return this machine's NICs, those that count for themselves first."""
    found = [path.parent.name for path in Path("/sys/class/net").glob("*/statistics")]
    return sorted(found, key=lambda name: (name == "lo", name))


def output(*argv: str, **env: str) -> str:
    """Return what a program prints; skips where there is no such program."""
    program = shutil.which(argv[0], path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"no {argv[0]}")
    done = subprocess.run(
        [program, *argv[1:]], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )
    return done.stdout


@pytest.fixture
def some_traffic() -> None:
    """One TCP connection within this machine."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        client.sendall(b"x" * 1000)
        listener.accept()[0].close()


# This machine


def test_counts_grow() -> None:
    counters = host.HostCounters(nics()[:2])
    began = time.monotonic()
    before = counters.snapshot()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(20):
            socket.create_connection(listener.getsockname()).close()
            # Until here it may not have been counted yet.
            listener.accept()[0].close()
    after, took_s = counters.snapshot(), time.monotonic() - began
    assert before["counts"].keys() == after["counts"].keys()
    grown = {name: after["counts"][name] - value for name, value in before["counts"].items()}
    # Idle time may go back a little (Documentation/filesystems/proc.rst), and clocks are set.
    unsteady = {"cpu_idle_s", "cpu_iowait_s", "realtime_s"}
    assert [name for name in grown if grown[name] < 0 and name not in unsteady] == []
    assert grown["TcpActiveOpens"] >= 20
    assert grown["TcpPassiveOpens"] >= 20
    assert 0 <= grown["monotonic_s"] <= took_s
    assert grown["cpu_user_s"] + grown["cpu_system_s"] <= took_s * (os.cpu_count() or 1) + 0.1


def test_names_of_this_machine() -> None:
    found = host.snapshot([nics()[0]])
    for name in (
        *("TcpRetransSegs", "TcpInCsumErrors", "TcpExtTCPSynRetrans", "TcpExtListenOverflows"),
        *("TcpExtPAWSEstab", "TcpExtPAWSActive", "TcpExtTCPTimeouts", "IpExtInOctets"),
        *("nic_rx_bytes", "nic_rx_dropped", "nic_tx_packets"),
        *("softnet_processed", "softnet_dropped", "softnet_time_squeeze"),
        *("cpu_user_s", "cpu_nice_s", "cpu_system_s", "cpu_irq_s", "cpu_softirq_s"),
        *("cpu_steal_s", "cpu_idle_s", "cpu_iowait_s", "cpu0_busy_s", "context_switches"),
        *("realtime_s", "monotonic_s", "boottime_s"),
    ):
        assert name in found["counts"], name
    assert {"tcp_time_wait", "tcp_inuse", "tcp_orphan"} <= found["gauges"].keys()
    settings = {"IpForwarding", "IpDefaultTTL", "TcpRtoMin", "TcpMaxConn", "TcpCurrEstab"}
    assert not settings & found["counts"].keys()
    assert not any(name.startswith("egress") for name in found["counts"])
    if (NETWORK / "snmp6").exists():
        assert "Ip6InReceives" in found["counts"]
    if (NETWORK / "stat/nf_conntrack").exists():
        assert {"conntrack_insert_failed", "conntrack_drop"} <= found["counts"].keys()
        assert "conntrack_entries" not in found["counts"]


@pytest.mark.usefixtures("some_traffic")
def test_the_same_as_nstat(tmp_path: Path) -> None:
    before = host.snapshot([])["counts"]
    printed = output("nstat", "-s", "-z", "-a", NSTAT_HISTORY=str(tmp_path / "history"))
    after = host.snapshot([])["counts"]
    theirs = {
        line.split()[0]: int(line.split()[1])
        for line in printed.splitlines()
        if re.fullmatch(r"\w+\s+\d+\s+[\d.]+", line)
    }
    assert len(theirs) > 100
    # Levels among its counters.
    gauges = host.snapshot([])["gauges"]
    assert theirs.keys() - before.keys() <= gauges.keys()
    for name, value in theirs.items():
        if name in before:
            assert before[name] <= value <= after[name], name


@pytest.mark.parametrize("nic", nics())
def test_the_same_as_ethtool(nic: str) -> None:
    def ours() -> dict[str, float]:
        counts = host.snapshot([nic])["counts"]
        return {
            name.removeprefix("ethtool_"): value
            for name, value in counts.items()
            if name.startswith("ethtool_")
        }

    before = ours()
    printed = output("ethtool", "-S", nic)
    after = ours()
    pairs = [line.strip().rpartition(": ") for line in printed.splitlines()[1:]]
    theirs = {name.strip(): int(value) for name, _, value in pairs if value.isdecimal()}
    assert before.keys() == theirs.keys()
    for name, value in theirs.items():
        assert before[name] <= value <= after[name], name


def test_the_same_as_sysfs() -> None:
    data, egress = [*nics(), *nics()][:2]
    counts = host.snapshot([data, egress])["counts"]
    for prefix, nic in (("nic_", data), ("egress_", egress)):
        for file in Path(f"/sys/class/net/{nic}/statistics").iterdir():
            assert counts[f"{prefix}{file.name}"] <= int(file.read_text()), file


@pytest.mark.parametrize("names", [[], [""], ["hb-none"], ["hb-none", "../.."], ["*", ""]])
def test_nics_that_are_not_there(names: list[str]) -> None:
    counts = host.snapshot(names)["counts"]
    assert "cpu_user_s" in counts
    assert not any(name.startswith(("nic_", "egress_", "ethtool_")) for name in counts)


def test_a_host_without_any_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_read", lambda path: "")
    found = host.snapshot(["lo"])
    assert found["counts"].keys() == {"realtime_s", "monotonic_s", "boottime_s"}
    assert found["gauges"] == {}


# Odd texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ip: A B\nIp: 1 2\n", {"IpA": 1, "IpB": 2}),
        # A kernel that has more names than values, or the reverse.
        ("Tcp: A B C\nTcp: 1 2\n", {"TcpA": 1, "TcpB": 2}),
        ("Tcp: A\nTcp: 1 2 3\n", {"TcpA": 1}),
        ("Tcp: MaxConn\nTcp: -1\n", {"TcpMaxConn": -1}),
        ("Ip: A\nTcp: 1\n", {}),
        ("Ip: A\n", {}),
        # A line that is lost takes its own group only.
        ("Ip: A\nTcp: A\nTcp: 1\nTcp: 2\nUdp: B\nUdp: 3\n", {"TcpA": 1, "UdpB": 3}),
        ("Ip:\nIp:\n\n\nTcp: A\nTcp: x\n", {}),
        ("", {}),
    ],
)
def test_lines_of_names_and_of_values(text: str, expected: dict[str, int]) -> None:
    assert dict(host._pairs_of_lines(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000000a 1 2\n", {"processed": 10, "dropped": 1, "time_squeeze": 2}),
        # Two CPUs of a kernel that says which.
        (
            "a 0 0 0 0 0 0 0 0 3 0 0 0\nb 1 0 0 0 0 0 0 0 4 2 0 3\n",
            {
                "processed": 21,
                "dropped": 1,
                "time_squeeze": 0,
                "received_rps": 7,
                "flow_limit": 2,
            },
        ),
        ("\n", {}),
        ("not hexadecimal\n", {}),
        ("", {}),
    ],
)
def test_softnet(text: str, expected: dict[str, int]) -> None:
    found = host._softnet(text, host._Grown())
    assert found == {f"softnet_{name}": value for name, value in expected.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "entries  clashres found  drop\n00000007 0 0000000a 1\n00000007 0 0 ffffffff\n",
            {"clashres": 0, "found": 10, "drop": 0x100000000},
        ),
        ("entries found\n", {}),
        ("entries found\n7\n", {}),
        ("entries found\nxyz 1\n", {}),
        ("", {}),
    ],
)
def test_conntrack(text: str, expected: dict[str, int]) -> None:
    found = host._conntrack(text, host._Grown())
    assert found == {f"conntrack_{name}": value for name, value in expected.items()}


def test_what_32_bits_cannot_hold() -> None:
    grown = host._Grown()
    told = [0, 5, 0xFFFFFFF0, 16, 0x80000000, 0xFFFFFFFF, 0, 7]
    meant = [grown.of("a", value) for value in told]
    assert meant == [0, 5, 0xFFFFFFF0, 1 << 32 | 16, 0x180000000, 0x1FFFFFFFF, 2 << 32, 2 << 32 | 7]
    # Another counter is another one, and one that is reset has not overflowed.
    assert [grown.of("b", value) for value in (1000, 3, 4)] == [1000, 3, 4]
    first = host._softnet("fffffff0 0 0\n", grown)["softnet_processed"]
    assert host._softnet("00000010 0 0\n", grown)["softnet_processed"] - first == 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "cpu  100 50 25 1000 10 0 5 1 7 8\ncpu3 100 50 25 1000 10 0 5 1 7 8\nctxt 42\n",
            {
                "cpu_user_s": 1.0,
                "cpu_nice_s": 0.5,
                "cpu_system_s": 0.25,
                "cpu_idle_s": 10.0,
                "cpu_iowait_s": 0.1,
                "cpu_irq_s": 0.0,
                "cpu_softirq_s": 0.05,
                "cpu_steal_s": 0.01,
                "cpu3_busy_s": 1.81,
                "context_switches": 42,
            },
        ),
        # A kernel before 2.6.11 had no steal.
        (
            "cpu 1 2 3 4\n",
            {f"cpu_{kind}_s": at / 100 for at, kind in enumerate(host._CPU_KINDS, 1) if at < 5},
        ),
        ("ctxt\nctxt many\n\nintr 1 2 3\n", {}),
        ("", {}),
    ],
)
def test_cpu_time(text: str, expected: dict[str, float]) -> None:
    assert host._cpu(text, 100) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("four", "six", "expected"),
    [
        (
            "sockets: used 12\nTCP: inuse 1 orphan 2 tw 3 alloc 4 mem 5\nUDP: inuse 9 mem 0\n",
            "TCP6: inuse 10\nUDP6: inuse 3\n",
            {"tcp_inuse": 11, "tcp_orphan": 2, "tcp_time_wait": 3},
        ),
        ("TCP: inuse\n", "", {}),
        ("TCP: inuse x tw 1\n", "\n", {"tcp_time_wait": 1}),
        ("", "TCP6: inuse 2\n", {"tcp_inuse": 2}),
        ("", "", {}),
    ],
)
def test_sockets(four: str, six: str, expected: dict[str, int]) -> None:
    assert host._sockets(four, six) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nr_free_pages 5\npswpin 3\npswpout 4\n", {"swapped_in_pages": 3, "swapped_out_pages": 4}),
        ("pswpin\npswpin x\npswpfoo 3\n", {}),
        ("", {}),
    ],
)
def test_swapped(text: str, expected: dict[str, int]) -> None:
    assert host._swapped(text) == expected


def test_limits_of_a_cgroup_and_of_those_above(tmp_path: Path) -> None:
    inner = tmp_path / "user" / "session"
    inner.mkdir(parents=True)
    (tmp_path / "cpu.stat").write_text("usage_usec 1\n")
    (tmp_path / "user" / "cpu.stat").write_text("usage_usec 1\nnr_periods 9\nnr_throttled 3\n")
    (inner / "cpu.stat").write_text("nr_throttled 4\nthrottled_usec 100\n")
    found = host._above(str(tmp_path), "/user/session")
    assert found == [str(inner / "cpu.stat"), str(tmp_path / "user" / "cpu.stat")]
    assert sum(host._throttled(Path(file).read_text()) for file in found) == 7
    assert host._above(str(tmp_path), "/") == []
    # A cgroup outside what this namespace may see.
    assert host._above(str(tmp_path), "/../elsewhere") == []
    assert host._throttled("nr_throttled x\n") == 0


@pytest.mark.parametrize(
    ("names", "values", "expected"),
    [
        (["a", "b"], (1, 2), {"a": 1, "b": 2}),
        # Of two with one name the first; blanks, with which some drivers pad, are no name.
        (["a", "a", "", "b"], (1, 2, 3, 4), {"a": 1, "b": 4}),
        (["a", "b"], (1,), {"a": 1}),
        ([], (), {}),
    ],
)
def test_names_of_a_driver(
    names: list[str], values: tuple[int, ...], expected: dict[str, int]
) -> None:
    assert ethtool.named(names, values) == expected


@pytest.fixture
def queues() -> Iterator[str]:
    """A veth with one queue whose number of queues can change."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a veth")
    name = f"hbt{os.getpid() % 100000}"
    made = subprocess.run(
        ["ip", "link", "add", name, "numrxqueues", "4", "numtxqueues", "4", "type", "veth"],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no veth: {made.stderr.decode().strip()}")
    try:
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


def test_a_nic_whose_queues_change(queues: str) -> None:
    statistics = ethtool.Statistics(queues)
    subprocess.run(
        ["ethtool", "-L", queues, "rx", "1", "tx", "1"], capture_output=True, check=False
    )
    few = statistics.read()
    subprocess.run(["ethtool", "-L", queues, "rx", "3", "tx", "3"], capture_output=True, check=True)
    more = statistics.read()
    assert few.keys() < more.keys()
    assert "rx_queue_2_drops" in more


@pytest.mark.parametrize(
    ("kind", "below", "expected"),
    [
        ("DEVTYPE=vlan\nINTERFACE=nic\n", ["lower_eth0"], "eth0"),
        ("DEVTYPE=vlan\n", [], "nic"),
        ("DEVTYPE=bond\n", ["lower_eth0"], "nic"),
        ("INTERFACE=nic\n", [], "nic"),
    ],
)
def test_a_vlan_counts_by_the_nic_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, below: list[str], expected: str
) -> None:
    monkeypatch.setattr(host, "_SYS_NIC", str(tmp_path))
    (tmp_path / "nic").mkdir()
    (tmp_path / "nic" / "uevent").write_text(kind)
    for name in below:
        (tmp_path / "nic" / name).mkdir()
    assert host._counting("nic") == expected
