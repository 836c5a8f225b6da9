# SPDX-License-Identifier: Apache-2.0
"""The page of a reproduction: the same answer as in the terminal, whatever parts there are."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reproduced import (
    Made,
    chain_cells,
    faulty,
    loopback_cells,
    smooth,
    usual,
    write_reproduction,
)

from bench import tables, timings
from bench.cells import Cell
from bench.report.document import Document, Facts, Figure, Table, Words
from bench.report.page import render
from bench.reproduce import answer, bounds, page
from bench.reproduce.cells import CHAIN, LOOPBACK, REPORT
from bench.reproduce.corrections import corrections
from bench.reproduce.examined import Examined
from bench.reproduce.record import Reproduction

DASH, SIGN = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"


def document(reproduction: Reproduction) -> Document:
    """Return a reproduction's page before it is HTML."""
    return page.document(Examined.of(reproduction))


def items(found: Document, kind: type) -> list[Any]:
    """Return all items of a kind."""
    return [each for section in found.sections for each in section.items if isinstance(each, kind)]


def section(found: Document, name: str) -> str:
    """Return all words of a section."""
    (wanted,) = [each for each in found.sections if each.name == name]
    texts: list[str] = []
    for item in wanted.items:
        if isinstance(item, Words):
            texts += [*item.paragraphs, *item.evidence]
        elif isinstance(item, Facts):
            texts += [f"{name}: {value}" for name, value in item.items]
    return "\n".join(texts)


def shown(table: Table, row: int) -> dict[str, str]:
    """Return a row of a table, by its columns' titles."""
    entries = table.rows[row]
    assert len(entries) == len(table.columns)
    return {
        column.title: " ".join(filter(None, (entry.text, entry.note)))
        for column, entry in zip(table.columns, entries, strict=True)
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Reproduction:
    """A whole reproduction that came out as expected."""
    return write_reproduction(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def content(whole: Reproduction) -> Document:
    """Return what is on its page."""
    return document(whole)


def test_the_page_and_its_files(whole: Reproduction, content: Document) -> None:
    path = page.make(whole)
    assert path == whole.path / "reproduce.html"
    text = path.read_text(encoding="utf-8")
    assert "http-equiv" in text and text.count("<svg") >= 10
    names = [each.name for each in (*items(content, Figure), *items(content, Table))]
    assert len(names) == len(set(names))
    for name in names:
        rows = list(csv.reader((whole.path / "plots" / f"{name}.csv").open(encoding="utf-8")))
        assert len(rows) > 1 and len({len(row) for row in rows}) == 1
    sections = [each.name for each in content.sections]
    assert len(sections) == len(set(sections))


def test_the_answer_is_the_same_in_the_terminal(whole: Reproduction, content: Document) -> None:
    figures, reason, chain = answer.lines(whole)
    assert list(content.verdict) == [figures, f"{reason} {chain}"]
    # The report's own figures; and 30 x 80 us, 40 x 2.06 s, 5 x 6.1 s and 25 x 3 s.
    assert "43.08 s by XDP and 0.15 s by socat for 100 requests of 312 bytes" in figures
    assert "its filter took 188 s (75 of 100 answered)" in figures
    assert "Of 400 connections through its filter 180 waited" in reason
    assert "100 were never open" in reason
    assert "neither interrupts nor loopback" in reason
    assert "each hop adds 8.0 µs [8.0, 8.0] by XDP, 50.0 µs [50.0, 50.0] by nft and 1,000" in chain


def test_table_1_four_times(content: Document) -> None:
    tables = {each.name: each for each in items(content, Table)}
    one = tables["table-1"]
    assert len(one.rows) == 14
    first = shown(one, 0)
    assert first["bytes"] == "312"
    assert (first["socat '22"], first["XDP '22"]) == ("0.15", "43.08")
    assert first["filter lo"] == "188 (75)"
    # 100 responses of 2 x (30.1 + 4) us, less the last one's own end.
    assert first["XDP lo"].startswith("0.0068")
    assert first["nft chain"].startswith("0.011") and first["XDP chain"].startswith("0.0068")
    assert shown(one, 1)["XDP lo"] == DASH  # 624 bytes were not measured
    assert [entry.value for entry in one.rows[3]][:3] == [2496.0, 0.17, 43.02]
    four = shown(tables["table-4"], 13)
    assert (four["socat '22"], four["XDP '22"], four["XDP lo"]) == ("2.35", "37.17", DASH)
    direct = shown(tables["table-direct"], 0)
    assert direct["loopback"].startswith("0.0060")


def test_failures_and_cuts_have_a_table_of_their_own(content: Document) -> None:
    (short,) = [each for each in items(content, Table) if each.name == "short"]
    assert len(short.rows) == 4
    row = shown(short, 0)
    assert (row["measured"], row["answered"], row["failed"]) == ("filter lo", "75", "25")
    rows = list(csv.DictReader(io.StringIO(short.csv)))
    assert {row["mode"] for row in rows} == {"legacy"}
    assert all(row["made"] == "100" and row["done"] == "75" for row in rows)


def test_a_cut_sample_is_never_scaled_silently(tmp_path: Path) -> None:
    def choice(cell: Cell, block: int) -> Made | None:
        if cell.mode != "legacy":
            return usual(cell, block)
        made = faulty(prompt=4, one=4, three=0, never=2)
        return made if cell.hops == 1 else replace(made, reported=False)

    reproduction = write_reproduction(tmp_path, loopback=choice, chain=None)
    examined = Examined.of(reproduction)
    row = examined.row(LOOPBACK, "legacy", 1, 312)
    assert row is not None
    elapsed_s = 4 * 80e-6 + 4 * 2.06 + 2 * 3
    assert row["elapsed_s"] == pytest.approx(elapsed_s)
    assert (row["made"], row["done"], row["failed"]) == (10, 8, 2)
    assert row["per_100_s"] == pytest.approx(10 * elapsed_s)
    # siege left no report: what the kernel saw, in the time the process ran
    killed = examined.row(LOOPBACK, "legacy", 2, 312)
    assert killed is not None
    assert (killed["made"], killed["done"], killed["failed"]) == (10, 8, 2)
    assert killed["elapsed_s"] == pytest.approx(elapsed_s + 0.01)
    found = page.document(examined)
    one = next(each for each in items(found, Table) if each.name == "table-1")
    assert shown(one, 0)["filter lo"] == "14.2 (8)"
    short = next(each for each in items(found, Table) if each.name == "short")
    assert shown(short, 0)["s per 100, at this pace"] == "142"
    assert (
        "14.2 s for 10 requests, 8 of them answered, (142 s for 100 at that pace)"
        in (answer.lines(reproduction)[0])
    )
    drawn = section(found, "figures-again")
    assert "4 cells made fewer or more than 100 requests" in drawn and "forecast" in drawn


def test_blocks_of_one_length_have_a_median_and_an_interval(whole: Reproduction) -> None:
    examined = Examined.of(whole)
    row = examined.row(CHAIN, "xdp", 2, 4992)
    assert row is not None and row["n"] == 6
    # Blocks' responses are 2 x (38.1 to 38.6) us.
    assert row["elapsed_s"] == pytest.approx(100 * 2 * 38.35e-6, rel=0.02)
    assert row["lo_s"] < row["elapsed_s"] < row["hi_s"]
    report = examined.row(REPORT, "xdp", 4, 2555904)
    assert report is not None and report["elapsed_s"] == 37.17 and math.isnan(report["lo_s"])


def test_a_copy_without_single_connections_has_the_same_figures(tmp_path: Path) -> None:
    # siege's clock ticks every 10 ms, and a sample takes less.
    made = write_reproduction(
        tmp_path, chain=lambda cell, block: replace(usual(cell, block), elapsed_s=0.01)
    )
    before = Examined.of(made).cells
    assert made.chain is not None
    timings.summarise(made.chain.path, made.chain.path)
    (made.chain.path / tables.CONNECTIONS_FILE).unlink()
    pd.testing.assert_frame_equal(Examined.of(Reproduction.open(made.path)).cells, before)


def test_invalid_samples_are_left_out_and_said_to_be(tmp_path: Path) -> None:
    def choice(cell: Cell, block: int) -> Made | None:
        made = usual(cell, block)
        if cell.mode == "xdp" and cell.hops == 1:
            return replace(made, reason="hop1: the hypervisor took 40 % of its CPU time")
        return made

    reproduction = write_reproduction(tmp_path, loopback=choice, chain=choice)
    examined = Examined.of(reproduction)
    assert examined.row(LOOPBACK, "xdp", 1, 312) is None
    found = page.document(examined)
    assert shown(next(each for each in items(found, Table)), 0)["XDP lo"] == "invalid"
    short = next(each for each in items(found, Table) if each.name == "short")
    reasons = [shown(short, row)["why there is no figure"] for row in range(len(short.rows))]
    assert sum("hypervisor took 40 %" in reason for reason in reasons) == 4


PARTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nothing": (
        {"loopback": None, "chain": None, "status": "interrupted"},
        ("Nothing was measured on the loopback", "was not measured", "chain of one host a hop"),
    ),
    "loopback only": (
        {"chain": None, "status": "interrupted"},
        ("its filter took 188 s", "The chain of one host a hop was not measured."),
    ),
    "chain only": (
        {"loopback": None},
        ("Nothing was measured on the loopback", "each hop adds 8.0 µs"),
    ),
    "runs without a sample": (
        {"loopback": lambda cell, block: None, "chain": lambda cell, block: None},
        ("Nothing was measured on the loopback", "has no figures: it has no sample."),
    ),
    "one mode, one forwarder, one block": (
        {
            "cells": [Cell("xdp", "generic", 1, 312, 1, 100)],
            "chain_of": [Cell("nft", "", 1, 312, 1, 100)],
            "chain_blocks": 1,
            "quick": True,
        },
        ("the corrected filter took", "312 bytes through 1 hop takes 110 µs by nft"),
    ),
    "the filter alone": (
        {"cells": [Cell("legacy", "generic", 1, 312, 1, 100)], "chain": None},
        ("its filter took 188 s", "45 waited a second or more"),
    ),
    "no connection was ever open": (
        {"loopback": lambda cell, block: faulty(0, 0, 0, 30), "chain": None},
        ("30 requests, 0 of them answered", "30 were never open"),
    ),
    "an invalid chain": (
        {
            "loopback": None,
            "chain": lambda cell, block: replace(usual(cell, block), reason="no"),
            "chain_blocks": 1,
        },
        ("has no figures: none of its 14 samples is valid",),
    ),
    "without connection times": (
        {
            "loopback": lambda cell, block: replace(usual(cell, block), timed=False),
            "chain": lambda cell, block: replace(usual(cell, block), timed=False),
        },
        ("its filter took 188 s",),
    ),
    "without counters": (
        {"loopback": lambda cell, block: replace(usual(cell, block), counters={})},
        ("its filter took 188 s", "waited a second or more"),
    ),
}


@pytest.mark.parametrize("shape", PARTS)
def test_any_shape_has_a_page(tmp_path: Path, shape: str) -> None:
    values, expected = PARTS[shape]
    if shape == "no connection was ever open":
        values = {**values, "cells": [Cell("legacy", "generic", 1, 312, 1, 100)]}
    reproduction = write_reproduction(tmp_path, **values)
    told = " ".join(answer.lines(reproduction))
    for words in expected:
        assert words in told
    found = document(reproduction)
    assert len(render(found)) > 10_000
    assert next(each.name for each in found.sections) == "table-1"
    assert "nan" not in told and all("nan" not in str(each) for each in found.verdict)
    for table in items(found, Table):
        assert all("nan" not in entry.text for row in table.rows for entry in row)


def test_bounds(tmp_path: Path) -> None:
    reproduction = write_reproduction(
        tmp_path,
        loopback=None,
        chain=None,
        status="interrupted",
        quick=True,
        cut=["the 2022 filter: 3 cells were not measured"],
        notes=["a note <b>of</b> theirs"],
        machine={"kernel": "6.18", "cpus": 2, "sysctls": {"net.ipv4.tcp_timestamps": "1"}},
    )
    found = document(reproduction)
    text = render(found)
    said = section(found, "bounds")
    assert "3 cells were not measured" in said and "a note" in said
    assert "a connection that does not open or answer, at most: 10 s" in said
    assert "tcp_timestamps: 1" in said and "kernel: 6.18" in said
    assert "interrupted" in found.subtitle and "quick form" in found.subtitle
    assert "<b>of</b>" not in text and "&lt;b&gt;of" in text
    assert "bench reproduce --quick --seed 7" in text


def test_nothing_is_said_to_be_cut_only_of_a_complete_one(tmp_path: Path) -> None:
    for status, expected in (("complete", "Nothing was cut."), ("interrupted", "not come to its")):
        meta = {"status": status, "cut": [], "quick": False}
        (words, *_) = [item for item in bounds.section(meta).items if isinstance(item, Words)]
        assert expected in words.paragraphs[0]
    assert bounds.command({"seed": True}) == "bench reproduce"


def test_ways_to_attach_are_not_mixed(tmp_path: Path) -> None:
    cells = [Cell("xdp", attach, 1, 312, 1, 100) for attach in ("native", "generic")]
    reproduction = write_reproduction(
        tmp_path,
        loopback=None,
        chain_of=cells,
        chain=lambda cell, block: smooth(connect_us=50.0 if cell.attach == "native" else 90.0),
    )
    row = Examined.of(reproduction).row(CHAIN, "xdp", 1, 312)
    assert row is not None and row["n"] == 6
    assert row["elapsed_s"] == pytest.approx(100 * 100e-6)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    reproduction = write_reproduction(
        tmp_path,
        loopback=lambda cell, block: smooth(connect_us=50.0),
        cells=[Cell("xdp", "generic", 1, 312, 1, 100)],
        chain=lambda cell, block: smooth(connect_us=60.0),
        chain_of=[Cell("nft", "", 1, 312, 1, 100)],
        machine={"kernel": "<img src=x onerror=alert(1)>"},
        cut=["</style><script>alert(2)</script>", "</script><script>alert(1)</script>$x^2$"],
    )
    text = page.make(reproduction).read_text(encoding="utf-8")
    assert "<script>alert" not in text and "<img src=x" not in text
    assert text.count("<script>") == 1


def test_a_damaged_run_is_one_line(tmp_path: Path) -> None:
    from bench.errors import BenchError

    reproduction = write_reproduction(tmp_path)
    assert reproduction.loopback is not None
    (reproduction.loopback.path / "connections.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BenchError, match="damaged"):
        page.make(reproduction)


def test_the_report_speaks_for_itself(content: Document) -> None:
    said = section(content, "arithmetic")
    assert f"42 {SIGN} 1.025 s = 43.05 s" in said
    assert "27 are a whole multiple of 1.025 s" in said and "By chance it would be 5" in said
    assert f"40 {SIGN} 1.025 s = 41.00 s" in said
    assert "160 connections of the filter made again waited once, for 1.030 s" in said


def test_what_the_words_stood_for(content: Document) -> None:
    said = section(content, "corrections")
    assert "0.15 s by socat are 1.5 ms a request" in said
    assert "24,320 stands for 243 MB, 100 times a file of 2,555,904 bytes" in said
    assert "nftables was never measured" in said and "the chain on this page does that" in said
    assert "2 to 5 hops are 1 to 4 forwarders" in said
    assert "287 times slower" in said and "two faults of the filter" in said


def test_without_a_chain_no_comparison_is_claimed(tmp_path: Path) -> None:
    examined = Examined.of(write_reproduction(tmp_path, chain=None))
    (words,) = corrections(examined).items
    assert isinstance(words, Words) and "does that" not in " ".join(words.paragraphs)


def test_reproduce_json_may_lack_whatever_is_not_checked(whole: Reproduction) -> None:
    meta = json.loads(json.dumps(whole.meta))
    bare = {"status": "complete", "limits": None, "machine": [], "versions": 1, "parts": {}}
    assert bounds.section(bare).items and bounds.subtitle(bare).endswith("full form")
    assert bounds.subtitle(meta).startswith(meta["id"])


def test_cells_are_those_of_the_experiment() -> None:
    assert {cell.mode for cell in loopback_cells()} == {"direct", "socat", "legacy", "xdp"}
    assert {cell.mode for cell in chain_cells()} == {"direct", "socat", "nft", "xdp"}
