# SPDX-License-Identifier: Apache-2.0
"""Frames as the fuzz makes them, damaged ones included."""

from __future__ import annotations

import struct

from tests.datapath.conftest import (
    Next,
)
from tests.datapath.genes import (
    ODDITIES,
    TEXT,
    Gene,
)
from tests.datapath.model import Model
from tests.datapath.speech import (
    UDP,
    Ends,
    checksum,
    fold,
    pseudo_header,
)
from tests.datapath.worlds import (
    packed,
)

OPTIONS = (b"", b"\x01\x01\x01\x01", TEXT[:12], TEXT[:40])


def set_next(model: Model, step: Next) -> None:
    """Give a model the settings that a step gives the program."""
    model.set_next(packed(step.address), step.port, packed(step.out))


def ip4(gene: Gene, protocol: int, ends: Ends, fragment: int, ttl: int, options: bytes) -> bytes:
    """An IPv4 header without its length and checksum."""
    first = 0x45 + len(options) // 4
    head = struct.pack("!BBHHHBBH", first, gene.header, 0, gene.text, fragment, ttl, protocol, 0)
    return head + ends.source + ends.destination + options


def segment(
    protocol: int, ends: Ends, bits: int, number: int, rest: bytes, offset: int = 5
) -> bytes:
    """TCP, or UDP, with a checksum of 0; `rest` may begin with TCP options."""
    ports = struct.pack("!HH", ends.source_port, ends.destination_port)
    if protocol == UDP:
        return ports + struct.pack("!HH", 8 + len(rest), 0) + rest
    return ports + struct.pack("!IIBBHHH", number << 16, 1, offset << 4, bits, 65535, 0, 0) + rest


def transport_checksum(protocol: int, ends: Ends, upper: bytes) -> int:
    """The checksum of a segment in which it is still 0."""
    total = checksum(pseudo_header(ends.source + ends.destination, len(upper), protocol), upper)
    return 0xFFFF if protocol == UDP and total == 0 else total


def _sum(ends: Ends) -> int:
    addresses = int.from_bytes(ends.source + ends.destination, "big")
    return addresses + ends.source_port + ends.destination_port


def to_zero(comes: Ends, leaves: Ends) -> int:
    """A checksum, right or wrong, that becomes 0 when the ends are rewritten."""
    return fold((_sum(leaves) - _sum(comes)) % 0xFFFF) or 0xFFFF


def damaged(gene: Gene, frame: bytes) -> bytes:
    """Change octets, cut or lengthen."""
    oddity = ODDITIES[gene.oddity]
    if oddity == "group":
        return b"\x01\x00\x5e\x00\x00\x01" + frame[6:]
    if oddity == "other":
        return frame[:5] + bytes((frame[5] ^ gene.value | 128,)) + frame[6:]
    if oddity in ("flip", "set"):
        # Mostly in the headers.
        at = (gene.at if gene.at < 128 else gene.at - 128) % len(frame)
        if gene.more > 240:
            at = (gene.at << 3 | gene.value & 7) % len(frame)
        value = frame[at] ^ 1 << gene.value % 8 if oddity == "flip" else gene.value
        return frame[:at] + bytes((value,)) + frame[at + 1 :]
    if oddity == "truncate":
        cut = gene.at % 80 if gene.value < 200 else gene.at
        return frame[: max(14, (len(frame) - cut) if gene.value % 2 else 14 + cut)]
    if oddity == "length":
        # That of the IP packet, where it has a tag or not.
        at = (16, 18, 20, 22)[gene.value % 4]
        if at + 2 <= len(frame):
            length = int.from_bytes(frame[at : at + 2], "big") + (gene.at - 128) // 4
            return frame[:at] + (length & 0xFFFF).to_bytes(2, "big") + frame[at + 2 :]
    return frame
