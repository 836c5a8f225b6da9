# SPDX-License-Identifier: Apache-2.0
"""The chain of a run as a diagram: hosts with NIC, driver, attach mode, and what they counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from bench.cells import title
from bench.report.document import Figure
from bench.report.tables import as_csv

if TYPE_CHECKING:
    import pandas as pd

    from bench.runs import RunReader

Record = Mapping[str, Any]

_BOX, _GAP, _ROW_GAP, _EDGE = 190, 32, 32, 2
_LINE, _TOP = 20, 28
_FEW = 6
_FIT = 22


@dataclass(frozen=True)
class Place:
    """A host of the chain as the diagram shows it."""

    role: str
    name: str
    nic: str
    address: str
    how: str
    counts: Mapping[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return what is below the host's name, a line each."""
        shown = [self.nic, *_broken(self.address), *([self.how] if self.how else [])]
        return [*shown, *(f"{_short(count)} {name}" for name, count in self.counts.items())]


def diagram(run: RunReader, counters: pd.DataFrame) -> Figure | None:
    """Return the chain as a figure, None for a run that does not say what it was."""
    places = _places(run, counters)
    if not places:
        return None
    used = max((cell.hops for cell in run.cells), default=0)
    hops = sum(place.role == "hop" for place in places)
    number = f"{hops} hop" + ("" if hops == 1 else "s")
    said = " → ".join(place.name for place in places[:_FEW])
    more = f" and {len(places) - _FEW} more hosts" if len(places) > _FEW else ""
    if hops > used:
        number += f", of which up to {used} took part"
    counted = (
        "Counts are of the whole run, warm-ups and invalid samples included; without another word, "
        "of packets."
        if any(place.counts for place in places)
        else "The run has no counters."
    )
    names = list(dict.fromkeys(name for place in places for name in place.counts))
    records = [
        {
            **{key: getattr(place, key) for key in ("role", "name", "nic", "address", "how")},
            **{name: place.counts.get(name) for name in names},
        }
        for place in places
    ]
    return Figure(
        name="chain",
        title="The chain",
        svg=_drawn(places, f"The chain of the run: {said}{more}."),
        png=b"",
        alt=f"The chain of the run: {said}{more}.",
        caption=f"Client, {number}, server; every arrow crosses a network. {counted}",
        csv=as_csv(records, ["role", "name", "nic", "address", "how", *names]),
    )


def _places(run: RunReader, counters: pd.DataFrame) -> list[Place]:
    chain = run.meta["chain"]
    hops = chain.get("hops")
    hosts = [("client", chain.get("client"))]
    hosts += [("hop", hop) for hop in hops] if isinstance(hops, list) else []
    hosts.append(("server", chain.get("server")))
    found = []
    number = 0
    for role, host in hosts:
        if not isinstance(host, Mapping):
            continue
        number += role == "hop"
        name = _text(host.get("name")) or role
        facts = run.meta["host_facts"].get(name)
        found.append(
            Place(
                role=role,
                name=name,
                nic=_nic(host, facts),
                address=_address(host),
                how=_how(run, number) if role == "hop" else "",
                counts=_counts(role, name, counters),
            )
        )
    return found if any(place.role != "hop" for place in found) else []


def _nic(host: Record, facts: Any) -> str:
    def named(nic: str, key: str) -> str:
        known = facts.get(key) if isinstance(facts, Mapping) else None
        driver = _text(known.get("driver")) if isinstance(known, Mapping) else ""
        return f"{nic} ({driver})" if driver else nic

    nic = named(_text(host.get("data_nic")), "nic")
    egress = _text(host.get("egress_nic"))
    return f"{nic} → {named(egress, 'egress_nic')}" if egress else nic


def _address(host: Record) -> str:
    address, port = _text(host.get("data_ip")), _text(host.get("port"))
    if port in ("", "0"):
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _how(run: RunReader, number: int) -> str:
    """Return how the hop of this number forwarded: the modes that reached it, with attach."""
    here = [cell for cell in run.cells if cell.hops >= number]
    words = (f"{title(cell.mode)} {cell.attach}".strip() for cell in here)
    return ", ".join(_text(word) for word in dict.fromkeys(words)) or "not in use"


def _counts(role: str, name: str, counters: pd.DataFrame) -> dict[str, float]:
    rows = counters[counters["host"] == name]
    if not len(rows):
        return {}
    by_role: dict[str, dict[str, list[str]]] = {
        "client": {"connections": ["TcpActiveOpens"]},
        "server": {"connections": ["TcpPassiveOpens"]},
        "hop": {
            "flows": ["forwarder_flows_opened"],
            "forwarded": ["forwarder_forwarded_packets"],
            "returned": ["forwarder_returned_packets"],
            "dropped": [each for each in map(str, rows) if each.startswith("forwarder_dropped_")],
        },
    }
    found = {}
    for word, columns in by_role[role].items():
        known = [rows[each] for each in columns if each in rows and rows[each].notna().any()]
        if known:
            found[word] = float(sum(each.sum() for each in known))
    return found


def _drawn(places: Sequence[Place], alt: str) -> str:
    """Return the diagram: rows of hosts, every other one from right to left."""
    columns = 2 if len(places) in (2, 4) else 3
    height = _TOP + _LINE * max(len(place.lines()) for place in places) + 8
    rows = -(-len(places) // columns)
    wide = columns * _BOX + (columns - 1) * _GAP + 2 * _EDGE
    tall = rows * height + (rows - 1) * _ROW_GAP + 2 * _EDGE
    root = ElementTree.Element(
        "svg",
        {
            "role": "img",
            "aria-label": alt,
            "width": str(wide),
            "height": str(tall),
            "viewBox": f"0 0 {wide} {tall}",
            "style": "max-width:100%;height:auto",
        },
    )
    corners = []
    for at in range(len(places)):
        row, column = divmod(at, columns)
        column = columns - 1 - column if row % 2 else column
        corners.append(
            (_EDGE + column * (_BOX + _GAP), _EDGE + row * (height + _ROW_GAP)),
        )
    for one, other in pairwise(corners):
        _arrow(root, one, other, height)
    for place, corner in zip(places, corners, strict=True):
        _box(root, place, corner, height)
    return ElementTree.tostring(root, encoding="unicode")


def _arrow(
    root: ElementTree.Element, one: tuple[int, int], other: tuple[int, int], height: int
) -> None:
    tip = 7
    if one[1] == other[1]:
        y = one[1] + height // 2
        way = 1 if other[0] > one[0] else -1
        start = one[0] + (_BOX if way > 0 else 0)
        end = other[0] + (0 if way > 0 else _BOX)
        line = f"M{start} {y}H{end - way * tip}"
        head = f"M{end} {y}L{end - way * tip} {y - 5}V{y + 5}Z"
    else:
        x = one[0] + _BOX // 2
        line = f"M{x} {one[1] + height}V{other[1] - tip}"
        head = f"M{x} {other[1]}L{x - 5} {other[1] - tip}H{x + 5}Z"
    ElementTree.SubElement(
        root, "path", {"d": line, "style": "fill:none;stroke:var(--muted);stroke-width:1.5"}
    )
    ElementTree.SubElement(root, "path", {"d": head, "style": "fill:var(--muted)"})


def _box(root: ElementTree.Element, place: Place, corner: tuple[int, int], height: int) -> None:
    x, y = corner
    edge = "var(--grid)" if place.role == "hop" else "var(--muted)"
    group = ElementTree.SubElement(root, "g")
    ElementTree.SubElement(group, "title").text = ", ".join([place.name, *place.lines()])
    ElementTree.SubElement(
        group,
        "rect",
        {
            "x": str(x),
            "y": str(y),
            "width": str(_BOX),
            "height": str(height),
            "rx": "5",
            "style": f"fill:var(--panel);stroke:{edge};stroke-width:1.5",
        },
    )
    _line(group, x + 10, y + 21, _cut(place.name), "font-weight:600;font-size:16px;fill:var(--ink)")
    for number, text in enumerate(place.lines(), start=1):
        ink = "--ink" if number > len(place.lines()) - len(place.counts) else "--muted"
        style = f"font-size:14.5px;fill:var({ink})"
        _line(group, x + 10, y + 21 + number * _LINE, _cut(text), style)


def _line(group: ElementTree.Element, x: int, y: int, text: str, style: str) -> None:
    attributes = {"x": str(x), "y": str(y), "style": style}
    ElementTree.SubElement(group, "text", attributes).text = text


def _broken(address: str) -> list[str]:
    """Return an address in lines that fit: an IPv6 one takes two."""
    if len(address) <= _FIT:
        return [address] if address else []
    middle = address.rfind(":", 0, _FIT) + 1 or _FIT
    return [address[:middle], address[middle:]]


def _cut(text: str) -> str:
    return text if len(text) <= _FIT else text[: _FIT - 1] + "…"


def _text(value: Any) -> str:
    if not isinstance(value, (str, int)):
        return ""
    return "".join(each if each.isprintable() else " " for each in str(value))


def _short(count: float) -> str:
    """Return a count in four digits: `950`, `12.3 k`, `1.84 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if count >= size:
            return f"{count / (1e3 if unit == ' k' else size):.3g}{unit}"
    return f"{count:,.0f}"
