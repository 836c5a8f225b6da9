# SPDX-License-Identifier: Apache-2.0
"""A lab's namespaces, links and wire: made, checked and removed with `ip` and `ethtool`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import paths
from bench.errors import BenchError
from bench.lab.model import LOOPBACK_HOST, NIC, WIRE_HOST, Lab, LabHost

_NETNS = Path("/run/netns")
_LIMIT_S = 60
_PARALLEL = 4
_SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-bpfcc belongs to

# A client's ports and the hops' own must be apart. nft keeps the client's source port, socat
# takes one of the hop's; where both talk to one server, a port that one of them left in
# TIME_WAIT would refuse the other's SYN, and the client would retry a second later.
CLIENT_PORTS = "2048 32767"


# A redirect would tell the client to leave out the hop that is to be measured. nft and XDP lower
# TTL or hop limit at each of up to 64 hops, and its default is 64.
_SYSCTLS = {
    4: (
        "net.ipv4.conf.all.send_redirects=0",
        "net.ipv4.conf.all.accept_redirects=0",
        "net.ipv4.ip_default_ttl=255",
    ),
    # `all` changes no NIC that is there, and IPv6 redirects cannot be told not to be sent.
    6: (
        f"net.ipv6.conf.{NIC}.accept_redirects=0",
        f"net.ipv6.conf.{NIC}.hop_limit=255",
        "net.ipv6.conf.default.hop_limit=255",
    ),
}


def _run(argv: Sequence[str], text: str | None = None) -> str:
    try:
        done = subprocess.run(
            argv,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except FileNotFoundError:
        raise BenchError(f"{argv[0]} is not installed", remedy="run make setup") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(argv[:4])} took over {_LIMIT_S} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise BenchError(f"{' '.join(argv[:6])}: {lines[0] if lines else 'failed'}")
    return done.stdout


def _batch(commands: Sequence[str], namespace: str | None = None) -> None:
    where = ["-n", namespace] if namespace else []
    _run(["ip", *where, "-batch", "-"], "\n".join(commands) + "\n")


def _inside(namespace: str, *argv: str, text: str | None = None) -> str:
    return _run(["ip", "netns", "exec", namespace, *argv], text)


def _namespaces(lab: Lab) -> list[str]:
    return [lab.namespace(WIRE_HOST), *(host.namespace for host in lab.hosts)]


def _all_namespaces(lab: Lab) -> list[str]:
    """Return the names a lab may take, its loopback's too."""
    return [*_namespaces(lab), lab.namespace(LOOPBACK_HOST)]


def require_free(lab: Lab) -> None:
    """Raise BenchError when a namespace of the lab's names exists: it is somebody else's."""
    taken = [name for name in _all_namespaces(lab) if (_NETNS / name).exists()]
    if taken:
        raise BenchError(
            f"namespace {taken[0]} already exists", remedy="remove it, or choose another --name"
        )


def make(lab: Lab) -> None:
    """Make every namespace and link, and the wire. The caller removes what a failure leaves."""
    wire = lab.namespace(WIRE_HOST)
    _batch([f"netns add {name}" for name in _namespaces(lab)])
    _make_wire(lab, wire)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda host: _make_host(lab, host), lab.hosts))
    _attach_wire(lab, wire)


def _make_wire(lab: Lab, wire: str) -> None:
    # addrgenmode none: no IPv6 address, so no router solicitations while we measure.
    commands = [
        "link add br0 type bridge forward_delay 0 mcast_snooping 0",
        "link set br0 addrgenmode none up",
    ]
    for host in lab.hosts:
        commands += [
            f"link add {host.port} type veth peer name {NIC} address {host.mac} "
            f"netns {host.namespace}",
            f"link set {host.port} addrgenmode none master br0 up",
        ]
    _batch(commands, wire)
    # GRO on a port would merge segments and leave their checksum to a NIC that is not there:
    # the next XDP program would then rewrite a packet whose checksum is not complete.
    script = 'for port in "$@"; do ethtool -K "$port" gro off tx off || exit 1; done'
    _inside(wire, "sh", "-c", script, "sh", *(host.port for host in lab.hosts))


def _make_host(lab: Lab, host: LabHost) -> None:
    _batch(
        [
            "link set lo up",
            f"link set {NIC} addrgenmode none up",
            # nodad: an IPv6 address could not be used while the kernel looks for its double.
            f"address add {host.data_ip}/{lab.network.prefixlen} dev {NIC}"
            + (" nodad" if lab.family == 6 else ""),
        ],
        host.namespace,
    )
    # tx off: a veth leaves the checksum of what it sends to the receiver (CHECKSUM_PARTIAL).
    # Once XDP has rewritten such a packet, its checksum is wrong for good.
    # gro on: it makes the veth run NAPI, without which nothing can be redirected to it.
    sysctls = list(_SYSCTLS[lab.family])
    if host.name == "client":
        sysctls.append(f"net.ipv4.ip_local_port_range={CLIENT_PORTS}")
    script = f'ethtool -K {NIC} tx off gro on && for s in "$@"; do sysctl -qw "$s" || exit 1; done'
    _inside(host.namespace, "sh", "-c", script, "sh", *sysctls)


def _attach_wire(lab: Lab, wire: str) -> None:
    request = {
        "function": "hopbench_wire" if lab.wire == "xdp" else "hopbench_pass",
        "ports": {host.port: host.mac for host in lab.hosts},
    }
    # From the package's parent folder, so that `hop` is found under that name.
    argv = ["env", "-C", str(paths.hop_package().parent), _SYSTEM_PYTHON, "-m", "hop", "wire"]
    _inside(wire, *argv, text=json.dumps(request))


def make_loopback(lab: Lab, client_ports: tuple[int, int]) -> None:
    """Make a namespace of nothing but `lo`; it goes with the lab.

    client_ports: the ports that its sockets get as their own.
    """
    namespace = lab.namespace(LOOPBACK_HOST)
    _batch([f"netns add {namespace}"])
    _batch(["link set lo up"], namespace)
    low, high = client_ports
    _inside(namespace, "sysctl", "-qw", f"net.ipv4.ip_local_port_range={low} {high}")


def missing(lab: Lab) -> list[str]:
    """Return the namespaces of the lab that do not exist."""
    return [name for name in _namespaces(lab) if not (_NETNS / name).exists()]


def wire_programs(lab: Lab) -> int:
    """Return how many ports of the wire run XDP in driver mode."""
    links = json.loads(_run(["ip", "-n", lab.namespace(WIRE_HOST), "-json", "link", "show"]))
    return sum(link.get("xdp", {}).get("mode") == 1 for link in links)


def remove(lab: Lab) -> None:
    """Remove the namespaces with everything in them. May be called on a lab that is half made."""
    names = [name for name in _all_namespaces(lab) if (_NETNS / name).exists()]
    _end_processes(names)
    if names:
        _batch([f"netns delete {name}" for name in names])


def _end_processes(names: Sequence[str]) -> None:
    """End what runs inside the lab's namespaces; nothing but the lab ever runs there."""
    inodes = set()
    for name in names:
        with contextlib.suppress(OSError):
            inodes.add((_NETNS / name).stat().st_ino)
    for number, limit_s in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
        pids = _processes_in(inodes)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + limit_s
        while pids and time.monotonic() < until:
            time.sleep(0.02)
            pids = _processes_in(inodes)
        if not pids:
            return


def _processes_in(inodes: set[int]) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "ns/net").stat().st_ino in inodes:
                    pids.append(int(entry.name))
    return [pid for pid in pids if pid != os.getpid()]
