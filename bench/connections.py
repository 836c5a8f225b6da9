# SPDX-License-Identifier: Apache-2.0
"""The connection timer's records as columns of connections.parquet."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

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


def unpack(data: str) -> bytes:
    """Return the records of one answer of the client's agent. Raises ValueError."""
    try:
        records = zlib.decompress(base64.b64decode(data, validate=True))
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(records) % _RECORD.itemsize:
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
    span_ns = float((found["syn_ns"] + found["total_ns"]).max() - found["syn_ns"].min())
    return len(found) / span_ns * 1e9 if span_ns else None
