# SPDX-License-Identifier: Apache-2.0
"""What the forwarder did to each packet: bpf/trace.h's events as JSON."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import Any

from . import kernel
from .program import Program, counter_names
from .ring import RingBuffer

# struct trace_event of bpf/trace.h
_ENDS = "16s16s2s2s"
_EVENT = struct.Struct("=Q" + _ENDS + _ENDS + "4s4sH2sHBBBB6x")
_CONTROL = struct.Struct("=2sHIIIQ")
_FIRST = struct.pack("=I", 0)
_FLAGS = "FSRPAUEC"  # RFC 9293, lowest bit first
_VERDICTS = {0: "aborted", 1: "drop", 2: "pass", 3: "tx", 4: "redirect"}
# What fits one answer with room to spare; the rest waits in the ring for the next question.
MOST_EVENTS = 200


class Tracer:
    """The trace of one program."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._family = program.constants.family
        self._names = counter_names()
        self._ring = RingBuffer(program.fds["trace_events"])

    def choose(self, port: int, per_second: int, mask: int) -> None:
        """Trace packets with this port on either side (0: all), so many a second (0: all).

        mask: of the packets' hash, the same for all hops; 0 for all, 1 for every other, 3, 7, …
        """
        control = _CONTROL.pack(struct.pack("!H", port), mask, per_second, 0, 0, 0)
        kernel.update(self._program.fds["trace_control"], _FIRST, control)

    def home_of(self, address: str, port: int) -> int:
        """Return the port that a client endpoint gets here unless another has it; 0 if any."""
        return self._program.home_of(address, port)

    def events(self) -> dict[str, Any]:
        """Return the oldest events, how many were missed since `choose`, and what their clock is.

        more: whether others are waiting, as far as can be told.

        boot_id: hosts that share it share the clock. realtime_ns: to be added to each event's time.
        """
        taken = [self._event(record) for record in self._ring.consume(MOST_EVENTS)]
        control = kernel.lookup(self._program.fds["trace_control"], _FIRST, _CONTROL.size)
        return {
            "packets": taken,
            "more": len(taken) == MOST_EVENTS,
            "missed": _CONTROL.unpack(control)[5],
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "realtime_ns": time.time_ns() - time.monotonic_ns(),
        }

    def _event(self, record: bytes) -> dict[str, Any]:
        ns, *fields = _EVENT.unpack(record[: _EVENT.size])
        before, after = self._ends(fields[:4]), self._ends(fields[4:8])
        seq, ack, length, ip_id, reason, number, flags, ttl, verdict = fields[8:]
        protocol = {6: "TCP", 17: "UDP"}.get(number, "ICMP")
        if protocol != "TCP":  # the program has read what stands where TCP has these
            seq, ack, flags = b"", b"", 0
        if protocol == "ICMP":
            before[1::2] = after[1::2] = [0, 0]
        return {
            "ns": ns,
            "before": before,
            "after": after,
            "protocol": protocol,
            "flags": "".join(name for bit, name in enumerate(_FLAGS) if flags & 1 << bit),
            "seq": int.from_bytes(seq, "big"),
            "ack": int.from_bytes(ack, "big"),
            "length": length,
            "id": int.from_bytes(ip_id, "big"),
            "ttl": ttl,
            "verdict": _VERDICTS.get(verdict, str(verdict)),
            "reason": self._names[reason],
        }

    def _ends(self, fields: list[bytes]) -> list[Any]:
        size = 4 if self._family == 4 else 16
        af = socket.AF_INET if self._family == 4 else socket.AF_INET6
        source, dest = (socket.inet_ntop(af, each[:size]) for each in fields[:2])
        ports = [int.from_bytes(each, "big") for each in fields[2:]]
        return [source, ports[0], dest, ports[1]]

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()
