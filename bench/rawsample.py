# SPDX-License-Identifier: Apache-2.0
"""One siege invocation as the hosts saw it, before anybody judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.counters import HostDelta


@dataclass(frozen=True)
class RawSample:
    """What was seen of one siege invocation.

    hosts: what client, hops and server counted meanwhile, in chain order. timed, lost: connections
    that the connection timer saw and had no room for, None without it. records: those it saw, for
    `connections.columns`.
    """

    stdout: str
    stderr: str
    status: int
    timed_out: bool
    started_at: float
    wall_s: float
    hosts: tuple[HostDelta, ...] = ()
    timed: int | None = None
    lost: int | None = None
    records: bytes | None = None

    @property
    def counted(self) -> tuple[Mapping[str, int], ...]:
        """What each hop's forwarder counted: `flows_opened`, packets in modes that see each."""
        return tuple(host.forwarder for host in self.hosts if host.role == "hop")

    @property
    def flows(self) -> tuple[int, ...]:
        """Connections that each hop took part in."""
        return tuple(each.get("flows_opened", 0) for each in self.counted)

    @property
    def segments_sent(self) -> int:
        """TCP segments the client sent, the repeated ones included."""
        values = self.hosts[0].values if self.hosts else {}
        return int(values.get("TcpOutSegs", 0) + values.get("TcpRetransSegs", 0))
