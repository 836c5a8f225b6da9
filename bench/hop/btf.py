# SPDX-License-Identifier: Apache-2.0
"""Where the running kernel's structures have their members, by its own BTF."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from .errors import HopError

VMLINUX = "/sys/kernel/btf/vmlinux"

# Documentation/bpf/btf.rst; struct btf_header and struct btf_type of include/uapi/linux/btf.h.
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_MAGIC = 0xEB9F
_STRUCT, _UNION = 4, 5
# How many bytes follow struct btf_type, by kind: so many, and so many for each element.
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def offsets(wanted: Mapping[str, Sequence[str]], path: str = VMLINUX) -> dict[str, int]:
    """Return {member: offset in bytes}, also of members of unnamed structures and unions within.

    wanted: {structure: names of its members}. Raises HopError when the kernel has no BTF, or no
    such structure or member in it.
    """
    found: dict[str, int] = {}
    try:
        with open(path, "rb") as file:
            types = _Types(file.read())
        for structure, names in wanted.items():
            members = dict(types.members(structure))
            found |= {name: members[name] for name in names}
    except KeyError as error:
        raise HopError(f"this kernel's BTF has no {error} where it used to be") from error
    except (OSError, struct.error, IndexError, ValueError) as error:
        raise HopError(f"this kernel's BTF cannot be read: {error}") from error
    return found


class _Types:
    def __init__(self, data: bytes) -> None:
        magic, _, _, header, types, length, strings, _ = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("no BTF")
        self._data = data
        self._strings = header + strings
        self._at = [0]  # of each type by its number; 0 is void
        at, end = header + types, header + types + length
        while at < end:
            self._at.append(at)
            _, info, _ = _TYPE.unpack_from(data, at)
            kind, count = info >> 24 & 31, info & 0xFFFF
            at += _TYPE.size + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * count

    def _name(self, offset: int) -> str:
        begin = self._strings + offset
        return self._data[begin : self._data.index(b"\0", begin)].decode(errors="replace")

    def members(self, structure: str) -> Iterator[tuple[str, int]]:
        wanted = structure.encode() + b"\0"
        for number, at in enumerate(self._at):
            if not number:
                continue
            name, info, _ = _TYPE.unpack_from(self._data, at)
            begin = self._strings + name
            if info >> 24 & 31 == _STRUCT and self._data.startswith(wanted, begin):
                yield from self._members(number, 0)
                return
        raise KeyError(structure)

    def _members(self, number: int, base: int) -> Iterator[tuple[str, int]]:
        at = self._at[number]
        _, info, _ = _TYPE.unpack_from(self._data, at)
        if info >> 24 & 31 not in (_STRUCT, _UNION):
            return
        for place in range(info & 0xFFFF):
            name, kind, bits = _MEMBER.unpack_from(self._data, at + 12 + 12 * place)
            # With bit fields, the lower 24 bits are the offset.
            offset = base + (bits & 0xFFFFFF if info >> 31 else bits) // 8
            text = self._name(name)
            if text:
                yield text, offset
            else:
                yield from self._members(kind, offset)
