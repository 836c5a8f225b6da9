# SPDX-License-Identifier: Apache-2.0
"""Sweep files, the order of a block, and the hops an inventory has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    with_twins,
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
    assert (sweep.blocks, sweep.seed, len(sweep.cells)) == (10, 7, 34)
    assert {cell.mode for cell in sweep.cells} == set(MODES)
    assert {cell.requests for cell in sweep.cells} == {0}
    assert {cell.offloads for cell in sweep.cells} == {"equal"}
    assert Cell("direct", "", 0, 624, 25, 0) in sweep.cells
    assert Cell("socat", "", 5, 624, 25, 0) in sweep.cells
    assert Cell("xdp", "native", 3, 159744, 1, 0) in sweep.cells


def test_cross_sets_offloads_for_every_mode() -> None:
    made = cross(("direct", "xdp"), ("native",), (1, 2), (624,), (1,), 0, ("equal", "native"))
    for offloads in ("equal", "native"):
        assert sum(cell.offloads == offloads for cell in made) == 3
    assert len({cell.key for cell in made}) == 6


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
    ("line", "requests", "offloads"),
    [
        ("", {0}, {"equal"}),
        ("requests = 'auto'", {0}, {"equal"}),
        ("requests = 7\noffloads = 'native'", {7}, {"native"}),
        ("offloads = ['native', 'equal']", {0}, {"equal", "native"}),
    ],
)
def test_what_a_sweep_file_may_leave_open(
    tmp_path: Path, line: str, requests: set[int], offloads: set[str]
) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(GOOD.replace("requests = 50", line))
    cells = load_sweep(path).cells
    assert {cell.requests for cell in cells} == requests
    assert {cell.offloads for cell in cells} == offloads
    assert len(cells) == 10 * len(offloads)


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
        (
            "modes",
            "mode",
            "[[cells]] 1: unknown key 'mode'; known are modes, attach, offloads, hops, sizes",
        ),
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
        ("= 50", "= 0", "[[cells]] 1: requests: '0' is not a whole number from 1 to 1000000"),
        ("= 50", "= '50'", "[[cells]] 1: requests must be a whole number"),
        ("= 50", "= ['auto']", "[[cells]] 1: requests must be a whole number"),
        ("= 50", "= 50\noffloads = 'off'", "[[cells]] 1: offloads: 'off' is none of equal, native"),
        ("= 50", "= 50\noffloads = []", "[[cells]] 1: offloads is empty"),
        ("= 50", "= 50\noffloads = true", "[[cells]] 1: offloads must be words"),
        ("= 50", "= 50\ntwin = true", "[[cells]] 1: unknown key 'twin'"),
        (GOOD, "", "blocks is missing"),
        (GOOD, "=", "not TOML"),
        (GOOD, "a = " + "[" * 5000, "not TOML"),
        (
            "requests = 50",
            "requests = 50\n" + GOOD[12:].replace("= 50", "= 51"),
            "xdp native, 1 hops, 312 bytes, concurrency 25 appears 2 times",
        ),
        ("[312, 624]", "[312, 312]", "appears 2 times"),
        ("[312, 624]", "[312, 312]\noffloads = 'native'", "native, native offloads, 1 hops, 312"),
        (
            GOOD[12:],
            GOOD[12:].replace('"1-2"', '"1-1000"').replace("25", str(list(range(1, 10)))),
            "[[cells]] 1: more than 10000 cells",
        ),
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


def test_one_cell_of_each_size_and_concurrency_has_a_twin() -> None:
    sweep = load_sweep(DEFAULT_SWEEP, seed=7)
    twinned = with_twins(sweep)
    assert twinned.cells[:34] == sweep.cells
    assert (twinned.blocks, twinned.seed) == (sweep.blocks, sweep.seed)
    twins = twinned.cells[34:]
    assert all(cell.twin for cell in twins)
    assert {replace(cell, twin=False) for cell in twins} == {
        *(Cell("xdp", "native", 5, size_bytes, 1, 0) for size_bytes in (624, 9984, 159744)),
        Cell("xdp", "native", 5, 624, 25, 0),
    }


@pytest.mark.parametrize(
    ("cells", "twin"),
    [
        (cross(("direct",), (), (), (624,), (1,), 9), Cell("direct", "", 0, 624, 1, 9)),
        (cross(("xdp", "nft"), ("native",), (1,), (624,), (1,), 9), "xdp"),
        (cross(("nft", "direct"), (), (2, 5, 3), (624,), (1,), 9), Cell("nft", "", 5, 624, 1, 9)),
        # What the other cells are measured with goes before what shows a mode at its best.
        (cross(("nft",), (), (1, 2), (624,), (1,), 9, ("native", "equal")), "nft"),
        (
            cross(("nft",), (), (1,), (624,), (1,), 9, ("native",)),
            Cell("nft", "", 1, 624, 1, 9, "native"),
        ),
        (cross(("xdp",), ("generic", "native"), (1,), (624,), (1,), 9), "xdp/generic"),
    ],
)
def test_which_cell_has_a_twin(cells: tuple[Cell, ...], twin: Cell | str) -> None:
    *_, last = with_twins(Sweep(cells, 1, 1)).cells
    assert last.twin
    alone = replace(last, twin=False)
    assert alone in cells
    assert twin in (alone, alone.label)


axes = st.builds(
    cross,
    st.lists(st.sampled_from(list(MODES)), min_size=1, unique=True),
    st.lists(st.sampled_from(["native", "generic"]), min_size=1, unique=True),
    st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([312, 624]), min_size=1, unique=True),
    st.lists(st.integers(1, 50), min_size=1, max_size=3, unique=True),
    st.integers(0, 500),
    st.lists(st.sampled_from(["equal", "native"]), min_size=1, unique=True),
)


@given(axes, st.integers(0, 9), st.integers(0, 2**63))
def test_twins_of_any_sweep(cells: tuple[Cell, ...], block: int, seed: int) -> None:
    sweep = with_twins(Sweep(cells, 2, seed))
    twins = [cell for cell in sweep.cells if cell.twin]
    where = [(cell.size_bytes, cell.concurrency) for cell in twins]
    assert sorted(where) == sorted({(cell.size_bytes, cell.concurrency) for cell in cells})
    assert all(replace(cell, twin=False) in cells for cell in twins)
    assert len({cell.key for cell in sweep.cells}) == len(sweep.cells)
    assert sorted(order(sweep, block)) == sorted(sweep.cells)


@given(axes, st.integers(1, 10))
def test_a_sweep_cut_down_keeps_its_twins(cells: tuple[Cell, ...], available: int) -> None:
    cut, _ = limit_hops(with_twins(Sweep(cells, 2, 1)), available)
    keys = [cell.key for cell in cut.cells]
    assert len(set(keys)) == len(keys)
    assert all(replace(cell, twin=False) in cut.cells for cell in cut.cells if cell.twin)
    assert sum(cell.twin for cell in cut.cells) == len(
        {(cell.size_bytes, cell.concurrency) for cell in cells}
    )


def test_order_is_a_permutation_that_seed_and_block_decide() -> None:
    sweep = load_sweep(DEFAULT_SWEEP, seed=1)
    first = order(sweep, 1)
    assert sorted(first) == sorted(sweep.cells)
    assert order(sweep, 1) == first
    assert order(sweep, 2) != first
    assert order(sweep, 0) not in (first, order(sweep, 2))
    assert order(replace(sweep, seed=2), 1) != first


def test_order_does_not_depend_on_how_many_requests_there_are() -> None:
    """A run that goes on knows them, where the one that began had still to find out."""
    sweep = load_sweep(DEFAULT_SWEEP, seed=1)
    known = replace(sweep, cells=tuple(replace(cell, requests=900) for cell in sweep.cells))
    assert [cell.key for cell in order(known, 3)] == [cell.key for cell in order(sweep, 3)]


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
