# SPDX-License-Identifier: Apache-2.0
"""The connection timer: bpf/connections.c at its tracepoint, and what it has to report."""

from __future__ import annotations

import base64
import ipaddress
import mmap
import os
import socket
import struct
import zlib

from . import btf, compiler, kernel
from .compiler import Map
from .errors import HopError

_TRACEPOINT = b"inet_sock_set_state"
_FIELDS = {
    "sock_common": ("skc_daddr", "skc_dport", "skc_v6_daddr", "skc_net"),
    "inet_sock": ("inet_sport",),
}
# Of a network namespace: where it keeps its number.
_NETNS = {"net": ("ns",), "ns_common": ("inum",)}
# Both of bpf/connections.c: what one cannot see, the other does.
_PROGRAMS = ("hopbench_connections", "hopbench_connections_again")

# 400,000 connections: a sample of less is not read before it has ended.
RING_BYTES = 1 << 24
_PAGE = mmap.PAGESIZE
# Each with the ring's header (struct bpf_ringbuf_hdr: length and flags, page offset) of 8 bytes.
RECORD_BYTES = 8 + 32
_BUSY = 0x80  # BPF_RINGBUF_BUSY_BIT, in the last byte of the length
_REMEDY = "measure with siege's clock alone: --no-timer"
# struct timer_target of bpf/connections.c
_TARGET = struct.Struct("=16sHHIQ")
_FIRST = struct.pack("=I", 0)
# What one answer holds; compressed, a line of about half a megabyte.
MOST_RECORDS = 20_000


class ConnectionTimer:
    """Times the connections to one destination while it is told one."""

    def __init__(self, ring_bytes: int = RING_BYTES) -> None:
        """Compile and load. Raises HopError when this kernel or host cannot time connections.

        ring_bytes: room for connections that have ended, a power of 2 and whole pages.
        """
        self._ring_bytes = ring_bytes
        try:
            offsets = btf.offsets(_FIELDS)
            netns = btf.offsets(_NETNS)
            offsets["netns_inum"] = netns["ns"] + netns["inum"]
        except HopError as error:
            raise HopError(error.cause, _REMEDY) from error
        self._fds = compiler.load(
            "connections.c",
            _PROGRAMS,
            {
                "timer_target": Map("ARRAY", 4, _TARGET.size, 1),
                "timer_open": Map("HASH", 8, 16, 16384),
                "timer_done": Map("RINGBUF", 0, 0, ring_bytes),
            },
            {
                "TIMER_RING_BYTES": ring_bytes,
                **{f"OFFSET_{name}": at for name, at in offsets.items()},
            },
            kind="RAW_TRACEPOINT",
        )
        ring = self._fds["timer_done"]
        self._consumer = mmap.mmap(ring, _PAGE, mmap.MAP_SHARED)
        # The data is mapped twice in a row, so that no record is ever cut in two.
        self._producer = mmap.mmap(
            ring, _PAGE + 2 * ring_bytes, access=mmap.ACCESS_READ, offset=_PAGE
        )
        self._attached: list[int] = []
        self._taken: list[bytes] = []
        self._lost = 0

    def start(self, address: str, port: int) -> None:
        """Time this network namespace's connections to an address and port from now on.

        Earlier ones are forgotten.
        """
        self._attach()
        # Of connections that were open when nobody looked, as between two samples.
        for key in kernel.keys(self._fds["timer_open"], 8):
            kernel.delete(self._fds["timer_open"], key)
        self._drain()
        self._taken = []
        self._lost = self.lost()
        wanted = ipaddress.ip_address(address)
        self._set_target(wanted.packed, port, wanted.version)

    def stop(self) -> tuple[int, int]:
        """Time nothing more; return how many connections ended, and were lost, since `start`."""
        lost = self.lost() - self._lost
        self._set_target(b"", 0, 0)
        self._drain()
        return sum(map(len, self._taken)) // RECORD_BYTES, lost

    def relieve(self) -> None:
        """Make room in the ring where a quarter of it is taken; cheap where it is not."""
        if self._waiting()[1] > self._ring_bytes // 4:
            self._drain()

    def take(self) -> dict[str, object]:
        """Return the oldest connections that were not taken yet.

        data: records of 40 bytes each, the ring's header and struct connection of
        bpf/connections.c, compressed by zlib, in base64. more: whether others are left.
        """
        data = b"".join(self._taken)
        most = MOST_RECORDS * RECORD_BYTES
        self._taken = [data[most:]] if len(data) > most else []
        packed = base64.b64encode(zlib.compress(data[:most], 1)).decode()
        return {"data": packed, "more": bool(self._taken)}

    def detach(self) -> None:
        """Leave the tracepoint, at which no program of ours then costs any socket anything."""
        while self._attached:
            os.close(self._attached.pop())

    def lost(self) -> int:
        """Return how many connections there was no room for since the program was loaded."""
        lost: int = _TARGET.unpack(kernel.lookup(self._fds["timer_target"], _FIRST, _TARGET.size))[
            4
        ]
        return lost

    def _set_target(self, octets: bytes, port: int, version: int) -> None:
        # `lost` is the program's; it only counts while connections end, which they do not now.
        here = os.stat("/proc/self/ns/net").st_ino
        value = _TARGET.pack(octets, socket.htons(port), version, here, self.lost())
        kernel.update(self._fds["timer_target"], _FIRST, value)

    def _attach(self) -> None:
        """Attach to the tracepoint until a descriptor is closed, also by SIGKILL."""
        for name in _PROGRAMS[len(self._attached) :]:
            fd: int = kernel.library().bpf_raw_tracepoint_open(_TRACEPOINT, self._fds[name])
            if fd < 0:
                raise HopError(f"connections cannot be timed: {os.strerror(-fd)}", _REMEDY)
            os.set_inheritable(fd, False)
            self._attached.append(fd)

    def _waiting(self) -> tuple[int, int]:
        """Return where the consumer stands, and how many bytes are before it."""
        at, until = (
            int.from_bytes(each[:8], "little") for each in (self._consumer, self._producer)
        )
        return at, until - at

    def _drain(self) -> None:
        at, length = self._waiting()
        begin = _PAGE + at % self._ring_bytes
        data = self._producer[begin : begin + length]
        # All records have the same length: every 40th byte is the one with the flags.
        flags = data[3::RECORD_BYTES]
        if flags.count(0) != len(flags):
            busy = next(place for place, flag in enumerate(flags) if flag & _BUSY)
            data = data[: busy * RECORD_BYTES]
        if data:
            self._taken.append(data)
            self._consumer[:8] = (at + len(data)).to_bytes(8, "little")
