# SPDX-License-Identifier: Apache-2.0
"""The page of a run in a browser: quiet console, no request, layout, sorting, downloads, print."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from bench.report.document import Document, Entry, Section
from bench.report.page import render
from bench.report.tables import table
from tests.browser.browser import PHONE, WIDE, Browser
from tests.browser.conftest import Pages
from tests.browser.runs import RUNS

PAGES = (*RUNS, "reproduction")
LOOKS = [(PHONE, False), (PHONE, True), (WIDE, False), (WIDE, True)]

_TOO_WIDE = """
const outside = [];
for (const each of document.querySelectorAll("body *")) {
  // What is wider than the screen is scrolled inside of these.
  if (each.parentElement.closest(".scroll, .drawing, pre")) continue;
  const box = each.getBoundingClientRect();
  if (box.width && (box.right > innerWidth + 1 || box.left < -1))
    outside.push(each.outerHTML.slice(0, 100));
}
return outside;
"""
_DRAWINGS = """
return [...document.querySelectorAll("img, main svg")].map((each) => {
  const box = each.getBoundingClientRect();
  return {
    width: box.width, height: box.height, role: each.getAttribute("role"),
    attributes: Boolean(each.getAttribute("width") && each.getAttribute("height")),
    said: each.getAttribute("alt") ?? each.getAttribute("aria-label") ?? "",
  };
});
"""
_COLUMN = """
const [name, title] = arguments;
const table = document.querySelector(`#table-${name} table`);
const heads = [...table.tHead.rows[0].cells];
const at = heads.findIndex((each) => each.textContent.trim() === title);
return [...table.tBodies[0].rows].map(
  (row) => [row.cells[at].textContent.trim(), row.cells[at].dataset.value ?? null]);
"""
_HEAD = """
const [name, title] = arguments;
return [...document.querySelectorAll(`#table-${name} th`)]
  .find((each) => each.textContent.trim() === title);
"""


def background(shown: Browser) -> str:
    """Return the colour of the page's paper."""
    return str(shown.ask("return getComputedStyle(document.body).backgroundColor"))


def column(shown: Browser, table: str, title: str) -> list[Any]:
    """Return a column's entries from top to bottom, each with the value it is sorted by."""
    return list(shown.ask(_COLUMN, table, title))


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_asked_for_and_nothing_objected_to(
    shown: Browser, pages: Pages, name: str
) -> None:
    page = pages(name)
    shown.open(page)
    assert shown.console() == []
    asked = shown.requests()
    assert asked[0] == page.as_uri()
    assert [url for url in asked[1:] if not url.startswith("data:")] == []
    references = re.findall(r"(?:src|href|data|action)\s*=\s*[\"']([^\"']+)", page.read_text())
    for each in references:
        assert each.startswith(("#", "data:", "plots/")), each
    assert not re.search(r"url\((?!#|&#34;#)|@import", page.read_text())


@pytest.mark.parametrize("name", PAGES)
def test_the_layout_holds(shown: Browser, pages: Pages, name: str) -> None:
    papers = []
    for width, dark in LOOKS:
        shown.open(pages(name), width, dark)
        assert shown.ask("return innerWidth") == width
        assert shown.ask("return document.scrollingElement.scrollWidth") <= width
        assert shown.ask(_TOO_WIDE) == []
        papers.append(background(shown))
    assert papers[0] == papers[2] == "rgb(255, 255, 255)"
    assert papers[1] == papers[3] != papers[0]


@pytest.mark.parametrize("name", PAGES)
def test_every_drawing_has_a_size_and_words(shown: Browser, pages: Pages, name: str) -> None:
    for width in (PHONE, WIDE):
        shown.open(pages(name), width)
        drawings = shown.ask(_DRAWINGS)
        assert drawings
        for each in drawings:
            assert each["width"] > 100 and each["height"] > 50, each
            assert each["attributes"] and each["role"] == "img" and len(each["said"]) > 10, each


def test_contents_stay_beside_the_page(shown: Browser, pages: Pages) -> None:
    shown.open(pages("whole"))
    shown.ask("document.getElementById('hosts').scrollIntoView()")
    places = shown.ask(
        "const box = (each) => document.querySelector(each).getBoundingClientRect();"
        "const nav = box('nav'); return [nav.top, nav.bottom, nav.right, box('main').left];"
    )
    assert 0 <= places[0] < places[1] <= 900
    assert places[2] <= places[3]
    wide = shown.ask(
        "return [...document.querySelectorAll('nav a')].filter(a => a.scrollWidth > a.clientWidth)"
    )
    assert wide == []
    titles = shown.ask("return [...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    sections = shown.ask("return [...document.querySelectorAll('main > section')].map(s => s.id)")
    assert titles == sections
    shown.open(pages("whole"), PHONE)
    assert shown.ask("return document.querySelector('nav details').open") is False


@pytest.mark.parametrize(
    ("table", "title", "numeric"),
    [
        ("cells", "response, µs", True),
        ("cells", "bytes", True),
        ("cells", "mode", False),
        ("pairs", "a / b [95 %]", True),
        ("pairs", "a is", False),
        ("costs", "µs per hop", True),
    ],
)
def test_a_click_sorts(shown: Browser, pages: Pages, table: str, title: str, numeric: bool) -> None:
    shown.open(pages("whole"))
    before = column(shown, table, title)
    head = shown.ask(_HEAD, table, title)
    button = head.find_element("css selector", "button")
    for turn, direction in enumerate(("ascending", "descending", "ascending")):
        # By mouse, then by keyboard.
        button.click() if turn == 0 else button.send_keys("\n")
        assert head.get_attribute("aria-sort") == direction
        found = column(shown, table, title)
        assert sorted(found, key=str) == sorted(before, key=str)
        keys: Sequence[Any] = [float(value) for _, value in found if value is not None]
        if not numeric:
            # Signs come before letters.
            keys = [(text != "~", text.lower()) for text, _ in found]
        assert len(keys) > 5
        assert keys == sorted(keys, reverse=direction == "descending")
    others = shown.ask(
        "return [...document.querySelectorAll(`#table-${arguments[0]} th`)]"
        ".filter(each => each.ariaSort !== 'none').length",
        table,
    )
    assert others == 1


def test_rows_without_a_value_are_last_both_ways(shown: Browser, pages: Pages) -> None:
    shown.open(pages("interrupted"))
    head = shown.ask(_HEAD, "cells", "95 % interval")
    button = head.find_element("css selector", "button")
    for _ in range(2):
        button.click()
        texts = [text for text, _ in column(shown, "cells", "95 % interval")]
        known = [text for text in texts if text != "-"]
        assert texts == known + ["-"] * (len(texts) - len(known))


def test_every_link_to_data_downloads_it(shown: Browser, pages: Pages) -> None:
    page = pages("whole")
    shown.open(page)
    links = shown.ask("return [...document.querySelectorAll('a[download$=\".csv\"]')]")
    figures = shown.ask("return document.querySelectorAll('figure, .table').length")
    assert len(links) == figures > 5
    assert len({link.get_attribute("download") for link in links}) == len(links)
    for number, link in enumerate(links):
        name = link.get_attribute("download")
        if number % 10 == 9:
            time.sleep(1.1)  # Chromium leaves out what is beyond ten downloads in a second.
        shown.ask("arguments[0].click()", link)
        file = shown.downloads / name
        said = unquote(link.get_attribute("href").partition(",")[2])
        # Its name may be there before all of its content.
        until = time.monotonic() + 20
        while not (file.exists() and file.read_text() == said) and time.monotonic() < until:
            time.sleep(0.02)
        assert file.read_text() == said == (page.parent / "plots" / name).read_text()
        head, *rows = csv.reader(said.splitlines())
        assert rows and all(len(row) == len(head) for row in rows), name


def test_plots_are_beside_the_page(shown: Browser, pages: Pages) -> None:
    page = pages("whole")
    shown.open(page)
    links = shown.ask(
        "return [...document.querySelectorAll('.downloads a')].map(a => a.getAttribute('href'))"
    )
    files = [page.parent / link for link in links if not link.startswith("data:")]
    assert {file.suffix for file in files} == {".svg", ".png"}
    starts = {".svg": b"<?xml", ".png": b"\x89PNG"}
    for file in files:
        assert file.read_bytes().startswith(starts[file.suffix]), file


def test_light_and_dark_by_a_button(shown: Browser, pages: Pages) -> None:
    shown.open(pages("smallest"), WIDE, dark=True)
    dark = background(shown)
    button = shown.driver.find_element("id", "theme")
    assert button.text == "Light"
    button.click()
    light = background(shown)
    assert (light, button.text) == ("rgb(255, 255, 255)", "Dark")
    button.click()
    assert background(shown) == dark != light
    shown.ask("localStorage.clear()")


@pytest.mark.parametrize("name", ["whole", "smallest"])
def test_it_is_printed_on_white(shown: Browser, pages: Pages, name: str) -> None:
    shown.open(pages(name), WIDE, dark=True)
    pdf = shown.printed()
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 1
    width, height = map(float, re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)[0])
    assert (round(width), round(height)) == (595, 842)
    assert shown.console() == []
    shown.command("Emulation.setEmulatedMedia", media="print")
    try:
        assert background(shown) == "rgb(255, 255, 255)"
        ink = shown.ask("return getComputedStyle(document.body).color")
        assert ink == "rgb(27, 32, 38)"
    finally:
        shown.command("Emulation.setEmulatedMedia", media="")


def test_a_broad_table_is_whole_on_paper(shown: Browser, tmp_path: Path) -> None:
    """A table as broad as the 2022 report's Table 1 of many modes is on a sheet across."""
    head = ["size, bytes*", *(f"{hops} forwarders: XDP (generic), s*" for hops in range(1, 18))]
    row = [Entry("2,555,904", 2555904.0)]
    row += [Entry("4.998", 4.998, "4.66 to 5.57 s, n = 10")] * (len(head) - 1)
    broad = table("broad", "Broad", head, [row] * 14, [], [])
    narrow = table("narrow", "Narrow", head[:5], [row[:5]], [], [])
    document = Document("Title", "Below", ["One."], [Section("part", "Part", [broad, narrow])])
    path = tmp_path / "page.html"
    path.write_text(render(document), encoding="utf-8")
    shown.open(path)
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", shown.printed())
    assert [float(width) > float(height) for width, height in boxes] == [False, True, False]
    across_px = round((297 - 2 * 14) / 25.4 * 96)
    shown.open(path, across_px)
    shown.command("Emulation.setEmulatedMedia", media="print")
    try:
        width = shown.ask(
            "return document.querySelector('#table-broad table').getBoundingClientRect().width"
        )
        assert width <= across_px
    finally:
        shown.command("Emulation.setEmulatedMedia", media="")


def test_no_other_script_can_run(shown: Browser, pages: Pages) -> None:
    """The page's policy holds, should a text ever become an element."""
    shown.open(pages("smallest"))
    shown.ask(
        "const script = document.createElement('script');"
        "script.textContent = 'window.owned = true';"
        "document.body.append(script);"
        "const image = document.createElement('img');"
        "image.setAttribute('onerror', 'window.owned = true');"
        "image.src = 'http://192.0.2.1/x.png';"
        "document.body.append(image);"
    )
    said, until = "", time.monotonic() + 20
    while not ("script-src" in said and "img-src" in said) and time.monotonic() < until:
        time.sleep(0.05)
        said += " ".join(shown.console())
    assert "script-src" in said and "img-src" in said
    assert shown.ask("return window.owned === undefined")


def test_the_page_is_small(pages: Pages) -> None:
    assert Path(pages("whole")).stat().st_size < 5_000_000
