# SPDX-License-Identifier: Apache-2.0
"""What siege reports, and whether that is a whole sample of a cell."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.cells import Cell
from bench.errors import BenchError

CLOCK_TICK_S = 0.01
"""The tick of times(2), siege's only clock (sysconf(_SC_CLK_TCK) is 100 on Linux)."""

_MIB = 1 << 20
_ABSURD = 2**53
_START = re.compile(r'\{\s*"transactions"')

_COUNTS = {
    "transactions": "transactions",
    "successful_transactions": "successful",
    "failed_transactions": "failed",
}
_FIGURES = {
    "availability": "availability_percent",
    "elapsed_time": "elapsed_s",
    "data_transferred": "data_mb",
    "response_time": "response_s",
    "transaction_rate": "transaction_rate_per_s",
    "throughput": "throughput_mb_per_s",
    "concurrency": "concurrency_mean",
    "longest_transaction": "longest_s",
    "shortest_transaction": "shortest_s",
}
# Printed between the others by every version from 4.0.5 on when its `debug` setting is on.
_OPTIONAL = frozenset({"http_ok_received"})


@dataclass(frozen=True)
class SiegeReport:
    """What one siege invocation printed (siege's src/main.c and src/data.c, 4.0.5 to 4.2.0).

    transactions: responses of any HTTP status. successful: those with a status below 400 (and
    401 or 407). failed: requests without a usable response. data_mb: payload in units of 2^20
    bytes, rounded to hundredths. Every time is a whole number of 10 ms ticks.
    """

    transactions: int
    availability_percent: float
    elapsed_s: float
    data_mb: float
    response_s: float
    transaction_rate_per_s: float
    throughput_mb_per_s: float
    concurrency_mean: float
    successful: int
    failed: int
    longest_s: float
    shortest_s: float


def parse_report(stdout: str) -> SiegeReport:
    """Return the one report in siege's standard output.

    Text before and after it is let pass: siege announces a new ~/.siege and a cap on users there,
    and verbose lines. Every key must be known, each must appear once, and every figure must be a
    number that is finite and not negative. Both generations are understood, 4.0, whose object
    begins on the line of the brace, and 4.1 and later, which break the line; their keys are the
    same. Raises BenchError that says what is wrong.
    """
    starts = [match.start() for match in _START.finditer(stdout)]
    if not starts:
        raise _damaged("siege printed no report", stdout)
    if len(starts) > 1:
        raise _damaged(f"siege printed {len(starts)} reports where one was expected", stdout)
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
    try:
        report, _ = decoder.raw_decode(stdout, starts[0])
    except (ValueError, RecursionError) as error:
        raise _damaged(f"siege's report is damaged: {error}", stdout) from error
    return _checked(report, stdout)


def invalid_reason(report: SiegeReport, cell: Cell) -> str:
    """Return why the report is not a whole sample of `cell`, or an empty string.

    siege counts an HTTP error as a transaction of 100 % availability, and after a signal reports
    what it has as if that were all; so every count is held against what was asked for.
    """
    asked = cell.transactions
    if report.failed:
        return f"{report.failed} of {asked} requests failed"
    if report.transactions != asked:
        return f"{report.transactions} of {asked} transactions were made"
    if report.successful != asked:
        return f"{asked - report.successful} of {asked} responses were HTTP errors"
    if not transferred(report, cell):
        expected_mb = cell.size_bytes * asked / _MIB
        return f"{report.data_mb:.2f} MB were transferred instead of {expected_mb:.2f} MB"
    return ""


def transferred(report: SiegeReport, cell: Cell) -> bool:
    """Return whether as many bytes arrived as a complete sample of `cell` has."""
    expected_mb = cell.size_bytes * cell.transactions / _MIB
    # Half of the last printed digit, and the 24 bits of the float siege sums bytes in.
    return abs(report.data_mb - expected_mb) <= 0.0051 + expected_mb * 2**-22


def _checked(report: Mapping[str, Any], stdout: str) -> SiegeReport:
    known = {**_COUNTS, **_FIGURES}
    if missing := [key for key in known if key not in report]:
        raise _damaged(f"siege's report lacks {', '.join(missing)}", stdout)
    if unknown := [key for key in report if key not in known and key not in _OPTIONAL]:
        raise _damaged(f"siege's report has an unknown key {unknown[0][:32]!r}", stdout)
    for key, value in report.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _damaged(f"siege's {key} is not a number", stdout)
        if not 0 <= value < _ABSURD:
            raise _damaged(f"siege's {key} is an impossible figure", stdout)
        if key not in _FIGURES and not isinstance(value, int):
            raise _damaged(f"siege's {key} is not a whole number", stdout)
    fields: dict[str, Any] = {field: report[key] for key, field in _COUNTS.items()}
    fields.update({field: float(report[key]) for key, field in _FIGURES.items()})
    return SiegeReport(**fields)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:32]!r} appears twice")
        found[key] = value
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _damaged(cause: str, stdout: str) -> BenchError:
    lines = [line.strip() for line in stdout.splitlines() if line.strip(" \t\r*=")]
    remedy = f"its output ends with {lines[-1][:80]!r}" if lines else "its output is empty"
    return BenchError(cause, remedy=remedy)
