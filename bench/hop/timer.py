# SPDX-License-Identifier: Apache-2.0
"""The connection timer: bpf/connections.c at its tracepoint, and what it has to report."""

from __future__ import annotations

import base64
import ctypes
import errno
import fcntl
import ipaddress
import mmap
import os
import platform
import re
import struct
import subprocess
import zlib
from pathlib import Path

from . import compiler, kernel, process
from .compiler import Map
from .errors import HopError

_EVENT = Path("/sys/kernel/tracing/events/sock/inet_sock_set_state")
_FIELDS = ("skaddr", "newstate", "sport", "dport", "daddr_v6")
_FIELD = re.compile(r"\bfield:[^;]*?\b(\w+)(?:\[\d+\])?;\s*offset:(\d+);")

# 400,000 connections: a sample of less is not read before it has ended.
RING_BYTES = 1 << 24
_PAGE = mmap.PAGESIZE
# Each with the ring's header (struct bpf_ringbuf_hdr: length and flags, page offset) of 8 bytes.
RECORD_BYTES = 8 + 32
_BUSY = 0x80  # BPF_RINGBUF_BUSY_BIT, in the last byte of the length
# struct timer_target of bpf/connections.c
_TARGET = struct.Struct("=16sHHIQ")
_FIRST = struct.pack("=I", 0)
# What one answer holds; compressed, a line of about half a megabyte.
MOST_RECORDS = 20_000

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
_PERF_TYPE_TRACEPOINT = 2
_PERF_EVENT_IOC_SET_BPF = 0x40042408
_PERF_EVENT_IOC_ENABLE = 0x2400
_PERF_FLAG_FD_CLOEXEC = 8


class ConnectionTimer:
    """Times the connections to one destination while it is told one."""

    def __init__(self, ring_bytes: int = RING_BYTES) -> None:
        """Compile and load. Raises HopError when this kernel or host cannot time connections.

        ring_bytes: room for connections that have ended, a power of 2 and whole pages.
        """
        self._ring_bytes = ring_bytes
        self._id, offsets = _tracepoint()
        self._fds = compiler.load(
            "connections.c",
            ("hopbench_connections",),
            {
                "timer_target": Map("ARRAY", 4, _TARGET.size, 1),
                "timer_open": Map("HASH", 8, 16, 16384),
                "timer_done": Map("RINGBUF", 0, 0, ring_bytes),
            },
            {
                "TIMER_RING_BYTES": ring_bytes,
                **{f"OFFSET_{name}": at for name, at in offsets.items()},
            },
            kind="TRACEPOINT",
        )
        ring = self._fds["timer_done"]
        self._consumer = mmap.mmap(ring, _PAGE, mmap.MAP_SHARED)
        # The data is mapped twice in a row, so that no record is ever cut in two.
        self._producer = mmap.mmap(
            ring, _PAGE + 2 * ring_bytes, access=mmap.ACCESS_READ, offset=_PAGE
        )
        self._perf_fd = -1
        self._taken: list[bytes] = []
        self._lost = 0

    def start(self, address: str, port: int) -> None:
        """Time connections to this address and port from now on, forgetting earlier ones."""
        self._attach()
        self._drain()
        self._taken = []
        self._lost = self.lost()
        wanted = ipaddress.ip_address(address)
        octets = wanted.packed if wanted.version == 6 else bytes(10) + b"\xff\xff" + wanted.packed
        self._set_target(octets, port, 1)

    def stop(self) -> tuple[int, int]:
        """Time nothing more; return how many connections ended, and were lost, since `start`."""
        lost = self.lost() - self._lost
        self._set_target(bytes(16), 0, 0)
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
        """Leave the tracepoint, at which no other program's sockets then pass this one."""
        if self._perf_fd >= 0:
            os.close(self._perf_fd)
            self._perf_fd = -1

    def lost(self) -> int:
        """Return how many connections there was no room for since the program was loaded."""
        lost: int = _TARGET.unpack(kernel.lookup(self._fds["timer_target"], _FIRST, _TARGET.size))[
            4
        ]
        return lost

    def _set_target(self, octets: bytes, port: int, on: int) -> None:
        # `lost` is the program's; it only counts while connections end, which they do not now.
        value = _TARGET.pack(octets, port, on, 0, self.lost())
        kernel.update(self._fds["timer_target"], _FIRST, value)

    def _attach(self) -> None:
        if self._perf_fd < 0:
            self._perf_fd = _attach(self._fds["hopbench_connections"], self._id)

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


def _tracepoint() -> tuple[int, dict[str, int]]:
    """Return the tracepoint's id, and where its fields stand in this kernel."""
    text = _read(("id", "format"))
    number, _, layout = text.partition("\n")
    offsets = {name: int(at) for name, at in _FIELD.findall(layout)}
    if not number.strip().isdigit() or not set(_FIELDS) <= set(offsets):
        raise HopError(
            "this kernel has no tracepoint sock:inet_sock_set_state as Linux 4.16 brought it",
            "measure with siege's clock alone: --no-timer",
        )
    return int(number), {name: offsets[name] for name in _FIELDS}


def _read(names: tuple[str, ...]) -> str:
    """Return files of the tracepoint, also where nobody has mounted tracefs."""
    files = [str(_EVENT / name) for name in names]
    # In a mount namespace of its own, which goes with the process.
    script = '[ -e "$1" ] || mount -t tracefs tracefs /sys/kernel/tracing; exec cat "$@"'
    mounts = [process.tool("unshare"), "--mount", "--propagation", "private", "--"]
    done = subprocess.run(
        [*mounts, "/bin/sh", "-c", script, "sh", *files],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def _attach(prog_fd: int, tracepoint: int) -> int:
    """Attach by a perf event and return its descriptor: closed, also by SIGKILL, it detaches."""
    # struct perf_event_attr, PERF_ATTR_SIZE_VER0: type, size, config, sample_period, sample_type,
    # read_format, flags, wakeup_events, bp_type, bp_addr
    attr = struct.pack("=IIQQQQQIIQ", _PERF_TYPE_TRACEPOINT, 64, tracepoint, 1, 0, 0, 0, 1, 0, 0)
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise HopError(f"connections cannot be timed on {platform.machine()}", "use --no-timer")
    libc = ctypes.CDLL(None, use_errno=True)
    # Any process, one CPU: what belongs to the event is one file; its program runs on all CPUs.
    fd: int = libc.syscall(
        number, ctypes.create_string_buffer(attr, 64), -1, 0, -1, _PERF_FLAG_FD_CLOEXEC
    )
    if fd < 0:
        reason = os.strerror(ctypes.get_errno() or errno.EPERM)
        raise HopError(f"the tracepoint cannot be opened: {reason}", "use --no-timer")
    try:
        fcntl.ioctl(fd, _PERF_EVENT_IOC_SET_BPF, prog_fd)
        fcntl.ioctl(fd, _PERF_EVENT_IOC_ENABLE, 0)
    except OSError as error:
        os.close(fd)
        raise HopError(f"the tracepoint takes no program: {error.strerror}") from error
    return fd
