# SPDX-License-Identifier: Apache-2.0
"""connections.parquet and counters.parquet: parts, joined files, and both together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import FAILED, record, records

from bench import connections, tables
from bench.errors import BenchError

PARTS, COUNTED = tables.CONNECTIONS_FOLDER, tables.COUNTERS_FOLDER


def add(run: Path, sample: str, count: int, *, port: int = 40000) -> None:
    """Keep so many connections of a sample."""
    data = b"".join(record(number, 50_000, 90_000, port) for number in range(count))
    tables.add_connections(run, sample, connections.columns(data, 624))


def found(run: Path) -> dict[str, tuple[int, ...]]:
    """Return each sample's ports, in the order they are read."""
    frame = tables.read_connections(run).to_pandas()
    groups = frame.groupby("sample", observed=True, sort=False)["port"]
    return {str(sample): tuple(ports) for sample, ports in groups}


def files(run: Path) -> set[str]:
    """Return every file below a run's folder."""
    return {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}


# Connections


def test_a_run_without_connections(tmp_path: Path) -> None:
    assert not tables.has_connections(tmp_path)
    empty = tables.read_connections(tmp_path)
    assert (empty.num_rows, empty.schema) == (0, tables.CONNECTIONS)
    assert tables.read_connections(tmp_path, ["sample", "port"]).column_names == ["sample", "port"]
    tables.join(tmp_path)
    assert files(tmp_path) == set()


def test_what_was_added_is_read_before_and_after_it_is_joined(tmp_path: Path) -> None:
    data = records(3) + record(10**13, 0, 3 * 10**9, 0, FAILED)
    tables.add_connections(tmp_path, "001-0001", connections.columns(data, 624))
    tables.add_connections(tmp_path, "001-0002", connections.columns(b"", None))
    tables.add_connections(tmp_path, "001-0003", connections.columns(records(2), None))
    assert tables.has_connections(tmp_path)
    before = tables.read_connections(tmp_path)
    assert before.schema == tables.CONNECTIONS
    assert before["sample"].to_pylist() == ["001-0001"] * 4 + ["001-0003"] * 2
    assert before["end"].to_pylist() == ["server"] * 3 + ["failed"] + ["server"] * 2
    assert before["connect_us"].to_pylist() == [300.0] * 3 + [None] + [300.0] * 2
    assert before["failed_us"].to_pylist() == [None] * 3 + [3e6] + [None] * 2
    assert before["port"].to_pylist() == [40000] * 3 + [0] + [40000] * 2
    assert before["bytes"].to_pylist() == [624] * 3 + [None] * 3
    # The parts share their words, whatever each one calls its own sample.
    assert len({tuple(chunk.dictionary.to_pylist()) for chunk in before["sample"].chunks}) == 1
    tables.join(tmp_path)
    assert files(tmp_path) == {"connections.parquet"}
    assert not (tmp_path / PARTS).exists()
    assert tables.has_connections(tmp_path)
    after = tables.read_connections(tmp_path)
    assert after.schema == before.schema
    assert after.to_pylist() == before.to_pylist()


def test_samples_are_row_groups_of_the_joined_file(tmp_path: Path) -> None:
    for number in range(1, 6):
        add(tmp_path, f"001-{number:04d}", 10 * number)
    tables.join(tmp_path)
    layout = pq.ParquetFile(tmp_path / "connections.parquet").metadata
    assert [layout.row_group(each).num_rows for each in range(5)] == [10, 20, 30, 40, 50]


def test_some_columns_are_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    wanted = ["response_us", "sample", "start_s"]
    for _ in range(2):
        add(tmp_path, "001-0001", 2)
        assert tables.read_connections(tmp_path, wanted).column_names == wanted
        tables.join(tmp_path)


def test_a_run_that_goes_on_is_joined_twice(tmp_path: Path) -> None:
    add(tmp_path, "001-0001", 2, port=1)
    add(tmp_path, "001-0002", 1, port=2)
    tables.join(tmp_path)
    # Killed before it could join: one part is of a sample that was measured again.
    add(tmp_path, "001-0002", 3, port=3)
    add(tmp_path, "001-0003", 1, port=4)
    expected = {"001-0001": (1, 1), "001-0002": (3, 3, 3), "001-0003": (4,)}
    assert found(tmp_path) == expected
    tables.join(tmp_path)
    assert found(tmp_path) == expected
    assert files(tmp_path) == {"connections.parquet"}
    tables.join(tmp_path)
    assert found(tmp_path) == expected


def test_a_join_that_was_killed_before_it_removed_the_parts(tmp_path: Path) -> None:
    for number in (1, 2):
        add(tmp_path, f"001-000{number}", number)
    parts = {file: file.read_bytes() for file in (tmp_path / PARTS).iterdir()}
    tables.join(tmp_path)
    (tmp_path / PARTS).mkdir(parents=True)
    for file, content in parts.items():
        file.write_bytes(content)
    assert found(tmp_path) == {"001-0001": (40000,), "001-0002": (40000, 40000)}
    tables.join(tmp_path)
    assert tables.read_connections(tmp_path).num_rows == 3


steps = st.lists(
    st.tuples(st.sampled_from(["001-0001", "001-0002", "002-0001"]), st.integers(0, 4))
    | st.just("join"),
    max_size=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(steps)
def test_the_latest_part_of_a_sample_counts_whenever_they_are_joined(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    run = tmp_path_factory.mktemp("run")
    expected: dict[str, tuple[int, ...]] = {}
    for port, step in enumerate(steps):
        if step == "join":
            tables.join(run)
        else:
            add(run, step[0], step[1], port=port)
            expected[step[0]] = (port,) * step[1]
        held = {sample: ports for sample, ports in expected.items() if ports}
        assert found(run) == held
    table = tables.read_connections(run)
    assert sorted(set(table["sample"].to_pylist())) == sorted(held if steps else [])


def damage(run: Path, file: Path, content: bytes) -> None:
    """Put something else in a file's place."""
    (run / file).parent.mkdir(parents=True, exist_ok=True)
    (run / file).write_bytes(content)


def as_parquet(table: pa.Table) -> bytes:
    """Return a table as a file has it."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


WHOLE = pa.table(
    {
        "sample": ["001-0001"],
        "start_s": [0.0],
        "connect_us": [1.0],
        "response_us": [2.0],
        "end": ["server"],
        "failed_us": pa.array([None], pa.float64()),
        "port": pa.array([1], pa.uint16()),
        "bytes": pa.array([624], pa.int64()),
    }
)
PART = PARTS / "001-0001.parquet"
JOINED = Path("connections.parquet")


def retyped(name: str, values: pa.Array) -> bytes:
    """Return a file whose column is of another type."""
    return as_parquet(WHOLE.set_column(WHOLE.column_names.index(name), name, values))


@pytest.mark.parametrize("file", [PART, JOINED], ids=["a part", "the joined file"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"PAR1" + b"\xff" * 100 + b"PAR1",
        b"{}",
        as_parquet(WHOLE)[:-5],
        as_parquet(WHOLE)[5:],
        as_parquet(pa.table({"x": [1]})),
        *(as_parquet(WHOLE.drop_columns([name])) for name in ("sample", "start_s", "end")),
        retyped("sample", pa.array([1])),
        retyped("sample", pa.array([None], pa.string())),
        retyped("start_s", pa.array(["soon"])),
        retyped("start_s", pa.array([True])),
        retyped("response_us", pa.array([[1.0]])),
    ],
    ids=lambda content: str(len(content)),
)
def test_damaged_connections(tmp_path: Path, file: Path, content: bytes) -> None:
    damage(tmp_path, file, content)
    reads: list[Callable[[], object]] = [
        lambda: tables.read_connections(tmp_path),
        lambda: tables.read_connections(tmp_path, ["end", "start_s", "response_us", "sample"]),
    ]
    if file == PART:
        reads.append(lambda: tables.join(tmp_path))
    for read in reads:
        with pytest.raises(BenchError) as caught:
            read()
        line = caught.value.one_line()
        assert line.startswith(f"{tmp_path / file} is damaged: ")
        assert line.endswith("(the run is damaged; measure again, or restore the file)")
        assert line.isprintable()
        assert len(line) < 400 + len(str(tmp_path))
    # What is there stays for whoever wants to look at it.
    assert (tmp_path / file).read_bytes() == content


def test_a_joined_file_that_is_damaged_is_not_replaced(tmp_path: Path) -> None:
    damage(tmp_path, JOINED, as_parquet(WHOLE)[:-5])
    add(tmp_path, "001-0002", 1)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(BenchError, match="is damaged"):
        tables.join(tmp_path)
    assert before == {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}


@pytest.mark.parametrize("file", [PART, JOINED], ids=["a part", "the joined file"])
@pytest.mark.parametrize(
    "content",
    [
        as_parquet(WHOLE),
        as_parquet(WHOLE.select(WHOLE.column_names[::-1])),
        as_parquet(pa.Table.from_pandas(WHOLE.to_pandas())),
        retyped("sample", pa.array(["001-0001"], pa.large_string())),
        retyped("end", pa.array(["server"]).dictionary_encode()),
        retyped("start_s", pa.array([0], pa.int64())),
        retyped("port", pa.array([1], pa.int64())),
        retyped("bytes", pa.array([624.0])),
        retyped("failed_us", pa.array([None], pa.null())),
    ],
    ids=lambda content: str(len(content)),
)
def test_files_of_other_tools_are_read(tmp_path: Path, file: Path, content: bytes) -> None:
    """pandas for one has whole numbers with a point where some are missing."""
    damage(tmp_path, file, content)
    for _ in range(2):
        found = tables.read_connections(tmp_path)
        assert found.schema == tables.CONNECTIONS
        assert found.to_pylist() == WHOLE.to_pylist()
        tables.join(tmp_path)


# Counters


def test_a_run_without_counters(tmp_path: Path) -> None:
    frame = tables.read_counters(tmp_path)
    assert (len(frame), list(frame.columns)) == (0, ["sample", "host", "role"])


def host(name: str, **values: float) -> dict[str, Any]:
    """Return what a host counted."""
    return {"host": name, "role": "client" if name == "client" else "hop", **values}


def test_hosts_have_different_counters(tmp_path: Path) -> None:
    tables.add_counters(tmp_path, "001-0001", [host("client", TcpOutSegs=7), host("h1", nic=1.5)])
    tables.add_counters(tmp_path, "001-0002", [host("client", TcpOutSegs=2**53), host("h2", z=-1)])
    for _ in range(2):
        frame = tables.read_counters(tmp_path)
        assert frame["sample"].tolist() == ["001-0001"] * 2 + ["001-0002"] * 2
        assert frame["host"].tolist() == ["client", "h1", "client", "h2"]
        assert frame["role"].tolist() == ["client", "hop", "client", "hop"]
        assert set(frame.columns) == {"sample", "host", "role", "TcpOutSegs", "nic", "z"}
        assert frame["TcpOutSegs"].tolist()[::2] == [7.0, 2.0**53]
        counted = frame.drop(columns=["sample", "host", "role"])
        assert (counted.dtypes == "float64").all()
        assert counted.notna().sum().sum() == 4
        tables.join(tmp_path)
        assert files(tmp_path) == {"counters.parquet"}


def test_counters_of_a_run_that_goes_on(tmp_path: Path) -> None:
    tables.add_counters(tmp_path, "001-0001", [host("client", a=1), host("h1", a=2)])
    tables.add_counters(tmp_path, "001-0002", [host("client", a=3)])
    tables.join(tmp_path)
    tables.add_counters(tmp_path, "001-0002", [host("client", b=4)])
    tables.add_counters(tmp_path, "001-0003", [host("client", a=5, b=6)])
    for _ in range(2):
        frame = tables.read_counters(tmp_path)
        rows = [
            (row.sample, row.host, None if math.isnan(row.a) else row.a)
            for row in frame.itertuples()
        ]
        assert rows == [
            ("001-0001", "client", 1.0),
            ("001-0001", "h1", 2.0),
            ("001-0002", "client", None),
            ("001-0003", "client", 5.0),
        ]
        assert frame["b"].isna().tolist() == [True, True, False, False]
        tables.join(tmp_path)


COUNTERS = Path("counters.parquet")
PART_OF_COUNTERS = COUNTED / "001-0001.json"
ROW = {"sample": "001-0001", "host": "client", "role": "client"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(
            (PART_OF_COUNTERS, content)
            for content in (
                b"",
                b"[",
                b"[" * 100_000,
                b"\xff",
                b"1",
                b"null",
                b"{}",
                b"[1]",
                b'["row"]',
                b"[{}]",
                json.dumps([{**ROW, "sample": 1}]).encode(),
                json.dumps([{**ROW, "role": None}]).encode(),
                json.dumps([ROW, {**ROW, "a": "7"}]).encode(),
                json.dumps([{**ROW, "a": [7]}]).encode(),
                json.dumps([{**ROW, "a": None}]).encode(),
            )
        ),
        *(
            (COUNTERS, content)
            for content in (
                b"",
                b"PAR1PAR1",
                as_parquet(pa.table({"a": [1.0]})),
                as_parquet(pa.table({"sample": ["x"], "host": ["y"]})),
                as_parquet(pa.table({**{key: ["x"] for key in ROW}, "a": ["many"]})),
                as_parquet(pa.table({**{key: ["x"] for key in ROW}, "a": [[1.0]]})),
            )
        ),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, bytes) else "",
)
def test_damaged_counters(tmp_path: Path, file: Path, content: bytes) -> None:
    damage(tmp_path, file, content)
    reads: list[Callable[[], object]] = [lambda: tables.read_counters(tmp_path)]
    if file != COUNTERS:
        reads.append(lambda: tables.join(tmp_path))
    for read in reads:
        with pytest.raises(BenchError) as caught:
            read()
        line = caught.value.one_line()
        assert line.startswith(f"{tmp_path / file} is damaged: ")
        assert line.isprintable()
        assert len(line) < 400 + len(str(tmp_path))
    assert (tmp_path / file).read_bytes() == content


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_counters_that_are_no_numbers_are_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError):
        tables.add_counters(tmp_path, "001-0001", [host("client", a=value)])
    assert files(tmp_path) == set()


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda name: name not in ("sample", "host", "role")
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(names, st.integers(-(2**53), 2**53)), min_size=1, max_size=4))
def test_any_counters_come_back(
    tmp_path_factory: pytest.TempPathFactory, hosts: list[dict[str, float]]
) -> None:
    run = tmp_path_factory.mktemp("run")
    tables.add_counters(run, "001-0001", [host(f"h{i}", **each) for i, each in enumerate(hosts)])
    frames: list[pd.DataFrame] = []
    for _ in range(2):
        frame = tables.read_counters(run)
        for place, each in enumerate(hosts):
            row = frame.iloc[place].drop(["sample", "host", "role"]).dropna()
            assert row.to_dict() == each
        frames.append(frame)
        tables.join(run)
    assert frames[0].equals(frames[1])
