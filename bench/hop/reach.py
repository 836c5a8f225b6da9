# SPDX-License-Identifier: Apache-2.0
"""By which way this host reaches others, who answers there, and by which NIC SSH came in.

`main([ADDRESSES])` prints one JSON object. ADDRESSES is a list in JSON. Runs before any deploy and
changes no setting; each neighbour is sent one empty datagram to the discard port, so that the
stack asks for its MAC address.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import time
from typing import Any

from . import facts_read as read

_DISCARD = 9
_LIMIT_S = 2.0
_STEP_S = 0.05
# An address that is known from earlier counts: the stack makes sure of it only after 5 s.
_ANSWERED = {"PERMANENT", "NOARP", "REACHABLE", "STALE", "DELAY", "PROBE"}


def _first(argv: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(read.said(argv) or "[]")
    except ValueError:
        return {}
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}


def _route(address: str) -> dict[str, Any]:
    """Return {"nic", "gateway", "source"} of the way to an address, None for what there is not."""
    found = _first(["ip", "-json", "route", "get", address])
    return {
        "nic": found.get("dev"),
        "gateway": found.get("gateway"),
        "source": found.get("prefsrc"),
        "local": found.get("type") == "local",
    }


def _neighbour(address: str, nic: str) -> str | None:
    """Return the MAC address that answers for a neighbour, None when none does in time."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    until = time.monotonic() + _LIMIT_S
    while True:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, _DISCARD))
            probe.send(b"")
        found = _first(["ip", "-json", "neigh", "show", "to", address, "dev", nic])
        state = set(found.get("state") or [])
        if _ANSWERED & state:
            return str(found["lladdr"]) if "lladdr" in found else None
        if time.monotonic() > until:
            return None
        time.sleep(_STEP_S)


def _connection() -> str | None:
    """Return SSH_CONNECTION of this process or of one above it: sudo leaves it out."""
    pid = str(os.getpid())
    while pid not in ("", "0", "1"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            for each in file.read().split(b"\0"):
                if each.startswith(b"SSH_CONNECTION="):
                    return each.decode(errors="replace").partition("=")[2]
        # The name in brackets may have blanks of its own; the parent is the second word after it.
        pid = "".join((read.text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()[1:2])
    return None


def _ssh_nic(connection: str | None) -> str | None:
    """Return the NIC by which SSH's answers leave, None where that cannot be told."""
    try:
        controller = str(ipaddress.ip_address((connection or "").split()[0]))
    except (ValueError, IndexError):
        return None
    way = _route(controller)
    return None if way["local"] else way["nic"]


def collect(addresses: list[str]) -> dict[str, Any]:
    """Return {"ssh_nic", "ways": {address: {"nic", "gateway", "source", "local", "mac"}}}."""
    ways = {}
    for address in addresses:
        way = _route(address)
        near = way["nic"] and not way["gateway"] and not way["local"]
        ways[address] = {**way, "mac": _neighbour(address, way["nic"]) if near else None}
    return {"ssh_nic": _ssh_nic(_connection()), "ways": ways}


def main(argv: list[str]) -> int:
    """Print the ways to the addresses named."""
    print(json.dumps(collect(json.loads(argv[0]))))
    return 0
