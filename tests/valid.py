# SPDX-License-Identifier: Apache-2.0
"""Which samples may be invalid in a test: few, and for what the machine alone is to blame for.

On some virtual machines the kernel runs no tracing program while its process 1 is the current one
(docs/measurement.md), so that the timer misses a connection now and then and the sample is rightly
marked invalid. A hypervisor that takes CPU time, or a clock that is set, does the same. Whatever
else makes a sample invalid is a fault of what is tested.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.cells import Cell
from bench.judging import judge
from bench.rawsample import RawSample
from bench.session import Session

if TYPE_CHECKING:
    import pandas as pd

# The texts are bench/judging.py's.
_TIMER = re.compile(r"the connection timer saw (\d+) of (\d+) connections( never open)?")
_DISTURBED = re.compile(
    r"\w+: ("
    r"the hypervisor took \d+% of its CPU time"
    r"|its CPUs were throttled (once|\d+ times)"
    r"|its CPU quota ran out (once|\d+ times)"
    r"|its clock was set by [+-]\d+\.\d\d s"
    r"|it was suspended for \d+\.\d s"
    r")"
)
# Of a sample's connections, those the timer may miss at most: one in twenty.
_MISSED_SHARE, _MISSED_FEW = 0.05, 2
# Of a run's samples, those that may be invalid at most.
_INVALID_SHARE, _INVALID_FEW = 0.05, 1
_ATTEMPTS = 3


def by_the_machine(reason: str) -> bool:
    """Return whether the machine alone can be to blame for a sample that is invalid for this."""
    if match := _TIMER.fullmatch(reason):
        told, made = int(match[1]), int(match[2])
        missed = told if match[3] else made - told
        return 0 < missed <= max(_MISSED_FEW, _MISSED_SHARE * made)
    return _DISTURBED.fullmatch(reason) is not None


def require_valid(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the valid ones of samples.csv's rows; fail unless the rest are few and excused.

    Of one sample alone none may be invalid, and of several never all.
    """
    invalid = samples[~samples["valid"]]
    reasons = dict(zip(invalid["sample"], invalid["invalid_reason"], strict=True))
    allowed = min(max(_INVALID_FEW, int(_INVALID_SHARE * len(samples))), len(samples) - 1)
    assert len(invalid) <= allowed, f"{len(invalid)} of {len(samples)} samples: {reasons}"
    assert all(map(by_the_machine, reasons.values())), reasons
    return samples[samples["valid"]]


def valid_sample(session: Session, cell: Cell) -> RawSample:
    """Return a sample that is valid: made again, twice at most, where the machine spoiled it."""
    reasons: list[str] = []
    while len(reasons) < _ATTEMPTS:
        raw = session.sample(cell)
        sample = judge(cell, 1, 1, raw)
        if sample.valid:
            return raw
        reasons.append(sample.invalid_reason)
        assert by_the_machine(sample.invalid_reason), reasons
    raise AssertionError(reasons)
