# SPDX-License-Identifier: Apache-2.0
"""Why the report's filter took so long: a chain of reasons, each only as far as counters bear it.

Every function looks at what was counted and decides: the sentence it returns says the reason where
the figures show it, and what they show instead where they do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.reproduce.cells import LOOPBACK
from bench.reproduce.evidence import (
    CORRECTED,
    OTHERS,
    PAWS_WORDS,
    compared,
    instead,
    speaks,
    told_shares,
)
from bench.reproduce.plan import LEGACY, TODAY
from bench.reproduce.tally import PAWS, SUM_ERRORS, SYN_AGAIN, Tally
from bench.reproduce.words import listed, name, rate, seconds, share
from bench.sentences import counted

# Samples in which what belongs together has to have gone up.
_MOST = 0.8
# Of late connections, the share for each of which a refusal has to have been counted.
_OFTEN = 0.5
_FEW = 0.1
# Of CPU time, what cannot be why something takes a hundred times as long.
_LITTLE = 0.1


@dataclass(frozen=True)
class Finding:
    """A reason. text: what is the case. evidence: what it rests on. holds: whether figures bear it.

    key: its name, for who asks after one of them.
    """

    key: str
    text: str
    holds: bool
    evidence: tuple[str, ...] = ()


def findings(tallies: Mapping[str, Tally]) -> list[Finding]:
    """Return the chain of reasons, in order; one that says so where the filter has no figures."""
    legacy = tallies.get(LEGACY)
    if legacy is None or not (legacy.connections or legacy.counted):
        text = (
            "The report's filter was not measured here, or nothing was timed: its figures cannot "
            "be explained from this reproduction."
        )
        return [Finding("waits", text, False)]
    looks = (waits, refused, thrown_away, together, today, idle, control)
    return [look(tallies) for look in looks]


def holding(found: list[Finding]) -> frozenset[str]:
    """Return the keys of the findings that hold."""
    return frozenset(each.key for each in found if each.holds)


def waits(tallies: Mapping[str, Tally]) -> Finding:
    """Say whether connections waited for a second SYN."""
    legacy = tallies[LEGACY]
    shares, again = legacy.shares, legacy.rise(SYN_AGAIN)
    all_of_them = counted(shares.total, "connection")
    evidence = (told_shares(legacy), *compared(tallies, "SYNs sent again", SYN_AGAIN))
    times = f"{rate(legacy.per_100(SYN_AGAIN))} times for 100 connections"
    never = f"; {shares.never:,} were never open at all" if shares.never else ""
    if shares.waited and (again is None or again > 0):
        count = "" if again is None else f", and the kernel sent a SYN again {times}"
        text = (
            f"The time went into waiting: {shares.waited:,} of {all_of_them} were open only at a "
            f"step of TCP's timer, which sends a SYN again after a second{count}{never}."
        )
        return Finding("waits", text, True, evidence)
    if again:
        text = (
            f"No connection was open after a wait, but the kernel sent a SYN again {times}: "
            f"{shares.never:,} of {all_of_them} were never open, whatever they waited."
        )
        return Finding("waits", text, True, evidence)
    late = f", {shares.elsewhere:,} were late at no step of its timer" if shares.elsewhere else ""
    count = "that counter is not known" if again is None else "no SYN was sent again"
    text = (
        f"No connection waited for TCP's timer here: of {all_of_them} {shares.prompt:,} were open "
        f"within 10 ms{late}{never}, and {count}. The report's steps of a second do not show."
    )
    return Finding("waits", text, False, evidence)


def refused(tallies: Mapping[str, Tally]) -> Finding:
    """Say whether SYNs were refused for the connection before them."""
    legacy = tallies[LEGACY]
    shares = legacy.shares
    again = f"after the first wait: {shares.at[1]:,} of {shares.waited:,} that waited"
    evidence = [
        line for each in _shown_paws(tallies) for line in compared(tallies, PAWS_WORDS[each], each)
    ]
    per_100, rise = legacy.per_100(*PAWS), legacy.rise(*PAWS) or 0.0
    late = shares.waited + shares.never
    same_port = (
        "The filter gives every connection the same source port at each hop, so that the server "
        "takes it for the one before, which it still has in TIME_WAIT"
    )
    if speaks(tallies, *PAWS) and rise >= _OFTEN * late:
        text = (
            f"{same_port}. {rate(per_100)} times for 100 connections a timestamp was older than "
            "that connection's, and the segment was refused (PAWS)."
        )
        return Finding("refused", text, True, tuple(evidence))
    known = "is not known" if per_100 is None else f"rose {rate(per_100)} times for 100 connections"
    if speaks(tallies, SUM_ERRORS) and shares.waited and shares.at[1] >= _MOST * late:
        few = rise < _FEW * late
        account = "are not what it was" if few else "account for a part at most"
        text = (
            f"What refused the first SYN took the second: {shares.at[1]:,} of {late:,} late "
            f"connections were open after one wait. {same_port}; and that takes a SYN if its "
            "timestamp is newer, or else its sequence number ahead (RFC 6191). Within one "
            "millisecond the timestamp is not newer, and the number is chance; a second later it "
            f"is. Older timestamps {account}: their counter (PAWS) {known}."
        )
        return Finding("refused", text, True, (f"open {again}", *evidence))
    text = (
        f"That SYNs met the connection before them in TIME_WAIT does not show: the counter of "
        f"timestamps refused (PAWS) {known}, and of {late:,} late connections {shares.at[1]:,} "
        f"were open after one wait.{instead(tallies)}"
    )
    return Finding("refused", text, False, tuple(evidence))


def _shown_paws(tallies: Mapping[str, Tally]) -> list[str]:
    """Return the counters of refused timestamps that rose, or the first that is known."""
    known = [each for each in PAWS if any(each in tally.rises for tally in tallies.values())]
    rose = [each for each in known if any(tally.rises.get(each) for tally in tallies.values())]
    return rose or known[:1]


def thrown_away(tallies: Mapping[str, Tally]) -> Finding:
    """Say whether answers were dropped for their checksums."""
    legacy = tallies[LEGACY]
    evidence = (
        *compared(tallies, "wrong TCP checksums", SUM_ERRORS),
        *compared(tallies, "segments sent again, SYNs or not", "TcpRetransSegs"),
    )
    per_100 = legacy.per_100(SUM_ERRORS)
    if speaks(tallies, SUM_ERRORS):
        text = (
            f"The refusal never arrived: {rate(per_100)} segments for 100 connections were thrown "
            "away for a wrong checksum. The filter changes ports and leaves the checksum. On "
            "loopback nobody looks at that of data, but what the kernel answers for a connection "
            "in TIME_WAIT carries a complete one: nobody heard the refusal, nor the last ACK of "
            "any connection, and TCP's timers had to run out."
        )
        return Finding("thrown_away", text, True, evidence)
    known = "is not known" if per_100 is None else f"rose {rate(per_100)} times for 100 connections"
    text = (
        "That answers were thrown away for the checksums which the filter leaves untouched does "
        f"not show: the counter of wrong checksums {known}."
    )
    return Finding("thrown_away", text, False, evidence)


def together(tallies: Mapping[str, Tally]) -> Finding:
    """Say whether the three rose in the same samples."""
    legacy = tallies[LEGACY]
    groups = {"SYNs sent again": (SYN_AGAIN,), "wrong checksums": (SUM_ERRORS,)}
    rising = {
        word: [sum(row.get(each, 0.0) for each in names) > 0 for row in legacy.by_sample]
        for word, names in groups.items()
    }
    n = len(legacy.by_sample)
    both = sum(map(all, zip(*rising.values(), strict=True)))
    evidence = tuple(f"{word}: in {sum(each):,} of {n:,} samples" for word, each in rising.items())
    if not n:
        return Finding("together", "No sample of the filter has counters.", False)
    if both >= _MOST * n:
        text = (
            f"The two go together: SYNs sent again and wrong checksums rose in {both:,} of the "
            f"filter's {counted(n, 'sample')}{_never_elsewhere(tallies)}."
        )
        return Finding("together", text, True, evidence)
    text = (
        f"The two do not go together: SYNs sent again and wrong checksums both rose in only "
        f"{both:,} of the filter's {counted(n, 'sample')}."
    )
    return Finding("together", text, False, evidence)


def today(tallies: Mapping[str, Tally]) -> Finding:
    """Say how the filter fares with this kernel's own timestamps."""
    legacy = tallies.get(TODAY)
    if legacy is None or not legacy.connections:
        text = (
            "How the filter fares with the timestamps of this kernel, which differ from those of "
            "2022, was not measured."
        )
        return Finding("today", text, False)
    shares, rise, per_100 = legacy.shares, legacy.rise(*PAWS), legacy.per_100(*PAWS)
    never = f"{shares.never:,} of {counted(shares.total, 'connection')}"
    evidence = [told_shares(legacy)]
    evidence += [
        f"{PAWS_WORDS[each]} ({each}) for 100 connections: {rate(legacy.per_100(each))}"
        for each in PAWS
        if legacy.rises.get(each)
    ]
    setting = (
        "The filter above ran with timestamps from one clock (tcp_timestamps=2), as kernels of "
        "2022 had between two addresses; newer ones give every pair of ports an offset of its own."
    )
    if shares.never and rise and rise >= _OFTEN * shares.never:
        text = (
            f"{setting} With this kernel's own timestamps {never} were never open: a timestamp "
            f"that is behind by chance stays so, and was refused {rate(per_100)} times for 100 "
            "connections (PAWS)."
        )
        return Finding("today", text, True, tuple(evidence))
    known = "is not known" if per_100 is None else f"rose {rate(per_100)} times for 100 connections"
    text = (
        f"{setting} With this kernel's own timestamps {never} were never open, and the counter of "
        f"refused timestamps (PAWS) {known}."
    )
    return Finding("today", text, False, tuple(evidence))


def _never_elsewhere(tallies: Mapping[str, Tally]) -> str:
    others = [tallies[mode] for mode in OTHERS if mode in tallies and tallies[mode].by_sample]
    both = sum(
        row.get(SYN_AGAIN, 0.0) > 0 and row.get(SUM_ERRORS, 0.0) > 0
        for tally in others
        for row in tally.by_sample
    )
    n = sum(len(tally.by_sample) for tally in others)
    names = listed([name(LOOPBACK, tally.mode) for tally in others])
    return f", and in {both:,} of {n:,} with {names}" if n else ""


def idle(tallies: Mapping[str, Tally]) -> Finding:
    """Say whether the machine worked or waited, and what interrupts took."""
    legacy = tallies[LEGACY]
    if not legacy.cpu_s:
        text = "What the CPUs did meanwhile was not recorded: interrupts cannot be judged by it."
        return Finding("idle", text, False)
    evidence = tuple(
        f"{name(LOOPBACK, mode)}: CPUs idle for {share(tally.cpu_s - tally.busy_s, tally.cpu_s)}, "
        f"{share(tally.interrupt_s, tally.cpu_s)} in interrupts, over {seconds(tally.lasted_s)} s"
        for mode, tally in tallies.items()
        if tally.cpu_s and mode in (LEGACY, *OTHERS)
    )
    interrupts, waited = legacy.interrupt_s, legacy.cpu_s - legacy.busy_s
    figures = (
        f"while the filter's samples ran, interrupts took {share(interrupts, legacy.cpu_s)} of the "
        f"machine's CPU time, and {share(waited, legacy.cpu_s)} of it was idle"
    )
    if interrupts < _LITTLE * legacy.cpu_s:
        text = f"It was not interrupts, which the report blamed: {figures}."
        return Finding("idle", text, True, evidence)
    text = f"CPU time alone does not rule interrupts out: {figures}."
    return Finding("idle", text, False, evidence)


def control(tallies: Mapping[str, Tally]) -> Finding:
    """Say whether a filter without the faults fares better in the same place."""
    corrected = tallies.get(CORRECTED)
    if corrected is None or not corrected.connections:
        text = (
            "The corrected filter was not measured on the loopback: that loopback is not to blame "
            "cannot be told from this reproduction."
        )
        return Finding("control", text, False)
    shares = corrected.shares
    evidence = (told_shares(corrected),)
    again = corrected.rise(SYN_AGAIN)
    all_of_them = counted(shares.total, "connection")
    if not (shares.waited or shares.never or shares.elsewhere or corrected.failed or again):
        text = (
            "Nor was it loopback, or XDP on it: this project's forwarder, attached the same way to "
            f"the same device with the same ports, failed none of {all_of_them} and sent no SYN "
            "again."
        )
        return Finding("control", text, True, evidence)
    text = (
        f"The corrected filter was not free of it either: of {all_of_them} "
        f"{shares.waited + shares.elsewhere:,} were late, {shares.never:,} were never open, and "
        f"{corrected.failed:,} requests failed. Loopback cannot be ruled out by this."
    )
    return Finding("control", text, False, evidence)
