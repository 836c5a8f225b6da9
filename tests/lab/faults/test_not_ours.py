# SPDX-License-Identifier: Apache-2.0
"""What is not the forwarder's: a scan and a flood reach the hop's stack octet by octet as sent.

Captured behind the program, on the hop's NIC, and beside it, on that of the next host.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from bench.lab.model import Lab
from tests.lab.endpoints import HOP_PORT, Hops, dropped, frames_of, host_of, listen
from tests.lab.test_scan import keep_forwarding

PORT = 8126
SCANNED, RANDOM = 1000, 4000
AT_ONCE = 100  # a veth's ring holds 256
# Not such as open a flow: SYN alone does.
FLAGS = ("A", "FA", "R", "SA", "PA", "", "FPU", "SR", "SF", "FSRPAUEC")
SOURCES = range(40_000, 60_000)  # above what the client's sockets take

# linux/if_packet.h and linux/socket.h
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_OUTGOING = 263, 8, 4
_AUXDATA = struct.Struct("=IIIHHHH")
_VLAN_VALID = 1 << 4


class Strange:
    """Frames of all kinds that come by the hop's NIC and belong to no flow of its forwarder."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self._random = random.Random(seed)
        self._client, self._hop, self._other = (
            host_of(lab, name) for name in ("client", "hop1", "hop2")
        )

        self._mac = bytes.fromhex(self._hop.mac.replace(":", ""))

    def scan(self) -> Iterator[bytes]:
        """Yield SYNs to ports of the hop, never the forwarder's."""
        for port in self._random.sample(
            [each for each in range(65536) if each != HOP_PORT], SCANNED
        ):
            yield self._frame(self._ip() / TCP(sport=self._port(), dport=port, flags="S"))

    def flood(self) -> Iterator[bytes]:
        """Yield frames of every kind, a third of them cut."""
        kinds = [*self._kinds()]
        for number in range(RANDOM):
            frame = kinds[number % len(kinds)]()
            # What the wire sends to all goes by its bridge, which drops packets that are cut.
            cut = frame[:6] == self._mac and self._random.random() < 0.3
            # A tag is taken off before the capture, where all of it is there.
            yield (
                frame[: self._random.randrange(min(20, len(frame)), len(frame) + 1)]
                if cut
                else frame
            )

    def _kinds(self) -> Iterator[Callable[[], bytes]]:
        frame, chance = self._frame, self._random
        yield lambda: frame(
            self._ip() / UDP(sport=self._port(), dport=self._not_ours()) / self._raw()
        )
        yield lambda: frame(
            self._ip() / TCP(sport=self._port(), dport=HOP_PORT, flags=self._flags())
        )
        yield lambda: frame(self._ip() / ICMP(type=chance.randrange(256)) / self._raw())
        yield lambda: frame(self._ip(proto=self._protocol()) / self._raw())
        yield lambda: frame(self._ip(frag=chance.randrange(1, 8192), flags="MF") / self._raw())
        yield lambda: frame(self._ip(options=[IPOption(b"\x94\x04\0\0")]) / self._udp())
        yield lambda: frame(self._ip(version=chance.choice((0, 5, 6, 15))) / self._udp())
        yield lambda: frame(self._ip() / SCTP(sport=self._port(), dport=HOP_PORT) / self._raw())
        yield lambda: frame(self._ip(dst=self._other.data_ip, ttl=1) / self._udp())
        yield lambda: frame(self._ip(dst=f"224.0.0.{chance.randrange(1, 255)}") / self._udp())
        yield lambda: frame(self._ip() / ICMP(type=3, code=4) / self._ip() / self._udp())
        yield lambda: frame(IPv6(src="2001:2::1", dst="2001:2::2") / ICMPv6EchoRequest())
        yield lambda: frame(IPv6(src="2001:2::1", dst="2001:2::2") / TCP(dport=HOP_PORT))
        yield lambda: frame(Dot1Q(vlan=chance.randrange(1, 4095)) / self._ip() / self._udp())
        yield lambda: frame(Dot1Q(vlan=7) / Dot1Q(vlan=8) / self._ip() / TCP(dport=HOP_PORT))
        yield lambda: frame(MPLS(label=chance.randrange(1 << 20)) / self._ip() / self._udp())
        yield lambda: frame(ARP(op=2, psrc="198.18.255.1", pdst="198.18.255.2"))
        yield lambda: frame(self._raw(), kind=chance.choice((0x88B5, 0x88CC, 0x0003, 0xFFFF)))
        yield lambda: frame(Raw(chance.randbytes(chance.randrange(20, 400))), kind=0x0800)
        yield lambda: frame(self._ip() / self._udp(), mac="ff:ff:ff:ff:ff:ff")
        yield lambda: frame(self._ip() / self._udp(), mac="01:00:5e:00:00:09")
        # Of nobody: the wire sends it to everybody.
        yield lambda: frame(self._ip() / self._udp(), mac="02:00:00:00:00:99")

    def _frame(self, packet: Packet, mac: str = "", kind: int | None = None) -> bytes:
        fields = {"dst": mac or self._hop.mac, "src": self._client.mac}
        return bytes(Ether(**fields, **({} if kind is None else {"type": kind})) / packet)

    def _ip(self, **fields: object) -> IP:
        number = self._random.randrange(1, 65536)
        return IP(**{"src": self._client.data_ip, "dst": self._hop.data_ip, "id": number, **fields})

    def _udp(self) -> Packet:
        return UDP(sport=self._port(), dport=self._not_ours()) / self._raw()

    def _raw(self) -> Raw:
        return Raw(self._random.randbytes(self._random.randrange(1, 200)))

    def _port(self) -> int:
        return self._random.choice(SOURCES)

    def _not_ours(self) -> int:
        return self._random.choice([*range(1, 400), HOP_PORT - 1, HOP_PORT + 1])

    def _flags(self) -> str:
        return self._random.choice(FLAGS)

    def _protocol(self) -> int:
        return self._random.choice([each for each in range(256) if each not in (6, 17)])


def capturing(lab: Lab, host: str) -> socket.socket:
    """Return a packet socket that gets what a host's stack gets, and knows of tags taken off."""
    made = frames_of(lab, host, capture=True)
    made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    made.settimeout(10)
    return made


def next_frame(captured: socket.socket) -> bytes:
    """Return the next frame that came in, with its tag where the stack has taken it off."""
    while True:
        frame, control, _, address = captured.recvmsg(4096, 256)
        if address[2] == _PACKET_OUTGOING:
            continue
        for level, kind, data in control:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                status, *_, tci, tpid = _AUXDATA.unpack(data[: _AUXDATA.size])
                if status & _VLAN_VALID:
                    return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
        return frame


def require_all(sender: socket.socket, captured: socket.socket, frames: list[bytes]) -> None:
    """Send frames and wait until each of them has arrived as it was sent."""
    for at in range(0, len(frames), AT_ONCE):
        missing = Counter(frames[at : at + AT_ONCE])
        for frame in frames[at : at + AT_ONCE]:
            sender.send(frame)
        try:
            while missing:
                frame = next_frame(captured)
                if missing[frame] > 1:
                    missing[frame] -= 1
                else:
                    del missing[frame]
        except TimeoutError:
            shown = [frame.hex() for frame in missing]
            raise AssertionError(f"{len(shown)} of {AT_ONCE} did not arrive: {shown[:3]}") from None


def left_of(captured: socket.socket) -> list[bytes]:
    """Return what a socket has captured so far."""
    captured.settimeout(0.2)
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(next_frame(captured))
    return found


@pytest.mark.parametrize("attach", ["native", "generic"])
def test_the_stack_gets_all_that_is_not_a_flow(lab: Lab, attach: str) -> None:
    """With flows forwarded meanwhile, which have the same NIC and are whole at the end."""
    strange, stop = Strange(lab, 8), threading.Event()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(lab, PORT))
        sender = stack.enter_context(frames_of(lab, "client"))
        captured = stack.enter_context(capturing(lab, "hop1"))
        hops = stack.enter_context(Hops(lab, 1))
        stack.enter_context(hops.forwarding(PORT, attach))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(stop.set)
        forwarding = pool.submit(keep_forwarding, lab, listener, stop)
        require_all(sender, captured, [*strange.scan(), *strange.flood()])
        stop.set()
        carried = forwarding.result(30)
        (counts,) = hops.counts()
        assert counts["flows_opened"] == carried > 0
        assert dropped(counts) == {}


def test_the_next_host_gets_nothing_of_it(lab: Lab) -> None:
    """Without a flow, nothing but what the hop's own stack has to ask leaves the hop for it."""
    strange = Strange(lab, 9)
    hop = bytes.fromhex(host_of(lab, "hop1").mac.replace(":", ""))
    arp = b"\x08\x06"
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(frames_of(lab, "client"))
        captured = stack.enter_context(capturing(lab, "hop1"))
        hops = stack.enter_context(Hops(lab, 1))
        stack.enter_context(hops.forwarding(PORT))
        beside = stack.enter_context(capturing(lab, "server"))
        require_all(sender, captured, [*strange.scan(), *strange.flood()])
        found = left_of(beside)
        # The client's, to everybody and to nobody: the capture is at work.
        assert any(frame[:6] == bytes.fromhex("020000000099") for frame in found)
        assert [frame.hex() for frame in found if frame[6:12] == hop and frame[12:14] != arp] == []
        (counts,) = hops.counts()
        assert (counts["flows_opened"], counts["forwarded_packets"]) == (0, 0)
        assert dropped(counts) == {}
