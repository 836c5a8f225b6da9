# SPDX-License-Identifier: Apache-2.0
"""Texts of somebody else's results stay texts: in a page, without its policy, in drawings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import NoAlertPresentException

from tests.browser.browser import Browser
from tests.browser.conftest import Pages
from tests.browser.runs import HOSTILE

PAGES = ("hostile", "reproduction")
SHOWN = (HOSTILE[0], HOSTILE[7], HOSTILE[8], "{{ 7 * 7 }}")

_TOUCH = """
for (const each of document.querySelectorAll("*")) {
  for (const kind of ["mouseover", "focus", "pointerenter", "error", "load", "toggle"])
    each.dispatchEvent(new Event(kind, { bubbles: true }));
  if (each.matches("th button, summary")) each.click();
}
"""
_FOUND = """
const all = [...document.querySelectorAll("*")];
const attributes = all.flatMap((each) => [...each.attributes].map((one) => [each, one]));
return {
  owned: window.owned ?? null,
  scripts: all.filter((each) => each.localName === "script").length,
  odd: all.map((each) => each.localName).filter((name) =>
    ["img", "iframe", "object", "embed", "form", "base", "foreignObject"].includes(name)),
  handlers: attributes.filter(([, one]) => one.name.startsWith("on")).length,
  focused: attributes.filter(([, one]) => one.name === "autofocus").length,
  links: attributes.filter(([, one]) => /^\\s*javascript:/i.test(one.value)).length,
};
"""


def touched(shown: Browser) -> dict[str, Any]:
    """Return what is in a page once every element had each event that a handler might wait for."""
    shown.ask(_TOUCH)
    with pytest.raises(NoAlertPresentException):
        _ = shown.driver.switch_to.alert.text
    return dict(shown.ask(_FOUND))


def harmless(scripts: int) -> dict[str, Any]:
    """Return what a page has in which no text became anything else."""
    nothing: dict[str, Any] = {"owned": None, "odd": [], "handlers": 0, "focused": 0, "links": 0}
    return {**nothing, "scripts": scripts}


@pytest.mark.parametrize("name", PAGES)
def test_texts_stay_texts(shown: Browser, pages: Pages, name: str) -> None:
    shown.open(pages(name))
    assert touched(shown) == harmless(scripts=1)
    body = shown.ask("return document.body.textContent")
    for text in SHOWN:
        assert text in body, text
    assert shown.console() == []


@pytest.mark.parametrize("name", PAGES)
def test_escaping_holds_without_the_policy(
    shown: Browser, pages: Pages, tmp_path: Path, name: str
) -> None:
    """Nothing rests on the policy alone, which a viewer may not know."""
    text, found = re.subn(r'<meta http-equiv="[^>]*>', "", pages(name).read_text())
    assert found == 1
    page = tmp_path / "page.html"
    page.write_text(text)
    shown.open(page)
    assert touched(shown) == harmless(scripts=1)


@pytest.mark.parametrize("name", PAGES)
def test_drawings_are_nothing_but_drawings(shown: Browser, pages: Pages, name: str) -> None:
    drawings = sorted((pages(name).parent / "plots").glob("*.svg"))
    assert len(drawings) > 5
    for each in drawings:
        shown.open(each)
        assert shown.ask("return document.documentElement.localName") == "svg", each
        assert touched(shown) == harmless(scripts=0), each


def test_the_tests_see_a_script_that_runs(shown: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<p>{HOSTILE[8]}</p><img src=x onmouseover='window.owned = 1'>")
    shown.open(page)
    found = touched(shown)
    assert (found["owned"], found["scripts"], found["odd"], found["handlers"]) == (1, 1, ["img"], 1)
