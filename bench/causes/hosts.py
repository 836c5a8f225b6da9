# SPDX-License-Identifier: Apache-2.0
"""CPUs that had no time left: taken by the work itself, or by a hypervisor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from statistics import median

from bench.causes.model import Cause, cause, counted, joined
from bench.causes.observed import Key, Observed

_KINDS = ("user", "nice", "system", "irq", "softirq", "steal", "idle", "iowait")
_IDLE = {"idle", "iowait"}
_CPU = re.compile(r"cpu(\d+)_busy_s")
# Time is counted in ticks of 10 ms: less than this says nothing of a share.
_SHORTEST_S = 0.2
# All CPUs, or one of them while the others had time.
_ALL, _ONE, _OTHERS = 0.95, 0.97, 0.7
_STOLEN = 0.05


def cpu_saturated(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when a machine's CPUs, or one of them, were busy from start to end.

    No fault, but what then is measured: how much CPU time a connection costs.
    """
    all_busy = {key: shares for key in _machines(observed) if (shares := _all(observed, key))}
    one_busy = {key: one for key in _machines(observed) if (one := _one(observed, key))}
    one_busy = {key: one for key, one in one_busy.items() if key not in all_busy}
    keys = [*all_busy, *one_busy]
    if not keys:
        return
    machines = observed.hosts_in_order({host for _, host in keys})
    told = [
        *(f"{_name(observed, host)}: {_told(all_busy, host)}" for host in _hosts(all_busy)),
        *(f"{_name(observed, host)}: {_told_one(one_busy, host)}" for host in _hosts(one_busy)),
    ]
    shared = any(len(observed.sharing(host)) > 1 for host in machines)
    busy = [
        f"{what} in {counted(len(keys), 'sample')}"
        for what, keys in (("all CPUs", all_busy), ("one CPU alone", one_busy))
        if keys
    ]
    yield cause(
        observed,
        "cpu_saturated",
        "CPU saturated",
        "note",
        f"{joined([_name(observed, host) for host in machines])} had no CPU time left "
        f"({', '.join(busy)}): rates and response times are those of the CPU, not of the network",
        told,
        "lower --concurrency to measure latency"
        + ("; put the hosts on machines of their own to measure a hop's capacity" if shared else "")
        + ("; spread a NIC's queues over CPUs (ethtool -X, RPS)" if one_busy else ""),
        hosts={each for host in machines for each in observed.sharing(host)},
        samples={sample for sample, _ in keys},
    )


def cpu_steal(observed: Observed) -> Iterator[Cause]:
    """Yield the cause when a hypervisor gave a host's CPU time to others."""
    found = {}
    for key in _machines(observed):
        spent = _spent(observed, key)
        whole_s = sum(spent.values())
        if whole_s >= _SHORTEST_S and spent["steal"] > _STOLEN * whole_s:
            found[key] = spent["steal"] / whole_s
    if not found:
        return
    yield cause(
        observed,
        "cpu_steal",
        "CPU time stolen",
        "problem",
        f"a hypervisor gave up to {max(found.values()):.0%} of the CPU time to others",
        [
            f"{_name(observed, host)}: cpu_steal_s up to "
            f"{max(share for (_, each), share in found.items() if each == host):.0%} of all time"
            for host in _hosts(found)
        ],
        "measure when the machine is quiet, or on one that is not shared",
        hosts={each for _, host in found for each in observed.sharing(host)},
        samples={sample for sample, _ in found},
    )


def _machines(observed: Observed) -> list[Key]:
    """Return each sample with the first host of each machine: the others counted the same."""
    return [key for key in dict.fromkeys(observed.rows) if observed.sharing(key[1])[0] == key[1]]


def _spent(observed: Observed, key: Key) -> dict[str, float]:
    """Return CPU time in s by kind, 0 for kinds that are not known."""
    found = {}
    for kind in _KINDS:
        value = observed.values(f"cpu_{kind}_s").get(key, 0.0)
        found[kind] = max(value, 0.0)
    return found


def _all(observed: Observed, key: Key) -> dict[str, float] | None:
    """Return the share of each kind of CPU time where all CPUs were busy, otherwise None."""
    spent = _spent(observed, key)
    whole_s = sum(spent.values())
    idle_s = sum(spent[kind] for kind in _IDLE)
    # Without a counter of idle time nothing is known about being busy.
    if whole_s < _SHORTEST_S or key not in observed.values("cpu_idle_s"):
        return None
    if idle_s > (1 - _ALL) * whole_s:
        return None
    return {kind: value / whole_s for kind, value in spent.items()}


def _one(observed: Observed, key: Key) -> tuple[str, float, float] | None:
    """Return the CPU that alone was busy, its share, and that of softirq in its time, or None."""
    lasted_s = observed.values("monotonic_s").get(key, 0.0)
    if lasted_s < _SHORTEST_S:
        return None
    busy = {
        f"CPU {match[1]}": observed.values(name).get(key, -1.0) / lasted_s
        for name in observed.counters
        if (match := _CPU.fullmatch(name))
    }
    busy = {name: share for name, share in busy.items() if share >= 0}
    if len(busy) < 2:
        return None
    name = max(busy, key=lambda each: busy[each])
    others = [share for each, share in busy.items() if each != name]
    if busy[name] < _ONE or sum(others) / len(others) > _OTHERS:
        return None
    softirq_s = observed.values("cpu_softirq_s").get(key, 0.0)
    return name, min(busy[name], 1.0), min(softirq_s / lasted_s / busy[name], 1.0)


def _hosts(found: Mapping[Key, object]) -> list[str]:
    return list(dict.fromkeys(host for _, host in found))


def _name(observed: Observed, host: str) -> str:
    hosts = observed.sharing(host)
    return f"the machine that {joined(hosts)} share" if len(hosts) > 1 else host


def _told(busy: Mapping[Key, Mapping[str, float]], host: str) -> str:
    shares = [each for (_, name), each in busy.items() if name == host]
    kinds = {kind: median(each[kind] for each in shares) for kind in _KINDS}
    largest = sorted(kinds, key=lambda kind: -kinds[kind])
    told = ", ".join(
        f"{kind} {kinds[kind]:.0%}"
        for kind in largest
        if kind not in _IDLE and kinds[kind] >= 0.005
    )
    used = median(1 - sum(each[kind] for kind in _IDLE) for each in shares)
    return f"all CPUs {used:.0%} busy at the median: {told}"


def _told_one(busy: Mapping[Key, tuple[str, float, float]], host: str) -> str:
    found = [each for (_, name), each in busy.items() if name == host]
    cpus = joined(sorted({name for name, _, _ in found}))
    softirq = median(share for _, _, share in found)
    by = f", softirq up to {softirq:.0%} of it" if softirq >= 0.005 else ""
    return f"{cpus} {median(share for _, share, _ in found):.0%} busy at the median{by}"
