# SPDX-License-Identifier: Apache-2.0
"""Causes of what samples counted, made of numbers a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
from synthetic import START, report

from bench.causes.model import Cause
from bench.causes.observed import CONNECTION_COLUMNS, observe
from bench.cells import Cell
from bench.diagnose import causes
from bench.results import COLUMNS, Sample
from bench.tables import CONNECTIONS

NFT = Cell("nft", "", 1, 624, 25, 1000)
XDP = Cell("xdp", "native", 1, 624, 25, 1000)
BULK = {mode: Cell(mode, attach, 1, 159744, 5, 100) for mode, attach in (("nft", ""), ("xdp", ""))}
CHAIN = {
    "client": {"name": "alice"},
    "hops": [{"name": "hop1"}, {"name": "hop2"}],
    "server": {"name": "bob"},
}
ROLES = {"alice": "client", "hop1": "hop", "hop2": "hop", "bob": "server"}
# One sample's worth of a machine that had time to spare.
IDLE = {"cpu_user_s": 0.1, "cpu_idle_s": 1.9, "monotonic_s": 1.0, "cpu0_busy_s": 0.1}

Counters = Mapping[str, Mapping[str, float]]
"""By host, by name."""


def sample(
    cell: Cell = NFT, number: int = 1, *, block: int = 1, failed: int = 0, lost: int = 0
) -> Sample:
    """Return a sample; one with failures is invalid."""
    reason = f"{failed} failed transactions" if failed else ""
    said = report(cell, 1.0, failed)
    return Sample(cell, block, number, START, said, reason, 1.0, cell.transactions, lost)


def found(
    counters: Counters | None = None,
    *,
    samples: Sequence[Sample] = (sample(),),
    connect_us: Sequence[float] = (),
    facts: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    **odd: Any,
) -> dict[str, Cause]:
    """Return the causes by name that a run shows, all of whose samples counted the same.

    connect_us: of the first sample's connections. odd: more columns of connections.
    """
    rows = [
        {"sample": each.id, "host": host, "role": ROLES.get(host, "hop"), **values}
        for each in samples
        for host, values in (counters or {}).items()
    ]
    number = len(odd.get("failed_us", connect_us))
    columns: dict[str, Any] = {
        "sample": [samples[0].id] * number,
        "connect_us": list(connect_us) or [None] * number,
        "failed_us": [None] * number,
        "port": [40000] * number,
        **odd,
    }
    meta = {"chain": CHAIN, "host_facts": facts or {}, "host_facts_after": after or {}}
    return {each.name: each for each in causes_of(samples, rows, meta, columns)}


def causes_of(
    samples: Sequence[Sample],
    rows: Sequence[Mapping[str, Any]],
    meta: Mapping[str, Any],
    columns: Mapping[str, Any] | None = None,
) -> list[Cause]:
    """Return the causes that samples, rows of counters and columns of connections show."""
    schema = pa.schema([CONNECTIONS.field(name) for name in CONNECTION_COLUMNS])
    counters = pd.DataFrame(rows, columns=None if rows else ["sample", "host", "role"])
    lines = pd.DataFrame([_typed(each) for each in samples], columns=list(COLUMNS))
    table = pa.table(dict(columns), schema=schema) if columns else schema.empty_table()
    return causes(observe(lines, counters, table, meta))


def _typed(each: Sample) -> dict[str, Any]:
    row = dict(zip(COLUMNS, each.row(), strict=True))
    for name, kind in COLUMNS.items():
        if kind == "flag":
            row[name] = row[name] == "true"
        elif kind in ("whole", "count"):
            row[name] = int(row[name]) if row[name] else pd.NA
    return row
