# SPDX-License-Identifier: Apache-2.0
"""JSON from elsewhere, read strictly: every number is one that can be calculated with."""

from __future__ import annotations

import json
import math
from typing import Any

# Written with json.dumps(indent=1), which recurses, what is read has to fit; nothing of ours comes
# near.
MAX_DEPTH = 64
# Counters have 64 bits; what is longer cannot become a float, or not be printed.
_MAX_WHOLE = 1 << 64
_MAX_DIGITS = 40


def loads(text: str | bytes) -> Any:
    """Return what a JSON text says. Raises ValueError for all that is none, and is not meant well.

    Not taken are NaN, Infinity, 1e400 and its like, whole numbers beyond 64 bits, and nesting
    deeper than MAX_DEPTH.
    """
    try:
        found = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_bounded)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(found)
    return found


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:_MAX_DIGITS]} is not a finite number")
    return number


def _bounded(text: str) -> int:
    if len(text) > _MAX_DIGITS or abs(number := int(text)) > _MAX_WHOLE:
        raise ValueError(f"{text[:_MAX_DIGITS]} is too large a number")
    return number


def _check_depth(found: Any) -> None:
    level = [found]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
