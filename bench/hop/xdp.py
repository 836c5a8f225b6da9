# SPDX-License-Identifier: Apache-2.0
"""Mode `xdp`: bpf/forwarder.c on the hop's NICs, alive as long as this process is."""

from __future__ import annotations

import contextlib
import os
import socket
import time

from . import kernel, net
from .config import Place, Target
from .errors import HopError
from .program import Constants, Nic, Program, counter_names, require_range
from .trace import Tracer

# A NAT's own ports: neither privileged (RFC 6335) nor any that the host's sockets may take.
LOWEST_PORT = 1024
_TIDY_EVERY_S = 10.0


def port_range(ephemeral: tuple[int, int]) -> tuple[int, int]:
    """Return the larger range of ports (lowest, highest) outside ip_local_port_range.

    ephemeral: the host's ip_local_port_range. A flow's port must not be one that a socket of
    this host may get as its own. Raises HopError when fewer than 1024 are left on either side.
    """
    below, above = (LOWEST_PORT, ephemeral[0] - 1), (max(LOWEST_PORT, ephemeral[1] + 1), 65535)
    low, high = max(below, above, key=lambda pair: pair[1] - pair[0])
    if high - low < 1023:
        raise HopError(
            "net.ipv4.ip_local_port_range leaves no ports for a NAT", "narrow it to half its size"
        )
    return low, high


def nic_of(name: str) -> Nic:
    """Return a NIC by its indices; for a VLAN device, the one it lies on and its tag."""
    link = net.ip_json("-details", "link", "show", "dev", name)[0]
    info = link.get("linkinfo", {})
    if info.get("info_kind") != "vlan":
        return Nic(link["ifindex"], link["ifindex"])
    if info["info_data"].get("protocol") != "802.1Q":
        raise HopError(f"{name} is a VLAN of 802.1ad", "only 802.1Q is supported")
    lower = link.get("link")
    if lower is None:
        raise HopError(f"{name} is a VLAN of a NIC in another network namespace")
    return Nic(link["ifindex"], socket.if_nametoindex(lower), info["info_data"]["id"])


class XdpForwarder:
    """One loaded program; `start` and `stop` attach and detach it, which is fast."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._program: Program | None = None
        self._links: dict[int, int] = {}  # interface index -> file descriptor of the bpf_link
        self._tidied = 0.0
        self._next_ip = ""
        self.tracer: Tracer | None = None

    def prepare(self) -> None:
        """Compile and load. Raises HopError for ports that the host's sockets may take."""
        if self._program is None:
            self._program = Program(self._constants())
            if self._place.trace:
                self.tracer = Tracer(self._program)

    def _constants(self) -> Constants:
        place, ephemeral = self._place, net.ephemeral_ports()
        if place.nat_ports is not None:
            require_range(*place.nat_ports, ephemeral)
        data = nic_of(place.data_nic)
        egress = nic_of(place.egress_nic) if place.egress_nic else None
        if egress is not None and bool(egress.vlan) != bool(data.vlan):
            raise HopError(
                f"only one of {place.data_nic} and {place.egress_nic} is a VLAN",
                "give both networks a tag, or neither",
            )
        return Constants(
            family=place.family,
            hop_ip=place.data_ip,
            hop_port=place.forward_port,
            ports=place.nat_ports or port_range(ephemeral),
            data=data,
            egress=egress,
            fresh=place.nat_policy == "fresh",
            nat_flows=place.nat_flows,
            trace=place.trace,
        )

    def start(self, target: Target) -> dict[str, object]:
        """Attach, verify the attach mode, and return what is attached.

        Raises HopError when forwarding is off, the next hop does not answer ARP, another program
        is attached, the driver refuses, or the link does not come back.
        """
        place = self._place
        for nic in place.nics:
            net.require_forwarding(nic, place.family)
        net.require_free_port(place.data_ip, place.forward_port)
        self.prepare()
        assert self._program is not None
        constants = self._program.constants
        links = {constants.data.link} | ({constants.egress.link} if constants.egress else set())
        try:
            # A NIC may have got another MAC address since it was last attached to.
            self._program.describe_host()
            # New flows are refused until the next hop is known.
            self._program.set_next(target.next_ip, 0, place.data_ip)
            linked = net.linked(place.nics)
            prog_ids = [self._attach(link, target.attach) for link in sorted(links)]
            # Where this NIC was reset, so may be that of the next hop.
            away = linked and net.await_link(place.nics)
            limit_s = net.LINK_LIMIT_S if away else net.NEIGHBOUR_LIMIT_S
            nic, source = net.resolve(target.next_ip, place.nics, limit_s)
        except HopError:
            self.stop()
            raise
        out = place.data_ip if nic == place.data_nic else source
        self._program.set_next(target.next_ip, target.next_port, out)
        self._next_ip = target.next_ip
        facts = {"attach": target.attach, "prog_id": prog_ids[0]}
        return {**facts, "out": out, "ports": list(constants.ports)}

    def _attach(self, ifindex: int, attach: str) -> int:
        """Attach to a NIC and return the program's id, after the kernel has confirmed both."""
        assert self._program is not None
        if ifindex not in self._links:
            self._links[ifindex] = kernel.attach_xdp(self._program.fd, ifindex, attach)
        found, prog_id = kernel.query_xdp(ifindex)
        if found != attach:
            raise HopError(f"XDP was asked for in {attach} mode and runs in {found or 'no'} mode")
        return prog_id

    def counters(self) -> dict[str, int]:
        """Return the sums over CPUs since the program was loaded."""
        if self._program is None:
            return dict.fromkeys(counter_names(), 0)
        return self._program.counters()

    def tidy(self) -> None:
        """Forget expired flows, and have the stack make sure of the next hop's address."""
        now = time.monotonic()
        if self._program is None or now - self._tidied < _TIDY_EVERY_S:
            return
        self._tidied = now
        self._program.collect()
        if self._links:
            net.nudge(self._next_ip)

    def stop(self) -> None:
        """Detach; the program stays loaded and its flows remembered."""
        while self._links:
            ifindex, fd = self._links.popitem()
            os.close(fd)
            # The kernel frees a link in the background when its last reference goes.
            wait_detached(ifindex)


def wait_detached(ifindex: int) -> None:
    """Wait until nothing is attached to a NIC any more, a second at most."""
    until = time.monotonic() + 1.0
    # A NIC that has gone cannot be asked, and nothing is attached to it.
    with contextlib.suppress(HopError):
        while time.monotonic() < until and kernel.query_xdp(ifindex)[0]:
            time.sleep(0.001)
