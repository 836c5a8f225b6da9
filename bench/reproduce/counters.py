# SPDX-License-Identifier: Apache-2.0
"""Tables of evidence: when connections were open, and counters for 100 connections, by mode."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from bench.report.document import Column, Entry, Table
from bench.reproduce.cells import LOOPBACK
from bench.reproduce.evidence import OTHERS, PAWS_WORDS
from bench.reproduce.plan import LEGACY, LEGACY_MODES, TODAY
from bench.reproduce.tally import BESIDE, PAWS, SUM_ERRORS, SYN_AGAIN, Tally
from bench.reproduce.words import NONE, name, rate, share

_WORDS = {
    SYN_AGAIN: "SYNs and SYN-ACKs sent again",
    **PAWS_WORDS,
    SUM_ERRORS: "segments with a wrong checksum",
    "TcpExtTCPACKSkippedTimeWait": "answers from TIME_WAIT withheld (rate limit)",
    "TcpExtTCPACKSkippedPAWS": "answers to old timestamps withheld (rate limit)",
    "TcpExtTCPChallengeACK": "challenge ACKs",
    "TcpExtTW": "connections that left TIME_WAIT",
    "TcpExtTWRecycled": "TIME_WAITs used again early",
    "TcpEstabResets": "open connections reset",
    "TcpOutRsts": "resets sent",
    "TcpAttemptFails": "attempts given up",
    "TcpRetransSegs": "segments sent again",
    "TcpExtTCPTimeouts": "retransmission timers that ran out",
}
_OWN = "forwarder_"
_ALWAYS = (SYN_AGAIN, "TcpExtPAWSTimewait", "TcpExtPAWSEstab", SUM_ERRORS)
_HEADS = {LEGACY: "2022 filter", TODAY: "same, today's timestamps", "xdp": "corrected"}


def tables(tallies: Mapping[str, Tally]) -> list[Table]:
    """Return the tables for what was measured on the loopback; none without any."""
    shown = [tallies[mode] for mode in (LEGACY, TODAY, *OTHERS) if mode in tallies]
    found = []
    if any(tally.connections for tally in shown):
        found.append(_shares([tally for tally in shown if tally.connections]))
    if any(tally.rises for tally in shown):
        found.append(_counters([tally for tally in shown if tally.rises]))
    return found


def _shares(shown: Sequence[Tally]) -> Table:
    steps = sorted({step for tally in shown for step in tally.shares.at} | {1, 3})
    heads = ["connections", "in 10 ms", "in 1 s", *(f"at {s} s" for s in steps)]
    heads += ["later", "never"]
    rows, data = [], []
    for tally in shown:
        shares = tally.shares
        numbers = [shares.prompt, shares.between, *(shares.at[step] for step in steps)]
        numbers += [shares.elsewhere, shares.never]
        rows.append(
            [
                Entry(name(LOOPBACK, tally.mode)),
                Entry(f"{shares.total:,}", float(shares.total)),
                *(Entry(f"{n:,}", float(n), share(n, shares.total)) for n in numbers),
            ]
        )
        data.append([tally.mode, shares.total, *numbers])
    return Table(
        name="connections-open",
        title="When connections were open",
        columns=[Column("mode"), *(Column(head, numeric=True) for head in heads)],
        rows=rows,
        csv=_csv(["mode", *heads], data),
        caption=(
            "Connections of all samples on the loopback but warm-ups, from the SYN until they were "
            "established, timed in the kernel: within 10 ms, else before a second, else at about "
            "a step of TCP's timer (Linux sends a SYN again after 1 and 3 s, newer kernels also "
            "after 2), else later, or never."
        ),
    )


def _counters(shown: Sequence[Tally]) -> Table:
    known = [
        counter
        for counter in (SYN_AGAIN, *PAWS, SUM_ERRORS, *BESIDE)
        # What has risen nowhere is worth a line only where a reader looks for it.
        if any(tally.rises.get(counter) for tally in shown)
        or (counter in _ALWAYS and any(counter in tally.rises for tally in shown))
    ]
    own = sorted(
        {
            counter
            for tally in shown
            if tally.mode in LEGACY_MODES
            for counter, rise in tally.rises.items()
            if counter.startswith(_OWN) and rise > 0
        }
    )
    rows, data = [], []
    for counter in (*known, *own):
        figures = [tally.per_100(counter) for tally in shown]
        words = _WORDS.get(counter) or counter.removeprefix(_OWN).replace("_", " ")
        rows.append(
            [
                Entry(words),
                Entry(counter),
                *(Entry(NONE if each is None else rate(each), each) for each in figures),
            ]
        )
        data.append([counter, *("" if each is None else f"{each:.6g}" for each in figures)])
    modes = [_HEADS.get(tally.mode, tally.mode) for tally in shown]
    return Table(
        name="counters",
        title="What was counted, for 100 connections",
        columns=[
            Column("what"),
            Column("counter"),
            *(Column(each, numeric=True) for each in modes),
        ],
        rows=rows,
        csv=_csv(["counter", *(tally.mode for tally in shown)], data),
        caption=(
            "Rises of the namespace's counters over all samples of a mode but warm-ups, for 100 "
            "connections that the client began; a chain of socat opens one more at every hop. "
            "forwarder_… are the filter's own counters, all ports together."
        ),
    )


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
