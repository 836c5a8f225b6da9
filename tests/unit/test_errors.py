# SPDX-License-Identifier: Apache-2.0
"""Errors as a user reads them: one printable line that names every host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError, HostsError, Interrupted, UsageError


@pytest.mark.parametrize(
    ("cause", "host", "remedy", "line"),
    [
        ("it broke", None, None, "it broke"),
        ("it broke", "hop1", None, "hop1: it broke"),
        ("it broke", None, "mend it", "it broke (mend it)"),
        ("it broke", "hop1", "mend it", "hop1: it broke (mend it)"),
        ("it broke", "", "", "it broke"),
        ("one\ntwo\r\n\tthree", "a\nb", "c\nd", "a b: one two three (c d)"),
        ("\x1b[31mred\x1b[0m \x07bell", None, None, "[31mred [0m bell"),
        ("a\u2028b\u0085c\u202ed\u200be", None, None, "a b c d e"),
        ("  spaces   here  ", None, None, "spaces here"),
        ("\ud800 alone", None, None, "alone"),
        ("größer 本", None, None, "größer 本"),
    ],
)
def test_an_error_is_one_line(cause: str, host: str | None, remedy: str | None, line: str) -> None:
    error = BenchError(cause, host=host, remedy=remedy)
    assert error.one_line() == str(error) == line
    assert (error.cause, error.host, error.remedy) == (cause, host, remedy)
    assert (error.exit_code, UsageError(cause).exit_code) == (1, 2)


TEXT = st.text(st.characters(exclude_categories=()))


@given(TEXT, st.none() | TEXT, st.none() | TEXT)
def test_any_error_is_one_line(cause: str, host: str | None, remedy: str | None) -> None:
    line = BenchError(cause, host=host, remedy=remedy).one_line()
    assert line.isprintable()
    assert line.splitlines() in ([], [line])
    line.encode()


@pytest.mark.parametrize(
    ("failures", "remedy", "line"),
    [
        ([("hop1", "no")], None, "hop1: no"),
        ([("hop1", "no")], "mend it", "hop1: no (mend it)"),
        ([("hop1", "no"), ("hop3", "not\neither")], None, "hop1: no; hop3: not either"),
        ([("a", "x"), ("b", "y"), ("c", "z")], "mend them", "a: x; b: y; c: z (mend them)"),
        (
            [(f"hop{number}", "gone") for number in range(1, 65)],
            None,
            "; ".join(f"hop{number}: gone" for number in range(1, 65)),
        ),
    ],
)
def test_every_host_is_named(
    failures: list[tuple[str, str]], remedy: str | None, line: str
) -> None:
    error = HostsError(failures, remedy=remedy)
    assert error.one_line() == line
    assert error.failures == failures
    assert error.host == (failures[0][0] if len(failures) == 1 else None)


def test_an_interrupt_is_not_collected_among_errors() -> None:
    assert not isinstance(Interrupted("SIGTERM"), Exception)
