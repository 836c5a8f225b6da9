# SPDX-License-Identifier: Apache-2.0
"""Compiled BPF programs, kept beside the deployed agent: what was compiled once is loaded at once.

Compiling takes a second on a PC and half a minute in an emulated guest, for every agent of every
run. What is kept goes by all that it depends on: sources, constants, kernel, headers, compiler.
The kernel verifies a program each time it is loaded, wherever it comes from. `bench undeploy`
removes what is kept.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import glob
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import kernel
from .offload_records import require_own

# Hops that are alike share one, of some 50 KB; settings, and versions of hopbench, make others.
MOST = 64

# include/uapi/linux/bpf.h
_KINDS = {"XDP": 6, "RAW_TRACEPOINT": 17}
_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_64, _CALL = 0x18, 0x85
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 1, 2
_MAP_FD = "MAP_FD_"
_FORMAT = 1


def key(sources: Path, request: Mapping[str, Any]) -> str:
    """Return what names the result of compiling; empty where that cannot be told apart."""
    compilers = [os.path.realpath(path) for path in sorted(glob.glob("/usr/lib/*/libbcc.so.0"))]
    if not compilers or request["kind"] not in _KINDS:
        return ""
    files = [*sources.glob("*.c"), *sources.glob("*.h")]
    defines = {name: value for name, value in request["defines"].items() if _MAP_FD not in name}
    system = os.uname()
    whole = {
        "format": _FORMAT,
        "request": {**request, "defines": defines},
        "sources": {each.name: _sha256(each.read_bytes()) for each in files},
        "kernel": [system.release, system.version, system.machine],
        "headers": os.path.realpath(f"/lib/modules/{system.release}/build"),
        "compilers": [[path, *_identity(path)] for path in compilers],
    }
    return _sha256(json.dumps(whole, sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def load(folder: Path, name: str, request: Mapping[str, Any]) -> list[int]:
    """Load what is kept under a name; return its file descriptors, none where there is none.

    request: as it was compiled for, but with the maps of this time.
    """
    fds: list[int] = []
    try:
        require_own(str(folder))
        path = folder / name
        kept = json.loads(path.read_text())
        for function in request["functions"]:
            code = base64.b64decode(kept["code"][function])
            code = _relocated(code, kept["maps"], _maps(request))
            fds.append(_load(function, _KINDS[request["kind"]], code))
        os.utime(path)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        for fd in fds:
            os.close(fd)
        return []
    return fds


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Compile what goes by a name while no other agent of this file system does.

    Agents of a lab start together and need the same. Where there can be no lock, there is none.
    """
    path, fd = folder / f".{name}", -1
    try:
        _make(folder)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        pass
    try:
        yield
    finally:
        if fd >= 0:
            # Whoever waits for this one goes on, and finds what was kept.
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(fd)


def _make(folder: Path) -> None:
    require_own(str(folder))
    folder.mkdir(mode=0o700, exist_ok=True)


def keep(folder: Path, name: str, request: Mapping[str, Any], code: Mapping[str, str]) -> None:
    """Keep what was compiled; code: instructions of each function, in base64.

    What cannot be kept is compiled again another time.
    """
    text = json.dumps({"maps": _maps(request), "code": code})
    try:
        # Whether it is any good without its compiler is known before it is needed.
        for each in code.values():
            _relocated(base64.b64decode(each), _maps(request), _maps(request))
        _make(folder)
        _prune(folder)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
            os.replace(temporary, folder / name)
        except BaseException:
            os.unlink(temporary)
            raise
    except (OSError, ValueError):
        return


def _prune(folder: Path) -> None:
    """Make room for one more: those that were not used for longest go."""
    ages = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            ages.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(ages)[: max(0, len(ages) - MOST + 1)]:
        path.unlink(missing_ok=True)


def _maps(request: Mapping[str, Any]) -> dict[str, int]:
    defines = request["defines"]
    return {name: defines[name] for name in defines if name.startswith(_MAP_FD)}


def _relocated(code: bytes, then: Mapping[str, int], now: Mapping[str, int]) -> bytes:
    """Return instructions with the maps of now in place of those of then.

    Raises ValueError for any that need more than that.
    """
    names = {fd: name for name, fd in then.items()}
    out = bytearray(code)
    for at in range(0, len(code), _INSTRUCTION.size):
        operation, registers, offset, value = _INSTRUCTION.unpack_from(code, at)
        source = registers >> 4
        if operation == _CALL and source:
            raise ValueError("it calls another function")
        if operation == _LOAD_64 and source:
            if source not in (_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE) or value not in names:
                raise ValueError("it refers to something other than its maps")
            fd = now[names[value]]
            _INSTRUCTION.pack_into(out, at, operation, registers, offset, fd)
    return bytes(out)


def _load(name: str, kind: int, code: bytes) -> int:
    """Load a program and return its file descriptor. Raises OSError."""
    count = len(code) // _INSTRUCTION.size
    fd: int = kernel.library().bpf_prog_load(
        kind, name[:15].encode(), b"GPL", code, ctypes.c_size_t(count), None
    )
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    os.set_inheritable(fd, False)
    return fd
