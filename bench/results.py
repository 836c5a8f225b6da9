# SPDX-License-Identifier: Apache-2.0
"""The run directory as it is written: words, columns and records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.cells import Cell
from bench.chain import Chain, Host
from bench.siege import SiegeReport
from bench.sweep import Sweep

SCHEMA_VERSION = 2
RUN_FILE = "run.json"
SAMPLES_FILE = "samples.csv"
SIEGE_FOLDER = Path("raw", "siege")
AGENTS_FOLDER = Path("raw", "agents")

Status = Literal["running", "complete", "interrupted", "failed"]
STATUSES: tuple[Status, ...] = ("running", "complete", "interrupted", "failed")

COLUMNS: Mapping[str, str] = {
    "sample": "text",
    "block": "whole",
    "position": "whole",
    "mode": "text",
    "attach": "text",
    "offloads": "text",
    "twin": "flag",
    "warmup": "flag",
    "hops": "whole",
    "size_bytes": "whole",
    "concurrency": "whole",
    "requests": "whole",
    "started_at": "text",
    "wall_s": "figure",
    "elapsed_s": "figure",
    "transactions": "count",
    "availability_percent": "figure",
    "response_s": "figure",
    "transaction_rate_per_s": "figure",
    "throughput_mb_per_s": "figure",
    "data_mb": "figure",
    "concurrency_mean": "figure",
    "successful": "count",
    "failed": "count",
    "longest_s": "figure",
    "shortest_s": "figure",
    "timed": "count",
    "lost": "count",
    "valid": "flag",
    "invalid_reason": "text",
}
"""Columns of samples.csv in order: text, whole numbers, counts and figures (empty where there is
none, as siege's are when it left no report), and flags, `true` or `false`."""


@dataclass(frozen=True)
class RunMeta:
    """What is known of a run before its first sample.

    versions: tool → version. git_commit: of hopbench's own checkout, None outside one. chain:
    `describe_chain`. aa: whether cells are measured twice for an A/A comparison. until_ci: what
    decides how many blocks there are, None for a fixed number.
    """

    sweep: Sweep
    versions: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    chain: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    aa: bool = False
    until_ci: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Timing:
    """Where a run's time went.

    ready_s: from the start of the command to the first measurement. siege_s: inside siege.
    wall_s: the whole command.
    """

    ready_s: float | None = None
    siege_s: float | None = None
    wall_s: float | None = None


@dataclass(frozen=True)
class Sample:
    """One siege invocation.

    block and position count from 1; block 0 is the warm-up. report: None when siege left none
    that can be read. invalid_reason: empty for a valid sample. wall_s: how long siege ran. timed,
    lost: connections that the connection timer saw and that it had no room for, None without it.
    """

    cell: Cell
    block: int
    position: int
    started_at: datetime
    report: SiegeReport | None
    invalid_reason: str = ""
    wall_s: float | None = None
    timed: int | None = None
    lost: int | None = None

    @property
    def warmup(self) -> bool:
        """Whether the sample only warmed the way up, and is in no statistics."""
        return self.block == 0

    @property
    def id(self) -> str:
        """The sample's name in samples.csv and below raw/."""
        return f"{self.block:03d}-{self.position:04d}"

    @property
    def valid(self) -> bool:
        """Whether statistics may use the sample."""
        return self.report is not None and not self.invalid_reason

    def row(self) -> list[str]:
        """Return the sample's line of samples.csv."""
        reason = "" if self.valid else self.invalid_reason or "siege left no report"
        values: dict[str, Any] = {
            **asdict(self.cell),
            **(asdict(self.report) if self.report else {}),
            "sample": self.id,
            "block": self.block,
            "position": self.position,
            "requests": self.cell.transactions,
            "started_at": iso_utc(self.started_at),
            "wall_s": self.wall_s,
            "timed": self.timed,
            "lost": self.lost,
            "twin": _flag(self.cell.twin),
            "warmup": _flag(self.warmup),
            "valid": _flag(self.valid),
            "invalid_reason": " ".join(reason.split()),
        }
        return ["" if (value := values.get(name)) is None else str(value) for name in COLUMNS]


def iso_utc(moment: datetime) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond: `2026-11-23T03:15:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Settings that most hosts leave alone, with their defaults.
_OPTIONAL = {
    each.name: each.default
    for each in fields(Host)
    if each.name in ("egress_nic", "nat_ports", "nat_flows", "nat_policy")
}


def describe_chain(chain: Chain) -> dict[str, Any]:
    """Return the chain as run.json has it, without how its hosts are logged in to."""

    def host(host: Host) -> dict[str, Any]:
        keys = ("name", "data_ip", "data_nic", "port", "xdp_attach")
        return {key: getattr(host, key) for key in keys} | {
            key: getattr(host, key)
            for key, default in _OPTIONAL.items()
            if getattr(host, key) != default
        }

    return {
        "inventory": chain.inventory.name,
        "client": host(chain.client),
        "hops": [host(hop) for hop in chain.hops],
        "server": host(chain.server),
    }


def _flag(value: bool) -> str:
    return "true" if value else "false"
