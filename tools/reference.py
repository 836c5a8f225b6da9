# SPDX-License-Identifier: Apache-2.0
"""Make a reference of a run: all of it but single connections and raw output, with its report.

Usage: .venv/bin/python tools/reference.py RUN NAME

writes results/reference-NAME, which is small enough to be committed. Of connections it keeps their
number, quantiles and span in each sample, which is all that `bench compare` takes from them, and
their spread in each cell, which is what the report draws. Of what `bench reproduce` made it keeps
those on loopback, which its page looks into.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from bench import tables, timings
from bench.compare import compare
from bench.errors import BenchError
from bench.report import curves, series
from bench.report.figure import standalone
from bench.report.kept import keep
from bench.report.make import make
from bench.results import RUN_FILE, SAMPLES_FILE
from bench.runs import REPRODUCE_FILE, RunReader

PICTURE = "picture.svg"
RESULTS = Path(__file__).resolve().parent.parent / "results"
_FILES = (RUN_FILE, SAMPLES_FILE, tables.COUNTERS_FILE, "report.html")


def reference(run: RunReader, name: str) -> Path:
    """Return the folder made. Raises BenchError for a run that is not complete, or a bad name."""
    if run.meta["status"] != "complete":
        raise BenchError(f"run {run.run_id} is {run.meta['status']}, not complete")
    folder = _folder(name)
    make(run)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in _FILES:
        shutil.copy(run.path / file, folder)
    shutil.copytree(run.path / "plots", folder / "plots", ignore=shutil.ignore_patterns("*.csv"))
    timings.summarise(run.path, folder)
    keep(run, folder)
    _draw(run, folder / PICTURE)
    return folder


def reproduction(path: Path, name: str) -> Path:
    """Return the folder made of one that `bench reproduce` made. Raises BenchError."""
    folder = _folder(name)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(path, folder, ignore=_unwanted)
    for file in folder.glob(f"chain/*/{tables.CONNECTIONS_FILE}"):
        timings.summarise(file.parent, file.parent)
        file.unlink()
    return folder


def _unwanted(folder: str, names: list[str]) -> set[str]:
    of_plots = Path(folder).name == "plots"
    return {name for name in names if name == "raw" or (of_plots and name.endswith(".csv"))}


def _folder(name: str) -> Path:
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise BenchError(f"{name!r} is no name of a-z, 0-9 and -")
    return RESULTS / f"reference-{name}"


def _draw(run: RunReader, file: Path) -> None:
    """Draw what a hop costs at two sizes: one to be seen at the top of a text."""
    costs = series.costs(compare(run))
    sizes = sorted(costs["size_bytes"].unique())
    drawn = curves.costs(costs[costs["size_bytes"].isin([sizes[len(sizes) > 2], sizes[-1]])])
    if drawn is not None:
        file.write_text(standalone(drawn))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        if (Path(sys.argv[1]) / REPRODUCE_FILE).exists():
            print(reproduction(Path(sys.argv[1]), sys.argv[2]))
        else:
            print(reference(RunReader.open(sys.argv[1], RESULTS), sys.argv[2]))
    except BenchError as error:
        sys.exit(f"reference: {error.one_line()}")
