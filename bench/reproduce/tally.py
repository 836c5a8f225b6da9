# SPDX-License-Identifier: Apache-2.0
"""What became of the loopback's connections in each mode, and what the kernel counted meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import tables
from bench.causes.connecting import steps
from bench.runs import RunReader

Floats = npt.NDArray[np.float64]

PROMPT_US = 10e3
LATE_US = 0.98e6
"""The kernel repeats a SYN after a second: what came before that had no second one."""

SYN_AGAIN = "TcpExtTCPSynRetrans"
PAWS = (
    "TcpExtPAWSTimewait",
    "TcpExtPAWSActive",
    "TcpExtPAWSEstab",
    "TcpExtPAWSOldAck",
)
"""Segments refused for their old timestamp: of a connection in TIME_WAIT, on newer kernels apart;
one that opens; one that is open."""
SUM_ERRORS = "TcpInCsumErrors"
BESIDE = (
    "TcpExtTCPACKSkippedTimeWait",
    "TcpExtTCPACKSkippedPAWS",
    "TcpExtTCPChallengeACK",
    "TcpExtTW",
    "TcpExtTWRecycled",
    "TcpEstabResets",
    "TcpOutRsts",
    "TcpAttemptFails",
    "TcpRetransSegs",
    "TcpExtTCPTimeouts",
)
GAUGES = ("tcp_time_wait", "tcp_inuse", "tcp_orphan", "TcpCurrEstab")


@dataclass(frozen=True)
class Tally:
    """One mode's connections and counters, over all its samples but warm-ups.

    connect_us: of the established. failed_us: how long attempts lasted that never were, NaN where
    that is not known. failed: requests without an answer, by siege. rises: what each counter went
    up by in the samples that have it; counted: connections of these samples. by_sample: rises
    sample by sample. lasted_s: how long siege ran. busy_s, interrupt_s: CPU time of the machine
    meanwhile that was not idle, and of that in interrupts; cpu_s: all there was.
    """

    mode: str
    samples: int = 0
    failed: int = 0
    lasted_s: float = 0.0
    connect_us: Floats = field(default_factory=lambda: np.empty(0))
    failed_us: Floats = field(default_factory=lambda: np.empty(0))
    rises: Mapping[str, float] = field(default_factory=dict)
    by_sample: Sequence[Mapping[str, float]] = ()
    counted: int = 0
    busy_s: float = 0.0
    interrupt_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def connections(self) -> int:
        """Attempts to connect that were timed."""
        return len(self.connect_us) + len(self.failed_us)

    def rise(self, *names: str) -> float | None:
        """Return what these counters went up by together, None where none of them is known."""
        known = [self.rises[name] for name in names if name in self.rises]
        return sum(known) if known else None

    def per_100(self, *names: str) -> float | None:
        """Return the rise of these counters together for 100 connections."""
        rise = self.rise(*names)
        return None if rise is None or not self.counted else 100 * rise / self.counted

    @property
    def first_waits_us(self) -> Floats:
        """Connect times of those that were open after one wait for the SYN timer."""
        times = self.connect_us[self.connect_us >= LATE_US]
        return times[[steps(times[at : at + 1])[1] > 0 for at in range(len(times))]]

    @property
    def shares(self) -> Shares:
        """How many connections were open when."""
        late = self.connect_us[self.connect_us >= LATE_US]
        at = steps(late)
        return Shares(
            prompt=int((self.connect_us < PROMPT_US).sum()),
            between=int(((self.connect_us >= PROMPT_US) & (self.connect_us < LATE_US)).sum()),
            at=at,
            elsewhere=max(0, len(late) - at.total()),
            never=len(self.failed_us),
        )


@dataclass(frozen=True)
class Shares:
    """How many connections were open when.

    prompt: within 10 ms. between: before a second. at: at a step of the SYN timer, by its s.
    elsewhere: later, but at no step. never: not at all.
    """

    prompt: int
    between: int
    at: Counter[int]
    elsewhere: int
    never: int

    @property
    def total(self) -> int:
        """All connections."""
        return self.prompt + self.between + self.waited + self.elsewhere + self.never

    @property
    def waited(self) -> int:
        """Connections that were open at a step of the SYN timer."""
        return self.at.total()


def tallies(run: RunReader | None) -> dict[str, Tally]:
    """Return each mode's tally, in the order of the run; empty without one. Raises BenchError."""
    if run is None:
        return {}
    samples = run.samples[~run.samples["warmup"] & ~run.samples["twin"]]
    times = _connections(run)
    counters = tables.read_counters(run.path)
    numbers = [name for name in counters.columns if name not in ("sample", "host", "role")]
    rows = {
        str(sample): {name: float(each[name].sum(min_count=1)) for name in numbers}
        for sample, each in counters.groupby("sample")
    }
    found = {}
    for mode, group in samples.groupby("mode", sort=False):
        records: list[dict[Any, Any]] = group.to_dict("records")
        found[str(mode)] = _tally(str(mode), records, times, rows)
    return found


def _tally(
    mode: str,
    samples: Sequence[Mapping[Any, Any]],
    times: Mapping[str, tuple[Floats, Floats]],
    rows: Mapping[str, Mapping[str, float]],
) -> Tally:
    names = [str(row["sample"]) for row in samples]
    nothing = np.empty(0), np.empty(0)
    open_us, never_us = zip(*(times.get(name, nothing) for name in names), strict=True)
    by_sample = [
        {key: value for key, value in rows[name].items() if np.isfinite(value)}
        for name in names
        if name in rows
    ]
    counted = sum(
        sum(map(len, times[name])) if name in times else _requests(row)
        for name, row in zip(names, samples, strict=True)
        if name in rows
    )
    rises: dict[str, float] = {}
    for row in by_sample:
        for key, value in row.items():
            rises[key] = rises.get(key, 0.0) + value
    lasted_s = [row["wall_s"] if row["wall_s"] > 0 else row["elapsed_s"] for row in samples]
    kinds = ("user", "nice", "system", "irq", "softirq", "steal")
    busy_s = sum(max(0.0, rises.get(f"cpu_{kind}_s", 0.0)) for kind in kinds)
    idle_s = sum(max(0.0, rises.get(f"cpu_{kind}_s", 0.0)) for kind in ("idle", "iowait"))
    return Tally(
        mode=mode,
        samples=len(samples),
        failed=sum(_whole(row["failed"]) for row in samples),
        lasted_s=float(sum(value for value in lasted_s if value > 0)),
        connect_us=np.concatenate(open_us),
        failed_us=np.concatenate(never_us),
        rises={key: value for key, value in rises.items() if key not in GAUGES},
        by_sample=by_sample,
        counted=counted,
        busy_s=busy_s,
        interrupt_s=sum(max(0.0, rises.get(f"cpu_{kind}_s", 0.0)) for kind in ("irq", "softirq")),
        cpu_s=busy_s + idle_s,
    )


def _connections(run: RunReader) -> dict[str, tuple[Floats, Floats]]:
    """Return each sample's connect times, and how long its failed attempts lasted."""
    if not tables.has_connections(run.path):
        return {}
    table = tables.read_connections(run.path, ("sample", "connect_us", "failed_us"))
    frame = table.to_pandas()
    found = {}
    for sample, each in frame.groupby("sample", observed=True, sort=False):
        connect_us = each["connect_us"].to_numpy(dtype=np.float64)
        never = np.isnan(connect_us)
        failed_us = each["failed_us"].to_numpy(dtype=np.float64)[never]
        found[str(sample)] = connect_us[~never], failed_us
    return found


def _requests(row: Mapping[Any, Any]) -> int:
    return _whole(row["transactions"]) + _whole(row["failed"])


def _whole(value: Any) -> int:
    """Return a count of samples.csv, 0 where siege left none."""
    try:
        return int(value)
    except (TypeError, ValueError):  # pandas' NA, NaN
        return 0
