# SPDX-License-Identifier: Apache-2.0
"""TCP segments in Ethernet frames, built octet by octet."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

# Octets of a frame: the least that Ethernet allows, four of them the check sequence, which is not
# here, and room for the longer header of IPv6. A multiple of 8 each, as bpf/baselines.c has it.
FRAME_LEN = {4: 64, 6: 80}
IP_LEN = {4: 20, 6: 40}
ETHERNET_LEN = 14
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_TTL = 64


@dataclass(frozen=True)
class End:
    """One side of a connection, and the Ethernet address it is reached at."""

    mac: str
    address: str
    port: int


def source_port_at(family: int) -> int:
    """Return the offset of the source port in a frame."""
    return ETHERNET_LEN + IP_LEN[family]


def dest_port_at(family: int) -> int:
    """Return the offset of the destination port in a frame."""
    return source_port_at(family) + 2


def tcp(family: int, source: End, dest: End, flags: int) -> bytes:
    """Return a frame of FRAME_LEN octets, checksums right, filled up with zeros as its payload."""
    ip_len = FRAME_LEN[family] - ETHERNET_LEN
    tcp_len = ip_len - IP_LEN[family]
    ends = b"".join(socket.inet_pton(_AF[family], end.address) for end in (source, dest))
    ports = (source.port, dest.port)
    # Sequence numbers, a header of five words, a window; then checksum and urgent pointer.
    head = struct.pack("!2HIIBBHHH", *ports, 1, 1 if flags & ACK else 0, 5 << 4, flags, 8192, 0, 0)
    segment = head.ljust(tcp_len, b"\0")
    pseudo = ends + struct.pack("!II", tcp_len, socket.IPPROTO_TCP)
    segment = segment[:16] + checksum(pseudo + segment) + segment[18:]
    if family == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, ip_len, 0, 0x4000, _TTL, socket.IPPROTO_TCP, 0)
        ip = ip[:10] + checksum(ip + ends)
    else:
        ip = struct.pack("!IHBB", 6 << 28, tcp_len, socket.IPPROTO_TCP, _TTL)
    ethernet = _mac(dest.mac) + _mac(source.mac) + struct.pack("!H", _ETHERTYPE[family])
    return ethernet + ip + ends + segment


def checksum(octets: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071) of an even number of octets, in network order."""
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
