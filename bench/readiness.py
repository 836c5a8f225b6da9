# SPDX-License-Identifier: Apache-2.0
"""What about the hosts would make figures wrong or unsteady, seen before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.chain import Chain, Host
from bench.doctor_nic import title
from bench.finding import Finding
from bench.readiness_ports import Planned, of_plan, port_range

__all__ = ["Planned", "findings", "get", "nics", "of_chain", "of_host", "of_machines"]

Facts = Mapping[str, Any]

# The kernel asks these through a bus or counts by the tick, which costs each packet that is stamped
# and each timer a microsecond or so; tsc, kvm-clock, arch_sys_counter and their like are read.
_SLOW_CLOCKS = frozenset(["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"])
# Pages of idle programs that were swapped out long ago are no harm.
_SWAP_LIMIT_BYTES = 64 << 20
# BCC's compiler takes 167 MB while it works.
_MEMORY_LIMIT_BYTES = 200_000_000
_LOAD_A_CPU = 0.5
# What the kernel gives a NIC by itself; its default can be set (net.core.default_qdisc).
_DEFAULT_QDISCS = frozenset(["noqueue", "mq", "pfifo_fast", "fq_codel", "fq", "pfifo"])
# Only places for filters.
_EMPTY_QDISCS = frozenset(["clsact", "ingress"])
# Of the ports that a host may connect from. The rest is left for the run to begin with.
_TIME_WAIT_SHARE = 0.25
# In these, hops have to be alike for the cost of one to mean anything.
_LIKE = (("kernel",), ("cpu",), ("cpus",), ("nic", "driver"), ("nic", "firmware"))


def findings(chain: Chain, facts: Mapping[str, Facts], planned: Planned) -> list[Finding]:
    """Return what is not as it should be before a run, in chain order; nothing for what is fine.

    facts: {host name: its facts}, of the hosts that take part. What is true of a machine is said
    once, for the first of the hosts on it.
    """
    seen = {
        host.name: facts[host.name]
        for host in chain.hosts
        if isinstance(facts.get(host.name), Mapping)
    }
    found = [*of_machines(chain, seen), *of_chain(chain, seen), *of_plan(chain, seen, planned)]
    for host in chain.hosts:
        if host.name in seen:
            found += of_host(host, seen[host.name])
    names = [host.name for host in chain.hosts]
    return sorted(dict.fromkeys(found), key=lambda finding: names.index(finding.host))


def of_machines(chain: Chain, seen: Mapping[str, Facts]) -> Iterator[Finding]:
    """Look at CPUs, clocks, memory and load: once for hosts that share a machine."""
    machines: dict[str, list[str]] = {}
    for host in chain.hosts:
        if host.name in seen:
            # Hosts that do not say are each on a machine of their own.
            machine = get(seen[host.name], "boot_id") or f"host {host.name}"
            machines.setdefault(str(machine), []).append(host.name)
    hops = {host.name for host in chain.hops}
    for first, *others in machines.values():
        count = len(others)
        also = f", the same for {count} other host{'s' * (count > 1)} on this machine"
        for text, remedy in _machine(seen[first], bool(hops & {first, *others})):
            yield Finding(first, "warning", text + also * (count > 0), remedy)


def _machine(found: Facts, has_hop: bool) -> Iterator[tuple[str, str]]:
    """Yield what a machine is wrong in, and the remedy."""
    governor = get(found, "governor")
    if governor not in (None, "performance"):
        yield f"CPU governor {governor}", "cpupower frequency-set -g performance"
    if get(found, "turbo") is True:
        intel = get(found, "scaling_driver") in ("intel_pstate", "intel_cpufreq")
        yield (
            "turbo is on: how fast a CPU is depends on its heat and on what others do",
            "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo"
            if intel
            else "echo 0 > /sys/devices/system/cpu/cpufreq/boost",
        )
    clock = get(found, "clock_source")
    if clock in _SLOW_CLOCKS:
        others = [each for each in get(found, "clock_sources") or [] if each not in _SLOW_CLOCKS]
        yield (
            f"clock source {clock} is slow to read",
            f"echo {others[0]} > /sys/devices/system/clocksource/clocksource0/current_clocksource"
            if others
            else "see in dmesg why the kernel gave up the CPU's own clock",
        )
    load, cpus = get(found, "load_1min"), get(found, "cpus") or 1
    if load is not None and load > _LOAD_A_CPU * cpus:
        yield (
            f"load average {load:.1f} on {cpus} CPUs in the last minute",
            "end what else runs before measuring; after a deploy, wait for a minute",
        )
    swapped = get(found, "swap", "used_bytes") or 0
    if swapped > _SWAP_LIMIT_BYTES:
        yield f"{_mb(swapped)} MB are swapped out", "end what takes the memory, then swapoff -a"
    left = get(found, "memory", "available_bytes")
    if has_hop and left is not None and left < _MEMORY_LIMIT_BYTES:
        yield (
            f"{_mb(left)} MB of memory are left, and a hop compiles with 167 MB",
            "end what takes the memory, or give the machine more",
        )
    if has_hop and get(found, "sysctls", "net.core.bpf_jit_enable") == "0":
        yield (
            "BPF is interpreted, which is several times slower",
            "sysctl net.core.bpf_jit_enable=1",
        )
    if get(found, "sysctls", "kernel.bpf_stats_enabled") == "1":
        yield "each run of a BPF program is timed", "sysctl kernel.bpf_stats_enabled=0"


def _mb(size_bytes: int) -> int:
    return round(size_bytes / 1e6)


def of_host(host: Host, found: Facts) -> Iterator[Finding]:
    """Look for what others left on a host's NICs, and for interrupts that meet on one CPU."""

    def warning(text: str, remedy: str) -> Finding:
        return Finding(host.name, "warning", text, remedy)

    default = get(found, "sysctls", "net.core.default_qdisc")
    for name, nic in nics(host, found):
        if get(nic, "xdp_mode"):
            yield Finding(
                host.name,
                "problem" if host.role == "hop" else "warning",
                f"{title(name, nic)} already runs XDP program {_program(nic)}",
                "detach it, or wait for the run that holds it; bench clean removes our own",
            )
        kinds = {get(each, "kind") for each in get(nic, "qdiscs") or []} - {None, default}
        for kind in sorted(map(str, kinds - _DEFAULT_QDISCS - _EMPTY_QDISCS)):
            yield warning(f"{name} has the qdisc {kind}", f"tc qdisc del dev {name} root")
        for hook, filters in (get(nic, "tc_filters") or {}).items():
            yield warning(
                f"{name} has filters of tc ({hook}: {', '.join(filters)})",
                f"tc filter del dev {name} {hook}",
            )
        for hook, programs in (get(nic, "tcx") or {}).items():
            if programs:
                numbers = ", ".join(map(str, programs))
                yield warning(
                    f"{name} runs BPF program {numbers} at tc's {hook}",
                    "detach it: bpftool net show says what it is",
                )
        yield from _interrupts(host, name, nic, get(found, "cpus") or 1)
    tables = get(found, "nft_tables") or []
    if host.role == "hop" and tables:
        yield warning(
            f"nft has tables of others ({', '.join(tables)}): what they cost falls on nft and "
            "socat, not on XDP",
            "nft delete table for each; bench clean removes our own",
        )
    waiting, ports = get(found, "tcp_time_wait") or 0, port_range(found)
    if host.role != "server" and ports and waiting > _TIME_WAIT_SHARE * (ports[1] - ports[0] + 1):
        yield warning(
            f"{waiting} sockets are in TIME_WAIT, of {ports[1] - ports[0] + 1} ports to connect "
            "from",
            "wait for a minute, or widen net.ipv4.ip_local_port_range",
        )


def _program(nic: Facts) -> str:
    """Return the name and id of what runs on a NIC."""
    number, name = get(nic, "xdp_program"), get(nic, "xdp_program_name")
    return f"{name} (id {number})" if name else f"{number}"


def nics(host: Host, found: Facts) -> Iterator[tuple[str, Facts]]:
    """Yield each NIC that packets pass, by name: also those below VLANs."""
    pairs = [(host.data_nic, get(found, "nic"))]
    if host.role == "hop" and host.egress_nic:
        pairs.append((host.egress_nic, get(found, "egress_nic")))
    seen = set()
    for name, nic in pairs:
        while isinstance(nic, Mapping):
            # Two VLANs may lie on one NIC.
            if name not in seen:
                yield name, nic
            seen.add(name)
            name, nic = str(get(nic, "lower")), get(nic, "lower_nic")


def _interrupts(host: Host, name: str, nic: Facts, cpus: int) -> Iterator[Finding]:
    irqs = get(nic, "irqs") or {}
    # Where they go by now; the mask says where they may.
    places = [get(each, "effective") or get(each, "affinity") for each in irqs.values()]
    used = {cpu for place in places if place for cpu in _cpus(place)}
    if cpus > 1 and len(irqs) > 1 and (get(nic, "rx_queues") or 1) > 1 and len(used) == 1:
        yield Finding(
            host.name,
            "warning",
            f"all {len(irqs)} interrupts of {title(name, nic)} go to CPU {used.pop()} of {cpus}",
            "spread them: /proc/irq/N/smp_affinity_list, or start irqbalance and stop it again",
        )


def _cpus(text: str) -> Iterator[int]:
    """Yield the CPUs of a list such as `0-3,8`."""
    for part in text.split(","):
        low, _, high = part.partition("-")
        if low.isdecimal():
            yield from range(int(low), int(high if high.isdecimal() else low) + 1)


def of_chain(chain: Chain, seen: Mapping[str, Facts]) -> Iterator[Finding]:
    """Look for differences between hosts that should be set alike."""
    hosts = [host for host in chain.hosts if host.name in seen]
    spread = {
        host.name: any(
            str(mask).strip("0,")
            for _, nic in nics(host, seen[host.name])
            for mask in get(nic, "rps_cpus") or []
            if mask is not None
        )
        for host in hosts
    }
    on, off = ([name for name in spread if spread[name] is state] for state in (True, False))
    if on and off:
        yield Finding(
            on[0],
            "warning",
            f"RPS is on for {', '.join(on)} and off for {', '.join(off)}",
            "set /sys/class/net/NIC/queues/rx-*/rps_cpus alike on every host; 0 is off",
        )
    for path in _LIKE:
        yield from _unlike(
            [host for host in hosts if host.role == "hop"],
            seen,
            path,
            "hops are not alike",
            "the cost of a hop is then a mean over unlike hosts: give them the same",
        )
    yield from _unlike(
        hosts,
        seen,
        ("sysctls", "net.core.busy_poll"),
        "hosts are not alike",
        "set net.core.busy_poll alike on every host: it shortens what client and server wait",
    )
    yield from _unlike(
        hosts,
        seen,
        ("nic", "mtu"),
        "hosts are not alike",
        "give every data NIC the same MTU: packets too large for the next hop get lost",
    )


def _unlike(
    hosts: list[Host], seen: Mapping[str, Facts], path: tuple[str, ...], text: str, remedy: str
) -> Iterator[Finding]:
    """Yield one finding when hosts differ in a fact that all of them know."""
    names: dict[Any, list[str]] = {}
    for host in hosts:
        value = get(seen[host.name], *path)
        if isinstance(value, (str, int)):
            names.setdefault(value, []).append(host.name)
    if len(names) > 1:
        said = "; ".join(f"{value} on {', '.join(each)}" for value, each in names.items())
        yield Finding(hosts[0].name, "warning", f"{text}: {' '.join(path)} {said}", remedy)


def get(facts: Any, *path: str) -> Any:
    """Return a fact by its path, None where it or what it is in is not known."""
    for key in path:
        facts = facts.get(key) if isinstance(facts, Mapping) else None
    return facts
