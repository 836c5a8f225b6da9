# SPDX-License-Identifier: Apache-2.0
"""A namespace in which the forwarder finds routes and neighbours, and frames to feed it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMESPACE = f"hb-datapath-{os.getpid()}"
HOP_PORT, NEXT_PORT = 7000, 8000
PORT_MIN, PORT_MAX = 1024, 32767
DATA_MTU, EGRESS_MTU, NARROW_MTU = 1500, 1400, 1300

PASS, DROP, TX, REDIRECT = 2, 1, 3, 4  # enum xdp_action

HOP_MAC, EGRESS_MAC = "02:00:00:00:00:02", "02:00:00:00:01:02"

# The program goes by the kernel's clock, which runs on while the machine is busy with something
# else. Steps that took longer than this say nothing: what is known for a second may be forgotten.
STALL_S = 0.8
_ATTEMPTS = 10

_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Net:
    """The addresses around the hop, of one family.

    hop, out: the hop's own on its data and its egress NIC. next, other, client, neighbour: on the
    data network. narrow: there too, behind a route with a smaller MTU. silent: there, and the
    stack does not know its MAC address. far: reached by way of the client. behind: on the egress
    network. nowhere: without a route.
    """

    family: int
    hop: str
    out: str
    next: str
    other: str
    narrow: str
    client: str
    neighbour: str
    silent: str
    far: str
    behind: str
    nowhere: str


def _net(family: int, data: str, egress: str, far: str, nowhere: str) -> Net:
    on_data = (f"{data}{n}" for n in ("3", "4", "5", "1", "6", "99"))
    following, other, narrow, client, neighbour, silent = on_data
    return Net(
        family=family,
        hop=f"{data}2",
        out=f"{egress}2",
        next=following,
        other=other,
        narrow=narrow,
        client=client,
        neighbour=neighbour,
        silent=silent,
        far=far,
        behind=f"{egress}3",
        nowhere=nowhere,
    )


NETS = {
    4: _net(4, "198.18.7.", "198.18.8.", "192.0.2.77", "203.0.113.1"),
    6: _net(6, "2001:2:0:7::", "2001:2:0:8::", "2001:db8:1::77", "2001:db8:2::1"),
}
MACS = {
    getattr(net, name): f"02:00:00:00:00:{number:02x}"
    for net in NETS.values()
    for name, number in {
        "next": 3,
        "other": 4,
        "narrow": 5,
        "client": 1,
        "neighbour": 6,
        "far": 1,
        "behind": 0x13,
    }.items()
}


@dataclass(frozen=True)
class Arrive:
    """A step: a frame comes in, by the `data` or the `egress` NIC."""

    frame: bytes
    link: str = "data"


@dataclass(frozen=True)
class Next:
    """A step: the next hop from then on, and the hop's address towards it."""

    address: str
    port: int
    out: str


@dataclass(frozen=True)
class Age:
    """A step: every flow becomes older."""

    seconds: int


@dataclass(frozen=True)
class Collect:
    """A step: the agent forgets what has expired."""


@dataclass(frozen=True)
class Ip:
    """A step: a command of `ip`, inside the namespace."""

    words: tuple[str, ...]


Step = bytes | Arrive | Next | Age | Collect | Ip


@dataclass(frozen=True)
class Fed:
    """What became of the frames: (verdict, frame) each, in order, and what was counted."""

    results: list[tuple[int, bytes]]
    each: list[dict[str, int]] = field(default_factory=list)
    collected: list[int] = field(default_factory=list)

    @property
    def counters(self) -> dict[str, int]:
        """All counts together; those of 0 are there, too."""
        total: dict[str, int] = _Zeros()
        for change in self.each:
            for name, value in change.items():
                total[name] = total[name] + value
        return total


class _Zeros(dict[str, int]):
    def __missing__(self, name: str) -> int:
        return 0


Feed = Callable[..., Fed]


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="session")
def links() -> Iterator[dict[str, int]]:
    """The indices of the hop's NICs, in a namespace with routes and permanent neighbours."""
    _ip("netns", "add", NAMESPACE)
    inside = ("-n", NAMESPACE)
    try:
        for nic, mac, mtu in (("data", HOP_MAC, DATA_MTU), ("egress", EGRESS_MAC, EGRESS_MTU)):
            _ip(*inside, "link", "add", nic, "address", mac, "type", "veth", "peer", f"{nic}-peer")
            for end in (nic, f"{nic}-peer"):
                _ip(*inside, "link", "set", end, "mtu", str(mtu), "addrgenmode", "none", "up")
        for family, net in NETS.items():
            length = "24" if family == 4 else "64"
            flags = () if family == 4 else ("nodad",)
            _ip(*inside, "address", "add", f"{net.hop}/{length}", "dev", "data", *flags)
            _ip(*inside, "address", "add", f"{net.out}/{length}", "dev", "egress", *flags)
            for name in ("next", "other", "narrow", "client", "neighbour", "behind"):
                address, nic = getattr(net, name), "egress" if name == "behind" else "data"
                where = ("lladdr", MACS[address], "dev", nic, "nud", "permanent")
                _ip(*inside, "neighbour", "add", address, *where)
            alone = "32" if family == 4 else "128"
            # Unlocked, the kernel heeds it for what it sends itself, and not for what it forwards.
            narrow = (f"{net.narrow}/{alone}", "dev", "data", "mtu", "lock", str(NARROW_MTU))
            _ip(*inside, "route", "add", *narrow)
            _ip(*inside, "route", "add", f"{net.far}/{alone}", "via", net.client)
            for nic in ("data", "egress"):
                sysctl = f"net.ipv{family}.conf.{nic}.forwarding=1"
                _ip("netns", "exec", NAMESPACE, "sysctl", "-qw", sysctl)
        shown = json.loads(_ip(*inside, "-json", "link", "show"))
        yield {link["ifname"]: link["ifindex"] for link in shown}
    finally:
        _ip("netns", "delete", NAMESPACE)


def _start() -> subprocess.Popen[str]:
    python = ("/usr/bin/python3", "-B", str(Path(__file__).with_name("run_packets.py")))
    return subprocess.Popen(
        ["ip", "netns", "exec", NAMESPACE, *python],
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY / "bench")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _constants(links: dict[str, int], family: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the program's constants: the usual ones, with some changed.

    changes: PORT_MIN, PORT_MAX, FRESH, NAT_FLOWS, TWO_NICS, VLAN, EGRESS_VLAN.
    """
    unknown = set(changes) - {
        *("PORT_MIN", "PORT_MAX", "FRESH", "NAT_FLOWS", "TWO_NICS", "VLAN", "EGRESS_VLAN"),
    }
    assert not unknown, unknown

    def nic(name: str, vlan: int) -> dict[str, int]:
        return {"dev": links[name], "link": links[name], "vlan": vlan}

    two = changes.get("TWO_NICS", 0)
    return {
        "family": family,
        "hop_ip": NETS[family].hop,
        "hop_port": HOP_PORT,
        "ports": [changes.get("PORT_MIN", PORT_MIN), changes.get("PORT_MAX", PORT_MAX)],
        "fresh": bool(changes.get("FRESH", 0)),
        "nat_flows": changes.get("NAT_FLOWS"),
        "data": nic("data", changes.get("VLAN", 0)),
        "egress": nic("egress", changes.get("EGRESS_VLAN", 0)) if two else None,
    }


def _request(steps: Sequence[Step], links: dict[str, int]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in steps:
        if isinstance(step, bytes):
            step = Arrive(step)
        if isinstance(step, Arrive):
            found.append({"frame": step.frame.hex(), "in": links[step.link]})
        elif isinstance(step, Next):
            found.append({"next": [step.address, step.port, step.out]})
        elif isinstance(step, Age):
            found.append({"age": step.seconds})
        elif isinstance(step, Collect):
            found.append({"collect": True})
        else:
            found.append({"ip": list(step.words)})
    return found


@pytest.fixture(scope="session")
def feed(links: dict[str, int]) -> Iterator[Feed]:
    """Run frames through the forwarder, one after the other, beginning with empty tables.

    A step is a frame (bytes: by the data NIC) or one of the classes above. Keywords change the
    constants that the program is compiled with. Commands of `ip` leave things as they were, for
    steps that a stall spoils are all taken again.
    """
    running: dict[str, subprocess.Popen[str]] = {}

    def run(*steps: Step, family: int = 4, **changes: Any) -> Fed:
        constants = json.dumps(_constants(links, family, changes))
        if constants not in running:
            running[constants] = _start()
            print(constants, file=running[constants].stdin, flush=True)
        process, net = running[constants], NETS[family]
        request = _request((Next(net.next, NEXT_PORT, net.hop), *steps), links)
        assert process.stdout is not None
        for _ in range(_ATTEMPTS):
            print(json.dumps(request), file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            if answer["seconds"] < STALL_S:
                break
        else:
            raise AssertionError(f"{len(request)} steps took {answer['seconds']:.1f} s")
        return Fed(
            [(verdict, bytes.fromhex(frame)) for verdict, frame, _ in answer["results"]],
            [counts for _, _, counts in answer["results"]],
            answer["collected"],
        )

    yield run
    for process in running.values():
        process.communicate(timeout=10)
