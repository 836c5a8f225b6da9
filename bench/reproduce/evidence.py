# SPDX-License-Identifier: Apache-2.0
"""What was counted with the filter and with the others, beside each other, as lines of evidence."""

from __future__ import annotations

from collections.abc import Mapping

from bench.reproduce.cells import LOOPBACK
from bench.reproduce.plan import LEGACY
from bench.reproduce.tally import Tally
from bench.reproduce.words import listed, name, rate, share

CORRECTED = "xdp"
OTHERS = ("socat", CORRECTED)

# A counter speaks for the filter when it goes up at least once for 100 connections, and ten times
# as often as with the others.
_ONCE, _TIMES = 1.0, 10.0
_SHOWN = 4

PAWS_WORDS = {
    "TcpExtPAWSTimewait": "timestamps refused in TIME_WAIT",
    "TcpExtPAWSActive": "timestamps refused while opening",
    "TcpExtPAWSEstab": "timestamps refused (TIME_WAIT or open)",
    "TcpExtPAWSOldAck": "old ACKs refused for their timestamp",
}


def told_shares(tally: Tally) -> str:
    """Return how many connections were open when, in one line."""
    shares = tally.shares
    parts = [("within 10 ms", shares.prompt), ("10 ms to 1 s", shares.between)]
    parts += [(f"at about {step} s", number) for step, number in sorted(shares.at.items())]
    parts += [("later, at no step", shares.elsewhere), ("never", shares.never)]
    said = [
        f"{words} {number:,} ({share(number, shares.total)})" for words, number in parts if number
    ]
    open_when = ", ".join(said) or "no connection was timed"
    return f"{name(LOOPBACK, tally.mode)}, connections open: {open_when}"


def speaks(tallies: Mapping[str, Tally], *counters: str) -> bool:
    here = tallies[LEGACY].per_100(*counters)
    others = [tallies[mode].per_100(*counters) or 0.0 for mode in OTHERS if mode in tallies]
    return here is not None and here >= max(_ONCE, _TIMES * max(others, default=0.0))


def compared(tallies: Mapping[str, Tally], words: str, counter: str) -> list[str]:
    """Return a counter for 100 connections in each mode, nothing where no mode has it."""
    said = [
        f"{name(LOOPBACK, mode)} {rate(tallies[mode].per_100(counter))}"
        for mode in (LEGACY, *OTHERS)
        if mode in tallies and counter in tallies[mode].rises
    ]
    return [f"{words} ({counter}) for 100 connections: {', '.join(said)}"] if said else []


def instead(tallies: Mapping[str, Tally]) -> str:
    """Return which counters did go up with the filter and not with the others."""
    legacy = tallies[LEGACY]
    found = [
        (per_100, counter)
        for counter in legacy.rises
        if counter.startswith(("Tcp", "Ip")) and speaks(tallies, counter)
        if (per_100 := legacy.per_100(counter) or 0.0)
    ]
    most = sorted(found, reverse=True)[:_SHOWN]
    if not most:
        return " No counter of TCP or IP rose with it alone."
    said = listed([f"{counter} ({rate(per_100)} for 100)" for per_100, counter in most])
    return f" What rose with this filter and not with the others: {said}."
