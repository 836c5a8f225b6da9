# SPDX-License-Identifier: Apache-2.0
"""The model of a chain: client, ordered hops, server, each with its data address and NIC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["client", "hop", "server"]


@dataclass(frozen=True)
class Host:
    """One machine of the chain.

    port: the TCP port it serves on the data network (forward_port of a hop, server_port of the
    server, 0 for the client). ssh_vars: Ansible's connection variables, as resolved by Ansible.
    """

    name: str
    role: Role
    data_ip: str
    data_nic: str
    port: int
    xdp_attach: str = "native"
    ssh_vars: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Chain:
    """client → hops[0] → … → hops[-1] → server, as one inventory describes it."""

    inventory: Path
    client: Host
    hops: tuple[Host, ...]
    server: Host

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
