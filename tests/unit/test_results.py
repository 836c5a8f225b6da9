# SPDX-License-Identifier: Apache-2.0
"""Run directories as they are written, also when the file system objects."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from synthetic import START, report, sample, tree

from bench import tables
from bench.cells import Cell
from bench.chain import Chain, Host
from bench.results import COLUMNS, RunMeta, Sample, Timing, describe_chain, iso_utc
from bench.runwriter import RunWriter, describe_sweep
from bench.sweep import Sweep, order

CELLS = (
    Cell("direct", "", 0, 624, 1, 100),
    Cell("xdp", "native", 3, 624, 25, 110),
    Cell("xdp", "native", 3, 624, 25, 110, twin=True),
)
SWEEP = Sweep(CELLS, 2, 42)
FULL = RunMeta(
    SWEEP,
    versions={"siege": "4.0.7"},
    git_commit="0" * 40,
    chain={"hops": []},
    notes=("a note",),
    aa=True,
    until_ci={"half_width": 0.05, "limit_s": 600.0},
)
FINDING = {"host": "client", "level": "warning", "text": "swap is on", "remedy": "swapoff -a"}


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "a" / "results", FULL, now=START)
    path = writer.path
    assert path.parent == tmp_path / "a" / "results"
    assert path.name == writer.run_id
    assert writer.run_id.startswith("20261123-031500-")
    assert len(writer.run_id) == len("20261123-031500-xxxx")
    assert set(tree(path)) == {"run.json", "samples.csv"}
    document = json.loads((path / "run.json").read_text())
    assert document["status"] == "running"
    assert document["ended_at"] is None
    writer.update(host_facts={"client": {"kernel": "6.1"}}, findings=[FINDING])

    for position, cell in enumerate(order(SWEEP, 1), start=1):
        writer.add_sample(sample(cell, 1, position), '{"raw": 1}')
        with (path / "samples.csv").open() as file:
            assert len(list(csv.reader(file))) == 1 + position
    writer.finish(
        "complete",
        timing=Timing(1.5, 60.0, 90.0),
        host_facts_after={"client": {"kernel": "6.2"}},
        changes=["client: kernel 6.1, then 6.2"],
        now=START + timedelta(minutes=2),
    )

    assert json.loads((path / "run.json").read_text()) == {
        "schema_version": 2,
        "run_id": writer.run_id,
        "status": "complete",
        "started_at": "2026-11-23T03:15:00.000Z",
        "ended_at": "2026-11-23T03:17:00.000Z",
        "timing": {"ready_s": 1.5, "siege_s": 60.0, "wall_s": 90.0},
        "notes": ["a note"],
        "versions": {"siege": "4.0.7"},
        "git_commit": "0" * 40,
        "seed": 42,
        "sweep": {
            "blocks": 2,
            "cells": [
                {
                    "mode": "direct",
                    "attach": "",
                    "hops": 0,
                    "size_bytes": 624,
                    "concurrency": 1,
                    "requests": 100,
                    "offloads": "equal",
                    "twin": False,
                },
                *(
                    {
                        "mode": "xdp",
                        "attach": "native",
                        "hops": 3,
                        "size_bytes": 624,
                        "concurrency": 25,
                        "requests": 110,
                        "offloads": "equal",
                        "twin": twin,
                    }
                    for twin in (False, True)
                ),
            ],
        },
        "order": [[CELLS.index(cell) for cell in order(SWEEP, block)] for block in (1, 2)],
        "aa": True,
        "until_ci": {"half_width": 0.05, "limit_s": 600.0},
        "chain": {"hops": []},
        "findings": [FINDING],
        "host_facts": {"client": {"kernel": "6.1"}},
        "host_facts_after": {"client": {"kernel": "6.2"}},
        "changes": ["client: kernel 6.1, then 6.2"],
        "clocks": [],
    }
    raw = {f"raw/siege/001-000{position}.json" for position in (1, 2, 3)}
    assert set(tree(path)) == {"run.json", "samples.csv"} | raw


def test_a_run_that_knows_nothing_yet(tmp_path: Path) -> None:
    document = json.loads(
        (RunWriter.create(tmp_path, RunMeta(SWEEP)).path / "run.json").read_text()
    )
    empty = {key: value for key, value in document.items() if value in ({}, [], None)}
    assert empty == {
        "ended_at": None,
        "notes": [],
        "versions": {},
        "git_commit": None,
        "until_ci": None,
        "chain": {},
        "findings": [],
        "host_facts": {},
        "host_facts_after": {},
        "changes": [],
        "clocks": [],
    }
    assert document["aa"] is False


def test_blocks_may_be_added_while_a_run_lasts(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, FULL)
    before = json.loads((writer.path / "run.json").read_text())
    writer.update(**describe_sweep(replace(SWEEP, blocks=5)))
    after = json.loads((writer.path / "run.json").read_text())
    assert after["order"][:2] == before["order"]
    assert len(after["order"]) == after["sweep"]["blocks"] == 5
    assert {key for key in after if after[key] != before[key]} == {"sweep", "order"}


TIMED = {
    "start_s": [0.0, 0.1],
    "connect_us": [50.0, None],
    "response_us": [200.0, None],
    "end": ["server", "failed"],
    "failed_us": [None, 1e6],
    "port": [40000, 0],
    "bytes": [624, None],
}
COUNTED = ({"host": "client", "role": "client", "TcpRetransSegs": 1},)


def test_what_a_sample_brings_along(tmp_path: Path) -> None:
    """Its connections and counters have files of their own while the run lasts."""
    writer = RunWriter.create(tmp_path, RunMeta(SWEEP))
    writer.add_sample(sample(CELLS[0]), "raw", TIMED, COUNTED)
    writer.add_sample(sample(CELLS[1], position=2), "raw")
    run = ["run.json", "samples.csv", "raw/siege/001-0001.json", "raw/siege/001-0002.json"]
    parts = ["raw/connections/001-0001.parquet", "raw/counters/001-0001.json"]
    assert set(tree(writer.path)) == {*run, *parts}
    assert writer.sample_ids == {"001-0001", "001-0002"}
    writer.finish("complete")
    assert set(tree(writer.path)) == {*run, "connections.parquet", "counters.parquet"}
    assert tables.read_connections(writer.path).num_rows == 2
    assert tables.read_counters(writer.path)["TcpRetransSegs"].tolist() == [1.0]


def test_what_is_said_with_agents_is_kept_also_of_the_first_time(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, RunMeta(SWEEP))
    writer.add_log("hop1", "> place\n")
    writer.add_log("hop1", "< ready\udcff\n")
    assert tree(writer.path)["raw/agents/hop1.log"] == b"> place\n< ready\\udcff\n"


def test_the_row_of_a_sample() -> None:
    row = dict(zip(COLUMNS, sample(CELLS[1], 2, 7, elapsed_s=0.5).row(), strict=True))
    assert row["sample"] == "002-0007"
    assert row["requests"] == "125"
    assert row["started_at"] == "2026-11-23T03:17:07.000Z"
    assert (row["elapsed_s"], row["transactions"], row["failed"]) == ("0.5", "125", "0")
    assert (row["valid"], row["invalid_reason"]) == ("true", "")
    assert (row["offloads"], row["twin"], row["warmup"]) == ("equal", "false", "false")
    assert (row["wall_s"], row["timed"], row["lost"]) == ("", "", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cell": replace(CELLS[1], offloads="native")}, {"offloads": "native"}),
        ({"cell": CELLS[2]}, {"twin": "true", "mode": "xdp"}),
        ({"block": 0}, {"sample": "000-0001", "block": "0", "warmup": "true"}),
        ({"wall_s": 0.0, "timed": 0, "lost": 0}, {"wall_s": "0.0", "timed": "0", "lost": "0"}),
        (
            {"wall_s": 0.25, "timed": 125, "lost": 3},
            {"wall_s": "0.25", "timed": "125", "lost": "3"},
        ),
        ({"block": 1000, "position": 10_001}, {"sample": "1000-10001"}),
    ],
)
def test_columns_that_tell_samples_apart(changes: dict[str, Any], said: dict[str, str]) -> None:
    made = replace(sample(CELLS[1]), **changes)
    row = dict(zip(COLUMNS, made.row(), strict=True))
    assert {name: row[name] for name in said} == said
    assert list(row) == list(COLUMNS)


@pytest.mark.parametrize(
    ("reported", "reason", "valid", "said"),
    [
        (True, "", "true", ""),
        (True, "1 of 100\nrequests,  failed", "false", "1 of 100 requests, failed"),
        (False, "killed after 60 s", "false", "killed after 60 s"),
        (False, "", "false", "siege left no report"),
    ],
)
def test_validity(reported: bool, reason: str, valid: str, said: str) -> None:
    made = Sample(CELLS[0], 1, 1, START, report(CELLS[0], 1.0) if reported else None, reason)
    row = dict(zip(COLUMNS, made.row(), strict=True))
    assert (row["valid"], row["invalid_reason"]) == (valid, said)
    assert bool(row["transactions"]) is reported


def test_a_sample_measured_again_replaces_the_first(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, RunMeta(SWEEP))
    writer.add_sample(sample(CELLS[0], elapsed_s=1.0), "one")
    writer.add_sample(sample(CELLS[0], elapsed_s=2.0), "two")
    lines = (writer.path / "samples.csv").read_text().splitlines()
    assert len(lines) == 2
    assert ",2.0," in lines[1]
    assert (writer.path / "raw/siege/001-0001.json").read_text() == "two"


def test_text_that_is_no_utf8_is_kept_readable(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, RunMeta(SWEEP, notes=("\udc80",)))
    writer.add_sample(Sample(CELLS[0], 1, 1, START, None, "bad \udcff byte"), "raw \udcff")
    assert "\\udcff" in (writer.path / "samples.csv").read_text()
    assert json.loads((writer.path / "run.json").read_text())["notes"] == ["\udc80"]


def test_names_are_never_shared(tmp_path: Path) -> None:
    paths = {RunWriter.create(tmp_path, RunMeta(SWEEP), now=START).path for _ in range(50)}
    assert len(paths) == 50


def test_times_are_utc() -> None:
    elsewhere = datetime(2026, 11, 23, 4, 15, tzinfo=timezone(timedelta(hours=1)))
    assert iso_utc(elsewhere) == iso_utc(START) == "2026-11-23T03:15:00.000Z"
    assert datetime.fromisoformat(iso_utc(START)) == START.astimezone(UTC)


def test_the_chain_is_described_without_logins() -> None:
    secret = {"ansible_password": "hush"}
    client = Host("c", "client", "198.18.0.1", "eth0", 0, ssh_vars=secret)
    hop = Host("h1", "hop", "198.18.0.2", "eth0", 7000, ssh_vars=secret)
    server = Host("s", "server", "198.18.0.3", "eth0", 8000, ssh_vars=secret)
    described = describe_chain(Chain(Path("/somewhere/lab.ini"), client, (hop,), server))
    assert "hush" not in json.dumps(described)
    assert described["inventory"] == "lab.ini"
    assert described["hops"] == [
        {"name": "h1", "data_ip": "198.18.0.2", "data_nic": "eth0", "port": 7000}
        | {"xdp_attach": "native"}
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"egress_nic": "eth1"},
        {"nat_ports": [20000, 29999], "nat_flows": 4096, "nat_policy": "fresh"},
    ],
)
def test_settings_that_are_described(settings: dict[str, Any]) -> None:
    """What a host leaves at its default is not said, here for a chain of IPv6."""
    ports = tuple(settings["nat_ports"]) if "nat_ports" in settings else None
    hop = Host("h1", "hop", "2001:2::2", "eth0", 7000, **{**settings, "nat_ports": ports})
    client = Host("c", "client", "2001:2::1", "eth0", 0)
    server = Host("s", "server", "2001:2::3", "eth0", 8000)
    described = json.loads(json.dumps(describe_chain(Chain(Path("x"), client, (hop,), server))))
    common = {"name": "h1", "data_ip": "2001:2::2", "data_nic": "eth0", "port": 7000}
    assert described["hops"] == [{**common, "xdp_attach": "native", **settings}]
    assert described["client"].keys() == {*common, "xdp_attach"}
