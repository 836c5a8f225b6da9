# SPDX-License-Identifier: Apache-2.0
"""Quantiles of connection times, held against numpy's and pandas' over the same connections."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import CLIENT, FAILED, record, records

from bench import connections, tables, timings
from bench.errors import BenchError

TIMES = [f"{metric}_{name}" for metric in timings.METRICS for name in timings.QUANTILES]


def random_connections(seed: int, sizes: dict[str, int], failing: float) -> pd.DataFrame:
    """Return connections of several samples, some of them failed."""
    random = np.random.default_rng(seed)
    parts = []
    for sample, size in sizes.items():
        failed = random.random(size) < failing
        connect_us = random.lognormal(4, 1, size)
        response_us = connect_us + random.lognormal(5, 1, size)
        parts.append(
            pd.DataFrame(
                {
                    "sample": sample,
                    "start_s": np.sort(random.random(size)),
                    "connect_us": np.where(failed, np.nan, connect_us),
                    "response_us": np.where(failed, np.nan, response_us),
                    "end": np.where(failed, "failed", "server"),
                    "failed_us": np.where(failed, 1e6, np.nan),
                    "port": random.integers(0, 65536, size, dtype=np.uint16),
                    "bytes": 624,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def write(run: Path, frame: pd.DataFrame, rows_a_group: int = 1000) -> Path:
    """Write connections as a run's, in row groups of this size."""
    table = pa.Table.from_pandas(frame, schema=tables.CONNECTIONS, preserve_index=False)
    pq.write_table(table, run / tables.CONNECTIONS_FILE, row_group_size=rows_a_group)
    return run


def expected(frame: pd.DataFrame) -> pd.DataFrame:
    """Return what pandas says of the same connections."""
    groups = frame.groupby("sample")
    ends_s = frame["start_s"] + frame["response_us"] / 1e6
    found = pd.DataFrame(
        {
            "connections": groups.size(),
            "failed": frame["response_us"].isna().groupby(frame["sample"]).sum(),
            **{
                f"{metric}_{name}": groups[metric].quantile(share)
                for metric in timings.METRICS
                for name, share in timings.QUANTILES.items()
            },
            "span_s": ends_s.groupby(frame["sample"]).max() - groups["start_s"].min(),
        }
    )
    return found[list(timings.COLUMNS)]


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """Hold two tables against each other, whatever the order of their rows."""
    assert list(found.columns) == list(timings.COLUMNS)
    assert found.index.name == "sample"
    assert found.index.is_unique
    assert sorted(found.index) == sorted(wanted.index)
    for name in timings.COLUMNS:
        one = found.loc[wanted.index, name].to_numpy(dtype=float)
        np.testing.assert_allclose(one, wanted[name].to_numpy(dtype=float), rtol=1e-12)


SIZES = {"001-0001": 2500, "001-0002": 1, "001-0003": 2, "002-0001": 777, "002-0002": 100}


@pytest.mark.parametrize("rows_a_group", [1, 7, 1000, 10_000])
@pytest.mark.parametrize("failing", [0.0, 0.3, 1.0])
def test_quantiles_are_those_of_pandas(tmp_path: Path, failing: float, rows_a_group: int) -> None:
    frame = random_connections(1, SIZES, failing)
    small = frame if rows_a_group > 1 else frame.iloc[::20]
    same(timings.of_samples(write(tmp_path, small, rows_a_group)), expected(small))


@pytest.mark.parametrize("rows_a_group", [50, 10_000])
def test_rows_of_a_sample_may_be_anywhere(tmp_path: Path, rows_a_group: int) -> None:
    frame = random_connections(2, SIZES, 0.1)
    shuffled = frame.sample(frac=1, random_state=3).reset_index(drop=True)
    same(timings.of_samples(write(tmp_path, shuffled, rows_a_group)), expected(frame))


def test_parts_and_the_joined_file_together(tmp_path: Path) -> None:
    frame = random_connections(4, SIZES, 0.1)
    write(tmp_path, frame[frame["sample"] < "002"])
    for sample, rows in frame[frame["sample"] >= "001-0003"].groupby("sample"):
        tables.add_connections(tmp_path, str(sample), {name: rows[name] for name in rows})
    same(timings.of_samples(tmp_path), expected(frame))
    tables.join(tmp_path)
    same(timings.of_samples(tmp_path), expected(frame))


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.dictionaries(st.sampled_from(sorted(SIZES)), st.integers(1, 40), min_size=1),
    st.floats(0, 1),
    st.integers(1, 50),
    st.booleans(),
)
def test_any_samples(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    sizes: dict[str, int],
    failing: float,
    rows_a_group: int,
    shuffled: bool,
) -> None:
    run = tmp_path_factory.mktemp("run")
    frame = random_connections(seed, sizes, failing)
    mixed = frame.sample(frac=1, random_state=seed) if shuffled else frame
    same(timings.of_samples(write(run, mixed, rows_a_group)), expected(frame))
    shutil.rmtree(run)


def test_a_sample_told_by_hand(tmp_path: Path) -> None:
    made = [(0, 100_000, 500_000), (3_000_000, 300_000, 700_000), (1_000_000, 200_000, 600_000)]
    data = b"".join(record(10**15 + syn, connect, total) for syn, connect, total in made)
    data += record(10**15 + 9_000_000, 0, 10**9, 0, FAILED)
    data += record(10**15 + 2_000_000, 400_000, 900_000, end=CLIENT)
    tables.add_connections(tmp_path, "000-0001", connections.columns(data, 624))
    row = timings.of_samples(tmp_path).loc["000-0001"]
    assert (row["connections"], row["failed"]) == (5, 1)
    assert row["connect_us_median"] == pytest.approx(250.0)
    assert row["response_us_median"] == pytest.approx(650.0)
    assert row["response_us_p90"] == pytest.approx(700 + 0.7 * 200)
    # To the last response, not to when the last attempt was given up.
    assert row["span_s"] == pytest.approx(0.0037)


def test_nobody_got_through(tmp_path: Path) -> None:
    data = b"".join(record(number, 0, 10**9, 0, FAILED) for number in range(3))
    tables.add_connections(tmp_path, "001-0001", connections.columns(data, None))
    row = timings.of_samples(tmp_path).loc["001-0001"]
    assert (row["connections"], row["failed"]) == (3, 3)
    assert row[[*TIMES, "span_s"]].isna().all()


@pytest.mark.parametrize("how", ["nothing", "an empty part", "an empty file"])
def test_no_connections(tmp_path: Path, how: str) -> None:
    if how != "nothing":
        tables.add_connections(tmp_path, "001-0001", connections.columns(b"", None))
    if how == "an empty file":
        tables.join(tmp_path)
    found = timings.of_samples(tmp_path)
    assert len(found) == 0
    assert list(found.columns) == list(timings.COLUMNS)
    assert found.index.name == "sample"


def test_an_empty_sample_among_others(tmp_path: Path) -> None:
    tables.add_connections(tmp_path, "001-0001", connections.columns(b"", None))
    tables.add_connections(tmp_path, "001-0002", connections.columns(records(4), None))
    for _ in range(2):
        assert timings.of_samples(tmp_path)["connections"].to_dict() == {"001-0002": 4}
        tables.join(tmp_path)


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / tables.CONNECTIONS_FILE).write_bytes(b"PAR1")
    with pytest.raises(BenchError, match="is damaged"):
        timings.of_samples(tmp_path)


def test_a_summary_stands_for_the_connections(tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "reference"
    run.mkdir()
    folder.mkdir()
    frame = random_connections(5, {"001-0001": 300, "001-0002": 40}, 0.1)
    whole = timings.of_samples(write(run, frame))
    assert not timings.known(folder)
    timings.summarise(run, folder)
    assert timings.known(folder)
    pd.testing.assert_frame_equal(timings.of_samples(folder), whole, check_exact=True)


@pytest.mark.parametrize("text", [b"", b"PAR1 not a table"])
def test_a_damaged_summary_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / timings.SUMMARY_FILE).write_bytes(text)
    with pytest.raises(BenchError, match=r"timings\.parquet is damaged"):
        timings.of_samples(tmp_path)


def test_a_summary_with_other_columns_is_damaged(tmp_path: Path) -> None:
    pd.DataFrame({"median": [1.0]}).to_parquet(tmp_path / timings.SUMMARY_FILE)
    with pytest.raises(BenchError, match="columns"):
        timings.of_samples(tmp_path)
