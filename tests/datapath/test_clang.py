# SPDX-License-Identifier: Apache-2.0
"""The BPF sources without BCC: clang compiles them, and the kernel's verifier takes the result."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "bpf"
_WARNINGS = (
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-parameter",
    "-Wno-address-of-packed-member",
)
# As in the Makefile of the kernel's own BPF samples.
_FLAGS = ("-O2", "-g", "-target", "bpf", f"-I/usr/include/{platform.machine()}-linux-gnu")

ONE_NIC, TWO_NICS = {"EGRESS": 0}, {"EGRESS": 1}
UNTAGGED, TAGGED = {"VLAN": 0, "EGRESS_VLAN": 0}, {"VLAN": 5, "EGRESS_VLAN": 6}
FORWARDER = {
    "HOP_PORT": 0x581B,
    "PORT_MIN": 1024,
    "PORT_MAX": 32767,
    "NAT_FLOWS": 1000,
    "HZ": 250,
}

TIMER = {
    "TIMER_RING_BYTES": 1 << 24,
    **{f"OFFSET_{name}": at for name, at in [("skc_daddr", 0), ("skc_dport", 12)]},
    **{f"OFFSET_{name}": at for name, at in [("skc_v6_daddr", 56), ("inet_sport", 800)]},
    **{f"OFFSET_{name}": at for name, at in [("skc_net", 48), ("netns_inum", 136)]},
}

DISPATCH = {"FIRST_PORT": 7996, "FORWARDERS": 4, "NAT_MIN": 10000, "NAT_COUNT": 10000}

# name, source, constants
BUILDS = [
    ("IPv4", "forwarder.c", {"FAMILY": 4, "FRESH": 0, **ONE_NIC, **UNTAGGED}),
    ("IPv4 fresh", "forwarder.c", {"FAMILY": 4, "FRESH": 1, **ONE_NIC, **UNTAGGED}),
    ("IPv4 two NICs", "forwarder.c", {"FAMILY": 4, "FRESH": 0, **TWO_NICS, **UNTAGGED}),
    ("IPv4 tagged", "forwarder.c", {"FAMILY": 4, "FRESH": 0, **TWO_NICS, **TAGGED}),
    ("IPv4 trace", "forwarder.c", {"FAMILY": 4, "FRESH": 0, "TRACE": 1, **TWO_NICS, **UNTAGGED}),
    ("IPv6", "forwarder.c", {"FAMILY": 6, "FRESH": 0, **ONE_NIC, **UNTAGGED}),
    ("IPv6 fresh", "forwarder.c", {"FAMILY": 6, "FRESH": 1, **ONE_NIC, **UNTAGGED}),
    ("IPv6 tagged", "forwarder.c", {"FAMILY": 6, "FRESH": 0, **TWO_NICS, **TAGGED}),
    ("IPv6 trace", "forwarder.c", {"FAMILY": 6, "FRESH": 1, "TRACE": 1, **TWO_NICS, **UNTAGGED}),
    ("loopback", "forwarder.c", {"FAMILY": 4, "FRESH": 0, "LOOPBACK": 1, **ONE_NIC, **UNTAGGED}),
    ("dispatch", "loopback.c", DISPATCH),
    (
        "legacy",
        "legacy_loopback.c",
        {"FIRST_PORT": 7996, "SERVER_PORT": 8000, "SOURCE_OFFSET": 1000},
    ),
    ("wire", "wire.c", {"PORT_COUNT": 7}),
    ("baselines IPv4", "baselines.c", {"FAMILY": 4, "SOURCES": 64512}),
    ("baselines IPv6", "baselines.c", {"FAMILY": 6, "SOURCES": 64512}),
    ("steps IPv4", "steps.c", {"FAMILY": 4, "STEP_ENTRIES": 65536}),
    ("steps IPv6", "steps.c", {"FAMILY": 6, "STEP_ENTRIES": 65536}),
    ("connections", "connections.c", TIMER),
]


def compilers() -> list[str]:
    """Return clang 14, where it is installed, and the newest that is."""
    found = {
        int(name[1])
        for folder in ("/usr/bin", "/usr/local/bin")
        for path in Path(folder).glob("clang-*")
        if (name := re.fullmatch(r"clang-(\d+)", path.name))
    }
    return [f"clang-{version}" for version in sorted({min(found), max(found)} if found else ())]


def load(file: Path) -> None:
    """Load an object file through libbpf, and let go of it. Raises OSError."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    libbpf.bpf_object__open_file.restype = ctypes.c_void_p
    opened = libbpf.bpf_object__open_file(str(file).encode(), None)
    if not opened:
        raise OSError(ctypes.get_errno(), "bpf_object__open_file")
    error = libbpf.bpf_object__load(ctypes.c_void_p(opened))
    libbpf.bpf_object__close(ctypes.c_void_p(opened))
    if error:
        raise OSError(-error, "bpf_object__load")


def test_there_are_compilers() -> None:
    assert compilers(), "no clang here: make setup-tests"
    assert all(map(shutil.which, compilers()))


@pytest.mark.parametrize("compiler", compilers())
@pytest.mark.parametrize(("name", "source", "constants"), BUILDS, ids=[row[0] for row in BUILDS])
def test_clang(
    compiler: str, name: str, source: str, constants: dict[str, int], tmp_path: Path
) -> None:
    defines = constants if source == "wire.c" else {**FORWARDER, **constants}
    target = tmp_path / "program.o"
    words = [f"-D{key}={value}" for key, value in defines.items()]
    command = [compiler, *_FLAGS, *_WARNINGS, *words, "-c", SOURCES / source, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{name}: {done.stderr}"
    load(target)


def test_bcc_is_in_the_shim_only() -> None:
    idioms = re.compile(
        r"BPF_(TABLE|HASH|ARRAY|PERCPU_ARRAY|RINGBUF_OUTPUT)|bpf_pseudo_fd|\.lookup\("
    )
    for file in [*SOURCES.glob("*.h"), *SOURCES.glob("*.c")]:
        text = file.read_text()
        assert file.name == "shim.h" or not idioms.search(text), file.name
        assert len(text.splitlines()) < 300, file.name
