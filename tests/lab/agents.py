# SPDX-License-Identifier: Apache-2.0
"""An agent of a lab host, spoken to directly: what the controller does, without SSH."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

from bench.hop.version import digest
from bench.lab.model import NIC, Lab

_CHECKOUT = Path(__file__).resolve().parents[2] / "bench"


def _start(namespace: str, folder: str | Path, role: str) -> subprocess.Popen[str]:
    """Start `python3 -m hop ROLE` of the package in a folder."""
    return subprocess.Popen(
        [
            *("ip", "netns", "exec", namespace, "env", "-C", str(folder)),
            *("/usr/bin/python3", "-B", "-m", "hop", role),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class DirectAgent:
    """`python3 -m hop ROLE` in a host's namespace, as deployed."""

    def __init__(self, lab: Lab, host: str, role: str = "forward") -> None:
        self.address = {each.name: each.data_ip for each in lab.hosts}[host]
        self.process = _start(lab.namespace(host), "/opt/hopbench", role)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        finally:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()

    def tell(self, line: str) -> dict[str, Any]:
        """Send a raw line and return the event that answers it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message and return the event that answers it."""
        return self.tell(json.dumps(message))

    def place(self, **changes: Any) -> dict[str, Any]:
        """Tell a forwarding agent where it is, with some values changed."""
        message = {
            "op": "place",
            "version": digest(),
            "data_nic": NIC,
            "data_ip": self.address,
            "forward_port": 7000,
        }
        return self.ask(**{**message, **changes})

    def resident_mb(self) -> float:
        """Return the agent's resident size in MB (VmRSS)."""
        with open(f"/proc/{self.process.pid}/status") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")


class CheckoutAgent(DirectAgent):
    """A forwarding agent of this checkout in any namespace: nothing has to be deployed."""

    def __init__(self, namespace: str, address: str) -> None:
        self.address = address
        self.process = _start(namespace, _CHECKOUT, "forward")

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message and return the event that answers it; the lease outlasts any test."""
        return super().ask(**{"lease_s": 600, **message})

    def counters(self) -> dict[str, int]:
        """Return what the active mode counts."""
        return dict(self.ask(op="counters")["counters"])
