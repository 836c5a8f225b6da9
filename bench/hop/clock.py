# SPDX-License-Identifier: Apache-2.0
"""What this host's clock says, and what the host knows of how right it is."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from . import config
from . import facts_read as read

_STA_UNSYNC = 0x40  # linux/timex.h
_LONGEST = 400  # characters of what chronyc says; it is one line of about 130


class _Timex(ctypes.Structure):
    """struct timex of linux/timex.h, as far as it is of interest; `rest` is longer than its end."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror_us", ctypes.c_long),
        ("esterror_us", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def answer(message: dict[str, Any]) -> dict[str, Any]:
    """Answer `clock` with the time; with `keeper` also with who keeps it. Raises HopError.

    realtime_ns: CLOCK_REALTIME. boot_id: hosts that share it share the clock. kernel: what
    adjtimex(2) says, whoever keeps the time. chrony: the line of `chronyc -c tracking`, None where
    there is no chrony.
    """
    asked = config.truth(message, "keeper")
    config.nothing_else(message)
    found: dict[str, Any] = {"event": "clock", "realtime_ns": time.time_ns()}
    if asked:
        found["boot_id"] = read.text("/proc/sys/kernel/random/boot_id")
        found["kernel"] = _kernel()
        # -n: no look-up of names.
        found["chrony"] = (read.said(["chronyc", "-n", "-c", "tracking"]) or "")[:_LONGEST] or None
    return found


def _kernel() -> dict[str, Any] | None:
    """Return whether the kernel believes its clock to be right, and within how many seconds."""
    now = _Timex()  # modes 0: only asks
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(now)) < 0:
        return None
    return {
        "synchronised": not now.status & _STA_UNSYNC,
        "max_error_s": now.maxerror_us / 1e6,
    }
