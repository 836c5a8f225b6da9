# SPDX-License-Identifier: Apache-2.0
"""The run directory as it is written: run.json, samples.csv and siege's own words below raw/."""

from __future__ import annotations

import csv
import io
import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.cells import Cell
from bench.chain import Chain, Host
from bench.errors import BenchError
from bench.files import make_dirs, unwritable, write_atomic
from bench.siege import SiegeReport
from bench.sweep import Sweep, order

SCHEMA_VERSION = 1
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
    "hops": "whole",
    "size_bytes": "whole",
    "concurrency": "whole",
    "requests": "whole",
    "started_at": "text",
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
    "valid": "flag",
    "invalid_reason": "text",
}
"""Columns of samples.csv in order: text, whole numbers, siege's counts and figures (empty where
siege left no report), and a flag, `true` or `false`."""


@dataclass(frozen=True)
class RunMeta:
    """What is known of a run before its first sample.

    versions: tool → version. git_commit: of hopbench's own checkout, None outside one. chain:
    `describe_chain`. host_facts: host → facts, or whatever the collector of facts returns.
    """

    sweep: Sweep
    versions: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    chain: Mapping[str, Any] = field(default_factory=dict)
    host_facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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

    block and position count from 1. report: None when siege left none that can be read.
    invalid_reason: empty for a valid sample.
    """

    cell: Cell
    block: int
    position: int
    started_at: datetime
    report: SiegeReport | None
    invalid_reason: str = ""

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
            "valid": "true" if self.valid else "false",
            "invalid_reason": " ".join(reason.split()),
        }
        return [str(values.get(column, "")) for column in COLUMNS]


class RunWriter:
    """One run directory while it is being made.

    Every file is replaced whole, so that whatever happens, what is on the disk can be read. Each
    method raises BenchError when the file system objects; what was written before stays.
    """

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self._document = document
        self._samples: dict[str, list[str]] = {}

    @classmethod
    def create(cls, output_dir: Path, meta: RunMeta, *, now: datetime | None = None) -> RunWriter:
        """Make a new run directory below `output_dir`, with status `running` and no sample."""
        started = now or datetime.now(UTC)
        make_dirs(output_dir)
        path = _new_folder(output_dir, started)
        try:
            writer = cls(path, _document(path.name, meta, started))
            make_dirs(path / SIEGE_FOLDER)
            writer._write_samples(writer._samples)
            writer._write_document(writer._document)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return writer

    @property
    def run_id(self) -> str:
        """The run's name, which is also its directory's."""
        return self.path.name

    def add_sample(self, sample: Sample, raw: str) -> None:
        """Add a sample and what siege printed for it. A sample of the same id is replaced."""
        write_atomic(self.path / SIEGE_FOLDER / f"{sample.id}.json", raw)
        samples = {**self._samples, sample.id: sample.row()}
        self._write_samples(samples)
        self._samples = samples

    def add_log(self, host: str, text: str) -> None:
        """Keep what was said with a host's agent, as raw/agents/HOST.log."""
        make_dirs(self.path / AGENTS_FOLDER)
        write_atomic(self.path / AGENTS_FOLDER / f"{host}.log", text)

    def finish(
        self,
        status: Status,
        *,
        timing: Timing | None = None,
        notes: tuple[str, ...] = (),
        host_facts: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> None:
        """Record how the run ended. notes are added; host_facts replaces those of the start."""
        document = {
            **self._document,
            "status": status,
            "ended_at": iso_utc(now or datetime.now(UTC)),
            "timing": asdict(timing or Timing()),
            "notes": [*self._document["notes"], *notes],
        }
        if host_facts is not None:
            document["host_facts"] = dict(host_facts)
        self._write_document(document)
        self._document = document

    def _write_document(self, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
        write_atomic(self.path / RUN_FILE, text + "\n")

    def _write_samples(self, samples: Mapping[str, list[str]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(samples.values())
        write_atomic(self.path / SAMPLES_FILE, text.getvalue())


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


def _document(run_id: str, meta: RunMeta, started: datetime) -> dict[str, Any]:
    sweep = meta.sweep
    place = {cell: index for index, cell in enumerate(sweep.cells)}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "status": "running",
        "started_at": iso_utc(started),
        "ended_at": None,
        "timing": asdict(Timing()),
        "notes": list(meta.notes),
        "versions": dict(meta.versions),
        "git_commit": meta.git_commit,
        "seed": sweep.seed,
        "sweep": {"blocks": sweep.blocks, "cells": [asdict(cell) for cell in sweep.cells]},
        "order": [
            [place[cell] for cell in order(sweep, block)] for block in range(1, sweep.blocks + 1)
        ],
        "chain": dict(meta.chain),
        "host_facts": dict(meta.host_facts),
    }


def _new_folder(output_dir: Path, started: datetime) -> Path:
    stamp = started.astimezone(UTC).strftime("%Y%m%d-%H%M%S")
    for _ in range(100):
        path = output_dir / f"{stamp}-{secrets.token_hex(2)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise unwritable(path, error) from error
        return path
    raise BenchError(f"no free name for a run in {output_dir}", remedy="try again in a second")
