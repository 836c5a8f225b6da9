# SPDX-License-Identifier: Apache-2.0
"""What agents, which run as root, take on standard input: what they know, or one refusal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import EVIL_NUMBERS, EVIL_TEXTS, Mutator, fuzz, nested, texts, values
from hypothesis import strategies as st
from synthetic import tree

from bench.hop import clock, config, forward, load, loopback, protocol, serve, version
from bench.hop.errors import HopError

REPOSITORY = Path(__file__).parents[3]
ROLES = ("forward", "serve", "load", "loopback")
HANDLERS: dict[str, Callable[[], Callable[[dict[str, Any]], Any]]] = {
    "forward": lambda: forward.Agent().handle,
    "serve": lambda: serve.Server().handle,
    "load": lambda: load.Load().handle,
    "loopback": lambda: loopback.Loopback().handle,
    "clock": lambda: clock.answer,
    "place": lambda: config.place,
    "target": lambda: config.target,
}
# Each is refused where it is not to be: here is no NIC eth9, and no place was told before.
LINES: list[dict[str, Any]] = [
    {
        "op": "place",
        "version": version.digest(),
        "data_nic": "eth9",
        "data_ip": "198.18.0.2",
        "forward_port": 7000,
        "prepare": ["nft"],
        "trace": False,
        "egress_nic": "eth8",
        "nat_ports": [20000, 29999],
        "nat_flows": 4096,
        "nat_policy": "fresh",
        "server_port": 8000,
        "timer": True,
    },
    {"mode": "xdp", "attach": "native", "next_ip": "198.18.0.3", "next_port": 7000},
    {"mode": "socat", "forwarders": 3},
    {"mode": "direct"},
    {"op": "counters"},
    {"op": "renew"},
    {"op": "offloads", "use": "equal"},
    {"op": "trace", "port": 5, "per_second": 10, "mask": 1},
    {"op": "trace", "home_of": ["198.18.0.1", 5]},
    {
        "op": "siege",
        "ip": "198.18.0.2",
        "port": 7000,
        "size_bytes": 624,
        "concurrency": 1,
        "repetitions": 10,
        "limit_s": 20,
        "timer": True,
        "timeout_s": 5,
    },
    {"op": "connections"},
    {"op": "clock", "keeper": False},
]
_SIEGE_WORD = re.compile(r"-[Rbcr]|/[\w./-]+|[0-9]{1,9}|http://[0-9a-f.:\[\]]+/[0-9]{1,10}\.bin")


def json_of(value: Any) -> Any:
    """Return a value as an agent has it, which reads JSON; None for what is none."""
    try:
        return protocol.decode(json.dumps({"value": value}).encode())["value"]
    except HopError:
        return None


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Have nothing started and no connection made; siege alone may be asked for, by sound words."""
    tried: list[Any] = []

    def note(*arguments: Any, **_: object) -> None:
        tried.append(arguments[0])
        raise OSError("nothing is started here")

    monkeypatch.setattr(subprocess, "Popen", note)
    monkeypatch.setattr(os, "system", note)
    monkeypatch.setattr(socket.socket, "connect", note)
    yield tried
    for argv in tried:
        assert Path(argv[0]).name == "siege"
        assert all(_SIEGE_WORD.fullmatch(word) for word in argv[1:])


@pytest.mark.parametrize("role", HANDLERS)
def test_any_message(role: str) -> None:
    def check(line: dict[str, Any], changes: list[tuple[int, str, Any]]) -> None:
        message = json_of(Mutator(line).apply(changes))
        if not isinstance(message, dict):
            return
        try:
            answer = HANDLERS[role]()(message)
        except HopError as error:
            assert error.cause
            protocol.json.dumps([error.cause, error.remedy])
        except (OSError, ValueError):
            pass  # the agent answers with it, and lives on
        else:
            # Something was changed that does not matter, or it is a question that may be asked.
            assert isinstance(answer, dict | config.Place | config.Target | None)

    fuzz(check, st.sampled_from(LINES), Mutator.changes, examples=50)


@pytest.mark.parametrize(
    "take",
    [
        *(config.nic, config.address, config.port, config.text, config.truth),
        *(config.endpoint, config.nat_ports),
    ],
    ids=lambda take: take.__name__,
)
def test_any_value(take: Callable[[dict[str, Any], str], Any]) -> None:
    """What is taken is what a host can have: never a path, an option or a piece of a command."""

    def check(value: Any) -> None:
        try:
            taken = take({"key": json_of(value)}, "key")
        except HopError as error:
            assert "\n" not in error.cause or take is config.nic
            return
        if take is config.nic:
            assert taken in {each.name for each in Path("/sys/class/net").iterdir()}
        elif take is config.address:
            assert not set(taken) - set("0123456789abcdef.:")
        elif take is config.port:
            assert 1 <= taken <= 65535

    numbers = st.sampled_from(EVIL_NUMBERS) | st.integers(-5, 70000)
    addresses = st.ip_addresses().map(str)
    pairs = st.tuples(addresses | numbers | texts, numbers).map(list)
    fuzz(check, values | numbers | addresses | pairs, examples=70)


def test_any_line_is_an_object_or_refused() -> None:
    pieces = st.sampled_from(
        [b"{", b"}", b"[", b"]", b":", b",", b'"op"', b'"a"', b"1e400", b"NaN", b"\xff", b"\\u0000"]
    )

    def check(parts: list[bytes]) -> None:
        try:
            assert isinstance(protocol.decode(b"".join(parts)), dict)
        except HopError as error:
            assert error.cause.startswith("configuration is not")

    fuzz(check, st.lists(pieces | st.binary(max_size=12), max_size=14), examples=105)


def test_any_lease() -> None:
    def check(seconds: Any) -> None:
        lease = protocol.Lease()
        message = json_of({"lease_s": seconds})
        if isinstance(message, dict):
            with contextlib.suppress(HopError):
                protocol._renewing(message, lease)
        assert 0.0 <= lease.left_s <= protocol.MAX_LEASE_S

    fuzz(check, values | st.floats() | st.integers(), examples=50)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test start programs, agents of its own."""
    monkeypatch.undo()


def speak(role: str, sent: bytes, folder: Path) -> tuple[int, list[dict[str, Any]], str]:
    """Start the real agent in a folder, say something, and return how it ended and what it said."""
    done = subprocess.run(
        [sys.executable, "-B", "-m", "bench.hop", role],
        input=sent,
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]},
        capture_output=True,
        timeout=60,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, answers, done.stderr.decode()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.usefixtures("real")
def test_real_agents(role: str, tmp_path: Path) -> None:
    """Every line has an answer, nothing is started, and no traceback comes."""
    said: list[Any] = [
        *({"op": text} for text in EVIL_TEXTS),
        *({"mode": text, "next_ip": text, "next_port": 1, "forwarders": 1} for text in EVIL_TEXTS),
        *({**LINES[0], "data_nic": text} for text in EVIL_TEXTS),
        *({**LINES[0], "data_nic": "lo", "data_ip": text} for text in EVIL_TEXTS),
        *({"op": "place", "version": version.digest(), "data_nic": text} for text in EVIL_TEXTS),
        *({"op": "siege", "ip": text, "port": 1, "timer": False} for text in EVIL_TEXTS),
        *({"op": "fetch", "ip": "198.18.0.1", "port": 1, "sizes": text} for text in EVIL_TEXTS),
        *({"op": value} for value in (None, 1, [], {}, ["place"], nested(60), True, 1e300)),
    ]
    lines = [json.dumps(each).encode() for each in said]
    status, answers, stderr = speak(role, b"".join(line + b"\n" for line in lines), tmp_path)
    assert (status, stderr) == (0, "")
    assert len(answers) == len(lines) + 1
    assert {each["event"] for each in answers[:-1]} == {"error"}
    assert answers[-1] == {"event": "stopped", "reason": "end of input"}
    assert not tree(tmp_path)


@pytest.mark.parametrize(
    "line", [b"[" * 60_000, b'{"a":' * 10_000, b"9" * 60_000, b"\xff" * 60_000]
)
@pytest.mark.usefixtures("real")
def test_a_line_that_is_no_configuration_ends_a_real_agent(line: bytes, tmp_path: Path) -> None:
    status, answers, stderr = speak("forward", b'{"op": "renew"}\n' + line + b"\n", tmp_path)
    assert (status, stderr) == (1, "")
    assert [each["event"] for each in answers] == ["ready", "stopped"]
    assert answers[1]["reason"] == "configuration is not JSON"
