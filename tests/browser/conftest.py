# SPDX-License-Identifier: Apache-2.0
"""One browser for all tests, and the pages of made-up runs, each made once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.report.make import make
from bench.reproduce.page import make as reproduced
from bench.reproduce.record import Reproduction
from bench.runs import RunReader
from tests.browser.browser import CHROMIUM, DRIVER, Browser, browser
from tests.browser.runs import RUNS, reproduction

Pages = Callable[[str], Path]


@pytest.fixture(scope="session", name="shown")
def _shown() -> Iterator[Browser]:
    """A browser; where there is none, tests are skipped, but in CI they fail."""
    missing = [str(each) for each in (CHROMIUM, DRIVER) if not each.exists()]
    if missing:
        reason = f"needs {' and '.join(missing)}: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with browser() as found:
        yield found


@pytest.fixture(scope="session", name="pages")
def _pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Return the page of the run of a name in RUNS, or of the reproduction."""
    made: dict[str, Path] = {}

    def page(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            if name == reproduction.__name__:
                made[name] = reproduced(Reproduction.open(reproduction(folder)))
            else:
                made[name] = make(RunReader.open(str(RUNS[name](folder)), folder))
        return made[name]

    return page
