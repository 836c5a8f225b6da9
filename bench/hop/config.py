# SPDX-License-Identifier: Apache-2.0
"""What the controller may ask of an agent, checked before anything on the host is touched."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Any

from .address import family, is_host
from .errors import HopError
from .modes import MODES

ATTACH = ("native", "generic", "offload")

# What a NIC does with segments: `equal`, nothing, so that every mode moves MTU-sized packets;
# `native`, what the operating system has set.
OFFLOADS = ("equal", "native")

# What a NAT's ports belong to: `affine`, a client's endpoint keeps its port from one connection to
# the next; `fresh`, it gets another one.
NAT_POLICIES = ("affine", "fresh")
# Neither privileged ports (RFC 6335), nor so few that a handful of clients takes them all.
LOWEST_NAT_PORT = 1024
FEWEST_NAT_PORTS = 16
MOST_NAT_FLOWS = 1 << 20


def _take(message: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = message.pop(key, default)
    # bool is an int to Python, never a port to us.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise HopError(f"{key} is missing or not a {kind.__name__}")
    return value


def text(message: dict[str, Any], key: str) -> str:
    """Take any text."""
    value: str = _take(message, key, str)
    return value


def address(message: dict[str, Any], key: str) -> str:
    """Take the IPv4 or IPv6 address of a host."""
    try:
        value = ipaddress.ip_address(text(message, key))
    except ValueError as error:
        raise HopError(f"{key} is not an IP address") from error
    if not is_host(value):
        raise HopError(f"{key} is not a host's address")
    return str(value)


def port(message: dict[str, Any], key: str) -> int:
    """Take a TCP port."""
    value: int = _take(message, key, int)
    if not 1 <= value <= 65535:
        raise HopError(f"{key} is not between 1 and 65535")
    return value


def nic(message: dict[str, Any], key: str) -> str:
    """Take the name of a NIC that exists on this host."""
    name: str = _take(message, key, str)
    # IFNAMSIZ is 16 with the final zero; the kernel refuses '/' and white space.
    length = len(name.encode(errors="replace"))
    if not 0 < length < 16 or "/" in name or any(c.isspace() for c in name):
        raise HopError(f"{key} is not an interface name")
    if name in (".", "..") or not os.path.isdir(f"/sys/class/net/{name}"):
        raise HopError(f"no NIC {name} on this host", f"correct {key} in the inventory")
    return name


def choice(message: dict[str, Any], key: str, allowed: tuple[str, ...], default: str) -> str:
    """Take one of a few words."""
    value: str = _take(message, key, str, default)
    if value not in allowed:
        raise HopError(f"{key} must be one of {', '.join(allowed)}")
    return value


def number(message: dict[str, Any], key: str, low: int, high: int, default: int) -> int:
    """Take an integer between low and high."""
    value: int = _take(message, key, int, default)
    if not low <= value <= high:
        raise HopError(f"{key} is not between {low} and {high}")
    return value


def numbers(message: dict[str, Any], key: str, low: int, high: int, most: int) -> list[int]:
    """Take a list of at most so many integers between low and high."""
    value = message.pop(key, None)
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise HopError(f"{key} is not a list of integers")
    if len(value) > most or not all(low <= each <= high for each in value):
        raise HopError(f"{key} is not at most {most} numbers between {low} and {high}")
    return value


def endpoint(message: dict[str, Any], key: str) -> tuple[str, int]:
    """Take an address and a port, given as a list of both."""
    value = message.pop(key, None)
    if not isinstance(value, list) or len(value) != 2:
        raise HopError(f"{key} is not a list of an address and a port")
    parts = {"address": value[0], "port": value[1]}
    return address(parts, "address"), port(parts, "port")


def truth(message: dict[str, Any], key: str) -> bool:
    """Take true or false; false when it is not said."""
    value = message.pop(key, False)
    if not isinstance(value, bool):
        raise HopError(f"{key} is neither true nor false")
    return value


def nat_ports(message: dict[str, Any], key: str) -> tuple[int, int]:
    """Take a range of ports, given as a list of its lowest and its highest."""
    value = message.pop(key, None)
    if not isinstance(value, list) or [type(each) for each in value] != [int, int]:
        raise HopError(f"{key} is not a list of two integers")
    low, high = value
    if not LOWEST_NAT_PORT <= low <= high <= 65535:
        raise HopError(f"{key} is not a range between {LOWEST_NAT_PORT} and 65535")
    if high - low + 1 < FEWEST_NAT_PORTS:
        raise HopError(f"{key} has fewer than {FEWEST_NAT_PORTS} ports")
    return low, high


def nothing_else(message: dict[str, Any]) -> None:
    """Refuse keys that nobody took."""
    if message:
        raise HopError(f"unknown key {sorted(message)[0]!r} in the configuration")


@dataclass(frozen=True)
class Place:
    """Where a hop forwards: its NICs, the address and port it listens on, how its NAT is set.

    egress_nic: the NIC towards the next hop where that may be another; empty for one NIC.
    nat_ports: lowest and highest port that a NAT may use, None for what the host's own leave.
    nat_flows: how many flows it may remember, None for its own default. trace: whether the
    forwarder reports each packet, which costs it time.
    """

    data_nic: str
    data_ip: str
    forward_port: int
    egress_nic: str = ""
    nat_ports: tuple[int, int] | None = None
    nat_flows: int | None = None
    nat_policy: str = "affine"
    trace: bool = False

    @property
    def family(self) -> int:
        """4 or 6: what the hop forwards."""
        return family(self.data_ip)

    @property
    def nics(self) -> tuple[str, ...]:
        """The data NIC, and the egress NIC if there is one."""
        return (self.data_nic, self.egress_nic) if self.egress_nic else (self.data_nic,)


@dataclass(frozen=True)
class Target:
    """How and where to: a mode, XDP's attach mode, the next hop."""

    mode: str
    attach: str
    next_ip: str
    next_port: int


def place(message: dict[str, Any]) -> Place:
    """Take the part of the first configuration line that describes the host. Raises HopError."""
    taken = Place(
        data_nic=nic(message, "data_nic"),
        data_ip=address(message, "data_ip"),
        forward_port=port(message, "forward_port"),
        egress_nic=nic(message, "egress_nic") if "egress_nic" in message else "",
        nat_ports=nat_ports(message, "nat_ports") if "nat_ports" in message else None,
        nat_flows=(
            number(message, "nat_flows", 1, MOST_NAT_FLOWS, 0) if "nat_flows" in message else None
        ),
        nat_policy=choice(message, "nat_policy", NAT_POLICIES, NAT_POLICIES[0]),
        trace=truth(message, "trace"),
    )
    if taken.egress_nic == taken.data_nic:
        raise HopError("egress_nic is the data NIC itself", "leave egress_nic out")
    return taken


def target(message: dict[str, Any]) -> Target | None:
    """Take a line that says what to forward; None for a mode in which no hop takes part."""
    mode = choice(message, "mode", tuple(MODES), "")
    if not MODES[mode].hops:
        nothing_else(message)
        return None
    taken = Target(
        mode=mode,
        attach=choice(message, "attach", ATTACH, "native"),
        next_ip=address(message, "next_ip"),
        next_port=port(message, "next_port"),
    )
    nothing_else(message)
    return taken
