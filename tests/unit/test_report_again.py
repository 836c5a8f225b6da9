# SPDX-License-Identifier: Apache-2.0
"""The command that makes a run again, read back by the real command line."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cells import Cell
from bench.cli import cli
from bench.commands.run import run_command
from bench.plan import Request, sweep_of
from bench.report.again import SWEEP_FILE, Again, again
from bench.sweep import Sweep
from bench.warmup import calibrated

FIXED = ["--seed", "77"]
BY_LINE = [
    "--mode xdp --hops 1 --size 624 --requests 50 --blocks 1 --no-aa",
    "--mode direct --size 624 --requests 50",
    "--mode xdp,nft --hops 1-5 --size 312,624 --concurrency 1,25 --requests 100 --blocks 10",
    "--mode nft --mode xdp --hops 3,1 --attach generic --requests 9 --no-aa",
    "--mode xdp --attach native,generic --offloads equal,native --hops 2 --size 624 --requests 7",
    "--mode socat --offloads native --hops 1,4 --requests 1000000 --blocks 1000",
]
TABLES = """
blocks = 3
[[cells]]
modes = ["nft", "xdp"]
attach = ["generic", "native"]
hops = "1-3"
sizes = [624, 9984]
concurrency = [1, 25]
requests = 40
[[cells]]
modes = "direct"
sizes = 624
concurrency = 1
requests = 700
[[cells]]
modes = "socat"
hops = 2
sizes = 624
concurrency = 4
offloads = "native"
"""


def asked(words: list[str]) -> Sweep:
    """Return the sweep that the words of a command line stand for, as `bench run` reads them."""
    context = run_command.make_context("run", list(words))
    names = Request.__dataclass_fields__
    return sweep_of(Request(**{key: context.params[key] for key in names}))


def dry(words: list[str]) -> str:
    """Return what a dry run prints."""
    done = CliRunner().invoke(cli, ["run", "--dry-run", *words])
    assert (done.exit_code, done.stderr) == (0, "")
    return done.output


def meta(sweep: Sweep) -> dict[str, Any]:
    """Return what run.json says of a sweep."""
    cells = [asdict(cell) for cell in sweep.cells]
    return {"sweep": {"blocks": sweep.blocks, "cells": cells}, "seed": sweep.seed}


def given(way: Again) -> list[str]:
    """Return a way's words after a shell has read its line, its sweep file being there."""
    if way.file:
        Path(SWEEP_FILE).write_text(way.file)
    bench, run, *words = shlex.split(way.line)
    assert (bench, run) == ("bench", "run")
    return words


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where no file is in the way."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line", BY_LINE)
def test_a_line_says_it_all(line: str) -> None:
    words = [*line.split(), *FIXED]
    (way,) = again(meta(asked(words)), timed=True)
    assert way.exact and not way.file
    assert asked(given(way)) == asked(words)
    assert dry(given(way)) == dry(words)


@pytest.mark.parametrize("words", [[], ["--mode", "xdp,nft", "--hops", "1,2"]])
def test_numbers_of_requests_that_the_warm_up_found(words: list[str]) -> None:
    """They differ from cell to cell: a line has the warm-up find them again, a file has them."""
    opened = asked([*words, *FIXED])
    rates = {
        replace(cell, twin=False): 1000.0 * (number + 1) for number, cell in enumerate(opened.cells)
    }
    sweep = calibrated(opened, rates)
    line, file = again(meta(sweep), timed=True)
    assert file.exact and asked(given(file)) == sweep
    assert not line.exact and asked(given(line)) == opened
    assert dry(given(line)) == dry([*words, *FIXED])


def test_what_only_a_file_can_say() -> None:
    Path("mine.toml").write_text(TABLES)
    words = ["--sweep", "mine.toml", *FIXED]
    (way,) = again(meta(asked(words)), timed=True)
    assert way.exact and way.file.count("[[cells]]") == 3
    assert asked(given(way)) == asked(words)
    assert dry(given(way)) == dry(words)


@pytest.mark.parametrize(("aa", "timed"), [(True, False), (False, True), (False, False)])
def test_the_noise_floor_and_the_timer(aa: bool, timed: bool) -> None:
    words = ["--mode", "nft", "--hops", "1", "--requests", "5", *FIXED]
    sweep = asked([*words, "--aa" if aa else "--no-aa"])
    (way,) = again(meta(sweep), timed)
    assert asked(given(way)) == sweep
    context = run_command.make_context("run", given(way))
    assert (context.params["aa"], context.params["timer"]) == (aa, timed)


@pytest.mark.parametrize(
    "cell",
    [
        Cell("legacy", "generic", 1, 624, 1, 10),
        Cell("xdp", "native", 1, 77, 1, 10),
        Cell("xdp", "native", 1, 624, 4000, 10),
        Cell("xdp", "$(reboot)", 1, 624, 1, 10),
        Cell("'; reboot", "", 0, 624, 1, 10),
        Cell("xdp", "native", 1, 624, 1, 10, offloads="\n"),
    ],
)
def test_what_no_command_can_measure(cell: Cell) -> None:
    assert again(meta(Sweep((cell,), 2, 7)), timed=True) == []
    assert again(meta(Sweep((replace(cell, twin=True),), 2, 7)), timed=True) == []
