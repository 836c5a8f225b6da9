# SPDX-License-Identifier: Apache-2.0
"""What a client's agent calls siege's output: a report that adds up, or one line."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from fuzzing import EVIL_TEXTS, Mutator, fuzz, nested, texts
from hypothesis import strategies as st
from recorded import raw_sample, siege_says

from bench.cells import Cell
from bench.errors import BenchError
from bench.judging import judge
from bench.siege import SiegeReport, invalid_reason, parse_report

CELL = Cell("xdp", "native", 2, 624, 25, 1000)
GOOD = siege_says(CELL, 0.5)


def taken_or_refused(stdout: str) -> SiegeReport | None:
    """Parse, and judge the sample that it would be."""
    made = judge(CELL, 1, 1, raw_sample(CELL, stdout=stdout))
    assert all("\n" not in field for field in made.row())
    try:
        report = parse_report(stdout)
    except BenchError as error:
        assert error.one_line().isprintable()
        assert len(error.one_line()) < 400
        assert not made.valid
        return None
    assert all(math.isfinite(each) and each >= 0 for each in vars(report).values())
    invalid_reason(report, CELL)
    return report


def test_any_report() -> None:
    assert taken_or_refused(GOOD)
    document = json.loads(GOOD)

    def check(changes: list[tuple[int, str, Any]], before: str, after: str) -> None:
        said = json.dumps(Mutator(document).apply(changes))
        taken_or_refused(before + said + after)

    fuzz(check, Mutator.changes, texts, texts, examples=140)


def test_any_part_of_a_report() -> None:
    def check(parts: list[tuple[int, int]], text: str) -> None:
        taken_or_refused(text.join(GOOD[start : start + length] for start, length in parts))

    parts = st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, len(GOOD))), max_size=4)
    fuzz(check, parts, texts, examples=105)


BOMBS = {
    "keys": '{"transactions": 1, ' + ", ".join(f'"k{n}": 1' for n in range(80_000)) + "}",
    "one key": '{"transactions": 1' + ', "availability": 1' * 50_000 + "}",
    "nesting": '{"transactions": ' + json.dumps(nested(400)) + "}",
    "deeper nesting": '{"transactions": ' + "[" * 900_000,
    "objects": '{"transactions":' * 60_000,
    "braces": "{" * 1_000_000,
    "blanks": "{" + " " * 1_000_000,
    "braces and blanks": "{ " * 500_000,
    "digits": '{"transactions": ' + "9" * 1_000_000 + "}",
    "lines": "\n" * 1_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(bomb: str) -> None:
    def check(stdout: str) -> None:
        assert taken_or_refused(stdout) is None

    fuzz(check, st.just(BOMBS[bomb]), examples=1)


@pytest.mark.parametrize("text", EVIL_TEXTS)
def test_evil_texts(text: str) -> None:
    assert taken_or_refused(text) is None
    assert taken_or_refused(text + GOOD + text) == parse_report(GOOD)
    assert taken_or_refused(GOOD.replace("transactions", text, 1)) is None
