# SPDX-License-Identifier: Apache-2.0
"""What agents send of a sample: the connection timer's records, siege's words, counters."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

from bench.cells import Cell
from bench.counters import HostDelta
from bench.rawsample import RawSample

SERVER, CLIENT, FAILED = range(3)
# struct bpf_ringbuf_hdr of the kernel, then struct connection of bpf/connections.c
_RECORD = struct.Struct("<II QQQ HB5x")


def record(
    syn_ns: int, connect_ns: int, total_ns: int, port: int = 40000, end: int = SERVER
) -> bytes:
    """Return a connection as the timer's ring has it."""
    return _RECORD.pack(32, 0, syn_ns, connect_ns, total_ns, port, end)


def records(count: int, *, apart_ns: int = 1_000_000, total_ns: int = 900_000) -> bytes:
    """Return so many connections, begun one after the other."""
    return b"".join(
        record(10**12 + number * apart_ns, total_ns // 3, total_ns) for number in range(count)
    )


def packed(data: bytes) -> str:
    """Return records as a line of the agent has them."""
    return base64.b64encode(zlib.compress(data, 1)).decode()


def siege_says(cell: Cell, elapsed_s: float) -> str:
    """Return what siege prints of a whole sample."""
    done = cell.transactions
    return json.dumps(
        {
            "transactions": done,
            "availability": 100.0,
            "elapsed_time": elapsed_s,
            "data_transferred": round(done * cell.size_bytes / 2**20, 2),
            "response_time": 0.0,
            "transaction_rate": 0.0,
            "throughput": 0.0,
            "concurrency": 1.0,
            "successful_transactions": done,
            "failed_transactions": 0,
            "longest_transaction": 0.01,
            "shortest_transaction": 0.0,
        }
    )


def raw_sample(
    cell: Cell, *, elapsed_s: float = 0.5, timer: bool = True, **changes: Any
) -> RawSample:
    """Return what the hosts say of a whole sample whose connections took 0.9 ms each."""
    hosts = (
        HostDelta("client", "client", {"TcpOutSegs": 4.0 * cell.transactions}),
        *(
            HostDelta(f"hop{number}", "hop", {}, {"flows_opened": cell.transactions})
            for number in range(1, cell.hops + 1)
        ),
        HostDelta("server", "server", {"TcpExtListenOverflows": 0.0}),
    )
    timed = {
        "timed": cell.transactions,
        "lost": 0,
        "records": records(cell.transactions),
    }
    values: dict[str, Any] = {
        "stdout": siege_says(cell, elapsed_s),
        "stderr": "",
        "status": 0,
        "timed_out": False,
        "started_at": 1795403700.0,
        "wall_s": elapsed_s,
        "hosts": hosts,
        **(timed if timer else {}),
    }
    return RawSample(**{**values, **changes})
