# SPDX-License-Identifier: Apache-2.0
"""Runs that are gone on with: what they lack, on which chain, and what stands in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import START, connections, sample, tree

from bench import tables
from bench.cells import Cell
from bench.chain import Chain, Host
from bench.errors import BenchError, UsageError
from bench.results import RunMeta, Sample, Status, Timing, describe_chain
from bench.resume import Resumed, reopen, require_same_chain, with_blocks
from bench.runs import RunReader
from bench.runwriter import RunWriter
from bench.sweep import Sweep, order
from bench.untilci import Until

CELLS = (
    Cell("direct", "", 0, 624, 1, 100),
    Cell("xdp", "native", 3, 624, 25, 110),
    Cell("xdp", "native", 3, 624, 25, 110, twin=True),
)
SWEEP = Sweep(CELLS, 3, 42)


def chain(hops: int = 3, ip: str = "198.18.0.{}", inventory: str = "lab.ini", **hop: Any) -> Chain:
    """Return a chain whose hops have these settings."""
    made = (
        Host(f"hop{number}", "hop", ip.format(number + 1), "eth0", 7000, **hop)
        for number in range(1, hops + 1)
    )
    client = Host("client", "client", ip.format(1), "eth0", 0)
    server = Host("server", "server", ip.format(99), "eth0", 8000)
    return Chain(Path(inventory), client, tuple(made), server)


def write(
    folder: Path,
    measured: int,
    status: Status = "interrupted",
    *,
    timed: int | None = 100,
    on: Chain | None = None,
    **meta: Any,
) -> Path:
    """Write a run that ended after its warm-up and so many samples."""
    about = RunMeta(SWEEP, chain=describe_chain(on or chain()), notes=("a note",), **meta)
    writer = RunWriter.create(folder, about, now=START)
    cells = [
        (cell, block, position)
        for block in range(4)
        for position, cell in enumerate(order(SWEEP, block), start=1)
    ]
    for cell, block, position in cells[: 3 + measured]:
        made = replace(sample(cell, block, position), timed=timed, lost=timed and 0)
        writer.add_sample(made, "{}", connections(3, 100.0) if timed else None)
    if status != "running":
        writer.finish(status, timing=Timing(1.5, 20.0, 30.0))
    return writer.path


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
@pytest.mark.parametrize("measured", [0, 1, 3, 8])
def test_a_run_that_lacks_samples(tmp_path: Path, status: Status, measured: int) -> None:
    path = write(tmp_path, measured, status)
    resumed = reopen("latest", tmp_path)
    assert resumed.lacks == 9 - measured
    assert resumed.sweep == SWEEP
    assert resumed.timer
    assert resumed.until is None
    assert resumed.writer.run_id == path.name
    earlier = Timing() if status == "running" else Timing(1.5, 20.0, 30.0)
    assert resumed.timing == earlier


def test_a_complete_run_lacks_nothing_but_may_be_given_more_blocks(tmp_path: Path) -> None:
    resumed = reopen(str(write(tmp_path, 9, "complete")), tmp_path)
    assert resumed.lacks == 0
    assert with_blocks(resumed, None) is resumed
    more = with_blocks(resumed, "5")
    assert (more.sweep.blocks, more.lacks) == (5, 6)
    assert more.sweep == replace(SWEEP, blocks=5)


@pytest.mark.parametrize(
    ("measured", "blocks", "said"),
    [
        (4, "0", "--blocks: '0' is not a whole number from 1 to 1000"),
        (4, "many", "--blocks: 'many' is not a whole number from 1 to 1000"),
        (4, "1", "--blocks: run {} is in block 2 already"),
        (9, "2", "--blocks: run {} is in block 3 already"),
    ],
)
def test_blocks_that_cannot_be(tmp_path: Path, measured: int, blocks: str, said: str) -> None:
    path = write(tmp_path, measured)
    with pytest.raises(UsageError) as caught:
        with_blocks(reopen(path.name, tmp_path), blocks)
    assert caught.value.one_line() == said.format(path.name)


@pytest.mark.parametrize(("measured", "blocks", "lacks"), [(0, "1", 3), (4, "2", 2), (3, "1", 0)])
def test_fewer_blocks_than_were_planned(
    tmp_path: Path, measured: int, blocks: str, lacks: int
) -> None:
    fewer = with_blocks(reopen(str(write(tmp_path, measured)), tmp_path), blocks)
    assert fewer.lacks == lacks


def test_a_run_is_written_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    path = write(tmp_path, 4)
    before = tree(path)
    resumed = reopen(path.name, tmp_path)
    assert tree(path) == before
    resumed.begin(("resumed with other addresses: hop1",), None)
    document = json.loads((path / "run.json").read_text())
    old = json.loads(before["run.json"])
    assert {key for key in document if document[key] != old[key]} == {"status", "ended_at", "notes"}
    assert (document["status"], document["ended_at"]) == ("running", None)
    assert document["notes"] == ["a note", "resumed with other addresses: hop1"]
    assert document["order"] == old["order"]
    lines = before["samples.csv"].splitlines()
    for block in (2, 3):
        for position, cell in enumerate(order(resumed.sweep, block), start=1):
            made = sample(cell, block, position)
            if made.id not in resumed.writer.sample_ids:
                resumed.writer.add_sample(made, "{}", connections(2, 100.0))
    resumed.writer.finish("complete", timing=Timing(2.0, 25.0, 40.0))
    after = (path / "samples.csv").read_bytes().splitlines()
    # What was there is there still, to the byte.
    assert after[: len(lines)] == lines
    run = RunReader.open(path, tmp_path)
    assert run.samples["sample"].tolist() == [
        f"{block:03d}-{position:04d}" for block in range(4) for position in range(1, 4)
    ]
    for block in range(4):
        here = run.samples[run.samples["block"] == block]
        assert here["twin"].tolist() == [cell.twin for cell in order(SWEEP, block)]
        assert here["mode"].tolist() == [cell.mode for cell in order(SWEEP, block)]
    assert run.meta["started_at"] == old["started_at"]
    assert tables.read_connections(path).num_rows == 7 * 3 + 5 * 2


def test_more_blocks_keep_the_order_of_those_there_were(tmp_path: Path) -> None:
    path = write(tmp_path, 4)
    old = json.loads((path / "run.json").read_text())
    with_blocks(reopen(path.name, tmp_path), "7").begin((), None)
    document = json.loads((path / "run.json").read_text())
    assert document["sweep"] == {**old["sweep"], "blocks": 7}
    assert document["order"][:3] == old["order"]
    assert len(document["order"]) == 7
    assert reopen(path.name, tmp_path).lacks == 7 * 3 - 4


def test_samples_that_are_invalid_are_not_made_again(tmp_path: Path) -> None:
    """They say what the machine was like; a second chance would make it look better."""
    path = write(tmp_path, 4)
    resumed = reopen(path.name, tmp_path)
    resumed.writer.add_sample(
        Sample(CELLS[0], 2, 2, START, None, "hop1: throttled", wall_s=0.4), ""
    )
    resumed.writer.close()
    assert reopen(path.name, tmp_path).lacks == resumed.lacks == 4


@pytest.mark.parametrize(
    ("measured", "timed", "timer"), [(4, 100, True), (4, None, False), (-3, None, True)]
)
def test_connections_are_timed_as_they_were(
    tmp_path: Path, measured: int, timed: int | None, timer: bool
) -> None:
    assert reopen(str(write(tmp_path, measured, timed=timed)), tmp_path).timer is timer


def test_how_long_a_run_was_to_last(tmp_path: Path) -> None:
    path = write(tmp_path, 4, until_ci={"half_width": 0.05, "limit_s": 600})
    resumed = reopen(path.name, tmp_path)
    assert resumed.until == Until(0.05, 600.0)
    resumed.begin((), Until(0.02, 90.0))
    resumed.writer.close()
    assert reopen(path.name, tmp_path).until == Until(0.02, 90.0)
    again = reopen(path.name, tmp_path)
    again.begin((), None)
    again.writer.close()
    assert reopen(path.name, tmp_path).until is None


def test_two_processes_do_not_make_one_run(tmp_path: Path) -> None:
    path = write(tmp_path, 4)
    first = reopen(path.name, tmp_path)
    with pytest.raises(BenchError, match="being made by another process"):
        reopen(path.name, tmp_path)
    first.writer.close()
    assert reopen(path.name, tmp_path).lacks == first.lacks


# Runs that cannot be gone on with


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a run's run.json."""
    document = json.loads((run / "run.json").read_text())
    change(document)
    (run / "run.json").write_text(json.dumps(document))


def test_a_run_of_the_first_schema(tmp_path: Path) -> None:
    path = Path(__file__).parent / "data" / "schema1"
    with pytest.raises(BenchError) as caught:
        reopen(str(path), tmp_path)
    said = f"{path} has results schema 1, which is read but not resumed (measure again)"
    assert caught.value.one_line() == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema_version=3), "upgrade hopbench"),
        (lambda d: d.pop("sweep"), "sweep is missing"),
        (lambda d: d["sweep"]["cells"][0].pop("twin"), "sweep.cells are not cells"),
        (lambda d: d.update(until_ci={}), "until_ci must be numbers"),
        (lambda d: d.update(until_ci={"half_width": "5%", "limit_s": 1}), "until_ci must be numb"),
        (lambda d: d.update(until_ci=True), "until_ci is missing or of the wrong kind"),
        (lambda d: d.update(timing={"siege_s": "long"}), "timing must be numbers"),
    ],
)
def test_a_run_json_that_is_damaged(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    path = write(tmp_path, 4)
    edit(path, change)
    before = tree(path)
    with pytest.raises(BenchError) as caught:
        reopen(path.name, tmp_path)
    assert said in caught.value.one_line()
    assert str(path) in caught.value.one_line()
    assert tree(path) == before


@pytest.mark.parametrize(
    ("file", "content"),
    [("run.json", None), ("run.json", b"{"), ("samples.csv", None), ("samples.csv", b"x,y\n1,2\n")],
)
def test_files_that_are_damaged(tmp_path: Path, file: str, content: bytes | None) -> None:
    path = write(tmp_path, 4)
    if content is None:
        (path / file).unlink()
    else:
        (path / file).write_bytes(content)
    with pytest.raises(BenchError) as caught:
        reopen(path.name, tmp_path)
    assert str(path) in caught.value.one_line()


@pytest.mark.parametrize("reference", ["", "none", "latest", "../x"])
def test_no_run(tmp_path: Path, reference: str) -> None:
    with pytest.raises(BenchError, match="there is no run"):
        reopen(reference, tmp_path)


# The chain


def resumed_on(folder: Path, then: Chain) -> Resumed:
    """Return a run that was made on this chain."""
    return reopen(str(write(folder, 4, on=then)), folder)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hops": 0},
        {"ip": "2001:2::{}"},
        {"nat_ports": (20000, 29999), "nat_flows": 4096, "nat_policy": "fresh"},
        {"egress_nic": "eth1", "xdp_attach": "generic"},
    ],
    ids=str,
)
def test_the_chain_it_was_made_on(tmp_path: Path, settings: dict[str, Any]) -> None:
    there = chain(**settings)
    assert require_same_chain(resumed_on(tmp_path, there), there) == ()
    elsewhere = chain(**settings, inventory="/elsewhere/other.ini")
    assert require_same_chain(resumed_on(tmp_path, there), elsewhere) == ()


def test_other_addresses_are_a_note(tmp_path: Path) -> None:
    moved = chain(ip="198.18.7.{}")
    names = "client, hop1, hop2, hop3, server"
    assert require_same_chain(resumed_on(tmp_path, chain()), moved) == (
        f"resumed with other addresses: {names}",
    )


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (chain(), chain(hops=2), "was made on a chain of 5 hosts, lab.ini has 4"),
        (chain(), chain(hops=4), "was made on a chain of 5 hosts, lab.ini has 6"),
        (
            chain(),
            replace(chain(), hops=chain().hops[::-1]),
            "had name 'hop1' where lab.ini has 'hop3'",
        ),
        (chain(), chain(xdp_attach="generic"), "had xdp_attach 'native' where lab.ini has 'gener"),
        (chain(), chain(egress_nic="eth1"), "had egress_nic None where lab.ini has 'eth1'"),
        (chain(nat_policy="fresh"), chain(), "had nat_policy 'fresh' where lab.ini has None"),
        (
            chain(nat_ports=(20000, 29999)),
            chain(nat_ports=(20000, 29998)),
            "had nat_ports [20000, 29999] where lab.ini has [20000, 29998]",
        ),
        (chain(), chain(ip="2001:2::{}"), "was made over IPv4, lab.ini has IPv6"),
        (chain(ip="2001:2::{}"), chain(), "was made over IPv6, lab.ini has IPv4"),
        (
            chain(),
            replace(chain(), server=replace(chain().server, port=8001)),
            "had port 8000 where lab.ini has 8001",
        ),
        (
            chain(),
            replace(chain(), client=replace(chain().client, data_nic="eth1")),
            "had data_nic 'eth0' where lab.ini has 'eth1'",
        ),
    ],
)
def test_another_chain(tmp_path: Path, then: Chain, now: Chain, said: str) -> None:
    resumed = resumed_on(tmp_path, then)
    with pytest.raises(BenchError) as caught:
        require_same_chain(resumed, now)
    line = caught.value.one_line()
    assert line.startswith(f"run {resumed.writer.run_id} {said}")
    assert line.endswith("(resume it with the inventory it was made with)")


@pytest.mark.parametrize(
    "made_on",
    [
        {},
        {"client": {}, "hops": 3, "server": {}},
        {"client": {}, "hops": [], "server": {}},
        {"client": "client", "hops": [], "server": "server"},
        {"client": {"data_ip": "x"}, "hops": [], "server": {"data_ip": "y"}},
        {"client": None, "hops": [None], "server": None},
    ],
    ids=str,
)
def test_a_chain_that_nobody_wrote(tmp_path: Path, made_on: dict[str, Any]) -> None:
    path = write(tmp_path, 4)
    edit(path, lambda document: document.update(chain=made_on))
    with pytest.raises(BenchError, match="the run's chain is not in its"):
        require_same_chain(reopen(path.name, tmp_path), chain())
