# SPDX-License-Identifier: Apache-2.0
"""How facts are read: files, and programs asked for a line; what is missing is None."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAM_LIMIT_S = 10


def text(path: str) -> str | None:
    """Return a file's text without the white space around it."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None


def number(path: str) -> int | None:
    """Return the integer that a file consists of."""
    said = text(path) or ""
    return int(said) if said.removeprefix("-").isdecimal() else None


def texts(pattern: str) -> dict[str, str | None]:
    """Return {path: text} of the files that a pattern names, in their order: queue 2 before 10."""
    return {path: text(path) for path in sorted(glob.glob(pattern), key=by_number)}


def by_number(path: str) -> tuple[int, str]:
    """Return a key that sorts names of one length before longer ones, and then as they are."""
    return len(path), path


def program(name: str) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(name, path=_PATH)


def said(argv: list[str]) -> str | None:
    """Return what a program prints, both streams; None where there is no such program."""
    path = program(argv[0])
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROGRAM_LIMIT_S,
            check=False,
            # siege writes into HOME even when it is only asked for its version.
            env={"PATH": _PATH, "LC_ALL": "C", "HOME": "/nonexistent"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace")


def newest(pattern: str) -> str | None:
    """Return the last of the names that a pattern stands for, once links are followed."""
    found = sorted(map(os.path.realpath, glob.glob(pattern)), key=by_number)
    return os.path.basename(found[-1]) if found else None
