# SPDX-License-Identifier: Apache-2.0
"""The model of a chain: client, ordered hops, server, each with its data address and NIC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.hop.address import family

Role = Literal["client", "hop", "server"]


@dataclass(frozen=True)
class Host:
    """One machine of the chain.

    port: the TCP port it serves on the data network (forward_port of a hop, server_port of the
    server, 0 for the client). egress_nic: a hop's NIC towards the next host, empty where it has
    one NIC. nat_ports: lowest and highest port of a hop's NAT, nat_flows: how many flows it
    remembers, None where the hop decides. ssh_vars: Ansible's connection variables, as resolved
    by Ansible.
    """

    name: str
    role: Role
    data_ip: str
    data_nic: str
    port: int
    xdp_attach: str = "native"
    egress_nic: str = ""
    nat_ports: tuple[int, int] | None = None
    nat_flows: int | None = None
    nat_policy: str = "affine"
    ssh_vars: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def family(self) -> int:
        """4 or 6, by its data address."""
        return family(self.data_ip)


@dataclass(frozen=True)
class Chain:
    """client → hops[0] → … → hops[-1] → server, as one inventory describes it."""

    inventory: Path
    client: Host
    hops: tuple[Host, ...]
    server: Host

    @property
    def family(self) -> int:
        """4 or 6: every host of a chain is of one family."""
        return self.client.family

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Every host, in the order packets meet them."""
        return (self.client, *self.hops, self.server)

    def entry(self, hops: int) -> tuple[str, int]:
        """Return (address, port) the client talks to when `hops` forwarders take part."""
        first = self.hops[0] if hops else self.server
        return first.data_ip, first.port

    def next_of(self, index: int, hops: int) -> tuple[str, int]:
        """Return (address, port) hop `index` (from 0) forwards to in a chain of `hops` hops."""
        following = self.hops[index + 1] if index + 1 < hops else self.server
        return following.data_ip, following.port
