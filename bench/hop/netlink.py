# SPDX-License-Identifier: Apache-2.0
"""Why a NIC refuses an XDP program, in the driver's own words: netlink's extended acknowledgement.

A bpf_link's error is a bare number; only RTM_SETLINK brings the text along.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

# include/uapi/linux/{netlink,rtnetlink,if_link}.h
_NLMSG_ERROR, _RTM_SETLINK = 2, 19
_REQUEST_ACK = 1 | 4  # NLM_F_REQUEST | NLM_F_ACK
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_IFLA_XDP, _IFLA_XDP_FD, _IFLA_XDP_FLAGS = 43, 1, 3
_NESTED = 1 << 15
_UPDATE_IF_NOEXIST = 1
_HEADER = struct.Struct("=IHHII")


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute as messages have it."""
    padding = bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def attributes(message: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield kind and value of each attribute of a message, from an offset on."""
    while at + 4 <= len(message):
        size, kind = struct.unpack_from("=HH", message, at)
        if size < 4:
            return
        yield kind & 0x3FFF, message[at + 4 : at + size]
        at += (size + 3) // 4 * 4


def _set_xdp(ifindex: int, prog_fd: int, flags: int) -> tuple[int, str]:
    """Ask for a program on a NIC; return (errno or 0, the driver's message or nothing)."""
    xdp = attribute(_IFLA_XDP_FD, struct.pack("=i", prog_fd))
    xdp += attribute(_IFLA_XDP_FLAGS, struct.pack("=I", flags))
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, ifindex, 0, 0)
    body += attribute(_IFLA_XDP | _NESTED, xdp)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(5.0)
        # Without the request's own copy, so that attributes follow the error at a fixed place.
        sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        sock.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _RTM_SETLINK, _REQUEST_ACK, 1, 0) + body)
        return _parse_ack(sock.recv(65536))


def _parse_ack(reply: bytes) -> tuple[int, str]:
    """Return (errno or 0, message or nothing) of an NLMSG_ERROR."""
    length, kind, flags, _, _ = _HEADER.unpack_from(reply)
    if kind != _NLMSG_ERROR:
        return 0, ""
    (number,) = struct.unpack_from("=i", reply, _HEADER.size)
    (quoted,) = struct.unpack_from("=I", reply, _HEADER.size + 4)
    # struct nlmsgerr: the error, then the header of the request, or all of it.
    at = _HEADER.size + 4 + (_HEADER.size if flags & _NLM_F_CAPPED else (quoted + 3) // 4 * 4)
    message = ""
    if flags & _NLM_F_ACK_TLVS:
        for kind, value in attributes(reply[:length], at):
            if kind == _NLMSGERR_ATTR_MSG:
                message = value.rstrip(b"\0").decode(errors="replace")
    return -number, message


def refusal(ifindex: int, prog_fd: int, flags: int) -> str:
    """Ask a NIC once more for what it has just refused, and return the reason it gives.

    Should it agree this time, the program is taken off again, and there is no reason to give.
    """
    number, message = _set_xdp(ifindex, prog_fd, flags | _UPDATE_IF_NOEXIST)
    if not number:
        _set_xdp(ifindex, -1, flags)
    return message
