# SPDX-License-Identifier: Apache-2.0
"""`make audit` by the real pip-audit and a service on this machine: found, clean, not known."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
NEWER = "python_full_version >= '3.99'"


class Advisories(BaseHTTPRequestHandler):
    """Answers as OSV does (https://google.github.io/osv.dev/post-v1-query/)."""

    known: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - a test's own, set before any request
    status = 200

    def do_POST(self) -> None:
        """Say what is known of a package."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = f"{asked['package']['name']}=={asked['version']}"
        body = json.dumps({"vulns": [self.known[key]]} if key in self.known else {}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[tuple[str, type[Advisories]]]:
    """A service of a test's own: its address, and what it answers by."""
    handler = type("Handler", (Advisories,), {"known": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query", handler
    server.shutdown()
    thread.join()
    server.server_close()


def audit(folder: Path, url: str, *pins: str) -> subprocess.CompletedProcess[str]:
    """Run the tool over a lock file of these pins."""
    lock = folder / "requirements.lock"
    lock.write_text("".join(f"{pin} \\\n    --hash=sha256:{'0' * 64}\n" for pin in pins))
    return subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "tools" / "audit.py"), str(lock)),
            *("--vulnerability-service", "osv", "--osv-url", url, "--timeout", "5"),
            *("--cache-dir", str(folder / "cache")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def advisory(name: str, fixed: str) -> dict[str, Any]:
    """Return what OSV says of a package that has a vulnerability in every version before one."""
    events = [{"introduced": "0"}, {"fixed": fixed}]
    return {
        "id": "TEST-1",
        "details": "It breaks.",
        "affected": [
            {
                "package": {"name": name, "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": events}],
            }
        ],
    }


def test_pins_without_vulnerabilities(
    tmp_path: Path, service: tuple[str, type[Advisories]]
) -> None:
    done = audit(tmp_path, service[0], "one==1.0", "two==2.0")
    assert (done.returncode, done.stdout) == (0, "2 pins, 0 known vulnerabilities\n"), done.stderr


@pytest.mark.parametrize("marker", ["", f" ; {NEWER}", " ; sys_platform == 'win32'"])
def test_a_vulnerability_also_of_what_is_for_another_python_or_system(
    tmp_path: Path, service: tuple[str, type[Advisories]], marker: str
) -> None:
    url, handler = service
    handler.known = {"two==2.0": advisory("two", "2.1")}
    done = audit(tmp_path, url, "one==1.0", f"two==2.0{marker}", "two==2.1 ; sys_platform != ''")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "two 2.0: TEST-1 (fixed in 2.1)",
        "3 pins, 1 known vulnerabilities",
    ]


@pytest.mark.parametrize("status", [404, 500])
def test_a_service_that_does_not_know_is_no_pass(
    tmp_path: Path, service: tuple[str, type[Advisories]], status: int
) -> None:
    url, handler = service
    handler.status = status
    done = audit(tmp_path, url, "one==1.0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("audit: not known, no answer for every pin: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_service_that_is_not_there_is_no_pass(
    tmp_path: Path, service: tuple[str, type[Advisories]]
) -> None:
    done = audit(tmp_path, "http://127.0.0.1:1/v1/query", "one==1.0")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_a_pin_without_a_hash_is_refused(
    tmp_path: Path, service: tuple[str, type[Advisories]]
) -> None:
    lock = tmp_path / "bare.lock"
    lock.write_text("one==1.0\n")
    command = [sys.executable, str(REPOSITORY / "tools" / "audit.py"), str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "does not contain a hash" in done.stderr
