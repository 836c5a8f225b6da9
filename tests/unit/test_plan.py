# SPDX-License-Identifier: Apache-2.0
"""From the words of the command line to a sweep that fits a chain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.cells import Cell
from bench.chain import Chain, Host
from bench.errors import BenchError, UsageError
from bench.plan import BLOCKS, REQUESTS, Request, fit, sweep_of


def chain(*attach: str) -> Chain:
    """Return a chain with one hop for each attach mode."""
    hops = tuple(
        Host(f"hop{i}", "hop", f"198.18.0.{i + 2}", "eth0", 7000, kind)
        for i, kind in enumerate(attach)
    )
    client = Host("client", "client", "198.18.0.1", "eth0", 0)
    server = Host("server", "server", "198.18.0.200", "eth0", 8000)
    return Chain(Path("chain.ini"), client, hops, server)


def test_the_default_is_for_five_hops_and_cut_for_fewer() -> None:
    request = Request(seed=3)
    sweep = sweep_of(request)
    assert {cell.hops for cell in sweep.cells} == {0, 1, 3, 5}
    assert fit(sweep, request, chain(*["native"] * 5)) == (sweep, ())
    cut, notes = fit(sweep, request, chain("native", "native"))
    assert {cell.hops for cell in cut.cells} == {0, 1, 2}
    assert len(notes) == 1 and "2 hops" in notes[0]


@pytest.mark.parametrize(
    ("hops", "twin"), [(5, ("xdp", 5)), (2, ("xdp", 2)), (1, ("xdp", 1)), (0, ("direct", 0))]
)
def test_twins_on_fewer_hops(hops: int, twin: tuple[str, int]) -> None:
    request = Request()
    fitted, _ = fit(sweep_of(request), request, chain(*["native"] * hops))
    assert {(cell.mode, cell.hops) for cell in fitted.cells if cell.twin} == {twin}
    assert sum(cell.twin for cell in fitted.cells) == 4
    assert len({cell.key for cell in fitted.cells}) == len(fitted.cells)
    request = replace(request, aa=False)
    fitted, _ = fit(sweep_of(request), request, chain(*["native"] * hops))
    assert not any(cell.twin for cell in fitted.cells)


def test_options_name_axes_and_the_rest_has_defaults() -> None:
    sweep = sweep_of(Request(modes=("xdp", "nft,direct"), hops="1-2", sizes="624"))
    assert {cell.mode for cell in sweep.cells} == {"xdp", "nft", "direct"}
    assert len(sweep.cells) == 2 + 2 + 1 + 1
    assert REQUESTS == "auto"
    assert {cell.requests for cell in sweep.cells} == {0}
    assert {cell.offloads for cell in sweep.cells} == {"equal"}
    assert sweep.blocks == BLOCKS == 10
    assert sweep_of(Request(blocks="2")).blocks == 2


def test_offloads_alone_name_cells_of_every_mode() -> None:
    sweep = sweep_of(Request(offloads="equal,native", sizes="624"))
    of = {how: [c for c in sweep.cells if c.offloads == how] for how in ("equal", "native")}
    assert len(of["equal"]) == len(of["native"]) + 1 == 1 + 3 * 3 + 1
    assert {cell.mode for cell in of["native"]} == {"direct", "socat", "nft", "xdp"}


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request(modes=("nft",)),
        Request(sizes="312,624", concurrency="1,25"),
        Request(offloads="native,equal", modes=("xdp",)),
        Request(attach="generic,native", modes=("xdp",)),
    ],
    ids=repr,
)
def test_a_cell_of_each_size_and_concurrency_is_measured_twice(request_: Request) -> None:
    cells = sweep_of(request_).cells
    alone = sweep_of(replace(request_, aa=False)).cells
    assert not any(cell.twin for cell in alone)
    assert cells[: len(alone)] == alone
    twins = cells[len(alone) :]
    assert all(cell.twin and replace(cell, twin=False) in alone for cell in twins)
    axes = {(cell.size_bytes, cell.concurrency) for cell in alone}
    assert {(cell.size_bytes, cell.concurrency) for cell in twins} == axes
    assert len(twins) == len(axes)


def test_a_file_is_measured_twice_too(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text("blocks = 3\n[[cells]]\nmodes = 'direct'\nsizes = 624\nconcurrency = 1\n")
    direct = Cell("direct", "", 0, 624, 1, 0)
    assert sweep_of(Request(file=path)).cells == (direct, replace(direct, twin=True))
    assert sweep_of(Request(file=path, aa=False, blocks="7")).blocks == 7


def test_a_seed_is_chosen_and_kept() -> None:
    assert sweep_of(Request()).seed != sweep_of(Request()).seed
    assert sweep_of(Request(seed=0)).seed == 0


@pytest.mark.parametrize(
    "request_",
    [
        Request(hops=""),
        Request(sizes=""),
        Request(concurrency=""),
        Request(requests=""),
        Request(attach=""),
        Request(offloads=""),
        Request(blocks=""),
        Request(modes=("",)),
        Request(file=Path("x.toml"), hops="1"),
        Request(file=Path("x.toml"), offloads="native"),
    ],
    ids=repr,
)
def test_wrong_usage(request_: Request) -> None:
    with pytest.raises(UsageError):
        sweep_of(request_)


def test_hops_that_were_asked_for_are_not_cut() -> None:
    request = Request(modes=("nft",), hops="1-3")
    with pytest.raises(BenchError, match="2 hops"):
        fit(sweep_of(request), request, chain("native", "native"))


@pytest.mark.parametrize(
    ("attach", "kinds", "expected"),
    [
        (None, ("native", "native"), {"native"}),
        (None, ("generic", "generic"), {"generic"}),
        (None, ("offload", "offload"), {"offload"}),
        (None, ("generic", "native"), None),
        ("native", ("generic", "generic"), {"native"}),
        ("native,generic", ("native", "generic"), {"native", "generic"}),
    ],
)
def test_attach_comes_from_the_request_or_the_inventory(
    attach: str | None, kinds: tuple[str, ...], expected: set[str] | None
) -> None:
    request = Request(modes=("xdp",), hops="1-2", attach=attach)
    if expected is None:
        with pytest.raises(UsageError, match="differ in xdp_attach"):
            fit(sweep_of(request), request, chain(*kinds))
    else:
        sweep, _ = fit(sweep_of(request), request, chain(*kinds))
        assert {cell.attach for cell in sweep.cells} == expected
        twins = [cell for cell in sweep.cells if cell.twin]
        assert all(replace(cell, twin=False) in sweep.cells for cell in twins)
