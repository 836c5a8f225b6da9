# SPDX-License-Identifier: Apache-2.0
"""Both ends of a chain in this process: sockets in a host's namespace, and what the host counts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from bench.lab.model import NIC, Lab, LabHost
from tests.lab.agents import DirectAgent

HOP_PORT = 7000
_LEASE_S = 600
_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3


@contextlib.contextmanager
def at(lab: Lab, host: str) -> Iterator[None]:
    """Have this thread in a host's namespace: sockets made here stay there, wherever they go."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{lab.namespace(host)}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            assert libc.setns(here, _CLONE_NEWNET) == 0
    finally:
        os.close(there)
        os.close(here)


def host_of(lab: Lab, name: str) -> LabHost:
    """Return a host of the lab by its name."""
    return {each.name: each for each in lab.hosts}[name]


# --- TCP -------------------------------------------------------------------------------------


def listen(lab: Lab, port: int, host: str = "server", backlog: int = 2000) -> socket.socket:
    """Return a socket that listens on a host."""
    with at(lab, host):
        listener = socket.create_server((host_of(lab, host).data_ip, port), backlog=backlog)
    listener.settimeout(10)
    return listener


def tcp(lab: Lab, source: tuple[str, int] | None = None) -> socket.socket:
    """Return a TCP socket of the client, with a source address and port where one is given."""
    with at(lab, "client"):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(10)
    if source:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(source)
    return made


def connected(
    lab: Lab, listener: socket.socket, source: tuple[str, int] | None = None
) -> tuple[socket.socket, socket.socket]:
    """Connect the client to the listener through the first hop; return both ends."""
    client = tcp(lab, source)
    try:
        client.connect((host_of(lab, "hop1").data_ip, HOP_PORT))
        server, _ = listener.accept()
    except OSError:
        client.close()
        raise
    server.settimeout(10)
    return client, server


def receive(source: socket.socket, size: int) -> bytes:
    """Return `size` bytes, or what came before the other side's end."""
    found = bytearray()
    while len(found) < size and (chunk := source.recv(min(size - len(found), 1 << 20))):
        found += chunk
    return bytes(found)


def send_beside(sender: socket.socket, data: bytes) -> threading.Thread:
    """Send in a thread; the caller receives meanwhile, and joins it."""
    thread = threading.Thread(target=sender.sendall, args=(data,), daemon=True)
    thread.start()
    return thread


def exchange(one: socket.socket, other: socket.socket, data: bytes = b"x" * 1000) -> None:
    """Send data one way and back, and compare it on both sides."""
    for sender, receiver in ((one, other), (other, one)):
        sender.sendall(data)
        assert receive(receiver, len(data)) == data


# --- frames ----------------------------------------------------------------------------------


def frames_of(lab: Lab, host: str, *, capture: bool = False) -> socket.socket:
    """Return a packet socket on a host's NIC; one that captures sees what the stack sees."""
    with at(lab, host):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    if capture:
        # SO_RCVBUFFORCE of asm-generic/socket.h
        made.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
    with at(lab, host):
        made.bind((NIC, _ETH_P_ALL if capture else 0))
    return made


# --- what hosts and hops count ----------------------------------------------------------------


def counted(lab: Lab, host: str) -> dict[str, int]:
    """Return a host's counters under the names that nstat has for them: TcpExtTCPSynRetrans."""
    found: dict[str, int] = {}
    for file in ("snmp", "netstat"):
        with at(lab, host):
            lines = Path(f"/proc/thread-self/net/{file}").read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            group, *words = names.split()
            for word, value in zip(words, values.split()[1:], strict=True):
                found[group.rstrip(":") + word] = int(value)
    return found


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Return by how much each counter that moved has grown."""
    # The stack lists some counters only once they have moved.
    moved = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: value for name, value in moved.items() if value}


def dropped(counts: dict[str, int]) -> dict[str, int]:
    """Return the counters of dropped packets that are not zero."""
    return {name: count for name, count in counts.items() if count and "dropped" in name}


class Hops:
    """XDP forwarders on the lab's first hops, loaded once and attached as often as asked."""

    def __init__(self, lab: Lab, hops: int, **place: object) -> None:
        self._lab, self._place = lab, place
        self._names = [f"hop{number}" for number in range(1, hops + 1)]
        self._began: list[dict[str, int]] = []

    def __enter__(self) -> Hops:
        with contextlib.ExitStack() as stack:
            self.agents = [
                stack.enter_context(DirectAgent(self._lab, name)) for name in self._names
            ]
            for agent in self.agents:
                answer = agent.place(prepare=["xdp"], lease_s=_LEASE_S, **self._place)
                assert answer["event"] == "ready", answer
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def forwarding(self, port: int, attach: str = "native") -> Iterator[Hops]:
        """Forward to a port of the server meanwhile, and count from the start of that."""
        self.ports: list[list[int]] = []
        targets = [(agent.address, HOP_PORT) for agent in self.agents[1:]]
        targets.append((host_of(self._lab, "server").data_ip, port))
        for agent, (next_ip, next_port) in zip(self.agents, targets, strict=True):
            target = {"attach": attach, "next_ip": next_ip, "next_port": next_port}
            answer = agent.ask(mode="xdp", lease_s=_LEASE_S, **target)
            assert (answer["event"], answer.get("attach")) == ("ready", attach), answer
            self.ports.append(answer["ports"])
        self._began = self._counters()
        try:
            yield self
        finally:
            for agent in self.agents:
                agent.ask(mode="direct", lease_s=_LEASE_S)

    def _counters(self) -> list[dict[str, int]]:
        answers = [agent.ask(op="counters", lease_s=_LEASE_S) for agent in self.agents]
        return [answer["counters"] for answer in answers]

    def counts(self) -> list[dict[str, int]]:
        """Return what each hop has counted since it forwards, in chain order."""
        return [
            {name: now[name] - then[name] for name in now}
            for then, now in zip(self._began, self._counters(), strict=True)
        ]
