# SPDX-License-Identifier: Apache-2.0
"""The run directory while it is being made, whole at every moment."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import tables
from bench.errors import BenchError
from bench.files import make_dirs, remove_unfinished, unwritable, write_atomic
from bench.results import (
    AGENTS_FOLDER,
    COLUMNS,
    RUN_FILE,
    SAMPLES_FILE,
    SCHEMA_VERSION,
    SIEGE_FOLDER,
    RunMeta,
    Sample,
    Status,
    Timing,
    iso_utc,
)
from bench.sweep import Sweep, order


class RunWriter:
    """One run directory while it is being made.

    The directory is locked until `finish` or `close`. Every file is replaced whole, so that
    whatever happens, what is on the disk can be read. Each method raises BenchError when the file
    system objects; what was written before stays.
    """

    def __init__(
        self, path: Path, document: dict[str, Any], rows: Mapping[str, list[str]] | None = None
    ) -> None:
        """Raises BenchError when another process is making this run."""
        self.path = path
        self._lock = _locked(path)
        remove_unfinished(path)
        self._document = document
        self._samples = dict(rows or {})

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

    @property
    def sample_ids(self) -> frozenset[str]:
        """The samples there are, valid or not."""
        return frozenset(self._samples)

    def recorded(self, name: str) -> Any:
        """Return a value of run.json as it is now."""
        return self._document[name]

    def add_sample(
        self,
        sample: Sample,
        raw: str,
        connections: Mapping[str, Any] | None = None,
        counters: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Add a sample, and what siege printed for it. A sample of the same id is replaced.

        connections: see `tables.add_connections`. counters: see `tables.add_counters`. The line of
        samples.csv comes last: what it names is there.
        """
        write_atomic(self.path / SIEGE_FOLDER / f"{sample.id}.json", raw)
        if connections is not None:
            tables.add_connections(self.path, sample.id, connections)
        if counters:
            tables.add_counters(self.path, sample.id, counters)
        samples = {**self._samples, sample.id: sample.row()}
        self._write_samples(samples)
        self._samples = samples

    def add_log(self, host: str, text: str) -> None:
        """Keep what was said with a host's agent in raw/agents/HOST.log, after what is there."""
        make_dirs(self.path / AGENTS_FOLDER)
        file = self.path / AGENTS_FOLDER / f"{host}.log"
        earlier = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        write_atomic(file, earlier + text)

    def update(self, **values: Any) -> None:
        """Replace values of run.json: `findings`, `host_facts`, what `describe_sweep` returns."""
        document = {**self._document, **values}
        self._write_document(document)
        self._document = document

    def finish(
        self,
        status: Status,
        *,
        timing: Timing | None = None,
        now: datetime | None = None,
        **values: Any,
    ) -> None:
        """Record how the run ended, with more values of run.json; join the tables, and close."""
        try:
            self.update(
                status=status,
                ended_at=iso_utc(now or datetime.now(UTC)),
                timing=asdict(timing or Timing()),
                **values,
            )
            tables.join(self.path)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the directory, for another process to go on with."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.close()

    def _write_document(self, document: Mapping[str, Any]) -> None:
        text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
        write_atomic(self.path / RUN_FILE, text + "\n")

    def _write_samples(self, samples: Mapping[str, list[str]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(samples.values())
        write_atomic(self.path / SAMPLES_FILE, text.getvalue())


def describe_sweep(sweep: Sweep) -> dict[str, Any]:
    """Return the values of run.json that say what is measured, and in which order."""
    place = {cell: index for index, cell in enumerate(sweep.cells)}
    return {
        "seed": sweep.seed,
        "sweep": {"blocks": sweep.blocks, "cells": [asdict(cell) for cell in sweep.cells]},
        "order": [
            [place[cell] for cell in order(sweep, block)] for block in range(1, sweep.blocks + 1)
        ],
    }


def _document(run_id: str, meta: RunMeta, started: datetime) -> dict[str, Any]:
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
        **describe_sweep(meta.sweep),
        "aa": meta.aa,
        "until_ci": meta.until_ci,
        "chain": dict(meta.chain),
        "findings": [],
        "host_facts": {},
        "host_facts_after": {},
        "changes": [],
        "clocks": [],
    }


def _locked(path: Path) -> int:
    """Lock a folder until the descriptor returned is closed, or the process ends."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BenchError(
            f"run {path.name} is being made by another process", remedy="wait until it has ended"
        ) from None
    except OSError:  # a file system without locks
        pass
    return descriptor


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
