# SPDX-License-Identifier: Apache-2.0
"""CPU time of a transaction, by host and by what the time was spent on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import stats, tables
from bench.cells import label
from bench.report import marks, series, style
from bench.report.document import Figure
from bench.report.figure import clean, figure
from bench.report.panels import arrange, name, sheet
from bench.runs import RunReader
from bench.sentences import counted
from bench.sentences import figure as said

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "user": "user",
    "nice": "user, niced",
    "system": "system",
    "softirq": "softirq",
    "irq": "hard irq",
}
STEAL = "steal"
_MOST_PANELS = 6
_SHARED = "all hosts together (they share these CPUs)"
# What a kind adds to its mode's colour: how strong it is, and what is drawn over it.
_LOOKS = {
    "user": (0.4, ""),
    "nice": (0.4, "xx"),
    "system": (1.0, ""),
    "softirq": (1.0, "////"),
    "irq": (1.0, "...."),
}


@dataclass(frozen=True)
class Machine:
    """Hosts whose CPU time is one figure. hosts: the first one's counters stand for all."""

    title: str
    hosts: tuple[str, ...]
    average: bool = False
    """Whether the hosts have CPUs of their own, and the mean over them is shown."""


def cpu(run: RunReader) -> Figure | None:
    """Return the CPU time of a transaction by host and kind, None for a run without counters.

    Raises BenchError when counters.parquet is damaged.
    """
    shown = frame(run)
    if shown.empty:
        return None
    panels = list(dict.fromkeys(shown["hosts"]))
    kinds = [kind for kind in KINDS if (shown[f"{kind}_us"] > 0).any()]
    rows = {panel: shown[shown["hosts"] == panel] for panel in panels}
    with style.rc():
        heights = [0.4 * len(rows[panel]) for panel in panels]
        found = sheet(len(panels), columns=1, heights_in=heights)
        groups = [[_bar(row) for row in marks.rows(rows[panel])] for panel in panels]
        top = max(marks.finite([*shown["total_us"], *shown["hi_us"]])) or 1.0
        marks.scale(found.panels, "x", [0.0, top])
        found.beside_in = marks.beside_in(groups)
        for ax, panel, group in zip(found.panels, panels, groups, strict=True):
            ax.set_title(panel)
            marks.bars(ax, group, log=False, low=0.0, high=top * 1.02, hollow=True)
            _stacks(ax, rows[panel], kinds)
        found.legend = [(_key(kind), KINDS[kind]) for kind in kinds]
        found.label("CPU time a transaction, µs")
        size, users, hops = (int(shown[key].max()) for key in ("size_bytes", "concurrency", "hops"))
        steal = float(shown["steal_us"].max())
        told = [
            f"{name(row.label)} {said(row.total_us)} µs on {row.hosts}" for row in marks.rows(shown)
        ]
        caption = (
            f"CPU time over transactions of all valid samples, {size:,} bytes, "
            f"{series.at_a_time(users)}, {counted(hops, 'hop')} or none, by /proc/stat's ticks of "
            "10 ms; idle CPUs are not counted. Whiskers and brackets: 95 % interval of a sample's "
            f"median, n = {_range(shown['n'])} samples"
            + (" (none below 6). " if shown["lo_us"].isna().any() else ". ")
            + (
                f"Steal, which hypervisors gave to others, is apart: up to {said(steal)} µs."
                if steal
                else "No CPU time was stolen by a hypervisor."
            )
        )
        alt = f"CPU time of a transaction: {series.listed(told)}."
        return figure("cpu", "CPU time of a transaction", arrange(found), alt, caption, shown)


def frame(run: RunReader) -> pd.DataFrame:
    """Return a row a machine and mode, for the smallest size and load, most hops and none.

    Columns: `hosts`, the cell's place, n (samples), `total_us` and each kind's part of it: the
    time of all samples over their transactions; `lo_us` and `hi_us`: the interval of the median of
    the samples' totals; `steal_us`, which is in no total.
    """
    import pandas as pd

    kinds = [*KINDS, STEAL]
    columns = ["hosts", "label", "hops", "size_bytes", "concurrency", "n", "total_us", "lo_us"]
    columns += ["hi_us", *(f"{kind}_us" for kind in kinds)]
    samples, counters = _samples(run), tables.read_counters(run.path)
    known = [f"cpu_{kind}_s" for kind in kinds if f"cpu_{kind}_s" in counters]
    counters = counters[counters["sample"].isin(samples["sample"])]
    if not known or counters.empty:
        return pd.DataFrame(columns=columns)
    counters = counters.dropna(subset=known, how="all")
    wide = counters.reindex(columns=["sample", "host", *(f"cpu_{kind}_s" for kind in kinds)])
    joined = wide.fillna(0.0).merge(samples, on="sample")
    found = []
    for machine in machines(run.meta, dict(zip(counters["host"], counters["role"], strict=True))):
        for each in style.ranked(joined["label"]):
            rows = joined[(joined["label"] == each) & joined["host"].isin(machine.hosts)]
            rows = rows if machine.average else rows[rows["host"] == machine.hosts[0]]
            if not rows.empty:
                found.append((machine.title, *_row(rows, kinds)))
    return pd.DataFrame(found, columns=columns)


def machines(meta: Mapping[str, Any], roles: Mapping[str, str]) -> list[Machine]:
    """Return the machines whose CPU time is counted: hosts with one boot id share theirs.

    roles: of the hosts with counters. Of many machines, those of hops are taken together.
    """
    facts = meta.get("host_facts")
    shared: dict[str, list[str]] = {}
    for host in _in_order(meta, roles):
        each = facts.get(host) if isinstance(facts, Mapping) else None
        boot_id = each.get("boot_id") if isinstance(each, Mapping) else None
        shared.setdefault(f"boot {boot_id}" if boot_id else f"host {host}", []).append(host)
    groups = list(shared.values())
    if len(groups) == 1 and len(groups[0]) > 1:
        return [Machine(_SHARED, tuple(groups[0]))]
    hops = [group for group in groups if roles[group[0]] == "hop" and len(group) == 1]
    if len(groups) > _MOST_PANELS and len(hops) > 1:
        hosts = tuple(group[0] for group in hops)
        together = Machine(f"a hop, mean of {len(hosts)} hosts", hosts, average=True)
        first = groups.index(hops[0])
        rest = [None if group in hops else group for group in groups]
        return [
            together if at == first else _machine(group)
            for at, group in enumerate(rest)
            if group is not None or at == first
        ]
    return [_machine(group) for group in groups]


def _machine(group: Sequence[str] | None) -> Machine:
    hosts = tuple(group or ())
    names = ", ".join(clean(host)[:24] for host in hosts[:3]) + (" …" if len(hosts) > 3 else "")
    return Machine(names + (" (they share these CPUs)" if len(hosts) > 1 else ""), hosts)


def _in_order(meta: Mapping[str, Any], roles: Mapping[str, str]) -> list[str]:
    chain = meta.get("chain")
    chain = chain if isinstance(chain, Mapping) else {}
    hops = chain.get("hops")
    hosts = [chain.get("client"), *(hops if isinstance(hops, list) else []), chain.get("server")]
    named = [str(each.get("name")) for each in hosts if isinstance(each, Mapping)]
    return list(dict.fromkeys([*(each for each in named if each in roles), *roles]))


def _samples(run: RunReader) -> pd.DataFrame:
    """Return the usable samples of the cells that are shown."""
    known = run.samples
    known = known[known["valid"] & ~known["warmup"] & ~known["twin"]]
    known = known[(known["transactions"] > 0).fillna(False)]
    known = known[known["concurrency"] == known["concurrency"].min()]
    known = known[known["size_bytes"] == known["size_bytes"].min()]
    known = known[known["hops"].isin([0, known["hops"].max()])]
    columns = ["sample", "hops", "size_bytes", "concurrency", "transactions"]
    found: pd.DataFrame = known[columns].copy()
    found["label"] = [
        clean(label(*each))
        for each in zip(known["mode"], known["attach"], known["offloads"], strict=True)
    ]
    return found


def _row(rows: pd.DataFrame, kinds: Sequence[str]) -> Iterator[Any]:
    done = rows["transactions"].astype("float64")
    parts = {kind: 1e6 * rows[f"cpu_{kind}_s"].sum() / done.sum() for kind in kinds}
    total_s = sum(rows[f"cpu_{kind}_s"] for kind in KINDS)
    by_sample = (1e6 * total_s / done).groupby(rows["sample"]).mean()
    ends = stats.bootstrap_median(by_sample.tolist()) or (math.nan, math.nan)
    yield rows["label"].iloc[0]
    for key in ("hops", "size_bytes", "concurrency"):
        yield int(rows[key].iloc[0])
    yield len(by_sample)
    yield sum(parts[kind] for kind in KINDS)
    yield from ends
    yield from parts.values()


def _bar(row: marks.Row) -> marks.Bar:
    ends = None if math.isnan(row.lo_us) else (row.lo_us, row.hi_us)
    more = f"[{said(ends[0])}, {said(ends[1])}]" if ends else ""
    return marks.Bar(
        row.label, name(row.label), row.total_us, ends, f"{said(row.total_us)} µs", more
    )


def _stacks(ax: marks.Axes, rows: pd.DataFrame, kinds: Sequence[str]) -> None:
    for place, row in zip(range(len(rows))[::-1], marks.rows(rows), strict=True):
        left = 0.0
        for kind in kinds:
            width = float(getattr(row, f"{kind}_us"))
            strength, hatch = _LOOKS[kind]
            shade = _faint(style.colour(row.label), strength)
            ax.barh(place, width, left=left, height=0.56, color=shade, zorder=1.5)
            if hatch:
                ax.barh(
                    place, width, left=left, height=0.56, fill=False, hatch=hatch,
                    edgecolor=style.PAPER, linewidth=0, zorder=1.6,
                )  # fmt: skip
            left += width


def _key(kind: str) -> Any:
    from matplotlib.patches import Patch

    strength, hatch = _LOOKS[kind]
    grey = _faint(style.colour("direct"), strength)
    return Patch(facecolor=grey, edgecolor=style.PAPER, hatch=hatch, linewidth=0)


def _faint(colour: str, strength: float) -> tuple[str, float]:
    return colour, strength


def _range(values: pd.Series[int]) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"
