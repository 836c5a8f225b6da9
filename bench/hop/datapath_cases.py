# SPDX-License-Identifier: Apache-2.0
"""What `bench datapath` measures: programs, each with the frames it gets and what it must do."""

from __future__ import annotations

import itertools
import mmap
import random
import socket
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import compiler, kernel
from .compiler import Map
from .errors import HopError
from .program import Constants, Nic, Program, pack_address
from .segment import ACK, FRAME_LEN, SYN, End, dest_port_at, source_port_at, tcp
from .timing import Volley

DROP, TX = 1, 3  # enum xdp_action
HOP_PORT, NEXT_PORT = 7000, 8000
# All but the privileged ones: as many flows as a forwarder of one address can have.
PORTS = (1024, 65535)
MOST_FLOWS = PORTS[1] - PORTS[0]  # HOP_PORT is none of them
HOP_MAC, FAR_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
# Client, hop, next hop: 198.18.0.0/15 (RFC 2544) and 2001:2::/48 (RFC 5180) are for benchmarks.
ADDRESSES = {
    4: ("198.18.0.1", "198.18.0.2", "198.18.0.3"),
    6: ("2001:2::1", "2001:2::2", "2001:2::3"),
}

# Many flows one after the other as they lie in memory; new ones in an order in which they do not.
IN_ORDER, AT_RANDOM = "forward in order", "new-flow at random"
BASELINES = {"empty": "hopbench_empty", "reflector": "hopbench_reflect", "router": "hopbench_route"}
SEND, SINK = "hopbench_send", "hopbench_sink"
# Those that look something up are measured with one entry, and with as many as STEP_ENTRIES.
LOOKUPS = ("array", "hash", "lru", "two_hashes", "lru_update")
STEPS = ("key", *LOOKUPS, "fib", "ktime", "ktime_coarse", "jiffies", "counter", "claim")
STEP_ENTRIES = (1, 60000)
_LOAD_LEN = 16  # struct load of bpf/baselines.c, without its frame
_STRIDE = 8  # what an array map makes of a value of 8 bytes or less

Ports = Sequence[int]
"""Source ports in network order, as the numbers that a C program sees."""


@dataclass
class Case:
    """A program with its frames.

    ports: those that its frames have, one after the other. first: where they begin in the map of
    the program that sends live frames. verdict: what is due. program, counts: the forwarder whose
    counters tell what it did, and by how much each has to grow with every packet. fresh: each port
    is to be one that the forwarder has not seen since its tables were emptied.
    """

    name: str
    fd: int
    frame: bytes
    ports: Ports
    verdict: int
    first: int = 0
    program: Program | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    fresh: bool = False

    def __post_init__(self) -> None:
        self._turn = itertools.cycle(self.ports)

    @property
    def flows(self) -> int:
        """How many flows take turns; 1 where each packet is a flow of its own."""
        return 1 if self.fresh else len(self.ports)

    def take(self, count: int) -> list[int]:
        """Return the ports of the next packets."""
        return list(itertools.islice(self._turn, count))

    def make_room(self) -> None:
        """See to it that every port is fresh, where it has to be: another case may have had it."""
        if self.fresh:
            assert self.program is not None
            forget_flows(self.program)


def forget_flows(program: Program) -> None:
    """Empty the tables of a forwarder, so that every port is free and no client known."""
    program.flows[:] = bytes(len(program.flows))
    for name, map_ in program.constants.maps().items():
        if map_.kind == "HASH":
            for key in kernel.keys(program.fds[name], map_.key):
                kernel.delete(program.fds[name], key)


@dataclass(frozen=True)
class Ends:
    """Who talks to whom in the namespace."""

    family: int

    @property
    def client(self) -> End:
        """The client; its ports vary."""
        return End(FAR_MAC, ADDRESSES[self.family][0], 0)

    @property
    def hop(self) -> End:
        """The hop as clients see it."""
        return End(HOP_MAC, ADDRESSES[self.family][1], HOP_PORT)

    def hop_at(self, port: int) -> End:
        """The hop as the next one sees it. port: in host order."""
        return End(HOP_MAC, ADDRESSES[self.family][1], port)

    @property
    def next(self) -> End:
        """The next hop."""
        return End(FAR_MAC, ADDRESSES[self.family][2], NEXT_PORT)

    @property
    def routed(self) -> End:
        """The next hop as a destination beyond a router."""
        return End(HOP_MAC, ADDRESSES[self.family][2], NEXT_PORT)


def in_order(ports: Ports) -> array[int]:
    """Return ports, which are in network order, in the order of their numbers."""
    return array("H", [socket.htons(port) for port in sorted(map(socket.ntohs, ports))])


def shuffled_ports(seed: int) -> array[int]:
    """Return every port a client may have here, in a random order, in network order."""
    ports = [port for port in range(PORTS[0], PORTS[1] + 1) if port != HOP_PORT]
    random.Random(seed).shuffle(ports)
    return array("H", [socket.htons(port) for port in ports])


class Baselines:
    """bpf/baselines.c: what the forwarder is measured beside, and what sends live frames."""

    def __init__(self, ends: Ends, ports: Ports) -> None:
        """ports: what `first` of a case counts from, after one place for the next hop's own.

        They come again behind all of them, in the order of their numbers.
        """
        self._ends, self._ports = ends, ports
        sources = [socket.htons(NEXT_PORT), *ports, *in_order(ports)]
        self.map = {
            "load": Map("ARRAY", 4, FRAME_LEN[ends.family] + _LOAD_LEN, 1),
            "sources": Map("ARRAY", 4, 8, len(sources), kernel.BPF_F_MMAPABLE),
        }
        defines = {"FAMILY": ends.family, "SOURCES": len(sources)}
        functions = (*BASELINES.values(), SEND, SINK)
        self.fds = compiler.load("baselines.c", functions, self.map, defines)
        _write_array(self.fds["sources"], sources)

    def cases(self) -> Iterator[Case]:
        """Yield the baselines; all of them get the packet that the router can route."""
        ends, ports = self._ends, self._ports[:1]
        for name, function in BASELINES.items():
            frame = tcp(ends.family, ends.client, ends.routed, ACK)
            verdict = DROP if name == "empty" else TX
            yield Case(name, self.fds[function], frame, ports, verdict, first=1)

    def aim(self, case: Case) -> None:
        """Have the program that sends live frames send those of a case."""
        state = struct.pack("=4I", case.first, len(case.ports), 0, 0)
        kernel.update(self.fds["load"], struct.pack("=I", 0), case.frame + state)


class Forwarders:
    """bpf/forwarder.c twice: with every flow established, and with empty tables."""

    def __init__(self, ends: Ends, ports: Ports, ifindex: int) -> None:
        self._ends, self._ports = ends, ports
        constants = Constants(
            hop_ip=ends.hop.address,
            hop_port=HOP_PORT,
            ports=PORTS,
            data=Nic(ifindex, ifindex),
            family=ends.family,
        )
        self._established, self._empty = Program(constants), Program(constants)
        for program in (self._established, self._empty):
            program.set_next(ends.next.address, NEXT_PORT, ends.hop.address)
        self._establish(ifindex)

    def _establish(self, ifindex: int) -> None:
        """Open every flow and carry the two packets that follow a SYN."""
        ends, fd, family = self._ends, self._established.fd, self._ends.family
        to_hop, to_client = source_port_at(family), dest_port_at(family)
        for frame, port_at in (
            (tcp(family, ends.client, ends.hop, SYN), to_hop),
            (tcp(family, ends.next, ends.hop_at(0), SYN | ACK), to_client),
            (tcp(family, ends.client, ends.hop, ACK), to_hop),
        ):
            Volley(fd, frame, ifindex, port_at, TX).run(self._ports)
        counters = self._established.counters()
        if counters["port_kept"] != len(self._ports):
            raise HopError(f"{counters['port_kept']} of {len(self._ports)} flows could be opened")

    def cases(self, flows: Sequence[int]) -> Iterator[Case]:
        """Yield forward and return for one flow, forward for each number of flows, and new-flow.

        Flows take turns in a random order, the most of them also as they lie in memory. New ones
        come port by port, as a client's do, and in a random order.
        """
        ends, family = self._ends, self._ends.family
        length = FRAME_LEN[family]
        forwarded = {"forwarded_packets": 1, "forwarded_bytes": length}
        returned = {"returned_packets": 1, "returned_bytes": length}
        fd, program = self._established.fd, self._established
        ack = tcp(family, ends.client, ends.hop, ACK)
        for count in sorted({1, *flows}):
            ports = self._ports[:count]
            yield Case("forward", fd, ack, ports, TX, 1, program, forwarded)
        ordered, behind = in_order(self._ports), 1 + len(self._ports)
        ports = ordered[: max(flows)]
        yield Case(IN_ORDER, fd, ack, ports, TX, behind, program, forwarded)
        back = tcp(family, ends.next, ends.hop_at(socket.ntohs(self._ports[0])), ACK)
        ports = (socket.htons(NEXT_PORT),)
        yield Case("return", fd, back, ports, TX, 0, program, returned)
        opened = forwarded | {"flows_opened": 1, "port_kept": 1}
        syn, fd, program = tcp(family, ends.client, ends.hop, SYN), self._empty.fd, self._empty
        # Linux gives a client's connections to one destination every other port in turn.
        yield Case("new-flow", fd, syn, ordered, TX, behind, program, opened, fresh=True)
        yield Case(AT_RANDOM, fd, syn, self._ports, TX, 1, program, opened, fresh=True)


class Steps:
    """bpf/steps.c with so many entries in each of its tables."""

    def __init__(self, ends: Ends, ports: Ports, names: Sequence[str]) -> None:
        """ports: a table has an entry for each. names: of STEPS."""
        self._ends, self._ports, self._names = ends, ports, names
        address = 4 if ends.family == 4 else 16
        entries = 65536  # the index is a port; the same for one entry and for many
        self.map = {
            "by_index": Map("ARRAY", 4, 64, entries),
            "by_key": Map("HASH", address + 4, 64, entries),
            "by_key_too": Map("HASH", address + 4, 64, entries),
            "by_key_lru": Map("LRU_HASH", address + 4, 64, entries),
            "claimed": Map("HASH", 4, 1, 1024),
            "counted": Map("PERCPU_ARRAY", 4, 8, 1),
        }
        defines = {"FAMILY": ends.family, "STEP_ENTRIES": entries}
        functions = tuple(f"step_{name}" for name in names)
        self.fds = compiler.load("steps.c", functions, self.map, defines)
        client = pack_address(ends.client.address, ends.family)
        # Not in the order in which they are looked up: it would be that of their memory, too.
        for port in sorted(ports):
            key = client + struct.pack("=HH", port, 0)
            for name in ("by_key", "by_key_too", "by_key_lru"):
                kernel.update(self.fds[name], key, bytes(64))

    def cases(self) -> Iterator[Case]:
        """Yield one for each step."""
        frame = tcp(self._ends.family, self._ends.client, self._ends.routed, ACK)
        for name in self._names:
            yield Case(name, self.fds[f"step_{name}"], frame, self._ports, DROP)


def _write_array(map_fd: int, values: Sequence[int]) -> None:
    """Fill an array map of 8-octet values."""
    with mmap.mmap(map_fd, _STRIDE * len(values)) as mapped:
        mapped[:] = array("Q", values).tobytes()
