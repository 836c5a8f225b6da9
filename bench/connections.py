# SPDX-License-Identifier: Apache-2.0
"""The connection timer's records as columns of connections.parquet."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.cells import MAX_REQUESTS

# The ring's header and struct connection of bpf/connections.c.
_RECORD = np.dtype(
    [
        ("header", "<u8"),
        ("syn_ns", "<u8"),
        ("connect_ns", "<u8"),
        ("total_ns", "<u8"),
        ("port", "<u2"),
        ("end", "u1"),
        ("zero", "V5"),
    ]
)
ENDS = ("server", "client", "failed")
_FAILED = ENDS.index("failed")
MOST_RECORDS = 20_000
"""What one answer of the client's agent holds at most (bench/hop/timer.py)."""
_MOST_BYTES = MOST_RECORDS * _RECORD.itemsize
# A sample of the most requests there may be, and as many that failed and were tried again.
_MOST_ANSWERS = 4 * MAX_REQUESTS // MOST_RECORDS


def gather(ask: Callable[[], Mapping[str, Any]]) -> bytes:
    """Return a sample's records. ask: returns the next answer. Raises ValueError."""
    parts = []
    for _ in range(_MOST_ANSWERS):
        answer = ask()
        parts.append(unpack(answer["data"]))
        if not answer["more"]:
            return b"".join(parts)
    raise ValueError(f"more than {_MOST_ANSWERS} answers of them")


def unpack(data: str) -> bytes:
    """Return the records of one answer of the client's agent. Raises ValueError."""
    inflated = zlib.decompressobj()
    try:
        # A line of a megabyte may hold a gigabyte.
        records = inflated.decompress(base64.b64decode(data, validate=True), _MOST_BYTES)
        records += inflated.decompress(inflated.unconsumed_tail, 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(records) > _MOST_BYTES:
        raise ValueError(f"more than {MOST_RECORDS} records in one answer")
    if not inflated.eof or len(records) % _RECORD.itemsize:
        raise ValueError("a record is cut off")
    return records


def columns(records: bytes, payload_bytes: int | None) -> dict[str, Any]:
    """Return arrays by the names of `tables.CONNECTIONS`, in the order the connections began.

    payload_bytes: what each connection of the sample brought, None where that is not known.
    """
    found = np.frombuffer(records, _RECORD)
    found = found[np.argsort(found["syn_ns"], kind="stable")]
    failed = found["end"] >= _FAILED
    total_us = found["total_ns"] / 1e3
    first_ns = found["syn_ns"][0] if len(found) else np.uint64(0)
    if payload_bytes is None:
        size: list[int | None] = [None] * len(found)
    else:
        size = [None if each else payload_bytes for each in failed.tolist()]
    return {
        "start_s": (found["syn_ns"] - first_ns) / 1e9,
        "connect_us": np.where(failed, np.nan, found["connect_ns"] / 1e3),
        "response_us": np.where(failed, np.nan, total_us),
        "end": np.array(ENDS, dtype=object)[np.minimum(found["end"], _FAILED)],
        "failed_us": np.where(failed, total_us, np.nan),
        "port": found["port"],
        "bytes": size,
    }


def failed(records: bytes) -> int:
    """Return how many connections were never seen established."""
    return int((np.frombuffer(records, _RECORD)["end"] >= _FAILED).sum())


def rate_per_s(records: bytes) -> float | None:
    """Return established connections a second, from the first SYN to the last response, or None."""
    found = np.frombuffer(records, _RECORD)
    found = found[found["end"] < _FAILED]
    if not len(found):
        return None
    # As floats, which do not begin again at zero: these may be any 64 bits.
    begun_ns = (found["syn_ns"] - found["syn_ns"].min()).astype(np.float64)
    span_ns = float((begun_ns + found["total_ns"]).max())
    return len(found) / span_ns * 1e9 if span_ns else None
