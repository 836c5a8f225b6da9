# SPDX-License-Identifier: Apache-2.0
"""What the forwarder costs per packet on this machine, beside baselines: measured, summed up."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import __version__, paths
from bench.errors import BenchError, UsageError
from bench.hop.datapath_cases import MOST_FLOWS, STEPS
from bench.hop.process import die_with_parent
from bench.lab import preflight
from bench.stats import Interval, median, median_interval

METHODS = ("test_run", "live")
BASELINES = ("empty", "reflector", "router")
FORWARDER = ("forward", "return", "new-flow")
PROGRAMS = (*BASELINES, *FORWARDER)
FLOWS = (1, 1000, 60000)
_STEP = "step "  # what their cases' names begin with

_SEED = 1
_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-bpfcc belongs to
# Above this many a second somebody else was running on the CPU that was measured on.
_BUSY_PER_S = 20.0

Record = dict[str, Any]
Key = tuple[str, str, int]
"""Method, name of a case, flows that take turns."""


@dataclass(frozen=True)
class Amount:
    """How much is measured.

    rounds: of each method, fewer when limit_s is over. calls: test runs an observation is made
    of. packets: live frames that one is made of.
    """

    rounds: int
    calls: int
    packets: int
    limit_s: float


USUAL = Amount(rounds=60, calls=1000, packets=100_000, limit_s=15.0)
QUICK = Amount(rounds=8, calls=400, packets=30_000, limit_s=2.0)
_STEPS_TAKE = 3.0  # times as long, with --steps
_NO_LIMIT_S = 1e9


@dataclass(frozen=True)
class Wanted:
    """What to measure. flows: numbers of established flows, for forward. rounds: None for usual."""

    family: int = 4
    flows: tuple[int, ...] = FLOWS
    steps: bool = False
    quick: bool = False
    rounds: int | None = None

    def settings(self) -> Record:
        """Return what the measuring process has to know (bench/hop/datapath.py)."""
        amount = asdict(QUICK if self.quick else USUAL)
        if self.rounds is not None:
            amount |= {"rounds": self.rounds, "limit_s": _NO_LIMIT_S}
        elif self.steps:
            amount["limit_s"] *= _STEPS_TAKE
        return {
            "family": self.family,
            "seed": _SEED,
            "flows": list(self.flows),
            "steps": self.steps,
            **amount,
        }


@dataclass
class Measured:
    """Observations in ns per packet, one a round, and what the measuring process said besides."""

    ns: dict[Key, list[float]] = field(default_factory=dict)
    packets: dict[str, int] = field(default_factory=dict)
    facts: Record = field(default_factory=dict)

    def take(self, event: Mapping[str, Any]) -> None:
        """Add an event. Raises BenchError for the one that says what went wrong."""
        if event["event"] == "error":
            raise BenchError(event["cause"], remedy=event["remedy"] or None)
        if event["event"] != "round":
            self.facts |= {name: value for name, value in event.items() if name != "event"}
            return
        for case in event["cases"]:
            key = event["method"], case["name"], case["flows"]
            self.ns.setdefault(key, []).append(case["ns"])
            most = max(case["packets"], self.packets.get(event["method"], 0))
            self.packets[event["method"]] = most


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
    """Measure in a network namespace of its own, which ends with the process that does it.

    Raises BenchError when this machine cannot, or a program did not do what it was measured for.
    """
    _require_machine(wanted.family)
    measured = Measured()
    settings = wanted.settings()
    progress("compiling, and opening the flows")
    with _measuring(settings) as events:
        for event in events:
            if event["event"] == "round" and event["method"] not in measured.packets:
                progress(f"{event['method']}: up to {settings['rounds']} rounds")
            measured.take(event)
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


# --- statistics --------------------------------------------------------------------------------


def summary(measured: Measured, wanted: Wanted) -> Record:
    """Return what `bench datapath --json` prints.

    Everything is a median over rounds with its 95 % interval. In `net` and `ratios` it is the
    median of the rounds' own differences and quotients: what a program took in a round, less what
    the empty one took in it, or over another's.
    """
    ns = measured.ns
    methods = [method for method in METHODS if (method, "empty", 1) in ns]
    each = [(method, name) for method in methods for name in PROGRAMS]
    return {
        "programs": [
            {"name": name, "method": method, **_estimate(ns[method, name, 1])}
            for method, name in each
        ],
        "net": [
            {"name": name, "method": method, **_estimate(_net(ns, method, name))}
            for method, name in each
            if name != "empty"
        ],
        "ratios": list(_ratios(ns, methods)),
        "flows": [
            {
                "flows": flows,
                "method": method,
                **_estimate(ns[method, "forward", flows]),
                **_ratio(ns[method, "forward", flows], ns[method, "forward", 1]),
            }
            for method in methods
            for flows in wanted.flows
        ],
        **({"steps": list(_steps(ns))} if wanted.steps else {}),
        "family": wanted.family,
        "packets": measured.packets,
        "seed": _SEED,
        "host": host() | {"cpu": measured.facts["cpu"]},
        "notes": list(_notes(measured)),
    }


def _net(ns: Mapping[Key, Sequence[float]], method: str, name: str, flows: int = 1) -> list[float]:
    """Return what the rounds took above the empty program."""
    empty = ns[method, "empty", 1]
    return [a - b for a, b in zip(ns[method, name, flows], empty, strict=True)]


def _ratios(ns: Mapping[Key, Sequence[float]], methods: Sequence[str]) -> Iterator[Record]:
    """Yield what the forwarder takes over what baselines take; net of the empty program, too.

    Not net over the reflector, of which next to nothing is left then.
    """
    for method in methods:
        for a in FORWARDER:
            for b in ("reflector", "router"):
                pair = {"a": a, "b": b, "method": method}
                yield {**pair, "of": "ns", **_ratio(ns[method, a, 1], ns[method, b, 1])}
            nets = _net(ns, method, a), _net(ns, method, "router")
            yield {"a": a, "b": "router", "method": method, "of": "net", **_ratio(*nets)}


def _steps(ns: Mapping[Key, Sequence[float]]) -> Iterator[Record]:
    order = {f"{_STEP}{name}": number for number, name in enumerate(STEPS)}
    found = sorted((key for key in ns if key[1] in order), key=lambda key: (order[key[1]], key[2]))
    for method, name, entries in found:
        net = _estimate(_net(ns, method, name, entries))
        yield {"name": name.removeprefix(_STEP), "entries": entries, "method": method, **net}


def _estimate(values: Sequence[float]) -> Record:
    return {"ns": _rounded(median(values)), "ci95": _interval(values), "n": len(values)}


def _ratio(above: Sequence[float], below: Sequence[float]) -> Record:
    """Return the median of the rounds' quotients; None where a round has nothing to divide by."""
    if any(value <= 0 for value in below):
        return {"ratio": None, "ratio_ci95": None}
    values = [a / b for a, b in zip(above, below, strict=True)]
    return {"ratio": _rounded(median(values)), "ratio_ci95": _interval(values)}


def _interval(values: Sequence[float]) -> list[float | None] | None:
    found: Interval | None = median_interval(values)
    return None if found is None else [_rounded(end) for end in found]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


# --- circumstances -----------------------------------------------------------------------------


def host() -> Record:
    """Return what of this machine the figures depend on."""
    cpus = _text("/proc/cpuinfo").splitlines()
    models = [line.partition(":")[2].strip() for line in cpus if line.startswith("model name")]
    return {
        "hopbench": __version__,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "model": models[0] if models else None,
        "cpus": os.cpu_count(),
        "jit": _text("/proc/sys/net/core/bpf_jit_enable").strip() != "0",
        "clocksource": _text(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        ).strip(),
        "spectre_v2": _text("/sys/devices/system/cpu/vulnerabilities/spectre_v2").strip(),
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _notes(measured: Measured) -> Iterator[str]:
    """Yield what a reader of the figures has to know."""
    facts = measured.facts
    if not facts["live"]:
        yield "no live frames: they need Linux 5.18 or later"
    if facts["lost"]:
        yield f"{facts['lost']} live frames were lost on the way and not measured"
    if not host()["jit"]:
        yield "the BPF JIT is off: programs were interpreted"
    if facts["preempted"] > _BUSY_PER_S * facts["elapsed_s"]:
        yield (
            f"the CPU was not idle: others took it {facts['preempted']} times in "
            f"{facts['elapsed_s']:.0f} s"
        )
