# SPDX-License-Identifier: Apache-2.0
"""The answer in a few sentences: what the report's filter took, why, and what a hop costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.cells import title
from bench.hop.payloads import SIZES_BYTES
from bench.reproduce.cells import LOOPBACK, REPORT, REQUESTS
from bench.reproduce.diagnosis import holding
from bench.reproduce.examined import Examined
from bench.reproduce.plan import LEGACY
from bench.reproduce.words import forwarders, listed, printed, seconds
from bench.sentences import counted, figure, interval

Record = Mapping[str, Any]

if TYPE_CHECKING:
    from bench.reproduce.record import Reproduction


def lines(reproduction: Reproduction) -> list[str]:
    """Return the answer, a sentence or two a line. Raises BenchError for damaged files."""
    return told(Examined.of(reproduction))


def told(examined: Examined) -> list[str]:
    """Return the answer from what was worked out already."""
    return [_figures(examined), _reason(examined), _chain(examined)]


def main_cell(examined: Examined) -> tuple[int, int] | None:
    """Return the forwarders and size that sentences are about, None without any figure.

    The smallest file and the fewest forwarders, of what the report's filter was measured with,
    with all requests if there is such a cell, or else of what the loopback has.
    """
    frame = examined.cells
    here = frame[(frame["part"] == LOOPBACK) & (frame["forwarders"] > 0)]
    here = here[here["elapsed_s"].notna()]
    for wanted in (here[here["mode"] == LEGACY], here):
        if len(wanted):
            cut = wanted["made"] != REQUESTS
            best = min(zip(cut, wanted["size_bytes"], wanted["forwarders"], strict=True))
            return int(best[2]), int(best[1])
    return None


def _figures(examined: Examined) -> str:
    cell = main_cell(examined)
    count, size = cell or (1, SIZES_BYTES[0])
    report = {mode: examined.row(REPORT, mode, count, size) for mode in ("xdp", "socat")}
    where = f"{REQUESTS} requests of {size:,} bytes through {forwarders(count)}"
    said = [
        f"{printed(row['elapsed_s'])} s by {title(mode)}" for mode, row in report.items() if row
    ]
    known = f"The report has {listed(said)} for {where}. " if said else ""
    names = {LEGACY: "its filter", "socat": "socat", "xdp": "the corrected filter"}
    measured = [
        f"{words} took {took(row)}"
        for mode, words in names.items()
        if cell and (row := examined.row(LOOPBACK, mode, count, size))
    ]
    if not measured:
        return known + _NOTHING
    again = "Made again on one machine's loopback, " if said else f"On loopback, for {where}, "
    return f"{known}{again}{listed(measured)}."


_NOTHING = "Nothing was measured on the loopback here."


def took(row: dict[str, Any]) -> str:
    """Return a cell's time, and what it was for unless all requests were answered."""
    text = f"{seconds(row['elapsed_s'])} s"
    made, done = int(row["made"]), int(row["done"])
    if row["part"] == REPORT or (made == REQUESTS and done == made):
        return text
    if made == REQUESTS:
        return f"{text} ({done:,} of {made:,} answered)"
    all_of_them = "" if done == made else f", {done:,} of them answered,"
    pace = f"{seconds(row['per_100_s'])} s for {REQUESTS} at that pace"
    return f"{text} for {counted(made, 'request')}{all_of_them} ({pace})"


def _reason(examined: Examined) -> str:
    found = {each.key: each for each in examined.findings}
    held = holding(list(examined.findings))
    if "waits" not in held:
        return found["waits"].text
    legacy = examined.tallies[LEGACY]
    shares = legacy.shares
    late = [f"{shares.waited:,} waited a second or more for a SYN that was sent again"]
    late += [f"{shares.never:,} were never open"] if shares.never else []
    text = f"Of {counted(shares.total, 'connection')} through its filter {listed(late)}"
    if {"refused", "thrown_away"} <= held:
        text += (
            ": each comes from the port of the one before and is refused by its TIME_WAIT, and the "
            "refusal is lost to a checksum that the filter leaves as it was"
        )
    elif "refused" in held:
        text += ": each comes from the port of the one before and is refused by its TIME_WAIT"
    elif "thrown_away" in held:
        text += ": the filter leaves checksums as they were, and answers are thrown away"
    cleared = ["interrupts"] if "idle" in held else []
    cleared += ["loopback"] if "control" in held else []
    if len(cleared) > 1:
        return f"{text}. It was neither {' nor '.join(cleared)}."
    return f"{text}. It was not {cleared[0]}." if cleared else f"{text}."


def _chain(examined: Examined) -> str:
    if examined.comparison is None:
        return "The chain of one host a hop was not measured."
    found = _costs(examined.comparison) or _medians(examined.comparison)
    if found:
        return found
    begun = examined.comparison["validity"]["samples"]["measured"]
    why = f"none of its {counted(begun, 'sample')} is valid" if begun else "it has no sample"
    return f"The chain of one host a hop has no figures: {why}."


def _costs(comparison: Record) -> str:
    """Return what a hop costs with the smallest file, empty where that is not known."""
    known = [line for line in comparison["per_hop"] if line["metric"] == "response_us"]
    known = [line for line in known if line["concurrency"] == 1]
    size = min((line["size_bytes"] for line in known), default=0)
    here = sorted(
        (line for line in known if line["size_bytes"] == size), key=lambda each: each["slope_us"]
    )
    if len(here) < 2:  # of a run that was cut short, times say more
        return ""
    costs: list[str] = []
    for line in here:
        between = f" {interval(line['ci95'])}" if line["ci95"] else ""
        costs.append(f"{figure(line['slope_us'])} µs{between} by {title(line['label'])}")
    response = f"a response of {size:,} bytes"
    return f"With one host a hop, each hop adds {listed(costs)} to {response}."


def _medians(comparison: Record) -> str:
    """Return response times through the longest chain, empty where there are none."""
    known = [cell for cell in comparison["cells"] if cell["concurrency"] == 1 and cell["hops"]]
    known = [cell for cell in known if cell["response_us"]["median"]]
    if not known:
        return ""
    size = min(cell["size_bytes"] for cell in known)
    known = [cell for cell in known if cell["size_bytes"] == size]
    counts = Counter(cell["hops"] for cell in known)
    hops = max(counts, key=lambda count: (counts[count], count))
    times = [
        f"{figure(cell['response_us']['median'])} µs"
        + (f" {interval(ends)}" if (ends := cell["response_us"]["ci95"]) else "")
        + f" by {title(cell['label'])}"
        for cell in sorted(known, key=lambda each: float(each["response_us"]["median"]))
        if cell["hops"] == hops
    ]
    response = f"a response of {size:,} bytes through {counted(hops, 'hop')}"
    return f"With one host a hop, {response} takes {listed(times)}."
