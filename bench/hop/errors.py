# SPDX-License-Identifier: Apache-2.0
"""The one error an agent reports: a cause and a remedy."""

from __future__ import annotations


class HopError(Exception):
    """Something on this host forbids what was asked; `remedy` says what to do, or is empty."""

    def __init__(self, cause: str, remedy: str = "", **details: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        # What the controller decides by, beside what a person reads.
        self.details = details
