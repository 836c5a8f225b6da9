# SPDX-License-Identifier: Apache-2.0
"""A run's plots, section by section, with a sentence where the run has nothing to draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bench import timings
from bench.report import curves, legacy_figures, series
from bench.report.document import Item, Section, Words
from bench.report.evidence import Evidence
from bench.sentences import counted

if TYPE_CHECKING:
    import pandas as pd


def sections(evidence: Evidence) -> list[Section]:
    """Return all sections of plots: the run's own, then the 2022 report's drawn from the run.

    Raises BenchError when one of the run's files is damaged.
    """
    # What is drawn from connections, counters and blocks takes longer to import and to read.
    from bench.report import cputime, distribution, drift, kept

    run = evidence.run
    frame, costs = series.cells(evidence.comparison), series.costs(evidence.comparison)
    spread = kept.read(run)
    nothing = "There is no valid sample to draw."
    no_cost = "The cost of a hop takes a mode that was measured over two hop counts or more."
    no_times = (
        "The run was kept without its single connections: what is known of them in each sample is "
        "in the tables."
        if timings.known(run.path)
        else "The run has no times of single connections."
    )
    none = nothing if frame.empty else ""
    return [
        _section("per-hop", "What a hop costs", [curves.costs(costs)], none or no_cost),
        _section(
            "hops",
            "Response time against hops",
            [curves.hops(frame)],
            none or "Nothing was measured through a hop.",
        ),
        _section("size", "Response time against size", [curves.size(frame)], none or _one(frame)),
        _section(
            "distribution",
            "Distribution of response times",
            distribution.distributions(spread),
            none or no_times,
        ),
        _section(
            "connect",
            "Connect time against response time",
            [distribution.connects(spread)],
            none or no_times,
        ),
        _section("concurrency", "Throughput and rate", [curves.concurrency(frame)], nothing),
        _section(
            "cpu",
            "CPU time of a transaction",
            [cputime.cpu(run)],
            "The run has no counters of CPU time beside a valid sample.",
        ),
        _section("drift", "Block by block", [drift.drift(run)], none or drift.ONE_BLOCK),
        _section(
            "figures-2022",
            "The 2022 report's figures, from this run",
            legacy_figures.items(legacy_figures.of_run(evidence.comparison)),
            "The 2022 report's figures take cells with one connection at a time.",
        ),
    ]


def _section(name: str, title: str, found: Iterable[Item | None], otherwise: str) -> Section:
    items = [each for each in found if each is not None]
    return Section(name, title, items or [Words([otherwise])])


def _one(frame: pd.DataFrame) -> str:
    sizes = series.distinct(frame, "size_bytes")
    return f"The run has one size, {counted(sizes[0], 'byte')}: there is no curve over sizes."
