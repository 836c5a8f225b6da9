# SPDX-License-Identifier: Apache-2.0
"""Texts out of files and from hosts, as a terminal may have them."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return a text with a blank for all that a terminal would obey, or cannot be sent."""
    return "".join(c if c.isprintable() else " " for c in text)
