# SPDX-License-Identifier: Apache-2.0
"""What a host counted during a sample: the difference of two snapshots of bench/hop/host.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HostDelta:
    """One host's counters over one sample.

    values: by the names that counters.parquet has; what only counts up as its difference, gauges
    as they were after the sample. forwarder: what the hop's forwarder counted.
    """

    host: str
    role: str
    values: Mapping[str, float] = field(default_factory=dict)
    forwarder: Mapping[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the host's line of counters.parquet, but for the sample."""
        forwarder = {f"forwarder_{name}": count for name, count in self.forwarder.items()}
        # Last, so that no counter can be called as they are.
        return {**self.values, **forwarder, "host": self.host, "role": self.role}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Return what counts went up by, and the gauges of `after`, of two snapshots of a host."""
    then, now = before["counts"], after["counts"]
    # Counters that came in between, as a driver's queues may, began at 0.
    found = {name: value - then.get(name, 0) for name, value in now.items()}
    return {**found, **after["gauges"]}
