# SPDX-License-Identifier: Apache-2.0
"""Which process of which machine something belongs to, and whether that process is still there."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

# A name in a socket's address has to be short, and in a message plain (bench/hop/lock.py).
_WHO_LENGTH = 40
_WORDS = re.compile(r"(\S+) (\d+) (\d+) ([0-9a-f-]{1,16})")


@dataclass(frozen=True)
class Owner:
    """A process that cannot be taken for a later one with its id.

    who: user and machine, for people. started: in clock ticks since boot (proc_pid_stat(5), field
    22), 0 where there is no /proc. boot: the first letters of the machine's boot id; where there
    is none, `-`.
    """

    who: str
    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Return the process of an id on this machine, or what will be gone if there is none."""
        return cls(_who(), pid, _started(pid) or 0, _boot())

    @classmethod
    def me(cls) -> Owner:
        """Return this process."""
        return cls.of(os.getpid())

    @property
    def text(self) -> str:
        """The owner in a line of plain ASCII, for `parse`."""
        return f"{self.who} {self.pid} {self.started} {self.boot}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Return the owner of such a line; None when it is none."""
        match = _WORDS.fullmatch(text)
        if match is None:
            return None
        return cls(match[1], int(match[2]), int(match[3]), match[4])

    @property
    def here(self) -> bool:
        """Whether it is, or was, a process of this machine since it was started last."""
        return self.boot == _boot() != "-"

    @property
    def gone(self) -> bool:
        """Whether the process has certainly ended; of another machine's nothing is certain."""
        return self.here and _started(self.pid) != self.started


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an id without a name
        user = str(os.getuid())
    return re.sub(r"[^!-~]", "?", f"{user}@{socket.gethostname()}")[:_WHO_LENGTH]


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    return "-"


def _started(pid: int) -> int | None:
    """Return when a process began; None when there is none, or only its exit status."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name, in parentheses, and may hold anything.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
