# SPDX-License-Identifier: Apache-2.0
"""The run directory as it is read: found by path, id or `latest`, and checked before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cells import Cell
from bench.errors import BenchError
from bench.results import COLUMNS
from bench.runfiles import NOT_A_RUN, Row, moment, read_run

if TYPE_CHECKING:
    import pandas as pd

# A reproduction of the 2022 report is a folder of runs, and none itself.
REPRODUCE_FILE = "reproduce.json"

_DTYPES = {
    "text": "string",
    "whole": "int64",
    "count": "Int64",
    "figure": "float64",
    "flag": "bool",
}


@dataclass(frozen=True)
class RunReader:
    """A run that was read and found sound.

    meta: run.json. samples: samples.csv, one row a sample, with the dtypes int64, Int64 (siege's
    counts), float64 (siege's figures), bool and string; missing where siege left no report.
    """

    path: Path
    meta: dict[str, Any]
    samples: pd.DataFrame

    @classmethod
    def open(cls, reference: str | Path, results_dir: Path) -> RunReader:
        """Return the run a path, a run id or `latest` stands for.

        A name without a separator is looked for in `results_dir` first; `latest` is the sound run
        there that started last, by its own record. Raises BenchError.
        """
        path = find_run(reference, results_dir)
        meta, rows = read_run(path)
        return cls(path, meta, _frame(rows))

    @property
    def run_id(self) -> str:
        """The id the run gave itself, whatever its directory is called now."""
        return str(self.meta["run_id"])

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The sweep's cells."""
        return tuple(Cell(**cell) for cell in self.meta["sweep"]["cells"])


@dataclass(frozen=True)
class RunEntry:
    """One line of the list of runs.

    samples, invalid: how many there are of the sweep, warm-ups being none of it. problem: why the
    run cannot be read, otherwise empty.
    """

    run_id: str
    path: Path
    status: str
    started_at: str = ""
    modes: tuple[str, ...] = ()
    cells: int = 0
    blocks: int = 0
    samples: int = 0
    invalid: int = 0
    problem: str = ""


def find_run(reference: str | Path, results_dir: Path) -> Path:
    """Return the directory `reference` stands for; see `RunReader.open`."""
    text = str(reference)
    if text == "latest":
        sound = [entry for entry in list_runs(results_dir) if not entry.problem]
        if not sound:
            raise BenchError(f"there is no run in {results_dir}", remedy="make one with bench run")
        return sound[-1].path
    candidates = [Path(text)] if text else []
    if "/" not in text and text not in ("", ".", ".."):
        candidates.insert(0, results_dir / text)
    for path in candidates:
        try:
            if path.is_dir():
                return path
        except (OSError, ValueError):  # a name that is too long, or has a NUL in it
            continue
    shown = text if len(text) <= 80 else text[:80] + "…"
    raise BenchError(f"there is no run {shown!r} in {results_dir}", remedy=NOT_A_RUN)


def list_runs(results_dir: Path) -> list[RunEntry]:
    """Return every run below `results_dir`, oldest first; those that cannot be read come first."""
    try:
        folders = [path for path in results_dir.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BenchError(f"cannot read {results_dir}: {error.strerror}") from error
    entries = [
        _entry(path)
        for path in folders
        if not path.name.startswith(".") and not (path / REPRODUCE_FILE).exists()
    ]
    return sorted(entries, key=lambda entry: (moment(entry.started_at), entry.run_id))


def _frame(rows: Sequence[Row]) -> pd.DataFrame:
    # pandas takes the better part of a second to import, which a list of runs need not wait for.
    import pandas as pd

    return pd.DataFrame(
        {
            column: pd.Series([row[column] for row in rows], dtype=_DTYPES[kind])
            for column, kind in COLUMNS.items()
        }
    )


def _entry(path: Path) -> RunEntry:
    try:
        meta, rows = read_run(path)
    except BenchError as error:
        return RunEntry(path.name, path, "broken", problem=error.cause)
    cells = meta["sweep"]["cells"]
    samples = [row for row in rows if not row["warmup"]]
    return RunEntry(
        run_id=path.name,
        path=path,
        status=meta["status"],
        started_at=meta["started_at"],
        modes=tuple(dict.fromkeys(cell["mode"] for cell in cells)),
        cells=len(cells),
        blocks=meta["sweep"]["blocks"],
        samples=len(samples),
        invalid=sum(not row["valid"] for row in samples),
    )
