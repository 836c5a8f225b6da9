# SPDX-License-Identifier: Apache-2.0
"""A reproduction's folder: reproduce.json and the two runs below it, written and read again."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import strict_json
from bench.errors import BenchError
from bench.files import make_dirs, unwritable, write_atomic
from bench.results import STATUSES, Status, iso_utc
from bench.runfiles import NEVER, moment
from bench.runs import REPRODUCE_FILE, RunReader

SCHEMA_VERSION = 1
LOOPBACK, CHAIN = "loopback", "chain"
PARTS = (LOOPBACK, CHAIN)
_PREFIX = "reproduce-"
_REMEDY = "name a folder that bench reproduce made"
_DAMAGED = "the reproduction is damaged; make another"
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "status": (str,),
    "started_at": (str,),
    "ended_at": (str, type(None)),
    "quick": (bool,),
    "seed": (int,),
    "requests": (int,),
    "sizes_bytes": (list,),
    "forwarders": (list,),
    "limits": (dict,),
    "cut": (list,),
    "notes": (list,),
    "versions": (dict,),
    "git_commit": (str, type(None)),
    "machine": (dict,),
    "parts": (dict,),
}


@dataclass(frozen=True)
class Reproduction:
    """A reproduction that was read and found sound.

    meta: reproduce.json. loopback, chain: the runs, None for one that was not begun.
    """

    path: Path
    meta: dict[str, Any]
    loopback: RunReader | None
    chain: RunReader | None

    @classmethod
    def open(cls, path: Path) -> Reproduction:
        """Read a reproduction's folder. Raises BenchError."""
        meta = read_meta(path)
        runs: dict[str, RunReader | None] = dict.fromkeys(PARTS)
        for part, below in meta["parts"].items():
            folder = path / below
            # Between its folder and its run.json, a run is not there yet.
            if folder.is_dir():
                runs[part] = RunReader.open(str(folder), folder.parent)
        return cls(path, meta, runs[LOOPBACK], runs[CHAIN])


def read_meta(path: Path) -> dict[str, Any]:
    """Return a folder's checked reproduce.json. Raises BenchError."""
    file = path / REPRODUCE_FILE
    try:
        if not file.is_file():
            raise BenchError(f"{path} has no {REPRODUCE_FILE}", remedy=_REMEDY)
        meta = strict_json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(meta, dict):
            raise ValueError("it is not an object")
        version = meta.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BenchError(
                f"{path} has schema {version} and this hopbench reads up to {SCHEMA_VERSION}",
                remedy="upgrade hopbench",
            )
        _check(meta)
    except OSError as error:
        raise BenchError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise BenchError(f"{file} is damaged: {error}", remedy=_DAMAGED) from error
    return meta


def _check(meta: Mapping[str, Any]) -> None:
    if meta.get("schema_version") != SCHEMA_VERSION:
        raise ValueError("its schema_version is unknown")
    for key, types in _TYPES.items():
        value = meta.get(key, ...)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ValueError(f"{key} is missing or of the wrong kind")
    if meta["status"] not in STATUSES:
        raise ValueError("its status is unknown")
    if moment(meta["started_at"]) == NEVER:
        raise ValueError("started_at is not a time")
    for key in ("sizes_bytes", "forwarders"):
        if not all(type(each) is int and each > 0 for each in meta[key]):
            raise ValueError(f"{key} are not whole numbers")
    for key in ("cut", "notes"):
        if not all(isinstance(each, str) for each in meta[key]):
            raise ValueError(f"{key} must be texts")
    for key, value in meta["limits"].items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"limits: {key} is not a number")
    for part, below in meta["parts"].items():
        if part not in PARTS or not isinstance(below, str):
            raise ValueError("parts are not runs")
        # Nothing outside the folder is opened because a file says so.
        words = below.split("/")
        if len(words) != 2 or words[0] != part or words[1] in ("", ".", ".."):
            raise ValueError(f"parts: {part} is not a run of the folder's")


@dataclass
class Writer:
    """reproduce.json while the reproduction lasts, whole at every moment."""

    path: Path
    document: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def create(
        cls, output: Path, values: Mapping[str, Any], *, now: datetime | None = None
    ) -> Writer:
        """Make a new folder below `output`, with status `running`. Raises BenchError.

        values: what the document has beyond what every one begins with.
        """
        started = now or datetime.now(UTC)
        make_dirs(output)
        path = _new_folder(output, started)
        writer = cls(path)
        writer.update(
            schema_version=SCHEMA_VERSION,
            id=path.name,
            status="running",
            started_at=iso_utc(started),
            ended_at=None,
            cut=[],
            notes=[],
            machine={},
            parts={},
            **values,
        )
        return writer

    def update(self, **values: Any) -> None:
        """Replace values of reproduce.json. Raises BenchError."""
        self.document = {**self.document, **values}
        text = json.dumps(self.document, indent=1, allow_nan=False, ensure_ascii=False)
        write_atomic(self.path / REPRODUCE_FILE, text + "\n")

    def cut(self, text: str) -> None:
        """Say what was left out or stopped, and why."""
        self.update(cut=[*self.document["cut"], text])

    def note(self, text: str) -> None:
        """Say what a reader has to know."""
        self.update(notes=[*self.document["notes"], text])

    def part(self, name: str, run: Path) -> None:
        """Say where a run is."""
        below = f"{name}/{run.name}"
        self.update(parts={**self.document["parts"], name: below})

    def finish(self, status: Status) -> None:
        """Say how it ended."""
        self.update(status=status, ended_at=iso_utc(datetime.now(UTC)))


def _new_folder(output: Path, started: datetime) -> Path:
    stamp = started.astimezone(UTC).strftime("%Y%m%d-%H%M%S")
    for _ in range(100):
        path = output / f"{_PREFIX}{stamp}-{secrets.token_hex(2)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise unwritable(path, error) from error
        return path
    raise BenchError(f"no free name for a folder in {output}", remedy="try again in a second")
