# SPDX-License-Identifier: Apache-2.0
"""The look at a run's hosts before it measures: what is found is said and written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.chain import Chain
from bench.finding import Finding
from bench.progress import RunProgress
from bench.readiness import findings
from bench.readiness_ports import Planned
from bench.runwriter import RunWriter
from bench.sweep import Sweep


def look_over(
    chain: Chain,
    sweep: Sweep,
    host_facts: dict[str, Any],
    writer: RunWriter,
    progress: RunProgress,
    said: Sequence[Finding] = (),
) -> list[Finding]:
    """Write down what of the hosts would spoil figures; say and return it.

    said: what was said before, and is not said again.
    """
    planned = Planned(
        requests_total=sweep.blocks * sum(cell.transactions for cell in sweep.cells),
        most_concurrency=max(cell.concurrency for cell in sweep.cells),
        modes=tuple(sorted({cell.mode for cell in sweep.cells})),
    )
    found = [each for each in findings(chain, host_facts, planned) if each.level != "ok"]
    for each in found:
        if each not in said:
            progress.phase(_finding(each))
    writer.update(findings=[asdict(each) for each in found])
    return found


def _finding(found: Finding) -> str:
    remedy = f" ({found.remedy})" if found.remedy else ""
    return f"{found.level}: {found.host}: {found.text}{remedy}"
