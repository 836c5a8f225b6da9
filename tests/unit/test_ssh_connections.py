# SPDX-License-Identifier: Apache-2.0
"""SSH connections that fail: proxies and hosts that are absent, hang or say nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import ssh
from bench.chain import Host
from bench.errors import BenchError
from tests.unit.ssh_hosts import ended, host

pytestmark = pytest.mark.usefixtures("folder")


def connect(some: Host) -> tuple[str, float]:
    """Return (the error's line, how long it took)."""
    begin = time.monotonic()
    with pytest.raises(BenchError) as caught:
        ssh.Opener().connect(some)
    assert caught.value.host == some.name
    return caught.value.one_line(), time.monotonic() - begin


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("/nowhere/ssh -W %h:%p jump", "SSH: /bin/sh: 1: exec: /nowhere/ssh: not found"),
        ("sh -c 'exit 1", "SSH configuration is wrong: "),
        ("/", "SSH: /bin/sh: 1: exec: /: Permission denied"),
        ("sh -c 'echo one >&2; echo the last word >&2; exit 1'", "SSH: the last word"),
        ("true", "SSH: "),
        ("echo welcome", "SSH: "),
    ],
)
def test_a_proxy_that_does_not_connect(proxy: str, reason: str) -> None:
    Path("config").write_text(f"Host *\n  ProxyCommand {proxy}\n")
    text, took_s = connect(host(args="-F config"))
    if not Path("/bin/sh").resolve().name.startswith("dash"):
        reason = "SSH: "
    assert text.startswith(f"bravo: {reason}")
    assert took_s < 5


@pytest.mark.parametrize("words", ["sleep 1234.25", "sh -c 'sleep 1234.25 | cat'"])
def test_a_proxy_that_hangs(words: str) -> None:
    """The limit is the host's own; the command ends with all that it has started."""
    text, took_s = connect(host(args=f'-F none -o "ProxyCommand={words}"', ssh_timeout=1))
    assert text.startswith("bravo: SSH: no answer from bravo port 22 within 1 s")
    assert took_s < 6
    assert ended("sleep 1234.25")


@pytest.fixture
def mute() -> Iterator[int]:
    """A TCP port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_host_that_says_nothing(mute: int) -> None:
    text, took_s = connect(host(host="127.0.0.1", port=mute, ssh_timeout=1))
    assert f"no answer from 127.0.0.1 port {mute} within 1 s" in text
    assert 0.9 < took_s < 6


def test_a_port_nobody_listens_on(mute: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text, _ = connect(host(host="127.0.0.1", port=port))
    assert f"SSH: Connection refused (127.0.0.1 port {port})" in text


def test_a_connection_nobody_wants_any_more(mute: int) -> None:
    opener = ssh.Opener()
    threading.Timer(0.3, opener.cancel).start()
    begin = time.monotonic()
    with pytest.raises(BenchError, match="given up"):
        opener.connect(host(host="127.0.0.1", port=mute))
    assert time.monotonic() - begin < 5
