# SPDX-License-Identifier: Apache-2.0
"""The report of a run of five million connections: how long it takes, and how much memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic import write_run

from bench import tables
from bench.sweep import cross

CONNECTIONS = 5_000_000
BLOCKS = 10
_MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
MOST_S, MOST_BYTES, MOST_HTML_BYTES = 30, 1.5e9, 5_000_000


def connections(samples: list[str]) -> pa.Table:
    """Return as many connections of each sample, their times spread around 100 µs."""
    each = CONNECTIONS // len(samples)
    random = np.random.default_rng(1)
    response_us = 100 * np.exp(0.3 * random.standard_normal(CONNECTIONS))
    columns = {
        "sample": pa.DictionaryArray.from_arrays(
            np.repeat(np.arange(len(samples), dtype=np.int32), each), samples
        ),
        "start_s": np.tile(np.arange(each) * 1e-4, len(samples)),
        "connect_us": response_us / 2,
        "response_us": response_us,
        "end": pa.DictionaryArray.from_arrays(np.zeros(CONNECTIONS, np.int32), ["server"]),
        "failed_us": np.full(CONNECTIONS, np.nan),
        "port": (32768 + np.arange(CONNECTIONS) % 28000).astype(np.uint16),
        "bytes": np.full(CONNECTIONS, 624),
    }
    arrays = [pa.array(column) for column in columns.values()]
    return pa.table(arrays, names=list(columns)).cast(tables.CONNECTIONS)


def test_five_million_connections(tmp_path: Path) -> None:
    """CPU time is what is bounded: other work of the machine is no matter of the report."""
    cells = cross(("direct", "socat", "nft", "xdp"), ("native",), (1, 3, 5), (624,), (1, 25), 100)
    path = write_run(tmp_path, cells, lambda _cell, _block: 1.0, blocks=BLOCKS)
    samples = [
        f"{block:03d}-{number:04d}"
        for block in range(1, BLOCKS + 1)
        for number in range(1, len(cells) + 1)
    ]
    assert CONNECTIONS % len(samples) == 0
    pq.write_table(connections(samples), path / tables.CONNECTIONS_FILE)
    # A process of its own asks, whose only child is the report.
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, sys.executable, "-m", "bench", "report", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    taken_s, kibibytes = map(float, done.stdout.split("\n")[-2].split())
    assert taken_s <= MOST_S
    assert kibibytes * 1024 <= MOST_BYTES
    page = (path / "report.html").read_text(encoding="utf-8")
    assert f"n = {CONNECTIONS // len(cells):,} a curve from {BLOCKS} samples" in page
    assert len(page.encode()) <= MOST_HTML_BYTES
