# SPDX-License-Identifier: Apache-2.0
"""Agents check all of a message before they touch anything: no key too many, no value too large."""

from __future__ import annotations

import http.server
import json
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.datapath import Wanted
from bench.hop import (
    config,
    datapath,
    forward,
    load,
    lock,
    loopback,
    offloads,
    process,
    protocol,
    serve,
    version,
    wire,
)
from bench.hop.errors import HopError

ADDRESS = "198.18.0.2"
# Every line that each agent takes, right in all.
LINES: dict[str, list[dict[str, Any]]] = {
    "forward": [
        {
            "op": "place",
            "version": version.digest(),
            "prepare": ["xdp"],
            "data_nic": "lo",
            "data_ip": ADDRESS,
            "forward_port": 7000,
            "trace": True,
            "nat_ports": [20000, 29999],
            "nat_flows": 100,
            "nat_policy": "fresh",
            "holder": "me@here 1 2 abc",
        },
        {"mode": "xdp", "attach": "native", "next_ip": ADDRESS, "next_port": 8000},
        {"mode": "direct"},
        {"op": "counters"},
        {"op": "renew"},
        {"op": "offloads", "use": "equal"},
        {"op": "trace", "port": 1, "per_second": 1, "mask": 1},
        {"op": "trace", "home_of": [ADDRESS, 40000]},
    ],
    "serve": [
        {
            "op": "place",
            "version": version.digest(),
            "holder": "me@here 1 2 abc",
            "data_nic": "lo",
            "data_ip": ADDRESS,
            "server_port": 8000,
        },
        {"op": "counters"},
        {"op": "renew"},
        {"op": "offloads", "use": "native"},
    ],
    "load": [
        {
            "op": "place",
            "version": version.digest(),
            "holder": "me@here 1 2 abc",
            "data_nic": "lo",
            "data_ip": ADDRESS,
            "timer": True,
        },
        {
            "op": "siege",
            "ip": ADDRESS,
            "port": 7000,
            "size_bytes": 312,
            "concurrency": 1,
            "repetitions": 1,
            "limit_s": 9,
            "alone_s": 9,
            "timer": False,
            "timeout_s": 9,
        },
        {"op": "fetch", "ip": ADDRESS, "port": 7000, "sizes": [312]},
        {"op": "connections"},
        {"op": "renew"},
        {"op": "offloads", "use": "equal"},
    ],
    "loopback": [
        {"op": "place", "version": version.digest()},
        {"mode": "xdp", "forwarders": 3},
        {"op": "counters"},
        {"op": "renew"},
    ],
}
AGENTS: dict[str, Callable[[], Any]] = {
    "forward": forward.Agent,
    "serve": serve.Server,
    "load": load.Load,
    "loopback": loopback.Loopback,
}
ALL = [(role, line) for role, lines in LINES.items() for line in lines]


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail when anything of the host is about to be touched."""

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("touched")

    for place, name in (
        *((each, "stop") for each in (forward.Agent, serve.Server, loopback.Loopback)),
        *((lock, "take"), (lock, "_bind"), (process, "spawn"), (process, "tool")),
        *((offloads.Offloads, "use"), (offloads.Offloads, "restore"), (load.Path, "mkdir")),
        *(
            (forward, "_forwarder_class"),
            (load, "ConnectionTimer"),
            (http.client, "HTTPConnection"),
        ),
    ):
        monkeypatch.setattr(place, name, touched)
    yield


def refusal(role: str, line: dict[str, Any]) -> str:
    """Return why a new agent that knows its place, where it has to, refuses a line."""
    agent = AGENTS[role]()
    if role == "loopback" and line.get("op") != "place":
        agent._ready = True
    with pytest.raises(HopError) as caught:
        agent.handle(json.loads(json.dumps(line)))
    return caught.value.cause


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("role", "line"), ALL)
def test_a_key_too_many_is_refused_before_anything_is_touched(
    role: str, line: dict[str, Any]
) -> None:
    assert "unknown key 'zz'" in refusal(role, {**line, "zz": 1})


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("role", "line"), ALL)
def test_a_value_of_another_kind_is_refused_before_anything_is_touched(
    role: str, line: dict[str, Any]
) -> None:
    for key in line.keys() - {"op"}:
        # No list of modes or sizes is too short.
        empty: list[Any] = [None] if key in ("prepare", "sizes") else [None, []]
        for wrong in (*empty, {}, 1.5, -1, 1 << 70, "x" * 5000, [[1]], {"a": 1}):
            assert refusal(role, {**line, key: wrong}), key


def test_without_anything_wrong_the_host_is_touched() -> None:
    """The lines are right, so that what is refused above is refused for the one thing."""
    for role in AGENTS:
        assert "agent here is of another version" in refusal(
            role, {**LINES[role][0], "version": "x"}
        )
    taken = {
        key: value for key, value in LINES["forward"][0].items() if key not in ("op", "version")
    }
    taken.pop("prepare")
    assert lock.holder(taken) == "me@here 1 2 abc"
    assert config.place(taken).nat_policy == "fresh"
    assert taken == {}


@pytest.mark.parametrize(
    ("sizes", "cause"),
    [
        ([0], "sizes is not at most 64 numbers between 1 and 1073741824"),
        ([-1], "sizes is not at most 64 numbers between 1 and 1073741824"),
        ([1 << 31], "sizes is not at most 64 numbers between 1 and 1073741824"),
        ([312] * 65, "sizes is not at most 64 numbers between 1 and 1073741824"),
        ([312.0], "sizes is not a list of integers"),
    ],
)
def test_sizes_that_are_wrong(sizes: list[Any], cause: str) -> None:
    assert refusal("load", {**LINES["load"][2], "sizes": sizes}) == cause


class Endless(http.server.BaseHTTPRequestHandler):
    """Sends more than was asked for until nobody listens."""

    def do_GET(self) -> None:
        """Never end."""
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(65536))
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_payload_without_end_is_left() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        line = {"op": "fetch", "ip": "127.0.0.1", "port": server.server_port, "sizes": [312]}
        (found,) = load.Load().handle(line)["payloads"]
        assert 312 < found["received_bytes"] <= 312 + 65536
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Lines


@pytest.mark.parametrize(
    "line",
    [
        b'{"op": "renew", "op": "counters"}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"lease_s": NaN}',
        b'{"lease_s": Infinity}',
        b'{"a": [-Infinity]}',
    ],
)
def test_json_that_may_be_taken_for_something_else(line: bytes) -> None:
    with pytest.raises(HopError, match="configuration is not JSON"):
        protocol.decode(line)


def test_a_lease_is_a_time() -> None:
    lease = protocol.Lease()
    for huge in ("1e400", str(10**300)):
        protocol._renewing(protocol.decode(b'{"lease_s": %s}' % huge.encode()), lease)
        assert math.isfinite(lease.left_s) and lease.left_s <= protocol.MAX_LEASE_S


# What is told by standard input once


PORTS = {"lo": "02:00:00:00:00:01"}


def test_ports_of_a_wire() -> None:
    assert wire.wanted({"function": "hopbench_pass", "ports": dict(PORTS)}) == (
        PORTS,
        "hopbench_pass",
    )


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"function": "main"}, "function must be one of hopbench_wire, hopbench_pass"),
        ({"function": None}, "function is missing or not a str"),
        ({"ports": []}, "ports is not an object of at most 66 names"),
        ({"ports": {}}, "ports is not an object of at most 66 names"),
        ({"ports": {f"p{n}": PORTS["lo"] for n in range(67)}}, "ports is not an object of at most"),
        ({"ports": {"../lo": PORTS["lo"]}}, "port is not an interface name"),
        ({"ports": {"hb-none": PORTS["lo"]}}, "no NIC hb-none on this host"),
        *(
            ({"ports": {"lo": mac}}, "the MAC address of lo is none")
            for mac in (None, 1, "", "02:00:00:00:00", "02:00:00:00:00:0g", "02:00:00:00:00:01\n")
        ),
        ({"zz": 1}, "unknown key 'zz'"),
    ],
)
def test_a_wire_that_is_wrong(changes: dict[str, Any], cause: str) -> None:
    with pytest.raises(HopError) as caught:
        wire.wanted({"function": "hopbench_wire", "ports": dict(PORTS), **changes})
    assert caught.value.cause.startswith(cause)


def test_settings_of_datapath() -> None:
    for wanted in (Wanted(), Wanted(family=6, steps=True), Wanted(rounds=9), Wanted(quick=True)):
        told = json.loads(json.dumps(wanted.settings(2)))
        assert asdict(datapath.settings(dict(told))) == told
        for key in told:
            for wrong in (None, [], {}, -1, 1.5, 1 << 70, "4", [0], [True], ["1"]):
                if (key, wrong) in (("limit_s", 1.5), ("flows", [])):
                    continue
                with pytest.raises(HopError):
                    datapath.settings({**told, key: wrong})
        with pytest.raises(HopError, match="unknown key 'zz'"):
            datapath.settings({**told, "zz": 1})
        with pytest.raises(HopError, match="family is neither 4 nor 6"):
            datapath.settings({**told, "family": 5})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = sorted({key for lines in LINES.values() for line in lines for key in line})


@given(st.dictionaries(st.sampled_from([*KEYS, "function", "ports", "family", "x"]), JSON))
def test_whatever_comes_is_refused(message: dict[str, Any]) -> None:
    """None of these has a version that is right, or an address that chance would find."""
    for work in (
        *(make().handle for role, make in AGENTS.items()),
        *(wire.wanted, datapath.settings),
    ):
        try:
            answer = work(dict(message))
        except HopError as error:
            assert error.cause
        else:
            assert answer["event"] in ("ready", "counters", "clock")
