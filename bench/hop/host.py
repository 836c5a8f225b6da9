# SPDX-License-Identifier: Apache-2.0
"""What a host has counted so far: its stack, NICs, CPUs and clocks, read before and after a sample.

A file or an ioctl that this host does not have is a name that is absent, never an error.
"""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import Iterator, Sequence

from . import ethtool

Numbers = dict[str, float]

_NETWORK, _SYS_NIC, _CPUS = "/proc/self/net", "/sys/class/net", "/sys/devices/system/cpu"
_PREFIXES = ("", "egress_")

# Settings and levels among what the stack counts; nstat leaves most of them out as well
# (useless_numbers in iproute2's misc/nstat.c).
_SETTINGS = {"IpForwarding", "IpDefaultTTL", "TcpRtoAlgorithm", "TcpRtoMin", "TcpRtoMax"}
_LEVELS = {"TcpCurrEstab", "MPTcpExtMPCurrEstab"}
_SETTINGS |= {"TcpMaxConn", *_LEVELS}
# Documentation/filesystems/proc.rst. User and nice include what guests of this host took.
_CPU_KINDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_IDLE = {"idle", "iowait"}
# net/core/net-procfs.c, softnet_seq_show: words of a line by their place.
_SOFTNET = {0: "processed", 1: "dropped", 2: "time_squeeze", 9: "received_rps", 10: "flow_limit"}
_SOFTNET_CPU = 12
_CLOCKS = {
    "realtime_s": time.CLOCK_REALTIME,
    "monotonic_s": time.CLOCK_MONOTONIC,
    "boottime_s": time.CLOCK_BOOTTIME,
}
_SOCKETS = {"inuse": "tcp_inuse", "orphan": "tcp_orphan", "tw": "tcp_time_wait"}
_SWAPPED = {"pswpin": "swapped_in_pages", "pswpout": "swapped_out_pages"}


def snapshot(nics: Sequence[str]) -> dict[str, Numbers]:
    """Return this host's counters once; whoever reads them again and again keeps a HostCounters."""
    return HostCounters(nics).snapshot()


class HostCounters:
    """Reads this host's counters, with what does not change found out beforehand.

    nics: the data NIC and, on a hop that has one, the egress NIC; more are not looked at.
    """

    def __init__(self, nics: Sequence[str]) -> None:
        pairs = list(zip(_PREFIXES, filter(None, nics), strict=False))
        self._statistics = [
            (f"{prefix or 'nic_'}{os.path.basename(path)}", path)
            for prefix, nic in pairs
            for path in sorted(glob.glob(f"{_SYS_NIC}/{glob.escape(nic)}/statistics/*"))
        ] + [
            (f"{prefix or 'nic_'}carrier_down", f"{_SYS_NIC}/{nic}/carrier_down_count")
            for prefix, nic in pairs
        ]
        self._ethtool = [(prefix, ethtool.Statistics(_counting(nic))) for prefix, nic in pairs]
        self._thermal = _thermal_files()
        self._cgroup = _throttling_files()
        self._grown = _Grown()

    def snapshot(self) -> dict[str, Numbers]:
        """Return {"counts": {name: what grew since boot}, "gauges": {name: what is now}}."""
        stack = dict(_stack())
        counts: Numbers = {name: value for name, value in stack.items() if name not in _SETTINGS}
        gauges: Numbers = {name: stack[name] for name in _LEVELS if name in stack}
        counts |= self._nics()
        counts |= _softnet(_read(f"{_NETWORK}/softnet_stat"), self._grown)
        counts |= _conntrack(_read(f"{_NETWORK}/stat/nf_conntrack"), self._grown)
        counts |= _cpu(_read("/proc/stat"), os.sysconf("SC_CLK_TCK"))
        counts |= _swapped(_read("/proc/vmstat"))
        if self._thermal:
            counts["throttled_cpu"] = sum(_number(path) or 0 for path in self._thermal)
        limits = [_read(path) for path in self._cgroup]
        # One that has gone would make the sum smaller than it was.
        if limits and all(limits):
            counts["throttled_cgroup"] = sum(map(_throttled, limits))
        gauges |= _sockets(_read(f"{_NETWORK}/sockstat"), _read(f"{_NETWORK}/sockstat6"))
        for name in ("count", "max"):
            value = _number(f"/proc/sys/net/netfilter/nf_conntrack_{name}")
            if value is not None:
                gauges[f"conntrack_{name}"] = value
        # Last and together, so that they say how far the clocks went apart.
        counts |= {name: time.clock_gettime(clock) for name, clock in _CLOCKS.items()}
        return {"counts": counts, "gauges": gauges}

    def _nics(self) -> Numbers:
        found: Numbers = {}
        for name, path in self._statistics:
            value = _number(path)
            if value is not None:
                found[name] = value
        for prefix, statistics in self._ethtool:
            with contextlib.suppress(OSError):
                found |= {
                    f"{prefix}ethtool_{name}": value for name, value in statistics.read().items()
                }
        return found


class _Grown:
    """Counters of 32 bits that go on where the kernel's start anew."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._turns: dict[str, int] = {}

    def of(self, key: str, value: int) -> int:
        """Return the counter's value as if it had more bits."""
        # Only from the upper half to the lower: another fall is no overflow but a counter reset.
        if value < 1 << 31 <= self._last.get(key, 0):
            self._turns[key] = self._turns.get(key, 0) + 1
        self._last[key] = value
        return value + (self._turns.get(key, 0) << 32)


def _read(path: str) -> str:
    """Return a file of /proc or /sys, empty where it is missing or refuses."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.removeprefix("-").isdecimal() else None


def _counting(nic: str) -> str:
    """Return the NIC that does a NIC's counting: the one below a VLAN."""
    below = glob.glob(f"{_SYS_NIC}/{glob.escape(nic)}/lower_*")
    is_vlan = "DEVTYPE=vlan" in _read(f"{_SYS_NIC}/{nic}/uevent").split()
    return os.path.basename(below[0])[len("lower_") :] if is_vlan and len(below) == 1 else nic


def _stack() -> Iterator[tuple[str, int]]:
    for name in ("snmp", "netstat"):
        yield from _pairs_of_lines(_read(f"{_NETWORK}/{name}"))
    for line in _read(f"{_NETWORK}/snmp6").splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdecimal():
            yield words[0], int(words[1])


def _pairs_of_lines(text: str) -> Iterator[tuple[str, int]]:
    """Yield nstat's names and the values of snmp and netstat: a line of names, a line of values."""
    keys: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if keys and words[:1] == keys[:1]:
            for key, number in zip(keys[1:], words[1:], strict=False):
                if number.removeprefix("-").isdecimal():
                    yield keys[0].removesuffix(":") + key, int(number)
            words = []
        keys = words


def _softnet(text: str, grown: _Grown) -> Numbers:
    """Sum softnet_stat, hexadecimal and one line a CPU that is there."""
    total: Numbers = {}
    for at, line in enumerate(text.splitlines()):
        words = _hexadecimal(line)
        cpu = words[_SOFTNET_CPU] if len(words) > _SOFTNET_CPU else at
        for place, name in _SOFTNET.items():
            if place < len(words):
                key = f"softnet_{name}"
                total[key] = total.get(key, 0) + grown.of(f"{key} {cpu}", words[place])
    return total


def _conntrack(text: str, grown: _Grown) -> Numbers:
    """Sum nf_conntrack's statistics, hexadecimal, one line a CPU below a line of names."""
    head, *lines = text.splitlines() or [""]
    total: Numbers = {}
    for cpu, line in enumerate(lines):
        for name, value in zip(head.split(), _hexadecimal(line), strict=False):
            # Each line has the whole table's.
            if name != "entries":
                key = f"conntrack_{name}"
                total[key] = total.get(key, 0) + grown.of(f"{key} {cpu}", value)
    return total


def _hexadecimal(line: str) -> list[int]:
    try:
        return [int(word, 16) for word in line.split()]
    except ValueError:
        return []


def _cpu(text: str, ticks_per_s: float) -> Numbers:
    """Return CPU time by kind over all CPUs, each CPU's busy time, and context switches."""
    found: Numbers = {}
    for line in text.splitlines():
        name, *words = line.split() or [""]
        if name.startswith("cpu"):
            times = [int(word) / ticks_per_s for word in words if word.isdecimal()]
            spent = dict(zip(_CPU_KINDS, times, strict=False))
            if name == "cpu":
                found |= {f"cpu_{kind}_s": value for kind, value in spent.items()}
            else:
                busy_s = sum(value for kind, value in spent.items() if kind not in _IDLE)
                found[f"{name}_busy_s"] = busy_s
        elif name == "ctxt" and words and words[0].isdecimal():
            found["context_switches"] = int(words[0])
    return found


def _swapped(text: str) -> Numbers:
    pairs = [line.partition(" ") for line in text.splitlines() if line.startswith("pswp")]
    return {
        _SWAPPED[name]: int(value)
        for name, _, value in pairs
        if name in _SWAPPED and value.isdecimal()
    }


def _sockets(*texts: str) -> Numbers:
    """Return TCP's sockets of IPv4 and IPv6 together; TIME_WAIT and orphans are said once."""
    found: Numbers = {}
    for line in "\n".join(texts).splitlines():
        kind, *words = line.split() or [""]
        if kind not in ("TCP:", "TCP6:"):
            continue
        for name, value in zip(words[::2], words[1::2], strict=False):
            if name in _SOCKETS and value.isdecimal():
                found[_SOCKETS[name]] = found.get(_SOCKETS[name], 0) + int(value)
    return found


def _thermal_files() -> list[str]:
    """Return the files that count how often heat slowed a core or a package, each of them once."""
    files: dict[tuple[str, ...], str] = {}
    for folder in sorted(glob.glob(f"{_CPUS}/cpu[0-9]*/thermal_throttle")):
        topology = f"{os.path.dirname(folder)}/topology"
        package = _read(f"{topology}/physical_package_id").strip()
        core = _read(f"{topology}/core_id").strip()
        for key in (("core", package, core), ("package", package)):
            path = f"{folder}/{key[0]}_throttle_count"
            if os.path.exists(path):
                files.setdefault(key, path)
    return list(files.values())


def _throttling_files() -> list[str]:
    """Return cpu.stat of this process's cgroup and those above it: each may have a limit.

    `ip netns exec` hides the cgroups behind a /sys of its own; who called it still has them.
    """
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        bases = ("", "unified") if not controllers else ("cpu", "cpu,cpuacct")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root in _roots():
            for base in bases:
                top = os.path.normpath(f"{root}/sys/fs/cgroup/{base}")
                files = _above(top, path)
                if files:
                    return files
    return []


def _roots() -> Iterator[str]:
    """Yield where the root folder is to be seen: here, and as the first process and parents do."""
    yield ""
    yield "/proc/1/root"
    pid = str(os.getpid())
    while pid not in ("", "0", "1"):
        yield f"/proc/{pid}/root"
        # The name in brackets may have blanks of its own; the parent is the second word after it.
        pid = "".join(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1:2])


def _above(top: str, path: str) -> list[str]:
    """Return the files that count throttling from a cgroup's folder up to the top."""
    folder, files = os.path.normpath(f"{top}/{path}"), []
    while folder.startswith(top):
        if "nr_throttled" in _read(f"{folder}/cpu.stat"):
            files.append(f"{folder}/cpu.stat")
        folder = os.path.dirname(folder)
    return files


def _throttled(text: str) -> int:
    """Return nr_throttled of a cgroup's cpu.stat."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "nr_throttled" and value.strip().isdecimal():
            return int(value)
    return 0
