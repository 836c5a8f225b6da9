# SPDX-License-Identifier: Apache-2.0
"""Attach bpf/wire.c to every port of the lab's wire; run inside the wire's network namespace."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import sys

from . import compiler, config, kernel, protocol
from .errors import HopError

FUNCTIONS = ("hopbench_wire", "hopbench_pass")
# A client, 64 hops, a server: some 40 bytes each, which fit a line of the protocol.
MOST_PORTS = 66
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


def _mac_key(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", "")) + b"\0\0"


def _ports_map(entries: int) -> compiler.Map:
    return compiler.Map("HASH", key=8, value=4, entries=entries)


def attach(ports: dict[str, str], function: str) -> None:
    """Load one of the wire's programs and attach it natively to each port.

    ports: interface name in this namespace -> MAC address of the host behind it.
    function: `hopbench_wire` switches frames, `hopbench_pass` leaves them to the bridge.

    Attached by netlink and not by a bpf_link: the wire needs no process, and the program goes
    when the namespace does. Must run here, not at the controller: an interface index in a map
    means what it means in the namespace of the port that the frame came in by.
    """
    fds = compiler.load(
        "wire.c", (function,), {"ports": _ports_map(len(ports))}, {"PORT_COUNT": len(ports)}
    )
    for name, mac in ports.items():
        index = struct.pack("=I", socket.if_nametoindex(name))
        kernel.update(fds["ports"], _mac_key(mac), index)
    for name in ports:
        kernel.attach_netlink(fds[function], socket.if_nametoindex(name))
    for name in ports:
        mode, _ = kernel.query_xdp(socket.if_nametoindex(name))
        if mode != "native":
            raise HopError(f"port {name} of the wire runs XDP in {mode or 'no'} mode")


def wanted(message: protocol.Message) -> tuple[dict[str, str], str]:
    """Take ports and function. Raises HopError."""
    function = config.choice(message, "function", FUNCTIONS, "")
    ports = message.pop("ports", None)
    config.nothing_else(message)
    if not isinstance(ports, dict) or not 0 < len(ports) <= MOST_PORTS:
        raise HopError(f"ports is not an object of at most {MOST_PORTS} names")
    for name, mac in ports.items():
        config.nic({"port": name}, "port")
        if not isinstance(mac, str) or not _MAC.fullmatch(mac):
            raise HopError(f"the MAC address of {name} is none")
    return ports, function


def main(argv: list[str]) -> int:
    """Read {"function": …, "ports": {name: MAC}} from stdin; on failure say why, return 1."""
    del argv
    try:
        attach(*wanted(protocol.decode(sys.stdin.buffer.read(protocol.MAX_LINE))))
    except (HopError, OSError, ValueError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
