# SPDX-License-Identifier: Apache-2.0
"""How far each host's clock is from the controller's: for logs, never for a figure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench.finding import Finding
from bench.results import iso_utc

if TYPE_CHECKING:
    from bench.fleet import Agent

EXCHANGES = 5
# Over a slow line three exchanges have to do, or 64 hosts would keep each other waiting.
_FEWEST, _ENOUGH_S = 3, 0.3
# NTP slews by at most 0.05 % (adjtimex(2)), and the controller's clock may be slewed, too.
_SLEW = 0.001
_FAR_S = 5.0

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """A host's clock beside the controller's.

    at_s: when, by the controller's clock, in seconds since 1970. offset_s: how far the host's clock
    is ahead; the true value is within uncertainty_s of it. boot_id: hosts that share it share the
    clock. kernel, chrony: what the host itself knows, None where it does not (docs/results.md).
    """

    at_s: float
    offset_s: float
    uncertainty_s: float
    boot_id: str | None = None
    kernel: Record | None = None
    chrony: Record | None = None


def offset(asked_s: float, host_s: float, round_trip_s: float) -> tuple[float, float]:
    """Return (offset_s, uncertainty_s) of a host's clock from one exchange.

    asked_s: the controller's clock as the question left. host_s: the host's, as it answered.
    round_trip_s: until the answer was there. The host answered somewhere in between, so the middle
    is wrong by half the round trip at most, however unlike the two ways are (RFC 5905, 8).
    """
    half_s = round_trip_s / 2
    return host_s - (asked_s + half_s), half_s


def closest(exchanges: Iterable[tuple[int, int, int]]) -> Reading:
    """Return the reading of the exchange with the shortest round trip.

    exchanges: (asked, the host's clock, round trip) in ns each, at least one; integers, because a
    float knows the time of day to no better than 0.2 µs.
    """
    asked_ns, host_ns, trip_ns = min(exchanges, key=lambda each: each[2])
    return Reading(asked_ns / 1e9, *offset(0.0, (host_ns - asked_ns) / 1e9, trip_ns / 1e9))


def read(ask: Callable[[Mapping[str, Any]], Record]) -> Reading:
    """Exchange the time with a host. ask: sends it a message and returns its answer."""
    exchanges: list[tuple[int, int, int]] = []
    took_s = 0.0
    while len(exchanges) < EXCHANGES and (len(exchanges) < _FEWEST or took_s < _ENOUGH_S):
        # In this order: what lies between the two lengthens the round trip, and the bound holds.
        begin_ns, asked_ns = time.monotonic_ns(), time.time_ns()
        host_ns = int(ask({"op": "clock"})["realtime_ns"])
        exchanges.append((asked_ns, host_ns, time.monotonic_ns() - begin_ns))
        took_s += exchanges[-1][2] / 1e9
    found = closest(exchanges)
    said = ask({"op": "clock", "keeper": True})
    chrony = parse_tracking(said["chrony"] or "")
    return Reading(
        found.at_s, found.offset_s, found.uncertainty_s, said["boot_id"], said["kernel"], chrony
    )


def of_agents(agents: Sequence[Agent]) -> dict[str, Reading]:
    """Return {host name: reading}. Raises BenchError when an agent is gone.

    One host after the other: threads that wait for each other would lengthen the round trips.
    """
    return {agent.host.name: read(agent.ask) for agent in agents}


def parse_tracking(line: str) -> dict[str, Any] | None:
    """Return what `chronyc -c tracking` says, or None for anything else.

    offset_s: how far the system clock is ahead of NTP time. Its error is at most abs(offset_s) +
    root_dispersion_s + root_delay_s / 2 (chronyc(1)).
    """
    fields = line.strip().split(",")
    try:
        slow_s, delay_s, dispersion_s = (float(fields[place]) for place in (4, 10, 11))
        stratum = int(fields[2])
    except (IndexError, ValueError):
        return None
    # RFC 5905, 7.3: 16 is the highest, of a clock that is not synchronised.
    if not 0 <= stratum <= 16 or not all(map(math.isfinite, (slow_s, delay_s, dispersion_s))):
        return None
    return {
        "source": fields[1] or fields[0],
        "stratum": stratum,
        "synchronised": fields[-1] != "Not synchronised",
        "offset_s": -slow_s + 0.0,
        "root_delay_s": delay_s,
        "root_dispersion_s": dispersion_s,
    }


def record(readings: Mapping[str, Reading]) -> dict[str, dict[str, Any]]:
    """Return readings as run.json has them."""
    return {
        name: {
            "at": iso_utc(datetime.fromtimestamp(found.at_s, UTC)),
            **{key: value for key, value in asdict(found).items() if key != "at_s"},
        }
        for name, found in readings.items()
    }


def of_machines(readings: Iterable[Reading]) -> dict[str, Reading]:
    """Return {boot_id: the least uncertain reading}: hosts on one machine share a clock."""
    found: dict[str, Reading] = {}
    for each in sorted(readings, key=lambda reading: -reading.uncertainty_s):
        if each.boot_id is not None:
            found[each.boot_id] = each
    return found


def steps(before: Mapping[str, Reading], after: Mapping[str, Reading]) -> list[str]:
    """Return a text for each host whose clock moved by more than it drifts or can be told.

    Where all moved alike, it was the controller's.
    """
    moved: dict[str, float] = {}
    unknown_s = 0.0
    for name, then in before.items():
        if name not in after:
            continue
        now = after[name]
        by_s = now.offset_s - then.offset_s
        error_s = now.uncertainty_s + then.uncertainty_s
        error_s += _SLEW * abs(now.at_s - then.at_s)
        if abs(by_s) > error_s:
            moved[name] = by_s
            unknown_s = max(unknown_s, error_s)
    if len(moved) > 1 and len(moved) == len(before):
        low_s, high_s = min(moved.values()), max(moved.values())
        machines = {then.boot_id for then in before.values()}
        if high_s - low_s <= 2 * unknown_s and (len(machines) > 1 or None in machines):
            return [f"the controller's clock was set by {-(low_s + high_s) / 2:+.3f} s"]
    return [
        f"{name}: its clock moved by {by_s:+.3f} s against the controller's"
        for name, by_s in moved.items()
    ]


def sentence(clocks: Sequence[Mapping[str, Record]]) -> str | None:
    """Return one line on the last readings of run.json, None where there is none."""
    last = clocks[-1] if clocks else {}
    if not last:
        return None
    name, worst = max(last.items(), key=lambda item: abs(item[1]["offset_s"]))
    told = max(last.values(), key=lambda each: each["uncertainty_s"])["uncertainty_s"]
    if abs(worst["offset_s"]) <= worst["uncertainty_s"]:
        return f"Clocks: no host's differs from the controller's as far as can be told ({_s(told)})"
    return (
        f"Clocks: {name}'s differs most from the controller's, by {worst['offset_s']:+.6f} s "
        f"± {_s(worst['uncertainty_s'])}; no figure depends on it"
    )


def _s(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def finding(host: str, offset_s: float, uncertainty_s: float) -> Finding | None:
    """Return what the doctor says of a clock: nothing unless it is certain to be far off."""
    if abs(offset_s) - uncertainty_s <= _FAR_S:
        return None
    return Finding(
        host,
        "warning",
        f"its clock is {offset_s:+.1f} s off the controller's, give or take {uncertainty_s:.1f} s",
        "set it, or install chrony: no figure depends on it, but apt refuses packages that are not "
        "valid yet, and times in logs have to be converted",
    )


def check(clocks: object) -> None:
    """Raise ValueError unless this is what run.json has as `clocks`."""
    if not isinstance(clocks, list) or not all(isinstance(each, dict) for each in clocks):
        raise ValueError("clocks are not readings")
    for each in clocks:
        for reading in each.values():
            numbers = [
                reading.get(key) if isinstance(reading, dict) else None
                for key in ("offset_s", "uncertainty_s")
            ]
            if not all(type(number) in (int, float) for number in numbers):
                raise ValueError("clocks are not readings")
