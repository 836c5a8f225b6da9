# SPDX-License-Identifier: Apache-2.0
"""What differs between two collections of host facts, in words: before and after, here and there.

Facts come from run.json, also from other people's: any JSON may be in their place, and facts of
other versions of hopbench, which know more of them or fewer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]

# What moves by itself, or is moved by the run.
_MOVING = frozenset(
    [
        *("time", "load_1min", "tcp_time_wait", "available_bytes", "forwarders"),
        *("xdp_program", "xdp_program_name"),
    ]
)
# What tells machines and boots apart without saying anything of what they measure.
_NAMES = frozenset(
    ["boot_id", "uid", "kernel_headers", "mac", "addresses", "networks", "bus", "irqs", "lower"]
)
# Facts whose keys are facts themselves: one key more is a change, not another version's knowledge.
_OPEN = frozenset(["irqs", "private_flags", "tc_filters", "vulnerabilities"])
# Idle pages come and go. By more than this, something else has run.
_SWAP_SLACK_BYTES = 64 << 20
# Two boots of one machine leave it a little more or less of its memory.
_MEMORY_SLACK = 0.02
# What programs and nft tables of this project are called.
_OWN = "hopbench"

_MOST_HOSTS, _MOST_CHARACTERS, _MOST_STEPS = 8, 80, 8


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what changed on the hosts during a run, a text a change.

    before, after: {host: its facts}. Left out: what moves by itself (time, load, TIME_WAIT, memory,
    a little swap), hopbench's own XDP programs and nft tables, and facts that only one of the two
    collections knows of.
    """
    return _texts(before, after, _MOVING, "{path} was {one} and is {other}")


def differences(
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    *,
    names: tuple[str, str] = ("here", "there"),
) -> list[str]:
    """Return how the hosts of two runs differ, a text a difference; hosts of one name are compared.

    names: words for the two. Left out: what `changes` leaves out, and what differs between any two
    machines (addresses, numbers of interrupts, when they were started).
    """
    here, there = (name.replace("{", "{{").replace("}", "}}") for name in names)
    words = f"{{path}} is {{one}} {here} and {{other}} {there}"
    return _texts(mine, theirs, _MOVING | _NAMES, words)


def by_role(facts: Mapping[str, Any], chain: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts by `client`, `hop 1`, …, `server`: two chains may name their hosts otherwise.

    chain: as run.json has it. Hosts that it does not name are left out.
    """
    hops = chain.get("hops")
    hosts = [("client", chain.get("client"))]
    if isinstance(hops, list):
        hosts += [(f"hop {number}", hop) for number, hop in enumerate(hops, start=1)]
    hosts.append(("server", chain.get("server")))
    found = {}
    for role, host in hosts:
        name = host.get("name") if isinstance(host, Mapping) else None
        if isinstance(name, str) and name in facts:
            found[role] = facts[name]
    return found


def _texts(
    before: Mapping[str, Any], after: Mapping[str, Any], ignored: frozenset[str], words: str
) -> list[str]:
    # Hosts that say the same share a line: a machine's facts are those of every host on it.
    hosts: dict[str, list[str]] = {}
    for host, then in before.items():
        now = after.get(host)
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            for path, one, other in _differ(then, now, ignored):
                line = _line(path, one, other, words)
                hosts.setdefault(line, []).append(_shown(host))
    return [f"{_listed(names)}: {line}" for line, names in hosts.items()]


def _differ(
    then: Mapping[str, Any], now: Mapping[str, Any], ignored: frozenset[str]
) -> Iterator[tuple[Path, Any, Any]]:
    """Yield each fact that differs, with both values; None: a host did not have it."""
    # No recursion: strangers' JSON may be nested as deep as it likes.
    pending: list[tuple[Path, Any, Any]] = [((), then, now)]
    while pending:
        path, one, other = pending.pop()
        pairs = _parts(path, one, other)
        if pairs is not None:
            pending += [
                ((*path, key), *pair)
                for key, *pair in reversed(pairs)
                if key not in ignored and not (key == "xdp_mode" and _is_ours(one, other))
            ]
        elif not _same(path, one, other):
            yield path, one, other


def _parts(path: Path, one: Any, other: Any) -> list[tuple[str, Any, Any]] | None:
    """Return what two values consist of, pair by pair, or None when they are to be compared."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [key for key in one if key in other]
        if path[-1:] and path[-1] in _OPEN:
            keys = list({**one, **other})
        return [(key, one.get(key), other.get(key)) for key in keys]
    if isinstance(one, list) and isinstance(other, list) and _is_nested(one + other):
        if path[-1:] == ("qdiscs",):
            # Their order and handles are of no interest.
            return [("kinds", _kinds(one), _kinds(other))]
        length = max(len(one), len(other))
        return [(str(at), _at(one, at), _at(other, at)) for at in range(length)]
    return None


def _is_nested(values: list[Any]) -> bool:
    return any(isinstance(each, (list, Mapping)) for each in values)


def _at(values: list[Any], at: int) -> Any:
    return values[at] if at < len(values) else None


def _kinds(qdiscs: list[Any]) -> list[str]:
    return sorted({str(each.get("kind")) for each in qdiscs if isinstance(each, Mapping)})


def _is_ours(*nics: Mapping[str, Any]) -> bool:
    """Return whether nothing but hopbench's own XDP program runs on either of two NICs."""
    running = [nic for nic in nics if nic.get("xdp_mode")]
    return all(str(nic.get("xdp_program_name")).startswith(_OWN) for nic in running)


def _same(path: Path, one: Any, other: Any) -> bool:
    """Return whether two values are as good as equal."""
    if path[-1:] == ("nft_tables",) and isinstance(one, list) and isinstance(other, list):
        return _foreign(one) == _foreign(other)
    if path[-1:] and path[-1].startswith("net.netfilter.") and None in (one, other):
        # The first NAT rule loads the module that has these.
        return True
    if _is_number(one) and _is_number(other):
        # Also what is not a number (JSON's NaN) is the same again.
        return one == other or (one != one and other != other) or _near(path, one, other)
    return bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _near(path: Path, one: float, other: float) -> bool:
    try:
        if path == ("swap", "used_bytes"):
            return abs(one - other) <= _SWAP_SLACK_BYTES
        if path == ("memory", "total_bytes"):
            return abs(one - other) <= _MEMORY_SLACK * max(one, other)
    except OverflowError:
        pass
    return False


def _foreign(tables: list[Any]) -> list[Any]:
    return [each for each in tables if str(each).split()[-1:] != [_OWN]]


def _line(path: Path, one: Any, other: Any, words: str) -> str:
    if path == ("boot_id",):
        return "the host was restarted"
    texts = [_text(one), _text(other)]
    # Of two long texts, the places where they part.
    begin = 0
    if max(map(len, texts)) > _MOST_CHARACTERS:
        begin = max(0, _common(*texts) - _MOST_CHARACTERS // 4)
    steps = path if len(path) <= _MOST_STEPS else (*path[:_MOST_STEPS], "…")
    return words.format(
        path=".".join(map(_shown, steps)),
        one=_shown(texts[0], begin),
        other=_shown(texts[1], begin),
    )


def _common(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _text(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, Mapping) or (isinstance(value, list) and _is_nested(value)):
        return "there"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return (value if isinstance(value, str) else json.dumps(value)) or "empty"


def _shown(text: str, begin: int = 0) -> str:
    """Return text from a place on as one line of a terminal: not without end, nothing invisible."""
    text = f"…{text[begin:]}" if begin else text
    plain = "".join(each if each.isprintable() else "?" for each in text[: 2 * _MOST_CHARACTERS])
    return plain if len(plain) <= _MOST_CHARACTERS else plain[: _MOST_CHARACTERS - 1] + "…"


def _listed(names: list[str]) -> str:
    """Return `a`, `a and b`, `a, b and c`, or some of them and how many more."""
    if len(names) > _MOST_HOSTS:
        names = [*names[: _MOST_HOSTS - 1], f"{len(names) - _MOST_HOSTS + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
