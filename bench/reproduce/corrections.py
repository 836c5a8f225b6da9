# SPDX-License-Identifier: Apache-2.0
"""What the 2022 report measured in truth: its quantities, its rival, its hops, its reasons."""

from __future__ import annotations

import numpy as np

from bench.hop.payloads import SIZES_BYTES
from bench.report.document import Section, Words
from bench.reproduce import seed
from bench.reproduce.cells import CHAIN, REPORT, REQUESTS
from bench.reproduce.diagnosis import holding
from bench.reproduce.examined import Examined
from bench.reproduce.plan import LEGACY
from bench.reproduce.words import printed
from bench.sentences import counted

_SIGN = "\N{MULTIPLICATION SIGN}"
FIRST_BYTES, LAST_BYTES = SIZES_BYTES[0], SIZES_BYTES[-1]


def arithmetic(examined: Examined) -> Section:
    """Return what the report's own figures say of its filter."""
    steps = examined.steps
    wait_s = f"{steps.period_s:.3f} s"
    shown = examined.row(REPORT, "xdp", 1, FIRST_BYTES)
    assert shown is not None  # seed.load has seen to it
    elapsed_s = float(shown["elapsed_s"])
    waits = round(elapsed_s / steps.period_s)
    left_s = elapsed_s - waits * steps.period_s
    paragraphs = [
        f"The table shows it without any measurement. Its {steps.n} XDP figures lie between "
        f"{printed(steps.lowest_s)} and {printed(steps.highest_s)} s, whatever the file and the "
        f"number of forwarders, while the files grow {LAST_BYTES // FIRST_BYTES:,} times as large; "
        "what does not depend on the work is no work.",
        f"They come in steps: of the {steps.small} figures for files below "
        f"{seed.SMALL_BYTES:,} bytes, which take no time of their own, {steps.near} are a whole "
        f"multiple of {wait_s} to within {seed.NEAR_S:g} s. By chance it would be "
        f"{steps.by_chance:.0f}. A second and the lateness of its timer is how long Linux waits "
        "before it sends a SYN again.",
        f"So {printed(elapsed_s)} s for {REQUESTS} requests of {FIRST_BYTES} bytes through one "
        f"forwarder are {waits} {_SIGN} {wait_s} = {waits * steps.period_s:.2f} s of waiting and "
        f"{left_s:.2f} s for all else; the median of {printed(steps.median_s)} s is "
        f"{steps.median_waits} {_SIGN} {wait_s} = {steps.median_waits * steps.period_s:.2f} s: "
        f"{steps.median_waits} of {REQUESTS} requests waited, or fewer where one waited twice. "
        "The logs of 2022 agree: about 40 of 100 requests took 1.03 s, a few 3.04 s.",
    ]
    legacy = examined.tallies.get(LEGACY)
    if legacy is not None and len(waits_us := legacy.first_waits_us):
        paragraphs.append(
            f"Here {counted(len(waits_us), 'connection')} of the filter made again waited once, "
            f"for {np.median(waits_us) / 1e6:.3f} s at the median."
        )
    return Section("arithmetic", "The report's own figures", [Words(paragraphs)])


def corrections(examined: Examined) -> Section:
    """Return what the report's words stood for."""
    label = seed.labels()[LAST_BYTES]
    transferred = REQUESTS * LAST_BYTES
    slowest = examined.row(REPORT, "xdp", 1, FIRST_BYTES)
    rival = examined.row(REPORT, "socat", 1, FIRST_BYTES)
    assert slowest is not None and rival is not None  # seed.load has seen to it
    ratio = slowest["elapsed_s"] / rival["elapsed_s"]
    paragraphs = [
        f"“Response time” was the time siege took for {REQUESTS} requests one after the other, in "
        f"seconds: {printed(rival['elapsed_s'])} s by socat are "
        f"{1000 * rival['elapsed_s'] / REQUESTS:.1f} ms a request. “File size (MB)” was what "
        f"{REQUESTS} requests transferred, in hundredths of a MB: {label:,} stands for "
        f"{label / 100:.0f} MB, {REQUESTS} times a file of {LAST_BYTES:,} bytes "
        f"({transferred / 2**20:.0f} MB of 2^20 bytes). File i holds 78·2^i bytes, i from 2 to 15.",
        "nftables was never measured: the folder for its results is empty. What stood in for it "
        "is socat, a process in user space that copies every byte twice. XDP was never compared "
        f"with forwarding in the kernel{_compared(examined)}.",
        "A “k-hop” chain had k ports and counted the server: k - 1 forwarders, so that its 2 to 5 "
        "hops are 1 to 4 forwarders here. All of them were one program on one loopback device, "
        "where another hop is another port and no other machine.",
        f"“XDP is {ratio:,.0f} times slower” ({printed(slowest['elapsed_s'])} against "
        f"{printed(rival['elapsed_s'])} s) was put down to interrupts and to loopback. "
        + _blame(examined),
    ]
    return Section("corrections", "What the report's words stood for", [Words(paragraphs)])


def _compared(examined: Examined) -> str:
    chain = examined.cells[examined.cells["part"] == CHAIN]
    there = set(chain[chain["elapsed_s"].notna()]["mode"])
    return "; the chain on this page does that" if {"nft", "xdp"} <= there else ""


def _blame(examined: Examined) -> str:
    """Return what it was instead, as far as this reproduction bears it out."""
    held = holding(list(examined.findings))
    if "waits" not in held:
        return "What it was, this reproduction cannot say; the report's own figures above can."
    reasons = []
    if "refused" in held:
        reasons.append("one source port for all connections, each refused by the one before it")
    if "thrown_away" in held:
        reasons.append("checksums that no longer fit, so that nobody was told")
    said = "It was lost answers: TCP's timer ran out"
    if reasons:
        said += (
            f" because of two faults of the filter: {'; and '.join(reasons)}"
            if len(reasons) == 2
            else f" because of a fault of the filter: {reasons[0]}"
        )
    neither = (
        " The same device, ports and attach mode without these faults lose no connection."
        if "control" in held
        else ""
    )
    return f"{said}.{neither}"
