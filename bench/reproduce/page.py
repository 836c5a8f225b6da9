# SPDX-License-Identifier: Apache-2.0
"""The page of a reproduction: the report's table, what it is made again, and why it is so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report.document import Document, Item, Section, Words
from bench.report.files import write
from bench.reproduce import answer, bounds, counters, table1
from bench.reproduce.corrections import arithmetic, corrections
from bench.reproduce.examined import Examined

if TYPE_CHECKING:
    from bench.reproduce.record import Reproduction

FILE = "reproduce.html"
TITLE = "The 2022 experiment, made again"


def make(reproduction: Reproduction) -> Path:
    """Write the page and its plots into the reproduction's folder; return the page's path.

    Parts that are missing, or without figures, are said to be so. Raises BenchError for damaged
    files, and when the folder cannot be written to.
    """
    return write(reproduction.path, FILE, document(Examined.of(reproduction)))


def document(examined: Examined) -> Document:
    """Return the page's content."""
    from bench.reproduce import plots

    figures, reason, chain = answer.told(examined)
    return Document(
        title=TITLE,
        subtitle=bounds.subtitle(examined.meta),
        verdict=[figures, f"{reason} {chain}"],
        sections=[
            table1.section(examined),
            *plots.sections(examined),
            _diagnosis(examined, plots.connect_times(examined.tallies)),
            arithmetic(examined),
            corrections(examined),
            bounds.section(examined.meta),
        ],
    )


def _diagnosis(examined: Examined, drawn: Sequence[Item]) -> Section:
    reasons = [Words([each.text], each.evidence) for each in examined.findings]
    shown = counters.tables(examined.tallies)
    return Section("diagnosis", "Why the filter took so long", [*drawn, *reasons, *shown])
