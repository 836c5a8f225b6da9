# SPDX-License-Identifier: Apache-2.0
"""The sections of a run's page that are words and tables: validity, causes, chain, hosts, rerun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from bench import tables as files
from bench.causes.model import Cause
from bench.cells import title
from bench.clocks import sentence
from bench.report import chain, hosts, tables
from bench.report.again import SWEEP_FILE, again
from bench.report.document import Entry, Facts, Item, Section, Words
from bench.report.evidence import Evidence
from bench.runfiles import moment
from bench.sentences import counted, where
from bench.validity import findings
from bench.verdict_tables import METRICS, ratio

Record = Mapping[str, Any]


def sections(evidence: Evidence) -> list[Section]:
    """Return them in the order of the page; those of plots come before."""
    return [
        Section("tables", "Figures in full", list(_tables(evidence.comparison))),
        Section("validity", "How far to believe it", list(_validity(evidence))),
        Section("diagnosis", "Diagnosis", list(_diagnosis(evidence))),
        Section("chain", "The chain", list(_chain(evidence))),
        Section("hosts", "Hosts", list(_hosts(evidence))),
        Section("again", "Measure it again", list(_again(evidence))),
    ]


def subtitle(evidence: Evidence) -> str:
    """Return the line below the page's title: which run this is."""
    meta, validity = evidence.run.meta, evidence.comparison["validity"]
    sweep = meta["sweep"]
    problems = sum(each.level == "problem" for each in evidence.causes)
    odd = [
        *([counted(len(validity["warnings"]), "warning")] if validity["warnings"] else []),
        *([counted(problems, "problem") + " diagnosed"] if problems else []),
    ]
    began = moment(meta["started_at"]).astimezone(UTC)
    return (
        f"Started {began:%Y-%m-%d %H:%M} UTC, {meta['status']}. "
        f"{counted(sweep['blocks'], 'block')} of {counted(len(sweep['cells']), 'cell')}, "
        f"{counted(validity['samples']['valid'], 'valid sample')}"
        + (f"; {' and '.join(odd)}." if odd else ".")
    )


def _tables(comparison: Record) -> Iterator[Item]:
    if comparison["per_hop"]:
        yield tables.costs(comparison)
    yield tables.cells(comparison)
    if comparison["pairs"]:
        yield tables.pairs(comparison)


def _validity(evidence: Evidence) -> Iterator[Item]:
    meta, validity = evidence.run.meta, evidence.comparison["validity"]
    samples = validity["samples"]
    for warning in validity["warnings"]:
        yield Words([f"Warning: {warning}."], kind="warning")
    if not validity["warnings"]:
        yield Words(["Nothing to warn of."])
    noise = validity["noise_floor"]
    timing = meta["timing"]
    items = [
        ("status", meta["status"]),
        ("samples", _samples(samples)),
        ("times", "of single connections, by the kernel" if validity["timer"] else "siege's clock"),
        ("noise floor", "not known" if noise is None else f"{100 * noise:.1f} % of response time"),
    ]
    if timing.get("siege_s") is not None and timing.get("wall_s"):
        share = timing["siege_s"] / timing["wall_s"]
        items.append(("time", f"{timing['wall_s']:,.0f} s, {share:.0%} of it inside siege"))
    if until := meta["until_ci"]:
        items.append(
            (
                "blocks",
                f"added until every interval is within ±{until['half_width']:.1%}, "
                f"for {until['limit_s']:,.0f} s at most",
            )
        )
    if said := sentence(meta["clocks"]):
        items.append(("clocks", said.removeprefix("Clocks: ")))
    yield Facts("Samples and noise", items)
    if validity["noise_floors"]:
        yield _noise(validity["noise_floors"])
    if validity["invalid_reasons"]:
        reasons = validity["invalid_reasons"].items()
        yield tables.table(
            "invalid",
            "Invalid samples",
            ("why", "samples*"),
            [[Entry(str(reason)), tables.number(count, "{:,}")] for reason, count in reasons],
            [{"reason": reason, "samples": count} for reason, count in reasons],
            ("reason", "samples"),
            "They are in no statistic; diagnosis looks at them like at all others.",
        )
    told = [
        f"{each['host']}, {each['level']}: {each['text']}"
        + (f" ({each['remedy']})" if each["remedy"] else "")
        for each in findings(meta)
    ]
    if told:
        yield Words(["What the checks before the run found:"], told)
    if meta["changes"]:
        yield Words(["What changed on the hosts during the run:"], list(map(str, meta["changes"])))
    if meta["notes"]:
        yield Words(["Notes of the run:"], meta["notes"])


def _samples(samples: Record) -> str:
    invalid = f"{samples['invalid']:,} invalid" if samples["invalid"] else "none invalid"
    warm = f"; {counted(samples['warmup'], 'warm-up')} beside them" if samples["warmup"] else ""
    return f"{samples['measured']:,} measured, {invalid}{warm}"


def _noise(floors: list[Record]) -> Item:
    rows = [
        [
            Entry(title(each["label"])),
            Entry(METRICS[each["metric"]]),
            tables.number(each["hops"], "{:,}"),
            Entry(where((each["size_bytes"], each["concurrency"]))),
            Entry(ratio(each["ratio"], each["ci95"]), each["ratio"]),
            tables.number(100 * each["noise_floor"]),
            Entry(each["verdict"]),
        ]
        for each in floors
    ]
    keys = (
        *("label", "metric", "hops", "size_bytes", "concurrency", "ratio", "ci95"),
        *("noise_floor", "verdict"),
    )
    names = ("mode", "of", "hops*", "where", "again / first [95 %]*", "floor, %*", "again is")
    caption = (
        "The same cell was measured twice in every block. What differs by less than that is no "
        "difference."
    )
    return tables.table("noise", "A mode against itself", names, rows, floors, keys, caption)


def _diagnosis(evidence: Evidence) -> Iterator[Item]:
    if not evidence.causes:
        number = counted(len(evidence.run.samples), "sample")
        yield Words([f"No cause of odd numbers found: nothing odd in {number}."])
    for cause in evidence.causes:
        yield _cause(cause)


def _cause(cause: Cause) -> Words:
    kind = "warning" if cause.level == "problem" else "plain"
    remedy = f"What helps: {cause.remedy}."
    return Words(
        [f"{cause.level.capitalize()}: {cause.line()}", remedy], list(cause.evidence), kind
    )


def _chain(evidence: Evidence) -> Iterator[Item]:
    counters = files.read_counters(evidence.run.path)
    figure = chain.diagram(evidence.run, counters)
    yield figure or Words(["The run does not say what its chain was."])


def _hosts(evidence: Evidence) -> Iterator[Item]:
    found = hosts.hosts(evidence.run.meta)
    yield from found
    if not found:
        yield Words(["The run has no facts of its hosts."])
    yield hosts.versions(evidence.run.meta)


def _again(evidence: Evidence) -> Iterator[Item]:
    meta = evidence.run.meta
    ways = again(meta, evidence.comparison["validity"]["timer"])
    if not ways:
        yield Words(["This hopbench has no command for it: it does not know the run's cells."])
        return
    inventory = meta["chain"].get("inventory")
    if isinstance(inventory, str):
        yield Words(
            [
                f"On the chain of {inventory}, which -i names. Without -i it is the chain that was "
                "deployed last, or a lab on this machine."
            ]
        )
    for way in ways:
        if not way.exact:
            yield Words(
                ["The same cells, blocks and order; the warm-up finds numbers of requests:"]
            )
        elif way.file:
            yield Words([f"With as many requests as here, by {SWEEP_FILE} as below:"])
        else:
            yield Words(["The same cells, requests, blocks and order:"])
        yield Words([way.line], kind="code")
        if way.file:
            yield Words([way.file.rstrip()], kind="code")
    if until := meta["until_ci"]:
        yield Words(
            [
                f"Blocks were added until intervals were narrow enough: --until-ci "
                f"{until['half_width'] * 100:g}% --time-limit {until['limit_s']:g}s does so again."
            ]
        )
