# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, and one line for whatever the file system objects to."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError

_REMEDIES = {
    errno.ENOSPC: "free some space there, or choose another folder with --output",
    errno.EDQUOT: "free some space there, or choose another folder with --output",
    errno.EFBIG: "raise the file size limit (ulimit -f), or choose another folder with --output",
    errno.EROFS: "choose a folder that can be written to with --output",
    errno.EACCES: "choose a folder you may write to with --output",
    errno.EPERM: "choose a folder you may write to with --output",
    errno.ENOENT: "the folder is gone; choose one that stays with --output",
    errno.EEXIST: "that path is a file; choose another folder with --output",
    errno.ENOTDIR: "part of that path is a file; choose another folder with --output",
}


def unwritable(path: Path, error: OSError) -> BenchError:
    """Return the one-line error for a path that could not be written."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    remedy = _REMEDIES.get(
        error.errno or 0, "check the disk, or choose another folder with --output"
    )
    return BenchError(f"cannot write {path}: {reason}", remedy=remedy)


def make_dirs(path: Path) -> None:
    """Make a folder and those above it. Raises BenchError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def write_atomic(path: Path, text: str) -> None:
    """Replace a file by `text`; see `replace_atomic`. What UTF-8 cannot hold becomes an escape."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)

    replace_atomic(path, write)


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files, below a folder, of processes that were killed while they wrote."""
    for path in folder.rglob(".*.tmp"):
        pid = path.name.split(".")[-2]
        if pid.isdecimal() and _ended(int(pid)):
            with contextlib.suppress(OSError):
                path.unlink()


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


def replace_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Replace a file in one step that survives a crash at any point.

    `write` makes a file of the temporary name it is given, in the same folder. That reaches the
    disk, takes the file's name, and the folder's entry reaches the disk too. On any failure the
    file stays as it was and the temporary one is removed. Raises BenchError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
