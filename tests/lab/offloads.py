# SPDX-License-Identifier: Apache-2.0
"""What tests of offloads ask of hosts and agents: settings, records, guards, a crash."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.hop import offload_records as records
from bench.lab.model import NIC
from tests.lab.agents import CheckoutAgent
from tests.lab.conftest import kill

Run = Callable[..., str]
"""Runs a program on a host and returns its output."""


def use(agent: CheckoutAgent, how: str, nic: str = NIC) -> dict[str, Any]:
    """Tell an agent what to do, and return what a NIC does then."""
    answer = agent.ask(op="offloads", use=how)
    assert answer["event"] == "ready", answer
    return dict(answer["offloads"][nic])


def state(run: Run, nic: str = NIC) -> tuple[str, int, int]:
    """Return all that ethtool says of a NIC's features, and both sizes of what GRO merges."""
    sizes = json.loads(run("/usr/bin/python3", "-c", _SIZES, nic))
    return run("ethtool", "-k", nic), sizes[0], sizes[1]


# IFLA_GRO_MAX_SIZE and IFLA_GRO_IPV4_MAX_SIZE, which not every `ip` knows.
_SIZES = """
import json, socket, struct, sys
index = socket.if_nametoindex(sys.argv[1])
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
    sock.send(struct.pack("=IHHIIBxHiII", 32, 18, 1, 1, 0, 0, 0, index, 0, 0))
    reply, at, found = sock.recv(65536), 32, {}
while at + 4 <= len(reply):
    size, kind = struct.unpack_from("=HH", reply, at)
    found[kind] = reply[at + 4 : at + size]
    at += (size + 3) // 4 * 4
sizes = [int.from_bytes(found.get(kind, b""), sys.byteorder) for kind in (58, 64)]
print(json.dumps(sizes))
"""


def record_in(namespace: str, nic: str) -> Path:
    """Return where the record of a NIC in a namespace belongs."""
    inode = Path(f"/run/netns/{namespace}").stat().st_ino
    command = ["ip", "netns", "exec", namespace, "cat", f"/sys/class/net/{nic}/ifindex"]
    index = subprocess.run(command, capture_output=True, check=True, timeout=10).stdout
    return Path(records.path_of(records.RECORDS, inode, int(index)))


def guards(namespace: str) -> list[int]:
    """Return the guards of a namespace's agents."""
    inode = Path(f"/run/netns/{namespace}").stat().st_ino
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            there = (entry / "ns/net").stat().st_ino == inode
            if there and b"offload_records.py" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def crash(namespace: str, agent: CheckoutAgent) -> None:
    """Kill an agent, and first of all its guard."""
    (guard,) = guards(namespace)
    kill(guard)
    kill(agent.process.pid)
    agent.process.wait(timeout=5)
