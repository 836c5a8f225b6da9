# SPDX-License-Identifier: Apache-2.0
"""Members of the kernel's structures by BTF: of this kernel, and of none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bench.hop import btf
from bench.hop.errors import HopError


@pytest.mark.skipif(not Path(btf.VMLINUX).exists(), reason="this kernel has no BTF")
def test_this_kernel() -> None:
    wanted = {"list_head": ("next", "prev"), "sock_common": ("skc_daddr", "skc_dport")}
    found = btf.offsets(wanted)
    word = struct.calcsize("P")
    assert (found["next"], found["prev"]) == (0, word)
    # In unnamed unions and structures: the addresses come first (include/net/sock.h).
    assert found["skc_daddr"] == 0
    assert 0 < found["skc_dport"] < 64
    for structure, member in (("list_head", "middle"), ("no_such_structure", "next")):
        with pytest.raises(HopError, match="has no"):
            btf.offsets({structure: (member,)})


def _types(*words: int, strings: bytes) -> bytes:
    body = struct.pack(f"={len(words)}I", *words)
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings)) + (
        body + strings
    )


def test_members_of_unnamed_ones_and_bit_fields(tmp_path: Path) -> None:
    # 1: int, 2: union { int a; }, 3: struct s { int x; union at 32; int y:3 at 64 with a bit size }
    strings = b"\0int\0a\0s\0x\0y\0"
    data = _types(
        *(1, 1 << 24, 4, 32),
        *(0, 5 << 24 | 1, 4, 5, 1, 0),
        *(7, 1 << 31 | 4 << 24 | 3, 12, 9, 1, 0, 0, 2, 32, 11, 1, 3 << 24 | 64),
        strings=strings,
    )
    file = tmp_path / "btf"
    file.write_bytes(data)
    assert btf.offsets({"s": ("x", "a", "y")}, str(file)) == {"x": 0, "a": 4, "y": 8}


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\x9f\xeb\x01\0" + b"\xff" * 60])
def test_what_is_no_btf(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "btf"
    file.write_bytes(content)
    with pytest.raises(HopError, match="cannot be read"):
        btf.offsets({"s": ("x",)}, str(file))
    with pytest.raises(HopError, match="cannot be read"):
        btf.offsets({"s": ("x",)}, str(tmp_path / "none"))
