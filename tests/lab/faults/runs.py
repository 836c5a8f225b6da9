# SPDX-License-Identifier: Apache-2.0
"""A run that something happens to: started, watched from outside, and looked at afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.lab.model import NIC, Lab
from bench.runs import RunReader
from tests.lab.conftest import REPOSITORY, Done, bench, inside, processes
from tests.lab.offloads import state

ENDS_S = 60.0
"""How long a run that is to end may take to: it says why first, and then undoes everything."""


class Running:
    """`bench` at work in the background. output: where its results go."""

    def __init__(self, folder: Path, *words: str | Path, env: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / "results"
        self._errors = folder / f"stderr-{time.monotonic_ns()}"
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench", *map(str, words), "--output", str(self.output)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    @property
    def said(self) -> str:
        """What it has said on stderr so far."""
        return self._errors.read_text()

    @property
    def samples(self) -> list[str]:
        """The lines of its samples.csv so far, without the first."""
        for file in self.output.glob("*/samples.csv"):
            with contextlib.suppress(OSError):
                return file.read_text().splitlines()[1:]
        return []

    @property
    def measured(self) -> int:
        """How many samples it has that are no warm-up."""
        return sum(not line.startswith("000-") for line in self.samples)

    def until(
        self, condition: Callable[[], object], limit_s: float = 120.0, pause_s: float = 0.005
    ) -> None:
        """Wait for a condition; the run may not end before, and not take longer."""
        begin = time.monotonic()
        while not condition():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < begin + limit_s, self.said
            time.sleep(pause_s)

    def until_said(self, words: str, limit_s: float) -> float:
        """Wait for words on stderr; return how many seconds that took."""
        begin = time.monotonic()
        while words not in self.said:
            assert time.monotonic() < begin + limit_s, self.said
            time.sleep(0.05)
        return time.monotonic() - begin

    def end(self, limit_s: float = ENDS_S) -> Done:
        """Wait for its end; a traceback is a failure whatever the test looks for."""
        status = self.process.wait(timeout=limit_s)
        assert "Traceback" not in self.said, self.said
        return Done(status, "", self.said)

    def read(self) -> RunReader:
        """Return its run."""
        return RunReader.open("latest", self.output)


@contextlib.contextmanager
def running(
    folder: Path, *words: str | Path, env: dict[str, str] | None = None
) -> Iterator[Running]:
    """Start `bench`, and kill it at the end of the block if it is still there."""
    made = Running(folder, *words, env=env)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()


def small_run(
    lab: Lab, *words: str, modes: str = "nft,xdp", requests: int = 300
) -> tuple[str, ...]:
    """Return the words of a run of four cells in two blocks, or what other words make of it."""
    return (
        *("run", "-i", lab.name, "--mode", modes, "--hops", "1-2", "--size", "624"),
        *("--concurrency", "1", "--requests", str(requests), "--blocks", "2", "--no-aa", *words),
    )


def in_host(lab: Lab, host: str, *names: str) -> list[int]:
    """Return the ids of these programs in a host's namespace; without a name, of agents."""
    inode = Path(f"/run/netns/{lab.namespace(host)}").stat().st_ino
    found = []
    for pid, text in processes(*names):
        with contextlib.suppress(OSError):
            there = Path(f"/proc/{pid}/ns/net").stat().st_ino == inode
            if there and bool(names) != ("-m hop" in text):
                found.append(pid)
    return sorted(found)


def agent_of(lab: Lab, host: str) -> int:
    """Return the id of the one agent of a host."""
    (pid,) = in_host(lab, host)
    return pid


def send(number: signal.Signals, *pids: int) -> None:
    """Send a signal to processes; one that has ended does not mind."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def host_states(lab: Lab) -> dict[str, Any]:
    """Return what runs may change of hosts: XDP, tables, offloads, sysctls of the data NIC."""
    return {
        host.name: (
            state(lambda *argv, name=host.name: inside(lab, name, *argv)),
            inside(lab, host.name, "nft", "list", "ruleset"),
            "xdp" in inside(lab, host.name, "ip", "link", "show", NIC),
            inside(
                *(lab, host.name, "sysctl", "-a", "--pattern"),
                rf"net\.ipv[46]\.(conf\.({NIC}|all)\..*|ip_.*)",
            ),
        )
        for host in lab.hosts
    }


def resumed(lab: Lab, made: Running) -> RunReader:
    """Finish a run, and hold what it has then against what it had: kept, and nothing twice."""
    before = made.read()
    done = bench("run", "--resume", before.run_id, "-i", lab.name, "--output", made.output)
    assert done.status == 0, done.stderr
    after = made.read()
    assert after.run_id == before.run_id
    assert after.meta["status"] == "complete"
    assert after.samples["sample"].is_unique
    measured = after.samples[~after.samples["warmup"]]
    cells, blocks = len(after.meta["sweep"]["cells"]), after.meta["sweep"]["blocks"]
    assert len(measured) == cells * blocks
    kept = before.samples[before.samples["valid"] & ~before.samples["warmup"]]
    now = after.samples.set_index("sample").loc[kept["sample"]].reset_index()[kept.columns]
    assert now.equals(kept.reset_index(drop=True))
    assert not list(after.path.rglob("*.tmp"))
    return after
