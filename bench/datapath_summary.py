# SPDX-License-Identifier: Apache-2.0
"""The statistics of `bench datapath`: medians over rounds, what is above empty, ratios."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench import __version__
from bench.datapath import FORWARDER, METHODS, PROGRAMS, SEED, Key, Measured, Record, Wanted
from bench.hop.datapath_cases import AT_RANDOM, IN_ORDER, STEPS
from bench.stats import Interval, median, median_interval

_STEP = "step "  # what the names of their cases begin with
# Of the time of the CPU that is measured on; kernel threads take far less.
_BUSY_SHARE = 0.02


def summary(measured: Measured, wanted: Wanted) -> Record:
    """Return what `bench datapath --json` prints.

    Everything is a median over rounds with its 95 % interval. In `net` and `ratios` it is the
    median of the rounds' own differences and quotients: what a program took in a round, less what
    the empty one took in it, or over another's. In `loads` it is that of each load's rounds.
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
                "name": name.split(" ")[0],
                "flows": flows,
                "order": order,
                "method": method,
                **_estimate(ns[method, name, flows]),
                **_ratio(ns[method, name, flows], ns[method, "forward", 1]),
            }
            for method in methods
            for name, flows, order in (
                *(("forward", flows, "random") for flows in wanted.flows),
                (IN_ORDER, max(wanted.flows), "memory"),
                ("new-flow", 1, "memory"),
                (AT_RANDOM, 1, "random"),
            )
        ],
        **({"steps": list(_steps(ns))} if wanted.steps else {}),
        "loads": [
            {"name": name, "method": method, "ns": _by_load(measured, method, name)}
            for method, name in each
        ],
        "family": wanted.family,
        "packets": measured.packets,
        "seed": SEED,
        "host": host() | {"cpu": measured.cpu},
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


def _by_load(measured: Measured, method: str, name: str) -> list[float | None]:
    """Return a program's median with each load."""
    found: dict[int, list[float]] = {}
    for load, ns in zip(measured.loads[method], measured.ns[method, name, 1], strict=True):
        found.setdefault(load, []).append(ns)
    return [_rounded(median(values)) for _, values in sorted(found.items())]


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
    if not measured.live:
        yield "no live frames: they need Linux 5.18 or later"
    if measured.lost:
        yield f"{measured.lost} live frames were lost on the way and not measured"
    if not host()["jit"]:
        yield "the BPF JIT is off: programs were interpreted"
    others = measured.wait_s / (measured.run_s + measured.wait_s)
    if others > _BUSY_SHARE:
        yield f"the machine was not idle: others had the CPU for {others:.0%} of the time"
