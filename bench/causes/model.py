# SPDX-License-Identifier: Apache-2.0
"""A cause of odd numbers, and how the samples it was seen in are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.causes.observed import Observed

Level = Literal["problem", "note"]

# A second that one connection in a thousand loses is a millisecond on the mean: more than hops
# cost. Once or twice may be chance.
SHARE = 0.001
FEW = 3

_IDS = 10
_CELLS = 3
_HOSTS = 8


@dataclass(frozen=True)
class Cause:
    """What happened, by what it is known, and what helps.

    name: a word that stays the same, `listen_overflow`. text: a sentence without its full stop,
    with the numbers that matter. evidence: lines that name hosts, counters and samples. hosts:
    where it was seen, in the order of the chain. samples: the ids of all samples it was seen in, of
    samples_total that there are, warm-ups and invalid ones included.
    """

    name: str
    title: str
    level: Level
    text: str
    evidence: tuple[str, ...]
    remedy: str
    hosts: tuple[str, ...]
    samples: tuple[str, ...]
    samples_total: int

    def line(self) -> str:
        """Return the cause in one sentence."""
        where = f" at {joined(self.hosts)}" if self.hosts else ""
        return (
            f"{self.title}{where}, in {len(self.samples)} of "
            f"{counted(self.samples_total, 'sample')}: {self.text}."
        )

    def record(self) -> dict[str, Any]:
        """Return the cause as `bench diagnose --json` prints it; of many samples, some ids."""
        return {
            "name": self.name,
            "title": self.title,
            "level": self.level,
            "text": self.text,
            "evidence": list(self.evidence),
            "remedy": self.remedy,
            "hosts": list(self.hosts),
            "samples": {"count": len(self.samples), "ids": list(self.samples[:_IDS])},
        }


def cause(
    observed: Observed,
    name: str,
    title: str,
    level: Level,
    text: str,
    evidence: Iterable[str],
    remedy: str,
    *,
    hosts: Iterable[str],
    samples: Iterable[str],
) -> Cause:
    """Return a cause with its hosts and samples in order, and where it was seen as evidence."""
    found = observed.in_order(samples)
    return Cause(
        name=name,
        title=title,
        level=level,
        text=text,
        evidence=(*evidence, where(observed, found)),
        remedy=remedy,
        hosts=tuple(observed.hosts_in_order(hosts)),
        samples=tuple(found),
        samples_total=len(observed.samples),
    )


def level(events: float, chances: float) -> Level:
    """Return how grave it is that something happened `events` times out of `chances`."""
    return "problem" if events >= FEW and events >= SHARE * chances else "note"


def where(observed: Observed, ids: Sequence[str]) -> str:
    """Return which samples and cells these are: `3 of 40 samples, 1 of them a warm-up: …`."""
    samples = [observed.samples[each] for each in ids]
    warmups = sum(each.warmup for each in samples)
    invalid = sum(not each.valid for each in samples)
    odd = [counted(warmups, "warm-up")] if warmups else []
    odd += [f"{invalid} invalid"] if invalid else []
    of_them = f" ({', '.join(odd)})" if odd else ""
    cells = Counter(each.place for each in samples)
    told = [
        f"{place} in {number}" if len(cells) > 1 else place
        for place, number in cells.most_common(_CELLS)
    ]
    more = [f"{len(cells) - _CELLS} other cells"] if len(cells) > _CELLS else []
    shown = ", ".join(ids[:_CELLS]) + (", …" if len(ids) > _CELLS else "")
    return (
        f"{len(samples)} of {counted(len(observed.samples), 'sample')}{of_them}: "
        f"{'; '.join([*told, *more])} ({shown})"
    )


def by_host(
    observed: Observed, counters: Mapping[str, Mapping[tuple[str, str], float]]
) -> list[str]:
    """Return a line a host: `server: TcpExtListenOverflows 485, TcpExtListenDrops 490`.

    counters: for each name how much it went up, by sample and host.
    """
    totals: dict[str, list[str]] = {}
    for name, rises in counters.items():
        sums: Counter[str] = Counter()
        for (_, host), value in rises.items():
            sums[host] += value  # type: ignore[assignment]
        for host, value in sums.items():
            totals.setdefault(host, []).append(f"{name} {value:,.0f}")
    return [f"{host}: {', '.join(totals[host])}" for host in observed.hosts_in_order(totals)]


def counted(number: float, noun: str) -> str:
    """Return a number with its noun: `1 sample`, `2,000 samples`."""
    return f"{number:,.0f} {noun}" + ("" if number == 1 else "s")


def joined(words: Sequence[str]) -> str:
    """Return words as a list in a sentence, the first of them where they are many."""
    shown = list(words[:_HOSTS])
    if len(words) > _HOSTS:
        shown.append(f"{len(words) - _HOSTS} others")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
