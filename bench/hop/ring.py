# SPDX-License-Identifier: Apache-2.0
"""Records of a BPF ring buffer, through libbpf."""

from __future__ import annotations

import ctypes

from . import kernel
from .errors import HopError

_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class RingBuffer:
    """A reader of one ring buffer map."""

    def __init__(self, map_fd: int) -> None:
        """Map the ring. Raises HopError with the kernel's reason."""
        self._records: list[bytes] = []
        self._limit = 0
        # libbpf keeps the pointer: the callback has to live as long as this object.
        self._callback = _SAMPLE(self._take)
        libbpf = kernel.library()
        libbpf.ring_buffer__new.restype = ctypes.c_void_p
        self._ring = libbpf.ring_buffer__new(map_fd, self._callback, None, None)
        if not self._ring:
            raise HopError("the ring buffer cannot be mapped")

    def _take(self, context: object, data: int, size: int) -> int:
        del context
        self._records.append(ctypes.string_at(data, size))
        # A negative number ends libbpf's loop, after this record.
        return -1 if len(self._records) >= self._limit else 0

    def consume(self, limit: int) -> list[bytes]:
        """Return the oldest records, at most so many, without waiting; the ring keeps the rest."""
        self._limit = limit
        kernel.library().ring_buffer__consume(ctypes.c_void_p(self._ring))
        found, self._records = self._records, []
        return found

    def close(self) -> None:
        """Unmap the ring."""
        if self._ring:
            kernel.library().ring_buffer__free(ctypes.c_void_p(self._ring))
            self._ring = None
