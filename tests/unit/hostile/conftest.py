# SPDX-License-Identifier: Apache-2.0
"""Says how many hostile inputs were tried."""

from __future__ import annotations

from typing import Any

from fuzzing import SECONDS, TRIED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name each fuzzer with its number of inputs where they ran for longer."""
    if TRIED and SECONDS:
        terminalreporter.section("hostile inputs")
        for name, count in sorted(TRIED.items()):
            terminalreporter.write_line(f"{count:>9,} {name}")
        terminalreporter.write_line(f"{sum(TRIED.values()):>9,} in all")
