# SPDX-License-Identifier: Apache-2.0
"""Runs on disks that are full, read-only, gone or limited: one line, and nothing half-written."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import sample, tree

from bench import tables, timings
from bench.cells import Cell
from bench.errors import BenchError
from bench.files import replace_atomic, write_atomic
from bench.results import COLUMNS, RunMeta
from bench.runs import RunReader
from bench.runwriter import RunWriter
from bench.sweep import Sweep

CELLS = (Cell("direct", "", 0, 624, 1, 100), Cell("xdp", "native", 3, 624, 25, 110))
FULL = RunMeta(Sweep(CELLS, 2, 42))
COUNTED = ({"host": "client", "role": "client", "TcpOutSegs": 7},)


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

    monkeypatch.setattr("bench.runwriter.write_atomic", refuse)
    monkeypatch.setattr("bench.runwriter.make_dirs", refuse)
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


def connections(rows: int) -> dict[str, Any]:
    """Return connections that hardly compress."""
    values = np.random.default_rng(1).random((3, rows))
    return {
        "start_s": values[0],
        "connect_us": values[1],
        "response_us": values[2],
        "end": ["server"] * rows,
        "failed_us": [None] * rows,
        "port": [0] * rows,
        "bytes": [None] * rows,
    }


def _join_with_small_files(folder: Path) -> None:
    """Let no file grow beyond 64 KiB: each sample's connections fit, all in one file do not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    writer = RunWriter.create(folder, FULL)
    for position in (1, 2, 3):
        writer.add_sample(sample(CELLS[0], 1, position), "", connections(1500), COUNTED)
    with pytest.raises(BenchError, match="raise the file size limit"):
        writer.add_sample(sample(CELLS[0], 1, 4), "", connections(5000))
    with pytest.raises(BenchError, match=r"connections.parquet: .*raise the file size limit"):
        writer.finish("complete")
    assert not [name for name in tree(writer.path) if name.endswith(".tmp")]
    reader = RunReader.open(writer.path, folder)
    assert (reader.meta["status"], len(reader.samples)) == ("complete", 3)
    assert tables.read_connections(writer.path).num_rows == 4500
    assert len(tables.read_counters(writer.path)) == 3


@pytest.mark.parametrize("work", [_write_with_small_files, _join_with_small_files])
def test_a_file_size_limit(tmp_path: Path, work: Callable[[Path], None]) -> None:
    # In a process of its own: this one's output may be a file, too.
    process = multiprocessing.get_context("fork").Process(target=work, args=(tmp_path,))
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


def test_a_file_is_replaced_by_what_is_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")
    held = file.open("rb")
    seen: list[Path] = []

    def make(temporary: Path) -> None:
        seen.append(temporary)
        assert tree(tmp_path) == {"file": b"before"}
        temporary.write_bytes(b"after")

    replace_atomic(file, make)
    assert tree(tmp_path) == {"file": b"after"}
    assert seen[0].parent == tmp_path
    with held:
        assert held.read() == b"before"


def make_half(temporary: Path) -> None:
    """Leave half a file behind and fail."""
    temporary.write_bytes(b"hal")
    raise ValueError("what is left cannot be made")


@pytest.mark.parametrize(
    ("make", "raised", "said"),
    [
        (make_half, ValueError, "what is left cannot be made"),
        (lambda _: None, BenchError, "cannot write .*/file: No such file or directory"),
        (Path.mkdir, BenchError, "cannot write .*/file: Is a directory"),
    ],
    ids=["half", "nothing", "a folder"],
)
def test_what_cannot_be_made_replaces_nothing(
    tmp_path: Path, make: Callable[[Path], None], raised: type[Exception], said: str
) -> None:
    write_atomic(tmp_path / "file", "before")
    with pytest.raises(raised, match=said):
        replace_atomic(tmp_path / "file", make)
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
def test_a_disk_too_full_for_the_tables_of_a_run(tiny_disk: Path) -> None:
    """What its samples brought along stays where it is until there is room."""
    writer = RunWriter.create(tiny_disk / "results", FULL)
    for position in (1, 2):
        writer.add_sample(sample(CELLS[0], 1, position), "", connections(600), COUNTED)
    left = os.statvfs(tiny_disk)
    (tiny_disk / "ballast").write_bytes(b"\0" * ((left.f_bavail - 3) * left.f_bsize))
    before = tree(writer.path)
    with pytest.raises(BenchError, match=r"No space left on device.*free some space"):
        writer.add_sample(sample(CELLS[0], 1, 3), "", connections(600), COUNTED)
    before["raw/siege/001-0003.json"] = b""
    assert tree(writer.path) == before
    with pytest.raises(BenchError, match=r"connections.parquet: No space left on device"):
        writer.finish("failed")
    now = tree(writer.path)
    assert now == {**before, "run.json": now["run.json"]}
    assert json.loads(now["run.json"])["status"] == "failed"
    found = timings.of_samples(writer.path)
    assert found["connections"].to_dict() == {"001-0001": 600, "001-0002": 600}
    (tiny_disk / "ballast").unlink()
    writer.finish("failed")
    assert found.equals(timings.of_samples(writer.path))
    assert not (writer.path / tables.CONNECTIONS_FOLDER).exists()


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
