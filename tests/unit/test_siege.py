# SPDX-License-Identifier: Apache-2.0
"""siege's reports: real ones of siege 4.0.7 and nginx, in data/siege/, and damaged ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import report as made

from bench.cells import Cell
from bench.errors import BenchError
from bench.siege import SiegeReport, invalid_reason, parse_report

DATA = Path(__file__).parent / "data" / "siege"
GOOD = (DATA / "success_c1.txt").read_text()
CELL = Cell("nft", "", 1, 312, 1, 300)


def test_every_figure_of_a_real_report() -> None:
    assert parse_report((DATA / "success_c25.txt").read_text()) == SiegeReport(
        transactions=5000,
        availability_percent=100.0,
        elapsed_s=0.32,
        data_mb=47.61,
        response_s=0.0,
        transaction_rate_per_s=15625.0,
        throughput_mb_per_s=148.77,
        concurrency_mean=20.44,
        successful=5000,
        failed=0,
        longest_s=0.03,
        shortest_s=0.0,
    )


@pytest.mark.parametrize(
    ("name", "cell", "transactions", "elapsed_s", "reason"),
    [
        ("success_c1", CELL, 300, 0.04, ""),
        ("success_c25", Cell("nft", "", 1, 9984, 25, 5000), 5000, 0.32, ""),
        ("large_files", Cell("nft", "", 1, 2555904, 1, 20), 20, 0.06, ""),
        ("short", Cell("nft", "", 1, 624, 1, 5), 5, 0.0, ""),
        ("first_call", Cell("nft", "", 1, 624, 1, 2000), 2000, 0.24, ""),
        (
            "users_capped",
            Cell("nft", "", 1, 624, 300, 300),
            255,
            0.08,
            "255 of 300 transactions were made",
        ),
        (
            "partly_503",
            Cell("nft", "", 1, 624, 5, 500),
            397,
            0.05,
            "103 of 500 requests failed",
        ),
        (
            "partly_dropped",
            Cell("nft", "", 1, 624, 5, 200),
            154,
            0.01,
            "46 of 200 requests failed",
        ),
        ("all_refused", Cell("nft", "", 1, 624, 4, 40), 0, 0.0, "40 of 40 requests failed"),
        ("gave_up", Cell("nft", "", 1, 624, 2, 200), 0, 0.0, "4 of 200 requests failed"),
        (
            "all_404",
            Cell("nft", "", 1, 624, 2, 20),
            20,
            0.0,
            "20 of 20 responses were HTTP errors",
        ),
        ("stopped", Cell("nft", "", 1, 9984, 3, 300), 0, 2.0, "0 of 300 transactions were made"),
    ],
)
def test_real_reports(
    name: str, cell: Cell, transactions: int, elapsed_s: float, reason: str
) -> None:
    report = parse_report((DATA / f"{name}.txt").read_text())
    assert (report.transactions, report.elapsed_s) == (transactions, elapsed_s)
    assert invalid_reason(report, cell) == reason


@pytest.mark.parametrize("name", ["killed"])
def test_a_killed_siege_leaves_no_report(name: str) -> None:
    with pytest.raises(BenchError) as caught:
        parse_report((DATA / f"{name}.txt").read_text())
    assert caught.value.one_line() == "siege printed no report (its output is empty)"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[alert] Zip encoding disabled; siege requires zlib support to enable it\n", ""),
        ("\x1b[0;34mHTTP/1.1 200     0.00 secs:     624 bytes ==> GET  /624\x1b[0m\n" * 3, ""),
        ("{ not json } {}\n", "\n{\n"),
        ('{"other": 1}\n', '{"other": {"more": 2}}'),
        ("The server is now under siege...", "\nLOG FILE: /var/log/siege.log\n\x1b[0m"),
        ("\ufeff", "\x00"),
    ],
)
def test_text_around_the_report_does_not_matter(before: str, after: str) -> None:
    assert parse_report(before + GOOD + after) == parse_report(GOOD)


def test_both_generations() -> None:
    """From 4.1 on the brace has a line of its own; `debug` adds a key to either."""
    assert GOOD.startswith('{\t"')
    newer = "{\n" + GOOD[1:]
    assert parse_report(newer) == parse_report(GOOD)
    debug = newer.replace('\t"failed_', '\t"http_ok_received":\t\t         300,\n\t"failed_')
    assert parse_report(debug) == parse_report(GOOD)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (GOOD, "", "siege printed no report"),
        (GOOD, "{}", "siege printed no report"),
        (GOOD, GOOD + GOOD, "siege printed 2 reports where one was expected"),
        ("}", "", "siege's report is damaged: Expecting ',' delimiter"),
        (GOOD[200:], "", "siege's report is damaged"),
        ('\t"availability":\t\t\t      100.00,\n', "", "siege's report lacks availability"),
        ("availability", "availabilty", "siege's report lacks availability"),
        ("{", '{"transactions": 1, ', "siege's report is damaged: 'transactions' appears twice"),
        ("}", ', "extra": 1}', "siege's report has an unknown key 'extra'"),
        ("100.00", "nan", "siege's report is damaged: Expecting value"),
        ("100.00", "NaN", "siege's report is damaged: NaN is not a number"),
        ("100.00", "Infinity", "siege's report is damaged: Infinity is not a number"),
        ("100.00", "-nan", "siege's report is damaged: Expecting value"),
        ("100.00", "-1.00", "siege's availability is an impossible figure"),
        ("100.00", "1e999", "siege's availability is an impossible figure"),
        ("100.00", "9" * 400, "siege's availability is an impossible figure"),
        ("100.00", "9" * 5000, "siege's report is damaged: Exceeds the limit"),
        ("100.00", "100,00", "siege's report is damaged"),
        ("100.00", '"100"', "siege's availability is not a number"),
        ("100.00", "true", "siege's availability is not a number"),
        ("100.00", "null", "siege's availability is not a number"),
        ("100.00", "[" * 100_000, "siege's report is damaged"),
        ("         300,", "300.5,", "siege's transactions is not a whole number"),
    ],
)
def test_damaged_reports(old: str, new: str, cause: str) -> None:
    assert old in GOOD
    with pytest.raises(BenchError) as caught:
        parse_report(GOOD.replace(old, new, 1))
    assert caught.value.cause.startswith(cause)
    assert len(caught.value.one_line()) < 250
    assert caught.value.one_line().isprintable()


@given(st.text(), st.integers(0, len(GOOD)))
def test_any_text_is_a_report_or_one_line(text: str, cut: int) -> None:
    for stdout in (text, GOOD[:cut] + text, text + GOOD[cut:], GOOD[:cut] + text + GOOD[cut:]):
        try:
            report = parse_report(stdout)
        except BenchError as error:
            assert error.one_line().isprintable()
        else:
            assert report.transactions >= 0


@given(
    st.sampled_from([312, 624, 159744, 2555904]), st.integers(1, 1000), st.integers(1, 1_000_000)
)
def test_the_payload_check_lets_every_whole_sample_pass(
    size_bytes: int, concurrency: int, requests: int
) -> None:
    """siege prints "%.2f" of a float of bytes over 2^20."""
    cell = Cell("nft", "", 1, size_bytes, concurrency, requests)
    assert invalid_reason(made(cell, 1.0), cell) == ""


def test_wrong_payload_size() -> None:
    report = parse_report(GOOD)
    assert invalid_reason(replace(report, data_mb=0.11), CELL) == (
        "0.11 MB were transferred instead of 0.09 MB"
    )
