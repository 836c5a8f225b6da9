# SPDX-License-Identifier: Apache-2.0
"""What a person reads of a run: words, tables, and the commands that print them."""

from __future__ import annotations

import io
import json
import statistics
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType
from synthetic import START, connections, read_run, write_run

from bench.cells import Cell
from bench.cli import cli
from bench.commands.compare import compare_command
from bench.commands.list_ import list_command
from bench.commands.show import show_command
from bench.compare import compare
from bench.errors import BenchError
from bench.results import Sample, Timing
from bench.sentences import facts, sentences
from bench.sweep import cross
from bench.verdict import full, header, render, render_other, render_pairs

COST_US = {"direct": 0.0, "socat": 490.0, "nft": 34.0, "xdp": 6.5}
X = "\N{MULTIPLICATION SIGN}"
UNKNOWN = "noise floor not known: no mode was measured twice here"
ALL = ("direct", "socat", "nft", "xdp")
ONE = cross(ALL, ("native",), (1, 3, 5), (624,), (1,), 10_000)
MANY = cross(ALL, ("native",), (5,), (624,), (25,), 10_000)


def took(cell: Cell, block: int) -> float:
    """Return the seconds of a sample whose response time is 100 µs and each hop's cost."""
    response_us = 100 + COST_US[cell.mode] * cell.hops + 0.1 * block
    return response_us * cell.transactions / cell.concurrency / 1e6


def said(path: Path) -> tuple[str, list[str]]:
    """Return the rendered verdict of a run and its sentences."""
    run = read_run(path)
    comparison = compare(run)
    return shown(render(run.meta, comparison)), sentences(comparison)


def shown(*parts: RenderableType, width: int = 100) -> str:
    """Return what a terminal would show."""
    console = Console(file=io.StringIO(), width=width)
    console.print(*parts)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_sentences_of_a_whole_run(tmp_path: Path) -> None:
    text, lines = said(write_run(tmp_path, ONE + MANY, took))
    assert lines == [
        "624 bytes, 1 connection at a time: XDP adds 6.5 µs per hop [6.5, 6.5], nft 34.0 µs "
        f"[34.0, 34.0] (5.2 {X} XDP), socat 490 µs [490, 490] (14 {X} nft); at 5 hops XDP is "
        f"faster than socat and nft, nft is faster than socat; {UNKNOWN}.",
        "624 bytes, 25 connections at a time: through 5 hops XDP makes 188,182 transactions/s "
        f"(76% of direct, 2.0 {X} nft), nft 92,473 (37% of direct, 9.4 {X} socat), socat 9,803 (4% "
        "of direct); at 5 hops XDP is faster than socat and nft, nft is faster than socat; "
        f"{UNKNOWN}.",
    ]
    rows = [line.split() for line in text.splitlines()]
    place = rows.index(["socat", "590", "1,570", "2,550", "490"])
    assert " ".join(rows[place + 1]).startswith("[590, 591] [1,570, 1,571] [2,550, 2,551] [490, ")
    assert "624 bytes, 1 connection at a time: median response time, µs [95 % interval], n = 6" in (
        text
    )
    assert "624 bytes, 25 connections at a time: transactions/s, median [95 % interval]" in text


@pytest.mark.parametrize(
    ("modes", "hops", "words"),
    [
        (
            ("nft",),
            (1, 3),
            "624 bytes, 1 connection at a time: nft adds 34.0 µs per hop [34.0, 34.0].",
        ),
        (("nft", "direct"), (2,), None),
        (("direct",), (), None),
        (("nft",), (2,), None),
    ],
)
def test_few_modes_and_hops(
    tmp_path: Path, modes: tuple[str, ...], hops: tuple[int, ...], words: str | None
) -> None:
    cells = cross(modes, (), hops, (624,), (1,), 10_000)
    text, lines = said(write_run(tmp_path, cells, took))
    assert lines == ([words] if words else [])
    assert "median response time, µs" in text
    assert "Medians of 6 samples a cell; of " in text
    assert "samples none is invalid." in text


def test_direct_alone_at_many_connections(tmp_path: Path) -> None:
    cells = cross(("direct",), (), (), (624,), (25,), 10_000)
    assert said(write_run(tmp_path, cells, took))[1] == [
        "624 bytes, 25 connections at a time: direct makes 249,128 transactions/s."
    ]


def test_no_valid_sample(tmp_path: Path) -> None:
    cells = ONE + MANY
    path = write_run(
        tmp_path, cells, lambda cell, b: Sample(cell, b, cells.index(cell) + 1, START, None)
    )
    text, lines = said(path)
    assert lines == []
    assert "There is no valid sample to go by." in text
    assert "No request failed" not in text
    assert "Warning: 14 of 14 cells have no sample to go by" in text


def test_no_sample_at_all(tmp_path: Path) -> None:
    text, lines = said(write_run(tmp_path, ONE, took, blocks=0, status="interrupted"))
    assert lines == []
    assert "Warning: the run is interrupted: 0 of 0 samples are there" in text


def test_facts(tmp_path: Path) -> None:
    timing = Timing(ready_s=4.21, siege_s=70.0, wall_s=100.0)
    run = read_run(write_run(tmp_path, ONE, took, timing=timing))
    assert facts(run.meta, compare(run)) == [
        "Medians of 6 samples a cell; of 60 samples none is invalid.",
        "No request failed.",
        "Ready to measure after 4.2 s.",
        "70% of 100 s were spent inside siege.",
    ]
    without = read_run(write_run(tmp_path, ONE, took))
    assert len(facts(without.meta, compare(without))) == 2


def test_pairs_and_two_runs_side_by_side(tmp_path: Path) -> None:
    first = read_run(write_run(tmp_path, ONE, took))
    second = read_run(write_run(tmp_path, ONE[:3], lambda cell, b: 2 * took(cell, b)))
    result = compare(first, second)
    pairs = shown(render_pairs(result), width=140)
    assert ["XDP", "nft", "5", "0.491", "[0.491,", "0.492]", "0.039", "6", "faster"] in [
        line.split() for line in pairs.splitlines()
    ]
    assert f"p corrected for the 18 tests of this table (Holm); {UNKNOWN}." in pairs
    both = shown(render_other(result))
    assert "In one of the runs only: 7 cells." in both
    assert ["direct", "0", "624", "1", "100", "201", "0.500"] in [
        line.split()[:7] for line in both.splitlines()
    ]
    assert "overlap): response time 2 of 2." in " ".join(both.split())
    assert first.run_id in shown(header(first.meta))


AA = (*ONE, replace(ONE[-1], twin=True))
# What blocks differ by, as a share, and how far a twin is from its original.
BLOCKS = (0.0, 0.01, -0.02, 0.015, -0.01, 0.02, -0.015, 0.005, -0.005)
TWIN = (1.0, 1.01, 0.99, 1.02, 0.98, 1.015, 0.985, 1.005, 0.995)


def timed(cell: Cell, block: int) -> dict[str, Any]:
    """Return connections through a cell, in µs: 100, each hop's cost, and the block's share."""
    own = (100 + COST_US[cell.mode] * cell.hops) * (1 + BLOCKS[block])
    return connections(50, own * (TWIN[block] if cell.twin else 1), users=cell.concurrency)


def test_the_noise_floor_stands_beside_the_verdict(tmp_path: Path) -> None:
    path = write_run(tmp_path, AA, lambda *_: 1.0, blocks=8, warmups=True, connections=timed)
    text, (line,) = said(path)
    # The farthest of the twin's blocks are 1.02 and 1 / 0.98 from its original.
    floor = compare(read_run(path))["validity"]["noise_floor"]
    assert 0.015 < floor <= 1 / 0.98 - 1
    assert line.endswith(
        f"nft is faster than socat; noise floor {floor:.1%}: XDP against itself.".replace("%", " %")
    )
    assert "of 88 samples none is invalid, and 11 warm-ups left out." in text
    assert "Warning" not in text
    pairs = shown(render_pairs(compare(read_run(path))))
    assert "median connect time, µs" in pairs
    again = next(row.split() for row in pairs.splitlines() if "(again)" in row)
    assert again[:4] == ["XDP", "(again)", "XDP", "5"]
    assert again[-1] == "~"


@pytest.fixture(scope="module")
def short_and_long(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Any, Any]]:
    """Return run.json and comparison of a run over up to five hops, and of one over up to nine."""
    found = {}
    for most in (5, 9):
        cells = cross(ALL, ("native",), tuple(range(1, most + 1)), (624,), (1,), 10_000)
        folder = tmp_path_factory.mktemp("runs")
        run = read_run(write_run(folder, cells, lambda *_: 1.0, connections=timed))
        found[most] = run.meta, compare(run)
    return found


@pytest.mark.parametrize(
    ("width", "hops", "first", "between"),
    [
        (60, 5, "hops", False),
        (80, 5, "mode", False),
        (100, 5, "hops", True),
        (160, 5, "mode", True),
        (110, 9, "hops", True),
        (160, 9, "hops", True),
        (70, 9, "hops", False),
    ],
)
def test_tables_fit_the_terminal(
    short_and_long: dict[int, tuple[Any, Any]], width: int, hops: int, first: str, between: bool
) -> None:
    """Every figure is whole, and modes are found by their rows or by their columns."""
    lines = shown(render(*short_and_long[hops]), width=width).splitlines()
    table = lines[: next(place for place, line in enumerate(lines) if "XDP adds" in line)]
    assert max(map(len, table)) <= width
    assert "…" not in "".join(table)
    head = table[next(place for place, line in enumerate(table) if "──" in line) - 1].split()
    assert head[0] == first
    assert ("[95 % interval]" in " ".join(table)) is between
    figures = " ".join(table).split()
    for mode in ("socat", "nft", "xdp"):
        median = statistics.median(100 * (1 + share) for share in BLOCKS[1:7])
        assert f"{(1 + COST_US[mode] * hops / 100) * median:,.0f}" in figures


def test_hop_counts_that_only_some_modes_have_and_cells_without_samples(tmp_path: Path) -> None:
    cells = (*cross(("nft",), (), (1, 3), (624,), (1,), 100), replace(ONE[-1], hops=2))

    def some(cell: Cell, block: int) -> float | Sample:
        lost = Sample(cell, block, cells.index(cell) + 1, START, None)
        return lost if cell.hops == 2 else took(cell, block)

    rows = [line.split() for line in said(write_run(tmp_path, cells, some))[0].splitlines()]
    assert ["XDP", "-"] in rows
    assert any(row[:3] == ["nft", "134", "[134,"] for row in rows)


def test_warnings_of_both_runs_and_of_what_differs(tmp_path: Path) -> None:
    chains = [{"hops": [{f"key{key}": value for key in range(15)}]} for value in ("one", "other")]
    first, second = (
        read_run(write_run(tmp_path, ONE, lambda *_: 1.0, chain=chain, connections=timed))
        for chain in chains
    )
    text = " ".join(shown(render_other(compare(first, second)), width=200).split())
    assert "Warning: hop 1: key0 one and other" in text
    assert "Warning: 3 other differences (bench compare --json has them)" in text
    untimed = [read_run(write_run(tmp_path, ONE, took)) for _ in range(2)]
    text = " ".join(shown(render_other(compare(*untimed)), width=200).split())
    for run in untimed:
        assert f"Warning: {run.run_id}: the run has no connection times" in text


def test_findings_and_causes_are_shown(tmp_path: Path) -> None:
    """Every connection takes a second longer: a SYN was lost."""
    found = [
        {"host": "hop1", "level": "problem", "text": "[bold] \x1b[2JCPU", "remedy": "set it"},
        {"host": "hop2", "level": "ok", "text": "fine", "remedy": ""},
        {"host": "hop2", "level": "warning", "text": "swap", "remedy": ""},
    ]

    def late(cell: Cell, _: int) -> dict[str, Any]:
        return connections(50, 1_001_000.0, connect_us=1_000_500.0)

    path = write_run(tmp_path, ONE, lambda *_: 1.0, connections=late, findings=found)
    text = " ".join(call(show_command, str(path)).stdout.split())
    assert "Before the run, problem: hop1: [bold] [2JCPU (set it)" in text
    assert "Before the run, warning: hop2: swap" in text
    assert "fine" not in text
    assert "\x1b" not in text
    assert "the checks before the run found 1 problem and 1 warning" in text
    run = read_run(path)
    causes = [line for line in shown(full(run)).splitlines() if line.startswith("Diagnosis: ")]
    assert any("SYN" in line for line in causes)


def call(command: click.Command, *arguments: str) -> Any:
    """Call a command, which must succeed, and return its output apart by stream."""
    result = CliRunner().invoke(cli, (str(command.name), *arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_run(tmp_path / "results", ONE, took)
    path = write_run(tmp_path / "results", ONE, took, now=START + timedelta(days=1))
    (tmp_path / "results" / "[bold]broken").mkdir()
    folder = ("--results", str(tmp_path / "results"))

    assert json.loads(call(compare_command, "latest", "--json", *folder).stdout)["run"] == path.name
    both = json.loads(call(compare_command, "latest", before.name, "--json", *folder).stdout)
    assert both["other"]["run"] == before.name
    shown = json.loads(call(show_command, str(path), "--json").stdout)
    assert shown["run"]["run_id"] == shown["summary"]["run"] == path.name
    listed = json.loads(call(list_command, "--json", *folder).stdout)
    assert [entry["status"] for entry in listed] == ["broken", "complete", "complete"]

    monkeypatch.chdir(tmp_path)
    assert "[bold]broken" in call(list_command).stdout
    assert "XDP adds 6.5 µs per hop" in " ".join(call(show_command, "latest").stdout.split())
    assert "response time of a over that of b" in call(compare_command, "latest").stdout
    assert "Median response time of" in call(compare_command, "latest", before.name).stdout


def test_commands_without_runs(tmp_path: Path) -> None:
    folder = ("--results", str(tmp_path))
    assert call(list_command, "--json", *folder).stdout == "[]\n"
    empty = call(list_command, *folder)
    assert (empty.stdout, empty.stderr) == ("", f"There is no run in {tmp_path}.\n")
    for command in (show_command, compare_command):
        with pytest.raises(BenchError, match="there is no run"):
            call(command, "latest", *folder)
