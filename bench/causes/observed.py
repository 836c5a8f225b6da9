# SPDX-License-Identifier: Apache-2.0
"""What a run's files say of each sample, made ready for questions about causes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cells import label

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Key = tuple[str, str]
"""A sample's id and a host's name."""

Rises = dict[Key, float]
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

LATE_US = 0.9e6
"""Below TCP's first retransmission of a SYN, after 1 s (RFC 6298, section 2)."""

CONNECTION_COLUMNS = ("sample", "connect_us", "failed_us", "port")

_KEYS = ("sample", "host", "role")


@dataclass(frozen=True)
class Sampled:
    """A sample, as far as causes ask for it.

    place: words for its cell. connections: how many there were or should have been. failed: what
    siege counts as failed, 0 where it left no report. lost: what the connection timer had no room
    for. untimed: connections that siege made and the timer did not see end. reported: whether
    siege left a report.
    """

    place: str
    label: str
    mode: str
    twin: bool
    offloads: str
    hops: int
    size_bytes: int
    warmup: bool
    valid: bool
    connections: int
    failed: int
    lost: int
    untimed: int
    reported: bool


@dataclass(frozen=True)
class Observed:
    """Samples, counters and odd connections of a run.

    samples: by id, in the order they were made. rows: what each row of counters is of. counters:
    columns, NaN where a host does not have one. late_us: connect times of LATE_US and more.
    portless_us, unanswered_us: how long attempts lasted that got no port at the client, and that
    got one and were never established. roles: by host, in the order of the chain. facts,
    facts_after: by host.
    """

    samples: Mapping[str, Sampled]
    rows: Sequence[Key] = ()
    counters: Mapping[str, Floats] = field(default_factory=dict)
    late_us: Mapping[str, Floats] = field(default_factory=dict)
    portless_us: Mapping[str, Floats] = field(default_factory=dict)
    unanswered_us: Mapping[str, Floats] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts_after: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # Columns that were asked for already, as `values` returns them.
    known: dict[str, Mapping[Key, float]] = field(default_factory=dict, repr=False, compare=False)

    def values(self, name: str) -> Mapping[Key, float]:
        """Return a counter where it is known."""
        if name not in self.known:
            column = self.counters.get(name)
            values = [] if column is None else zip(self.rows, column.tolist(), strict=True)
            self.known[name] = {key: value for key, value in values if math.isfinite(value)}
        return self.known[name]

    def rises(self, name: str, *roles: str) -> Rises:
        """Return where a counter went up and by how much, on all hosts or those of some roles."""
        return {
            key: value
            for key, value in self.values(name).items()
            if value > 0 and (not roles or self.roles.get(key[1]) in roles)
        }

    def rising(self, names: Iterable[str], *roles: str) -> dict[str, Rises]:
        """Return `rises` of those of several counters that went up anywhere."""
        found = {name: self.rises(name, *roles) for name in names}
        return {name: rises for name, rises in found.items() if rises}

    def in_order(self, ids: Iterable[str]) -> list[str]:
        """Return ids of samples once each, in the order they were made."""
        wanted = set(ids)
        return [each for each in self.samples if each in wanted]

    def hosts_in_order(self, hosts: Iterable[str]) -> list[str]:
        """Return hosts once each, in the order of the chain."""
        wanted = set(hosts)
        return [each for each in self.roles if each in wanted]

    def connections(self, ids: Iterable[str]) -> int:
        """Return how many connections belong to samples of the same cells as these."""
        places = {self.samples[each].place for each in ids}
        return sum(each.connections for each in self.samples.values() if each.place in places)

    def sharing(self, host: str) -> tuple[str, ...]:
        """Return the hosts that run on the same kernel as this one, which is one of them."""
        boot_id = self.facts.get(host, {}).get("boot_id")
        if not isinstance(boot_id, str) or not boot_id:
            return (host,)
        return tuple(
            each for each in self.roles if self.facts.get(each, {}).get("boot_id") == boot_id
        )

    def once_a_machine(self, rises: Mapping[Key, float]) -> Rises:
        """Return rises of what a kernel counts for all hosts on it, at the first of them only."""
        return {key: value for key, value in rises.items() if self.sharing(key[1])[0] == key[1]}

    @property
    def client(self) -> str:
        """The client's name."""
        return next((host for host, role in self.roles.items() if role == "client"), "client")

    def fact(self, host: str, *path: str) -> Any:
        """Return a fact of a host by its keys, None where it is not known."""
        found: Any = self.facts.get(host)
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def sysctl(self, host: str, name: str) -> str:
        """Return a sysctl of a host, empty where it is not known."""
        found = self.fact(host, "sysctls", name)
        return found if isinstance(found, str) else ""


def total(*counters: Mapping[Key, float]) -> float:
    """Return the sum of rises."""
    return sum(sum(each.values()) for each in counters)


def within(rises: Mapping[Key, float], samples: Iterable[str]) -> Rises:
    """Return rises in some samples."""
    wanted = set(samples)
    return {key: value for key, value in rises.items() if key[0] in wanted}


def samples_of(counters: Iterable[Mapping[Key, float]]) -> set[str]:
    """Return the samples in which any of these counters went up."""
    return {sample for rises in counters for sample, _ in rises}


def hosts_of(counters: Iterable[Mapping[Key, float]]) -> set[str]:
    """Return the hosts on which any of these counters went up."""
    return {host for rises in counters for _, host in rises}


def observe(
    samples: pd.DataFrame, counters: pd.DataFrame, connections: pa.Table, meta: Mapping[str, Any]
) -> Observed:
    """Return what a run says, of its samples.csv, its tables and run.json.

    connections: with CONNECTION_COLUMNS. What belongs to no sample of samples.csv is left out.
    """
    sampled = {str(row["sample"]): _sampled(row) for row in samples.to_dict("records")}
    counters = counters[counters["sample"].isin(list(sampled))]
    odd = _odd(connections, sampled)
    pairs = zip(counters["host"].astype(str), counters["role"].astype(str), strict=True)
    return Observed(
        samples=sampled,
        rows=list(zip(counters["sample"], counters["host"].astype(str), strict=True)),
        counters={
            name: counters[name].to_numpy(dtype=np.float64)
            for name in counters.columns
            if name not in _KEYS
        },
        late_us=odd["late_us"],
        portless_us=odd["portless_us"],
        unanswered_us=odd["unanswered_us"],
        roles={**_chain(meta.get("chain")), **dict(pairs)},
        facts=_by_host(meta.get("host_facts")),
        facts_after=_by_host(meta.get("host_facts_after")),
    )


def _sampled(row: Mapping[Any, Any]) -> Sampled:
    name = label(row["mode"], row["attach"], row["offloads"], row["twin"])
    hops = f", {row['hops']} hop{'' if row['hops'] == 1 else 's'}" if row["hops"] else ""
    done, failed = _whole(row["transactions"]), _whole(row["failed"])
    timed = _whole(row["timed"])
    return Sampled(
        place=f"{name}{hops}, {row['size_bytes']:,} B, c={row['concurrency']}",
        label=name,
        mode=row["mode"],
        twin=bool(row["twin"]),
        offloads=row["offloads"],
        hops=row["hops"],
        size_bytes=row["size_bytes"],
        warmup=bool(row["warmup"]),
        valid=bool(row["valid"]),
        connections=timed or done + failed or row["requests"],
        failed=failed,
        lost=_whole(row["lost"]),
        untimed=max(0, done + failed - timed) if timed else 0,
        reported=bool(done or failed),
    )


def _whole(value: Any) -> int:
    """Return a count, 0 for one that is missing."""
    try:
        return int(value)
    except (TypeError, ValueError):  # pandas' NA, NaN
        return 0


def _chain(chain: Any) -> dict[str, str]:
    """Return the roles of the chain's hosts in its order, as far as run.json says them."""
    if not isinstance(chain, Mapping):
        return {}
    hops = chain.get("hops")
    hosts = [("client", chain.get("client"))]
    hosts += [("hop", each) for each in hops] if isinstance(hops, list) else []
    hosts.append(("server", chain.get("server")))
    return {
        str(host["name"]): role
        for role, host in hosts
        if isinstance(host, Mapping) and "name" in host
    }


def _by_host(facts: Any) -> dict[str, Mapping[str, Any]]:
    if not isinstance(facts, Mapping):
        return {}
    return {str(host): each for host, each in facts.items() if isinstance(each, Mapping)}


def _odd(table: pa.Table, known: Iterable[str]) -> dict[str, dict[str, Floats]]:
    """Return the few connections of millions that a cause may ask for, by what is odd."""
    import pyarrow.compute as pc

    late = pc.fill_null(pc.greater_equal(table["connect_us"], LATE_US), False)
    never = pc.is_null(table["connect_us"], nan_is_null=True)
    without = pc.fill_null(pc.equal(table["port"], 0), False)
    wanted = {
        "late_us": ("connect_us", late),
        "portless_us": ("failed_us", pc.and_(never, without)),
        "unanswered_us": ("failed_us", pc.and_(never, pc.invert(without))),
    }
    return {
        name: _by_sample(table.select(["sample", column]).filter(mask), column, set(known))
        for name, (column, mask) in wanted.items()
    }


def _by_sample(table: pa.Table, column: str, known: set[str]) -> dict[str, Floats]:
    found: dict[str, list[float]] = {}
    values = table[column].to_numpy().astype(np.float64)
    for sample, value in zip(table["sample"].to_pylist(), values.tolist(), strict=True):
        if sample in known:
            found.setdefault(sample, []).append(value)
    return {sample: np.array(each, np.float64) for sample, each in found.items()}
