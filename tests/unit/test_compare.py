# SPDX-License-Identifier: Apache-2.0
"""The comparison of runs whose figures are chosen by the test."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import START, connections, read_run, report, sample, write_run

from bench.cells import Cell
from bench.compare import compare
from bench.errors import BenchError
from bench.results import Sample
from bench.sweep import cross

COST_US = {"direct": 0.0, "socat": 490.0, "nft": 34.0, "xdp": 6.5}
BY_SIEGE = (
    "the run has no connection times: response time is siege's elapsed time over its transactions, "
    "by a clock of 10 ms"
)
CELLS = cross(("direct", "socat", "nft", "xdp"), ("native",), (1, 3, 5), (624,), (1,), 10_000)


def took(cell: Cell, block: int) -> float:
    """Return the seconds of a sample whose response time is 100 µs and each hop's cost."""
    response_us = 100 + COST_US[cell.mode] * cell.hops + 0.1 * block
    return response_us * cell.transactions / cell.concurrency / 1e6


def of(found: list[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    """Return the one record that has these values."""
    (record,) = [item for item in found if wanted.items() <= item.items()]
    return record


@pytest.fixture
def comparison(tmp_path: Path) -> dict[str, Any]:
    """Return the comparison of a run of six blocks."""
    return compare(read_run(write_run(tmp_path, CELLS, took)))


def test_shape(comparison: dict[str, Any]) -> None:
    assert set(comparison) == {"run", "cells", "per_hop", "pairs", "validity"}
    assert comparison["validity"] == {
        "noise_floor": None,
        "noise_floors": [],
        "samples": {"measured": 60, "valid": 60, "invalid": 0, "warmup": 0},
        "invalid_reasons": {},
        "timer": False,
        "warnings": [BY_SIEGE],
    }
    assert set(comparison["cells"][0]) == {
        *("mode", "attach", "offloads", "label", "hops", "size_bytes", "concurrency"),
        *("samples", "failed", "invalid"),
        *("connect_us", "response_us", "transactions_per_s", "throughput_mbps"),
    }
    assert set(comparison["per_hop"][0]) == {
        *("mode", "attach", "offloads", "label", "size_bytes", "concurrency"),
        *("metric", "slope_us", "ci95", "hops", "blocks"),
    }
    assert set(comparison["pairs"][0]) == {
        *("a", "b", "aa", "hops", "size_bytes", "concurrency", "metric", "ratio", "ci95"),
        *("p_value", "p_uncorrected", "n", "blocks", "verdict"),
    }
    json.dumps(comparison, allow_nan=False)


def test_a_cell(comparison: dict[str, Any]) -> None:
    cell = of(comparison["cells"], mode="nft", hops=3)
    assert (cell["samples"], cell["failed"]) == (6, 0)
    assert cell["connect_us"] == {"median": None, "ci95": None, "p90": None, "p99": None}
    low, high = cell["response_us"].pop("ci95")
    assert cell["response_us"] == {"median": pytest.approx(202.35), "p90": None, "p99": None}
    assert 202.1 < low < 202.35 < high < 202.6
    rate = cell["transactions_per_s"]
    assert rate["median"] == pytest.approx(1e6 / 202.35, rel=1e-6)
    assert 1e6 / 202.6 < rate["ci95"][0] < rate["median"] < rate["ci95"][1] < 1e6 / 202.1
    assert cell["throughput_mbps"]["median"] == pytest.approx(rate["median"] * 624 * 8 / 1e6)


def test_the_response_time_of_many_connections_at_a_time(tmp_path: Path) -> None:
    cells = cross(("nft",), (), (1, 2), (624,), (25,), 10_000)
    result = compare(read_run(write_run(tmp_path, cells, took)))
    cell = of(result["cells"], hops=2)
    assert cell["response_us"]["median"] == pytest.approx(168.35)
    assert cell["transactions_per_s"]["median"] == pytest.approx(25e6 / 168.35, rel=1e-6)
    assert result["per_hop"][0]["slope_us"] == pytest.approx(34)


@pytest.mark.parametrize("mode", ["socat", "nft", "xdp"])
def test_per_hop(comparison: dict[str, Any], mode: str) -> None:
    line = of(comparison["per_hop"], mode=mode)
    assert line["slope_us"] == pytest.approx(COST_US[mode])
    assert (line["metric"], line["hops"], line["blocks"]) == ("response_us", [1, 3, 5], 6)
    assert line["ci95"] == [pytest.approx(COST_US[mode])] * 2


def test_no_slope_for_one_hop_count(comparison: dict[str, Any]) -> None:
    assert {line["mode"] for line in comparison["per_hop"]} == {"socat", "nft", "xdp"}


def test_pairs(comparison: dict[str, Any]) -> None:
    pairs = comparison["pairs"]
    names = [(pair["a"], pair["b"]) for pair in pairs if pair["hops"] == 3]
    assert names == [
        ("socat", "direct"),
        ("nft", "direct"),
        ("nft", "socat"),
        ("xdp", "direct"),
        ("xdp", "socat"),
        ("xdp", "nft"),
    ]
    assert len(pairs) == 18
    pair = of(pairs, a="xdp", b="nft", hops=5)
    ratios = [(132.5 + 0.1 * block) / (270 + 0.1 * block) for block in range(1, 7)]
    assert pair["ratio"] == pytest.approx(statistics.median(ratios))
    assert min(ratios) < pair["ci95"][0] < pair["ratio"] < pair["ci95"][1] < max(ratios)
    # Six against six, wholly apart, and 18 such tests in the table.
    assert pair["p_uncorrected"] == pytest.approx(2 / 924)
    assert pair["p_value"] == pytest.approx(18 * 2 / 924)
    assert (pair["n"], pair["blocks"], pair["aa"]) == ([6, 6], 6, False)
    assert pair["verdict"] == "faster"
    assert of(pairs, a="xdp", b="direct", hops=1)["verdict"] == "slower"


@pytest.mark.parametrize(
    ("blocks", "spread_s", "verdict"),
    [(6, 0.001, "faster"), (6, 0.2, "~"), (5, 0.001, "n too small"), (1, 0.0, "n too small")],
)
def test_verdicts(tmp_path: Path, blocks: int, spread_s: float, verdict: str) -> None:
    cells = cross(("nft", "xdp"), ("native",), (1,), (624,), (1,), 10_000)

    def spread(cell: Cell, block: int) -> float:
        return (1.1 if cell.mode == "nft" else 1.0) + spread_s * (block % 3)

    (pair,) = compare(read_run(write_run(tmp_path, cells, spread, blocks=blocks)))["pairs"]
    assert (pair["a"], pair["b"], pair["verdict"]) == ("xdp", "nft", verdict)


def test_native_and_generic_are_two_modes(tmp_path: Path) -> None:
    cells = cross(("xdp",), ("native", "generic"), (1, 2), (624,), (1,), 10_000)
    result = compare(read_run(write_run(tmp_path, cells, took)))
    pairs = [(pair["a"], pair["b"], pair["verdict"]) for pair in result["pairs"]]
    assert pairs == [("xdp", "xdp/generic", "~")] * 2
    assert [line["attach"] for line in result["per_hop"]] == ["native", "generic"]


def test_invalid_samples_are_left_out_and_counted(tmp_path: Path) -> None:
    cells = cross(("nft", "xdp"), ("native",), (1,), (624,), (1,), 10_000)

    def some_fail(cell: Cell, block: int) -> float | Sample:
        position = cells.index(cell) + 1
        if cell.mode == "nft" and block < 3:
            failed = report(cell, 99.0, failed=block)
            return Sample(cell, block, position, START, failed, f"{block} of 10000 requests failed")
        if cell.mode == "nft" and block < 6:
            return Sample(cell, block, position, START, None, "killed after 60 s")
        return 1.0

    result = compare(read_run(write_run(tmp_path, cells, some_fail, blocks=8)))
    cell = of(result["cells"], mode="nft")
    assert (cell["samples"], cell["failed"], cell["invalid"]) == (3, 3, 5)
    assert cell["response_us"]["median"] == pytest.approx(100)
    validity = result["validity"]
    assert validity["warnings"][0] == (
        "5 of 16 samples are invalid and left out: 3 x killed after 60 s; "
        "1 x 1 of 10000 requests failed; 1 x 2 of 10000 requests failed"
    )
    assert validity["samples"] == {"measured": 16, "valid": 11, "invalid": 5, "warmup": 0}
    assert validity["invalid_reasons"] == {
        "killed after 60 s": 3,
        "1 of 10000 requests failed": 1,
        "2 of 10000 requests failed": 1,
    }
    (pair,) = result["pairs"]
    assert (pair["n"], pair["blocks"], pair["verdict"]) == ([8, 3], 3, "n too small")


def test_no_outlier_is_dropped(tmp_path: Path) -> None:
    cells = cross(("nft",), (), (1,), (624,), (1,), 10_000)
    result = compare(read_run(write_run(tmp_path, cells, lambda _, b: 100.0 if b == 1 else 1.0)))
    (cell,) = result["cells"]
    assert cell["samples"] == 6
    assert cell["transactions_per_s"]["median"] == 10_000
    low, high = cell["transactions_per_s"]["ci95"]
    assert 100 <= low < 10_000 == high


def test_samples_too_short_for_the_clock(tmp_path: Path) -> None:
    cells = cross(("direct", "nft"), (), (1,), (624,), (1,), 100)

    def short(cell: Cell, block: int) -> float:
        return 0.0 if block == 1 else 0.49 if cell.mode == "nft" else 0.5

    result = compare(read_run(write_run(tmp_path, cells, short, blocks=3)))
    assert [cell["samples"] for cell in result["cells"]] == [2, 2]
    assert result["validity"]["warnings"] == [
        BY_SIEGE,
        "2 samples ended within one 10 ms tick of siege's clock, cannot be timed and are left "
        "out: direct 1, nft 1",
        "2 samples lasted less than 0.5 s, of which one 10 ms tick of siege's clock is more than "
        "2%: nft 2; raise --requests",
    ]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("elapsed_s", [0.0, None])
def test_nothing_to_go_by(tmp_path: Path, elapsed_s: float | None) -> None:
    def nothing(cell: Cell, block: int) -> Sample:
        position = CELLS.index(cell) + 1
        if elapsed_s is None:
            return Sample(cell, block, position, START, None)
        return sample(cell, block, position, elapsed_s)

    result = compare(read_run(write_run(tmp_path, CELLS, nothing, blocks=1)))
    json.dumps(result, allow_nan=False)
    assert {cell["samples"] for cell in result["cells"]} == {0}
    assert {pair["verdict"] for pair in result["pairs"]} == {"n too small"}
    assert {pair["ratio"] for pair in result["pairs"]} == {None}
    assert result["per_hop"] == []
    assert result["validity"]["warnings"][-1] == "10 of 10 cells have no sample to go by"


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_says_so(tmp_path: Path, status: Any) -> None:
    path = write_run(tmp_path, CELLS, took, blocks=2, status=status)
    warnings = compare(read_run(path))["validity"]["warnings"]
    assert warnings == [f"the run is {status}: 20 of 20 samples are there", BY_SIEGE]


def test_what_the_checks_found_and_what_changed(tmp_path: Path) -> None:
    found = [{"host": "hop1", "level": level} for level in ("ok", "warning", "problem", "warning")]
    path = write_run(tmp_path, CELLS, took, findings=[*found, 1], changes=["a", "b", "c", 4, "e"])
    assert compare(read_run(path))["validity"]["warnings"][1:] == [
        "hosts changed during the run: a; b; c; and 2 other changes",
        "the checks before the run found 1 problem and 2 warnings: see bench show",
    ]


def test_a_twin_is_in_no_table_but_that_of_pairs(tmp_path: Path) -> None:
    """Its connect times are farther from its original's than its response times."""
    twin = replace(CELLS[-1], twin=True)

    def times(cell: Cell, block: int) -> dict[str, Any]:
        connect_us = 40 * (2.0 if cell.twin and block % 2 else 1.0)
        return connections(50, 100 + cell.hops + block / 10, connect_us=connect_us)

    cells = (*CELLS, twin)
    path = write_run(tmp_path, cells, lambda *_: 1.0, blocks=8, connections=times, aa=True)
    result = compare(read_run(path))
    assert len(result["cells"]) == len(CELLS)
    assert {line["label"] for line in result["per_hop"]} == {"socat", "nft", "xdp"}
    assert [pair["a"] for pair in result["pairs"] if pair["aa"]] == ["xdp/again"] * 2
    validity = result["validity"]
    assert [each["metric"] for each in validity["noise_floors"]] == ["response_us", "connect_us"]
    assert [each["noise_floor"] > 0.5 for each in validity["noise_floors"]] == [False, True]
    assert validity["noise_floor"] == 0
    assert validity["warnings"] == []


def test_a_twin_that_differs_is_a_warning_and_one_without_samples_too(tmp_path: Path) -> None:
    cells = (CELLS[-1], replace(CELLS[-1], twin=True))

    def slow(cell: Cell, block: int) -> float:
        return (1.1 if cell.twin else 1.0) + block / 1000

    path = write_run(tmp_path, cells, slow, blocks=8, aa=True)
    assert compare(read_run(path))["validity"]["warnings"][1:] == [
        "xdp differs from itself at 5 hops, 624 bytes and 1 at a time: response_us is 1.100 "
        "[1.099, 1.100] times its own; the noise is larger than the intervals say"
    ]

    def lost(cell: Cell, block: int) -> float | Sample:
        return Sample(cell, block, 2, START, None) if cell.twin else 1.0

    path = write_run(tmp_path, cells, lost, blocks=8, aa=True)
    assert compare(read_run(path))["validity"]["warnings"][-1] == (
        "the noise floor is not known: no cell has samples under both of its labels"
    )


def test_a_cell_twice_in_a_block(tmp_path: Path) -> None:
    path = write_run(tmp_path, CELLS[:1], took, blocks=2)
    file = path / "samples.csv"
    file.write_text(file.read_text().replace("002-0001,2,", "002-0001,1,"))
    with pytest.raises(BenchError, match="002-0001 is its cell's second sample in block 1"):
        compare(read_run(path))
