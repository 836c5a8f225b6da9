# SPDX-License-Identifier: Apache-2.0
"""Offsets of clocks: from exchanges that are made up, and from an agent that answers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import write_run

from bench import clocks
from bench.cells import Cell
from bench.clocks import Reading
from bench.errors import BenchError
from bench.finding import Finding
from bench.hop import clock, facts_read
from bench.hop.errors import HopError
from bench.runfiles import read_run

REPOSITORY = Path(__file__).parents[2]
# What chronyc 4.3 prints of a server that goes by its own clock, and with nobody to ask.
LOCAL = (
    "7F7F0101,,8,1795451862.632677219,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,"
    "0.000000000,0.000000000,0.0,Normal\n"
)
NOBODY = "506 Cannot talk to daemon\n"
# chronyc(1)'s example of `tracking`, as CSV: 0.000006523 seconds slow of NTP time.
REMOTE = (
    "CB00710F,203.0.113.15,3,1422697440.123,0.000006523,-0.000006747,0.000035822,3.225,-0.000,"
    "0.129,0.013639022,0.001100737,64.2,Normal\n"
)


# --- one offset ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host_s", "round_trip_s", "expected"),
    [
        (1000.5, 1.0, (0.0, 0.5)),
        (1000.0, 1.0, (-0.5, 0.5)),
        (1001.0, 1.0, (0.5, 0.5)),
        (1037.0, 0.25, (36.875, 0.125)),
        (1000.0, 0.0, (0.0, 0.0)),
    ],
)
def test_one_exchange(host_s: float, round_trip_s: float, expected: tuple[float, float]) -> None:
    assert clocks.offset(1000.0, host_s, round_trip_s) == expected


_WAYS_NS = st.tuples(st.integers(0, 3 * 10**9), st.integers(0, 3 * 10**9))


@given(
    true_ns=st.integers(-(10**17), 10**17),
    ways=st.lists(_WAYS_NS, min_size=1, max_size=6),
    start_ns=st.integers(10**18, 2 * 10**18),
)
def test_the_true_offset_is_within_the_uncertainty(
    true_ns: int, ways: list[tuple[int, int]], start_ns: int
) -> None:
    """Whatever the ways there and back take, and however unlike they are."""
    exchanges, now_ns = [], start_ns
    for there_ns, back_ns in ways:
        host_ns = now_ns + there_ns + true_ns
        exchanges.append((now_ns, host_ns, there_ns + back_ns))
        now_ns += there_ns + back_ns + 1000
    found = clocks.closest(exchanges)
    # What floats round of offsets of up to three years is beside the point.
    rounding_s = 1e-9 + abs(true_ns) * 1e-9 * 2**-52
    assert abs(found.offset_s - true_ns / 1e9) <= found.uncertainty_s + rounding_s
    assert found.uncertainty_s == min(map(sum, ways)) / 2 / 1e9
    assert start_ns / 1e9 <= found.at_s <= now_ns / 1e9


def test_the_shortest_round_trip_wins() -> None:
    # The second answer was late on its way back, the third was not.
    exchanges = [
        (0, 10**9, 8 * 10**6),
        (10**7, 10**9 + 10**7, 10**9),
        (2 * 10**9, 3 * 10**9, 10**6),
    ]
    assert clocks.closest(exchanges) == Reading(2.0, 0.9995, 0.0005)


# --- asking ----------------------------------------------------------------------------------


class Host:
    """A host whose clock is ahead, and who takes a while."""

    def __init__(self, ahead_s: float, late_s: float = 0.0) -> None:
        self.ahead_s, self.late_s = ahead_s, late_s
        self.asked: list[dict[str, Any]] = []

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Answer with the real agent's words, some seconds ahead."""
        told = dict(message)
        self.asked.append({**told})
        assert told.pop("op") == "clock"
        time.sleep(self.late_s)
        answer = clock.answer(told)
        return {**answer, "realtime_ns": answer["realtime_ns"] + round(self.ahead_s * 1e9)}


@pytest.mark.parametrize("ahead_s", [0.0, 12.5, -86400.0])
def test_a_host_is_asked_several_times(ahead_s: float) -> None:
    host = Host(ahead_s)
    found = clocks.read(host.ask)
    assert 3 + 1 <= len(host.asked) <= clocks.EXCHANGES + 1
    assert abs(found.offset_s - ahead_s) <= found.uncertainty_s + 1e-6
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert found.boot_id == boot_id
    assert found.kernel is not None
    assert type(found.kernel["synchronised"]) is bool
    assert found.kernel["max_error_s"] >= 0


def test_a_slow_line_is_asked_less_often() -> None:
    host = Host(3.0, late_s=0.15)
    found = clocks.read(host.ask)
    assert len(host.asked) == 3 + 1
    # The delay was all on the way there: that is what the uncertainty is for.
    assert found.uncertainty_s > 0.07
    assert abs(found.offset_s - 3.0) <= found.uncertainty_s + 1e-6


def test_what_else_is_said_to_a_clock_is_refused() -> None:
    for message in ({"keeper": 1}, {"zone": "UTC"}):
        with pytest.raises(HopError):
            clock.answer(dict(message))


def test_every_agent_answers() -> None:
    """Before it has a place, too; and goes on after a question that makes no sense."""
    lines = [{"op": "clock"}, {"op": "clock", "keeper": 3}, {"op": "clock", "keeper": True}]
    for role in ("forward", "load", "serve"):
        before_ns = time.time_ns()
        done = subprocess.run(
            [sys.executable, "-B", "-m", "hop", role],
            input="".join(json.dumps(line) + "\n" for line in lines),
            cwd=REPOSITORY / "bench",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        first, error, last, _ = map(json.loads, done.stdout.splitlines())
        assert set(first) == {"event", "realtime_ns"}
        assert before_ns <= first["realtime_ns"] <= last["realtime_ns"] <= time.time_ns()
        assert error["event"] == "error"
        assert {"boot_id", "kernel", "chrony"} <= set(last)


# --- chrony ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (REMOTE, ("203.0.113.15", 3, True, -0.000006523, 0.013639022, 0.001100737)),
        (LOCAL, ("7F7F0101", 8, True, 0.0, 0.0, 0.0)),
        (LOCAL.replace("Normal", "Not synchronised"), ("7F7F0101", 8, False, 0.0, 0.0, 0.0)),
        *((each, None) for each in ("", NOBODY, "a,b,c,d,e", REMOTE.replace("0.000006523", "nan"))),
    ],
)
def test_what_chrony_says(line: str, expected: tuple[Any, ...] | None) -> None:
    found = clocks.parse_tracking(line)
    keys = ("source", "stratum", "synchronised", "offset_s", "root_delay_s", "root_dispersion_s")
    assert found == (None if expected is None else dict(zip(keys, expected, strict=True)))


@pytest.mark.parametrize(("prints", "said"), [(LOCAL, LOCAL), (NOBODY, NOBODY), ("", None)])
def test_chrony_is_asked_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prints: str, said: str | None
) -> None:
    program = tmp_path / "chronyc"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-n -c tracking" ] && printf %s "{prints}"\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(facts_read, "_PATH", f"{tmp_path}:/bin")
    assert clock.answer({"keeper": True})["chrony"] == said
    program.unlink()
    assert clock.answer({"keeper": True})["chrony"] is None


# --- during a run ----------------------------------------------------------------------------

THEN = Reading(1000.0, 0.25, 0.001, "one")


def after(by_s: float, *, in_s: float = 100.0, boot_id: str = "one") -> Reading:
    """Return a later reading of a clock that has moved."""
    return replace(THEN, at_s=THEN.at_s + in_s, offset_s=THEN.offset_s + by_s, boot_id=boot_id)


@pytest.mark.parametrize(
    ("moved_s", "texts"),
    [
        ({"hop1": 0.0, "hop2": 0.0}, []),
        # 0.1 s of drift in 100 s, and a millisecond of uncertainty each time.
        ({"hop1": 0.1, "hop2": -0.1}, []),
        (
            {"hop1": 0.11, "hop2": 0.0},
            ["hop1: its clock moved by +0.110 s against the controller's"],
        ),
        (
            {"hop1": -3600.0, "hop2": 7.0},
            [
                "hop1: its clock moved by -3600.000 s against the controller's",
                "hop2: its clock moved by +7.000 s against the controller's",
            ],
        ),
        ({"hop1": 5.0, "hop2": 5.01}, ["the controller's clock was set by -5.005 s"]),
    ],
)
def test_a_clock_that_was_set_is_told(moved_s: dict[str, float], texts: list[str]) -> None:
    before = {name: replace(THEN, boot_id=name) for name in moved_s}
    later = {name: after(by_s, boot_id=name) for name, by_s in moved_s.items()}
    assert clocks.steps(before, later) == texts


def test_hosts_of_one_machine_have_one_clock() -> None:
    """All of them moved alike because it was theirs that was set, not the controller's."""
    before = dict.fromkeys(("hop1", "hop2"), THEN)
    later = dict.fromkeys(("hop1", "hop2"), after(5.0))
    assert [text.split(":")[0] for text in clocks.steps(before, later)] == ["hop1", "hop2"]
    sharp, other = replace(THEN, uncertainty_s=0.0001), replace(THEN, boot_id="two")
    nameless = replace(sharp, boot_id=None)
    assert clocks.of_machines([sharp, THEN, other, nameless]) == {"one": sharp, "two": other}


@pytest.mark.parametrize(
    ("offsets", "said"),
    [
        ([], None),
        ([{}], None),
        (
            [{"hop1": (0.0001, 0.0002), "hop2": (0.0, 0.0004)}],
            "Clocks: no host's differs from the controller's as far as can be told (0.40 ms)",
        ),
        (
            [{"hop1": (9.0, 0.1)}, {"hop1": (0.5, 0.001), "hop2": (-1.25, 0.0004)}],
            "Clocks: hop2's differs most from the controller's, by -1.250000 s ± 0.40 ms; "
            "no figure depends on it",
        ),
    ],
)
def test_the_line_that_show_has(
    offsets: list[dict[str, tuple[float, float]]], said: str | None
) -> None:
    recorded = [
        clocks.record({name: Reading(1000.0, *pair) for name, pair in each.items()})
        for each in offsets
    ]
    assert clocks.sentence(recorded) == said


# --- run.json --------------------------------------------------------------------------------


def test_readings_survive_the_file(tmp_path: Path) -> None:
    chrony = clocks.parse_tracking(REMOTE)
    reading = replace(THEN, kernel={"synchronised": True, "max_error_s": 0.01}, chrony=chrony)
    recorded = clocks.record({"hop1": reading})
    assert recorded["hop1"]["at"] == "1970-01-01T00:16:40.000Z"
    path = write_run(tmp_path, [Cell("nft", "", 1, 624, 1, 100)], lambda *_: 1.0)
    edit(path, clocks=[recorded])
    assert read_run(path)[0]["clocks"] == [recorded]


def edit(path: Path, **values: Any) -> None:
    """Change values of run.json; None removes one."""
    document = json.loads((path / "run.json").read_text()) | values
    kept = {key: value for key, value in document.items() if value is not None or key not in values}
    (path / "run.json").write_text(json.dumps(kept))


def test_a_run_from_before_has_none(tmp_path: Path) -> None:
    path = write_run(tmp_path, [Cell("nft", "", 1, 624, 1, 100)], lambda *_: 1.0)
    edit(path, clocks=None)
    assert read_run(path)[0]["clocks"] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [1],
        [{"hop1": {}}],
        [{"hop1": [0.0, 0.0]}],
        [{"hop1": {"offset_s": "0", "uncertainty_s": 0.0}}],
        [{"hop1": {"offset_s": True, "uncertainty_s": 0.0}}],
    ],
)
def test_readings_that_make_no_sense_are_damage(tmp_path: Path, wrong: Any) -> None:
    path = write_run(tmp_path, [Cell("nft", "", 1, 624, 1, 100)], lambda *_: 1.0)
    edit(path, clocks=wrong)
    with pytest.raises(BenchError, match="damaged: clocks"):
        read_run(path)


# --- the doctor ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset_s", "uncertainty_s", "told"),
    [
        (0.0, 0.1, ""),
        (5.0, 0.0, ""),
        (9.0, 4.5, ""),
        (-37.25, 0.25, "-37.2 s"),
        (6.0, 0.5, "+6.0 s"),
    ],
)
def test_the_doctor_minds_what_is_certain(offset_s: float, uncertainty_s: float, told: str) -> None:
    found = clocks.finding("hop1", offset_s, uncertainty_s)
    assert (found is None) == (not told)
    if isinstance(found, Finding):
        assert (found.host, found.level) == ("hop1", "warning")
        assert told in found.text and "chrony" in found.remedy
