# SPDX-License-Identifier: Apache-2.0
"""Figures of runs whose connections were timed: chosen by the test, and spoilt by it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import START, connections, read_run, sample, write_run

from bench import tables
from bench.cells import Cell
from bench.compare import compare
from bench.errors import BenchError
from bench.measured import measured
from bench.results import Sample
from bench.sweep import cross

COST_US = {"direct": 0.0, "nft": 34.0, "xdp": 6.5}
CELLS = cross(("direct", "nft", "xdp"), ("native",), (1, 3), (624,), (1,), 100)
NO_TIMES = "the run has no connection times"


def response_us(cell: Cell, block: int) -> float:
    """Return 100 µs, each hop's cost and a little for the block; a warm-up takes ten times that."""
    return (100 + COST_US[cell.mode] * cell.hops + 0.1 * block) * (1 if block else 10)


def timed(cell: Cell, block: int) -> dict[str, Any]:
    """Return a hundred connections that all take the same."""
    return connections(100, response_us(cell, block), users=cell.concurrency)


def of(found: list[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    """Return the one record that has these values."""
    (record,) = [item for item in found if wanted.items() <= item.items()]
    return record


def run_of(
    folder: Path,
    cells: tuple[Cell, ...] = CELLS,
    times: Callable[[Cell, int], dict[str, Any] | None] = timed,
    **how: Any,
) -> Path:
    """Write a run of six blocks; siege says of each sample that it took a second."""
    return write_run(folder, cells, how.pop("took", lambda *_: 1.0), connections=times, **how)


def test_figures_of_connections_and_not_of_siege(tmp_path: Path) -> None:
    result = compare(read_run(run_of(tmp_path, warmups=True)))
    cell = of(result["cells"], mode="nft", hops=3)
    assert cell["samples"] == 6
    assert cell["response_us"]["median"] == pytest.approx(202.35)
    assert cell["connect_us"]["median"] == pytest.approx(202.35 / 2)
    # A hundred connections one after another.
    assert cell["transactions_per_s"]["median"] == pytest.approx(1e6 / 202.35, rel=1e-6)
    rate = cell["transactions_per_s"]["median"]
    assert cell["throughput_mbps"]["median"] == pytest.approx(rate * 624 * 8 / 1e6)
    assert result["validity"]["timer"] is True
    assert result["validity"]["warnings"] == []
    assert result["validity"]["samples"] == {
        "measured": 30,
        "valid": 30,
        "invalid": 0,
        "warmup": 5,
    }
    for metric, share in (("response_us", 1.0), ("connect_us", 0.5)):
        line = of(result["per_hop"], mode="xdp", metric=metric)
        assert line["slope_us"] == pytest.approx(6.5 * share)
        assert line["ci95"] == [pytest.approx(6.5 * share)] * 2
    assert {pair["metric"] for pair in result["pairs"]} == {"response_us", "connect_us"}


def test_quantiles_are_medians_of_the_samples_own(tmp_path: Path) -> None:
    """Of 1 to 101, scaled by the block, the percentiles are plain to see."""

    def ramp(_: Cell, block: int) -> dict[str, Any]:
        us = np.arange(1.0, 102.0) * (1 + block / 10)
        return {**connections(101, 1.0), "response_us": us, "connect_us": us / 4}

    (cell,) = compare(read_run(run_of(tmp_path, CELLS[:1], ramp, blocks=5)))["cells"]
    wanted = {"median": 51 * 1.3, "p90": 91 * 1.3, "p99": 100 * 1.3}
    for name, us in wanted.items():
        assert cell["response_us"][name] == pytest.approx(us)
        assert cell["connect_us"][name] == pytest.approx(us / 4)
    assert cell["response_us"]["ci95"] is None


def test_the_rate_of_many_connections_at_a_time(tmp_path: Path) -> None:
    cells = cross(("nft", "xdp"), ("native",), (2,), (624,), (25,), 100)
    result = compare(read_run(run_of(tmp_path, cells)))
    # Four rounds of 25, each as long as a response.
    assert of(result["cells"], mode="nft")["transactions_per_s"]["median"] == pytest.approx(
        100 / (4 * 168.35e-6), rel=1e-6
    )
    pair = of(result["pairs"], metric="transactions_per_s")
    assert pair["ratio"] == pytest.approx(168.35 / 113.35, rel=1e-4)
    assert pair["verdict"] == "faster"
    assert of(result["pairs"], metric="response_us")["verdict"] == "faster"


def test_failed_connections_make_no_rate(tmp_path: Path) -> None:
    some = run_of(tmp_path, CELLS[:1], lambda *_: connections(100, 1000.0, failed=20))
    (cell,) = compare(read_run(some))["cells"]
    # 80 established, the last of them starting after 79.
    assert cell["transactions_per_s"]["median"] == pytest.approx(1000.0, rel=1e-9)
    assert cell["response_us"]["median"] == pytest.approx(1000.0)


def test_a_valid_sample_without_times_is_left_out_and_told_of(tmp_path: Path) -> None:
    def some(cell: Cell, block: int) -> dict[str, Any] | None:
        return None if cell.mode == "nft" and block < 3 else timed(cell, block)

    result = compare(read_run(run_of(tmp_path, times=some, blocks=8)))
    assert [cell["samples"] for cell in result["cells"]] == [8, 6, 6, 8, 8]
    assert result["validity"]["warnings"] == [
        "valid samples without connection times are left out: nft 4"
    ]
    pair = of(result["pairs"], a="xdp", b="nft", hops=1, metric="response_us")
    assert (pair["n"], pair["blocks"], pair["verdict"]) == ([8, 6], 6, "faster")
    assert of(result["per_hop"], mode="nft", metric="response_us")["blocks"] == 6


@pytest.mark.parametrize(
    "spoilt",
    [
        {"response_us": np.full(100, np.inf)},
        {"response_us": np.full(100, -1.0)},
        {"response_us": np.zeros(100)},
        {"connect_us": np.zeros(100)},
        {"response_us": np.full(100, np.nan)},
        {"start_s": np.full(100, 1e300)},
        {"start_s": np.full(100, np.nan)},
        {"start_s": np.r_[-np.inf, np.zeros(99)]},
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_times_that_cannot_be(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    """A span that vanishes, times that are none: the sample has no figures, and it is said."""

    def some(cell: Cell, block: int) -> dict[str, Any]:
        return {**timed(cell, block), **(spoilt if block == 2 else {})}

    result = compare(read_run(run_of(tmp_path, CELLS[:1], some)))
    json.dumps(result, allow_nan=False)
    assert result["cells"][0]["samples"] == 5
    warnings = result["validity"]["warnings"]
    assert warnings == ["valid samples without connection times are left out: direct 1"]


def test_invalid_samples_and_warm_ups_have_times_that_do_not_count(tmp_path: Path) -> None:
    def took(cell: Cell, block: int) -> float | Sample:
        valid = sample(cell, block, CELLS.index(cell) + 1)
        if block in (0, 1):
            return Sample(cell, block, valid.position, START, valid.report, "CPU time was stolen")
        return valid

    path = run_of(tmp_path, took=took, warmups=True, blocks=7)
    result = compare(read_run(path))
    assert {(cell["samples"], cell["invalid"]) for cell in result["cells"]} == {(6, 1)}
    assert result["validity"]["invalid_reasons"] == {"CPU time was stolen": 5}
    assert result["validity"]["samples"]["warmup"] == 5


@pytest.mark.parametrize("blocks", [0, 1])
def test_warm_ups_alone_and_one_block(tmp_path: Path, blocks: int) -> None:
    result = compare(read_run(run_of(tmp_path, warmups=True, blocks=blocks)))
    json.dumps(result, allow_nan=False)
    assert {cell["samples"] for cell in result["cells"]} == {blocks}
    assert {pair["verdict"] for pair in result["pairs"]} == {"n too small"}
    assert [line["ci95"] for line in result["per_hop"]] == [None] * (4 * blocks)
    nothing = "5 of 5 cells have no sample to go by" in result["validity"]["warnings"]
    assert nothing is (blocks == 0)


def test_times_while_the_run_lasts(tmp_path: Path) -> None:
    """A run that was killed has its connections in parts; resumed, in parts and in a file."""
    whole = measured(read_run(run_of(tmp_path / "whole")))
    parts = run_of(tmp_path / "parts", status="running")
    assert not (parts / "connections.parquet").exists()
    assert measured(read_run(parts)).cells == whole.cells
    later = sorted((parts / "raw" / "connections").glob("*.parquet"))[1::2]
    for part in later:
        part.rename(tmp_path / part.name)
    tables.join(parts)
    for part in later:
        part.parent.mkdir(exist_ok=True)
        (tmp_path / part.name).rename(part)
    assert measured(read_run(parts)).cells == whole.cells


def test_connections_of_samples_that_are_not_there(tmp_path: Path) -> None:
    path = run_of(tmp_path)
    file = path / "connections.parquet"
    before = compare(read_run(path))
    table = pq.read_table(file)
    strange = table.set_column(0, "sample", pa.array(["elsewhere"] * len(table)))
    pq.write_table(pa.concat_tables([table.unify_dictionaries(), _as(strange, table)]), file)
    assert compare(read_run(path)) == before
    pq.write_table(strange, file)
    result = compare(read_run(path))
    assert result["validity"]["timer"] is False
    assert result["validity"]["warnings"][0].startswith(NO_TIMES)


def _as(table: pa.Table, like: pa.Table) -> pa.Table:
    return table.cast(like.schema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.drop_columns(["start_s"]),
        lambda table: table.drop_columns(["sample"]),
        lambda table: table.drop_columns(["response_us"]),
        lambda table: table.set_column(0, "sample", pa.array(range(len(table)))),
        lambda table: table.set_column(0, "sample", pa.nulls(len(table), pa.string())),
        lambda table: table.set_column(3, "response_us", pa.array(["soon"] * len(table))),
        lambda table: table.set_column(3, "response_us", pa.array([[1.0]] * len(table))),
        lambda table: table.set_column(3, "response_us", pa.array([True] * len(table))),
    ],
)
def test_a_file_of_other_columns(tmp_path: Path, spoil: Callable[[pa.Table], pa.Table]) -> None:
    path = run_of(tmp_path, CELLS[:1])
    file = path / "connections.parquet"
    pq.write_table(spoil(pq.read_table(file)), file)
    with pytest.raises(BenchError) as caught:
        compare(read_run(path))
    assert f"{file} is damaged" in caught.value.one_line()
    assert len(caught.value.one_line()) < 500


def test_a_damaged_file(tmp_path: Path) -> None:
    """Every 97th byte turned over: what comes out is figures, or one line."""
    path = run_of(tmp_path, CELLS[:1], lambda *_: connections(5, 100.0), blocks=1)
    file = path / "connections.parquet"
    sound = file.read_bytes()
    refused = 0
    for place in range(0, len(sound), 97):
        spoilt = bytearray(sound)
        spoilt[place] ^= 0xFF
        file.write_bytes(bytes(spoilt))
        try:
            json.dumps(compare(read_run(path)), allow_nan=False)
        except BenchError as error:
            refused += str(file) in error.one_line()
    assert refused
    for content in (b"", sound[:100], sound[:-20], b"PAR1" + bytes(1000) + b"PAR1"):
        file.write_bytes(content)
        with pytest.raises(BenchError, match="is damaged"):
            compare(read_run(path))


_PEAK = """
import re, sys
from pathlib import Path
from bench.compare import compare
from bench.runs import RunReader
path = Path(sys.argv[1])
print(sum(cell["samples"] for cell in compare(RunReader.open(path, path.parent))["cells"]))
# Not ru_maxrss, which has the process that forked this one in it.
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_memory_of_half_a_million_connections(tmp_path: Path) -> None:
    """A few dozen bytes a connection above what Python, pandas and Arrow take."""

    def many(cell: Cell, block: int) -> dict[str, Any]:
        return connections(12_500, response_us(cell, block), spread=0.3, seed=block)

    path = run_of(tmp_path, times=many, blocks=8)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True
    )
    samples, peak_mb = map(int, done.stdout.split())
    assert samples == 40
    assert peak_mb < 400
