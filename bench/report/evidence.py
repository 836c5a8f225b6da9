# SPDX-License-Identifier: Apache-2.0
"""What a report is made from: a run, its statistics and its diagnosis, each worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.causes.model import Cause
from bench.compare import compare
from bench.diagnose import diagnose
from bench.runs import RunReader


@dataclass(frozen=True)
class Evidence:
    """A run with what `bench compare` and `bench diagnose` say of it."""

    run: RunReader
    comparison: dict[str, Any]
    causes: Sequence[Cause]

    @classmethod
    def of(cls, run: RunReader) -> Evidence:
        """Work a run's statistics and diagnosis out. Raises BenchError for a damaged run."""
        return cls(run, compare(run), diagnose(run))
