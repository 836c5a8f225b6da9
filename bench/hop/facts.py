# SPDX-License-Identifier: Apache-2.0
"""What a host is: kernel, tools, NIC, XDP. Self-contained, so that it runs before any deploy.

`python3 facts.py NIC [EGRESS_NIC]` prints one JSON object. A tool or file that is missing is
recorded as null.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from typing import Any

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How each tool says its version; the first number-like word of the output is taken.
_TOOLS = {
    "siege": ["siege", "-R", "/dev/null", "--version"],
    "socat": ["socat", "-V"],
    "nft": ["nft", "--version"],
    "nginx": ["nginx", "-v"],
    "ethtool": ["ethtool", "--version"],
    "ip": ["ip", "-Version"],
    "unshare": ["unshare", "--version"],
}
_VERSION = re.compile(r"\d+\.\d+[\w.+~-]*")
_OFFLOADS = (
    "tx-checksumming",
    "generic-receive-offload",
    "large-receive-offload",
    "rx-gro-hw",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "rx-vlan-offload",
)


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _run(argv: list[str]) -> str | None:
    program = shutil.which(argv[0], path=_PATH)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=10,
            check=False,
            # siege writes into HOME even when it is only asked for its version.
            env={"PATH": _PATH, "LC_ALL": "C", "HOME": "/nonexistent"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace")


def _versions() -> dict[str, str | None]:
    found = {}
    for tool, argv in _TOOLS.items():
        text = _run(argv)
        matches = _VERSION.findall(text or "")
        # siege complains about HOME first; its own version comes after its name.
        after = re.search(r"(?i)\bsiege (\d[\w.-]*)", text or "") if tool == "siege" else None
        found[tool] = after[1] if after else matches[0] if matches else None
    return found


def _module(name: str) -> str | None:
    """Return the version of a Python module of this interpreter, its presence, or None."""
    if importlib.util.find_spec(name) is None:
        return None
    if name == "bcc":
        text = _read("/usr/lib/python3/dist-packages/bcc/version.py") or ""
        match = re.search(r"['\"]([\w.+~-]+)['\"]", text)
        return match[1] if match else "present"
    return "present"


def _headers(release: str) -> str | None:
    """Return where the running kernel's headers are, or None."""
    base = f"/lib/modules/{release}"
    build = f"{base}/build"
    # Debian splits them: BCC follows `source` where it exists.
    source = f"{base}/source" if os.path.exists(f"{base}/source") else build
    if not os.path.exists(f"{source}/include/linux/kconfig.h"):
        return None
    return os.path.realpath(build)


def _channels(text: str) -> dict[str, int | None]:
    """Return what `ethtool -l` says of queues that send and receive: how many, and at most."""
    found = [int(each) for each in re.findall(r"^Combined:\s*(\d+)", text, re.MULTILINE)]
    most, now = found if len(found) == 2 else (None, None)
    return {"combined": now, "combined_max": most}


def _vlan(link: dict[str, Any]) -> tuple[int | None, str | None]:
    """Return the tag of a VLAN device and the NIC below it, of what `ip -details -json` says."""
    info = link.get("linkinfo") or {}
    if info.get("info_kind") != "vlan":
        return None, None
    return (info.get("info_data") or {}).get("id"), link.get("link")


def _nic(name: str) -> dict[str, Any] | None:
    base = f"/sys/class/net/{name}"
    if not name or not os.path.isdir(base):
        return None
    text = _run(["ip", "-json", "-details", "address", "show", "dev", name])
    try:
        link = json.loads(text or "[]")[0]
    except (ValueError, IndexError):
        link = {}
    features = dict(
        line.strip().split(": ", 1)
        for line in (_run(["ethtool", "-k", name]) or "").splitlines()
        if ": " in line
    )
    driver = re.search(r"^driver: (.+)$", _run(["ethtool", "-i", name]) or "", re.MULTILINE)
    xdp = link.get("xdp") or {}
    conf, conf6 = (f"/proc/sys/net/{ip}/conf/{name}" for ip in ("ipv4", "ipv6"))
    vlan_id, lower = _vlan(link)
    return {
        "driver": driver[1] if driver else None,
        "up": (_read(f"{base}/operstate") or "") in ("up", "unknown"),
        "mtu": link.get("mtu"),
        "mac": link.get("address"),
        "addresses": [each["local"] for each in link.get("addr_info", []) if "local" in each],
        "rx_queues": len([q for q in os.listdir(f"{base}/queues") if q.startswith("rx-")]),
        "channels": _channels(_run(["ethtool", "-l", name]) or ""),
        "offloads": {key: features.get(key, "").split(" ")[0] or None for key in _OFFLOADS},
        "xdp_mode": {1: "native", 2: "generic", 3: "offload"}.get(int(xdp.get("mode") or 0), ""),
        "xdp_program": (xdp.get("prog") or {}).get("id"),
        "forwarding": _read(f"{conf}/forwarding"),
        "forwarding_ipv6": _read(f"{conf6}/forwarding"),
        "force_forwarding_ipv6": _read(f"{conf6}/force_forwarding"),
        "accept_local": _read(f"{conf}/accept_local"),
        "send_redirects": _read(f"{conf}/send_redirects"),
        "vlan_id": vlan_id,
        "lower": lower,
        # XDP sees a tagged frame on the NIC below: what matters to it is asked there.
        "lower_nic": _nic(lower) if lower else None,
    }


def _cpu_model() -> str | None:
    match = re.search(r"^model name\s*: (.+)$", _read("/proc/cpuinfo") or "", re.MULTILINE)
    return match[1] if match else platform.machine()


def _os_name() -> str | None:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read("/etc/os-release") or "", re.MULTILINE)
    return match[1] if match else None


def collect(nic: str, egress_nic: str = "") -> dict[str, Any]:
    """Return this host's facts. egress_nic: empty on hosts that have none."""
    release = platform.release()
    return {
        "kernel": release,
        "os": _os_name(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "uid": os.geteuid(),
        "time": time.time(),
        "load_1min": float((_read("/proc/loadavg") or "0").split()[0]),
        "clock_source": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "python": platform.python_version(),
        "tools": _versions(),
        "modules": {name: _module(name) for name in ("bcc", "nftables")},
        "kernel_headers": _headers(release),
        "bpf": os.path.isdir("/sys/fs/bpf"),
        "ip_local_port_range": (_read("/proc/sys/net/ipv4/ip_local_port_range") or "").split(),
        "send_redirects_all": _read("/proc/sys/net/ipv4/conf/all/send_redirects"),
        "forwarding_ipv6_all": _read("/proc/sys/net/ipv6/conf/all/forwarding"),
        "nic": _nic(nic),
        "egress_nic": _nic(egress_nic),
    }


def main(argv: list[str]) -> int:
    """Print the facts of this host and the NICs named."""
    print(json.dumps(collect(*(argv or [""])[:2])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
