# SPDX-License-Identifier: Apache-2.0
"""What ethtool asks of a NIC, by the same ioctl and without the program: counters and settings.

Needs no other module of this package: it also runs on hosts before any deploy.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

# include/uapi/linux/sockios.h and ethtool.h
_SIOCETHTOOL = 0x8946
_GDRVINFO, _GCOALESCE, _GRINGPARAM, _GPAUSEPARAM, _GSTRINGS = 0x03, 0x0E, 0x10, 0x12, 0x1B
_GSTATS, _GPFLAGS, _GSSET_INFO, _GFEATURES, _GCHANNELS = 0x1D, 0x27, 0x37, 0x3A, 0x3C
_GEEE = 0x44
_SET_STATS, _SET_PRIVATE_FLAGS, _SET_FEATURES = 1, 2, 4
_STRING_BYTES = 32
# struct ifreq: a name, then a union of which a pointer is the first word.
_IFREQ_BYTES = 40
# Rooms for counters beyond those that were announced: before Linux 6.19 the kernel writes as many
# as there are by then, whatever was asked for.
_SPARE = 512

_CHANNELS = ("rx_max", "tx_max", "other_max", "combined_max", "rx", "tx", "other", "combined")
_RINGS = ("rx_max", "rx_mini_max", "rx_jumbo_max", "tx_max", "rx", "rx_mini", "rx_jumbo", "tx")
_COALESCING = (
    *("rx_usecs", "rx_frames", "rx_usecs_irq", "rx_frames_irq"),
    *("tx_usecs", "tx_frames", "tx_usecs_irq", "tx_frames_irq"),
    *("stats_block_usecs", "adaptive_rx", "adaptive_tx"),
)
_COALESCE_WORDS = 23


def _ask(nic: str, request: bytes) -> bytes:
    """Return the request as the kernel filled it in. Raises OSError."""
    room = array.array("B", request)
    address, _ = room.buffer_info()
    ifreq = struct.pack("16sP", nic.encode(), address).ljust(_IFREQ_BYTES, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, ifreq)
    return room.tobytes()


def _words(nic: str, command: int, count: int) -> tuple[int, ...] | None:
    """Return the words after the command of a structure of 32-bit words; None: not supported."""
    try:
        answer = _ask(nic, struct.pack("=I", command) + bytes(4 * count))
    except OSError:
        return None
    return struct.unpack(f"={count}I", answer[4:])


def _text(raw: bytes) -> str | None:
    return raw.split(b"\0")[0].decode(errors="replace").strip() or None


def _count(nic: str, string_set: int) -> int:
    """Return how many strings a set has, 0 where the NIC has none. Raises OSError."""
    # The last word is a variable array: filled when the set's bit stays on in the mask.
    answer = _ask(nic, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << string_set, 0))
    _, _, mask, count = struct.unpack("=IIQI", answer)
    return int(count) if mask else 0


def _strings(nic: str, string_set: int, count: int) -> list[str]:
    """Return a set's strings without the blanks that some drivers pad them with."""
    room = bytes((count + _SPARE) * _STRING_BYTES)
    answer = _ask(nic, struct.pack("=III", _GSTRINGS, string_set, count) + room)
    return [
        _text(answer[at : at + _STRING_BYTES]) or ""
        for at in range(12, 12 + count * _STRING_BYTES, _STRING_BYTES)
    ]


class Statistics:
    """A NIC's own counters, as `ethtool -S` prints them; their names are asked for once."""

    def __init__(self, nic: str) -> None:
        self._nic = nic
        self._names: list[str] = []

    def read(self) -> dict[str, int]:
        """Return {name: value}, nothing for a NIC that has none. Raises OSError for no such NIC.

        Of counters with one name the first is taken, and those without a name are left out.
        """
        count = _count(self._nic, _SET_STATS)
        # A NIC whose queues were changed has others from then on.
        if count != len(self._names):
            self._names = _strings(self._nic, _SET_STATS, count)
        if not count:
            return {}
        room = bytes(8 * (count + _SPARE))
        answer = _ask(self._nic, struct.pack("=II", _GSTATS, count) + room)
        (got,) = struct.unpack_from("=I", answer, 4)
        # Less than announced: the queues were changed between the two questions.
        values = struct.unpack_from(f"={min(got, count)}Q", answer, 8)
        return named(self._names, values)


def named(names: list[str], values: tuple[int, ...]) -> dict[str, int]:
    """Return {name: value}: the first of equal names, none for an empty name."""
    found: dict[str, int] = {}
    for name, value in zip(names, values, strict=False):
        if name:
            found.setdefault(name, value)
    return found


def driver(nic: str) -> dict[str, str | None]:
    """Return driver, its version, the firmware's and the bus address (struct ethtool_drvinfo)."""
    keys = ("driver", "driver_version", "firmware", "bus")
    try:
        answer = _ask(nic, struct.pack("=I", _GDRVINFO) + bytes(192))
    except OSError:
        return dict.fromkeys(keys)
    return {key: _text(answer[4 + 32 * at : 36 + 32 * at]) for at, key in enumerate(keys)}


def channels(nic: str) -> dict[str, int | None]:
    """Return queues in use and at most, by kind; None for a kind that the NIC does not have."""
    words = _words(nic, _GCHANNELS, len(_CHANNELS))
    found = dict(zip(_CHANNELS, words or (0,) * len(_CHANNELS), strict=True))
    kinds = ("combined", "rx", "tx")
    most = {f"{kind}_max": found[f"{kind}_max"] or None for kind in kinds}
    return {kind: found[kind] if most[f"{kind}_max"] else None for kind in kinds} | most


def rings(nic: str) -> dict[str, int | None]:
    """Return descriptors of the receive and transmit rings, in use and at most."""
    words = _words(nic, _GRINGPARAM, len(_RINGS))
    found = dict(zip(_RINGS, words, strict=True)) if words else {}
    return {key: found.get(key) for key in ("rx", "rx_max", "tx", "tx_max")}


def coalescing(nic: str) -> dict[str, int | None]:
    """Return how interrupts are held back: µs, frames, and whether the driver adapts them."""
    words = _words(nic, _GCOALESCE, _COALESCE_WORDS - 1)
    found = dict(zip(_COALESCING, words or (), strict=False))
    keys = ("rx_usecs", "rx_frames", "tx_usecs", "tx_frames", "adaptive_rx", "adaptive_tx")
    return {key: found.get(key) for key in keys}


def pause(nic: str) -> dict[str, int | None]:
    """Return whether pause frames are negotiated, obeyed and sent: 0 or 1."""
    words = _words(nic, _GPAUSEPARAM, 3)
    return dict(zip(("autoneg", "rx", "tx"), words or (None, None, None), strict=True))


def eee(nic: str) -> dict[str, int | None]:
    """Return whether Energy-Efficient Ethernet is allowed, and what both ends agreed on: 0 or 1."""
    # struct ethtool_eee: three masks of link modes, then these.
    words = _words(nic, _GEEE, 9)
    active, enabled = words[3:5] if words else (None, None)
    return {"enabled": enabled, "active": active}


def features(nic: str) -> dict[str, bool]:
    """Return which of the kernel's features (net/ethtool/common.c) are active on a NIC."""
    try:
        count = _count(nic, _SET_FEATURES)
        names = _strings(nic, _SET_FEATURES, count)
        blocks = (count + 31) // 32
        request = struct.pack("=II", _GFEATURES, blocks) + bytes(16 * blocks)
        # Of each 32 features: available, requested, active, never changed.
        words = struct.unpack(f"={4 * blocks}I", _ask(nic, request)[8:])
    except OSError:
        return {}
    return {
        name: bool(words[at // 32 * 4 + 2] >> at % 32 & 1) for at, name in enumerate(names) if name
    }


def private_flags(nic: str) -> dict[str, bool]:
    """Return the driver's own switches, as `ethtool --show-priv-flags` does."""
    try:
        count = _count(nic, _SET_PRIVATE_FLAGS)
        names = _strings(nic, _SET_PRIVATE_FLAGS, count) if count else []
        words = _words(nic, _GPFLAGS, 1) if count else None
    except OSError:
        return {}
    return {name: bool(words[0] >> at & 1) for at, name in enumerate(names)} if words else {}
