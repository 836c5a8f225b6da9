# SPDX-License-Identifier: Apache-2.0
"""Which of a run's cells are drawn where a sweep is no grid: those that make a curve."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from synthetic import connections, read_run, write_run

from bench.cells import Cell
from bench.report import figures, legacy_figures, marks, style
from bench.report.document import Figure, Section
from bench.report.evidence import Evidence
from bench.report.panels import arrange, sheet

SIZES = (312, 624, 9984, 39936, 159744, 2555904)
WITH_ALL_HOPS = 624
WITH_LOAD = (624, 159744)


def _cells() -> list[Cell]:
    """Return a sweep like that of the reference run: one size with all hops, two with load."""
    places = [(size, hops, 1) for size in SIZES for hops in (1, 3, 5)]
    places += [(WITH_ALL_HOPS, hops, 1) for hops in (2, 4)]
    places += [(size, 5, users) for size in WITH_LOAD for users in (5, 25)]
    found = [Cell("xdp", "native", hops, size, users, 100) for size, hops, users in places]
    return [*found, *(Cell("direct", "", 0, size, 1, 100) for size in SIZES)]


@pytest.fixture(scope="module", name="drawn")
def _drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Section]:
    path = write_run(
        tmp_path_factory.mktemp("run"),
        _cells(),
        lambda _cell, _block: 1.0,
        blocks=2,
        connections=lambda cell, block: connections(
            40, 100.0 + block + 5 * cell.hops + cell.size_bytes / 100, users=cell.concurrency
        ),
    )
    return {each.name: each for each in figures.sections(Evidence.of(read_run(path)))}


def _figures(section: Section) -> list[Figure]:
    return [each for each in section.items if isinstance(each, Figure)]


def _data(found: Figure) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(found.csv))


def test_rates_are_of_the_sizes_with_several_loads(drawn: dict[str, Section]) -> None:
    (found,) = _figures(drawn["concurrency"])
    data = _data(found)
    assert set(data["size_bytes"]) == set(WITH_LOAD)
    assert set(data["concurrency"]) == {1, 5, 25}
    assert "Drawn are 2 of 6 sizes, without 312, 9,984, 39,936, 2,555,904." in found.caption


def test_a_curve_over_sizes_has_several(drawn: dict[str, Section]) -> None:
    (found,) = _figures(drawn["size"])
    assert set(_data(found)["hops"]) == {0, 1, 3, 5}
    assert "Drawn are 3 of 5 hop counts, without 2, 4." in found.caption


def test_distributions_are_at_every_hop_count_and_under_load(drawn: dict[str, Section]) -> None:
    found = _figures(drawn["distribution"])
    names = ["distribution-624-1", "distribution-2555904-1", "distribution-624-25"]
    assert [each.name for each in found] == names
    counts = [set(_data(each)["hops"]) for each in found]
    assert counts == [{0, 1, 2, 3, 4, 5}, {0, 1, 3, 5}, {5}]


def test_an_axis_of_sizes_is_named_at_both_ends() -> None:
    points = pd.DataFrame(
        [
            ("xdp", forwarders, size, 0.1 + size / 1e7, float("nan"), float("nan"), 1)
            for forwarders in (0, 1, 2, 3, 4)
            for size in (78 * 2**i for i in range(2, 16))
        ],
        columns=list(legacy_figures.COLUMNS),
    )
    socat = points.assign(label="socat", elapsed_s=1.0)
    drawn = [
        legacy_figures.against(pd.concat([points, socat])),
        legacy_figures.by_hops(points, "xdp"),
    ]
    for each in drawn:
        assert each is not None
        assert "312 B" in each.svg and "2.56 MB" in each.svg


@pytest.mark.parametrize("places", [[1, 2, 3, 4, 1000], [1, 997, 998, 999, 1000], [7]])
def test_names_of_both_ends_stay_where_there_is_no_room(places: list[int]) -> None:
    with style.rc():
        found = sheet(1)
        (ax,) = found.panels
        marks.scale([ax], "x", [1, 1000], log=False)
        ax.set_xticks(places, [f"number {each}" for each in places])
        arrange(found)
    ends = [f"number {each}" for each in (*places[:1], *places[-1:])]
    assert [each.get_text() for each in ax.get_xticklabels()] == list(dict.fromkeys(ends))
