# SPDX-License-Identifier: Apache-2.0
"""The flows of the forwarder's model: how long each lives, and which port it gets."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.datapath.speech import (
    _LAYOUTS,
    CLOSED_S,
    STRIDE,
    TRIES,
    Config,
    Flow,
    Kernel,
    Outcome,
    Undetermined,
    _Packet,
)


@dataclass
class Flows:
    """A hop's settings, its flows and the clock, which stands still unless told.

    Where the specification leaves a port to chance, the model takes what the program did, `seen`,
    if that is legal: a first choice that explains the port by the collisions that were counted.
    Homes that were learnt so are in `spreads`, which may be shared: they outlast a reload.
    """

    config: Config
    kernel: Kernel
    spreads: dict[bytes, int] = field(default_factory=dict)
    chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.now = 0
        self.next: tuple[bytes, int, bytes] | None = None
        self.flows: dict[tuple[int, int], Flow] = {}  # by protocol and port
        self.by_client: dict[tuple[int, bytes, int], Flow] = {}
        self.guessed = False  # a port was chosen here that the program may have chosen otherwise
        self._layout = _LAYOUTS[self.config.family]
        self._counts: dict[str, int] = {}
        self._seen: Outcome | None = None

    def set_next(self, address: bytes, port: int, out: bytes) -> None:
        """Change the settings; port 0 is no next hop."""
        self.next = (address, port, out) if port else None

    def age(self, seconds: int) -> None:
        """Let every flow be idle for longer."""
        self.now += seconds

    def expired(self, flow: Flow) -> bool:
        """Whether a flow has lost the right to its port."""
        return self.now - flow.used > flow.lifetime()

    def collect(self) -> int:
        """Forget what has expired, as the agent does; return how many flows that were."""
        expired = [flow for flow in self.flows.values() if self.expired(flow)]
        for flow in expired:
            self._forget(flow)
        return len(expired)

    def _forget(self, flow: Flow) -> None:
        del self.flows[flow.protocol, flow.port]
        if not flow.orphan:
            del self.by_client[flow.protocol, flow.client, flow.client_port]

    def edges(self) -> set[int]:
        """The moments at which some flow is about to expire: the tick decides there, not we."""
        flows = self.flows.values()
        return {flow.used + seconds for flow in flows for seconds in (flow.lifetime(), CLOSED_S)}

    def _count(self, name: str, by: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + by

    # Ports

    def _is_full(self, client: bytes, client_port: int, port: int) -> bool:
        """Whether the flow would be one too many away from home (affine policy only)."""
        if self.config.most_away is None or not self._away(client, client_port, port):
            return False
        flows = self.by_client.values()
        away = sum(self._away(flow.client, flow.client_port, flow.port) for flow in flows)
        return away >= self.config.most_away

    def _away(self, client: bytes, client_port: int, port: int) -> bool:
        if self.config.port_min <= client_port <= self.config.port_max:
            return port != client_port
        if client not in self.spreads:
            raise Undetermined
        place = (client_port + self.spreads[client]) % self.config.count
        return port != self.config.port_min + place

    def _port(self, packet: _Packet, client_port: int, old: Flow | None) -> int | None:
        """Choose the port of a flow, counting collisions; None if there is none."""
        if old is not None and not self.config.fresh:
            return old.port
        place = self._first_choice(packet, client_port, old)
        for _ in range(TRIES):
            port = self.config.port_min + place
            if self._free(packet.protocol, place, old):
                return port
            self._count("port_collisions")
            place = (place + STRIDE) % self.config.count
        return None

    def _free(self, protocol: int, place: int, old: Flow | None) -> bool:
        port = self.config.port_min + place
        flow = self.flows.get((protocol, port))
        if port == self.config.hop_port:
            return False
        if flow is not None and flow is old:
            return self.now - old.used > CLOSED_S
        return flow is None or self.expired(flow)

    def _first_choice(self, packet: _Packet, client_port: int, old: Flow | None) -> int:
        """The place of the port that is tried first."""
        config = self.config
        if config.port_min <= client_port <= config.port_max:
            return client_port - config.port_min
        if not config.fresh and packet.source in self.spreads:
            return (client_port + self.spreads[packet.source]) % config.count
        if self._seen is None:
            self.guessed = True
            first = self.chance.randrange(config.count)
        else:
            first = self._explained(packet, old)
        if not config.fresh and (self._seen is None or "flows_opened" in self._seen[2]):
            self.spreads[packet.source] = (first - client_port) % config.count
        return first

    def _explained(self, packet: _Packet, old: Flow | None) -> int:
        """The first choice that makes what was seen legal, if there is one."""
        assert self._seen is not None
        _, out, counts = self._seen
        if "flows_opened" in counts:
            if "replied_too_big" in counts:
                raise Undetermined
            # A tag may have come or gone; what follows it has not moved against the end.
            at = max(0, packet.l4 + len(out) - len(packet.frame))
            port = int.from_bytes(out[at : at + 2], "big")
            steps = counts.get("port_collisions", 0)
            return (port - self.config.port_min - steps * STRIDE) % self.config.count
        if "dropped_table_full" in counts:
            raise Undetermined
        # It found none. Where there is a first choice from which none is free, it was that one.
        taken = [port - self.config.port_min for _, port in self.flows]
        for first in (*taken, self.config.hop_port - self.config.port_min):
            if 0 <= first < self.config.count and not any(
                self._free(packet.protocol, (first + i * STRIDE) % self.config.count, old)
                for i in range(TRIES)
            ):
                return first
        return self.chance.randrange(self.config.count)
