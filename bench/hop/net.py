# SPDX-License-Identifier: Apache-2.0
"""What the host's stack says and does for the forwarders: sysctls, ports, neighbours."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import holder
from .address import family
from .errors import HopError
from .process import tool

SYSCTL = Path("/proc/sys/net")

# RFC 863: a packet to the discard port asks for nothing but the neighbour's address.
_DISCARD = 9
NEIGHBOUR_LIMIT_S = 3.0
# Many drivers reset their NIC when a program comes or goes, or an offload changes: the link is then
# away for a second or two with most, and for 20 s with some.
LINK_LIMIT_S = 30.0
_SOCKET = {4: socket.AF_INET, 6: socket.AF_INET6}
_ASKED_BY = {4: "ARP", 6: "neighbour solicitations"}
_LEARNT = {"REACHABLE", "STALE", "DELAY", "PROBE"}
_VALID = {"PERMANENT", "NOARP", *_LEARNT}


def ephemeral_ports() -> tuple[int, int]:
    """Return net.ipv4.ip_local_port_range."""
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(low), int(high)


def require_forwarding(nic: str, family: int = 4) -> None:
    """Raise HopError unless forwarding is on for the NIC: bpf_fib_lookup and IPv4's stack ask it.

    family: 4 or 6.
    """
    if (SYSCTL / f"ipv{family}/conf/{nic}/forwarding").read_text().strip() != "1":
        raise HopError(f"forwarding is off on {nic}", "run bench deploy")


def require_stack_forwarding(nic: str, family: int) -> None:
    """Raise HopError unless the kernel's stack forwards what arrives on the NIC: nft needs it.

    For IPv6 the NIC's own setting is not enough. ip6_forward (net/ipv6/ip6_output.c) asks for
    `all`, or from Linux 6.17 on for the NIC's force_forwarding.
    """
    require_forwarding(nic, family)
    if family == 4 or (SYSCTL / "ipv6/conf/all/forwarding").read_text().strip() == "1":
        return
    try:
        forced = (SYSCTL / f"ipv6/conf/{nic}/force_forwarding").read_text().strip()
    except FileNotFoundError:
        raise HopError(
            "this kernel's stack forwards IPv6 for all NICs or for none, and does it for none",
            "use Linux 6.17 or later, or XDP; net.ipv6.conf.all.forwarding=1 would do, but the "
            "host then takes no router advertisements where accept_ra is not 2",
        ) from None
    if forced != "1":
        raise HopError(f"forwarding of IPv6 is off on {nic}", "run bench deploy")


def linked(nics: Iterable[str]) -> bool:
    """Say whether every NIC has a link."""
    try:
        require_links(nics)
    except HopError:
        return False
    return True


def require_links(nics: Iterable[str]) -> None:
    """Raise HopError that names the first NIC that is gone, set down or without a link."""
    for nic in nics:
        try:
            up = Path(f"/sys/class/net/{nic}/carrier").read_text().strip() == "1"
        except FileNotFoundError:
            raise HopError(f"NIC {nic} is gone") from None
        except OSError:  # EINVAL
            raise HopError(f"{nic} is set down", f"ip link set {nic} up") from None
        if not up:
            raise HopError(f"{nic} has no link", "check cabling, and the other end")


def await_link(nics: Sequence[str]) -> bool:
    """Wait until every NIC has its link again; say whether one was away.

    Raises HopError when it does not come back.
    """
    until = time.monotonic() + LINK_LIMIT_S
    away = False
    while not linked(nics):
        away = True
        if time.monotonic() > until:
            raise HopError(
                f"no link on {' or '.join(nics)} for {LINK_LIMIT_S:.0f} s",
                "check cabling and dmesg: some drivers reset a NIC when XDP comes or goes",
            )
        time.sleep(0.02)
    return away


def require_free_port(address: str, port: int) -> None:
    """Raise HopError when a socket of this host already listens on the port."""
    with socket.socket(_SOCKET[family(address)], socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise HopError(
                    f"port {port} is taken by {holder.of_port(address, port)}",
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


def route(address: str, nics: tuple[str, ...]) -> tuple[str, str]:
    """Return by which NIC and with which source address the stack reaches an address.

    Raises HopError when that is none of the NICs allowed.
    """
    nic, source, _ = _way(address, nics)
    return nic, source


def _way(address: str, nics: tuple[str, ...]) -> tuple[str, str, str]:
    """Return NIC, source address and neighbour on the way to an address."""
    found = ip_json("route", "get", address)[0]
    if found.get("dev") not in nics:
        raise HopError(
            f"the way to {address} leaves by {found.get('dev')}, not {' or '.join(nics)}",
            "correct the routes, or data_ip, data_nic and egress_nic",
        )
    if "prefsrc" not in found:
        raise HopError(f"{found['dev']} has no address to reach {address} with", "give it one")
    return found["dev"], found["prefsrc"], found.get("gateway", address)


def resolve(
    address: str, nics: tuple[str, ...], limit_s: float = NEIGHBOUR_LIMIT_S
) -> tuple[str, str]:
    """Have the stack learn the next hop's MAC address, for bpf_fib_lookup to find.

    nics: those that the way there may leave by. Returns which of them it is, and the source
    address that packets to the next hop have. Raises HopError when nobody answers ARP or
    neighbour solicitations, or when the way leaves by another NIC.
    """
    nic, source, neighbour = _way(address, nics)
    version = family(address)
    until = time.monotonic() + limit_s
    while True:
        nudge(address)
        entries = ip_json("neigh", "show", "to", neighbour, "dev", nic)
        if any(_VALID & set(entry.get("state", [])) for entry in entries):
            return nic, source
        if time.monotonic() > until:
            raise HopError(
                f"next hop {neighbour} does not answer {_ASKED_BY[version]} on {nic}",
                "check cabling and addresses",
            )
        time.sleep(0.02)


def forget(address: str, nics: tuple[str, ...]) -> None:
    """Have the stack ask anew for the MAC address of the next hop, unless somebody has set it.

    A machine that was made anew has another one. What the stack knows of the old one counts for
    half a minute, and then until 8 s after the first packet to it.
    """
    # Without a way there, whoever needs one says so.
    with contextlib.suppress(HopError):
        nic, _, neighbour = _way(address, nics)
        for entry in ip_json("neigh", "show", "to", neighbour, "dev", nic):
            if _LEARNT & set(entry.get("state", [])):
                ip_json("neigh", "del", neighbour, "dev", nic)


def nudge(address: str) -> None:
    """Have the stack make sure of a neighbour by sending it a packet.

    bpf_fib_lookup takes what the stack knows, however old, and gives it no reason to ask again.
    """
    probe = socket.socket(_SOCKET[family(address)], socket.SOCK_DGRAM)
    # That nobody answers is what a later lookup finds out.
    with probe, contextlib.suppress(OSError):
        probe.connect((address, _DISCARD))
        probe.send(b"")


def tcp_counters() -> dict[str, int]:
    """Return /proc/net/snmp's Tcp line of this host as a dict; it counts both families."""
    lines = [
        line.split()[1:]
        for line in Path("/proc/net/snmp").read_text().splitlines()
        if line.startswith("Tcp:")
    ]
    return dict(zip(lines[0], (int(word) for word in lines[1]), strict=True))
