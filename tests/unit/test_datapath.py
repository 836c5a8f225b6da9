# SPDX-License-Identifier: Apache-2.0
"""`bench datapath` as far as it needs no kernel: what is asked for, frames, figures, tables."""

from __future__ import annotations

import io
import json
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from bench import datapath
from bench.commands.datapath import datapath_command
from bench.datapath import METHODS, PROGRAMS, Measured, Wanted, parse_flows
from bench.datapath_summary import summary
from bench.datapath_table import STEP_WORDS, render
from bench.errors import BenchError, UsageError
from bench.hop import datapath as hop_datapath
from bench.hop import segment
from bench.hop.compiler import SOURCES
from bench.hop.datapath_cases import (
    AT_RANDOM,
    HOP_PORT,
    IN_ORDER,
    LOOKUPS,
    MOST_FLOWS,
    PORTS,
    STEP_ENTRIES,
    STEPS,
    Case,
    Ends,
    shuffled_ports,
)
from bench.hop.errors import HopError

# What is asked for


@pytest.mark.parametrize(
    ("text", "flows"),
    [("1", (1,)), ("60000,1", (1, 60000)), ("5,5, 7", (5, 7)), (str(MOST_FLOWS), (MOST_FLOWS,))],
)
def test_flows(text: str, flows: tuple[int, ...]) -> None:
    assert parse_flows(text) == flows


@pytest.mark.parametrize("text", ["", "0", "-1", "1,", "x", "1.5", "1;2", str(MOST_FLOWS + 1)])
def test_flows_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="--flows"):
        parse_flows(text)


def test_how_much_is_measured() -> None:
    usual, quick = Wanted().amount, Wanted(quick=True).amount
    assert usual.loads * usual.rounds > quick.loads * quick.rounds >= 6
    assert usual.limit_s > quick.limit_s
    assert Wanted(steps=True).amount.limit_s > usual.limit_s
    asked = Wanted(rounds=500).amount
    assert 500 <= asked.loads * asked.rounds < 500 + asked.loads
    assert asked.calls == usual.calls
    assert asked.limit_s > 1e6  # as long as it takes


def test_settings_of_the_measuring_process() -> None:
    each = [hop_datapath.Settings(**Wanted().settings(load)) for load in range(2)]
    assert each[0].flows == [1, 1000, 60000]
    assert each[0].seed != each[1].seed


@pytest.mark.parametrize(
    "arguments", [("--rounds", "5"), ("--flows", "0"), ("--family", "5"), ("--flows", "1,70000")]
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(datapath_command, arguments)
    assert result.exit_code == 2 or isinstance(result.exception, UsageError)


def test_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(BenchError, match="needs root"):
        datapath.measure(Wanted(), print)


# Frames


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("flags", [segment.SYN, segment.SYN | segment.ACK, segment.ACK])
def test_frames_are_as_scapy_builds_them(family: int, flags: int) -> None:
    ends = Ends(family)
    source, dest = ends.next, ends.hop_at(12345)
    frame = segment.tcp(family, source, dest, flags)
    assert len(frame) == segment.FRAME_LEN[family]
    length = segment.FRAME_LEN[family] - 14 - segment.IP_LEN[family] - 20
    ip: Any = (
        IP(src=source.address, dst=dest.address, id=0, flags="DF")
        if family == 4
        else IPv6(src=source.address, dst=dest.address)
    )
    tcp = TCP(
        sport=source.port,
        dport=12345,
        seq=1,
        ack=1 if flags & segment.ACK else 0,
        flags=flags,
    )
    built = Ether(src=source.mac, dst=dest.mac) / ip / tcp / bytes(length)
    assert frame.hex(" ") == bytes(built).hex(" ")
    for at, port in (
        (segment.source_port_at(family), source.port),
        (segment.dest_port_at(family), dest.port),
    ):
        assert frame[at : at + 2] == port.to_bytes(2, "big")


def test_ports() -> None:
    ports = [socket.ntohs(port) for port in shuffled_ports(1)]
    assert sorted(ports) == [p for p in range(PORTS[0], PORTS[1] + 1) if p != HOP_PORT]
    assert len(ports) == MOST_FLOWS
    assert ports != sorted(ports)
    assert shuffled_ports(1) == shuffled_ports(1) != shuffled_ports(2)


def case(ports: list[int], **changes: Any) -> Case:
    """A case without a program to run."""
    return Case("forward", -1, b"", ports, 3, **changes)


def test_flows_take_turns() -> None:
    three = case([7, 8, 9])
    assert three.flows == 3
    assert three.take(2) + three.take(3) == [7, 8, 9, 7, 8]
    three.make_room()  # nothing to do: its flows are known
    assert three.take(1) == [9]


def test_fresh_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """No port comes twice before the tables are emptied."""
    seen: Counter[int] = Counter()
    emptied: list[None] = []

    def forget(_: object) -> None:
        seen.clear()
        emptied.append(None)

    monkeypatch.setattr("bench.hop.datapath_cases.forget_flows", forget)
    fresh = case(list(range(100)), program=object(), fresh=True)
    assert fresh.flows == 1
    for _ in range(50):
        fresh.make_room()
        seen.update(fresh.take(30))
        assert max(seen.values()) == 1
    assert len(emptied) == 50


class Counted:
    """A forwarder that counts something, per call of `counters`."""

    def __init__(self, *counts: dict[str, int]) -> None:
        self._counts = list(counts)

    def counters(self) -> dict[str, int]:
        return self._counts.pop(0)


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ({"forwarded": 15, "bytes": 640, "passed": 2}, None),
        ({"forwarded": 14, "bytes": 640, "passed": 2}, "of 10 packets .* forwarded 9"),
        ({"forwarded": 15, "bytes": 640, "passed": 3}, "passed 1"),
        ({"forwarded": 5, "bytes": 0, "passed": 2}, "bytes 0, forwarded 0"),
    ],
)
def test_what_the_forwarder_counted_is_checked(after: dict[str, int], told: str | None) -> None:
    program = Counted({"forwarded": 5, "bytes": 0, "passed": 2}, after)
    counted = case([1], program=program, counts={"forwarded": 1, "bytes": 64})

    def observe() -> None:
        with hop_datapath._counted(counted) as packets:
            packets += [3, 7]

    if told is None:
        observe()
        return
    with pytest.raises(HopError, match=told):
        observe()


# Figures


FIGURES = {
    "empty": 50,
    "reflector": 52,
    "router": 150,
    "forward": 60,
    "return": 58,
    "new-flow": 450,
}


def measured(
    rounds: int = 8,
    *,
    loads: int = 1,
    steps: bool = False,
    methods: tuple[str, ...] = METHODS,
    noise: Callable[[int], float] = float,
    **said: Any,
) -> Measured:
    """Events as measuring processes send them. noise: what all take longer, by the round."""
    found = Measured()
    for load in range(loads):
        found.take(load, {"event": "ready", "cpu": 1})
        for method in methods:
            for number in range(rounds):
                more = noise(load * rounds + number)
                cases = [
                    {"name": name, "flows": flows, "ns": ns + more, "packets": 100}
                    for name, flows, ns in (
                        *((name, 1, ns) for name, ns in FIGURES.items()),
                        *(("forward", flows, 120) for flows in (1000, 60000)),
                        (IN_ORDER, 60000, 66),
                        (AT_RANDOM, 1, 600),
                        *_step_figures(steps and method == "test_run"),
                    )
                ]
                found.take(load, {"event": "round", "method": method, "cases": cases})
        usual = {"live": len(methods) == 2, "lost": 0, "run_s": 30.0, "wait_s": 0.1}
        found.take(load, {"event": "done", **usual, **said})
    return found


def _step_figures(wanted: bool) -> list[tuple[str, int, int]]:
    if not wanted:
        return []
    return [
        (f"step {name}", count, 70)
        for count in STEP_ENTRIES
        for name in (STEPS if count == 1 else LOOKUPS)
    ]


def test_programs() -> None:
    found = summary(measured(), Wanted())
    expected = [(method, name) for method in METHODS for name in PROGRAMS]
    assert [(item["method"], item["name"]) for item in found["programs"]] == expected
    for item in found["programs"]:
        assert set(item) == {"name", "method", "ns", "ci95", "n"}
        low, high = item["ci95"]
        assert (low, item["ns"], high) == tuple(FIGURES[item["name"]] + by for by in (0, 3.5, 7))
        assert item["n"] == 8
    assert found["packets"] == {"test_run": 100, "live": 100}
    assert found["notes"] == []
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_all_have_in_common_cancels_out() -> None:
    """Differences and quotients are those of each round: what slows a whole round is not seen."""
    found = summary(measured(noise=lambda number: 50.0 * (number % 2)), Wanted())
    for item in found["net"]:
        due = float(FIGURES[item["name"]] - FIGURES["empty"])
        assert (item["ns"], item["ci95"]) == (due, [due, due])
    nets = {item["a"]: item for item in found["ratios"] if item["of"] == "net"}
    assert nets["forward"]["ratio"] == 0.1
    assert nets["new-flow"]["ratio_ci95"] == [4.0, 4.0]
    pairs = {(item["a"], item["b"], item["of"]) for item in found["ratios"]}
    assert ("forward", "reflector", "ns") in pairs
    assert ("forward", "reflector", "net") not in pairs


def test_flows_over_one() -> None:
    wanted = Wanted(flows=(1, 60000))
    found = summary(measured(noise=lambda _: 0.0), wanted)["flows"]
    keys = ("method", "name", "flows", "order", "ratio")
    rows = [
        ("forward", 1, "random", 1.0),
        ("forward", 60000, "random", 2.0),
        ("forward", 60000, "memory", 1.1),
        ("new-flow", 1, "memory", round(FIGURES["new-flow"] / FIGURES["forward"], 3)),
        ("new-flow", 1, "random", 10.0),
    ]
    assert [tuple(item[key] for key in keys) for item in found] == [
        (method, *row) for method in METHODS for row in rows
    ]


def test_loads() -> None:
    found = summary(measured(6, loads=3, noise=lambda number: 10.0 * (number // 6)), Wanted())
    by_load = {(item["method"], item["name"]): item["ns"] for item in found["loads"]}
    assert by_load["live", "empty"] == [50, 60, 70]
    assert {item["n"] for item in found["programs"]} == {18}
    text = " ".join(rendered(found).split())
    assert "Loaded 3 times; between loads a program differs by up to 20.0 ns" in text


def test_steps_are_above_the_empty_program() -> None:
    assert "steps" not in summary(measured(), Wanted())
    found = summary(measured(steps=True), Wanted(steps=True))["steps"]
    assert {item["ns"] for item in found} == {20.0}
    assert [(i["name"], i["entries"]) for i in found if i["name"] in ("key", "array", "fib")] == [
        ("key", 1),
        ("array", 1),
        ("array", 60000),
        ("fib", 1),
    ]


def test_nothing_to_divide_by() -> None:
    """A program may take no longer than the empty one."""
    found = measured()
    for method in METHODS:
        found.ns[method, "router", 1] = list(found.ns[method, "empty", 1])
    nets = [item for item in summary(found, Wanted())["ratios"] if item["of"] == "net"]
    assert {item["ratio"] for item in nets} == {None}
    assert "-" in rendered(summary(found, Wanted()))


@pytest.mark.parametrize(
    ("facts", "note"),
    [
        ({"live": False}, "no live frames: they need Linux 5.18 or later"),
        ({"lost": 12}, "12 live frames were lost"),
        ({"wait_s": 10.0}, "the machine was not idle: others had the CPU for 25% of the time"),
    ],
)
def test_notes(facts: dict[str, Any], note: str) -> None:
    found = summary(measured(**facts), Wanted())
    assert any(text.startswith(note) for text in found["notes"])
    assert f"Warning: {note}" in rendered(found)


def test_without_live_frames() -> None:
    found = summary(measured(methods=("test_run",)), Wanted())
    assert {item["method"] for item in found["programs"]} == {"test_run"}
    assert "live frames" not in rendered(found).replace("no live frames", "")


def test_an_error_of_the_measuring_process() -> None:
    with pytest.raises(BenchError) as caught:
        Measured().take(0, {"event": "error", "cause": "no BCC", "remedy": "install it"})
    assert caught.value.one_line() == "no BCC (install it)"


# Tables


def rendered(found: dict[str, Any]) -> str:
    """What a terminal of 80 columns shows."""
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(render(found))
    return capture.get()


def test_tables() -> None:
    text = rendered(summary(measured(steps=True), Wanted(steps=True)))
    assert "…" not in text
    rows = {words[0]: words for words in map(str.split, text.splitlines()) if words}
    assert rows["forward"][:4] == ["forward", "63.5", "[60.0,", "67.0]"]
    assert rows["60,000"][0] == "60,000"
    for words in STEP_WORDS.values():
        assert words in text
    assert "8 rounds of 100 packets (live frames)" in " ".join(text.split())


def test_every_step_has_words_and_a_program() -> None:
    assert tuple(STEP_WORDS) == STEPS
    source = Path(SOURCES / "steps.c").read_text()
    assert all(f"PROGRAM int step_{name}(" in source for name in STEPS)
