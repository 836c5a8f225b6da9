# SPDX-License-Identifier: Apache-2.0
"""The longest chain of the lab: up, deployed, measured in every mode, and gone, within minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.lab.model import MAX_HOPS
from bench.runs import RunReader
from tests.lab.conftest import bench, differences, machine
from tests.valid import require_valid

NAME = "ldlong"
LIMIT_S = 240.0
MODES = ("direct", "socat", "nft", "xdp")
# socat forks twice a connection at each hop: 20 of them are 2,560 processes.
REQUESTS = 20

Record = Callable[[str, object], None]


def test_the_longest_chain(tmp_path: Path, record_property: Record) -> None:
    before, was_deployed = machine(), Path("/opt/hopbench").exists()
    parts_s: dict[str, float] = {}

    def part(*words: str | Path) -> None:
        begin = time.monotonic()
        done = bench(*words)
        parts_s[" ".join(map(str, words[:2])).replace(" -i", "")] = time.monotonic() - begin
        assert done.status == 0, done.stderr

    part("lab", "up", "--name", NAME, "--hops", str(MAX_HOPS))
    try:
        part("deploy", "-i", NAME)
        part(
            *("run", "-i", NAME, "--mode", ",".join(MODES), "--hops", str(MAX_HOPS)),
            *("--size", "624", "--concurrency", "1", "--requests", str(REQUESTS)),
            *("--blocks", "1", "--no-aa", "--output", tmp_path),
        )
        if not was_deployed:
            part("undeploy", "-i", NAME)
    finally:
        part("lab", "down", "--name", NAME)
    total_s = sum(parts_s.values())
    for name, took_s in {**parts_s, "total": total_s}.items():
        print(f"{name}: {took_s:.1f} s")
        record_property(f"long_chain_{name.replace(' ', '_')}_s", round(took_s, 1))
    run = RunReader.open("latest", tmp_path)
    print({key: run.meta[key] for key in run.meta if "timing" in key})
    samples = run.samples[~run.samples["warmup"]]
    require_valid(samples)
    assert sorted(samples["mode"]) == sorted(MODES)
    assert set(samples["hops"]) == {0, MAX_HOPS}
    assert (samples["transactions"] == REQUESTS).all()
    assert len(run.meta["host_facts"]) == MAX_HOPS + 2
    assert differences(before) == {}
    assert total_s <= LIMIT_S
