# SPDX-License-Identifier: Apache-2.0
"""What bounds a reproduction had, what they cut off, on which machine, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.report.document import Facts, Section, Words
from bench.reproduce.words import listed

_STATUS = {
    "complete": "complete",
    "running": "still running, or killed: what was measured so far",
    "interrupted": "interrupted: what was measured before",
    "failed": "ended by an error: what was measured before",
}
_LIMITS = {
    "timeout_s": "a connection that does not open or answer, at most",
    "sample_s": "a sample, at most",
    "total_s": "the whole, at most",
}
_MACHINE = (
    ("kernel", "kernel"),
    ("os", "system"),
    ("cpu", "CPU"),
    ("model", "CPU"),
    ("cpus", "CPUs"),
    ("virtualisation.hypervisor", "virtual"),
    ("memory.total_bytes", "memory"),
    ("clock_source", "clock"),
    ("sysctls.net/ipv4/tcp_timestamps", "tcp_timestamps"),
    ("sysctls.net/ipv4/tcp_syn_linear_timeouts", "tcp_syn_linear_timeouts"),
    ("tools.siege", "siege"),
    ("tools.socat", "socat"),
    ("tools.nft", "nft"),
    ("tools.nginx", "nginx"),
)
"""Paths into the machine's facts, where / stands for a dot of a key."""

_NOTHING = "Nothing was cut."


def section(meta: Mapping[str, Any]) -> Section:
    """Return the bounds; whatever reproduce.json lacks is left out."""
    cut = _texts(meta.get("cut"))
    finished = meta.get("status") == "complete"
    said = [] if cut or not finished else [_NOTHING]
    if cut:
        said = ["What was left out or stopped before its end, and why:"]
    elif not finished:
        said = ["It did not come to its end: cells without a figure were not reached."]
    items: list[Words | Facts] = [Words(said, cut, "warning" if cut or not finished else "plain")]
    if notes := _texts(meta.get("notes")):
        items.append(Words(["Notes:"], notes))
    items.append(Facts("Bounds", _bounds(meta)))
    if machine := _machine(meta.get("machine")):
        items.append(Facts("Machine", machine))
    if versions := _named(meta.get("versions")):
        items.append(Facts("Versions", versions))
    how = "As root, in a checkout of the same commit; the order of cells comes from the seed:"
    items += [Words([how]), Words([command(meta)], kind="code")]
    return Section("bounds", "Bounds, machine, and how to make it again", items)


def subtitle(meta: Mapping[str, Any]) -> str:
    """Return the line below the page's title."""
    form = "quick form" if meta.get("quick") else "full form"
    status = str(meta.get("status", ""))
    more = f", {_STATUS.get(status, status)}" if status != "complete" else ""
    identity = str(meta.get("id", ""))
    started = str(meta.get("started_at", ""))[:16].replace("T", " ")
    when = f", {started} UTC" if started else ""
    return f"{identity}: {form}{more}{when}".lstrip(": ")


def command(meta: Mapping[str, Any]) -> str:
    """Return the command that makes the same again."""
    words = ["bench", "reproduce", *(["--quick"] if meta.get("quick") else [])]
    seed = meta.get("seed")
    if isinstance(seed, int) and not isinstance(seed, bool):
        words.append(f"--seed {seed}")
    return " ".join(words)


def _bounds(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("form", "quick: fewer sizes, forwarders and blocks" if meta.get("quick") else "full"),
        ("status", _STATUS.get(str(meta.get("status")), str(meta.get("status")))),
    ]
    for key, words in (("started_at", "started"), ("ended_at", "ended")):
        if meta.get(key):
            facts.append((words, str(meta[key])))
    if _is_number(meta.get("requests")):
        facts.append(("requests a sample", f"{meta['requests']:,}"))
    for key, words in (("sizes_bytes", "files, bytes"), ("forwarders", "forwarders")):
        values = meta.get(key)
        if isinstance(values, list) and values and all(_is_number(each) for each in values):
            facts.append((words, listed([f"{each:,}" for each in values])))
    limits = meta.get("limits")
    for key, words in _LIMITS.items():
        if isinstance(limits, Mapping) and _is_number(limits.get(key)):
            facts.append((words, f"{limits[key]:g} s"))
    if meta.get("git_commit"):
        facts.append(("commit", str(meta["git_commit"])))
    parts = meta.get("parts")
    if isinstance(parts, Mapping):
        facts += [(f"run: {name}", str(path)) for name, path in parts.items()]
    return facts


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _named(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return []
    return [
        (str(key), listed([str(each) for each in item]) if isinstance(item, list) else str(item))
        for key, item in value.items()
        if item not in (None, "")
    ]


def _machine(facts: Any) -> list[tuple[str, str]]:
    found = []
    for path, words in _MACHINE:
        value = facts
        for key in path.split("."):
            value = value.get(key.replace("/", ".")) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            found.append((words, "yes" if value else "no"))
        elif path == "memory.total_bytes" and _is_number(value):
            found.append((words, f"{value / 1e9:.1f} GB"))
        elif isinstance(value, str | int | float) and value != "":
            found.append((words, str(value)))
    return found
