# SPDX-License-Identifier: Apache-2.0
"""Hosts joined by links of their own, without a wire: what hops of two NICs stand between.

client -A- hop1 -B- hop2 -C- server: a host is a network namespace, a link a veth pair with a subnet
of either family and an MTU. Sockets of any host are made in the test's own process.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
_SYSCTL = _REPOSITORY / "ansible/roles/hop/files/sysctl.sh"
_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-bpfcc belongs to
_NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_LIMIT_S = 60
# Out of the way of the ports that a hop's NAT takes: see CLIENT_PORTS in bench/lab/network.py.
_CLIENT_PORTS = "2048 32767"
# GRO has a veth run NAPI, which redirecting to it needs. It may merge acknowledgements at most.
_GRO_SIZE = 600

_libc = ctypes.CDLL(None, use_errno=True)


def namespace(host: str) -> str:
    """Return the network namespace of a host; other test sessions have others."""
    return f"hb-links-{os.getpid()}-{host}"


def run(host: str, *argv: str, text: str | None = None) -> str:
    """Run a program on a host and return its output."""
    done = subprocess.run(
        ["ip", "netns", "exec", namespace(host), *argv],
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{host}: {' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout


def ip(host: str, *commands: str) -> None:
    """Have `ip` do several things on a host."""
    run(host, "ip", "-batch", "-", text="\n".join(commands) + "\n")


# --- in the test's own process ----------------------------------------------------------------


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def in_namespace(name: str) -> Iterator[None]:
    """Have this thread be in a namespace: sockets that it makes belong there for good."""
    with Path("/proc/thread-self/ns/net").open() as own, (_NETNS / name).open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def entered(host: str) -> contextlib.AbstractContextManager[None]:
    """Have this thread be on a host."""
    return in_namespace(namespace(host))


def new_socket(host: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Make a socket on a host. family: 4 or 6, or one of `socket`'s."""
    family = {4: socket.AF_INET, 6: socket.AF_INET6}.get(family, family)
    with entered(host):
        return socket.socket(family, kind, protocol)


def counts(host: str) -> Counter[str]:
    """Return what a host's stack counts: TcpOutSegs, TcpExtTCPSynRetrans, Ip6OutForwDatagrams …"""
    found: Counter[str] = Counter()
    with entered(host):
        net = Path("/proc/thread-self/net")
        tables = [(net / name).read_text().splitlines() for name in ("snmp", "netstat")]
        pairs = [line.split() for line in (net / "snmp6").read_text().splitlines()]
    for lines in tables:
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            prefix, *keys = names.split()
            for key, value in zip(keys, values.split()[1:], strict=True):
                found[prefix[:-1] + key] = int(value)
    for key, value in pairs:
        found[key] = int(value)
    return found


def nic_counts(host: str, nic: str) -> Counter[str]:
    """Return what a veth counts: xdp_redirect, xdp_xmit_errors …, of all its queues together."""
    found: Counter[str] = Counter()
    for line in run(host, "ethtool", "-S", nic).splitlines():
        match = re.match(r"\s+[rt]x_queue_\d+_(\w+): (\d+)$", line)
        if match:
            found[match[1]] += int(match[2])
    return found


# --- namespaces, links ------------------------------------------------------------------------


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[None]:
    """Hosts without a NIC. What is in them goes with them."""
    made = []
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", namespace(name)], check=True, timeout=_LIMIT_S)
            made.append(name)
            ip(name, "link set lo up")
        yield
    finally:
        for name in made:
            # What cannot be removed is found at the end of the session.
            delete = ["ip", "netns", "delete", namespace(name)]
            subprocess.run(delete, check=False, timeout=_LIMIT_S)


def link(here: str, nic: str, there: str, other_nic: str, mtu: int = 1500) -> None:
    """Join two hosts. Checksums are complete: a veth would leave them to the receiver otherwise."""
    ip(
        here,
        f"link add {nic} mtu {mtu} type veth"
        f" peer name {other_nic} mtu {mtu} netns {namespace(there)}",
    )
    for host, name in ((here, nic), (there, other_nic)):
        run(host, "ethtool", "-K", name, "tx", "off", "gro", "on")
        # addrgenmode none: nothing is sent that no test has asked for.
        ip(host, f"link set {name} addrgenmode none gro_max_size {_GRO_SIZE} up")


def let_forward(host: str, *nics: str) -> None:
    """Give a hop the settings that deploy gives it, by deploy's own script."""
    # It keeps records in /opt. `ip netns exec` has mounts of its own: what is mounted goes with it.
    script = 'mount -t tmpfs none /opt && for v in 4 6; do sh "$0" set "$1" $v $2 || exit 1; done'
    run(host, "sh", "-c", script, str(_SYSCTL), host, " ".join(nics))


def attach_pass(host: str, *nics: str) -> None:
    """Attach an XDP program that passes everything: without one, a veth's peer cannot XDP_TX."""
    ports = {nic: f"02:00:00:00:00:{number:02x}" for number, nic in enumerate(nics)}
    run(
        *(host, "env", "-C", str(_REPOSITORY / "bench"), _PYTHON, "-B", "-m", "hop", "wire"),
        text=json.dumps({"function": "hopbench_pass", "ports": ports}),
    )


# --- chains -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    """client, hop1 … hopN, server. mtus: of the links, from the client's to the server's."""

    name: str
    mtus: tuple[int, ...]

    @property
    def hops(self) -> list[str]:
        """The hops' names, from client to server."""
        return [self.host(number) for number in range(1, len(self.mtus))]

    @property
    def client(self) -> str:
        """The client's name."""
        return self.host(0)

    @property
    def server(self) -> str:
        """The server's name."""
        return self.host(len(self.mtus))

    def host(self, number: int) -> str:
        """Return a host's name by its place: 0 is the client."""
        last = len(self.mtus)
        word = {0: "client", last: "server"}.get(number, f"hop{number}")
        return f"{self.name}-{word}"

    def near(self, number: int, family: int) -> str:
        """Return the address at a link's end towards the client; link 0 is the client's."""
        return f"198.19.{number}.1" if family == 4 else f"2001:2:0:{number}::1"

    def far(self, number: int, family: int) -> str:
        """Return the address at a link's end towards the server: where host number + 1 listens."""
        return f"198.19.{number}.2" if family == 4 else f"2001:2:0:{number}::2"

    def place(self, number: int, family: int) -> dict[str, str]:
        """Return NICs and address of hop `number` as its agent is told them."""
        return {
            "data_nic": "eth0",
            "egress_nic": "eth1",
            "data_ip": self.far(number - 1, family),
        }


@contextlib.contextmanager
def chain(name: str, mtus: Sequence[int]) -> Iterator[Chain]:
    """A chain with len(mtus) - 1 hops. Every host has eth0; a hop's eth1 leads to the server."""
    made = Chain(name, tuple(mtus))
    with hosts(made.client, *made.hops, made.server):
        for number, mtu in enumerate(mtus):
            here, there = made.host(number), made.host(number + 1)
            nic = "eth1" if number else "eth0"
            link(here, nic, there, "eth0", mtu)
            for host, end, which in ((here, made.near, nic), (there, made.far, "eth0")):
                ip(
                    host,
                    f"address add {end(number, 4)}/24 dev {which}",
                    # nodad: it could not be used while the kernel looks for its double.
                    f"address add {end(number, 6)}/64 dev {which} nodad",
                )
        for hop in made.hops:
            # As strict a host as there is before deploy comes to it.
            strict = [f"net.ipv4.conf.{nic}.rp_filter=1" for nic in ("all", "eth0", "eth1")]
            run(hop, "sysctl", "-qw", *strict)
            let_forward(hop, "eth0", "eth1")
        run(made.client, "sysctl", "-qw", f"net.ipv4.ip_local_port_range={_CLIENT_PORTS}")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda host: attach_pass(host, "eth0"), (made.client, made.server)))
        yield made
