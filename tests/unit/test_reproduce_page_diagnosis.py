# SPDX-License-Identifier: Apache-2.0
"""Reasons that are given only where the counters bear them, and what is said where they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reproduced import faulty, smooth, usual, write_reproduction

from bench.cells import Cell
from bench.reproduce import answer, counters, diagnosis, tally
from bench.reproduce.diagnosis import Finding, findings, holding
from bench.reproduce.examined import Examined
from bench.reproduce.tally import Tally

SYN, SUMS = tally.SYN_AGAIN, tally.SUM_ERRORS
PAWS = "TcpExtPAWSTimewait"


def made(
    mode: str, *, prompt: int = 0, at: dict[float, int] | None = None, never: int = 0, **more: Any
) -> Tally:
    """Return a tally of 100 connections or what there are, one sample's counters given."""
    times = [40.0] * prompt
    for step_s, number in (at or {}).items():
        times += [step_s * 1e6] * number
    rises = more.pop("rises", {})
    count = len(times) + never
    known: dict[str, Any] = {
        "samples": 1,
        "connect_us": np.array(times),
        "failed_us": np.full(never, 3e6),
        "rises": rises,
        "by_sample": [rises] if rises else [],
        "counted": count,
        "lasted_s": 43.0,
    }
    return Tally(mode, **{**known, **more})


def like_2022(**changes: Any) -> dict[str, Tally]:
    """Return what the report's filter does with timestamps of one clock, beside the others."""
    none = {SYN: 0.0, SUMS: 0.0, PAWS: 0.0}
    cpu = {"cpu_s": 86.0, "busy_s": 1.0, "interrupt_s": 0.5}
    rises = {SYN: 40.0, SUMS: 250.0, PAWS: 0.0}
    return {
        "socat": made("socat", prompt=100, rises=none),
        "xdp": made("xdp", prompt=100, rises=none),
        "legacy": made(
            "legacy", **{"prompt": 60, "at": {1.02: 40}, "rises": rises, **cpu, **changes}
        ),
    }


def found(tallies: dict[str, Tally]) -> dict[str, Finding]:
    """Return the findings by their keys."""
    return {each.key: each for each in findings(tallies)}


def test_the_chain_of_reasons_where_all_of_it_shows() -> None:
    told = found(like_2022())
    held = holding(list(told.values()))
    assert held == {"waits", "refused", "thrown_away", "together", "idle", "control"}
    assert "40 of 100 connections were open only at a step" in told["waits"].text
    assert "sent a SYN again 40 times for 100 connections" in told["waits"].text
    assert "40 of 40 late connections were open after one wait" in told["refused"].text
    assert "are not what it was" in told["refused"].text
    assert "250 segments for 100 connections were thrown away" in told["thrown_away"].text
    assert "in 1 of the filter's 1 sample, and in 0 of 2" in told["together"].text
    assert "interrupts took 0.6 % of the machine's CPU time" in told["idle"].text
    assert "failed none of 100 connections" in told["control"].text
    assert any("at about 1 s 40 (40 %)" in line for line in told["waits"].evidence)
    assert "legacy" not in " ".join(each.text for each in told.values())


def test_a_filter_refused_for_its_timestamps() -> None:
    tallies = like_2022(prompt=45, at={}, never=55, rises={SYN: 160.0, SUMS: 300.0, PAWS: 200.0})
    told = found(tallies)
    assert told["waits"].holds and "No connection was open after a wait" in told["waits"].text
    assert told["refused"].holds
    assert "200 times for 100 connections a timestamp was older" in told["refused"].text


def test_steps_of_three_seconds_are_told_apart() -> None:
    told = found(like_2022(prompt=56, at={1.03: 40, 3.05: 4}))
    (line, *_) = told["waits"].evidence
    assert "at about 1 s 40 (40 %), at about 3 s 4 (4.0 %)" in line


ABSENT: dict[str, tuple[dict[str, Any], str, str]] = {
    "no wait at all": (
        {"prompt": 100, "at": {}, "rises": {SYN: 0.0, SUMS: 0.0, PAWS: 0.0}},
        "waits",
        "of 100 connections 100 were open within 10 ms, and no SYN was sent again",
    ),
    "late, but at no step": (
        {"prompt": 60, "at": {1.5: 40}, "rises": {SYN: 0.0, SUMS: 0.0, PAWS: 0.0}},
        "waits",
        "40 were late at no step of its timer",
    ),
    "late without a counter": (
        {"prompt": 60, "at": {1.5: 40}, "rises": {"cpu_user_s": 1.0}},
        "waits",
        "that counter is not known",
    ),
    "no refusal": (
        {"rises": {SYN: 40.0, SUMS: 0.0, PAWS: 0.0, "TcpExtListenDrops": 40.0}},
        "refused",
        "What rose with this filter and not with the others: "
        "TcpExtTCPSynRetrans (40 for 100) and TcpExtListenDrops (40 for 100)",
    ),
    "refusals as with the others": (
        {"at": {1.02: 20, 3.05: 20}, "rises": {SYN: 40.0, SUMS: 250.0, PAWS: 0.0}},
        "refused",
        "of 40 late connections 20 were open after one wait",
    ),
    "no wrong checksum": (
        {"rises": {SYN: 40.0, SUMS: 0.0, PAWS: 0.0}},
        "thrown_away",
        "the counter of wrong checksums rose 0 times for 100 connections",
    ),
    "checksums not counted": (
        {"rises": {SYN: 40.0}},
        "thrown_away",
        "the counter of wrong checksums is not known",
    ),
    "not in the same samples": (
        {"by_sample": [{SYN: 40.0, SUMS: 0.0}, {SYN: 0.0, SUMS: 250.0}]},
        "together",
        "both rose in only 0 of the filter's 2 samples",
    ),
    "interrupts took the time": (
        {"interrupt_s": 30.0, "busy_s": 60.0},
        "idle",
        "CPU time alone does not rule interrupts out",
    ),
    "CPU time not known": ({"cpu_s": 0.0}, "idle", "was not recorded"),
}


@pytest.mark.parametrize("how", ABSENT)
def test_what_does_not_show_is_not_said(how: str) -> None:
    changes, key, words = ABSENT[how]
    told = found(like_2022(**changes))
    assert not told[key].holds
    assert words in told[key].text


def test_a_counter_that_rises_with_everybody_speaks_for_nothing() -> None:
    tallies = like_2022()
    noisy = {SYN: 30.0, SUMS: 100.0, PAWS: 0.0}
    tallies["socat"] = replace(tallies["socat"], rises=noisy, by_sample=[noisy])
    told = found(tallies)
    assert not told["thrown_away"].holds and not told["refused"].holds


CONTROL: dict[str, tuple[Tally | None, str]] = {
    "not measured": (None, "was not measured on the loopback"),
    "nothing timed": (made("xdp"), "was not measured on the loopback"),
    "failures": (made("xdp", prompt=97, never=3, failed=3), "3 were never open, and 3 requests"),
    "waits": (made("xdp", prompt=99, at={1.02: 1}), "1 were late, 0 were never open"),
    "repeated SYNs": (made("xdp", prompt=100, rises={SYN: 2.0}), "Loopback cannot be ruled out"),
}


@pytest.mark.parametrize("how", CONTROL)
def test_loopback_is_cleared_only_by_a_clean_control(how: str) -> None:
    corrected, words = CONTROL[how]
    tallies = like_2022()
    del tallies["xdp"]
    if corrected is not None:
        tallies["xdp"] = corrected
    told = found(tallies)
    assert not told["control"].holds and words in told["control"].text


def test_the_kernels_own_timestamps() -> None:
    tallies = like_2022()
    assert not found(tallies)["today"].holds
    tallies["legacy-today"] = made(
        "legacy-today", prompt=12, never=15, rises={PAWS: 95.0, SYN: 45.0, SUMS: 165.0}
    )
    told = found(tallies)["today"]
    assert told.holds and "15 of 27 connections were never open" in told.text
    assert "refused 352 times for 100 connections" in told.text
    tallies["legacy-today"] = made("legacy-today", prompt=27, rises={PAWS: 0.0})
    told = found(tallies)["today"]
    assert not told.holds and "0 of 27 connections were never open" in told.text


def test_without_the_filter_nothing_is_explained() -> None:
    tallies = like_2022()
    del tallies["legacy"]
    (only,) = findings(tallies)
    assert not only.holds and "cannot be explained" in only.text
    assert findings({"legacy": Tally("legacy")}) == [only]


def test_shares() -> None:
    each = made("legacy", prompt=3, at={0.5: 2, 1.03: 4, 2.05: 1, 3.1: 5, 1.6: 1}, never=2).shares
    assert (each.prompt, each.between, each.elsewhere, each.never) == (3, 2, 1, 2)
    assert dict(each.at) == {1: 4, 2: 1, 3: 5}
    assert (each.waited, each.total) == (10, 18)


def test_tallies_are_made_of_the_run(tmp_path: Path) -> None:
    reproduction = write_reproduction(tmp_path, chain=None, blocks=2)
    found = tally.tallies(reproduction.loopback)
    assert list(found) == ["direct", "socat", "legacy", "xdp"]
    legacy = found["legacy"]
    # 2 sizes, 2 numbers of forwarders and 2 blocks of 30 + 40 + 5 + 25 connections.
    assert (legacy.samples, legacy.connections, legacy.counted, legacy.failed) == (8, 800, 800, 200)
    assert legacy.per_100(SYN) == pytest.approx(40 + 2 * 5 + 3 * 25)
    assert legacy.per_100("TcpExtPAWSEstab", "TcpExtPAWSTimewait") == pytest.approx(70)
    assert legacy.per_100("TcpExtNothing") is None
    assert legacy.cpu_s == pytest.approx(8 * 200.55) and legacy.busy_s == pytest.approx(8 * 0.55)
    assert "tcp_time_wait" not in legacy.rises
    assert len(legacy.first_waits_us) == 320
    assert found["xdp"].shares.prompt == found["xdp"].connections == 800


def test_a_run_without_times_or_counters_has_tallies(tmp_path: Path) -> None:
    reproduction = write_reproduction(
        tmp_path,
        loopback=lambda cell, block: replace(usual(cell, block), timed=False, counters={}),
        chain=None,
    )
    found = tally.tallies(reproduction.loopback)
    assert found["legacy"].connections == found["legacy"].counted == 0
    assert found["legacy"].failed == 100
    assert counters.tables(found) == []
    assert "cannot be explained" in answer.lines(reproduction)[1]
    assert tally.tallies(None) == {}


def test_counters_are_per_100_connections(tmp_path: Path) -> None:
    reproduction = write_reproduction(
        tmp_path,
        loopback=lambda cell, block: (
            faulty(forwarder_syns=150) if cell.mode == "legacy" else smooth(50, **{SYN: 1})
        ),
        cells=[Cell("legacy", "generic", 1, 312, 1, 100), Cell("xdp", "generic", 1, 312, 1, 50)],
        chain=None,
    )
    shares, counted = counters.tables(tally.tallies(reproduction.loopback))
    assert [column.title for column in counted.columns] == [
        "what",
        "counter",
        "2022 filter",
        "corrected",
    ]
    rows = {row[1].text: [entry.text for entry in row[2:]] for row in counted.rows}
    assert rows[SYN] == ["125", "2.0"]
    assert rows["forwarder_syns"] == ["150", "\N{EN DASH}"]
    assert [row[1].value for row in shares.rows] == [100.0, 50.0]
    assert "legacy,100,30,0,40,5,0,25" in shares.csv


def test_every_finding_is_one_of_the_chain() -> None:
    keys = [each.key for each in findings(like_2022())]
    assert len(keys) == len(set(keys)) == 7
    assert all(callable(getattr(diagnosis, key)) for key in keys)


def test_the_reason_in_the_answer_follows_what_holds(tmp_path: Path) -> None:
    def choice(cell: Cell, block: int) -> Any:
        if cell.mode == "legacy":
            return faulty(TcpInCsumErrors=0, TcpExtPAWSEstab=0, cpu_softirq_s=500.0)
        return usual(cell, block)

    examined = Examined.of(write_reproduction(tmp_path, loopback=choice, chain=None))
    reason = answer.told(examined)[1]
    assert "180 waited" in reason and "TIME_WAIT" not in reason and "checksum" not in reason
    assert reason.endswith("It was not loopback.")
