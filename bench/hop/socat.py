# SPDX-License-Identifier: Apache-2.0
"""Mode `socat`: a user-space proxy that forks for each connection."""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import net, process
from .address import bracketed, endpoint, proc_address
from .config import Place, Target
from .errors import HopError

LISTEN_LIMIT_S = 15.0
# The kernel caps it at net.core.somaxconn; socat's default of 5 would refuse bursts.
BACKLOG = 4096


class SocatForwarder:
    """One socat and its children, in a PID namespace that dies with this process."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        self._opened = 0

    def prepare(self) -> None:
        """Find the programs."""
        self._socat = process.tool("socat")

    def start(self, target: Target) -> dict[str, object]:
        """Start socat and wait until it listens. Raises HopError when it ends instead."""
        self.stop()
        self.prepare()
        net.require_free_port(self._place.data_ip, self._place.forward_port)
        tcp = f"TCP{self._place.family}"
        listen = (
            f"{tcp}-LISTEN:{self._place.forward_port},bind={bracketed(self._place.data_ip)},"
            f"fork,reuseaddr,backlog={BACKLOG}"
        )
        self._opened = net.tcp_counters()["PassiveOpens"]
        self._process = process.spawn(
            [self._socat, listen, f"{tcp}:{endpoint(target.next_ip, target.next_port)}"],
            family=True,
        )
        if not process.wait_for(self._listens, LISTEN_LIMIT_S, self._process):
            words = b""
            if self._process.poll() is not None and self._process.stderr is not None:
                words = self._process.stderr.read()
            self.stop()
            reason = words.decode(errors="replace").strip().splitlines()
            raise HopError(f"socat does not listen: {reason[-1] if reason else 'no reason given'}")
        return {"pid": self._process.pid}

    def _listens(self) -> bool:
        local = proc_address(self._place.data_ip, self._place.forward_port)
        table = Path("/proc/net/tcp6" if self._place.family == 6 else "/proc/net/tcp")
        # 0A: the state TCP_LISTEN.
        return any(
            fields[1] == local and fields[3] == "0A"
            for fields in map(str.split, table.read_text().splitlines()[1:])
        )

    def counters(self) -> dict[str, int]:
        """Return connections accepted on this host since `start` (socat itself keeps no count)."""
        if self._process is None:
            return {"flows_opened": 0}
        if self._process.poll() is not None:
            raise HopError("socat has ended")
        return {"flows_opened": net.tcp_counters()["PassiveOpens"] - self._opened}

    def tidy(self) -> None:
        """Nothing piles up here."""

    def stop(self) -> None:
        """End socat and every child it forked."""
        if self._process is not None:
            process.end(self._process)
            self._process = None
