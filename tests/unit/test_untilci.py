# SPDX-License-Identifier: Apache-2.0
"""How many blocks are enough: what a user may ask for, and what a run's intervals say."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import connections, write_run

from bench.cells import Cell
from bench.errors import BenchError, UsageError
from bench.untilci import (
    DEFAULT_LIMIT_S,
    Until,
    judge,
    parse_duration_s,
    parse_half_width,
    wide,
)

# What a user may write


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("5%", 0.05),
        (" 5 % ", 0.05),
        ("0.05", 0.05),
        (".05", 0.05),
        ("2.5%", 0.025),
        ("0.1%", 0.001),
        ("50%", 0.5),
        ("0.5", 0.5),
        ("000.05", 0.05),
    ],
)
def test_shares(text: str, share: float) -> None:
    assert parse_half_width(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text",
    [
        *("", "%", "5", "0", "0%", "0.09%", "51%", "100%", "1", "-5%", "+5%", "5%%", "5 %5"),
        *("nan", "inf", "1e-2", "0x1", "5,0%", "٣%", "5\n6%", "9" * 5000, "5." + "0" * 500 + "%"),
        *("5.%", ".%", "five", "\x1b[31m", "5%\x00"),
    ],
)
def test_no_shares(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_half_width(text)
    line = caught.value.one_line()
    assert line.startswith("--until-ci: ")
    assert line.endswith("is not a share from 0.1% to 50%, such as 5%")
    assert line.isprintable()
    assert len(line) < 250


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("90 s", 90),
        (" 20m ", 1200),
        ("20min", 1200),
        ("1.5h", 5400),
        ("1s", 1),
        ("168h", 7 * 86400),
        ("0.5m", 30),
        ("604800", 7 * 86400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "0", "0.9s", "169h", "-5m", "1h30m", "1d", "m20", "5 m 5", "1e3", "inf", "nan"),
        *("1.0000s", ".5h", "٣m", "1_0s", "9" * 5000, "20M", "20m\n20m", "\x1b[31m", "7\x00s"),
    ],
)
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration_s(text)
    line = caught.value.one_line()
    assert line.startswith("--time-limit: ")
    assert line.endswith("is not a time such as 90s, 20m or 2h")
    assert line.isprintable()
    assert len(line) < 250


@given(st.text())
def test_any_text_is_a_share_or_a_usage_error(text: str) -> None:
    try:
        assert 0.001 <= parse_half_width(text) <= 0.5
    except UsageError as error:
        assert error.one_line().isprintable()


@given(st.text())
def test_any_text_is_a_duration_or_a_usage_error(text: str) -> None:
    try:
        assert 1 <= parse_duration_s(text) <= 7 * 86400
    except UsageError as error:
        assert error.one_line().isprintable()


@given(st.integers(1, 500).map(lambda share: share / 1000))
def test_a_share_is_the_same_in_percent(share: float) -> None:
    assert parse_half_width(f"{share:.3f}") == pytest.approx(share)
    assert parse_half_width(f"{share * 100:.1f}%") == pytest.approx(share)


@given(st.integers(1, 168), st.sampled_from(["h", " h"]))
def test_hours_are_minutes_are_seconds(hours: int, unit: str) -> None:
    seconds = parse_duration_s(f"{hours}{unit}")
    # Up to six digits.
    assert seconds == parse_duration_s(f"{hours * 60}m") == parse_duration_s(f"{hours * 3600}s")


def test_what_is_written_down() -> None:
    assert Until(0.05).record() == {"half_width": 0.05, "limit_s": DEFAULT_LIMIT_S}
    assert Until(**Until(0.02, 90.0).record()) == Until(0.02, 90.0)


# Which pairs are too wide


def pair(
    ci95: list[float] | None, ratio: float | None = 1.0, metric: str = "response_us", **more: Any
) -> dict[str, Any]:
    """Return a pair as `bench compare --json` has it."""
    where = {"a": "xdp", "b": "nft", "hops": 3, "size_bytes": 624, "concurrency": 1}
    return {**where, "metric": metric, "ratio": ratio, "ci95": ci95, **more}


@pytest.mark.parametrize(
    ("pairs", "left"),
    [
        ([], []),
        ([pair([0.97, 1.03])], []),
        ([pair([0.95, 1.05])], []),
        ([pair([0.94, 1.06])], ["xdp with nft at 3 hops, 624 B, c=1: ±6.0%"]),
        # Of the ratio itself: 0.02 around 0.2 is a tenth.
        ([pair([0.18, 0.22], 0.2)], ["xdp with nft at 3 hops, 624 B, c=1: ±10.0%"]),
        ([pair([7.7, 8.3], 8.0)], []),
        # The interval need not be symmetric.
        ([pair([0.99, 1.2])], ["xdp with nft at 3 hops, 624 B, c=1: ±10.5%"]),
        ([pair(None)], ["xdp with nft at 3 hops, 624 B, c=1: no interval yet"]),
        ([pair(None, None)], ["xdp with nft at 3 hops, 624 B, c=1: no interval yet"]),
        # Other metrics are wider by nature.
        ([pair([0.5, 2.0], metric="connect_us"), pair([0.5, 2], metric="transactions_per_s")], []),
        (
            [pair([0.94, 1.06]), pair([0.8, 1.2], a="xdp/again", b="xdp"), pair(None, hops=5)],
            [
                "xdp with nft at 5 hops, 624 B, c=1: no interval yet",
                "xdp/again with xdp at 3 hops, 624 B, c=1: ±20.0%",
                "xdp with nft at 3 hops, 624 B, c=1: ±6.0%",
            ],
        ),
    ],
)
def test_pairs_that_are_too_wide(pairs: list[dict[str, Any]], left: list[str]) -> None:
    assert wide({"pairs": pairs}, 0.0501) == left


intervals = st.tuples(st.floats(0.01, 10), st.floats(0, 2), st.floats(0, 2))


@given(st.lists(intervals, max_size=6), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_who_asks_for_more_gets_no_less(
    made: list[tuple[float, float, float]], one: float, other: float
) -> None:
    narrow, loose = sorted((one, other))
    pairs = [
        pair([ratio * (1 - below), ratio * (1 + above)], ratio, hops=number)
        for number, (ratio, below, above) in enumerate(made)
    ]
    assert set(wide({"pairs": pairs}, loose)) <= set(wide({"pairs": pairs}, narrow))
    assert wide({"pairs": pairs}, math.inf) == []


# A run's own figures

CELLS = tuple(Cell(mode, "", hops, 624, 1, 100) for mode, hops in (("direct", 0), ("nft", 1)))
TIMES_US = {"direct": 100.0, "nft": 180.0}


def write(folder: Path, blocks: int, noise: float, timed: bool = True) -> Path:
    """Write a run that still lasts, its samples' medians scattered by a share."""
    random = np.random.default_rng(5)
    times_us = {
        (cell.mode, block): TIMES_US[cell.mode] * random.lognormal(0, noise)
        for block in range(blocks + 1)
        for cell in CELLS
    }

    def brought(cell: Cell, block: int) -> dict[str, Any]:
        return connections(100, times_us[cell.mode, block])

    return write_run(
        folder,
        CELLS,
        lambda cell, block: times_us[cell.mode, block] / 100,
        blocks=blocks,
        warmups=True,
        connections=brought if timed else None,
        status="running",
    )


NFT = r"nft with direct at 1 hop, 624 B, c=1"


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize(
    ("blocks", "noise", "used_s", "limit_s", "enough", "said"),
    [
        (10, 0.0, 0, 600, True, "every pair's interval is within ±5.0% after 10 blocks"),
        (10, 0.01, 0, 600, True, "every pair's interval is within ±5.0% after 10 blocks"),
        # Enough is enough, also when the time is over.
        (10, 0.01, 9999, 600, True, "every pair's interval is within ±5.0% after 10 blocks"),
        (10, 0.3, 0, 600, False, f"1 pair is wider than ±5.0%, first {NFT}: ±"),
        (3, 0.01, 0, 600, False, f"1 pair is wider than ±5.0%, first {NFT}: no interval yet"),
        # Ten took 540 s: the eleventh ends in time.
        (10, 0.3, 540, 600, False, "1 pair is wider than ±5.0%, first"),
        (
            *(10, 0.3, 560, 600, True),
            "the time limit of 600 s is reached after 10 blocks; 1 pair is wider than ±5.0%",
        ),
        (1, 0.3, 310, 600, True, "the time limit of 600 s is reached after 1 blocks; 1 pair"),
    ],
)
def test_when_blocks_are_enough(
    tmp_path: Path,
    timed: bool,
    blocks: int,
    noise: float,
    used_s: float,
    limit_s: float,
    enough: bool,
    said: str,
) -> None:
    path = write(tmp_path, blocks, noise, timed)
    heard: list[str] = []
    decide = judge(Until(0.05, limit_s), time.monotonic() - used_s, heard.append)
    assert decide(path) is enough
    assert len(heard) == 1
    assert heard[0].startswith(said)


def test_a_run_that_cannot_be_read_ends_there(tmp_path: Path) -> None:
    path = write(tmp_path, 2, 0.1)
    (path / "samples.csv").write_text("")
    with pytest.raises(BenchError, match="is damaged"):
        judge(Until(0.05), time.monotonic(), print)(path)
