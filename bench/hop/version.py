# SPDX-License-Identifier: Apache-2.0
"""Which agent this is: a digest of its own sources, equal on controller and host or refused."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from . import config
from .compiler import SOURCES
from .errors import HopError
from .protocol import Message


@functools.cache
def digest() -> str:
    """Return a SHA-256 over the names and contents of this package and the BPF sources."""
    files = [
        *Path(__file__).resolve().parent.glob("*.py"),
        *SOURCES.glob("*.c"),
        *SOURCES.glob("*.h"),
    ]
    total = hashlib.sha256()
    for file in sorted(files, key=lambda each: each.name):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{file.name} {content}\n".encode())
    return total.hexdigest()


def require(message: Message) -> None:
    """Take the controller's version. Raises HopError unless it is this agent's."""
    if config.text(message, "version") != digest():
        raise HopError("the agent here is of another version", "run bench deploy")
