# SPDX-License-Identifier: Apache-2.0
"""What processes have of a machine: descriptors, threads, children, memory, BPF objects."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Footprint:
    """What one process has. descriptors: how many of each kind; sockets and files are not named."""

    descriptors: dict[str, int]
    threads: int
    children: int
    resident_kb: int

    @property
    def counts(self) -> dict[str, int]:
        """All but the memory: what may not grow at all."""
        return {**self.descriptors, "threads": self.threads, "children": self.children}


def of(pid: int) -> Footprint:
    """Look at a process."""
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # One closed meanwhile, as that of this very look.
        with contextlib.suppress(FileNotFoundError):
            kinds[str(entry.readlink()).split("[")[0].split(" ")[0]] += 1
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    tasks = Path(f"/proc/{pid}/task")
    children = sum(len((task / "children").read_text().split()) for task in tasks.iterdir())
    return Footprint(dict(kinds), int(status["Threads"]), children, int(status["VmRSS"].split()[0]))


def bpf_maps() -> set[int]:
    """Return the id of every BPF map on this machine."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    found, current = set(), ctypes.c_uint32(0)
    while libbpf.bpf_map_get_next_id(current, ctypes.byref(current)) == 0:
        found.add(current.value)
    return found


def me() -> Footprint:
    """Look at this process."""
    return of(os.getpid())
