# SPDX-License-Identifier: Apache-2.0
"""What a lab is: names, addresses and files that follow from its name, index and hop count."""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import paths
from bench.errors import UsageError

Wire = Literal["xdp", "bridge"]
Family = Literal[4, 6]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_NAME = "local"
DEFAULT_HOPS = 5
MAX_HOPS = 64
NIC = "eth0"
WIRE_HOST = "wire"
# Not on the wire: a namespace beside the chain's, with nothing but `lo`.
LOOPBACK_HOST = "loopback"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,15}\Z")

# RFC 2544, appendix C: reserved for benchmarks. A lab takes one /24 of it, lab 0 the first.
ADDRESSES = ipaddress.IPv4Network("198.18.0.0/15")
# RFC 5180, section 8: the same for IPv6. A lab takes one /64 of it.
ADDRESSES_IPV6 = ipaddress.IPv6Network("2001:2::/48")
MAX_LABS = 512


@dataclass(frozen=True)
class LabHost:
    """One host: its namespace, the wire's port it is plugged into, its address and MAC."""

    name: str
    namespace: str
    port: str
    data_ip: str
    mac: str


@dataclass(frozen=True)
class Lab:
    """A lab, up or to be made. index: which /24 or /64 of the benchmark addresses it uses."""

    name: str
    index: int
    hops: int
    wire: Wire
    family: Family = 4

    @property
    def folder(self) -> Path:
        """Keys, SSH configuration, inventory and state."""
        return paths.runtime_dir() / self.name

    @property
    def inventory(self) -> Path:
        """The Ansible inventory that describes the lab."""
        return self.folder / "inventory.ini"

    @property
    def network(self) -> Network:
        """The lab's /24 or /64."""
        if self.family == 6:
            return ipaddress.IPv6Network((ADDRESSES_IPV6[self.index << 64], 64))
        return ipaddress.IPv4Network((ADDRESSES[256 * self.index], 24))

    def namespace(self, host: str) -> str:
        """Return the network namespace of a host, or of the wire."""
        return f"hb-{self.name}-{host}"

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """client, hop1 … hopN, server, in chain order: .1, .2, … or ::1, ::2, …"""
        names = ["client", *(f"hop{i}" for i in range(1, self.hops + 1)), "server"]
        return tuple(self._host(number, name) for number, name in enumerate(names, start=1))

    def _host(self, number: int, name: str) -> LabHost:
        address = self.network[number]
        # An IPv6 address does not fit; what tells it from others does.
        told = address.packed if self.family == 4 else struct.pack("!BHB", 0, self.index, number)
        return LabHost(
            name=name,
            namespace=self.namespace(name),
            port=f"p{number}",
            data_ip=str(address),
            # Locally administered; the address in it makes captures easy to read.
            mac="02:00:" + told.hex(":"),
        )


def check_name(name: str) -> str:
    """Return the name of a lab. Raises UsageError; it becomes part of paths and namespaces."""
    if not _NAME.match(name):
        raise UsageError(
            f"lab name {name[:40]!r} is not 1 to 16 lower-case letters, digits and hyphens, "
            "a letter first"
        )
    return name


def check_hops(hops: int) -> int:
    """Return the number of hops. Raises UsageError outside 1 to 64."""
    if not 1 <= hops <= MAX_HOPS:
        raise UsageError(f"a lab has 1 to {MAX_HOPS} hops, not {hops}")
    return hops
