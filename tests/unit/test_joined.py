# SPDX-License-Identifier: Apache-2.0
"""Two runs side by side: cells, agreement, differences, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats as scipy_stats
from synthetic import START, connections, read_run, write_run

from bench.cells import Cell
from bench.compare import compare
from bench.differing import differing
from bench.errors import BenchError
from bench.results import Sample
from bench.sweep import cross

COST_US = {"direct": 0.0, "nft": 34.0, "xdp": 6.5}
CELLS = cross(("direct", "nft", "xdp"), ("native",), (1, 3), (624,), (1,), 100)
X3 = CELLS[-1]
# What each block differs by, so that intervals have a width.
BLOCKS = (0.0, 0.0, 1.0, -2.0, 3.0, -1.0, 2.0, -3.0, 0.5)


def times_of(factor: float = 1.0, nft: float = 1.0) -> Callable[[Cell, int], dict[str, Any]]:
    """Return connections that take `factor` times as long as they should, through nft `nft`."""

    def times(cell: Cell, block: int) -> dict[str, Any]:
        own = (100 + COST_US[cell.mode] * cell.hops + BLOCKS[block]) * factor
        return connections(50, own * (nft if cell.mode == "nft" else 1.0))

    return times


def run_of(folder: Path, cells: tuple[Cell, ...] = CELLS, factor: float = 1.0, **how: Any) -> Any:
    """Write and read a run of eight blocks."""
    how = {"blocks": 8, "connections": times_of(factor, how.pop("nft", 1.0)), **how}
    return read_run(write_run(folder, cells, lambda *_: 1.0, **how))


def of(found: list[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    """Return the one record that has these values."""
    (record,) = [item for item in found if wanted.items() <= item.items()]
    return record


def test_cells(tmp_path: Path) -> None:
    twin = replace(X3, twin=True)
    other_offloads = replace(X3, offloads="native")
    first = run_of(tmp_path, (*CELLS, twin, other_offloads))
    second = run_of(tmp_path, (*CELLS[1:], twin, replace(X3, hops=7)), 1.25)
    other = compare(first, second)["other"]
    json.dumps(other, allow_nan=False)
    assert other["run"] == second.run_id
    # direct and the native offloads here, seven hops there.
    assert other["unmatched"] == 3
    assert [(cell["metric"], cell["label"], cell["hops"]) for cell in other["cells"]] == [
        (metric, mode, hops)
        for metric in ("response_us", "connect_us")
        for mode in ("nft", "xdp")
        for hops in (1, 3)
    ]
    cell = of(other["cells"], label="nft", hops=3, metric="response_us")
    assert set(cell) == {
        *("mode", "attach", "offloads", "label", "other_label", "hops"),
        *(
            "size_bytes",
            "concurrency",
            "metric",
            "run_us",
            "other_us",
            "ratio",
            "ci95",
            "p_value",
            "p_uncorrected",
            "n",
            "verdict",
        ),
    }
    # 202 and what blocks differ by: 0, 1, -2, 3, -1, 2, -3, 0.5, of median 0.25.
    assert (cell["run_us"], cell["other_us"]) == (
        pytest.approx(202.25),
        pytest.approx(202.25 * 1.25),
    )
    assert cell["ratio"] == pytest.approx(0.8)
    assert cell["ci95"][0] < 0.8 < cell["ci95"][1]
    mine = [202 + each for each in BLOCKS[1:]]
    exact = scipy_stats.mannwhitneyu(mine, [1.25 * us for us in mine], method="exact").pvalue
    assert cell["p_uncorrected"] == pytest.approx(exact)
    assert cell["p_value"] == pytest.approx(4 * exact)
    assert (cell["n"], cell["verdict"]) == ([8, 8], "faster")


def test_two_runs_that_agree(tmp_path: Path) -> None:
    """All of one run is a quarter slower: ratios within a run do not show it, costs per hop do."""
    other = compare(run_of(tmp_path), run_of(tmp_path, factor=1.25))["other"]
    assert {cell["verdict"] for cell in other["cells"]} == {"faster"}
    assert {pair["agree"] for pair in other["pairs"]} == {True}
    assert len(other["pairs"]) == 2 * 2 * 3
    pair = of(other["pairs"], a="xdp", b="nft", hops=3, metric="response_us")
    assert set(pair) == {
        *("a", "b", "hops", "size_bytes", "concurrency", "metric", "run", "other", "agree")
    }
    assert pair["run"]["ratio"] == pytest.approx(pair["other"]["ratio"])
    assert pair["run"]["verdict"] == "faster"
    line = of(other["per_hop"], label="nft", metric="connect_us")
    assert (line["run"]["slope_us"], line["other"]["slope_us"]) == (
        pytest.approx(17),
        pytest.approx(17 * 1.25),
    )
    assert (line["hops"], line["agree"]) == ([1, 3], False)


def test_two_runs_of_a_mode_each(tmp_path: Path) -> None:
    """Nothing in common but the places: mode against mode, and a word on how they were measured."""
    xdp, nft = (tuple(cell for cell in CELLS if cell.mode == mode) for mode in ("xdp", "nft"))
    other = compare(run_of(tmp_path, xdp), run_of(tmp_path, nft))["other"]
    cell = of(other["cells"], hops=3, metric="response_us")
    assert (cell["label"], cell["other_label"]) == ("xdp", "nft")
    assert cell["ratio"] == pytest.approx(119.75 / 202.25)
    assert cell["verdict"] == "faster"
    line = of(other["per_hop"], metric="response_us")
    assert (line["label"], line["other_label"], line["agree"]) == ("xdp", "nft", False)
    assert line["run"]["slope_us"] == pytest.approx(6.5)
    assert line["other"]["slope_us"] == pytest.approx(34)
    assert other["unmatched"] == 0
    assert "one run after the other" in other["warnings"][0]


def test_modes_of_two_runs_at_the_same_places_only(tmp_path: Path) -> None:
    """Three hops in both, one and five in one of them: the slope needs more than one place."""
    xdp = tuple(replace(X3, hops=hops) for hops in (1, 3))
    nft = tuple(replace(X3, mode="nft", attach="", hops=hops) for hops in (3, 5))
    other = compare(run_of(tmp_path, xdp), run_of(tmp_path, nft))["other"]
    assert {cell["hops"] for cell in other["cells"]} == {3}
    assert other["unmatched"] == 2
    assert other["per_hop"] == []
    with pytest.raises(BenchError, match="no cell in common"):
        compare(run_of(tmp_path, xdp[:1]), run_of(tmp_path, nft))


def test_two_runs_that_do_not_agree(tmp_path: Path) -> None:
    other = compare(run_of(tmp_path), run_of(tmp_path, nft=1.5))["other"]
    assert {(pair["a"], pair["b"]) for pair in other["pairs"] if not pair["agree"]} == {
        ("nft", "direct"),
        ("xdp", "nft"),
    }
    verdicts = {(cell["label"], cell["verdict"]) for cell in other["cells"]}
    assert verdicts == {("direct", "~"), ("nft", "faster"), ("xdp", "~")}


def test_too_few_blocks_to_agree(tmp_path: Path) -> None:
    other = compare(run_of(tmp_path), run_of(tmp_path, blocks=5))["other"]
    assert {pair["agree"] for pair in other["pairs"]} == {None}
    assert {line["agree"] for line in other["per_hop"]} == {None}
    assert {cell["verdict"] for cell in other["cells"]} == {"n too small"}
    assert {cell["ci95"] for cell in other["cells"]} == {None}


def test_the_cost_of_a_hop_is_of_hop_counts_that_both_have(tmp_path: Path) -> None:
    more = cross(("nft",), (), (1, 3, 5), (624,), (1,), 100)

    def bent(cell: Cell, block: int) -> dict[str, Any]:
        return connections(50, 100.0 + {1: 10, 3: 30, 5: 500}[cell.hops] + BLOCKS[block])

    first = run_of(tmp_path, more, connections=bent)
    other = compare(first, run_of(tmp_path))["other"]
    line = of(other["per_hop"], metric="response_us")
    assert (line["hops"], line["run"]["slope_us"]) == ([1, 3], pytest.approx(10))
    assert line["agree"] is False


def test_the_larger_noise_floor_of_the_two_decides(tmp_path: Path) -> None:
    twin = replace(X3, twin=True)

    def unlike(cell: Cell, block: int) -> dict[str, Any]:
        factor = (1.4 if block % 2 else 1 / 1.4) if cell.twin else 1.25
        return times_of(factor)(cell, block)

    alone, quiet = run_of(tmp_path), run_of(tmp_path, (*CELLS, twin))
    noisy = run_of(tmp_path, (*CELLS, twin), connections=unlike)
    for runs in ((alone, noisy), (noisy, alone), (quiet, noisy), (noisy, quiet)):
        other = compare(*runs)["other"]
        assert {cell["verdict"] for cell in other["cells"]} == {"~"}


def lost(cell: Cell, block: int) -> Sample:
    """Return a sample of which siege left nothing."""
    return Sample(cell, block, CELLS.index(cell) + 1, START, None)


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    first = run_of(tmp_path)
    untimed = read_run(write_run(tmp_path, CELLS, lambda *_: 1.0, blocks=8))
    nothing = read_run(write_run(tmp_path, CELLS, lost, blocks=8))
    elsewhere = run_of(tmp_path, cross(("nft",), (), (7,), (624,), (1,), 100))
    offloads = run_of(tmp_path, tuple(replace(cell, offloads="native") for cell in CELLS))
    sizes = run_of(tmp_path, tuple(replace(cell, size_bytes=312) for cell in CELLS))
    for second, words in [
        (first, "was to be compared with itself"),
        (read_run(first.path / ".." / first.path.name), "was to be compared with itself"),
        (untimed, f"{untimed.run_id} only siege's clock"),
        (nothing, f"run {nothing.run_id} has no valid sample"),
        (elsewhere, "have no cell in common"),
        (offloads, "have no cell in common"),
        (sizes, "have no cell in common"),
    ]:
        for pair in ((first, second), (second, first)):
            with pytest.raises(BenchError, match=words) as caught:
                compare(*pair)
            assert caught.value.remedy
    copy = read_run(Path(shutil.copytree(first.path, tmp_path / "copy")))
    assert {cell["ratio"] for cell in compare(first, copy)["other"]["cells"]} == {1.0}
    both = compare(untimed, read_run(write_run(tmp_path, CELLS, lambda *_: 2.0, blocks=8)))
    assert {cell["metric"] for cell in both["other"]["cells"]} == {"response_us"}


def test_other_numbers_of_requests(tmp_path: Path) -> None:
    first = run_of(tmp_path)
    for requests, warnings in [
        (100, []),
        (110, []),
        (400, ["4 cells made other numbers of requests a sample: nft through 1 hop 100 and 400"]),
    ]:
        cells = (CELLS[0], *(replace(cell, requests=requests) for cell in CELLS[1:]))
        assert compare(first, run_of(tmp_path, cells))["other"]["warnings"] == warnings


def meta(**changed: Any) -> dict[str, Any]:
    """Return the parts of a run.json that are compared."""
    host = {"data_nic": "eth0", "port": 7000, "xdp_attach": "native"}
    chain = {
        "inventory": "local.ini",
        "client": {**host, "name": "client", "data_ip": "198.18.0.1"},
        "hops": [{**host, "name": f"h{n}", "data_ip": f"198.18.0.{n}"} for n in (2, 3)],
        "server": {**host, "name": "server", "data_ip": "198.18.0.9"},
    }
    facts = {"kernel": "6.1.0", "versions": {"siege": "4.0.7"}}
    document = {
        "versions": {"hopbench": "1.0", "python": "3.11"},
        "git_commit": "a" * 40,
        "chain": chain,
        "host_facts": dict.fromkeys(("client", "h2", "h3", "server"), facts),
    }
    return {**document, **changed}


def hops(*changed: dict[str, Any]) -> dict[str, Any]:
    """Return a chain whose hops have these values, and the others' of the usual one."""
    usual = meta()["chain"]
    return {**usual, "hops": [{**usual["hops"][0], **each} for each in changed]}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (meta(), []),
        (meta(versions={"hopbench": "1.1"}), ["other versions of hopbench: 1.0 and 1.1"]),
        (meta(git_commit="b" * 40), ["other commits of hopbench: aaaaaaaaaaaa and bbbbbbbbbbbb"]),
        (meta(git_commit=None), ["other commits of hopbench: aaaaaaaaaaaa and none"]),
        (meta(chain=hops({})), ["chains of other lengths: 2 and 1 hops"]),
        (
            meta(chain=hops({"data_nic": "ens4"}, {"data_nic": "ens4", "nat_flows": 9})),
            ["hop 1, hop 2: data_nic eth0 and ens4", "hop 2: nat_flows none and 9"],
        ),
        (meta(chain=hops({"name": "x", "data_ip": "198.18.7.7"}, {})), []),
        (meta(chain=hops({"data_ip": "fd00::1"}, {})), ["IPv4 in the one and IPv6 in the other"]),
        # Whatever JSON has in its place.
        (meta(chain={}), []),
        (meta(chain={"hops": 3, "client": [], "server": None}), []),
        (meta(chain=hops({"data_ip": 5, "port": [1]}, {})), ["hop 1: port 7000 and [1]"]),
        (meta(versions={}), ["other versions of hopbench: 1.0 and none"]),
    ],
)
def test_what_differs(other: dict[str, Any], said: list[str]) -> None:
    assert differing(meta(), other) == said


def test_host_facts_that_differ() -> None:
    """By what hosts are in the chain, as another chain's have other names."""
    renamed = json.loads(json.dumps(meta()).replace('"h2"', '"vm2"'))
    assert differing(meta(), renamed) == []
    renamed["host_facts"]["vm2"]["kernel"] = "6.12.0"
    renamed["host_facts"]["vm2"]["versions"] = {"siege": "4.1.6"}
    said = differing(meta(), renamed)
    assert len(said) == 2
    for line, values in zip(said, (("6.1.0", "6.12.0"), ("4.0.7", "4.1.6")), strict=True):
        assert "hop 1" in line
        assert all(value in line for value in values)
    assert differing(meta(host_facts={}), meta()) == []
