# SPDX-License-Identifier: Apache-2.0
"""One controller at a time has a host; abstract sockets say that it does, which, and since when.

The kernel keeps the name of an abstract socket once in a network namespace, and frees it with the
process that has it (unix(7)). So nothing has to be removed, whatever ends an agent, and hosts that
share a file system do not share a lock.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import time

from . import config
from .errors import HopError
from .protocol import Message

_TAKEN = "hopbench-host"
# Followed by the time in seconds and the holder; as /proc/net/unix has it, with @ for \0.
_HOLDER = "hopbench-host-of"
_LISTED = re.compile(rf"@{_HOLDER} (\d+) (.+)")
# User and machine, process id, when that began, and which boot (bench/owner.py); a name holds 107
# bytes.
_TEXT = re.compile(r"[!-~]{1,40} [0-9]{1,10} [0-9]{1,12} [0-9a-f-]{1,8}")
# Between taking the one name and taking the other, nobody can say who it was.
_NAMELESS_S = 0.3

_held: list[socket.socket] = []


def holder(message: Message) -> str:
    """Take the holder that a message names, or nothing. Raises HopError."""
    if "holder" not in message:
        return ""
    name = config.text(message, "holder")
    if not _TEXT.fullmatch(name):
        raise HopError("holder is not what a controller calls itself")
    return name


def take(holder: str) -> None:
    """Take the host for a holder until this process ends, once all else of a message is right.

    Without one nothing is taken: whoever speaks to an agent by hand knows what he does. Raises
    HopError that names the holder where there is another one.
    """
    if not holder or _held:
        return
    taken = _bind(_TAKEN)
    if taken is None:
        raise _refusal()
    _held.append(taken)
    name = _bind(f"{_HOLDER} {int(time.time())} {holder}")
    if name is not None:
        _held.append(name)


def _bind(name: str) -> socket.socket | None:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.bind(f"\0{name}")
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return made


def _refusal() -> HopError:
    until = time.monotonic() + _NAMELESS_S
    found = _holder()
    while found is None and time.monotonic() < until:
        time.sleep(0.02)
        found = _holder()
    remedy = "wait until it has ended; bench clean ends what is left of one that has"
    if found is None:
        return HopError("another run has this host", remedy)
    since, holder = found
    who, pid, *_ = holder.split()
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
    return HopError(
        f"a run of {who} (process {pid}) has this host since {began}", remedy, holder=holder
    )


def _holder() -> tuple[int, str] | None:
    """Return since when, and for whom, the host is taken."""
    with contextlib.suppress(OSError), open("/proc/self/net/unix", errors="replace") as file:
        for line in file:
            match = _LISTED.search(line)
            # Anybody may take a name: what does not look like ours is not repeated.
            if match and len(match[1]) < 12 and _TEXT.fullmatch(match[2]):
                return int(match[1]), match[2]
    return None
