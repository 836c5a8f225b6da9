# SPDX-License-Identifier: Apache-2.0
"""Runs on disks that are full, read-only, gone or limited: one line, and nothing half-written."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic import sample, tree

from bench.cells import Cell
from bench.errors import BenchError
from bench.files import write_atomic
from bench.results import COLUMNS, RunMeta
from bench.runwriter import RunWriter
from bench.sweep import Sweep

CELLS = (Cell("direct", "", 0, 624, 1, 100), Cell("xdp", "native", 3, 624, 25, 110))
FULL = RunMeta(Sweep(CELLS, 2, 42))


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_an_output_folder_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BenchError, match="choose another folder with --output") as caught:
        RunWriter.create(tmp_path / "file" / below, FULL)
    assert str(tmp_path / "file") in caught.value.one_line()
    assert tree(tmp_path) == {"file": b"mine"}


def test_an_output_folder_nobody_may_write_to() -> None:
    with pytest.raises(BenchError, match="cannot write /proc/hopbench"):
        RunWriter.create(Path("/proc/hopbench/results"), FULL)


@pytest.mark.parametrize("victim", ["run.json", "samples.csv", "raw/siege"])
def test_a_run_that_cannot_be_created_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        if str(path).endswith(victim):
            raise BenchError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("bench.results.write_atomic", refuse)
    monkeypatch.setattr("bench.results.make_dirs", refuse)
    with pytest.raises(BenchError, match="No space"):
        RunWriter.create(tmp_path, FULL)
    assert list(tmp_path.iterdir()) == []


def test_a_vanished_run_directory(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, FULL)
    shutil.rmtree(writer.path)
    for action in (
        lambda: writer.add_sample(sample(CELLS[0]), ""),
        lambda: writer.finish("failed"),
    ):
        with pytest.raises(BenchError, match="the folder is gone; choose one that stays"):
            action()
    assert list(tmp_path.iterdir()) == []


def _write_with_small_files(folder: Path) -> None:
    """Let no file of this process grow beyond 8 KiB (Python ignores SIGXFSZ), and write a run."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    writer = RunWriter.create(folder, FULL)
    writer.add_sample(sample(CELLS[0], 1, 1), "kept")
    before = tree(writer.path)
    with pytest.raises(BenchError, match="raise the file size limit"):
        writer.add_sample(sample(CELLS[0], 1, 2), "x" * 10_000)
    assert tree(writer.path) == before
    writer.add_sample(sample(CELLS[0], 1, 2), "short")
    assert len((writer.path / "samples.csv").read_text().splitlines()) == 3


def test_a_file_size_limit(tmp_path: Path) -> None:
    # In a process of its own: this one's output may be a file, too.
    process = multiprocessing.get_context("fork").Process(
        target=_write_with_small_files, args=(tmp_path,)
    )
    process.start()
    process.join(30)
    assert process.exitcode == 0


def test_an_interrupt_in_the_middle_of_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "before")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "after")
    assert tree(tmp_path) == {"file": b"before"}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 128 KiB."""
    if os.geteuid():
        pytest.skip("needs root to mount a file system")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "hopbench-test", str(place)]
    subprocess.run(mount, check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.lab
def test_a_full_disk(tiny_disk: Path) -> None:
    writer = RunWriter.create(tiny_disk / "results", FULL)
    writer.add_sample(sample(CELLS[0], 1, 1), "kept")
    before = tree(writer.path)
    (tiny_disk / "ballast").write_bytes(b"\0" * 1024)
    with pytest.raises(BenchError, match=r"No space left on device.*free some space") as caught:
        for position in range(2, 1000):
            writer.add_sample(sample(CELLS[0], 1, position), "x" * 4096)
    assert str(writer.path) in caught.value.one_line()
    now = tree(writer.path)
    assert before.items() <= {**now, "samples.csv": before["samples.csv"]}.items()
    assert not [name for name in now if name.endswith(".tmp")]
    rows = now["samples.csv"].decode().splitlines()
    assert all(line.count(",") == len(COLUMNS) - 1 for line in rows)
    (tiny_disk / "ballast").unlink()
    for name in sorted(now)[5:]:
        (writer.path / name).unlink(missing_ok=True)
    writer.finish("failed")
    assert json.loads((writer.path / "run.json").read_text())["status"] == "failed"


@pytest.mark.lab
def test_a_read_only_disk(tiny_disk: Path) -> None:
    writer = RunWriter.create(tiny_disk / "results", FULL)
    before = tree(writer.path)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for action in (
        lambda: writer.add_sample(sample(CELLS[0]), "raw"),
        lambda: writer.finish("failed"),
        lambda: RunWriter.create(tiny_disk / "results", FULL),
        lambda: RunWriter.create(tiny_disk / "others", FULL),
    ):
        with pytest.raises(
            BenchError, match=r"Read-only file system \(choose a folder that can be"
        ):
            action()
    assert tree(writer.path) == before
