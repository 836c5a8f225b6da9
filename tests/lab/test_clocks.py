# SPDX-License-Identifier: Apache-2.0
"""Offsets of clocks in a run of a real lab, whose hosts all have the controller's clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.lab.model import Lab
from bench.runfiles import moment
from bench.runs import RunReader
from tests.lab.conftest import bench

HOSTS = {"client", "hop1", "hop2", "server"}
RUN = ("--mode", "direct,xdp", "--hops", "2", "--size", "624", "--requests", "20", "--no-aa")


def started(run: RunReader) -> list[float]:
    """Return when each sample began, by its client's clock, in seconds since 1970."""
    return [moment(text).timestamp() for text in run.samples["started_at"]]


def told_at(readings: dict[str, Any]) -> list[float]:
    """Return when each host's clock was read, by the controller's."""
    assert set(readings) == HOSTS
    return [moment(reading["at"]).timestamp() for reading in readings.values()]


def test_clocks_are_read_before_the_first_and_after_the_last_sample(
    lab: Lab, tmp_path: Path
) -> None:
    done = bench("run", "-i", lab.name, *RUN, "--blocks", "1", "--output", tmp_path)
    assert done.status == 0, done.stderr
    run = RunReader.open("latest", tmp_path)
    before, after = run.meta["clocks"]
    assert max(told_at(before)) <= min(started(run)) + 0.002  # the file has ms
    assert max(started(run)) <= min(told_at(after)) + 0.002
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for reading in (*before.values(), *after.values()):
        # One clock is zero seconds from itself, as far as can be told.
        assert abs(reading["offset_s"]) <= reading["uncertainty_s"]
        assert reading["boot_id"] == boot_id
        assert set(reading["kernel"]) == {"synchronised", "max_error_s"}
        assert reading["chrony"] is None or reading["chrony"]["stratum"] >= 0
    assert not any("clock" in text for text in run.meta["changes"])
    # What is asked stands in the log, by the controller's clock.
    log = (run.path / "raw" / "agents" / "hop1.log").read_text()
    assert log.count('"op": "clock"') >= 2 * 4
    assert "\nClocks: no host's differs" in bench("show", run.path).stdout
    assert json.loads(bench("show", run.path, "--json").stdout)["run"]["clocks"] == [before, after]

    more = bench("run", "-i", lab.name, "--resume", run.path, "--blocks", "2")
    assert more.status == 0, more.stderr
    first, second, *again = RunReader.open("latest", tmp_path).meta["clocks"]
    assert [first, second] == [before, after]
    assert [max(told_at(each)) > max(told_at(after)) for each in again] == [True, True]


def test_a_trace_has_the_controllers_time(lab: Lab) -> None:
    done = bench("trace", "-i", lab.name, "--hops", "2", "--fetch", "624", "--json")
    assert done.status == 0, done.stderr
    packets = [json.loads(line) for line in done.stdout.splitlines()]
    assert packets
    for packet in packets:
        # Hops of one machine share a clock: what lies between them is exact.
        assert [hop["uncertainty_ns"] for hop in packet["hops"]] == [0, 0]
