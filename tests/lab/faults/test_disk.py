# SPDX-License-Identifier: Apache-2.0
"""Results' disk fills, becomes read-only or goes away in mid-run: what is there is whole."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import tables
from bench.lab.model import Lab
from bench.runs import RunReader
from tests.lab.conftest import bench, differences, machine
from tests.lab.faults.runs import Running, resumed, running, small_run


@contextlib.contextmanager
def _mounted(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def _require_whole(run: RunReader) -> None:
    """Every sample that is named has its tables, and no file is half of one."""
    counters = tables.read_counters(run.path)
    assert set(run.samples["sample"]) <= set(counters["sample"])
    for file in run.path.rglob("*"):
        assert not file.name.endswith(".tmp"), file


@pytest.fixture
def at_work(faulty: Lab, tmp_path: Path) -> Iterator[Running]:
    """A run whose results are on a small file system of their own."""
    words = small_run(faulty, "--blocks", "12", requests=200)
    with _mounted(tmp_path / "results", "3m"), running(tmp_path, *words) as made:
        made.until(lambda: made.measured >= 3)
        yield made


def test_a_disk_that_fills(faulty: Lab, at_work: Running) -> None:
    before = machine()
    filler = at_work.output / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
    done = at_work.end()
    assert done.status == 1
    assert "No space left on device (free some space there" in done.error, done.error
    run = at_work.read()
    assert len(run.samples) >= 4 + 3
    _require_whole(run)
    filler.unlink()
    _remount(at_work.output, "size=64m")
    resumed(faulty, at_work)
    assert {kind: new for kind, new in differences(before).items() if kind != "files"} == {}


def test_a_disk_that_becomes_read_only(faulty: Lab, at_work: Running) -> None:
    _remount(at_work.output, "ro")
    done = at_work.end()
    assert done.status == 1
    assert "Read-only file system (choose a folder that can be written to" in done.error
    run = at_work.read()
    assert run.meta["status"] == "running"
    _require_whole(run)
    _remount(at_work.output, "rw,size=64m")
    resumed(faulty, at_work)


def test_results_that_are_gone(faulty: Lab, tmp_path: Path) -> None:
    before = machine()
    with running(tmp_path, *small_run(faulty, "--blocks", "40", requests=200)) as made:
        made.until(lambda: made.measured >= 2)
        shutil.move(made.output, tmp_path / "elsewhere")
        done = made.end()
    assert done.status == 1
    assert "the folder is gone" in done.error, done.error
    run = RunReader.open("latest", tmp_path / "elsewhere")
    _require_whole(run)
    assert bench("show", run.path).status == 0
    assert differences(before) == {}
