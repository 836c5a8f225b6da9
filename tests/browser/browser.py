# SPDX-License-Identifier: Apache-2.0
"""A browser without a screen and without a network, and what is asked of a page in it.

python -m tests.browser.browser PAGE FOLDER     takes pictures of a page, to be looked at
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
PHONE, WIDE = 400, 1400

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # Whatever asks for a name gets none.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


class Browser:
    """A page in a browser: opened, measured, printed."""

    def __init__(self, driver: Chrome, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, page: Path, width: int = WIDE, dark: bool = False) -> None:
        """Show a page from its file, as wide as a screen, in light or dark; forget earlier logs."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.driver.get("about:blank")
        self.console()
        self.requests()
        self.driver.get(page.as_uri())

    def ask(self, script: str, *arguments: Any) -> Any:
        """Return what a function body in JavaScript returns."""
        return self.driver.execute_script(script, *arguments)  # type: ignore[no-untyped-call]

    def command(self, name: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the Chrome DevTools protocol."""
        found = self.driver.execute_cdp_cmd(name, parameters)
        return dict(found or {})

    def console(self) -> list[str]:
        """Return what the console has been told since it was asked last."""
        return [
            f"{each['level']} {each['message']}"
            for each in self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        ]

    def requests(self) -> list[str]:
        """Return the URLs that were asked for since the last time."""
        found = []
        for each in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]
            message = json.loads(each["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found

    def printed(self) -> bytes:
        """Return the page as a PDF."""
        found = self.command("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(found["data"])

    def picture(self, *, whole: bool = True) -> bytes:
        """Return the page as a PNG, from its top to its end."""
        found = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser with an empty profile, and end it."""
    # Some of its processes outlive it for a moment, and write into the profile.
    with tempfile.TemporaryDirectory(
        prefix="hopbench-browser-", ignore_cleanup_errors=True
    ) as folder:
        profile, downloads = Path(folder, "profile"), Path(folder, "downloads")
        profile.mkdir()
        downloads.mkdir()
        driver = Chrome(
            options=_options([*_FLAGS, f"--user-data-dir={profile}"]),
            # A path of its own: selenium would look for a driver on the network.
            service=Service(str(DRIVER)),
        )
        try:
            driver.execute_cdp_cmd(
                "Browser.setDownloadBehavior",
                {"behavior": "allow", "downloadPath": str(downloads)},
            )
            yield Browser(driver, downloads)
        finally:
            driver.quit()


def _options(flags: Sequence[str]) -> Options:
    options = Options()
    options.binary_location = str(CHROMIUM)
    for flag in flags:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return options


def main(page: str, folder: str) -> None:
    """Write pictures of a page, narrow and wide, light and dark, and how it is printed."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    with browser() as shown:
        for width in (PHONE, WIDE):
            for dark in (False, True):
                shown.open(Path(page).resolve(), width, dark)
                name = f"{width}-{'dark' if dark else 'light'}.png"
                (out / name).write_bytes(shown.picture())
        (out / "printed.pdf").write_bytes(shown.printed())


if __name__ == "__main__":
    main(*sys.argv[1:])
