# SPDX-License-Identifier: Apache-2.0
"""Many hosts at once: errors that name each of them, and connections in parallel."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.chain import Host
from bench.errors import BenchError, HostsError
from bench.fleet import Fleet


def host(name: str, **variables: Any) -> Host:
    """Return a host that ssh_config files say nothing about."""
    ssh_vars = {f"ansible_{key}": value for key, value in variables.items()}
    ssh_vars["ansible_ssh_common_args"] = "-F none"
    return Host(name, "hop", "198.18.0.2", "eth0", 7000, ssh_vars=ssh_vars)


@pytest.mark.parametrize(
    ("errors", "line"),
    [
        ([("a", "x", None)], "a: x"),
        ([("a", "x", "do")], "a: x (do)"),
        ([("a", "x", "do"), ("b", "y", "do")], "a: x; b: y (do)"),
        ([("a", "x", None), ("b", "y", None)], "a: x; b: y"),
        ([("a", "x", "do"), ("b", "y", "try")], "a: x; b: y (a: do; b: try)"),
        ([("a", "x", "do"), ("b", "y", None)], "a: x; b: y (a: do)"),
        (
            [("a", "x", "do"), ("b", "y", "try"), ("c", "z", "do")],
            "a: x; b: y; c: z (a, c: do; b: try)",
        ),
    ],
)
def test_every_host_with_its_remedy(errors: list[tuple[str, str, str | None]], line: str) -> None:
    joined = HostsError.of(
        BenchError(cause, host=name, remedy=remedy) for name, cause, remedy in errors
    )
    assert joined.one_line() == line
    assert [error.host for error in joined.errors] == [name for name, _, _ in errors]
    # Errors of errors are no more than errors.
    assert HostsError.of([joined]).one_line() == line


def test_different_failures_are_all_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    hosts = [
        host("alpha", host="127.0.0.1", port=port),
        host("bravo", port=0),
        host("charlie", host="no-such-name.invalid"),
        host("delta", become_method="doas"),
        host("echo", host="-oProxyCommand=x"),
    ]
    with pytest.raises(HostsError) as caught, Fleet(hosts):
        pass
    text = caught.value.one_line()
    for part in (
        f"alpha: SSH: Connection refused (127.0.0.1 port {port})",
        "bravo: SSH port '0' is not from 1 to 65535",
        "charlie: SSH: host name no-such-name.invalid not known",
        "delta: ansible_become_method 'doas' is not supported",
        "echo: SSH: '-oProxyCommand=x' is not a host name",
        "charlie: set ansible_host to its address",
        "delta: use sudo or su",
    ):
        assert part in text


@pytest.fixture
def mute() -> Iterator[tuple[int, list[float]]]:
    """A TCP port that takes connections and says nothing; and when each came."""
    came: list[float] = []
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:

        def take() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return
                came.append(time.monotonic())

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    for each in kept:
        each.close()


def test_64_hosts_are_waited_for_at_the_same_time(mute: tuple[int, list[float]]) -> None:
    """Each has its limit, and all of them together take not much longer than one."""
    port, came = mute
    hosts = [host(f"h{n}", host="127.0.0.1", port=port, ssh_timeout=8) for n in range(64)]
    begin = time.monotonic()
    with pytest.raises(HostsError) as caught, Fleet(hosts):
        pass
    assert len(came) == 64
    # All were there before the first was given up.
    assert max(came) - min(came) < 8
    assert time.monotonic() - begin < 60
    assert [name for name, _ in caught.value.failures] == [each.name for each in hosts]
    assert {cause for _, cause in caught.value.failures} == {
        f"SSH: no answer from 127.0.0.1 port {port} within 8 s"
    }
