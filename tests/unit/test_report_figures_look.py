# SPDX-License-Identifier: Apache-2.0
"""How plots look, and what becomes of a matplotlib figure: colours, ids, texts, files."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from bench.report import marks, style
from bench.report.figure import clean, figure, slug, standalone
from bench.report.panels import arrange, chosen, sheet

MODES = ("direct", "xdp", "nft", "socat", "legacy", "xdp/generic", "nft/native-offloads")
LABELS = [*MODES, *style._KNOWN, "xdp/again", "new", "newer", "a", "b", "c", "d/generic"]

# Linear RGB as deuteranopes and protanopes see it: G. M. Machado, M. M. Oliveira and L. A. F.
# Fernandes, IEEE Transactions on Visualization and Computer Graphics 15, 2009, table 1.
SEEN_BY = {
    "all colours": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}


def plot(*texts: str, curve: bool = True) -> Any:
    """Return a plot with some texts."""
    with style.rc():
        found = sheet(1)
        ax = found.panels[0]
        marks.scale([ax], "x", [1, 3])
        marks.scale([ax], "y", [1, 3])
        rows = pd.DataFrame({"x": [1, 2, 3], "y": [1.5, 2, 3], "lo": [1, 2, 2], "hi": [2, 2, 3]})
        if curve:
            marks.curve(ax, rows, ("x", "y", "lo", "hi"), marks.line("xdp"))
        found.legend = [(marks.line("xdp"), text) for text in texts]
        return arrange(found)


def made(*texts: str, name: str = "a-plot", **changes: Any) -> Any:
    """Return a figure of a document."""
    frame = pd.DataFrame({"label": ["xdp", "nft"], "us": [1 / 3, math.nan], "n": [1, 2]})
    values: dict[str, Any] = {"title": "T", "alt": "A", "caption": "C", "frame": frame} | changes
    values.setdefault("plot", plot(*texts))
    return figure(name, **values)


@pytest.mark.parametrize("label", LABELS)
def test_every_colour_is_seen_on_white_and_on_dark(label: str) -> None:
    for paper in (style.PAPER, style.DARK_PAPER):
        assert style.contrast(style.colour(label), paper) >= 3


def test_contrast_is_that_of_the_standard() -> None:
    assert style.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert style.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("eye", SEEN_BY)
@pytest.mark.parametrize("pair", [*combinations(MODES[:5], 2)])
def test_modes_are_told_apart_without_red_or_green(pair: tuple[str, str], eye: str) -> None:
    a, b = (_lab(style.colour(label), SEEN_BY[eye]) for label in pair)
    assert np.linalg.norm(a - b) > 12


def test_modes_differ_in_marker_and_line_too() -> None:
    looks = [style.look(label) for label in ("direct", "xdp", "nft", "socat", "legacy")]
    assert len({look.marker for look in looks}) == len({str(look.line) for look in looks}) == 5
    known = [style.look(label) for label in style._KNOWN if label != "legacy/generic"]
    assert len({look.colour for look in known}) == len(known)


def test_a_mode_looks_the_same_everywhere() -> None:
    assert style.look("new") == style.look("new")
    assert style.look("new/again").colour == style.colour("new")
    assert style.look("xdp/again").filled != style.look("xdp").filled
    assert not {style.colour(label) for label in LABELS} & set(style.VARIABLES)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_shades_are_readable_and_differ(count: int) -> None:
    found = style.shades(style.colour("xdp"), count)
    assert len(set(found)) == count
    papers = (style.PAPER, style.DARK_PAPER)
    assert all(style.contrast(each, paper) >= 3 for each in found for paper in papers)


def test_the_page_decides_on_text_and_paper() -> None:
    svg = made("XDP").svg
    colours = set(re.findall(r"#[0-9a-fA-F]{6}\b", svg))
    assert colours == {style.colour("xdp")}
    assert {"var(--ink)", "var(--muted)", "var(--grid)"} <= set(re.findall(r"var\([^)]*\)", svg))
    assert "font-family" not in svg and "<style" not in svg and "http" not in svg


def test_ids_are_the_figures_own() -> None:
    one, other = (ElementTree.fromstring(made("XDP", name=name).svg) for name in ("one", "two"))
    ids = [each.get("id") for root in (one, other) for each in root.iter() if "id" in each.attrib]
    assert len(ids) == len(set(ids)) > 3
    for root, name in ((one, "one"), (other, "two")):
        mine = {each.get("id", "") for each in root.iter() if "id" in each.attrib}
        text = ElementTree.tostring(root, encoding="unicode")
        asked = {*re.findall(r'href="#([^"]+)"', text), *re.findall(r"url\(#([^)]+)\)", text)}
        assert asked == mine
        assert all(each.startswith(f"{name}-") for each in mine)


def test_the_same_plot_makes_the_same_files() -> None:
    assert made("XDP") == made("XDP")


def test_a_figure_has_a_size_and_says_what_it_is() -> None:
    found = made(alt='3.4 µs & "more" <b>')
    root = ElementTree.fromstring(found.svg)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    *_, across, up = map(float, root.get("viewBox", "").split())
    assert width / height == pytest.approx(across / up, rel=0.01)
    assert root.get("aria-label") == found.alt == '3.4 µs & "more" <b>'
    assert found.png.startswith(b"\x89PNG")


def test_a_file_of_its_own_is_dark_on_white() -> None:
    text = standalone(made("XDP", alt="var(--ink) var(--none)"))
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--" not in text.replace("var(--ink) var(--none)", "")
    assert root[0].get("style") == f"fill:{style.PAPER}" and style.INK in text


@pytest.mark.parametrize(
    "text",
    [
        "$x_1$ $",
        "<script>alert(1)</script>",
        '"/><a href="javascript:x">',
        "]]>&amp;",
        "a\x00b\x1b[31m\u202e",
        "_under",
        "a\ud800b",
        "文字 🦊",
        "url(#x) var(--ink) #1b2026",
    ],
)
def test_texts_of_a_run_are_nothing_but_texts(text: str) -> None:
    found = made(text, title=text, alt=text, caption=text)
    root = ElementTree.fromstring(found.svg)
    tags = {each.tag for each in root.iter()}
    assert tags <= {"svg", "path", "use", "text", "defs", "g", "clipPath", "rect"}
    shown = [each.text for each in root.iter("text")]
    assert clean(text) in shown
    assert found.title == found.alt == found.caption == clean(text)
    assert all(each.isprintable() for each in found.title)


def test_the_csv_is_the_frame() -> None:
    frame = pd.DataFrame(
        {"label": ['a,"b"', "c\nd"], "us": [1 / 3, math.nan], "n": [1, 2], "far": [1e-17, 1e300]}
    )
    read = pd.read_csv(io.StringIO(made(frame=frame).csv))
    assert read["label"].tolist() == ['a,"b"', "c d"]
    pd.testing.assert_frame_equal(read.drop(columns="label"), frame.drop(columns="label"))


@pytest.mark.parametrize("name", ["", "A", "a b", 'a"', "-a", "ä", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        made(name=name)


@pytest.mark.parametrize(
    ("text", "found"),
    [("xdp/generic", "xdp-generic"), ("<b>", "b"), ("文", "x"), ("A" * 99, "a" * 40)],
)
def test_part_of_a_name(text: str, found: str) -> None:
    assert slug(text) == found


def test_the_users_own_settings_do_not_matter() -> None:
    import matplotlib

    plain = made("XDP").svg
    with matplotlib.rc_context({"font.size": 30, "text.usetex": False, "axes.grid": False}):
        assert made("XDP").svg == plain


@pytest.mark.parametrize(
    ("values", "most", "found"),
    [([1, 2, 3], 6, [1, 2, 3]), (list(range(1, 65)), 3, [1, 33, 64]), ([], 3, []), ([5], 2, [5])],
)
def test_some_of_many_values(values: list[int], most: int, found: list[int]) -> None:
    assert chosen(values, most) == found


@pytest.mark.parametrize(
    ("say", "value", "text"),
    [
        (marks.number, 0.0, "0.00"),
        (marks.number, 3.4, "3.40"),
        (marks.number, 24.61, "24.6"),
        (marks.number, 12345.6, "12,346"),
        (marks.bytes_text, 624, "624 B"),
        (marks.bytes_text, 159744, "160 kB"),
        (marks.bytes_text, 2555904, "2.56 MB"),
        (marks.axis_number, 0.005, "0.005"),
        (marks.axis_number, 10000.0, "10,000"),
        (marks.axis_number, 0.0, "0"),
    ],
)
def test_numbers(say: Callable[[float], str], value: float, text: str) -> None:
    assert say(value) == text


@pytest.mark.parametrize(
    ("times_us", "unit"), [([5.0, 9e4], "µs"), ([5.0, 5e6], "ms"), ([2e8], "s"), ([], "µs")]
)
def test_units_of_time(times_us: list[float], unit: str) -> None:
    assert marks.time_unit(times_us).name == unit


@pytest.mark.parametrize(
    ("values", "log"), [([1, 19], False), ([1, 21], True), ([-1, 100], False), ([0, 9], False)]
)
def test_axes_are_logarithmic_where_values_are_far_apart(values: list[float], log: bool) -> None:
    with style.rc():
        ax = sheet(1).panels[0]
        assert marks.scale([ax], "y", values) is log
        assert ax.get_yscale() == ("log" if log else "linear")
        low, high = ax.get_ylim()
        assert low <= min(values) and high > max(values)


def _lab(colour: str, seen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(seen @ linear, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
