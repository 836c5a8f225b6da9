# SPDX-License-Identifier: Apache-2.0
"""The agent's protocol through real pipes: answers, leases, signals, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.hop import protocol

REPOSITORY = Path(__file__).parents[2]

ECHO = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from bench.hop import protocol
from bench.hop.errors import HopError

def handle(message):
    if "fail" in message:
        raise HopError(message["fail"], "mend it")
    if "quiet" in message:
        return None
    return {{"event": "ready", "got": message}}

def stop():
    if sys.argv[1:] == ["slow"]:
        print("stopping", file=sys.stderr, flush=True)
        sys.stdin.buffer.read()
    print("stop", file=sys.stderr, flush=True)

sys.exit(protocol.serve(handle, stop))
"""


@pytest.fixture
def echo() -> Iterator[subprocess.Popen[bytes]]:
    """Yield an agent that answers every line with what it holds."""
    with start_echo() as process:
        yield process
        process.kill()


def start_echo(*how: str) -> subprocess.Popen[bytes]:
    """Start an agent; if it is to be "slow", its clean-up takes until the end of its input."""
    return subprocess.Popen(
        [sys.executable, "-I", "-c", ECHO, *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def tell(process: subprocess.Popen[bytes], line: bytes) -> dict[str, Any]:
    """Send a line and return the event that answers it."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line + b"\n")
    process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))


def events(output: bytes) -> list[dict[str, Any]]:
    """Return every event of an output."""
    return [json.loads(line) for line in output.splitlines()]


READY = {"event": "ready", "got": {"a": 1}}
END = {"event": "stopped", "reason": "end of input"}


def stopped(reason: str) -> dict[str, Any]:
    """Return the last event."""
    return {"event": "stopped", "reason": reason}


@pytest.mark.parametrize(
    ("sent", "answers", "status"),
    [
        (b"", [END], 0),
        (b'{"a": 1}\n', [READY, END], 0),
        (b'{"a": 1}\n{"a": 1}\n', [READY, READY, END], 0),
        (b'{"a": 1}\r\n', [READY, END], 0),
        (b'{"a": 1, "lease_s": 5}\n', [READY, END], 0),
        (b'{"a": 1}', [END], 0),
        (b'{"quiet": 1}\n{"a": 1}\n', [READY, END], 0),
        (b'{"op": "keep"}\n{"a": 1}\n{"op": "keep"}\n', [READY, END], 0),
        (
            b'{"fail": "no"}\n{"a": 1}\n',
            [{"event": "error", "cause": "no", "remedy": "mend it"}, READY, END],
            0,
        ),
        (b"hello\n", [stopped("configuration is not JSON")], 1),
        (b"\n", [stopped("configuration is not JSON")], 1),
        (b"\xff\xfe\n", [stopped("configuration is not JSON")], 1),
        (b"\0\n", [stopped("configuration is not JSON")], 1),
        (b"[" * 60_000 + b"\n", [stopped("configuration is not JSON")], 1),
        (b"9" * 60_000 + b"\n", [stopped("configuration is not JSON")], 1),
        (b"[1]\n", [stopped("configuration is not a JSON object")], 1),
        (b"null\n", [stopped("configuration is not a JSON object")], 1),
        (b'{"lease_s": "1"}\n', [stopped("lease_s is not a number")], 1),
        (b'{"lease_s": true}\n', [stopped("lease_s is not a number")], 1),
        (b'{"a": 1}\nhello\n{"a": 1}\n', [READY, stopped("configuration is not JSON")], 1),
        (b"x" * 200_000, [stopped("a line of configuration is too long")], 1),
        (
            b'{"a": 1}\n' + b" " * 200_000,
            [READY, stopped("a line of configuration is too long")],
            1,
        ),
        (b'{"a": "' + b"\xc3\xb6" * 20_000 + b'"}\n', None, 0),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else "",
)
def test_what_is_answered(
    echo: subprocess.Popen[bytes], sent: bytes, answers: list[dict[str, Any]] | None, status: int
) -> None:
    output, errors = echo.communicate(sent, timeout=10)
    if answers is None:
        answers = [{"event": "ready", "got": json.loads(sent)}, END]
    assert events(output) == answers
    assert errors == b"stop\n"
    assert echo.returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_end_it(number: signal.Signals) -> None:
    with start_echo("slow") as process:
        assert tell(process, b'{"a": 1}') == READY
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.readline() == b"stopping\n"
        # Those that follow do not interrupt the clean-up.
        process.send_signal(signal.SIGTERM)
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
    assert (events(output), errors, process.returncode) == ([stopped(number.name)], b"stop\n", 0)


def test_a_lease_that_runs_out(echo: subprocess.Popen[bytes]) -> None:
    begin = time.monotonic()
    assert tell(echo, b'{"a": 1, "lease_s": 0.1}') == READY
    assert echo.stdout is not None
    assert json.loads(echo.stdout.readline()) == stopped("lease ran out")
    # One second is the least a lease lasts; without a word of it, it would be thirty.
    assert 1.0 <= time.monotonic() - begin < 15.0
    assert echo.wait(timeout=5) == 0


def test_a_controller_that_no_longer_reads(echo: subprocess.Popen[bytes]) -> None:
    assert tell(echo, b'{"a": 1}') == READY
    assert echo.stdout is not None and echo.stdin is not None and echo.stderr is not None
    echo.stdout.close()
    echo.stdin.write(b'{"a": 1}\n')
    echo.stdin.flush()
    assert echo.wait(timeout=5) == 0
    assert echo.stderr.read() == b"stop\n"


@pytest.mark.parametrize(
    ("seconds", "left_s"),
    [(30.0, 30.0), (0.0, 1.0), (-5, 1.0), (1e9, 3600.0), (float("inf"), 3600.0), (10**400, 3600.0)],
)
def test_how_long_a_lease_lasts(
    monkeypatch: pytest.MonkeyPatch, seconds: float, left_s: float
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lease = protocol.Lease()
    assert lease.left_s == protocol.DEFAULT_LEASE_S
    lease.renew(seconds)
    assert lease.left_s == left_s
    now[0] += left_s + 1
    assert lease.left_s == 0


@pytest.mark.parametrize("arguments", [[], ["reboot"], ["--help"], ["forward.py"]])
def test_roles(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.hop", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python3 -m hop {forward|serve|load|")
