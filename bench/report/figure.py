# SPDX-License-Identifier: Apache-2.0
"""From a matplotlib figure to one of a document: SVG with the page's colours, PNG and CSV.

What matplotlib writes is parsed and written anew, so that nothing in it reaches beyond its own
element: ids begin with the figure's name, there is no style sheet, and texts are texts.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from bench.report import style
from bench.report.document import Figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Plot

PIXELS_A_POINT = 1.5
"""How large a plot is shown where there is room: a text of 11 points is then 16 pixels high."""

PNG_DPI = 200

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_XLINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_URL = re.compile(r"url\(#([^)]+)\)")
_FAMILY = re.compile(r"font-family: [^;]*;?\s*")
_UPRIGHT = re.compile(r"rotate\(-?0 [^)]*\)")
_VARIABLE = re.compile(r"var\((--[a-z]+)\)")
_HEX = re.compile("|".join(style.VARIABLES), re.IGNORECASE)
_DROPPED = ("metadata", "style", "title")
_MEASURES = ("d", "x", "y", "points", "transform", "width", "height", "cx", "cy", "r")


def figure(
    name: str, title: str, plot: Plot, alt: str, caption: str, frame: pd.DataFrame
) -> Figure:
    """Return a plot as a document has it.

    name: of a-z, 0-9 and -. plot: drawn inside `style.rc`. frame: the data that is drawn, which
    becomes the CSV. The same plot gives the same files, byte for byte. Raises ValueError for a
    name of other characters.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a figure's name")
    # matplotlib takes the better part of a second to import.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for text in plot.findobj(Text):
        if isinstance(text, Text):
            text.set_text("\n".join(clean(line) for line in text.get_text().split("\n")))
            text.set_parse_math(False)
    svg, png = io.BytesIO(), io.BytesIO()
    with style.rc():
        matplotlib.rcParams["svg.hashsalt"] = name
        FigureCanvasAgg(plot)
        plot.savefig(svg, format="svg", metadata={"Date": None})
        plot.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return Figure(
        name=name,
        title=clean(title),
        svg=_inline(svg.getvalue(), name, clean(alt)),
        png=png.getvalue(),
        alt=clean(alt),
        caption=clean(caption),
        csv=as_csv(frame),
    )


def as_csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV with a header line; figures to the last digit, nothing for none."""
    words = {
        name: frame[name].map(lambda value: clean(value) if isinstance(value, str) else value)
        for name in frame.columns
        if frame[name].dtype.kind not in "fiub"
    }
    return frame.assign(**words).to_csv(index=False, lineterminator="\n")


def standalone(found: Figure) -> str:
    """Return a figure's SVG as a file of its own: dark on white, in any viewer."""
    light = {variable: colour for colour, variable in style.VARIABLES.items()}
    root = ElementTree.fromstring(found.svg)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    for each in root.iter():
        if "style" in each.attrib:
            each.set("style", _VARIABLE.sub(lambda match: light[match[1]], each.attrib["style"]))
    root.set("style", f"{root.get('style', '')};font-family:{style.FONT_FAMILY}".lstrip(";"))
    _, _, width, height = root.get("viewBox", "0 0 0 0").split()
    paper = {"width": width, "height": height, "style": f"fill:{style.PAPER}"}
    root.insert(0, ElementTree.Element("rect", paper))
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def clean(text: str) -> str:
    """Return a text without characters that do not show but do something."""
    return "".join(each if each.isprintable() else " " for each in text)


def slug(text: str) -> str:
    """Return a text as part of a figure's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "x"


def _inline(svg: bytes, name: str, alt: str) -> str:
    root = ElementTree.fromstring(svg)
    used = set(_references(root))
    tidy = _tidied(root, name, used)
    _, _, width, height = (float(each) for each in root.get("viewBox", "").split())
    tidy.attrib = {
        "role": "img",
        "aria-label": alt,
        "width": f"{width * PIXELS_A_POINT:.0f}",
        "height": f"{height * PIXELS_A_POINT:.0f}",
        "viewBox": f"0 0 {width:g} {height:g}",
        "style": "max-width:100%;height:auto;stroke-linejoin:round",
    }
    return ElementTree.tostring(tidy, encoding="unicode")


def _references(root: ElementTree.Element) -> Iterator[str]:
    for each in root.iter():
        for key, value in each.attrib.items():
            if key == _XLINK:
                yield value.removeprefix("#")
            yield from _URL.findall(value)


def _tidied(element: ElementTree.Element, name: str, used: set[str]) -> ElementTree.Element:
    """Return an element without namespaces, unused ids, groups of nothing and long numbers."""
    found = ElementTree.Element(element.tag.rpartition("}")[2])
    for key, value in element.attrib.items():
        if key == "id":
            if value in used:
                found.set("id", f"{name}-{value}")
        elif key == _XLINK:
            found.set("href", f"#{name}-{value.removeprefix('#')}")
        elif text := _attribute(key, value, name):
            found.set(key, text)
    found.text = element.text if element.text and element.text.strip() else None
    for child in element:
        if child.tag.rpartition("}")[2] in _DROPPED:
            continue
        if child.get("id") == "patch_1":  # the figure's paper, which is the page's own
            continue
        tidy = _tidied(child, name, used)
        if tidy.tag == "g" and not tidy.attrib:
            found.extend(list(tidy))
        elif tidy.tag not in ("g", "defs") or len(tidy):
            found.append(tidy)
    return found


def _attribute(key: str, value: str, name: str) -> str:
    if key == "style":
        value = _FAMILY.sub("", value)
        value = _HEX.sub(lambda match: f"var({style.VARIABLES[match[0].lower()]})", value)
        value = value.replace(": ", ":").replace("; ", ";").rstrip("; ")
    elif key == "transform":
        value = _UPRIGHT.sub("", value).strip()
    if key in _MEASURES:
        value = " ".join(_NUMBER.sub(_rounded, value).split())
    return _URL.sub(lambda match: f"url(#{name}-{match[1]})", value)


def _rounded(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
