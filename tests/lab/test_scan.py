# SPDX-License-Identifier: Apache-2.0
"""A port scan and a flood of strange frames, while SSH and forwarding share the hop's NIC."""

from __future__ import annotations

import contextlib
import random
import socket
import statistics
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from select import select

from bench.lab.model import Lab
from tests.lab.conftest import wait_until
from tests.lab.data_ssh import Ssh
from tests.lab.endpoints import (
    HOP_PORT,
    Hops,
    connected,
    counted,
    dropped,
    exchange,
    frames_of,
    grown,
    host_of,
    listen,
)

PORT = 8125
STRANGE = 102_000
MOST_ROUNDS = 20
SAMPLE = 400
SEND_AT_ONCE = 200  # a veth's ring holds 256, and drops what comes when it is full
SYN = 2
# Above what the client's sockets take, below the sources of strange segments.
SCANNER = 40_000


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of octets."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Frames:
    """Frames from the client's NIC to hop 1's, as no socket of the client would send them."""

    def __init__(self, lab: Lab) -> None:
        client, hop = (host_of(lab, name) for name in ("client", "hop1"))
        self._random = random.Random(2)
        macs = [bytes.fromhex(host.mac.replace(":", "")) for host in (hop, client)]
        self.macs = b"".join(macs)
        self._addresses = b"".join(socket.inet_aton(host.data_ip) for host in (client, hop))

    def ip(self, protocol: int, payload: bytes, fragment: int = 0, missing: int = 0) -> bytes:
        """Return a packet; missing: how many octets fewer there are than it says."""
        length = 20 + len(payload) + missing
        number = self._random.randrange(1, 1 << 16)
        fields = [0x45, 0, length, number, fragment, 64, protocol]
        head = struct.pack("!BBHHHBB", *fields)
        sum_ = struct.pack("!H", checksum(head + self._addresses))
        return self.macs + b"\x08\x00" + head + sum_ + self._addresses + payload

    def tcp(self, flags: int, port: int, source: int) -> bytes:
        """Return a TCP segment without data; a source above what the client's sockets take."""
        fields = [source, port, self._random.randrange(1 << 32), 0, 5 << 4, flags, 64240]
        head = struct.pack("!HHIIBBH", *fields)
        pseudo = self._addresses + struct.pack("!HH", 6, 20)
        return self.ip(6, head + struct.pack("!HH", checksum(pseudo + head), 0))

    def udp(self) -> bytes:
        """Return a datagram without a checksum, to any port but the forwarded one."""
        port = self._random.randrange(1, 1 << 16)
        port += port == HOP_PORT
        data = self._random.randbytes(self._random.randrange(100))
        return self.ip(17, struct.pack("!HHHH", 40_001, port, 8 + len(data), 0) + data)

    def segment(self) -> bytes:
        """Return what belongs to no connection, to the forwarded port; not an opening SYN."""
        flags = self._random.choice([0x10, 0x11, 0x04, 0x12, 0x18, 0x00, 0x29, 0x06, 0x03])
        return self.tcp(flags, HOP_PORT, self._random.randrange(41_000, 1 << 16))

    def fragment(self) -> bytes:
        """Return a part of a packet."""
        offset = self._random.randrange(1, 1 << 13)
        return self.ip(17, self._random.randbytes(24), 0x2000 | offset)

    def cut(self) -> bytes:
        """Return less than the IP header promises."""
        return self.ip(6, self._random.randbytes(30), missing=self._random.randrange(1, 1000))

    def other(self) -> bytes:
        """Return anything at all, of an ethertype that nobody has registered."""
        return self.macs + b"\x88\xb5" + self._random.randbytes(self._random.randrange(1, 200))

    def noise(self) -> bytes:
        """Return what claims to be IP and is not."""
        return self.macs + b"\x08\x00" + self._random.randbytes(self._random.randrange(1, 200))

    def mark(self) -> bytes:
        """Return a frame of another VLAN, which no other frame here is."""
        return self.macs + b"\x81\x00\x00\x07\x08\x00" + bytes(46)


def send(sender: socket.socket, frames: Sequence[bytes], mark: bytes, hops: Hops) -> None:
    """Send frames, as many at once as there is room for, some 30,000 a second.

    A mark follows them each time, and the next ones when the hop has counted it: none is dropped
    on the way, whoever else has the CPU that is to take them in.
    """
    due = hops.counts()[0]["passed_vlan"]

    def arrived() -> bool:
        return hops.counts()[0]["passed_vlan"] >= due

    for at in range(0, len(frames), SEND_AT_ONCE):
        for frame in (*frames[at : at + SEND_AT_ONCE], mark):
            sender.send(frame)
        due += 1
        time.sleep(0.003)
        assert wait_until(arrived), due


def keep_asking(ssh: Ssh, stop: threading.Event, took: list[float]) -> None:
    """Have one session echo lines until told to stop; `took` gets how long each takes."""
    with ssh.run("while read l; do echo $l; done") as session:
        assert session.stdin is not None and session.stdout is not None
        while not took or not stop.wait(0.03):
            line, began = f"line {len(took)}\n".encode(), time.monotonic()
            session.stdin.write(line)
            session.stdin.flush()
            assert select([session.stdout], [], [], 10)[0], "no answer"
            assert session.stdout.readline() == line
            took.append(time.monotonic() - began)


def keep_logging_in(ssh: Ssh, stop: threading.Event, took: list[float]) -> None:
    """Open new sessions until told to stop; `took` gets how long each takes."""
    while not took or not stop.wait(0.1):
        began = time.monotonic()
        with ssh.run("echo hello") as session:
            said, _ = session.communicate(timeout=20)
            assert (session.returncode, said) == (0, b"hello\n")
        took.append(time.monotonic() - began)


def keep_forwarding(lab: Lab, listener: socket.socket, stop: threading.Event) -> int:
    """Exchange data through the hop until told to stop; return over how many connections."""
    count = 0
    while not count or not stop.wait(0.01):
        client, server = connected(lab, listener)
        with client, server:
            exchange(client, server)
        count += 1
    return count


def test_ssh_lives_through_a_scan(lab: Lab) -> None:
    frames, stop = Frames(lab), threading.Event()
    makers = (frames.udp, frames.segment, frames.fragment, frames.cut, frames.other, frames.noise)
    strange = [makers[number % len(makers)]() for number in range(STRANGE)]
    each = STRANGE // len(makers)
    scan = [frames.tcp(SYN, port, SCANNER) for port in range(1, 1 << 16)]
    answers: list[float] = []
    logins: list[float] = []
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(lab, PORT))
        sender = stack.enter_context(frames_of(lab, "client"))
        ssh = stack.enter_context(Ssh(lab))
        hops = stack.enter_context(Hops(lab, 1))
        at_first = counted(lab, "client")
        stack.enter_context(hops.forwarding(PORT))
        pool = stack.enter_context(ThreadPoolExecutor(3))
        stack.callback(stop.set)
        asking = pool.submit(keep_asking, ssh, stop, answers)
        logging_in = pool.submit(keep_logging_in, ssh, stop, logins)
        forwarding = pool.submit(keep_forwarding, lab, listener, stop)

        def ended() -> bool:
            return asking.done() or logging_in.done() or forwarding.done()

        # The first answer waits for the login.
        assert wait_until(lambda: bool(answers and logins) or ended())
        before, earlier = len(answers), len(logins)
        send(sender, scan, frames.mark(), hops)
        # A machine that is slow needs more than one round until there was enough of all.
        rounds, enough = 0, False
        while not (enough or ended()) and rounds < MOST_ROUNDS:
            send(sender, strange, frames.mark(), hops)
            rounds += 1
            enough = len(answers) - before > 20 and len(logins) - earlier >= 2
        stop.set()
        asking.result(30)
        logging_in.result(30)
        carried = forwarding.result(30)
        assert enough, (len(answers), len(logins))
        took = answers[before:]
        print(f"{len(took)} answers, the slowest after {max(took) * 1000:.0f} ms, {rounds} rounds")
        assert statistics.median(took) < 0.2 and max(took) < 5
        (counts,) = hops.counts()
        # The scan's one SYN to the forwarded port is a client's like any other.
        assert counts["flows_opened"] == carried + 1
        assert dropped(counts) == {}
        # A connection that an earlier forwarder took along may still send its FIN again.
        repeated = grown(at_first, counted(lab, "client")).get("TcpRetransSegs", 0)
        assert each * rounds <= counts["passed_no_flow"] <= each * rounds + repeated
        assert counts["passed_fragment"] >= each * rounds
        assert counts["passed_not_ours"] >= len(scan) - 1 + each * rounds
        assert counts["passed_truncated"] >= each * rounds
        assert counts["passed_other_protocol"] >= each * rounds
        passed = sum(count for name, count in counts.items() if name.startswith("passed_"))
        assert passed - counts["passed_vlan"] >= len(scan) - 1 + STRANGE * rounds
        client, server = connected(lab, listener)
        with client, server:
            exchange(client, server)


def test_the_stack_gets_strange_frames_as_they_came(lab: Lab) -> None:
    frames = Frames(lab)
    sent = [frames.tcp(SYN, port, SCANNER) for port in range(1, HOP_PORT, 99)]
    makers = (frames.udp, frames.segment, frames.fragment, frames.cut, frames.other, frames.noise)
    sent += [makers[number % len(makers)]() for number in range(SAMPLE)]
    with (
        Hops(lab, 1) as hops,
        hops.forwarding(PORT),
        frames_of(lab, "client") as sender,
        frames_of(lab, "hop1", capture=True) as captured,
    ):
        captured.settimeout(10)
        # One after the other: there is room for each on the way.
        for frame in sent:
            sender.send(frame)
            while captured.recv(2000) != frame:
                pass
        (counts,) = hops.counts()
        assert counts["flows_opened"] == 0
