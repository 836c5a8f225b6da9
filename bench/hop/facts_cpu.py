# SPDX-License-Identifier: Apache-2.0
"""The CPUs of a host: what they are, what sets their speed, and how deep they sleep."""

from __future__ import annotations

import glob
import os
import platform
import re
from typing import Any

from . import facts_read as read

_CPU = "/sys/devices/system/cpu"


def collect() -> dict[str, Any]:
    """Return the CPUs, what sets their speed, and how deep they sleep."""
    info = read.text("/proc/cpuinfo") or ""
    model, microcode = (
        re.search(rf"^{name}\s*: (.+)$", info, re.MULTILINE) for name in ("model name", "microcode")
    )
    flags = re.search(r"^flags\s*: (.+)$", info, re.MULTILINE)
    scaling = f"{_CPU}/cpu[0-9]*/cpufreq"
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "microcode": microcode[1] if microcode else None,
        "topology": _topology(),
        "governor": _each(f"{scaling}/scaling_governor"),
        "scaling_driver": _each(f"{scaling}/scaling_driver"),
        "frequency_khz": {
            "min": _each(f"{scaling}/scaling_min_freq"),
            "max": _each(f"{scaling}/scaling_max_freq"),
        },
        "energy_preference": _each(f"{scaling}/energy_performance_preference"),
        "turbo": _turbo(
            read.text(f"{_CPU}/intel_pstate/no_turbo"), read.text(f"{_CPU}/cpufreq/boost")
        ),
        "cpuidle": {
            "driver": read.text(f"{_CPU}/cpuidle/current_driver"),
            "governor": read.text(f"{_CPU}/cpuidle/current_governor"),
            "states": _idle_states(),
        },
        "smt": {"1": True, "0": False}.get(read.text(f"{_CPU}/smt/active") or ""),
        "irqbalance": "irqbalance" in read.texts("/proc/[0-9]*/comm").values(),
        "isolated_cpus": read.text(f"{_CPU}/isolated"),
        "nohz_full_cpus": read.text(f"{_CPU}/nohz_full"),
        "vulnerabilities": {
            os.path.basename(path): text
            for path, text in read.texts(f"{_CPU}/vulnerabilities/*").items()
        },
        "virtualisation": {
            "hypervisor": "hypervisor" in flags[1].split() if flags else None,
            "type": read.text("/sys/hypervisor/type"),
            "vendor": read.text("/sys/class/dmi/id/sys_vendor"),
            "product": read.text("/sys/class/dmi/id/product_name"),
        },
    }


def _topology() -> dict[str, Any]:
    """Return how many sockets, cores and threads this host has on line, and which are where."""
    cores, threads = set(), 0
    for path in glob.glob(f"{_CPU}/cpu[0-9]*/topology"):
        socket, core = (read.text(f"{path}/{name}") for name in ("physical_package_id", "core_id"))
        cores.add((socket, core))
        threads += 1
    nodes = read.texts("/sys/devices/system/node/node[0-9]*/cpulist")
    return {
        "sockets": len({socket for socket, _ in cores}) or None,
        "cores": len(cores) or None,
        "threads": threads or None,
        "numa_nodes": len(nodes) or None,
        "cpus_of_node": {path.split("/")[-2].removeprefix("node"): nodes[path] for path in nodes},
    }


def _idle_states() -> dict[str, int]:
    """Return {state: µs to wake from it} of those that a CPU may fall into, any CPU."""
    found: dict[str, int] = {}
    for path in glob.glob(f"{_CPU}/cpu[0-9]*/cpuidle/state[0-9]*"):
        name, latency_us = read.text(f"{path}/name"), read.number(f"{path}/latency")
        if name and latency_us is not None and read.text(f"{path}/disable") != "1":
            found[name] = max(latency_us, found.get(name, 0))
    return found


def _each(pattern: str) -> str | None:
    """Return what files of several CPUs say: once when they agree, each different word if not."""
    found = {text for text in read.texts(pattern).values() if text}
    return ", ".join(sorted(found)) or None


def _turbo(no_turbo: str | None, boost: str | None) -> bool | None:
    """Return whether CPUs may run faster than they can for long; None: this host does not say."""
    if no_turbo in ("0", "1"):
        return no_turbo == "0"
    return boost == "1" if boost in ("0", "1") else None
