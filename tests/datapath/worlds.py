# SPDX-License-Identifier: Apache-2.0
"""What surrounds the forwarder in a feed, as the model sees it: constants, routes, neighbours."""

from __future__ import annotations

import functools
import random
import socket
from dataclasses import dataclass, field

from tests.datapath.conftest import (
    DATA_MTU,
    EGRESS_MAC,
    EGRESS_MTU,
    HOP_MAC,
    HOP_PORT,
    MACS,
    NARROW_MTU,
    NETS,
    NEXT_PORT,
    PORT_MAX,
    PORT_MIN,
    Age,
    Arrive,
    Collect,
    Next,
)
from tests.datapath.model import Model
from tests.datapath.speech import (
    Config,
    Kernel,
    Route,
)

Step = Arrive | Next | Age | Collect

LONGEST = 1600  # octets of a frame
PSH, URG, ECE = 8, 32, 64


def packed(address: str) -> bytes:
    """An address in octets."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def mac(text: str) -> bytes:
    """An Ethernet address in octets."""
    return bytes.fromhex(text.replace(":", ""))


OWN = {"data": mac(HOP_MAC), "egress": mac(EGRESS_MAC)}


def kernel(family: int) -> Kernel:
    """What the lookups find in the namespace that the tests run in."""
    net = NETS[family]
    subnet = 3 if family == 4 else 8  # octets
    routes: dict[bytes, Route | None] = {packed(net.nowhere): None}
    for name in ("next", "other", "narrow", "client", "neighbour", "far"):
        address = getattr(net, name)
        mtu = NARROW_MTU if name == "narrow" else DATA_MTU
        routes[packed(address)] = Route("data", OWN["data"], mac(MACS[address]), mtu)
    routes[packed(net.silent)] = Route("data", OWN["data"], None, None)
    behind = mac(MACS[net.behind])
    routes[packed(net.behind)] = Route("egress", OWN["egress"], behind, EGRESS_MTU)
    data, egress = packed(net.hop), packed(net.out)
    routes[data] = routes[egress] = None  # local
    links = {egress[:subnet]: "egress", data[:subnet]: "data"}

    @functools.cache
    def look(address: bytes) -> Route | None:
        if address in routes:
            return routes[address]
        special = address[3] == 255 if family == 4 else not any(address[8:])  # nobody's own
        if special or address[:subnet] not in links:
            return None
        link = links[address[:subnet]]
        return Route(link, OWN[link], None, None)

    return look


@dataclass(frozen=True)
class World:
    """A configuration of the program, and what the kernel around it knows."""

    family: int
    changes: dict[str, int] = field(default_factory=dict)
    spreads: dict[bytes, int] = field(default_factory=dict)  # learnt once, they hold for ever

    def __str__(self) -> str:
        words = (f"{name}={value}" for name, value in self.changes.items())
        return " ".join((f"IPv{self.family}", *words))

    @functools.cached_property
    def config(self) -> Config:
        """The same for the model."""
        return Config(
            self.family,
            packed(NETS[self.family].hop),
            tuple(OWN.values()) if self.changes.get("TWO_NICS") else (OWN["data"],),
            HOP_PORT,
            self.changes.get("PORT_MIN", PORT_MIN),
            self.changes.get("PORT_MAX", PORT_MAX),
            bool(self.changes.get("FRESH")),
            self.changes.get("VLAN", 0),
            self.changes.get("EGRESS_VLAN", 0),
            bool(self.changes.get("TWO_NICS")),
            self.changes.get("NAT_FLOWS"),
        )

    @functools.cached_property
    def kernel(self) -> Kernel:
        """The same for the model."""
        return kernel(self.family)

    def model(self) -> Model:
        """A hop as `feed` begins with it."""
        net = NETS[self.family]
        model = Model(self.config, self.kernel, self.spreads, random.Random(0))
        model.set_next(packed(net.next), NEXT_PORT, packed(net.hop))
        return model

    def __hash__(self) -> int:
        return id(self)
