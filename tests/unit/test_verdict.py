# SPDX-License-Identifier: Apache-2.0
"""What a person reads of a run: words, tables, and the commands that print them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType
from synthetic import START, read_run, write_run

from bench.cells import Cell
from bench.commands.compare import compare_command
from bench.commands.list_ import list_command
from bench.commands.show import show_command
from bench.compare import compare
from bench.errors import BenchError
from bench.results import Sample, Timing
from bench.sentences import counted, facts, figure, sentences, times
from bench.sweep import cross
from bench.verdict import header, render, render_other, render_pairs

COST_US = {"direct": 0.0, "socat": 490.0, "nft": 34.0, "xdp": 6.5}
X = "\N{MULTIPLICATION SIGN}"
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


def shown(*parts: RenderableType) -> str:
    """Return what a terminal of 100 columns would show."""
    console = Console(file=io.StringIO(), width=100)
    console.print(*parts)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_sentences_of_a_whole_run(tmp_path: Path) -> None:
    text, lines = said(write_run(tmp_path, ONE + MANY, took))
    assert lines == [
        f"624 bytes, 1 connection at a time: XDP adds 6.5 µs per hop, nft 34.0 µs (5.2 {X} XDP), "
        f"socat 490 µs (14 {X} nft); at 5 hops XDP is faster than socat and nft, nft is faster "
        "than socat.",
        "624 bytes, 25 connections at a time: through 5 hops XDP makes 188,182 transactions/s "
        f"(76% of direct, 2.0 {X} nft), nft 92,473 (37% of direct, 9.4 {X} socat), socat 9,803 (4% "
        "of direct); at 5 hops XDP is faster than socat and nft, nft is faster than socat.",
    ]
    row = next(line for line in text.splitlines() if line.split()[:1] == ["socat"])
    assert row.split() == ["socat", "590", "1,570", "2,550", "490"]
    assert "624 bytes, 25 connections at a time: transactions/s, median [95 % interval]" in text


@pytest.mark.parametrize(
    ("modes", "hops", "words"),
    [
        (("nft",), (1, 3), "624 bytes, 1 connection at a time: nft adds 34.0 µs per hop."),
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
    assert "Medians of 6 samples a cell." in text


def test_direct_alone_at_many_connections(tmp_path: Path) -> None:
    cells = cross(("direct",), (), (), (624,), (25,), 10_000)
    assert said(write_run(tmp_path, cells, took))[1] == [
        "624 bytes, 25 connections at a time: direct makes 249,128 transactions/s."
    ]


def test_what_cannot_be_told_is_not_told(tmp_path: Path) -> None:
    cells = cross(("nft", "xdp"), ("native", "generic"), (1,), (624,), (1,), 10_000)

    def noisy(cell: Cell, block: int) -> float | Sample:
        if cell.attach == "generic" and block == 1:
            return Sample(cell, block, 3, START, None)
        return 1.0 + block / 10

    _, lines = said(write_run(tmp_path, cells, noisy))
    assert lines == [
        "624 bytes, 1 connection at a time: at 1 hop XDP and nft cannot be told apart, too few "
        "samples, below 6, to compare XDP (generic) with nft, XDP with XDP (generic)."
    ]


@pytest.mark.parametrize(("cost_us", "cost"), [(0.0, "0.0"), (-0.01, "0.0"), (-3.0, "-3.0")])
def test_a_hop_that_costs_nothing(tmp_path: Path, cost_us: float, cost: str) -> None:
    """No multiple of nothing is made."""
    cells = cross(("nft", "xdp"), ("native",), (1, 3), (624,), (1,), 10_000)

    def free(cell: Cell, block: int) -> float:
        return 1.0 + (cost_us if cell.mode == "xdp" else 34.0) * cell.hops / 100

    lines = said(write_run(tmp_path, cells, free))[1]
    assert f"XDP adds {cost} µs per hop, nft 34.0 µs; " in lines[0]


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
        "Medians of 6 samples a cell.",
        "No request failed.",
        "Ready to measure after 4.2 s.",
        "70% of 100 s were spent inside siege.",
    ]
    without = read_run(write_run(tmp_path, ONE, took))
    assert len(facts(without.meta, compare(without))) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.0"), (6.54, "6.5"), (99.94, "99.9"), (99.96, "100"), (1234.5, "1,234")],
)
def test_figures(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.514, "0.51"), (1.0, "1.00"), (2.04, "2.0"), (9.96, "10"), (1234.0, "1,234")],
)
def test_multiples(value: float | None, text: str) -> None:
    assert times(value) == text


def test_counted() -> None:
    assert [counted(n, "hop") for n in (0, 1, 2000)] == ["0 hops", "1 hop", "2,000 hops"]


def test_pairs_and_two_runs_side_by_side(tmp_path: Path) -> None:
    first = read_run(write_run(tmp_path, ONE, took))
    second = read_run(write_run(tmp_path, ONE[:3], lambda cell, b: 2 * took(cell, b)))
    result = compare(first, second)
    pairs = shown(render_pairs(result))
    assert ["XDP", "nft", "5", "624", "1", "0.49", "faster"] in map(str.split, pairs.splitlines())
    both = shown(render_other(result))
    assert "7 cells are in one of the runs only." in both
    assert ["direct", "0", "624", "1", "100", "201", "0.50", "faster"] in map(
        str.split, both.splitlines()
    )
    assert first.run_id in shown(header(first.meta))


def call(command: click.Command, *arguments: str) -> Any:
    """Call a command, which must succeed, and return its output apart by stream."""
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path / "results", ONE, took)
    (tmp_path / "results" / "[bold]broken").mkdir()
    folder = ("--results", str(tmp_path / "results"))

    assert json.loads(call(compare_command, "latest", "--json", *folder).stdout)["run"] == path.name
    both = json.loads(call(compare_command, "latest", path.name, "--json", *folder).stdout)
    assert both["other"]["run"] == path.name
    shown = json.loads(call(show_command, str(path), "--json").stdout)
    assert shown["run"]["run_id"] == shown["summary"]["run"] == path.name
    listed = json.loads(call(list_command, "--json", *folder).stdout)
    assert [entry["status"] for entry in listed] == ["broken", "complete"]

    monkeypatch.chdir(tmp_path)
    assert "[bold]broken" in call(list_command).stdout
    assert "XDP adds 6.5 µs per hop" in " ".join(call(show_command, "latest").stdout.split())
    assert "Pairs" in call(compare_command, "latest").stdout
    assert "Median response time of" in call(compare_command, "latest", "latest").stdout


def test_commands_without_runs(tmp_path: Path) -> None:
    folder = ("--results", str(tmp_path))
    assert call(list_command, "--json", *folder).stdout == "[]\n"
    empty = call(list_command, *folder)
    assert (empty.stdout, empty.stderr) == ("", f"There is no run in {tmp_path}.\n")
    for command in (show_command, compare_command):
        with pytest.raises(BenchError, match="there is no run"):
            call(command, "latest", *folder)
