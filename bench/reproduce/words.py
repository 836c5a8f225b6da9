# SPDX-License-Identifier: Apache-2.0
"""How the page of a reproduction writes figures, and what it calls its parts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.cells import title
from bench.reproduce.cells import LOOPBACK, REPORT

NONE = "\N{EN DASH}"

_MODES = {
    (REPORT, "xdp"): "the report's XDP",
    (LOOPBACK, "xdp"): "the corrected filter",
}


def seconds(value: float | None) -> str:
    """Return a time to three digits: `43.1`, `0.150`; a dash for none."""
    if value is None or not math.isfinite(value):
        return NONE
    if value >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def printed(value: float) -> str:
    """Return a time as the report printed it, to hundredths of a second."""
    return f"{value:.2f}"


def share(part: float, whole: float) -> str:
    """Return a share in percent, without the digits nobody has counted."""
    if not whole:
        return NONE
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "under 0.1 %"
    return f"{percent:.0f} %" if percent >= 9.95 or not part else f"{percent:.1f} %"


def rate(value: float | None) -> str:
    """Return a number for 100 requests: `0`, `0.3`, `41`; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:#.2g}".rstrip(".")


def name(part: str, mode: str) -> str:
    """Return what a sentence calls a mode of a part."""
    return _MODES.get((part, mode), title(mode))


def forwarders(number: int) -> str:
    """Return a number of forwarders with its noun."""
    words = ("no", "one", "two", "three", "four")
    said = words[number] if 0 <= number < len(words) else f"{number:,}"
    return f"{said} forwarder" + ("" if number == 1 else "s")


def listed(items: Sequence[str]) -> str:
    """Return items as a sentence lists them: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))
