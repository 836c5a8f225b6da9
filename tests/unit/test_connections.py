# SPDX-License-Identifier: Apache-2.0
"""The connection timer's records, from an agent's line to columns."""

from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import CLIENT, FAILED, SERVER, packed, record, records

from bench import connections, tables
from bench.hop import timer

BEGIN_NS = 12_345_678_901_234_567
RECORDS = [
    record(BEGIN_NS + 2_000_000, 80_500, 300_250, 40002, CLIENT),
    record(BEGIN_NS, 50_000, 200_000, 40001),
    record(BEGIN_NS + 5_000_000, 0, 1_000_000_000, 0, FAILED),
    record(BEGIN_NS + 3_000_000, 1_000_100_000, 1_000_300_000, 65535),
]


def listed(records: bytes, payload_bytes: int | None) -> dict[str, list[object]]:
    """Return columns as lists, None for what is null."""
    return {
        name: [None if each is None or each != each else each for each in list(values)]
        for name, values in connections.columns(records, payload_bytes).items()
    }


def test_records_are_those_of_the_agent() -> None:
    assert len(record(0, 0, 0)) == timer.RECORD_BYTES == connections._RECORD.itemsize
    assert connections._RECORD.fields is not None
    assert [connections._RECORD.fields[name][1] for name in ("syn_ns", "port", "end")] == [
        8,
        32,
        34,
    ]


def test_columns_are_in_the_order_connections_began() -> None:
    assert listed(b"".join(RECORDS), 624) == {
        "start_s": [0.0, 0.002, 0.003, 0.005],
        "connect_us": [50.0, 80.5, 1_000_100.0, None],
        "response_us": [200.0, 300.25, 1_000_300.0, None],
        "end": ["server", "client", "server", "failed"],
        "failed_us": [None, None, None, 1_000_000.0],
        "port": [40001, 40002, 65535, 0],
        "bytes": [624, 624, 624, None],
    }


def test_bytes_that_nobody_knows() -> None:
    assert listed(b"".join(RECORDS), None)["bytes"] == [None] * 4


@pytest.mark.parametrize(
    ("data", "count"),
    [(b"", 0), (RECORDS[2], 1), (RECORDS[2] * 3, 3), (RECORDS[0], 1)],
    ids=["none", "a failed one", "failed ones", "one"],
)
@pytest.mark.parametrize("payload_bytes", [None, 624])
def test_few_connections_are_a_table_all_the_same(
    tmp_path: Path, data: bytes, count: int, payload_bytes: int | None
) -> None:
    found = connections.columns(data, payload_bytes)
    assert {len(values) for values in found.values()} == {count}
    assert set(found) | {"sample"} == set(tables.CONNECTIONS.names)
    tables.add_connections(tmp_path, "001-0001", found)
    assert tables.read_connections(tmp_path).num_rows == count


def test_connections_that_began_together_stay_in_their_order() -> None:
    data = b"".join(record(7, 1, 2, port) for port in (3, 1, 2))
    assert listed(data, None)["port"] == [3, 1, 2]


def test_an_end_that_is_unknown_is_no_response() -> None:
    found = listed(record(1, 5, 9, end=7), 624)
    assert found["end"] == ["failed"]
    assert (found["connect_us"], found["response_us"], found["bytes"]) == ([None],) * 3
    assert found["failed_us"] == [0.009]


nanoseconds = st.integers(0, 2**53 - 1)
rows = st.lists(
    st.tuples(nanoseconds, nanoseconds, nanoseconds, st.integers(0, 65535), st.integers(0, 2)),
    max_size=30,
)


@given(rows, st.none() | st.integers(1, 2**31))
def test_any_records(made: list[tuple[int, int, int, int, int]], payload_bytes: int | None) -> None:
    data = b"".join(record(*each) for each in made)
    found = listed(connections.unpack(packed(data)), payload_bytes)
    kept = sorted(made, key=lambda each: each[0])
    assert found["port"] == [port for _, _, _, port, _ in kept]
    assert found["end"] == [connections.ENDS[end] for *_, end in kept]
    starts = [float(each) for each in found["start_s"]]  # type: ignore[arg-type]
    assert starts[:1] in ([], [0.0])
    assert all(one <= other for one, other in pairwise(starts))
    for place, (_, connect_ns, total_ns, _, end) in enumerate(kept):
        established = end != FAILED
        assert found["connect_us"][place] == (connect_ns / 1e3 if established else None)
        assert found["response_us"][place] == (total_ns / 1e3 if established else None)
        assert found["failed_us"][place] == (None if established else total_ns / 1e3)
        assert found["bytes"][place] == (payload_bytes if established else None)


# How an agent's line is unpacked


@pytest.mark.parametrize("count", [0, 1, 7, 20_000])
def test_what_an_agent_packs_is_unpacked(count: int) -> None:
    data = records(count)
    assert connections.unpack(packed(data)) == data


def test_the_agent_packs_what_is_unpacked_here() -> None:
    """Its own code, without a kernel's ring below it."""
    agent = timer.ConnectionTimer.__new__(timer.ConnectionTimer)
    data = records(timer.MOST_RECORDS * 2 + 5)
    agent._taken = [data[:400], data[400:]]
    parts, more = [], True
    while more:
        answer = agent.take()
        parts.append(connections.unpack(str(answer["data"])))
        more = bool(answer["more"])
    assert b"".join(parts) == data
    assert [len(part) // timer.RECORD_BYTES for part in parts] == [timer.MOST_RECORDS] * 2 + [5]
    assert agent.take()["more"] is False


WHOLE = packed(records(3))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "A",
        "====",
        WHOLE[:-4],
        WHOLE[:-1],
        WHOLE[4:],
        WHOLE + "!",
        WHOLE.replace("=", "") + "\n",
        "\u00e9" * 8,
        "\x00",
        "'; rm -rf /",
        base64.b64encode(records(3)).decode(),
        packed(records(3)[:-1]),
        packed(b"x"),
    ],
)
def test_lines_that_are_no_records(data: str) -> None:
    with pytest.raises(ValueError):
        connections.unpack(data)


@given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
def test_any_line_is_records_or_a_value_error(data: str) -> None:
    try:
        found = connections.unpack(data)
    except ValueError:
        return
    assert len(found) % timer.RECORD_BYTES == 0


@given(st.binary(max_size=400).map(lambda data: data[: len(data) // 40 * 40]))
def test_any_bytes_are_columns(data: bytes) -> None:
    found = connections.columns(data, 624)
    assert len(found["start_s"]) == len(data) // 40
    assert (np.asarray(found["start_s"]) >= 0).all()


# How many there are a second


@pytest.mark.parametrize(
    ("data", "rate"),
    [
        (b"", None),
        (RECORDS[2], None),
        (record(5, 0, 0), None),
        (record(0, 1, 10**9), 1.0),
        (record(7, 1, 10**9, end=CLIENT) * 4, 4.0),
        (b"".join(record(10**9 * start, 1, 10**9) for start in (3, 1, 2, 0)), 1.0),
        # One that failed makes nothing faster or slower.
        (record(0, 0, 9 * 10**9, 0, FAILED) + record(5 * 10**9, 1, 10**8), 10.0),
        (records(1000, apart_ns=1_000_000, total_ns=1_000_000), 1000.0),
    ],
)
def test_rates(data: bytes, rate: float | None) -> None:
    assert connections.rate_per_s(data) == (rate if rate is None else pytest.approx(rate))


def test_ends_have_the_numbers_that_the_program_gives_them() -> None:
    source = (Path(__file__).parents[2] / "bpf" / "connections.c").read_text()
    enum = source.split("enum connection_end {")[1].split("}")[0]
    names = [line.split(",")[0].strip() for line in enum.splitlines() if "END_" in line]
    assert names == [f"END_{end.upper()}" for end in connections.ENDS]
    assert connections.ENDS[SERVER] == "server"
