# SPDX-License-Identifier: Apache-2.0
"""What the controller may ask of an agent, checked before anything on the host is touched."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Any

from .errors import HopError
from .modes import MODES

ATTACH = ("native", "generic")


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


def ipv4(message: dict[str, Any], key: str) -> str:
    """Take an IPv4 unicast address."""
    try:
        address = ipaddress.IPv4Address(text(message, key))
    except ValueError as error:
        raise HopError(f"{key} is not an IPv4 address") from error
    if address.is_multicast or address.is_unspecified or int(address) == 0xFFFFFFFF:
        raise HopError(f"{key} is not a host's address")
    return str(address)


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
        raise HopError(f"no NIC {name} on this host", "correct data_nic in the inventory")
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


def nothing_else(message: dict[str, Any]) -> None:
    """Refuse keys that nobody took."""
    if message:
        raise HopError(f"unknown key {sorted(message)[0]!r} in the configuration")


@dataclass(frozen=True)
class Place:
    """Where a hop forwards: its NIC, and the address and port it listens on."""

    data_nic: str
    data_ip: str
    forward_port: int


@dataclass(frozen=True)
class Target:
    """How and where to: a mode, XDP's attach mode, the next hop."""

    mode: str
    attach: str
    next_ip: str
    next_port: int


def place(message: dict[str, Any]) -> Place:
    """Take the part of the first configuration line that describes the host.

    Raises HopError, also when the NIC does not carry the address.
    """
    return Place(
        data_nic=nic(message, "data_nic"),
        data_ip=ipv4(message, "data_ip"),
        forward_port=port(message, "forward_port"),
    )


def target(message: dict[str, Any]) -> Target | None:
    """Take a line that says what to forward; None for a mode in which no hop takes part."""
    mode = choice(message, "mode", tuple(MODES), "")
    if not MODES[mode].hops:
        nothing_else(message)
        return None
    taken = Target(
        mode=mode,
        attach=choice(message, "attach", ATTACH, "native"),
        next_ip=ipv4(message, "next_ip"),
        next_port=port(message, "next_port"),
    )
    nothing_else(message)
    return taken
