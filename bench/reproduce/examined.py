# SPDX-License-Identifier: Apache-2.0
"""All that is known of a reproduction, worked out once for the page and for the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.compare import compare
from bench.reproduce import cells, seed
from bench.reproduce.diagnosis import Finding, findings
from bench.reproduce.tally import Tally, tallies

if TYPE_CHECKING:
    import pandas as pd

    from bench.reproduce.record import Reproduction


@dataclass(frozen=True)
class Examined:
    """What a reproduction says.

    meta: reproduce.json. cells: `cells.frame`. steps: what the report's own figures are made of.
    tallies: of the loopback, by mode. findings: why the filter took so long. comparison: of the
    chain's run, None without one.
    """

    meta: Mapping[str, Any]
    cells: pd.DataFrame
    steps: seed.Steps
    tallies: Mapping[str, Tally]
    findings: tuple[Finding, ...]
    comparison: dict[str, Any] | None

    @classmethod
    def of(cls, reproduction: Reproduction) -> Examined:
        """Work everything out. Raises BenchError for damaged files."""
        report = seed.load()
        counted = tallies(reproduction.loopback)
        chain = reproduction.chain
        return cls(
            meta=reproduction.meta,
            cells=cells.frame(reproduction.loopback, chain, report),
            steps=seed.steps(report),
            tallies=counted,
            findings=tuple(findings(counted)),
            comparison=None if chain is None else compare(chain),
        )

    def row(self, part: str, mode: str, forwarders: int, size_bytes: int) -> dict[str, Any] | None:
        """Return a cell with figures, None where there is none."""
        frame = self.cells
        here = frame[
            (frame["part"] == part)
            & (frame["mode"] == mode)
            & (frame["forwarders"] == forwarders)
            & (frame["size_bytes"] == size_bytes)
            & frame["elapsed_s"].notna()
        ]
        rows: list[dict[str, Any]] = here.to_dict("records")  # type: ignore[assignment]
        return rows[0] if rows else None
