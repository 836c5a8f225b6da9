# SPDX-License-Identifier: Apache-2.0
"""The hosts of a run in facts: what they are, hosts that are alike together.

Facts come from run.json, also from other people's: any JSON may be in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.report.document import Facts
from bench.sentences import counted

_MOST_NAMES = 8
_TOPOLOGY = {"socket": "socket", "core": "core", "thread": "thread", "numa_node": "NUMA node"}
_TIMES = "\N{MULTIPLICATION SIGN}"
_OFFLOADS = (
    *("tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload"),
    *("large-receive-offload", "rx-gro-hw", "rx-checksumming", "tx-checksumming"),
)


def hosts(run_meta: Mapping[str, Any]) -> list[Facts]:
    """Return the facts of each kind of host, in the order of the chain."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    boots = set()
    for name, facts in run_meta["host_facts"].items():
        if isinstance(facts, Mapping):
            groups.setdefault(tuple(_items(facts)), []).append(str(name))
            boots.add(str(facts.get("boot_id")))
    shared = len(boots) == 1 and sum(map(len, groups.values())) > 1
    machine = [("machine", "one for all hosts: they share its CPUs")] if shared else []
    return [Facts(_named(names), [*machine, *items]) for items, names in groups.items()]


def versions(run_meta: Mapping[str, Any]) -> Facts:
    """Return what measured: versions of hopbench and what it is built on."""
    told = ", ".join(f"{name} {version}" for name, version in run_meta["versions"].items())
    commit = run_meta["git_commit"]
    items = [("versions", told or "not known"), *([("git commit", commit)] if commit else [])]
    return Facts("Controller", items)


def _items(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _known(facts, ("os", "kernel", "architecture"))
    topology = _mapping(facts.get("topology"))
    parts = [
        f"{_value(topology[key + 's'])} {word}" + ("" if topology[key + "s"] == 1 else "s")
        for key, word in _TOPOLOGY.items()
        if _value(topology.get(key + "s"))
    ]
    cpus = f" {_TIMES} ".join(filter(None, (_value(facts.get("cpus")), _value(facts.get("cpu")))))
    if cpus:
        yield "CPUs", f"{cpus} ({', '.join(parts)})" if parts else cpus
    total = _mapping(facts.get("memory")).get("total_bytes")
    if isinstance(total, (int, float)) and 0 < total < 1e18:
        yield "memory", f"{total / 2**30:.1f} GiB"
    yield from _known(facts, ("governor", "turbo", "clock_source", "isolated_cpus"))
    for key, word in (("nic", "NIC"), ("egress_nic", "egress NIC")):
        yield from _nic(_mapping(facts.get(key)), word)
    for setting, nics in _mapping(facts.get("offloads")).items():
        for settings in _mapping(nics).values():
            yield f"--offloads {setting}", _switched(_mapping(settings))
    congestion = _mapping(facts.get("sysctls")).get("net.ipv4.tcp_congestion_control")
    if _value(congestion):
        yield "congestion control", _value(congestion)
    tools = _mapping(facts.get("tools"))
    told = [f"{name} {_value(version)}" for name, version in tools.items() if _value(version)]
    libraries = _mapping(facts.get("modules"))
    told += [f"{name} {_value(each)}" for name, each in libraries.items() if _value(each)]
    if told:
        yield "tools", ", ".join(told)


def _nic(nic: Mapping[str, Any], word: str) -> Iterator[tuple[str, str]]:
    if not nic:
        return
    driver = " ".join(filter(None, (_value(nic.get("driver")), _value(nic.get("driver_version")))))
    firmware = _value(nic.get("firmware"))
    speed, mtu = _value(nic.get("speed_mbps")), _value(nic.get("mtu"))
    queues = "/".join(filter(None, (_value(nic.get("rx_queues")), _value(nic.get("tx_queues")))))
    parts = [
        driver,
        f"firmware {firmware}" if firmware else "",
        f"{speed} Mbit/s" if speed else "",
        f"MTU {mtu}" if mtu else "",
        f"{queues} queues (receive/send)" if queues else "",
    ]
    yield word, ", ".join(filter(None, parts))
    if offloads := _mapping(nic.get("offloads")):
        yield f"{word} offloads", _switched({key: offloads.get(key) for key in _OFFLOADS})


def _switched(settings: Mapping[str, Any]) -> str:
    """Return what is on, what is off, and what has a value."""
    on = [str(name) for name, value in settings.items() if value == "on"]
    off = [str(name) for name, value in settings.items() if value == "off"]
    other = [
        f"{name} {_value(value)}"
        for name, value in settings.items()
        if value not in ("on", "off") and _value(value)
    ]
    parts = [
        f"on: {', '.join(on)}" if on else "",
        f"off: {', '.join(off)}" if off else "",
        ", ".join(other),
    ]
    return "; ".join(filter(None, parts)) or "none known"


def _known(facts: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    for key in keys:
        if value := _value(facts.get(key)):
            yield key.replace("_", " "), value


def _value(value: Any) -> str:
    """Return a plain value as text, empty for none and for what is no plain value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, (str, int, float)) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _named(names: Sequence[str]) -> str:
    if len(names) > _MOST_NAMES:
        rest = counted(len(names) - _MOST_NAMES + 1, "other")
        names = [*names[: _MOST_NAMES - 1], rest]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
