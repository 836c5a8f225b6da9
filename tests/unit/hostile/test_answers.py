# SPDX-License-Identifier: Apache-2.0
"""What the controller takes from anybody's agent: an answer to the question, or one line."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answering import ANSWERS, speaking
from fuzzing import Mutator, fuzz, values
from hypothesis import strategies as st
from recorded import packed

from bench import (
    clocks,
    connections,
    tables,
)
from bench.answers import MAX_LINE_BYTES, MAX_WORDS
from bench.errors import BenchError, HostsError
from bench.trace import Joiner, as_json, event_of, one_line


def answered(kind: str, line: bytes) -> dict[str, Any] | None:
    """Ask a question that is answered by a line; return the answer, None where it is refused."""
    role, question, _ = ANSWERS[kind]
    with speaking(role) as (agent, its):
        agent.send(question)
        # Beside, because a long one has to be taken for the rest to be sent.
        thread = threading.Thread(target=its.sendall, args=(line + b"\n",))
        thread.start()
        try:
            return agent.receive(5.0)
        except BenchError as error:
            for said in (error.one_line(), HostsError.of([error, error]).one_line()):
                assert said.isprintable()
                assert len(said) < 4 * MAX_WORDS
            assert error.host == "client"
            return None
        finally:
            thread.join()


def use(kind: str, answer: Mapping[str, Any], folder: Path) -> None:
    """Make of an answer what the controller makes of it; whatever is wrong is a BenchError."""
    if kind == "trace":
        joiner = Joiner([("198.18.0.2", 7000)])
        events = [event_of(0, said, answer) for said in answer["packets"]]
        for journey in [*joiner.round(events), *joiner.rest()]:
            assert one_line(journey, ["hop1"]).isprintable()
            json.dumps(as_json(journey, ["hop1"]), allow_nan=False)
    elif kind == "keeper":
        clocks.parse_tracking(answer["chrony"] or "")
    elif kind == "connections":
        with contextlib.suppress(ValueError):
            found = connections.gather(lambda: {**answer, "more": False})
            tables.add_connections(folder, "001-0001", connections.columns(found, 624))


@pytest.mark.parametrize("kind", ANSWERS)
def test_any_answer(kind: str, tmp_path: Path) -> None:
    good = ANSWERS[kind][2]
    assert answered(kind, json.dumps(good).encode()) == good

    def check(changes: list[tuple[int, str, Any]]) -> None:
        line = json.dumps(Mutator(good).apply(changes)).encode()
        answer = answered(kind, line)
        if answer is not None:
            json.dumps(answer, allow_nan=False)
            use(kind, answer, tmp_path)

    fuzz(check, Mutator.changes, examples=20)


def test_any_line() -> None:
    pieces = st.sampled_from(
        [
            b"{",
            b"}",
            b'"event"',
            b":",
            b'"error"',
            b'"cause"',
            b"[",
            b",",
            b"NaN",
            b"1e400",
            b"\xff",
        ]
    )

    def check(kind: str, parts: list[bytes]) -> None:
        answered(kind, b"".join(parts).replace(b"\n", b""))

    lines = st.lists(pieces | st.binary(max_size=20), max_size=12)
    fuzz(check, st.sampled_from(list(ANSWERS)), lines, examples=70)


def test_any_error() -> None:
    def check(kind: str, cause: Any, remedy: Any, reason: Any, holder: Any) -> None:
        said = {"event": kind, "cause": cause, "remedy": remedy, "reason": reason, "holder": holder}
        assert answered("ready", json.dumps(said).encode()) is None

    fuzz(check, st.sampled_from(["error", "stopped"]), values, values, values, values, examples=50)


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b'{"event": "ready", "x": 1e999}'],
    ids=["lists", "objects", "digits", "infinity"],
)
def test_lines_that_are_too_much(line: bytes) -> None:
    assert answered("ready", line) is None


@pytest.mark.parametrize("trickle", [False, True])
def test_a_line_without_an_end(trickle: bool) -> None:
    """Much at once is too long, and a little at a time comes too late."""
    with speaking("load") as (agent, its):
        over = threading.Event()

        def speak() -> None:
            with contextlib.suppress(OSError):
                while not over.is_set():
                    its.sendall(b"x" if trickle else b"x" * 65536)
                    time.sleep(0.01 if trickle else 0)

        thread = threading.Thread(target=speak)
        thread.start()
        begin = time.monotonic()
        try:
            agent.send({"op": "renew"})
            with pytest.raises(BenchError) as caught:
                agent.receive(0.3 if trickle else 30.0)
        finally:
            over.set()
            agent._channel.close()
            thread.join()
    said = "no answer from the agent within 0 s" if trickle else "the agent's answer is too long"
    assert caught.value.cause == said
    assert time.monotonic() - begin < 10.0


def test_an_answer_that_comes_late_is_not_the_next_ones() -> None:
    with speaking("forward") as (agent, its):
        agent.send({"op": "renew"})
        with pytest.raises(BenchError, match="no answer"):
            agent.receive(0.01)
        good = ANSWERS["counters"][2]
        agent.send({"op": "counters"})
        its.sendall(b'{"event": "ready"}\n' + json.dumps(good).encode() + b"\n")
        assert agent.receive() == good


def test_records_that_inflate() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(1 << 28), 9)).decode()
    assert len(bomb) < MAX_LINE_BYTES

    def check(data: str) -> None:
        with pytest.raises(ValueError, match="more than 20000 records in one answer"):
            connections.unpack(data)

    fuzz(check, st.just(bomb), examples=1)


def test_records_without_end() -> None:
    answer = {"data": packed(b""), "more": True}
    with pytest.raises(ValueError, match="more than 200 answers"):
        connections.gather(lambda: answer)


def test_any_records(tmp_path: Path) -> None:
    """Of any octets they become a table, and nothing that warns of an overflow."""

    def check(data: bytes) -> None:
        found = connections.unpack(packed(data[: len(data) // 40 * 40]))
        with np.errstate(all="raise"):
            rate = connections.rate_per_s(found)
            columns = connections.columns(found, 624)
        assert rate is None or rate > 0
        assert all(each >= 0 for each in columns["start_s"])
        tables.add_connections(tmp_path, "001-0001", columns)

    fuzz(check, st.binary(max_size=200) | st.binary(min_size=40, max_size=40), examples=20)
