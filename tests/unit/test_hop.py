# SPDX-License-Identifier: Apache-2.0
"""The agent as far as it needs no lab: its configuration, its protocol, its sources."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import paths
from bench.cells import MODES as CONTROLLER_MODES
from bench.hop import compiler, config, forward, load, net, process, protocol, serve, version, xdp
from bench.hop.errors import HopError
from bench.hop.modes import MODES
from bench.hop.nft import NftForwarder
from bench.hop.socat import SocatForwarder

REPOSITORY = Path(__file__).parents[2]
PLACE = {"data_nic": "lo", "data_ip": "198.18.0.2", "forward_port": 7000}
TARGET = {"mode": "nft", "next_ip": "198.18.0.3", "next_port": 8000}


def fails(work: Any, *arguments: Any) -> HopError:
    """Return the error that a call ends with; its cause is a phrase."""
    with pytest.raises(HopError) as caught:
        work(*arguments)
    assert caught.value.cause
    assert not caught.value.cause.endswith(".")
    return caught.value


# Configuration


def test_a_place_and_a_target() -> None:
    assert config.place(dict(PLACE)) == config.Place("lo", "198.18.0.2", 7000)
    assert config.target(dict(TARGET)) == config.Target("nft", "native", "198.18.0.3", 8000)
    generic = {**TARGET, "mode": "xdp", "attach": "generic"}
    assert config.target(generic) == config.Target("xdp", "generic", "198.18.0.3", 8000)
    assert config.target({"mode": "direct"}) is None


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        ("data_nic", None, "data_nic is missing or not a str"),
        ("data_nic", 7, "data_nic is missing or not a str"),
        ("data_nic", ["lo"], "data_nic is missing or not a str"),
        ("data_nic", "", "data_nic is not an interface name"),
        ("data_nic", "a" * 16, "data_nic is not an interface name"),
        ("data_nic", "ö" * 8, "data_nic is not an interface name"),
        ("data_nic", "a b", "data_nic is not an interface name"),
        ("data_nic", "lo\n", "data_nic is not an interface name"),
        ("data_nic", "../net/lo", "data_nic is not an interface name"),
        ("data_nic", "/lo", "data_nic is not an interface name"),
        ("data_nic", ".", "no NIC . on this host"),
        ("data_nic", "..", "no NIC .. on this host"),
        ("data_nic", "hb-none", "no NIC hb-none on this host"),
        ("data_nic", "lo\0", "no NIC lo\0 on this host"),
        ("data_nic", "\ud800", "no NIC \ud800 on this host"),
        ("data_ip", None, "data_ip is missing or not a str"),
        ("data_ip", 3323068418, "data_ip is missing or not a str"),
        ("data_ip", "198.18.0.256", "data_ip is not an IPv4 address"),
        ("data_ip", "198.18.0.2/24", "data_ip is not an IPv4 address"),
        ("data_ip", "198.18.0.2\n", "data_ip is not an IPv4 address"),
        ("data_ip", "fd00::2", "data_ip is not an IPv4 address"),
        ("data_ip", "", "data_ip is not an IPv4 address"),
        ("data_ip", "0.0.0.0", "data_ip is not a host's address"),
        ("data_ip", "224.0.0.1", "data_ip is not a host's address"),
        ("data_ip", "255.255.255.255", "data_ip is not a host's address"),
        ("forward_port", None, "forward_port is missing or not a int"),
        ("forward_port", "7000", "forward_port is missing or not a int"),
        ("forward_port", 7000.0, "forward_port is missing or not a int"),
        ("forward_port", True, "forward_port is missing or not a int"),
        ("forward_port", 0, "forward_port is not between 1 and 65535"),
        ("forward_port", 65536, "forward_port is not between 1 and 65535"),
        ("forward_port", -1, "forward_port is not between 1 and 65535"),
    ],
)
def test_a_place_that_is_wrong(key: str, value: object, cause: str) -> None:
    assert fails(config.place, {**PLACE, key: value}).cause == cause
    if value is None:
        assert fails(config.place, {k: v for k, v in PLACE.items() if k != key}).cause == cause


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"mode": "tcp"}, "mode must be one of direct, socat, nft, xdp"),
        ({"mode": ""}, "mode must be one of direct, socat, nft, xdp"),
        ({"mode": None}, "mode is missing or not a str"),
        ({"mode": ["xdp"]}, "mode is missing or not a str"),
        ({"mode": "direct"}, "unknown key 'next_ip' in the configuration"),
        ({"attach": "skb"}, "attach must be one of native, generic"),
        ({"attach": None}, "attach is missing or not a str"),
        ({"next_ip": "nowhere"}, "next_ip is not an IPv4 address"),
        ({"next_port": 0}, "next_port is not between 1 and 65535"),
        ({"next_port": "8000; reboot"}, "next_port is missing or not a int"),
        ({"next_prot": 1}, "unknown key 'next_prot' in the configuration"),
    ],
)
def test_a_target_that_is_wrong(changes: dict[str, object], cause: str) -> None:
    assert fails(config.target, {**TARGET, **changes}).cause == cause


@pytest.mark.parametrize("value", [0, 11, -1, "5", 5.0, None, True])
def test_numbers_out_of_range(value: object) -> None:
    assert config.number({"n": 10}, "n", 1, 10, 0) == 10
    assert config.number({}, "n", 1, 10, 7) == 7
    assert "n is " in fails(config.number, {"n": value}, "n", 1, 10, 5).cause


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*PLACE, *TARGET, "attach", "op", "x"]), JSON))
def test_any_configuration_is_taken_or_refused(message: dict[str, Any]) -> None:
    for work in (config.place, config.target, forward.Agent().handle, load.Load().handle):
        try:
            work(dict(message))
        except HopError as error:
            assert error.cause


# The registry of modes


@pytest.mark.parametrize("mode", [mode for mode in MODES if MODES[mode].hops])
def test_every_mode_has_a_forwarder(mode: str) -> None:
    module, _, name = MODES[mode].forwarder.partition(":")
    assert (paths.hop_package() / f"{module}.py").is_file()
    found = forward._forwarder_class(mode)
    assert found.__name__ == name
    for method in ("prepare", "start", "counters", "stop"):
        assert callable(getattr(found, method))


def test_the_controller_knows_the_same_modes() -> None:
    assert list(CONTROLLER_MODES) == list(MODES)


# The forwarding agent, with a forwarder that only notes what is asked of it


class Noted:
    """A forwarder that does nothing."""

    log: list[str]
    broken = False

    def __init__(self, place: config.Place) -> None:
        self.log.append(f"made on {place.data_nic}")

    def prepare(self) -> None:
        self.log.append("prepared")

    def start(self, target: config.Target) -> dict[str, object]:
        if self.broken:
            raise HopError("does not start")
        self.log.append(f"{target.mode} to {target.next_ip}:{target.next_port}")
        return {"fact": 1}

    def counters(self) -> dict[str, int]:
        return {"flows_opened": 3}

    def stop(self) -> None:
        self.log.append("stopped")


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> forward.Agent:
    """Return an agent all of whose modes are `Noted`."""
    monkeypatch.setattr(Noted, "log", [], raising=False)
    monkeypatch.setattr(Noted, "broken", False)
    monkeypatch.setattr(forward, "_forwarder_class", lambda mode: Noted)
    return forward.Agent()


def placed(**changes: object) -> dict[str, Any]:
    """Return the first line of a conversation."""
    return {"op": "place", "version": version.digest(), **PLACE, **changes}


def test_a_conversation(agent: forward.Agent) -> None:
    answers = [
        agent.handle(message)
        for message in (
            placed(prepare=["xdp", "direct"]),
            {"op": "counters"},
            dict(TARGET),
            {"op": "counters"},
            {"op": "renew"},
            {**TARGET, "mode": "xdp", "next_port": 7000},
            {"mode": "direct"},
            {"op": "counters"},
        )
    ]
    assert answers == [
        {"event": "ready", "pid": os.getpid(), "modes": sorted(MODES)},
        {"event": "counters", "mode": "direct", "counters": {}},
        {"event": "ready", "mode": "nft", "fact": 1},
        {"event": "counters", "mode": "nft", "counters": {"flows_opened": 3}},
        {"event": "ready"},
        {"event": "ready", "mode": "xdp", "fact": 1},
        {"event": "ready", "mode": "direct"},
        {"event": "counters", "mode": "direct", "counters": {}},
    ]
    assert Noted.log[:3] == ["made on lo", "prepared", "stopped"]
    assert Noted.log.count("made on lo") == 2
    assert Noted.log[-2:] == ["stopped", "stopped"]


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ({"op": "reboot"}, "unknown operation"),
        ({"op": ["place"]}, "unknown operation"),
        (dict(TARGET), "the agent was not told its place yet"),
        ({"op": "renew", "x": 1}, "unknown key 'x' in the configuration"),
        ({"op": "counters", "x": 1}, "unknown key 'x' in the configuration"),
        (placed(x=1), "unknown key 'x' in the configuration"),
        (placed(prepare="xdp"), "prepare is not a list of modes"),
        (placed(prepare=["tcp"]), "prepare is not a list of modes"),
        (placed(prepare=[["xdp"]]), "prepare is not a list of modes"),
        (placed(version="another"), "the agent here is of another version"),
        (placed(version=None), "version is missing or not a str"),
        (placed(data_nic="hb-none"), "no NIC hb-none on this host"),
        ({}, "mode must be one of direct, socat, nft, xdp"),
    ],
)
def test_what_an_agent_refuses(agent: forward.Agent, message: dict[str, Any], cause: str) -> None:
    assert fails(agent.handle, message).cause == cause


def test_a_mode_that_does_not_start_leaves_none_active(agent: forward.Agent) -> None:
    agent.handle(placed())
    agent.handle(dict(TARGET))
    Noted.broken = True
    assert fails(agent.handle, dict(TARGET)).cause == "does not start"
    assert agent.handle({"op": "counters"})["mode"] == "direct"


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ({"op": "siege"}, "ip is missing or not a str"),
        ({"op": "siege", "ip": "198.18.0.2", "port": 7000}, "size_bytes is not between 1 and"),
        ({"op": "fetch", "ip": "198.18.0.2", "port": 7000}, "sizes is not a list of integers"),
        (
            {"op": "fetch", "ip": "198.18.0.2", "port": 7000, "sizes": [True]},
            "sizes is not a list of integers",
        ),
        ({"op": "fetch", "ip": "-x", "port": 7000, "sizes": []}, "ip is not an IPv4 address"),
        ({"op": "place"}, "version is missing or not a str"),
        ({}, "unknown operation"),
    ],
)
def test_what_the_client_refuses(message: dict[str, Any], cause: str) -> None:
    assert fails(load.Load().handle, message).cause.startswith(cause)


def test_what_the_server_refuses() -> None:
    server = serve.Server()
    assert fails(server.handle, {"op": "renew"}).cause == "nginx has ended"
    assert fails(server.handle, {}).cause == "unknown operation"
    assert fails(server.handle, {"op": "place"}).cause == "version is missing or not a str"


# The protocol, through real pipes

ECHO = f"""
import sys, time
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
    time.sleep(float(sys.argv[1]))
    print("stop", file=sys.stderr, flush=True)

sys.exit(protocol.serve(handle, stop))
"""


@pytest.fixture
def echo() -> Iterator[subprocess.Popen[bytes]]:
    """Yield an agent that answers every line with what it holds."""
    with start_echo() as process:
        yield process
        process.kill()


def start_echo(stop_s: float = 0.0) -> subprocess.Popen[bytes]:
    """Start an agent whose clean-up takes `stop_s`."""
    return subprocess.Popen(
        [sys.executable, "-I", "-c", ECHO, str(stop_s)],
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
    with start_echo(stop_s=0.2) as process:
        assert tell(process, b'{"a": 1}') == READY
        process.send_signal(number)
        time.sleep(0.05)
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
    # One second is the least a lease lasts.
    assert 1.0 <= time.monotonic() - begin < 3.0
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


# Sources


def test_a_source_has_each_include_once(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text('#include "b.h"\n#include "c.h"\nint a;\n')
    (tmp_path / "b.h").write_text('#include "c.h"\n#include <linux/if.h>\nint b;\n')
    (tmp_path / "c.h").write_text('#include "a.c"\nint c; // #include "d.h"\n')
    text = compiler.flatten("a.c", tmp_path)
    assert [line for line in text.splitlines() if line and not line.startswith("#line")] == [
        'int c; // #include "d.h"',
        "#include <linux/if.h>",
        "int b;",
        "int a;",
    ]
    assert re.findall(r'#line 1 "(.*)"', text) == ["a.c", "b.h", "c.h"]


def test_a_source_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text('#include "b.h"\n')
    for name, missing in (("a.c", "b.h"), ("x.c", "x.c")):
        error = fails(compiler.flatten, name, tmp_path)
        assert (error.cause, error.remedy) == (
            f"BPF source {missing} is missing",
            "run bench deploy",
        )


@pytest.mark.parametrize("name", ["forwarder.c", "wire.c"])
def test_our_own_sources(name: str) -> None:
    assert paths.data_dir("bpf") == compiler.SOURCES
    text = compiler.flatten(name)
    assert not re.findall(r'^#include "', text, re.MULTILINE)
    pasted = re.findall(r'^#line 1 "(.*)"$', text, re.MULTILINE)
    assert len(pasted) == len(set(pasted))
    assert pasted[0] == name


def test_counters_are_those_of_the_c_structure() -> None:
    text = compiler.flatten("forwarder.c")
    macro = text[text.index("#define COUNTERS(X)") :].split("\n\n")[0]
    listed = [line.split("(")[1].split(")")[0] for line in macro.splitlines()[1:]]
    assert xdp.counter_names() == listed
    assert len(set(listed)) == len(listed)
    assert {"flows_opened", "forwarded_packets", "dropped_no_route"} <= set(listed)
    for name in listed:
        assert re.search(rf"\b{name}\b", text.replace(macro, "")), f"{name} is never counted"


@pytest.mark.parametrize(
    ("ephemeral", "expected"),
    [
        ((32768, 60999), (1024, 32767)),
        ((10000, 30000), (30001, 65535)),
        ((1024, 32767), (32768, 65535)),
        ((2048, 65535), (1024, 2047)),
        ((1, 64511), (64512, 65535)),
        ((1, 500), (1024, 65535)),
        ((65535, 65535), (1024, 65534)),
        ((33280, 33280), (1024, 33279)),
    ],
)
def test_ports_for_flows(ephemeral: tuple[int, int], expected: tuple[int, int]) -> None:
    low, high = xdp.port_range(ephemeral)
    assert (low, high) == expected
    assert not {low, high} & set(range(ephemeral[0], ephemeral[1] + 1))


@pytest.mark.parametrize(
    "ephemeral", [(1, 65535), (1, 64512), (1024, 65535), (2047, 65535), (2047, 64513)]
)
def test_no_ports_for_flows(ephemeral: tuple[int, int]) -> None:
    error = fails(xdp.port_range, ephemeral)
    assert "net.ipv4.ip_local_port_range leaves no ports" in error.cause
    assert error.remedy == "narrow it to half its size"


def test_a_version_is_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = version.digest()
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    for file in compiler.SOURCES.glob("*.[ch]"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(version, "SOURCES", tmp_path)
    version.digest.cache_clear()
    try:
        assert version.digest() == first
        with (tmp_path / "nat.h").open("a") as file:
            file.write("\n")
        version.digest.cache_clear()
        assert version.digest() != first
    finally:
        version.digest.cache_clear()


# This host


def test_counters_of_this_host() -> None:
    before = net.tcp_counters()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        listener.accept()[0].close()
    after = net.tcp_counters()
    assert before.keys() == after.keys()
    assert after["PassiveOpens"] > before["PassiveOpens"]
    assert after["ActiveOpens"] > before["ActiveOpens"]


def test_ephemeral_ports_of_this_host() -> None:
    low, high = net.ephemeral_ports()
    assert 0 < low < high < 65536


def test_ports_that_are_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        error = fails(net.require_free_port, "127.0.0.1", port)
        assert error.cause == f"port {port} is taken by another program"
    net.require_free_port("127.0.0.1", port)
    error = fails(net.require_free_port, "198.18.255.254", port)
    assert error.cause == "198.18.255.254 is not an address of this host"


@pytest.mark.parametrize(
    ("device", "gateway", "states", "cause"),
    [
        ("eth0", None, ["REACHABLE"], ""),
        ("eth0", None, ["STALE"], ""),
        ("eth0", "198.18.0.9", ["PERMANENT"], ""),
        ("eth1", None, ["REACHABLE"], "the way to 127.0.0.1 leaves by eth1, not eth0"),
        ("eth0", None, ["FAILED"], "next hop 127.0.0.1 does not answer ARP on eth0"),
        ("eth0", "198.18.0.9", [], "next hop 198.18.0.9 does not answer ARP on eth0"),
    ],
)
def test_the_next_hop_answers_or_not(
    monkeypatch: pytest.MonkeyPatch, device: str, gateway: str | None, states: list[str], cause: str
) -> None:
    route = {"dev": device} | ({"gateway": gateway} if gateway else {})

    def answer(*arguments: str) -> Any:
        if arguments[:2] == ("route", "get"):
            return [route]
        assert arguments == ("neigh", "show", "to", gateway or "127.0.0.1", "dev", "eth0")
        return [{"state": states}] if states else []

    monkeypatch.setattr(net, "ip_json", answer)
    monkeypatch.setattr(net, "NEIGHBOUR_LIMIT_S", 0.05)
    if cause:
        assert fails(net.resolve, "127.0.0.1", "eth0").cause == cause
    else:
        net.resolve("127.0.0.1", "eth0")


def test_what_is_not_installed() -> None:
    error = fails(process.tool, "no-such-program")
    assert (error.cause, error.remedy) == ("no-such-program is not installed", "run bench deploy")


def test_forwarders_that_were_not_started() -> None:
    place = config.Place("lo", "127.0.0.1", 7000)
    for forwarder in (SocatForwarder(place), NftForwarder(place)):
        assert forwarder.counters()["flows_opened"] == 0
        forwarder.stop()
        forwarder.stop()


class FakeNft:
    """libnftables' answers, in place of the kernel's."""

    def __init__(self, refuse: str = "") -> None:
        self.said: list[str] = []
        self.refuse = refuse

    def cmd(self, text: str) -> tuple[int, str, str]:
        self.said.append(text)
        if text.startswith("list table"):
            return (0, "{}", "") if self.refuse == "table" else (1, "", "No such file")
        if text.startswith("list counters"):
            counter = {"counter": {"name": "flows", "packets": 4}}
            other = {"counter": {"name": "masqueraded", "packets": 3}}
            return 0, json.dumps({"nftables": [{"metainfo": {}}, counter, other]}), ""
        return (1, "", "Error: syntax error\nadd\n^^^") if self.refuse == "rules" else (0, "", "")


@pytest.mark.parametrize(
    ("refuse", "cause"),
    [
        ("", ""),
        ("table", "an nft table named hopbench is already there"),
        ("rules", "nft refuses the rules: Error: syntax error"),
    ],
)
def test_what_nft_is_told(monkeypatch: pytest.MonkeyPatch, refuse: str, cause: str) -> None:
    monkeypatch.setattr(net, "require_forwarding", lambda nic: None)
    monkeypatch.setattr(net, "require_free_port", lambda address, port: None)
    forwarder = NftForwarder(config.Place("eth0", "198.18.0.2", 7000))
    nft = FakeNft(refuse)
    forwarder._nft = nft
    target = config.Target("nft", "native", "198.18.0.3", 8000)
    if cause:
        assert fails(forwarder.start, target).cause == cause
        forwarder.stop()
        # What is another's stays.
        assert not [text for text in nft.said if text.startswith("delete")]
        return
    assert forwarder.start(target) == {"table": "hopbench"}
    assert "ip daddr 198.18.0.2 tcp dport 7000" in nft.said[-1]
    assert "dnat to 198.18.0.3:8000" in nft.said[-1]
    assert "flags owner" in nft.said[-1]
    assert forwarder.counters() == {"flows_opened": 4, "flows_masqueraded": 3}
    forwarder.stop()
    assert nft.said[-1] == "delete table ip hopbench"


def test_a_child_ends_with_its_agent() -> None:
    code = (
        f"import sys, time; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from bench.hop import process\n"
        "print(process.spawn(['/bin/sleep', '60']).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}/comm").read_text() == "sleep\n"
        parent.kill()
    until = time.monotonic() + 5
    while alive(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(child)


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_children_are_waited_for() -> None:
    quick = process.spawn(["/bin/sh", "-c", "echo why >&2; exit 3"])
    assert not process.wait_for(lambda: False, 5.0, quick)
    assert quick.stderr is not None
    assert (quick.wait(), quick.stderr.read()) == (3, b"why\n")
    process.end(quick)
    slow = process.spawn(["/bin/sleep", "60"])
    assert not process.wait_for(lambda: False, 0.05, slow)
    assert process.wait_for(lambda: True, 0.05, slow)
    process.end(slow)
    assert slow.returncode == -signal.SIGKILL
    process.end(slow)
