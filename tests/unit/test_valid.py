# SPDX-License-Identifier: Apache-2.0
"""What the tests of real runs let pass: the texts are judged samples' own."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from bench.judging import judge
from tests.unit.test_judging import (
    CELL,
    HEAT,
    QUOTA,
    SLEEP,
    STEAL,
    STEP,
    chain,
    flows,
    raw,
    through,
)
from tests.valid import by_the_machine, require_valid

HOPS = flows(300, 300, 300)


def reason(**seen: Any) -> str:
    """Return why a sample is invalid of which this was seen."""
    told = judge(CELL, 1, 1, raw(**seen)).invalid_reason
    assert told
    return told


@pytest.mark.parametrize(
    ("seen", "excused"),
    [
        ({"timed": 299, "lost": 0}, True),
        ({"timed": 285, "lost": 0}, True),
        ({"timed": 284, "lost": 0}, False),
        ({"timed": 0, "lost": 0}, False),
        # Twice the same connection, or another's, is no fault of the machine.
        ({"timed": 301, "lost": 0}, False),
        ({"timed": 299, "lost": 1}, False),
        *(
            ({"hosts": chain(*HOPS, hop2=trouble)}, True)
            for trouble in (STEAL, HEAT, QUOTA, STEP, SLEEP)
        ),
        ({"status": 1}, False),
        ({"timed_out": True}, False),
        (through(300, 200, 300), False),
        ({"name": "all_refused"}, False),
    ],
)
def test_what_the_machine_may_be_blamed_for(seen: dict[str, Any], excused: bool) -> None:
    assert by_the_machine(reason(**seen)) is excused


@pytest.mark.parametrize(("unseen", "excused"), [(1, True), (15, True), (16, False)])
def test_connections_that_were_never_seen_to_open(unseen: int, excused: bool) -> None:
    text = f"the connection timer saw {unseen} of 300 connections never open"
    assert by_the_machine(text) is excused


def samples(many: int, *reasons: str) -> pd.DataFrame:
    """Return so many samples of which the first are invalid for these reasons."""
    why = [*reasons, *[""] * (many - len(reasons))]
    return pd.DataFrame(
        {
            "sample": [f"001-{place:04}" for place in range(many)],
            "valid": [not each for each in why],
            "invalid_reason": why,
        }
    )


MISSED = "the connection timer saw 99 of 100 connections"


@pytest.mark.parametrize(
    ("many", "invalid", "passes"),
    [
        (1, 0, True),
        (1, 1, False),
        (2, 1, True),
        (2, 2, False),
        (39, 1, True),
        (39, 2, False),
        (40, 2, True),
        (40, 3, False),
        (100, 6, False),
    ],
)
def test_how_many_may_be_invalid(many: int, invalid: int, passes: bool) -> None:
    given = samples(many, *[MISSED] * invalid)
    if passes:
        assert len(require_valid(given)) == many - invalid
    else:
        with pytest.raises(AssertionError, match="99 of 100"):
            require_valid(given)


def test_one_that_is_invalid_for_anything_else_fails() -> None:
    with pytest.raises(AssertionError, match="40 of 300 requests failed"):
        require_valid(samples(100, MISSED, "40 of 300 requests failed"))
