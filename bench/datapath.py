# SPDX-License-Identifier: Apache-2.0
"""Measuring what the forwarder costs per packet on this machine, beside baselines."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import paths
from bench.errors import BenchError, UsageError
from bench.hop.datapath_cases import MOST_FLOWS
from bench.hop.process import die_with_parent
from bench.lab import preflight

METHODS = ("test_run", "live")
BASELINES = ("empty", "reflector", "router")
FORWARDER = ("forward", "return", "new-flow")
PROGRAMS = (*BASELINES, *FORWARDER)
FLOWS = (1, 1000, 60000)

SEED = 1
_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-bpfcc belongs to

Record = dict[str, Any]
Key = tuple[str, str, int]
"""Method, name of a case, flows that take turns."""


@dataclass(frozen=True)
class Amount:
    """How much is measured.

    loads: how often the programs are compiled and loaded anew. rounds: of each method with each
    load, fewer when limit_s is over. calls: test runs an observation is made of. packets: live
    frames that one is made of.
    """

    loads: int
    rounds: int
    calls: int
    packets: int
    limit_s: float


# Where in memory a program and its maps come to lie is up to chance, and worth nanoseconds: more
# than the rounds of one load differ by.
USUAL = Amount(loads=3, rounds=20, calls=1000, packets=40_000, limit_s=5.0)
QUICK = Amount(loads=1, rounds=8, calls=400, packets=30_000, limit_s=2.0)
_STEPS_TAKE = 4.0  # times as long, with --steps
_NO_LIMIT_S = 1e9


@dataclass(frozen=True)
class Wanted:
    """What to measure. flows: numbers of established flows, for forward.

    rounds: of each method in all, however long they take; None for as many as usual.
    """

    family: int = 4
    flows: tuple[int, ...] = FLOWS
    steps: bool = False
    quick: bool = False
    rounds: int | None = None

    @property
    def amount(self) -> Amount:
        """How much is measured."""
        amount = QUICK if self.quick else USUAL
        if self.rounds is not None:
            each = -(-self.rounds // amount.loads)
            return replace(amount, rounds=each, limit_s=_NO_LIMIT_S)
        if self.steps:
            return replace(amount, limit_s=amount.limit_s * _STEPS_TAKE)
        return amount

    def settings(self, load: int) -> Record:
        """Return what a measuring process has to know (bench/hop/datapath.py)."""
        amount = asdict(self.amount)
        del amount["loads"]
        chosen = {"family": self.family, "flows": list(self.flows), "steps": self.steps}
        return {**chosen, "seed": SEED + load, **amount}


@dataclass
class Measured:
    """What measuring processes said.

    ns: ns per packet, one observation a round. loads: for each method, with which load each round
    was. packets: the most that an observation was made of. lost: live frames that did not arrive.
    run_s, wait_s: for how long measuring had its CPU, and for how long others did instead.
    """

    ns: dict[Key, list[float]] = field(default_factory=dict)
    loads: dict[str, list[int]] = field(default_factory=dict)
    packets: dict[str, int] = field(default_factory=dict)
    cpu: int | None = None
    live: bool = True
    lost: int = 0
    run_s: float = 0.0
    wait_s: float = 0.0

    def take(self, load: int, event: Mapping[str, Any]) -> None:
        """Add an event. Raises BenchError for the one that says what went wrong."""
        if event["event"] == "error":
            raise BenchError(event["cause"], remedy=event["remedy"] or None)
        if event["event"] == "ready":
            self.cpu = event["cpu"]
        elif event["event"] == "round":
            method = event["method"]
            self.loads.setdefault(method, []).append(load)
            for case in event["cases"]:
                self.ns.setdefault((method, case["name"], case["flows"]), []).append(case["ns"])
                self.packets[method] = max(case["packets"], self.packets.get(method, 0))
        elif event["event"] == "done":
            self.live = self.live and event["live"]
            self.lost += event["lost"]
            self.run_s += event["run_s"]
            self.wait_s += event["wait_s"]


def parse_flows(text: str) -> tuple[int, ...]:
    """Return numbers of flows in ascending order, from a list with commas. Raises UsageError."""
    try:
        found = {int(word) for word in text.split(",")}
    except ValueError:
        raise UsageError(f"--flows: {text} is not a list of numbers with commas") from None
    if not all(1 <= count <= MOST_FLOWS for count in found):
        raise UsageError(f"--flows: a hop has room for 1 to {MOST_FLOWS} flows, its ports")
    return tuple(sorted(found))


# --- measuring ---------------------------------------------------------------------------------


def measure(wanted: Wanted, progress: Callable[[str], None]) -> Measured:
    """Measure in network namespaces that end with the processes that do it.

    Raises BenchError when this machine cannot, or a program did not do what it was measured for.
    """
    _require_machine(wanted.family)
    measured, loads = Measured(), wanted.amount.loads
    for load in range(loads):
        which = f"load {load + 1} of {loads}: " if loads > 1 else ""
        progress(f"{which}compiling, and opening the flows")
        seen: set[str] = set()
        with _measuring(wanted.settings(load)) as events:
            for event in events:
                method = event.get("method")
                if method and method not in seen:
                    seen.add(method)
                    progress(f"{which}{method}")
                measured.take(load, event)
    return measured


def _require_machine(family: int) -> None:
    preflight.require_root("measuring the datapath")
    if not Path(f"/proc/sys/net/ipv{family}").is_dir():
        raise BenchError(f"this kernel has no IPv{family}", remedy="boot it without ipv6.disable=1")
    problem = preflight.bpf_problem()
    if problem:
        raise BenchError(problem, remedy="a kernel with BPF, outside a restricted container")
    if not (Path(_PYTHON).exists() and Path("/usr/lib/python3/dist-packages/bcc").is_dir()):
        raise BenchError("BCC for Python is not installed", remedy="apt-get install python3-bpfcc")


@contextmanager
def _measuring(settings: Record) -> Iterator[Iterator[Record]]:
    """Start the process that measures, yield its events, and end it whatever happens."""
    with tempfile.TemporaryFile() as log:
        # From the package's parent folder, so that `hop` is found under that name. In a session of
        # its own: a terminal's Ctrl-C is for this process, which then ends that one.
        process = subprocess.Popen(
            [_PYTHON, "-B", "-m", "hop", "datapath"],
            cwd=paths.hop_package().parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # One that has ended already is heard of below.
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(settings).encode())
            yield map(json.loads, process.stdout)
            if process.wait():
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                raise BenchError(f"measuring ended: {lines[-1] if lines else 'without a word'}")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
