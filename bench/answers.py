# SPDX-License-Identifier: Apache-2.0
"""What an agent may answer to each question, checked before anything is made of it.

An agent runs on a host that may be anybody's. What it says becomes figures, columns, files and
lines on a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Record = Mapping[str, Any]

# Six times a megabyte of siege's output, each character of it escaped, and room to spare.
MAX_LINE_BYTES = 8 << 20
# Of what it says of itself, what one line may show.
MAX_WORDS = 500

_MAX_NAME = 128
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_NAMES = 20_000
_MAX_NUMBER = 1 << 64
_MAX_OUTPUT = 1 << 20
_YEAR_9999_S = 253_402_300_799
_ENDS = (str, int, str, int)
_SEEN = {
    **dict.fromkeys(("ns", "seq", "ack", "length", "id", "ttl"), int),
    **dict.fromkeys(("protocol", "flags", "verdict", "reason"), str),
}


class Unexpected(ValueError):
    """An answer that is none to the question; the argument says what is wrong with it."""


def check(role: str, question: Record, answer: Record) -> None:
    """Raise Unexpected unless this answers the question. role: the agent's (bench/hop)."""
    operation = question.get("op", "configure")
    kind = _KINDS.get(operation, "ready")
    if operation == "trace" and not question.keys().isdisjoint(("port", "per_second", "mask")):
        kind = "ready"
    _require(answer.get("event") == kind, f"an event that is not {kind}")
    if kind in _CHECKS:
        _CHECKS[kind](role, question, answer)
    if operation == "offloads":
        _require(isinstance(answer.get("offloads"), dict), "offloads")


def words(value: object, default: str = "") -> str:
    """Return what an agent says in words, cut short; the default where it says none."""
    return value[:MAX_WORDS] if isinstance(value, str) and value else default


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Unexpected(what)


def _number(value: object, low: float = -_MAX_NUMBER, high: float = _MAX_NUMBER) -> bool:
    return type(value) in (int, float) and low <= value <= high  # type: ignore[operator]


def _whole(value: object, low: int = 0, high: int = _MAX_NUMBER) -> bool:
    return type(value) is int and low <= value <= high


def _name(value: object) -> bool:
    """Whether a text may be a column's name: drivers call their counters what they like."""
    return isinstance(value, str) and len(value) <= _MAX_NAME and not _SURROGATE.search(value)


def _word(value: object) -> bool:
    """Whether a text may stand on a terminal."""
    return isinstance(value, str) and len(value) <= _MAX_NAME and value.isprintable()


def _named(value: object, holds: Callable[[object], bool]) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= _MAX_NAMES
        and all(_name(name) and holds(each) for name, each in value.items())
    )


def _snapshot(value: object, what: str) -> None:
    _require(
        isinstance(value, dict)
        and _named(value.get("counts"), _number)
        and _named(value.get("gauges"), _number),
        what,
    )


def _counters(role: str, _: Record, answer: Record) -> None:
    counters = answer.get("counters")
    if role == "loopback":
        _require(_named(counters, lambda each: _named(each, _whole)), "counters")
        return
    _require(_named(counters, _whole), "counters")
    seen = set(counters or ())
    both = {"forwarded_packets", "returned_packets"}
    _require(not seen & both or both <= seen, "packets of one direction")
    _snapshot(answer.get("host"), "counters of the host")


def _sample(_: str, question: Record, answer: Record) -> None:
    for stream in ("stdout", "stderr"):
        said = answer.get(stream)
        _require(isinstance(said, str) and len(said) <= _MAX_OUTPUT, f"siege's {stream}")
    _require(_whole(answer.get("status"), -255, 255), "siege's status")
    _require(isinstance(answer.get("timed_out"), bool), "whether siege was cut off")
    _require(_number(answer.get("started_at"), 0, _YEAR_9999_S), "when siege was started")
    _require(_number(answer.get("wall_s"), 0), "how long siege took")
    _snapshot(answer.get("before"), "counters before")
    _snapshot(answer.get("after"), "counters after")
    if question.get("timer"):
        _require(all(_whole(answer.get(key)) for key in ("timed", "lost")), "connections timed")
    else:
        _require(answer.keys().isdisjoint(("timed", "lost")), "connections that were not timed")


def _connections(_: str, __: Record, answer: Record) -> None:
    _require(isinstance(answer.get("data"), str), "records of connections")
    _require(isinstance(answer.get("more"), bool), "whether there are more")


def _payloads(_: str, question: Record, answer: Record) -> None:
    found = answer.get("payloads")
    keys = ("size_bytes", "status", "received_bytes")
    _require(
        isinstance(found, list)
        and all(
            isinstance(each, dict)
            and all(_whole(each.get(key)) for key in keys)
            and _word(each.get("sha256"))
            for each in found
        ),
        "payloads",
    )
    sizes = [each["size_bytes"] for each in found or ()]
    _require(sizes == list(question.get("sizes", ())), "other payloads than were asked for")


def _clock(_: str, question: Record, answer: Record) -> None:
    _require(_whole(answer.get("realtime_ns")), "the time")
    if not question.get("keeper"):
        return
    _require({"boot_id", "chrony", "kernel"} <= answer.keys(), "what it knows of its clock")
    for key in ("boot_id", "chrony"):
        _require(answer.get(key) is None or isinstance(answer[key], str), key)
    kernel = answer.get("kernel")
    _require(
        kernel is None
        or (
            isinstance(kernel, dict)
            and isinstance(kernel.get("synchronised"), bool)
            and _number(kernel.get("max_error_s"))
        ),
        "what the kernel knows of its clock",
    )


def _trace(_: str, question: Record, answer: Record) -> None:
    if "home_of" in question:
        _require(_whole(answer.get("port"), 0, 65535), "a port")
        return
    packets = answer.get("packets")
    _require(isinstance(packets, list) and all(map(_packet, packets)), "packets")
    _require(isinstance(answer.get("more"), bool), "whether there are more")
    _require(_whole(answer.get("missed")), "how many were missed")
    _require(_word(answer.get("boot_id")), "boot_id")
    _require(_whole(answer.get("realtime_ns"), -_MAX_NUMBER), "the time")


def _packet(said: object) -> bool:
    return (
        isinstance(said, dict)
        and all(
            _whole(said.get(key)) if kind is int else _word(said.get(key))
            for key, kind in _SEEN.items()
        )
        and all(_ends(said.get(key)) for key in ("before", "after"))
    )


def _ends(said: object) -> bool:
    return (
        isinstance(said, list)
        and tuple(map(type, said)) == _ENDS
        and _word(said[0])
        and _word(said[2])
        and _whole(said[1], 0, 65535)
        and _whole(said[3], 0, 65535)
    )


_KINDS = {
    "counters": "counters",
    "siege": "sample",
    "connections": "connections",
    "fetch": "payloads",
    "clock": "clock",
    "trace": "trace",
}
_CHECKS: Mapping[str, Callable[[str, Record, Record], None]] = {
    "counters": _counters,
    "sample": _sample,
    "connections": _connections,
    "payloads": _payloads,
    "clock": _clock,
    "trace": _trace,
}
