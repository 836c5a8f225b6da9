# SPDX-License-Identifier: Apache-2.0
"""`bench datapath` on this machine: what it prints makes sense, and nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.datapath import METHODS, PROGRAMS
from bench.hop.datapath_cases import BASELINES, LOOKUPS, SEND, SINK, STEPS
from tests.lab.conftest import (
    REPOSITORY,
    bench,
    machine,
    processes,
    start_bench,
    wait_until,
)


def measuring() -> set[tuple[int, str]]:
    """Return (pid, command line) of every process that measures."""
    return {each for each in processes() if "hop datapath" in each[1]}


def nothing_left() -> bool:
    """Say whether its process has gone, and with it the programs that nobody else loads."""
    own = {SEND, SINK, *BASELINES.values()}
    names = {name[:15] for name in own}  # BPF_OBJ_NAME_LEN
    return wait_until(
        lambda: not measuring() and not names & {name for _, name in machine()["BPF programs"]}
    )


def sane(item: dict[str, Any]) -> None:
    """An estimate is a positive time within its interval."""
    low, high = item["ci95"]
    assert 0 < low <= item["ns"] <= high
    assert item["n"] >= 6


@pytest.mark.parametrize("family", ["4", "6"])
def test_figures(family: str) -> None:
    """That each packet did what it was to do is checked by the command itself."""
    done = bench("datapath", "--quick", "--json", "--flows", "1,5000", "--family", family)
    assert done.status == 0, done.stderr
    found = json.loads(done.stdout)
    ns = {(item["method"], item["name"]): item["ns"] for item in found["programs"]}
    assert list(ns) == [(method, name) for method in METHODS for name in PROGRAMS]
    for item in found["programs"]:
        assert set(item) == {"name", "method", "ns", "ci95", "n"}
        sane(item)
    for method in METHODS:
        assert ns[method, "forward"] >= ns[method, "empty"]
        assert ns[method, "return"] >= ns[method, "empty"]
        # A lookup in the kernel's tables, and two of them with all that a new flow needs besides:
        # no machine is so busy that this order changes.
        assert ns[method, "router"] > ns[method, "empty"]
        assert ns[method, "new-flow"] > ns[method, "forward"]
    assert {(item["method"], item["flows"], item["order"]) for item in found["flows"]} == {
        (method, *row)
        for method in METHODS
        for row in ((1, "random"), (1, "memory"), (5000, "random"), (5000, "memory"))
    }
    for item in found["flows"]:
        sane(item)
    assert found["family"] == int(family)
    assert found["host"]["kernel"] == os.uname().release
    assert found["packets"]["live"] >= 10_000
    assert "steps" not in found
    assert nothing_left()


def test_steps() -> None:
    done = bench("datapath", "--quick", "--json", "--steps", "--rounds", "6", "--flows", "1")
    assert done.status == 0, done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert [item["name"] for item in steps if item["entries"] == 1] == list(STEPS)
    assert [item["name"] for item in steps if item["entries"] > 1] == list(LOOKUPS)
    ns = {(item["name"], item["entries"]): item["ns"] for item in steps}
    assert ns["lru_update", 1] > ns["array", 1]
    assert ns["two_hashes", 60000] > ns["array", 60000]


def test_a_table_for_people() -> None:
    done = bench("datapath", "--quick", "--flows", "1")
    assert done.status == 0, done.stderr
    for name in PROGRAMS:
        assert f"\n {name} " in done.stdout
    assert "rounds of" in done.stdout


def test_interrupted_and_killed(tmp_path: Path) -> None:
    """The namespace, the veth and the programs go with the process that measures."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = start_bench("datapath", "--rounds", "100000", cwd=tmp_path)
        assert process.stderr is not None
        lines = [process.stderr.readline(), process.stderr.readline()]
        assert "test_run" in lines[1], lines
        assert wait_until(lambda: measuring() != set())
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 1
            assert "interrupted" in errors.strip().splitlines()[-1]
        assert nothing_left()


def test_the_measuring_process_ends_early(tmp_path: Path) -> None:
    process = start_bench("datapath", "--rounds", "100000", cwd=tmp_path)
    assert process.stderr is not None
    process.stderr.readline(), process.stderr.readline()
    ((pid, _),) = measuring()
    os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors == "bench: measuring ended: without a word\n"
    assert nothing_left()


def test_not_root() -> None:
    """The whole command, given up root once everything it needs has been read."""
    code = (
        "import os, sys; from bench import cli; import bench.commands.datapath; "
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); "
        "sys.argv = ['bench', 'datapath', '--quick']; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == ("bench: measuring the datapath needs root (run as root or with sudo)\n")
