# SPDX-License-Identifier: Apache-2.0
"""Sweep files, the order of a block, and the hops an inventory has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.cells import MODES, Cell
from bench.errors import BenchError, UsageError
from bench.sweep import (
    DEFAULT_SWEEP,
    Sweep,
    check_hops,
    cross,
    limit_hops,
    load_sweep,
    order,
)


def test_cross_asks_each_mode_only_what_it_knows() -> None:
    made = cross(("direct", "nft", "xdp"), ("native", "generic"), (1, 3), (624,), (1, 25), 100)
    by_mode = {mode: [cell for cell in made if cell.mode == mode] for mode in MODES}
    assert [(cell.hops, cell.concurrency) for cell in by_mode["direct"]] == [(0, 1), (0, 25)]
    assert {cell.attach for cell in by_mode["direct"] + by_mode["nft"]} == {""}
    assert len(by_mode["nft"]) == 4
    assert len(by_mode["xdp"]) == 8
    assert len(set(made)) == len(made)


def test_default_sweep() -> None:
    sweep = load_sweep(DEFAULT_SWEEP, seed=7)
    assert (sweep.blocks, sweep.seed, len(sweep.cells)) == (7, 7, 34)
    assert {cell.mode for cell in sweep.cells} == set(MODES)
    assert Cell("direct", "", 0, 624, 25, 10000) in sweep.cells
    assert Cell("socat", "", 5, 624, 25, 1000) in sweep.cells
    assert Cell("xdp", "native", 3, 159744, 1, 1000) in sweep.cells


GOOD = """
blocks = 2
[[cells]]
modes = ["xdp", "direct"]
attach = ["native", "generic"]
hops = "1-2"
sizes = [312, 624]
concurrency = 25
requests = 50
"""


def test_a_sweep_file(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(GOOD)
    sweep = load_sweep(path)
    assert len(sweep.cells) == 2 * 2 * 2 + 2
    path.write_text("blocks = 1\n[[cells]]\nmodes='direct'\nsizes=312\nconcurrency=1\nrequests=9")
    assert load_sweep(path).cells == (Cell("direct", "", 0, 312, 1, 9),)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("blocks = 2", "", "blocks is missing"),
        ("blocks = 2", "blocks = '2'", "blocks must be a whole number"),
        ("blocks = 2", "blocks = true", "blocks must be a whole number"),
        ("blocks = 2", "blocks = 0", "blocks: '0' is not a whole number from 1 to 1000"),
        ("blocks = 2", f"blocks = {'9' * 4000}", "is not a whole number from 1 to 1000"),
        ("blocks = 2", f"blocks = {'9' * 5000}", "not TOML"),
        ("blocks = 2", "blocks = 2\nseed = 3", "unknown key 'seed'; known are blocks, cells"),
        ("blocks = 2", "blocks = 2\nblocks = 3", "not TOML"),
        ("[[cells]]", "[cells]", "cells must be one or more [[cells]] tables"),
        ("[[cells]]", "cells = [1]\n[x]", "unknown key 'x'"),
        (GOOD[12:], "cells = [1]", "[[cells]] 1: not a table"),
        (GOOD[12:], "cells = []", "cells must be one or more"),
        ("modes", "mode", "[[cells]] 1: unknown key 'mode'; known are modes, attach, hops"),
        ('["xdp", "direct"]', "[]", "[[cells]] 1: modes is empty"),
        ('["xdp", "direct"]', "[1]", "[[cells]] 1: modes must be words"),
        ('["xdp", "direct"]', '["tcp"]', "[[cells]] 1: modes: unknown mode 'tcp'"),
        ('["native", "generic"]', '"skb"', "attach: 'skb' is none of native, generic, offload"),
        ('hops = "1-2"', "", "[[cells]] 1: hops is missing"),
        ('"1-2"', "[1, true]", "[[cells]] 1: hops must be hop counts"),
        ('"1-2"', "0", "[[cells]] 1: hops: '0' is not a hop count"),
        ('"1-2"', "1.0", "[[cells]] 1: hops must be hop counts"),
        ("[312, 624]", "[313]", "[[cells]] 1: sizes: there is no payload of '313' bytes"),
        ("[312, 624]", '"312"', "[[cells]] 1: sizes must be numbers"),
        ("[312, 624]", "[[312]]", "[[cells]] 1: sizes must be numbers"),
        ("= 25", "= 0", "[[cells]] 1: concurrency: '0' is not a whole number from 1 to 1000"),
        ("= 25", f"= {'9' * 4000}", "is not a whole number from 1 to 1000"),
        ("= 50", "= -1", "[[cells]] 1: requests: '-1' is not a whole number"),
        ("= 50", "= nan", "[[cells]] 1: requests must be a whole number"),
        (GOOD, "", "blocks is missing"),
        (GOOD, "=", "not TOML"),
        (GOOD, "a = " + "[" * 5000, "not TOML"),
        (
            "requests = 50",
            "requests = 50\n" + GOOD[12:].replace("= 50", "= 51"),
            "xdp native, 1 hops, 312 bytes, concurrency 25 appears 2 times",
        ),
        ("[312, 624]", "[312, 312]", "appears 2 times"),
    ],
)
def test_sweep_file_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "sweep.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_sweep(path)
    line = caught.value.one_line()
    assert line.startswith(f"{path}: ")
    assert message in line
    assert len(line) < 400 + len(str(path))


def test_sweep_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    huge = tmp_path / "huge"
    huge.write_text("#" * (1 << 20) + "\n")
    for path in (tmp_path, tmp_path / "none", binary, huge, Path("/dev/zero"), tmp_path / "a\0b"):
        with pytest.raises(UsageError):
            load_sweep(path)


def test_order_is_a_permutation_that_seed_and_block_decide() -> None:
    sweep = load_sweep(DEFAULT_SWEEP, seed=1)
    first = order(sweep, 1)
    assert sorted(first) == sorted(sweep.cells)
    assert order(sweep, 1) == first
    assert order(sweep, 2) != first
    assert order(replace(sweep, seed=2), 1) != first


def test_order_is_the_same_everywhere() -> None:
    made = Sweep(cross(("nft",), (), range(1, 9), (624,), (1,), 1), 1, 42)
    assert [cell.hops for cell in order(made, 1)] == [7, 2, 1, 8, 6, 4, 5, 3]


def test_every_position_is_about_equally_likely() -> None:
    made = Sweep(cross(("nft",), (), (1, 2, 3), (624,), (1,), 1), 1, 0)
    first = [order(made, block)[0].hops for block in range(3000)]
    assert all(900 < first.count(hops) < 1100 for hops in (1, 2, 3))


@pytest.mark.parametrize(
    ("available", "line"),
    [
        (5, None),
        (
            3,
            "5 hops were asked for and lab.ini has 3 hops "
            "(use at most --hops 3, or add hosts to its group hops)",
        ),
        (
            1,
            "5 hops were asked for and lab.ini has 1 hop "
            "(use at most --hops 1, or add hosts to its group hops)",
        ),
        (0, "5 hops were asked for and lab.ini has 0 hops (add hosts to its group hops)"),
    ],
)
def test_hops_beyond_the_inventory(available: int, line: str | None) -> None:
    sweep = load_sweep(DEFAULT_SWEEP)
    if line is None:
        check_hops(sweep, available, "lab.ini")
        return
    with pytest.raises(BenchError) as caught:
        check_hops(sweep, available, "lab.ini")
    assert caught.value.one_line() == line
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("available", "hops"),
    [
        (64, {0, 1, 3, 5}),
        (5, {0, 1, 3, 5}),
        (4, {0, 1, 3, 4}),
        (2, {0, 1, 2}),
        (1, {0, 1}),
        (0, {0}),
    ],
)
def test_the_default_sweep_is_cut_down(available: int, hops: set[int]) -> None:
    sweep = load_sweep(DEFAULT_SWEEP, seed=3)
    cut, note = limit_hops(sweep, available)
    assert {cell.hops for cell in cut.cells} == hops
    assert len({cell.key for cell in cut.cells}) == len(cut.cells)
    assert (cut.blocks, cut.seed) == (sweep.blocks, sweep.seed)
    assert bool(note) == (available < 5)
    check_hops(cut, available, "lab.ini")


def test_a_sweep_of_hops_without_hops() -> None:
    with pytest.raises(BenchError, match="no hops"):
        limit_hops(Sweep(cross(("nft",), (), (1,), (624,), (1,), 1), 1, 1), 0)
