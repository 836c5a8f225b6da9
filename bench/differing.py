# SPDX-License-Identifier: Apache-2.0
"""What differs between the surroundings of two runs: hopbench, the chain, the hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.fact_changes import by_role, differences

Record = Mapping[str, Any]

# Addresses are of one plan or another; only their family can matter.
_NAMES = ("name", "data_ip")
_NONE: Record = {}


def differing(mine: Record, theirs: Record) -> list[str]:
    """Return what differs, a phrase each, between two run.json: a comparison's warnings."""
    return [*_hopbench(mine, theirs), *_chains(_chain(mine), _chain(theirs)), *_facts(mine, theirs)]


def _hopbench(mine: Record, theirs: Record) -> Iterator[str]:
    a, b = (_shown(meta["versions"].get("hopbench")) for meta in (mine, theirs))
    if a != b:
        yield f"other versions of hopbench: {a} and {b}"
    elif mine["git_commit"] != theirs["git_commit"]:
        a, b = (_shown(meta["git_commit"])[:12] for meta in (mine, theirs))
        yield f"other commits of hopbench: {a} and {b}"


def _chain(meta: Record) -> Mapping[str, Record]:
    """Return a run's hosts by what they are: client, hop 1, ..., server."""
    chain = meta["chain"]
    hops = chain.get("hops")
    hosts = {
        "client": chain.get("client"),
        **{f"hop {n}": hop for n, hop in enumerate(hops if isinstance(hops, list) else (), 1)},
        "server": chain.get("server"),
    }
    return {place: host for place, host in hosts.items() if isinstance(host, Mapping)}


def _chains(mine: Mapping[str, Record], theirs: Mapping[str, Record]) -> Iterator[str]:
    if not mine or not theirs:
        return
    a, b = (sum(place.startswith("hop") for place in chain) for chain in (mine, theirs))
    if a != b:
        yield f"chains of other lengths: {a} and {b} hops"
    families = [
        "IPv6" if any(":" in str(host.get("data_ip")) for host in chain.values()) else "IPv4"
        for chain in (mine, theirs)
    ]
    if families[0] != families[1]:
        yield f"{families[0]} in the one and {families[1]} in the other"
    told: dict[str, list[str]] = {}
    for place in mine:
        one, other = mine[place], theirs.get(place, _NONE)
        for key in sorted({*one, *other} - set(_NAMES)) if other else ():
            if one.get(key) != other.get(key):
                text = f"{key} {_shown(one.get(key))} and {_shown(other.get(key))}"
                told.setdefault(text, []).append(place)
    for text, places in told.items():
        yield f"{', '.join(places)}: {text}"


def _facts(mine: Record, theirs: Record) -> list[str]:
    one, other = (by_role(meta["host_facts"], meta["chain"]) for meta in (mine, theirs))
    return differences(one, other)


def _shown(value: object) -> str:
    return "none" if value is None else str(value)[:64]
