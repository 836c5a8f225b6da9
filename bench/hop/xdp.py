# SPDX-License-Identifier: Apache-2.0
"""Mode `xdp`: bpf/forwarder.c on the data NIC, alive as long as this process holds its bpf_link."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import time

from . import compiler, kernel, net
from .config import Place, Target
from .errors import HopError

# A NAT's own ports: neither privileged (RFC 6335) nor any that the host's sockets may take.
LOWEST_PORT = 1024
PROGRAM = "hopbench_fwd"
_MAPS = ("settings", "counters")
_FIRST = struct.pack("=I", 0)  # key of the only element of an array
_COUNTER = re.compile(r"\bX\((\w+)\)")


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


def counter_names() -> list[str]:
    """Return the names of the forwarder's counters, in the order of the C structure."""
    text = (compiler.SOURCES / "counters.h").read_text()
    return _COUNTER.findall(text)


class XdpForwarder:
    """One loaded program; `start` and `stop` attach and detach it, which is fast."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._ifindex = socket.if_nametoindex(place.data_nic)
        self._link_fd = -1
        self._fds: dict[str, int] = {}
        self._names = counter_names()

    def prepare(self) -> None:
        """Compile and load: a second or less, except in emulated machines."""
        if self._fds:
            return
        low, high = port_range(net.ephemeral_ports())
        address = struct.unpack("=I", socket.inet_aton(self._place.data_ip))[0]
        defines = {
            "HOP_IP": address,
            "HOP_PORT": socket.htons(self._place.forward_port),
            "PORT_MIN": low,
            "PORT_MAX": high,
        }
        self._fds = compiler.load("forwarder.c", PROGRAM, _MAPS, defines)

    def start(self, target: Target) -> dict[str, object]:
        """Attach, verify the attach mode, and return what is attached.

        Raises HopError when forwarding is off, the next hop does not answer ARP, another program
        is attached, or the driver refuses.
        """
        net.require_forwarding(self._place.data_nic)
        net.require_free_port(self._place.data_ip, self._place.forward_port)
        self.prepare()
        self._attach(target.attach)
        try:
            net.resolve(target.next_ip, self._place.data_nic)
            attach, prog_id = kernel.query_xdp(self._ifindex)
            if attach != target.attach:
                raise HopError(
                    f"XDP was asked for in {target.attach} mode and runs in {attach or 'no'} mode"
                )
        except HopError:
            self.stop()
            raise
        # From here on new flows are taken; until now their SYNs were dropped.
        self._set_next(socket.inet_aton(target.next_ip) + struct.pack("!HH", target.next_port, 0))
        return {"attach": attach, "prog_id": prog_id}

    def _attach(self, attach: str) -> None:
        self._set_next(bytes(8))
        if self._link_fd < 0:
            self._link_fd = kernel.attach_xdp(self._fds[PROGRAM], self._ifindex, attach)

    def _set_next(self, setting: bytes) -> None:
        kernel.update(self._fds["settings"], _FIRST, setting)

    def counters(self) -> dict[str, int]:
        """Return the sums over CPUs since the program was loaded."""
        if not self._fds:
            return dict.fromkeys(self._names, 0)
        cpus, width = kernel.possible_cpus(), len(self._names)
        raw = kernel.lookup(self._fds["counters"], _FIRST, 8 * width * cpus)
        values = struct.unpack(f"={width * cpus}Q", raw)
        return {name: sum(values[i::width]) for i, name in enumerate(self._names)}

    def stop(self) -> None:
        """Detach; the program stays loaded and its flows remembered."""
        if self._link_fd >= 0:
            os.close(self._link_fd)
            self._link_fd = -1
            # The kernel frees a link in the background when its last reference goes.
            _wait_detached(self._ifindex)


def _wait_detached(ifindex: int) -> None:
    until = time.monotonic() + 1.0
    # A NIC that has gone cannot be asked, and nothing is attached to it.
    with contextlib.suppress(HopError):
        while time.monotonic() < until and kernel.query_xdp(ifindex)[0]:
            time.sleep(0.001)
