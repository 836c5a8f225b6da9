# SPDX-License-Identifier: Apache-2.0
"""A document as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench import __version__
from bench.report.document import Document, Figure, Item, Table, Words

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_LARGE = 2
"""How many sentences of the verdict are in large type; the others are folded."""

_INTERVAL = re.compile(r"(\S{1,12} \[[^\[\]]{1,32}\](?: µs)?)")
_SMALLEST = 0.53
"""How far a drawing may shrink: its texts of 16 pixels are then of 8."""


def render(document: Document) -> str:
    """Return the page.

    Its one script is allowed by its hash, so that no other can run, whatever a run directory from
    somebody else has for names; nothing is fetched from anywhere.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(csv_uri=_csv_uri, inline=_inline, kept=_kept, least=_least)
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    style = environment.get_template("page.css").render()
    return environment.get_template("report.html.j2").render(
        document=document,
        large=list(document.verdict[:_LARGE]),
        folded=list(document.verdict[_LARGE:]),
        sections=[(section, list(_grouped(section.items))) for section in document.sections],
        policy=_policy(script),
        script=Markup(script),
        style=Markup(style),
        version=__version__,
    )


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def _grouped(items: Sequence[Item]) -> Iterator[tuple[str, list[Item]]]:
    """Yield each item with its kind; figures that follow each other as one group."""
    group: list[Item] = []
    for item in items:
        if isinstance(item, Figure):
            group.append(item)
            continue
        if group:
            yield "figures", group
            group = []
        yield _kind(item), [item]
    if group:
        yield "figures", group


def _kind(item: Item) -> str:
    if isinstance(item, Table):
        return "table"
    return "words" if isinstance(item, Words) else "facts"


def _csv_uri(text: str) -> str:
    """Return data as a link that works without a file beside the page."""
    data = text.encode("utf-8", "backslashreplace")
    return "data:text/csv;charset=utf-8," + quote(data, safe=",;:/()*!~'@$")


def _inline(figure: Figure) -> Markup:
    """Return a figure's drawing as a part of the page, with what it shows said in words."""
    opening, end, content = figure.svg.partition(">")
    if "aria-label=" not in opening:
        opening += Markup(' role="img" aria-label="{}"').format(figure.alt)
    return Markup(opening) + Markup(end + content)


def _kept(text: str) -> Markup:
    """Return a text with its intervals and their units each on one line."""
    parts = _INTERVAL.split(text)
    return Markup("").join(
        Markup('<span class="kept">{}</span>').format(part) if place % 2 else part
        for place, part in enumerate(parts)
    )


def _least(figure: Figure) -> Markup:
    """Return the width below which a drawing is scrolled, since nobody could read it."""
    found = re.match(r'<svg [^>]*?width="(\d+)', figure.svg)
    return Markup(f"{int(found[1]) * _SMALLEST:.0f}px" if found else "0")
