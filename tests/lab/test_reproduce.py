# SPDX-License-Identifier: Apache-2.0
"""`bench reproduce` in small: real siege, nginx and socat on a real loopback; nothing stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.lab.model import Lab
from bench.reproduce.record import Reproduction
from bench.runs import RunReader
from bench.tables import read_connections, read_counters
from tests.lab.conftest import REPOSITORY, differences, kill, machine, wait_until
from tests.valid import require_valid

# The quick plan, made smaller.
_SMALL = {
    "sizes_bytes": (312, 2555904),
    "forwarders": (1, 4),
    "legacy_sizes": (312,),
    "legacy_forwarders": (4,),
    "requests": 24,
    "today_requests": 1,
    "chain_forwarders": (1,),
    "chain_sizes": (312,),
    "chain_blocks": 1,
    # However slow the machine is, nothing is left out for want of time.
    "total_s": 1800.0,
    "others_until_s": 500.0,
    "loopback_until_s": 800.0,
    "chain_until_s": 1100.0,
}
_WHOLE = """
import sys, time
from dataclasses import replace
from pathlib import Path
from bench import cli
from bench.progress import RunProgress
from bench.reproduce import engine, plan

def small(plan=plan):
    return replace(plan.quick(1), **{small!r})

def command(**_):
    with RunProgress() as progress:
        engine.reproduce(small(), Path(sys.argv[1]), progress, time.monotonic())

cli.cli.main = command
cli.main()
"""
# The loopback alone, in a lab of its own, with what is deployed already.
_LOOPBACK = """
import sys, time
from dataclasses import replace
from pathlib import Path
from bench.inventory import load
from bench.lab.lifecycle import EphemeralLab
from bench.progress import RunProgress
from bench.reproduce import engine, host, plan, record
from bench.reproduce.loopback import Clock

small = replace(plan.quick(1), **{small!r})
writer = record.Writer.create(Path(sys.argv[1]), engine._values(small))
with EphemeralLab(1) as lab, RunProgress() as progress:
    chain = host.make(load(str(lab.inventory)))
    engine._loopback(small, chain, writer, progress, Clock(time.monotonic()))
"""


@contextmanager
def started(script: str, folder: Path, **changes: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a small reproduction; it has ended when the block has."""
    text = script.replace("{small!r}", repr({**_SMALL, **changes}))
    process = subprocess.Popen(
        [sys.executable, "-c", text, folder],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def reproduction(folder: Path) -> Reproduction:
    """Return the one there is."""
    (path,) = folder.glob("reproduce-*")
    return Reproduction.open(path)


def made(folder: Path, mode: str) -> bool:
    """Say whether a sample of a mode has been made."""
    files = list(folder.glob("reproduce-*/loopback/*/samples.csv"))
    return bool(files) and f",{mode}," in files[0].read_text()


@pytest.fixture(scope="module")
def small(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Reproduction:
    """A whole reproduction, which leaves nothing."""
    folder = tmp_path_factory.mktemp("reproduce")
    before = machine()
    with started(_WHOLE, folder) as process:
        _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    assert differences(before) == {}
    found = reproduction(folder)
    assert found.meta["status"] == "complete", errors
    return found


def of_mode(run: RunReader, mode: str) -> pd.DataFrame:
    """Return a mode's samples."""
    return run.samples[run.samples["mode"] == mode]


def counted(run: RunReader, mode: str, name: str) -> float:
    """Return what the namespace has counted during a mode's samples."""
    counters = read_counters(run.path)
    rows = counters[counters["sample"].isin(of_mode(run, mode)["sample"])]
    return float(rows[rows["role"] == "client"][name].sum())


def test_nothing_is_lost_but_by_the_filter(small: Reproduction) -> None:
    assert small.loopback is not None
    for mode, ways in (("direct", 1), ("socat", 2), ("xdp", 2)):
        samples = of_mode(small.loopback, mode)
        assert len(samples) == 2 * ways
        assert (samples["transactions"] == _SMALL["requests"]).all()
        assert (samples["failed"] == 0).all()
        samples = require_valid(samples)
        assert (samples["timed"] == _SMALL["requests"]).all()
        assert counted(small.loopback, mode, "TcpInCsumErrors") == 0
        assert counted(small.loopback, mode, "TcpExtTCPSynRetrans") == 0


def test_every_payload_came_through_every_chain(small: Reproduction) -> None:
    """What is asked of the client is in its log; a damaged payload would have ended the run."""
    assert small.loopback is not None
    log = (small.loopback.path / "raw" / "agents" / "loopback.log").read_text()
    asked = [line for line in log.splitlines() if '> {"op": "fetch"' in line]
    ports = [json.loads(line.partition("> ")[2])["port"] for line in asked]
    # direct; socat and xdp with one forwarder, and with four
    assert sorted(ports) == [7996, 7996, 7999, 7999, 8000]


def test_each_of_four_forwarders_on_lo_carried_every_connection(small: Reproduction) -> None:
    assert small.loopback is not None
    samples = of_mode(small.loopback, "xdp")
    four = samples[samples["hops"] == 4]["sample"]
    counters = read_counters(small.loopback.path)
    rows = counters[counters["sample"].isin(four) & (counters["role"] == "hop")]
    assert len(rows) == 2 * 4
    assert (rows["forwarder_flows_opened"] == _SMALL["requests"]).all()
    assert set(rows["host"]) == {f"port-{port}" for port in range(7996, 8000)}
    dropped = [name for name in rows.columns if name.startswith("forwarder_dropped")]
    assert dropped
    assert (rows[dropped].fillna(0) == 0).all(axis=None)


def test_the_filter_shows_the_faults_of_the_report(small: Reproduction) -> None:
    assert small.loopback is not None
    run = small.loopback
    (sample,) = of_mode(run, "legacy")["sample"]
    table = read_connections(run.path).to_pandas()
    connect_s = table[table["sample"] == sample]["connect_us"].to_numpy() / 1e6
    # A SYN that is sent again after a second, which about half of them need.
    again = (connect_s > 0.95) & (connect_s < 1.2)
    assert again.any()
    assert (connect_s < 0.5).any()
    assert counted(run, "legacy", "TcpInCsumErrors") > 0
    assert counted(run, "legacy", "TcpExtTCPSynRetrans") >= again.sum()
    counters = read_counters(run.path)
    hops = counters[(counters["sample"] == sample) & (counters["role"] == "hop")]
    assert len(hops) == 4
    assert (hops["forwarder_syns"] > len(connect_s)).all()


def test_the_chain_is_an_ordinary_run(small: Reproduction) -> None:
    assert small.chain is not None
    samples = small.chain.samples
    assert set(samples["mode"]) == {"direct", "socat", "nft", "xdp"}
    require_valid(samples)
    assert set(samples[samples["mode"] == "xdp"]["attach"]) == {"native"}
    assert small.meta["machine"]["kernel"] == os.uname().release


def test_killed_it_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    before = machine()
    with started(_LOOPBACK, tmp_path, requests=8, legacy_forwarders=(1, 4)) as process:
        assert wait_until(lambda: made(tmp_path, "legacy"), 240), process.poll()
        kill(process.pid)
        process.wait(10)
    assert differences(before) == {}
    found = reproduction(tmp_path)
    assert found.meta["status"] == "running"
    assert found.loopback is not None
    assert not of_mode(found.loopback, "xdp").empty


def test_interrupted_it_keeps_what_was_measured(lab: Lab, tmp_path: Path) -> None:
    before = machine()
    with started(_WHOLE, tmp_path) as process:
        assert wait_until(lambda: made(tmp_path, "socat"), 240), process.poll()
        kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.strip().splitlines()[-1] == "bench: interrupted (SIGINT)"
    assert "Traceback" not in errors
    assert differences(before) == {}
    found = reproduction(tmp_path)
    assert found.meta["status"] == "interrupted"
    assert found.meta["ended_at"]
    assert found.loopback is not None
    assert found.loopback.meta["status"] == "interrupted"
    assert not of_mode(found.loopback, "socat").empty
    assert found.chain is None
