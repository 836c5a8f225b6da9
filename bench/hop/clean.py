# SPDX-License-Identifier: Apache-2.0
"""End what a crashed run could have left on this host. Self-contained: runs without a deploy.

What a hopbench agent sets up ends with the agent, so ending agents is what there is to do; but for
offloads, which offload_records.py puts back afterwards.
Prints a JSON list of what was removed; empty when there was nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

_ROLES = (b"forward", b"serve", b"load", b"loopback")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TABLE = "hopbench"
_FAMILIES = ("ip", "ip6")
_HOME = "/opt/hopbench"


def _is_home(cwd: str) -> bool:
    """Is a process's working directory where agents are deployed, or was until that was removed?"""
    try:
        return os.path.samefile(cwd, _HOME)
    except OSError:
        return os.readlink(cwd).endswith(f"{_HOME} (deleted)")


def _agents() -> dict[int, str]:
    """Return {pid: role} of the agents in this network namespace."""
    here = os.readlink("/proc/self/ns/net")
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")[:-1]
            at_home = _is_home(f"/proc/{name}/cwd")
            there = os.readlink(f"/proc/{name}/ns/net")
        except OSError:
            continue
        ours = words[-3:-1] == [b"-m", b"hop"] and words[-1] in _ROLES and b"python3" in words[0]
        if ours and at_home and there == here:
            found[int(name)] = words[-1].decode()
    return found


def _end_agents() -> list[str]:
    first = _agents()
    for number, limit_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0)):
        left = _agents()
        for pid in left:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        until = time.monotonic() + limit_s
        while left and time.monotonic() < until:
            time.sleep(0.05)
            left = _agents()
    return [f"agent {role} (process {pid})" for pid, role in sorted(first.items())]


def _delete_tables() -> list[str]:
    nft = shutil.which("nft", path=_PATH)
    if nft is None:
        return []
    gone = []
    for family in _FAMILIES:
        done = subprocess.run(
            [nft, "delete", "table", family, _TABLE], capture_output=True, timeout=10, check=False
        )
        if done.returncode == 0:
            gone.append(f"nft table {family} {_TABLE}")
    return gone


def main(argv: list[str]) -> int:
    """Remove, and print what was removed."""
    del argv
    print(json.dumps(_end_agents() + _delete_tables()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
