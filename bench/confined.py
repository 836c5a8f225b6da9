# SPDX-License-Identifier: Apache-2.0
"""Work on input that may be made to never end: in a child, bounded in processor time and memory."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

T = TypeVar("T")

# Beyond what this process has: a chain of a thousand hosts takes a tenth of both.
CPU_LIMIT_S = 20
MEMORY_LIMIT_BYTES = 1 << 30
# A machine may be busy with something else.
_WALL_LIMIT_S = 120.0


class Exceeded(Exception):
    """The work took more than it may; the argument says what: `more than 20 s`."""


def confined(work: Callable[[], T]) -> T:
    """Return what the work returns, done in a child of this process.

    What it changes stays in the child. The result, and what it raises, has to go through pickle.
    Raises Exceeded.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(reader)
        _work(work, writer)
    os.close(writer)
    try:
        answer = _read(reader)
    finally:
        os.close(reader)
        # It may be busy still, if nobody waits for its answer any more.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not answer:
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
        raise Exceeded(
            f"more than {CPU_LIMIT_S} s of processor time"
            if late
            else f"more than {MEMORY_LIMIT_BYTES >> 20} MiB of memory"
        )
    failed, result = pickle.loads(answer)
    if failed:
        raise result
    return result  # type: ignore[no-any-return]


def _work(work: Callable[[], T], writer: int) -> NoReturn:
    """Do the work and write what comes of it: a pickle of whether it failed, and its result."""
    try:
        # The parent's handlers are for what the parent has begun.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _limit(resource.RLIMIT_CPU, CPU_LIMIT_S)
        _limit(resource.RLIMIT_CORE, 0)
        if (size := _size_bytes()) is not None:
            _limit(resource.RLIMIT_AS, size + MEMORY_LIMIT_BYTES)
        try:
            answer = pickle.dumps((False, work()))
        except Exception as error:
            answer = pickle.dumps((True, error))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _limit(kind: int, most: int) -> None:
    """Set a limit, unless a stricter one is set already."""
    _, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(kind, (most, hard))


def _size_bytes() -> int | None:
    """Return how much of address space this process has, None where that cannot be told."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[0]
    except OSError:
        return None
    return int(pages) * resource.getpagesize()


def _read(reader: int) -> bytes:
    """Return all that comes until end of file. Raises Exceeded when it takes too long."""
    until = time.monotonic() + _WALL_LIMIT_S
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise Exceeded(f"more than {_WALL_LIMIT_S:.0f} s")
        if not (chunk := os.read(reader, 1 << 16)):
            return b"".join(parts)
        parts.append(chunk)
