# SPDX-License-Identifier: Apache-2.0
"""What a report consists of, before it is a page: sections of figures, tables and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """A plot or diagram, and the data it shows.

    name: its file's stem, of a-z, 0-9 and -, one of a kind in a document. svg: an `<svg>` element
    with width, height and viewBox, its ids beginning with the name, its colours for text, axes and
    grid taken from the page. png: the same for print, empty where there is none. alt: what
    somebody is told who does not see it. caption: what is drawn, with n and intervals. csv: the
    data, with a header line.
    """

    name: str
    title: str
    svg: str
    png: bytes
    alt: str
    caption: str
    csv: str


@dataclass(frozen=True)
class Column:
    """A table's column; numeric ones are set to the right and sorted by number."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Entry:
    """A table's entry: what is shown, and what it is sorted by where that is not the text."""

    text: str
    value: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted. csv: its data, with a header line."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Entry]]
    csv: str
    caption: str = ""


@dataclass(frozen=True)
class Words:
    """Paragraphs, each with its evidence as a list below it."""

    paragraphs: Sequence[str]
    evidence: Sequence[str] = ()
    kind: str = "plain"
    """`plain`, `verdict`, `warning` or `code`, which keeps its lines."""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    title: str
    items: Sequence[tuple[str, str]]


Item = Figure | Table | Words | Facts


@dataclass(frozen=True)
class Section:
    """A part of the page. name: of a-z, 0-9 and -; one of a kind in a document."""

    name: str
    title: str
    items: Sequence[Item] = field(default=())


@dataclass(frozen=True)
class Document:
    """A page: title, a line below it, the verdict on top, and sections."""

    title: str
    subtitle: str
    verdict: Sequence[str]
    sections: Sequence[Section]
