# SPDX-License-Identifier: Apache-2.0
"""Which kind of value each fact of a host is: what is of another is as good as unknown.

A host may be anybody's, and so may a run's files: whoever reads facts relies on these kinds.
bench/hop/facts.py and facts_*.py collect them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Kind = Callable[[Any], Any]
"""Returns a value as it is, or what stands for unknown."""

_MOST_WHOLE = 1 << 63
_MOST_ENTRIES = 10_000
# As Linux has it at most (NR_CPUS), so that nobody counts for ever.
_MOST_CPUS = 8192
_PORT = re.compile("[0-9]{1,5}")
_CPU_LIST = re.compile(r"([0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?")


def text(value: Any) -> str | None:
    """Any text."""
    return value if isinstance(value, str) else None


def whole(value: Any) -> int | None:
    """A whole number of 64 bits."""
    return value if type(value) is int and abs(value) < _MOST_WHOLE else None


def number(value: Any) -> float | None:
    """A number, whole or not."""
    return value if type(value) is float and abs(value) < _MOST_WHOLE else whole(value)


def _said(value: Any) -> str:
    return text(value) or ""


def flag(value: Any) -> bool | None:
    """True or false."""
    return value if isinstance(value, bool) else None


def cpus(value: Any) -> int | None:
    """How many CPUs there are."""
    found = whole(value)
    return found if found is not None and 0 < found <= _MOST_CPUS else None


def cpu_list(value: Any) -> str | None:
    """CPUs as the kernel lists them: `0-3,8`."""
    return value if isinstance(value, str) and _CPU_LIST.fullmatch(value) else None


def port_range(value: Any) -> list[str]:
    """Two ports, as text; nothing where they are not known."""
    if not isinstance(value, list) or len(value) != 2:
        return []
    return value if all(isinstance(each, str) and _PORT.fullmatch(each) for each in value) else []


def network(value: Any) -> str | None:
    """An address with the length of its prefix."""
    try:
        ipaddress.ip_network(value if isinstance(value, str) else "", strict=False)
    except ValueError:
        return None
    return str(value)


def listed(kind: Kind, *, unknown: Callable[[], Any] = lambda: None) -> Kind:
    """Values of a kind, those of another left out."""

    def take(value: Any) -> Any:
        if not isinstance(value, list) or len(value) > _MOST_ENTRIES:
            return unknown()
        return [each for each in map(kind, value) if each is not None]

    return take


def named(kind: Kind) -> Kind:
    """Values of a kind by any names."""

    def take(value: Any) -> Any:
        if not isinstance(value, Mapping) or len(value) > _MOST_ENTRIES:
            return {}
        return {name: kind(each) for name, each in value.items()}

    return take


def record(kinds: Mapping[str, Kind]) -> Callable[[Any], dict[str, Any]]:
    """Values each of its own kind, all of them there; others are let pass."""

    def take(value: Any) -> dict[str, Any]:
        found = value if isinstance(value, Mapping) else {}
        return {**found, **{name: kind(found.get(name)) for name, kind in kinds.items()}}

    return take


def optional(kind: Kind) -> Kind:
    """A record that may be missing as a whole."""
    return lambda value: kind(value) if isinstance(value, Mapping) else None


def channels(value: Any) -> dict[str, Any]:
    """A NIC's queues; how many there are is worth nothing without the most there can be."""
    names = ("combined", "combined_max", "rx", "rx_max", "tx", "tx_max")
    found = record(dict.fromkeys(names, whole))(value)
    return found if found["combined_max"] is not None else {**found, "combined": None}


_SETTINGS = (
    *("forwarding", "forwarding_ipv6", "force_forwarding_ipv6", "accept_local"),
    *("send_redirects", "rp_filter", "arp_ignore"),
)
_NIC: dict[str, Kind] = {
    **dict.fromkeys(("driver", "driver_version", "firmware", "bus", "duplex", "kind"), text),
    **dict.fromkeys(("master", "dma", "mac", "lower", "threaded_napi", "xdp_mode"), text),
    **dict.fromkeys(("xdp_program_name", *_SETTINGS), text),
    **dict.fromkeys(("numa_node", "speed_mbps", "virtual_functions", "mtu", "vlan_id"), whole),
    **dict.fromkeys(("rx_queues", "tx_queues", "tx_queue_len", "gro_flush_timeout"), whole),
    **dict.fromkeys(("napi_defer_hard_irqs", "xdp_program"), whole),
    **dict.fromkeys(("up", "wireless"), flag),
    "pcie": optional(named(text)),
    "aspm": listed(text),
    "addresses": listed(text, unknown=list),
    "networks": listed(network, unknown=list),
    "channels": channels,
    "rings": record(dict.fromkeys(("rx", "rx_max", "tx", "tx_max"), whole)),
    "coalescing": record(
        {
            **dict.fromkeys(("rx_usecs", "rx_frames", "tx_usecs", "tx_frames"), whole),
            **dict.fromkeys(("adaptive_rx", "adaptive_tx"), whole),
        }
    ),
    "pause": record(dict.fromkeys(("autoneg", "rx", "tx"), whole)),
    "eee": record(dict.fromkeys(("enabled", "active"), whole)),
    "offloads": named(text),
    "irqs": named(record(dict.fromkeys(("affinity", "effective"), cpu_list))),
    "rps_cpus": listed(text),
    "qdiscs": listed(optional(record({"kind": text, "handle": text}))),
    "tc_filters": named(listed(text, unknown=list)),
    "tcx": named(listed(whole)),
}
# A VLAN's, which may lie on another VLAN.
_LOWEST = optional(record({**_NIC, "lower_nic": lambda _: None}))
_LOWER = optional(record({**_NIC, "lower_nic": _LOWEST}))
_NIC_AND_LOWER = optional(record({**_NIC, "lower_nic": _LOWER}))

_HOST: dict[str, Kind] = {
    **dict.fromkeys(("kernel_build", "architecture", "cmdline", "boot_id", "os", "cpu"), text),
    **dict.fromkeys(("microcode", "governor", "scaling_driver", "energy_preference"), text),
    **dict.fromkeys(("isolated_cpus", "nohz_full_cpus", "clock_source", "python"), text),
    **dict.fromkeys(("kernel_headers", "send_redirects_all", "forwarding_ipv6_all"), text),
    **dict.fromkeys(("turbo", "smt", "irqbalance", "bpf", "btf"), flag),
    **dict.fromkeys(("uid", "tcp_time_wait"), whole),
    "load_1min": number,
    "time": lambda value: number(value) or 0.0,
    "kernel": _said,
    "cpus": cpus,
    "topology": record(
        {
            **dict.fromkeys(("sockets", "cores", "threads", "numa_nodes"), whole),
            "cpus_of_node": named(cpu_list),
        }
    ),
    "frequency_khz": named(text),
    "cpuidle": record(
        {"driver": text, "governor": text, "states": named(lambda us: whole(us) or 0)}
    ),
    "vulnerabilities": named(text),
    "virtualisation": record(
        {**dict.fromkeys(("type", "vendor", "product"), text), "hypervisor": flag}
    ),
    "memory": record(dict.fromkeys(("total_bytes", "available_bytes"), whole)),
    "swap": record(
        {
            **dict.fromkeys(("total_bytes", "used_bytes"), whole),
            "devices": listed(text, unknown=list),
        }
    ),
    "clock_sources": listed(text, unknown=list),
    **dict.fromkeys(("tools", "modules", "libraries", "sysctls"), named(text)),
    "nft_tables": listed(text),
    "ip_local_port_range": port_range,
    "nic": _NIC_AND_LOWER,
    "egress_nic": _NIC_AND_LOWER,
}
of_host = record(_HOST)
"""Returns a host's facts with each of its kind, and those that are missing as unknown."""

of_firewall = record(
    {
        "read": lambda value: flag(value) or False,
        "keeper": _said,
        "eaten": listed(
            record(
                {
                    **dict.fromkeys(("packet", "chain", "hook", "why"), _said),
                    "sure": lambda value: flag(value) or False,
                }
            ),
            unknown=list,
        ),
    }
)
"""Returns what a host says of its firewall (bench/hop/firewall.py) likewise."""


def of_ways(addresses: Iterable[str]) -> Callable[[Any], dict[str, Any]]:
    """Return the same for what a host says of the ways to these addresses (bench/hop/reach.py)."""
    way = record({**dict.fromkeys(("nic", "gateway", "source", "mac"), text), "local": flag})
    return record({"ssh_nic": text, "ways": record(dict.fromkeys(addresses, way))})
