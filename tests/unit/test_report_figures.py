# SPDX-License-Identifier: Apache-2.0
"""A run's plots: what is drawn of made-up runs with known answers, and of runs without much."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from synthetic import connections, read_run, write_run

from bench import tables
from bench.cells import Cell
from bench.measured import measured
from bench.report import cputime, drift, figures, legacy_figures, series
from bench.report.document import Figure, Section, Table, Words
from bench.report.evidence import Evidence
from bench.report.spread import spread_of

NAMES = ("per-hop", "hops", "size", "distribution", "connect", "concurrency", "cpu", "drift")
DIRECT = Cell("direct", "", 0, 624, 1, 100)
COST_US = {"direct": 0.0, "nft": 25.0, "xdp": 4.0, "socat": 500.0}


def cells(
    modes: Iterable[str], hops: Iterable[int], sizes: Iterable[int] = (624,), users: int = 1
) -> list[Cell]:
    """Return a sweep's cells; direct has no hops."""
    counts, all_sizes = list(hops), list(sizes)
    return [
        Cell(mode, "native" if mode == "xdp" else "", count, size, users, 100)
        for mode in modes
        for count in ([0] if mode == "direct" else counts)
        for size in all_sizes
    ]


def times(cell: Cell, block: int) -> dict[str, Any]:
    """Return 100 µs, what each hop adds, and 1 µs a block, the same for all connections."""
    us = 100 + COST_US.get(cell.mode, 50.0) * cell.hops + block
    return connections(40, us, users=cell.concurrency)


def written(tmp_path: Path, sweep: Sequence[Cell], blocks: int = 6, **changes: Any) -> Path:
    """Return a run's folder."""
    changes.setdefault("connections", times)
    return write_run(tmp_path, sweep, lambda _cell, _block: 1.0, blocks=blocks, **changes)


def drawn(path: Path) -> dict[str, Section]:
    """Return the sections of a run by name."""
    return {each.name: each for each in figures.sections(Evidence.of(read_run(path)))}


def pictures(sections: Mapping[str, Section]) -> list[Figure]:
    """Return all figures of sections."""
    return [item for each in sections.values() for item in each.items if isinstance(item, Figure)]


def csv(found: Figure) -> pd.DataFrame:
    """Return a figure's data."""
    return pd.read_csv(io.StringIO(found.csv))


def count(
    path: Path, hosts: Mapping[str, str], ticks: Callable[[str], Mapping[str, float]]
) -> None:
    """Give every sample of a run counters, and every host a boot id of its own."""
    run = read_run(path)
    for sample in run.samples["sample"]:
        rows = [{"host": host, "role": role, **ticks(host)} for host, role in hosts.items()]
        tables.add_counters(path, sample, rows)
    tables.join(path)
    meta = json.loads((path / "run.json").read_text())
    meta["host_facts"] = {host: {"boot_id": host} for host in hosts}
    (path / "run.json").write_text(json.dumps(meta))


FULL = {
    "sweep": cells(("direct", "nft", "xdp", "socat"), (1, 3), (624, 9984))
    + cells(("nft", "xdp"), (3,), (624,), users=25),
    "blocks": 6,
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Section]:
    """The sections of a run with something for each of them."""
    path = written(tmp_path_factory.mktemp("run"), **FULL)
    hosts = {"alice": "client", "h1": "hop", "bob": "server"}
    count(path, hosts, lambda _host: {"cpu_user_s": 0.01, "cpu_softirq_s": 0.03, "cpu_steal_s": 1})
    return drawn(path)


def test_every_section_has_a_figure(full: dict[str, Section]) -> None:
    assert list(full) == [*NAMES, "figures-2022"]
    for section in full.values():
        assert any(isinstance(item, Figure) for item in section.items), section.name


def test_names_and_ids_are_one_of_a_kind(full: dict[str, Section]) -> None:
    found = pictures(full)
    names = [each.name for each in found]
    assert len(set(names)) == len(names) > 12
    ids = [id_ for each in found for id_ in re.findall(r'\bid="([^"]+)"', each.svg)]
    assert len(set(ids)) == len(ids)


def test_figures_keep_the_contract(full: dict[str, Section]) -> None:
    for each in pictures(full):
        root = ElementTree.fromstring(each.svg)
        assert float(root.get("width", "")) > 0 and float(root.get("height", "")) > 0
        sizes = [float(size) for size in re.findall(r"font-size:([\d.]+)px", each.svg)]
        assert min(sizes) >= 11, each.name
        assert "#1b2026" not in each.svg and "#ffffff" not in each.svg
        assert each.png.startswith(b"\x89PNG") and each.title and not csv(each).empty
        assert re.search(r"\d", each.alt), each.name
        assert re.search(r"n = [\d,]+|of \d+ samples", each.caption), each.name


def test_axes_name_their_units(full: dict[str, Section]) -> None:
    units = {
        "per-hop": ["µs per hop"],
        "hops": ["hops", "response time, µs"],
        "size": ["size of a response", "response time, µs", "624 B"],
        "distribution-624-1": ["response time, µs", "50 %"],
        "connect": ["response time, µs", "connect time, µs"],
        "concurrency": ["connections at a time", "transactions/s", "Mbit/s"],
        "cpu": ["CPU time a transaction, µs"],
        "drift": ["block", "ratio to the cell's median"],
        "legacy-direct": ["100 requests, ms"],
    }
    found = {each.name: each.svg for each in pictures(full)}
    for name, words in units.items():
        shown = " | ".join(re.findall(r"<text[^>]*>([^<]*)</text>", found[name]))
        assert all(word in shown for word in words), (name, shown)


def test_all_of_it_is_small(full: dict[str, Section]) -> None:
    assert sum(len(each.svg) + len(each.csv) for each in pictures(full)) < 2e6


def test_cost_of_a_hop(full: dict[str, Section]) -> None:
    (found,) = pictures({"": full["per-hop"]})
    rows = csv(found).set_index(["label", "size_bytes"])
    assert rows.loc[("nft", 624), ["slope_us", "lo_us", "hi_us"]].tolist() == pytest.approx(
        [25] * 3
    )
    assert set(rows["n"]) == {6} and set(rows["concurrency"]) == {1}
    assert "XDP 4.0 µs per hop [4.0, 4.0] at 624 bytes" in found.alt
    assert "logarithmic" in found.caption and "n = 6 blocks" in found.caption
    assert {"500 µs", "25.0 µs", "4.0 µs"} <= set(re.findall(r">([^<]* µs)<", found.svg))


def test_response_against_hops(full: dict[str, Section]) -> None:
    (found,) = pictures({"": full["hops"]})
    rows = csv(found).set_index(["label", "hops", "size_bytes"])
    assert rows.loc[("xdp", 3, 624), "response_us"] == pytest.approx(115.5)
    assert rows.loc[("direct", 0, 624), "response_us"] == pytest.approx(103.5)
    low, high = rows.loc[("xdp", 3, 624), ["response_lo_us", "response_hi_us"]]
    assert 113 <= low < 115.5 < high <= 118


def test_distribution(tmp_path: Path) -> None:
    def spread(_cell: Cell, block: int) -> dict[str, Any]:
        found = connections(1000, 100.0, failed=5)
        found["response_us"][:995] = np.arange(1, 996) + (block - 1) * 995
        return found

    path = written(tmp_path, [DIRECT], blocks=2, warmups=True, connections=spread)
    (found,) = pictures({"": drawn(path)["distribution"]})
    rows = csv(found)
    assert len(rows) <= 400 and set(rows["connections"]) == {1990}
    assert rows["response_us"].iloc[[0, -1]].tolist() == [1, 1990]
    assert rows["share"].is_monotonic_increasing and rows["response_us"].is_monotonic_increasing
    middle = np.interp([0.5, 0.9, 0.99], rows["share"], rows["response_us"])
    assert middle == pytest.approx([995.5, 1791.1, 1970.1], abs=0.6)
    assert "50 % in 996 µs" in found.alt


def test_spread_leaves_out_what_no_statistic_has(tmp_path: Path) -> None:
    twin = Cell("direct", "", 0, 624, 1, 100, twin=True)
    path = written(tmp_path, [DIRECT, twin], blocks=3, warmups=True)
    found = spread_of(read_run(path))
    assert found.cells["samples"].tolist() == [3] and found.cells["connections"].tolist() == [120]
    assert found.samples["response_median_us"].tolist() == [101, 102, 103]
    assert found.cells["connect_median_us"].tolist() == [51]
    assert found.cells["response_low_us"].tolist() == [101]


def test_rates(full: dict[str, Section]) -> None:
    (found,) = pictures({"": full["concurrency"]})
    rows = csv(found).set_index(["label", "size_bytes", "concurrency"])
    assert set(rows["hops"]) == {0, 3}
    rate = rows.loc[("nft", 624, 1), "transactions_per_s"]
    assert rate == pytest.approx(1e6 / 178.5, rel=0.001)
    assert rows.loc[("nft", 624, 1), "throughput_mbps"] == pytest.approx(rate * 624 * 8 / 1e6)


def test_cpu_by_host_and_kind(tmp_path: Path) -> None:
    sweep = cells(("direct", "xdp"), (1,))
    path = written(tmp_path, sweep)
    hosts = {"alice": "client", "h1": "hop", "bob": "server"}

    def ticks(host: str) -> dict[str, float]:
        return {"cpu_user_s": 0.01, "cpu_softirq_s": 0.02 * (host == "h1"), "cpu_steal_s": 0.5}

    count(path, hosts, ticks)
    rows = cputime.frame(read_run(path)).set_index(["hosts", "label"])
    assert list(dict.fromkeys(rows.index.get_level_values(0))) == list(hosts)
    found = rows.loc[("h1", "xdp")]
    assert found["user_us"] == pytest.approx(100) and found["softirq_us"] == pytest.approx(200)
    assert found[["total_us", "lo_us", "hi_us"]].tolist() == pytest.approx([300] * 3)
    assert found["steal_us"] == pytest.approx(5000) and found["n"] == 6
    assert rows.loc[("bob", "xdp"), "total_us"] == pytest.approx(100)


def _meta(boots: Mapping[str, str | None]) -> dict[str, Any]:
    names = [{"name": host} for host in boots]
    return {
        "chain": {"client": names[0], "hops": names[1:-1], "server": names[-1]},
        "host_facts": {host: {"boot_id": boot} for host, boot in boots.items()},
    }


HOPS = [f"h{number}" for number in range(1, 10)]


@pytest.mark.parametrize(
    ("boots", "titles"),
    [
        ({"a": "x", "h1": "x", "b": "x"}, ["all hosts together (they share these CPUs)"]),
        ({"a": "x", "h1": "y", "b": "z"}, ["a", "h1", "b"]),
        ({"a": None, "h1": None, "b": None}, ["a", "h1", "b"]),
        ({"a": "x", "h1": "y", "b": "x"}, ["a, b (they share these CPUs)", "h1"]),
        (
            {"a": "a", **{host: host for host in HOPS}, "b": "b"},
            ["a", "a hop, mean of 9 hosts", "b"],
        ),
    ],
)
def test_hosts_that_share_cpus_are_shown_once(
    boots: dict[str, str | None], titles: list[str]
) -> None:
    order = list(boots)
    roles = dict.fromkeys(order, "hop") | {order[0]: "client", order[-1]: "server"}
    assert [each.title for each in cputime.machines(_meta(boots), roles)] == titles
    assert [each.title for each in cputime.machines({}, {"a": "client"})] == ["a"]


def test_drift_shows_what_crept(tmp_path: Path) -> None:
    def slower(cell: Cell, block: int) -> dict[str, Any]:
        return connections(20, (100 + cell.hops) * (1 + 0.1 * block))

    path = written(tmp_path, cells(("xdp",), range(1, 8)), blocks=3, connections=slower)
    ratios = drift.frame(measured(read_run(path)))
    found = drift.by_block(ratios)
    assert found["ratio"].tolist() == pytest.approx([1.1 / 1.2, 1.0, 1.3 / 1.2])
    assert found["n"].tolist() == [7, 7, 7]
    assert found["lo"].tolist() == pytest.approx(found["ratio"].tolist())
    assert drift.by_block(ratios, 2)["block"].tolist() == [1, 3]


RUNS: dict[str, dict[str, Any]] = {
    "one mode, one hop, one block": {"sweep": cells(("xdp",), (1,)), "blocks": 1},
    "only direct": {"sweep": [DIRECT]},
    "one of four blocks": {"sweep": cells(("nft",), (1, 2)), "status": "interrupted", "blocks": 4},
    "without connection times": {"sweep": cells(("nft",), (1, 2)), "connections": None},
    "25 at a time": {"sweep": cells(("direct", "nft"), (1, 2), users=25)},
    "64 hops": {"sweep": cells(("nft",), range(1, 65)), "blocks": 2},
    "from 5 µs to 5 s": {
        "sweep": cells(("direct", "socat"), (1, 4), (312, 2555904)),
        "connections": lambda cell, _block: connections(9, 5.0 if not cell.hops else 5e6),
    },
    "costs below nothing": {
        "sweep": cells(("nft", "xdp"), (1, 2)),
        "connections": lambda cell, block: connections(9, 200.0 - 9 * cell.hops + block),
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_every_shape_of_run_is_drawn(name: str, tmp_path: Path) -> None:
    found = drawn(written(tmp_path, **RUNS[name]))
    assert list(found) == [*NAMES, "figures-2022"]
    assert pictures(found)
    for section in found.values():
        for item in section.items:
            if isinstance(item, Words):
                assert len(item.paragraphs) == 1 and item.paragraphs[0].endswith(".")
            elif isinstance(item, Figure):
                ElementTree.fromstring(item.svg)
                assert "nan" not in item.alt and "nan" not in item.svg


@pytest.mark.parametrize("failed", [False, True])
def test_a_run_with_nothing_to_draw_says_so(failed: bool, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"blocks": 0}
    if failed:
        lost = connections(9, 100.0, failed=9)
        changes = {"blocks": 2, "connections": lambda _cell, _block: lost}
    found = drawn(written(tmp_path, cells(("xdp",), (1,)), **changes))
    assert not pictures(found)
    assert all(isinstance(section.items[0], Words) for section in found.values())


def test_few_samples_have_no_interval(tmp_path: Path) -> None:
    found = drawn(written(tmp_path, cells(("nft",), (1, 2)), blocks=5))
    (figure,) = pictures({"": found["hops"]})
    assert csv(figure)["response_lo_us"].isna().all()
    assert "n = 5 samples: an interval takes 6" in figure.caption


def test_hostile_names_are_texts(tmp_path: Path) -> None:
    """A mode is a word, or the run is refused; a host may be called anything."""
    name = "$\\frac{1}$</text><script>x\x1b\u202e&\"'"
    path = written(tmp_path, cells(("nft",), (1, 2)))
    count(path, {"<b>$x$": "client", name: "hop"}, lambda _host: {"cpu_user_s": 0.1})
    found = drawn(path)
    for each in pictures(found):
        root = ElementTree.fromstring(each.svg)
        assert not [node for node in root.iter() if node.tag in ("script", "b", "style")]
        texts = [each.alt, each.caption, each.title, *(node.text or "" for node in root.iter())]
        assert all(text.isprintable() for text in texts)


def points(rows: Sequence[tuple[str, int, int, float]], n: int = 10) -> pd.DataFrame:
    """Return points of the 2022 report's figures."""
    return pd.DataFrame(
        [(*row, row[3] * 0.9, row[3] * 1.1, n) for row in rows],
        columns=list(legacy_figures.COLUMNS),
    )


def test_the_reports_figures_of_a_run(full: dict[str, Section]) -> None:
    found = {item.name: item for item in full["figures-2022"].items if isinstance(item, Figure)}
    assert {"legacy-direct", "legacy-against"} <= set(found)
    assert {f"legacy-hops-{mode}" for mode in ("xdp", "nft", "socat")} <= set(found)
    assert set(csv(found["legacy-against"])["label"]) == {"xdp", "socat"}
    assert "k - 1 forwarders" in found["legacy-against"].caption
    rows = csv(found["legacy-direct"]).set_index("size_bytes")
    assert rows.loc[624, "elapsed_s"] == pytest.approx(100 * 103.5e-6, rel=0.001)
    assert rows.loc[624, "lo_s"] < rows.loc[624, "elapsed_s"] < rows.loc[624, "hi_s"]


def test_table_1_has_sizes_down_and_modes_across() -> None:
    rows = [("socat", k, 78 * 2**i, k + i / 100) for k in (1, 2) for i in (3, 2)]
    found = legacy_figures.table(points([*rows, ("xdp", 2, 312, 43.08)]), "seed")
    assert [column.title for column in found.columns] == [
        "file i",
        "size, bytes",
        "1 forwarder: socat, s",
        "2 forwarders: XDP, s",
        "2 forwarders: socat, s",
    ]
    shown = [[entry.text for entry in row] for row in found.rows]
    assert shown == [["2", "312", "1.020", "43.08", "2.020"], ["3", "624", "1.030", "", "2.030"]]
    assert found.rows[0][3].value == 43.08 and "n = 10" in found.rows[0][3].note
    assert len(pd.read_csv(io.StringIO(found.csv))) == 5


@pytest.mark.parametrize(
    ("size_bytes", "i"), [(312, 2), (2555904, 15), (78, 0), (79, None), (39, None), (0, None)]
)
def test_the_reports_file_numbers(size_bytes: int, i: int | None) -> None:
    assert legacy_figures.file_number(size_bytes) == i


def test_the_reports_figures_take_what_there_is() -> None:
    assert legacy_figures.items(points([])) == []
    one = points([("nft", 1, 312, 0.1)])
    assert legacy_figures.direct(one) is None and legacy_figures.against(one) is None
    names = [item.name for item in legacy_figures.items(one, "mine") if not isinstance(item, Words)]
    assert names == ["mine-hops-nft", "mine-table-1"]
    assert isinstance(legacy_figures.items(one)[-1], Table)


def test_more_chains_than_panels_are_said() -> None:
    rows = [(mode, k, 312, 0.1 * k) for mode in ("socat", "xdp") for k in range(1, 13)]
    found = legacy_figures.against(points(rows))
    assert found is not None and "4 numbers of forwarders" in found.caption
    assert csv(found)["forwarders"].nunique() == 8


def test_words_for_n() -> None:
    assert series.n_words([6, 6], [1.0, 2.0]) == "Median of n = 6 samples, with its 95 % interval."
    assert "3 to 6" in series.n_words([3, 6], [math.nan, 2.0])
    assert "where there are 6" in series.n_words([3, 6], [math.nan, 2.0])
    assert series.n_words([1], [math.nan], "block") == "Median of n = 1 block: an interval takes 6."
