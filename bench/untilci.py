# SPDX-License-Identifier: Apache-2.0
"""When a run has enough blocks: every pair's interval narrow enough, or the time over."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.cells import MAX_BLOCKS
from bench.errors import UsageError

METRIC = "response_us"
DEFAULT_LIMIT_S = 1800.0
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(s|m|min|h|)")
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Until:
    """half_width: of every pair's 95 % interval, as a share of its ratio. limit_s: for the run."""

    half_width: float
    limit_s: float = DEFAULT_LIMIT_S

    def record(self) -> dict[str, float]:
        """Return what run.json keeps of it."""
        return asdict(self)


def parse_half_width(text: str, where: str = "--until-ci") -> float:
    """Return a share such as `5%` or `0.05`. Raises UsageError."""
    stripped = text.strip()
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?|\.[0-9]{1,6})\s*(%?)", stripped)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0.001 <= share <= 0.5:
        raise UsageError(f"{where}: {text[:32]!r} is not a share from 0.1% to 50%, such as 5%")
    return share


def parse_duration_s(text: str, where: str = "--time-limit") -> float:
    """Return the seconds of a text such as `90s`, `20m` or `1.5h`. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
    if not 1 <= seconds <= 7 * 86400:
        raise UsageError(f"{where}: {text[:32]!r} is not a time such as 90s, 20m or 2h")
    return seconds


def wide(comparison: Mapping[str, Any], half_width: float) -> list[str]:
    """Return the pairs whose interval is wider than asked for, widest first, in words."""
    found = []
    for pair in comparison["pairs"]:
        if pair["metric"] != METRIC:
            continue
        width = _half_width(pair)
        if width > half_width:
            hops = f"{pair['hops']} hop" + ("" if pair["hops"] == 1 else "s")
            where = f"{hops}, {pair['size_bytes']} B, c={pair['concurrency']}"
            found.append((width, f"{pair['a']} with {pair['b']} at {where}"))
    return [
        f"{text}: " + ("no interval yet" if math.isinf(width) else f"±{width:.1%}")
        for width, text in sorted(found, reverse=True)
    ]


def _half_width(pair: Mapping[str, Any]) -> float:
    if not pair["ci95"] or not pair["ratio"]:
        return math.inf
    low, high = pair["ci95"]
    return float((high - low) / 2 / pair["ratio"])


def judge(
    until: Until, began: float, say: Callable[[str], None], earlier: int = 0
) -> Callable[[Path], bool]:
    """Return what decides after each block whether there are enough.

    began: time.monotonic() when the command started. say: told what is still too wide. earlier:
    blocks that a run which is resumed had already.
    """
    from bench.compare import compare
    from bench.runs import RunReader

    def enough(path: Path) -> bool:
        reader = RunReader.open(path, path.parent)
        left = wide(compare(reader), until.half_width)
        blocks = reader.meta["sweep"]["blocks"]
        if not left:
            say(f"every pair's interval is within ±{until.half_width:.1%} after {blocks} blocks")
            return True
        many = f"{len(left)} pair is" if len(left) == 1 else f"{len(left)} pairs are"
        wider = f"{many} wider than ±{until.half_width:.1%}, first {left[0]}"
        if blocks >= MAX_BLOCKS:
            say(f"{blocks} blocks are the most there can be; {wider}")
            return True
        used_s = time.monotonic() - began
        # A block that cannot end in time is not begun.
        if used_s + used_s / max(1, blocks - earlier) > until.limit_s:
            say(
                f"the time limit of {until.limit_s:.0f} s is reached after {blocks} blocks; {wider}"
            )
            return True
        say(wider)
        return False

    return enough
