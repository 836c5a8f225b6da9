# SPDX-License-Identifier: Apache-2.0
"""Two runs on the same hosts: the second is refused, unless the first is gone."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from bench.lab.model import Lab
from tests.lab.conftest import Done, bench, differences, machine, wait_until
from tests.lab.faults.runs import in_host, running, send, small_run

HELD = "a run of {who} (process {pid}) has this host since "


def _second(lab: Lab, output: Path) -> Done:
    return bench(*small_run(lab, modes="nft"), "--output", output)


@pytest.mark.parametrize("hops", ["1", "2"])
def test_the_second_is_refused_with_who_and_since_when(
    faulty: Lab, tmp_path: Path, hops: str
) -> None:
    """Whether it wants all of the first one's hosts or some; the first is not disturbed."""
    before = machine()
    words = small_run(faulty, "--hops", hops, "--blocks", "6", modes="xdp", requests=3000)
    with running(tmp_path, *words) as first:
        first.until(lambda: first.measured >= 1)
        done = _second(faulty, tmp_path / "second")
        assert done.status == 1, done.stderr
        who = f"{os.environ.get('USER', 'root')}@{socket.gethostname()}"[:40]
        for host in ("client", "hop1", "server"):
            assert f"{host}: {HELD.format(who=who, pid=first.process.pid)}" in done.error
        assert ("hop2: a run of" in done.error) == (hops == "2")
        assert re.search(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", done.error)
        assert "wait until it has ended" in done.error
        assert first.end(120).status == 0
    run = first.read()
    assert run.meta["status"] == "complete"
    assert differences(before) == {}


def test_hosts_of_a_run_that_was_killed_are_taken_over(faulty: Lab, tmp_path: Path) -> None:
    """Its agents may take a moment to notice; whoever comes next waits for that."""
    before = machine()
    with running(tmp_path, *small_run(faulty, requests=3000)) as first:
        first.until(lambda: first.measured >= 1)
    # Killed at the end of the block.
    done = _second(faulty, tmp_path / "second")
    assert done.status == 0, done.stderr
    assert differences(before) == {}


def test_a_host_whose_agent_notices_nothing_is_cleaned(faulty: Lab, tmp_path: Path) -> None:
    before = machine()
    with running(tmp_path, *small_run(faulty, requests=3000)) as first:
        first.until(lambda: first.measured >= 1)
        send(signal.SIGSTOP, *in_host(faulty, "hop1"))
    done = bench("clean", "-i", faulty.name)
    assert (done.status, "hop1: removed agent forward" in done.stderr) == (0, True), done.stderr
    assert wait_until(lambda: not in_host(faulty, "hop1"))
    assert _second(faulty, tmp_path / "second").status == 0
    assert differences(before) == {}
