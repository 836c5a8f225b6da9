# SPDX-License-Identifier: Apache-2.0
"""The clocks of the controller and of every host are set in mid-run: durations stay right."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from bench.lab.model import Lab
from tests.lab.conftest import differences, machine
from tests.lab.faults.runs import running, small_run

_SOURCE = Path(__file__).with_name("clock_step.c")
_HOUR_S = 3600


@pytest.fixture
def clock(tmp_path: Path) -> dict[str, str]:
    """What programs have to inherit for their time of day to follow a file's seconds."""
    library, file = tmp_path / "clock_step.so", tmp_path / "step"
    # Whichever the BPF sources are tried with.
    compiler = max(Path("/usr/bin").glob("clang-[0-9][0-9]"))
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, _SOURCE], check=True)
    file.write_bytes(bytes(8))
    return {"LD_PRELOAD": str(library), "STEP_FILE": str(file)}


def _set(clock: dict[str, str], seconds: int) -> None:
    # In place: those who look have the file mapped.
    with Path(clock["STEP_FILE"]).open("r+b") as file:
        file.write(seconds.to_bytes(8, "little", signed=True))


def test_clocks_that_are_set(faulty: Lab, tmp_path: Path, clock: dict[str, str]) -> None:
    before = machine()
    config = faulty.folder / "sshd_config"
    original = config.read_text()
    inherited = " ".join(f"{name}={value}" for name, value in clock.items())
    config.write_text(f"{original}SetEnv {inherited}\n")
    begin = time.monotonic()
    try:
        words = small_run(faulty, "--hops", "2", "--blocks", "8", requests=1000)
        with running(tmp_path, *words, env=clock) as made:
            for samples, seconds in ((3, _HOUR_S), (7, -_HOUR_S), (11, 0)):
                made.until(lambda count=samples: made.measured >= count)
                _set(clock, seconds)
            done = made.end(120)
    finally:
        config.write_text(original)
    took_s = time.monotonic() - begin
    assert done.status == 0, done.stderr
    run = made.read()
    assert run.meta["status"] == "complete"
    # The steps were seen where they were made: samples' times of day leap, and hosts' with them.
    started = pd.to_datetime(run.samples["started_at"], format="ISO8601")
    assert started.diff().max() > pd.Timedelta(seconds=_HOUR_S - 60)
    assert started.diff().min() < pd.Timedelta(seconds=60 - _HOUR_S)
    # A sample during which a clock was set is not counted, and no other is lost.
    reasons = run.samples["invalid_reason"].dropna()
    assert len(reasons[reasons.str.len() > 0]) <= 6, reasons.tolist()
    # No duration is taken from a clock that can be set.
    assert 0 < run.meta["timing"]["wall_s"] < took_s
    assert 0 < run.samples["wall_s"].min() <= run.samples["wall_s"].max() < took_s
    connections = pd.read_parquet(run.path / "connections.parquet")
    assert connections["response_us"].between(0, took_s * 1e6).all()
    assert differences(before) == {}
