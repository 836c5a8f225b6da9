# SPDX-License-Identifier: Apache-2.0
"""What a host is: kernel, CPUs, clocks, memory, tools, sysctls, NICs. Runs before any deploy.

`main([NIC, EGRESS_NIC])` prints one JSON object. A tool or file that is missing is recorded as
null. bench/facts.py sends this module and those it imports (facts_*, ethtool) to a host as one
program: nothing else of this package is there.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import mmap
import os
import platform
import re
import sys
import time
from typing import Any

from . import facts_cpu, facts_nic
from . import facts_read as read

# How each tool says its version; the first number-like word of the output is taken.
_TOOLS = {
    "siege": ["siege", "-R", "/dev/null", "--version"],
    "socat": ["socat", "-V"],
    "nft": ["nft", "--version"],
    "nginx": ["nginx", "-v"],
    "ethtool": ["ethtool", "--version"],
    "ip": ["ip", "-Version"],
    "tc": ["tc", "-Version"],
    "unshare": ["unshare", "--version"],
    "clang": ["clang", "--version"],
    "bpftool": ["bpftool", "version"],
}
_VERSION = re.compile(r"\d+\.\d+[\w.+~-]*")
_LIBRARIES = ("/usr/lib/*", "/usr/lib64", "/usr/local/lib", "/usr/lib")
_CLOCK = "/sys/devices/system/clocksource/clocksource0"

# Sysctls that change what is measured; those that a network namespace does not have are null in it.
_SYSCTLS = (
    *("kernel.bpf_stats_enabled", "kernel.numa_balancing", "kernel.timer_migration"),
    *("kernel.nmi_watchdog", "vm.swappiness"),
    *(
        f"net.core.{name}"
        for name in (
            *("somaxconn", "default_qdisc", "netdev_max_backlog", "netdev_budget"),
            *("netdev_budget_usecs", "dev_weight", "gro_normal_batch", "busy_poll", "busy_read"),
            *("rmem_default", "rmem_max", "wmem_default", "wmem_max", "rps_sock_flow_entries"),
            *("bpf_jit_enable", "bpf_jit_harden", "bpf_jit_limit"),
        )
    ),
    *(
        f"net.ipv4.{name}"
        for name in (
            *("ip_local_port_range", "ip_local_reserved_ports", "ip_early_demux", "ip_forward"),
            *("tcp_timestamps", "tcp_tw_reuse", "tcp_max_tw_buckets", "tcp_fin_timeout"),
            *("tcp_max_syn_backlog", "tcp_syncookies", "tcp_abort_on_overflow", "tcp_syn_retries"),
            *("tcp_syn_linear_timeouts", "tcp_synack_retries", "tcp_congestion_control"),
            *("tcp_mem", "tcp_rmem", "tcp_wmem", "tcp_window_scaling", "tcp_sack", "tcp_ecn"),
            *("tcp_fastopen", "tcp_slow_start_after_idle", "tcp_no_metrics_save"),
            *("tcp_autocorking", "tcp_early_demux", "tcp_mtu_probing", "tcp_limit_output_bytes"),
            *("tcp_max_orphans", "conf.all.rp_filter", "conf.all.accept_local"),
            "conf.all.arp_ignore",
        )
    ),
    *(
        f"net.netfilter.nf_conntrack_{name}"
        for name in (
            *("max", "buckets", "checksum", "acct", "tcp_be_liberal", "tcp_loose"),
            *("tcp_timeout_time_wait", "tcp_timeout_established"),
        )
    ),
)


def _version(tool: str, text: str | None) -> str | None:
    matches = _VERSION.findall(text or "")
    # siege complains about HOME first; its own version comes after its name.
    after = re.search(r"(?i)\bsiege (\d[\w.-]*)", text or "") if tool == "siege" else None
    return after[1] if after else matches[0] if matches else None


def _versions() -> dict[str, str | None]:
    return {tool: _version(tool, read.said(_command(argv))) for tool, argv in _TOOLS.items()}


def _command(argv: list[str]) -> list[str]:
    """Return the command with the newest of the names that Debian gives a tool: clang-22."""
    name, *rest = argv
    if name != "clang" or read.program(name):
        return argv
    numbered = [path for path in glob.glob("/usr/bin/clang-[0-9]*") if path[-1].isdigit()]
    found = max(numbered, key=read.by_number, default=name)
    return [os.path.basename(found), *rest]


def _module(name: str) -> str | None:
    """Return the version of a Python module of this interpreter, its presence, or None."""
    if importlib.util.find_spec(name) is None:
        return None
    if name == "bcc":
        text = read.text("/usr/lib/python3/dist-packages/bcc/version.py") or ""
        match = re.search(r"['\"]([\w.+~-]+)['\"]", text)
        return match[1] if match else "present"
    return "present"


def _libraries() -> dict[str, str | None]:
    """Return the files of BCC and of the LLVM, clang and libbpf that it is linked with."""
    bcc = next((path for each in _LIBRARIES for path in glob.glob(f"{each}/libbcc.so.0")), None)
    needs = {"llvm": rb"libLLVM", "clang": rb"libclang(?:-cpp)?", "libbpf": rb"libbpf"}
    found: dict[str, str | None] = dict.fromkeys(("bcc", *needs, "nftables"))
    if bcc is not None:
        folder = os.path.dirname(bcc)
        found["bcc"] = os.path.basename(os.path.realpath(bcc))
        for key, pattern in needs.items():
            soname = _needed(bcc, pattern)
            # None: built into BCC's own file.
            found[key] = soname and os.path.basename(os.path.realpath(f"{folder}/{soname}"))
    for each in _LIBRARIES:
        found["nftables"] = found["nftables"] or read.newest(f"{each}/libnftables.so.1")
    return found


def _needed(path: str, pattern: bytes) -> str | None:
    """Return the first name of a library in a file that matches; ELF has them near its start."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            match = re.search(rb"\0(" + pattern + rb"[-\w.]*\.so[\w.]*)\0", content)
            return match[1].decode() if match else None
    except (OSError, ValueError):
        return None


def _headers(release: str) -> str | None:
    """Return where the running kernel's headers are, or None."""
    base = f"/lib/modules/{release}"
    build = f"{base}/build"
    # Debian splits them: BCC follows `source` where it exists.
    source = f"{base}/source" if os.path.exists(f"{base}/source") else build
    if not os.path.exists(f"{source}/include/linux/kconfig.h"):
        return None
    return os.path.realpath(build)


def _os_name() -> str | None:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', read.text("/etc/os-release") or "", re.MULTILINE)
    return match[1] if match else None


def _memory() -> dict[str, Any]:
    """Return memory and swap in bytes, and what is swapped to."""
    pairs = re.findall(r"^(\w+):\s+(\d+) kB$", read.text("/proc/meminfo") or "", re.MULTILINE)
    found = {name: int(value) * 1024 for name, value in pairs}
    total, free = found.get("SwapTotal"), found.get("SwapFree")
    return {
        "memory": {
            "total_bytes": found.get("MemTotal"),
            "available_bytes": found.get("MemAvailable"),
        },
        "swap": {
            "total_bytes": total,
            "used_bytes": None if total is None or free is None else total - free,
            "devices": [
                line.split()[0] for line in (read.text("/proc/swaps") or "").splitlines()[1:]
            ],
        },
    }


def _sysctls() -> dict[str, str | None]:
    found = {}
    for name in _SYSCTLS:
        text = read.text(f"/proc/sys/{name.replace('.', '/')}")
        found[name] = None if text is None else " ".join(text.split())
    return found


def _time_wait() -> int | None:
    match = re.search(r"^TCP: .*\btw (\d+)", read.text("/proc/net/sockstat") or "", re.MULTILINE)
    return int(match[1]) if match else None


def _nft_tables(text: str | None) -> list[str] | None:
    """Return the tables of `nft list tables`, as `ip nat`; None where nft does not say."""
    if text is None or "Error" in text or "denied" in text:
        return None
    return sorted(line.removeprefix("table ") for line in text.splitlines() if line[:6] == "table ")


def collect(nic: str, egress_nic: str = "") -> dict[str, Any]:
    """Return this host's facts. egress_nic: empty on hosts that have none."""
    release = platform.release()
    return {
        "kernel": release,
        "kernel_build": platform.version(),
        "architecture": platform.machine(),
        "cmdline": read.text("/proc/cmdline"),
        "boot_id": read.text("/proc/sys/kernel/random/boot_id"),
        "os": _os_name(),
        **facts_cpu.collect(),
        **_memory(),
        "uid": os.geteuid(),
        "time": time.time(),
        "load_1min": float((read.text("/proc/loadavg") or "0").split()[0]),
        "clock_source": read.text(f"{_CLOCK}/current_clocksource"),
        "clock_sources": (read.text(f"{_CLOCK}/available_clocksource") or "").split(),
        "python": platform.python_version(),
        "tools": _versions(),
        "modules": {name: _module(name) for name in ("bcc", "nftables")},
        "libraries": _libraries(),
        "kernel_headers": _headers(release),
        "bpf": os.path.isdir("/sys/fs/bpf"),
        "btf": os.path.exists("/sys/kernel/btf/vmlinux"),
        "nft_tables": _nft_tables(read.said(["nft", "list", "tables"])),
        "tcp_time_wait": _time_wait(),
        "sysctls": _sysctls(),
        "ip_local_port_range": (read.text("/proc/sys/net/ipv4/ip_local_port_range") or "").split(),
        "send_redirects_all": read.text("/proc/sys/net/ipv4/conf/all/send_redirects"),
        "forwarding_ipv6_all": read.text("/proc/sys/net/ipv6/conf/all/forwarding"),
        "nic": facts_nic.collect(nic),
        "egress_nic": facts_nic.collect(egress_nic),
    }


def main(argv: list[str]) -> int:
    """Print the facts of this host and the NICs named."""
    print(json.dumps(collect(*(argv or [""])[:2])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
