# SPDX-License-Identifier: Apache-2.0
"""Who has what an agent wants: the process behind a port, a BPF program, an nft table, by its name.

Asked only for a refusal, which names who it is because of. What cannot be found out (a process of
another user's, a socket of the kernel's own) is left open.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator

from .address import family, proc_address
from .netlink import attribute, attributes

UNKNOWN = "another program"

_TCP_LISTEN = "0A"
# include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h
_NETLINK_NETFILTER = 12
_NEWTABLE, _GETTABLE = 10 << 8, 10 << 8 | 1
_NFTA_TABLE_NAME, _NFTA_TABLE_OWNER = 1, 7
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_NFGENMSG = struct.Struct("!BBH")
_LIMIT_S = 5.0


def of_port(address: str, port: int) -> str:
    """Return who listens on a port of an address, or else has it: `nginx (process 123)`."""
    alike = ("::",) if family(address) == 6 else ("0.0.0.0", f"::ffff:{address}", "::")
    wanted = [proc_address(each, port) for each in (address, *alike)]
    found = []
    for table in ("tcp", "tcp6"):
        for fields in _rows(f"/proc/net/{table}"):
            if fields[1] in wanted:
                rank = (fields[3] != _TCP_LISTEN, wanted.index(fields[1]))
                found.append((rank, f"socket:[{fields[9]}]"))
    for _, name in sorted(found):
        if holder := _of_descriptor(lambda _, link: link == name):  # noqa: B023
            return holder
    return UNKNOWN


def of_program(prog_id: int) -> str:
    """Return the process that holds a BPF program or a link of it, empty where none does."""
    line = f"prog_id:\t{prog_id}"

    def holds(path: str, link: str) -> bool:
        if link not in ("anon_inode:bpf-prog", "anon_inode:bpf_link"):
            return False
        with open(path.replace("/fd/", "/fdinfo/")) as file:
            return line in file.read().splitlines()

    return _of_descriptor(holds)


def of_table(family: int, name: str) -> str:
    """Return the process that owns an nft table, empty for a table without an owner.

    family: NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10). `flags owner` is a netlink socket's: the kernel
    tells its port (Linux 5.12), and libnftables does not.
    """
    port = _table_owner(family, name)
    if port is None:
        return ""
    sockets = {
        f"socket:[{fields[9]}]"
        for fields in _rows("/proc/net/netlink")
        if (fields[1], fields[2]) == (str(_NETLINK_NETFILTER), str(port))
    }
    return _of_descriptor(lambda _, link: link in sockets) or UNKNOWN


def _table_owner(family: int, name: str) -> int | None:
    body = _NFGENMSG.pack(family, 0, 0) + attribute(_NFTA_TABLE_NAME, name.encode() + b"\0")
    request = _HEADER.pack(_HEADER.size + len(body), _GETTABLE, _NLM_F_REQUEST, 1, 0) + body
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
            sock.settimeout(_LIMIT_S)
            sock.send(request)
            reply = sock.recv(65536)
    except OSError:
        return None
    length, kind, *_ = _HEADER.unpack_from(reply)
    if kind != _NEWTABLE:
        return None
    for number, value in attributes(reply[:length], _HEADER.size + _NFGENMSG.size):
        if number == _NFTA_TABLE_OWNER:
            return int.from_bytes(value, "big")
    return None


def _rows(path: str) -> Iterator[list[str]]:
    """Yield the lines of a table of /proc/net as words, without its head."""
    try:
        with open(path) as file:
            next(file, None)
            for line in file:
                if len(fields := line.split()) > 9:
                    yield fields
    except OSError:
        return


def _of_descriptor(matches: Callable[[str, str], bool]) -> str:
    """Return the first process with an open file that matches: its path, and what it leads to.

    Of a server and its workers, which share one, that is mostly the server.
    """
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{number}"
                with contextlib.suppress(OSError):
                    if matches(path, os.readlink(path)):
                        return f"{_name(pid)} (process {pid})"
    return ""


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", errors="replace") as file:
        name = file.read().rstrip("\n")
    # Whoever runs a program calls it what he likes.
    return "".join(each if each.isprintable() else "?" for each in name) or UNKNOWN
