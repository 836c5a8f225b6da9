# SPDX-License-Identifier: Apache-2.0
"""What the host's stack says and does for the forwarders: sysctls, ports, neighbours."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from .errors import HopError
from .process import tool

# RFC 863: a packet to the discard port asks for nothing but the neighbour's address.
_DISCARD = 9
NEIGHBOUR_LIMIT_S = 3.0
_VALID = {"PERMANENT", "NOARP", "REACHABLE", "STALE", "DELAY", "PROBE"}


def ephemeral_ports() -> tuple[int, int]:
    """Return net.ipv4.ip_local_port_range."""
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(low), int(high)


def require_forwarding(nic: str) -> None:
    """Raise HopError unless the kernel forwards what arrives on the NIC: nft and XDP need it."""
    if Path(f"/proc/sys/net/ipv4/conf/{nic}/forwarding").read_text().strip() != "1":
        raise HopError(f"forwarding is off on {nic}", "run bench deploy")


def require_free_port(address: str, port: int) -> None:
    """Raise HopError when a socket of this host already listens on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise HopError(
                    f"port {port} is taken by another program",
                    "stop it, or choose another port in the inventory",
                ) from error
            if error.errno == errno.EADDRNOTAVAIL:
                raise HopError(
                    f"{address} is not an address of this host", "correct data_ip"
                ) from error
            raise HopError(f"port {port} cannot be used: {error.strerror}") from error


def ip_json(*arguments: str) -> Any:
    """Return what `ip -json` prints."""
    done = subprocess.run(
        [tool("ip"), "-json", *arguments], capture_output=True, timeout=10, check=False
    )
    if done.returncode:
        raise HopError(f"ip {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return json.loads(done.stdout or b"[]")


def resolve(address: str, nic: str) -> None:
    """Have the stack learn the next hop's MAC address, for bpf_fib_lookup to find.

    Raises HopError when nobody answers ARP, or when the way there leaves by another NIC.
    """
    route = ip_json("route", "get", address)[0]
    if route.get("dev") != nic:
        raise HopError(
            f"the way to {address} leaves by {route.get('dev')}, not {nic}",
            "correct the routes, or data_ip and data_nic",
        )
    neighbour = route.get("gateway", address)
    until = time.monotonic() + NEIGHBOUR_LIMIT_S
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((address, _DISCARD))
                probe.send(b"")
            except OSError:
                pass  # unreachable is what the next lines find out
        entries = ip_json("neigh", "show", "to", neighbour, "dev", nic)
        if any(_VALID & set(entry.get("state", [])) for entry in entries):
            return
        if time.monotonic() > until:
            raise HopError(
                f"next hop {neighbour} does not answer ARP on {nic}", "check cabling and addresses"
            )
        time.sleep(0.02)


def tcp_counters() -> dict[str, int]:
    """Return /proc/net/snmp's Tcp line of this host as a dict."""
    lines = [
        line.split()[1:]
        for line in Path("/proc/net/snmp").read_text().splitlines()
        if line.startswith("Tcp:")
    ]
    return dict(zip(lines[0], (int(word) for word in lines[1]), strict=True))
