# SPDX-License-Identifier: Apache-2.0
"""What applications do, through hops that forward by XDP: TCP with all it has, and UDP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.lab.model import Lab
from bench.runs import RunReader
from tests.lab.conftest import bench, inside, wait_until
from tests.lab.endpoints import (
    HOP_PORT,
    Hops,
    connected,
    counted,
    dropped,
    exchange,
    grown,
    host_of,
    listen,
    receive,
    send_beside,
    tcp,
)
from tests.valid import by_the_machine, require_valid

PORT = 8123
MB = 1 << 20


@pytest.fixture(scope="module")
def prepared(lab: Lab) -> Iterator[Hops]:
    """Forwarders on three hops, not attached while no test wants them."""
    with Hops(lab, 3) as made:
        yield made


@pytest.fixture
def hops(prepared: Hops) -> Iterator[Hops]:
    """Three hops that forward to the server's port."""
    with prepared.forwarding(PORT):
        yield prepared


@pytest.fixture
def listener(lab: Lab) -> Iterator[socket.socket]:
    """The server's end, before it has accepted anything."""
    with listen(lab, PORT) as made:
        yield made


def content(size: int, seed: int = 1) -> bytes:
    """Return bytes in which nothing repeats."""
    return random.Random(seed).randbytes(size)


# --- many connections ------------------------------------------------------------------------


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _all_at_once(listener: socket.socket, sockets: list[socket.socket], entry: str) -> int:
    """Open every connection, then have each exchange data twice; return how many did."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)

    async def open_one(each: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        each.setblocking(False)
        await loop.sock_connect(each, (entry, HOP_PORT))
        return await asyncio.open_connection(sock=each)

    async def talk(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> bytes:
        stream[1].write(data)
        return await stream[0].readexactly(len(data))

    server = await asyncio.start_server(_echo, sock=listener, backlog=2000)
    async with server:
        streams = await asyncio.gather(*map(open_one, sockets))
        intact = 0
        for turn in range(2):
            said = [content(5000, seed=2 * index + turn) for index in range(len(streams))]
            heard = await asyncio.gather(*map(talk, streams, said))
            intact += sum(a == b for a, b in zip(said, heard, strict=True))
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams))
    return intact // 2


def test_a_thousand_connections_open_at_once(lab: Lab, hops: Hops, listener: socket.socket) -> None:
    before = counted(lab, "client")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(tcp(lab)) for _ in range(1000)]
        scenario = _all_at_once(listener, sockets, hops.agents[0].address)
        assert asyncio.run(asyncio.wait_for(scenario, 60)) == 1000
    change = grown(before, counted(lab, "client"))
    assert change["TcpActiveOpens"] == 1000
    assert "TcpExtTCPSynRetrans" not in change
    assert "TcpInCsumErrors" not in change
    for counts in hops.counts():
        assert counts["flows_opened"] == 1000
        assert counts["forwarded_packets"] > 5000 and counts["returned_packets"] > 5000
        assert dropped(counts) == {}


def test_a_hundred_thousand_connections_in_a_row(lab: Lab, tmp_path: Path) -> None:
    """Every source port is used several times while the server keeps its TIME_WAIT."""
    hosts = ("client", "server")
    before, began = [counted(lab, host) for host in hosts], time.monotonic()
    done = bench(
        *("run", "-i", lab.name, "--mode", "xdp", "--hops", "3", "--size", "312"),
        *("--concurrency", "1", "--requests", "100000", "--blocks", "1", "--no-aa"),
        *("--output", tmp_path),
    )
    took_s = time.monotonic() - began
    assert done.status == 0, done.stderr
    samples = RunReader.open("latest", tmp_path).samples
    (sample,) = samples[~samples["warmup"]].to_dict("records")
    assert sample["valid"] or by_the_machine(sample["invalid_reason"]), sample["invalid_reason"]
    assert (sample["transactions"], sample["failed"]) == (100_000, 0)
    assert (sample["timed"] >= 99_900, sample["lost"]) == (True, 0), sample
    client, server = (
        grown(then, counted(lab, host)) for then, host in zip(before, hosts, strict=True)
    )
    print(f"100,000 connections: {sample['elapsed_s']} s in siege, {took_s:.1f} s in all")
    assert client["TcpActiveOpens"] >= 100_000
    assert "TcpExtTCPSynRetrans" not in client
    assert "TcpInCsumErrors" not in client and "TcpInCsumErrors" not in server


# --- UDP -------------------------------------------------------------------------------------


def iperf3(lab: Lab, entry: str, *arguments: str) -> dict[str, Any]:
    """Run iperf3 once through the hops; its control connection takes the same way by TCP."""
    enter = ["ip", "netns", "exec", lab.namespace("server")]
    with subprocess.Popen(
        [*enter, "iperf3", "-s", "-1", "-p", str(PORT)], stdout=subprocess.DEVNULL
    ) as server:
        try:
            assert wait_until(lambda: f":{PORT}" in inside(lab, "server", "ss", "-Hltn"))
            port = str(HOP_PORT)
            said = inside(lab, "client", "iperf3", "-c", entry, "-p", port, "--json", *arguments)
            server.wait(timeout=10)
        finally:
            server.kill()
    return dict(json.loads(said))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_udp_by_iperf3(lab: Lab, hops: Hops, direction: str) -> None:
    receiver, moved = {
        "up": ("server", "forwarded_packets"),
        "down": ("client", "returned_packets"),
    }[direction]
    before = counted(lab, receiver)
    back = ["-R"] if direction == "down" else []
    report = iperf3(lab, hops.agents[0].address, "-u", "-b", "50M", "-t", "2", *back)
    change = grown(before, counted(lab, receiver))
    total = report["end"]["sum"]
    assert total["packets"] > 5000
    # What the receiver's socket had no room for, while a busy machine let iperf3 wait, did arrive.
    no_room = change.get("UdpRcvbufErrors", 0)
    assert total["lost_packets"] - no_room <= total["packets"] * 0.005, (total, no_room)
    assert change["UdpInDatagrams"] + no_room >= total["packets"] * 0.995
    assert change.get("UdpInErrors", 0) == no_room and "UdpInCsumErrors" not in change, change
    for counts in hops.counts():
        assert counts["flows_opened"] == 2  # one of TCP, one of UDP
        assert counts[moved] >= total["packets"] * 0.995
        assert dropped(counts) == {}


# --- what TCP negotiates, and how it recovers ------------------------------------------------


def options_of(end: socket.socket) -> tuple[int, int, int]:
    """Return tcpi_options, tcpi_snd_wscale and tcpi_rcv_wscale of a connection."""
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    # struct tcp_info: options is its sixth octet; the scales are half of the seventh each.
    return info[5], info[6] & 15, info[6] >> 4


@pytest.mark.usefixtures("hops")
def test_options_are_negotiated_from_end_to_end(lab: Lab, listener: socket.socket) -> None:
    client, server = connected(lab, listener)
    with client, server:
        exchange(client, server)
        timestamps, sack, window_scale = 1, 2, 4
        ours, theirs = options_of(client), options_of(server)
        assert ours[0] & 7 == theirs[0] & 7 == timestamps | sack | window_scale
        assert ours[1:] == theirs[:0:-1]
        assert min(ours[1:]) > 0


@contextlib.contextmanager
def losing(lab: Lab, every: int) -> Iterator[Callable[[], int]]:
    """Drop one in so many packets of data that arrive at the server; yield what tells how many.

    The server's NIC has merged segments by then: a packet is up to 64 KB.
    """
    rule = f"numgen inc mod {every} < 1 counter drop"

    def dropped() -> int:
        told = inside(lab, "server", "nft", "list table ip lossy")
        return int(re.findall(r"counter packets (\d+)", told)[0])

    inside(
        *(lab, "server", "nft"),
        "add table ip lossy; "
        "add chain ip lossy in { type filter hook prerouting priority -300; }; "
        f"add rule ip lossy in tcp dport {PORT} meta length > 500 {rule}",
    )
    try:
        yield dropped
    finally:
        inside(lab, "server", "nft", "delete table ip lossy")


@pytest.mark.usefixtures("hops")
def test_selective_acknowledgements_mend_losses(lab: Lab, listener: socket.socket) -> None:
    data, hosts = content(20 * MB), ("client", "server")
    before = [counted(lab, host) for host in hosts]
    client, server = connected(lab, listener)
    with client, server, losing(lab, 50) as dropped:
        sending = send_beside(client, data)
        got = receive(server, len(data))
        sending.join(10)
        assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
        lost = dropped()
    change = [grown(then, counted(lab, host)) for then, host in zip(before, hosts, strict=True)]
    assert lost >= 5
    assert change[0]["TcpExtTCPSackRecovery"] > 0
    assert change[0]["TcpRetransSegs"] >= lost
    assert all("TcpInCsumErrors" not in each for each in change)


# --- how connections end ---------------------------------------------------------------------


@pytest.mark.parametrize("first", ["client", "server"])
def test_one_side_ends_and_the_other_goes_on(
    lab: Lab, hops: Hops, listener: socket.socket, first: str
) -> None:
    data, ends = content(5 * MB), connected(lab, listener)
    with ends[0], ends[1]:
        early, late = ends if first == "client" else ends[::-1]
        early.sendall(b"that was it")
        early.shutdown(socket.SHUT_WR)
        assert receive(late, 100) == b"that was it"
        sending = send_beside(late, data)
        assert receive(early, len(data)) == data
        sending.join(10)
        assert [counts["flows_closed"] for counts in hops.counts()] == [0, 0, 0]
        late.shutdown(socket.SHUT_WR)
        assert early.recv(1) == b""
    assert [counts["flows_closed"] for counts in hops.counts()] == [1, 1, 1]


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_reset_reaches_the_other_side(
    lab: Lab, hops: Hops, listener: socket.socket, first: str
) -> None:
    ends = connected(lab, listener)
    with ends[0], ends[1]:
        early, late = ends if first == "client" else ends[::-1]
        exchange(early, late)
        early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        early.close()
        with pytest.raises(ConnectionResetError):
            late.recv(1)
    assert [counts["flows_closed"] for counts in hops.counts()] == [1, 1, 1]


# --- where XDP runs --------------------------------------------------------------------------


def attached(lab: Lab, host: str = "hop1") -> int:
    """Return the kernel's word for how XDP runs on a host, 0 when it does not."""
    (link,) = json.loads(inside(lab, host, "ip", "-json", "link", "show", "eth0"))
    return int(link.get("xdp", {}).get("mode", 0))


def test_offload_is_refused_with_a_reason(lab: Lab, prepared: Hops, tmp_path: Path) -> None:
    done = bench(
        *("run", "-i", lab.name, "--mode", "xdp", "--attach", "offload", "--hops", "1"),
        *("--size", "624", "--requests", "10", "--blocks", "1", "--output", tmp_path),
    )
    assert done.status == 1
    assert "hop1" in done.error and "refuses XDP in offload mode" in done.error, done.error
    target = {"next_ip": host_of(lab, "server").data_ip, "next_port": PORT}
    answer = prepared.agents[0].ask(mode="xdp", attach="offload", lease_s=600, **target)
    assert "refuses XDP in offload mode" in answer["cause"]
    assert "native" in answer["remedy"]
    assert attached(lab) == 0


def test_generic_runs_and_is_generic(
    lab: Lab, prepared: Hops, listener: socket.socket, tmp_path: Path
) -> None:
    done = bench(
        *("run", "-i", lab.name, "--mode", "xdp", "--attach", "generic", "--hops", "2"),
        *("--size", "624,159744", "--requests", "200", "--blocks", "1", "--output", tmp_path),
    )
    assert done.status == 0, done.stderr
    run = RunReader.open("latest", tmp_path)
    require_valid(run.samples)
    assert set(run.samples["attach"]) == {"generic"}
    for hop in ("hop1", "hop2"):
        said = run.meta["host_facts"][hop]["forwarders"]["xdp generic"]
        assert said["attach"] == "generic"
    with prepared.forwarding(PORT, "generic"):
        assert attached(lab) == 2  # XDP_ATTACHED_SKB of linux/if_link.h
        client, server = connected(lab, listener)
        with client, server:
            exchange(client, server, content(50_000))
        assert [counts["flows_opened"] for counts in prepared.counts()] == [1, 1, 1]
    assert attached(lab) == 0
