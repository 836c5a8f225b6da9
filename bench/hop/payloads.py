# SPDX-License-Identifier: Apache-2.0
"""The files the server serves: fixed sizes, the same incompressible content on every host."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

# 78·2^i bytes, i = 2…15: the file sizes of the 2022 report.
SIZES_BYTES = tuple(78 * 2**i for i in range(2, 16))

MANIFEST = "manifest.json"


def content(size_bytes: int) -> bytes:
    """Return the payload of `size_bytes`: SHA-256 of a counter, as in a hash's counter mode."""
    blocks = range((size_bytes + 31) // 32)
    seed = f"hopbench {size_bytes} "
    return b"".join(hashlib.sha256(f"{seed}{i}".encode()).digest() for i in blocks)[:size_bytes]


def file_name(size_bytes: int) -> str:
    """Return the name of the payload of `size_bytes`."""
    return f"{size_bytes}.bin"


def ensure(directory: Path, *, check: bool = False) -> bool:
    """Make `directory` hold every payload and the manifest; return True if something changed.

    What is there is verified by its SHA-256 and mended. check: write nothing, only tell.
    """
    changed = _ensure_directory(directory, check=check)
    entries = []
    for size_bytes in SIZES_BYTES:
        wanted = content(size_bytes)
        name = file_name(size_bytes)
        digest = hashlib.sha256(wanted).hexdigest()
        entries.append({"name": name, "size_bytes": size_bytes, "sha256": digest})
        changed |= _ensure_file(directory / name, wanted, check=check)
    # Last, so that a manifest never names a file that is not there yet.
    manifest = json.dumps({"payloads": entries}, indent=2) + "\n"
    changed |= _ensure_file(directory / MANIFEST, manifest.encode(), check=check)
    return changed


def _ensure_directory(directory: Path, *, check: bool) -> bool:
    if directory.is_dir() and _is_own(directory, 0o755):
        return False
    if not check:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chown(directory, os.geteuid(), os.getegid())
        directory.chmod(0o755)
    return True


def _is_own(path: Path, mode: int) -> bool:
    """Say whether a path, and not what it leads to, has a mode and is this user's."""
    found = path.lstat()
    return found.st_uid == os.geteuid() and found.st_mode & 0o7777 == mode


def _ensure_file(path: Path, wanted: bytes, *, check: bool) -> bool:
    if path.is_file() and _is_own(path, 0o644):
        found = path.read_bytes()
        if hashlib.sha256(found).digest() == hashlib.sha256(wanted).digest():
            return False
    if not check:
        _write(path, wanted)
    return True


def _write(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            os.fchmod(out.fileno(), 0o644)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def main(argv: list[str]) -> int:
    """`payloads [--check] DIRECTORY`: print `changed` or `unchanged`."""
    check = argv[:1] == ["--check"]
    if len(argv) != 1 + check:
        print("usage: python3 -m hop payloads [--check] DIRECTORY", file=sys.stderr)
        return 2
    try:
        changed = ensure(Path(argv[-1]), check=check)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print("changed" if changed else "unchanged")
    return 0
