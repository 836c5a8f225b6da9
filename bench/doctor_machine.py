# SPDX-License-Identifier: Apache-2.0
"""What of a machine's CPUs, slots and NIC settings makes figures slow or unsteady: for the doctor.

What a run says by itself before it begins is in readiness.py; this is what a look at a rack of new
machines should find besides. Firmware settings are seen by what they leave: sleep states, threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bench.chain import Chain, Host
from bench.doctor_nic import title
from bench.finding import Finding

Facts = Mapping[str, Any]

# Waking from C1 takes 1 or 2 µs, from C1E 10 on many CPUs; a hop with XDP costs a few.
_WAKE_LIMIT_US = 10
# Interrupts held back longer than this are most of a response time on an idle network.
_COALESCE_LIMIT_US = 20


def of_machines(chain: Chain, seen: Mapping[str, Facts]) -> Iterator[Finding]:
    """Look at each machine once, for the first of the hosts on it."""
    machines = set()
    for host in chain.hosts:
        found = seen.get(host.name)
        if found is not None and (machine := found.get("boot_id") or host.name) not in machines:
            machines.add(machine)
            yield from _machine(host, found)


def _machine(host: Host, found: Facts) -> Iterator[Finding]:
    """Look at sleep states, threads and irqbalance."""

    def warning(text: str, remedy: str) -> Finding:
        return Finding(host.name, "warning", text, remedy)

    states = (found.get("cpuidle") or {}).get("states") or {}
    deep = {name: us for name, us in states.items() if us >= _WAKE_LIMIT_US}
    if deep:
        name = max(deep, key=lambda each: deep[each])
        yield warning(
            f"CPUs may sleep as deep as {name}, from which they wake in {deep[name]} µs",
            f"cpupower idle-set -D {_WAKE_LIMIT_US}, or C-states off in the firmware",
        )
    if found.get("smt") is True and not (found.get("virtualisation") or {}).get("hypervisor"):
        yield warning(
            "two threads share a core (SMT): how fast one is depends on the other",
            "echo off > /sys/devices/system/cpu/smt/control, or in the firmware",
        )
    if found.get("irqbalance"):
        yield warning(
            "irqbalance runs and may move interrupts while a run measures",
            "systemctl stop irqbalance, once interrupts are where they should be",
        )


def of_nic(host: Host, name: str, nic: Facts, found: Facts) -> Iterator[Finding]:
    """Look at a NIC's slot, its way to memory and CPUs, and how long it holds interrupts back."""

    def warning(text: str, remedy: str) -> Finding:
        return Finding(host.name, "warning", text, remedy)

    called = title(name, nic)
    slot = nic.get("pcie") or {}
    now, most = ((_number(slot.get(key))) for key in ("speed", "max_speed"))
    width, widest = (_number(slot.get(key)) for key in ("width", "max_width"))
    if now and most and width and widest and now * width < most * widest:
        yield warning(
            f"{called} has {width:g} lanes of {now:g} GT/s, and could have {widest:g} of {most:g}",
            "put it into another slot, or see the slot's settings in the firmware",
        )
    if nic.get("aspm"):
        yield warning(
            f"{called} has a PCIe link that may sleep (ASPM {', '.join(nic['aspm'])})",
            "echo performance > /sys/module/pcie_aspm/parameters/policy, or off in the firmware",
        )
    # DMA, or DMA-FQ; where the IOMMU lets addresses through it says identity.
    if (nic.get("dma") or "").startswith("DMA"):
        yield warning(
            f"an IOMMU translates what {called} reads and writes",
            "iommu=pt on the kernel's command line, or the IOMMU off in the firmware",
        )
    nodes = (found.get("topology") or {}).get("numa_nodes") or 1
    if nodes > 1 and nic.get("numa_node") is not None and nic["numa_node"] >= 0:
        used = {
            each.get("effective") or each.get("affinity")
            for each in (nic.get("irqs") or {}).values()
        }
        yield from _far(host, called, nic["numa_node"], used, found)
    coalescing = nic.get("coalescing") or {}
    if coalescing.get("adaptive_rx") or coalescing.get("adaptive_tx"):
        yield warning(
            f"{called} adapts how long it holds interrupts back: latency follows the load",
            f"ethtool -C {name} adaptive-rx off adaptive-tx off rx-usecs 0, alike on every host",
        )
    elif (coalescing.get("rx_usecs") or 0) > _COALESCE_LIMIT_US:
        yield warning(
            f"{called} holds interrupts back for {coalescing['rx_usecs']} µs",
            f"ethtool -C {name} rx-usecs 0, alike on every host",
        )


def _far(
    host: Host, called: str, node: int, used: set[str | None], found: Facts
) -> Iterator[Finding]:
    cpus = ((found.get("topology") or {}).get("cpus_of_node") or {}).get(str(node))
    if not cpus:
        return
    near = set(_listed(cpus))
    places = {cpu for each in used if each for cpu in _listed(each)}
    if places and not places & near:
        yield Finding(
            host.name,
            "warning",
            f"{called} is at NUMA node {node}, and all its interrupts go to CPUs of another",
            f"/proc/irq/N/smp_affinity_list: CPUs {cpus}",
        )


def _listed(text: str) -> Iterator[int]:
    for part in text.split(","):
        low, _, high = part.partition("-")
        if low.isdecimal():
            yield from range(int(low), int(high if high.isdecimal() else low) + 1)


def _number(text: Any) -> float | None:
    """Return the number that a text begins with: `8.0 GT/s PCIe`."""
    match = re.match(r"\d+(\.\d+)?", text or "")
    return float(match[0]) if match else None
