# SPDX-License-Identifier: Apache-2.0
"""What was said, line by line, packed as it comes: a long run says a great deal, and much alike."""

from __future__ import annotations

import threading
import zlib

# A window of 4 KB and as little memory as is of use: a chain has as many of these as hosts.
_WINDOW_BITS, _MEMORY_LEVEL = 12, 5


class Transcript:
    """Text that only grows; a twentieth of it, or so, is kept."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(wbits=_WINDOW_BITS, memLevel=_MEMORY_LEVEL)
        self._packed = bytearray()
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        """Append some text."""
        with self._lock:
            self._packed += self._packer.compress(text.encode(errors="replace"))

    @property
    def text(self) -> str:
        """All of it."""
        with self._lock:
            return zlib.decompress(self._packed + self._packer.copy().flush()).decode()
