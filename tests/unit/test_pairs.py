# SPDX-License-Identifier: Apache-2.0
"""Pairs of modes: twins, offloads, families of tests, and the noise floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.cells import Cell
from bench.measured import Measured
from bench.pairs import noise_floors, pairs
from bench.perhop import per_hop
from bench.sweep import cross

SPREAD = (1.0, 1.02, 0.97, 1.01, 0.99, 1.03, 0.98, 1.04)


def cell_of(cell: Cell, us: float, blocks: int = 8, spread: tuple[float, ...] = SPREAD) -> Measured:
    """Return a cell whose samples are about `us`, as others of the same block are."""
    times = {block: us * spread[(block - 1) % len(spread)] for block in range(1, blocks + 1)}
    rates = {block: 1e6 / time for block, time in times.items()}
    return Measured(cell, {"response_us": times, "transactions_per_s": rates})


def twin_of(cell: Measured, by_block: Mapping[int, float]) -> Measured:
    """Return the cell's twin, whose time differs by a factor in each block."""
    times = {block: us * by_block[block] for block, us in cell.of("response_us").items()}
    rates = {block: 1e6 / time for block, time in times.items()}
    figures = {"response_us": times, "transactions_per_s": rates}
    return Measured(replace(cell.cell, twin=True), figures)


NFT, XDP = (Cell(mode, attach, 3, 624, 1, 100) for mode, attach in (("nft", ""), ("xdp", "native")))
# Eight factors around 1, and the farthest is 3 %.
NOISE = dict(enumerate((0.99, 1.01, 0.98, 1.02, 0.97, 1.03, 0.995, 1.005), start=1))


def of(found: list[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    """Return the one record that has these values."""
    (record,) = [item for item in found if wanted.items() <= item.items()]
    return record


def test_the_noise_floor_of_an_axis() -> None:
    xdp = cell_of(XDP, 100)
    found = pairs([cell_of(NFT, 200), xdp, twin_of(xdp, NOISE)], ["response_us"])
    assert [(pair["a"], pair["b"], pair["aa"]) for pair in found] == [
        ("xdp", "nft", False),
        ("xdp/again", "xdp", True),
    ]
    assert found[1]["verdict"] == "~"
    (floor,) = noise_floors(found)
    low, high = floor["ci95"]
    assert floor["noise_floor"] == pytest.approx(max(1 / low, high) - 1)
    assert 0.005 < floor["noise_floor"] < 1 / 0.97 - 1
    assert (floor["label"], floor["hops"], floor["verdict"]) == ("xdp", 3, "~")
    assert (floor["size_bytes"], floor["concurrency"], floor["metric"]) == (624, 1, "response_us")
    assert of(found, b="nft")["verdict"] == "faster"


@pytest.mark.parametrize(("factor", "verdict"), [(0.985, "~"), (0.9, "faster"), (1.2, "slower")])
def test_a_difference_within_the_noise_floor_is_none(factor: float, verdict: str) -> None:
    """All ranks are apart and the interval is a point: without a floor it would be a difference."""
    narrow = tuple(1 + place / 10_000 for place in range(8))
    nft, xdp = cell_of(NFT, 100, spread=narrow), cell_of(XDP, 100 * factor, spread=narrow)
    alone = pairs([nft, xdp], ["response_us"])
    assert alone[0]["verdict"] == ("slower" if factor > 1 else "faster")
    with_floor = pairs([nft, xdp, twin_of(xdp, NOISE)], ["response_us"])
    assert of(with_floor, b="nft")["verdict"] == verdict


def test_a_twin_that_differs_from_its_original() -> None:
    """It is told by its verdict, and then no difference that is smaller is believed."""
    xdp = cell_of(XDP, 100)
    twice = dict.fromkeys(range(1, 9), 2.0)
    found = pairs([cell_of(NFT, 150), xdp, twin_of(xdp, twice)], ["response_us"])
    assert of(found, aa=True)["verdict"] == "slower"
    assert noise_floors(found)[0]["noise_floor"] == pytest.approx(1.0)
    assert of(found, aa=False)["verdict"] == "~"


def test_too_few_blocks_for_a_noise_floor() -> None:
    xdp = cell_of(XDP, 100, blocks=5)
    (floor,) = noise_floors(pairs([xdp, twin_of(xdp, NOISE)], ["response_us"]))
    assert (floor["ci95"], floor["verdict"]) == (None, "n too small")
    assert floor["noise_floor"] == pytest.approx(1 / 0.99 - 1)


@pytest.mark.parametrize("twin", [Measured(replace(XDP, twin=True)), cell_of(NFT, 1)])
def test_no_noise_floor_without_figures_or_a_twin(twin: Measured) -> None:
    assert noise_floors(pairs([cell_of(XDP, 100), twin], ["response_us"])) == []


def test_a_twin_of_a_mode_without_hops_and_one_whose_original_is_gone() -> None:
    direct = cell_of(Cell("direct", "", 0, 624, 1, 100), 50)
    orphan = twin_of(cell_of(NFT, 100), NOISE)
    found = pairs([direct, twin_of(direct, NOISE), orphan, cell_of(XDP, 70)], ["response_us"])
    assert [(pair["a"], pair["b"], pair["hops"]) for pair in found] == [
        ("direct/again", "direct", 0),
        ("xdp", "direct", 3),
    ]


def test_every_offload_setting_is_a_mode_of_its_own() -> None:
    cells = [
        cell_of(replace(cell, offloads=offloads), us)
        for cell in (replace(NFT, mode="direct", hops=0), NFT, XDP)
        for offloads, us in (("equal", 100), ("native", 70))
    ]
    found = pairs(cells, ["response_us"])
    names = [(pair["a"], pair["b"], pair["hops"]) for pair in found]
    assert names[:4] == [
        ("direct/native-offloads", "direct", 0),
        ("nft", "direct", 3),
        ("nft", "direct/native-offloads", 3),
        ("nft/native-offloads", "direct", 3),
    ]
    assert len(names) == len(set(names)) == 1 + 4 * 2 + 6
    assert ("nft/native-offloads", "nft", 3) in names


def test_a_family_is_a_size_a_concurrency_and_a_metric() -> None:
    cells = cross(("direct", "nft", "xdp"), ("native",), (1, 3), (312, 624), (1, 25), 100)
    times = {"direct": 50, "nft": 200, "xdp": 100}
    found = pairs([cell_of(cell, times[cell.mode]) for cell in cells], ["response_us"])
    assert len(found) == 2 * 6 * (1 + 2)
    assert {pair["metric"] for pair in found if pair["concurrency"] == 1} == {"response_us"}
    # Eight against eight, wholly apart: 2 of C(16, 8) = 12,870 orders; six such in a family.
    for pair in found:
        assert pair["p_uncorrected"] == pytest.approx(2 / 12_870)
        assert pair["p_value"] == pytest.approx(6 * 2 / 12_870)
    rate = of(found, a="xdp", b="nft", hops=3, size_bytes=312, metric="transactions_per_s")
    assert (rate["ratio"], rate["verdict"]) == (pytest.approx(2), "faster")


def test_a_line_over_hops_is_of_blocks_that_have_them_all() -> None:
    cells = [cell_of(replace(NFT, hops=hops), 100 + 34 * hops) for hops in (1, 3, 5)]
    bent = Measured(cells[2].cell, {"response_us": {1: 900.0, 2: 270 * SPREAD[1]}})
    (line,) = per_hop([cells[0], bent, twin_of(cells[1], NOISE)], ["response_us", "connect_us"])
    # Of two hop counts the slope is the difference over four hops.
    slopes = [(900 - 134) / 4, (270 - 134) * SPREAD[1] / 4]
    assert line["slope_us"] == pytest.approx(sum(slopes) / 2)
    assert (line["hops"], line["blocks"], line["ci95"]) == ([1, 5], 2, None)
    assert per_hop(cells[:1], ["response_us"]) == []
