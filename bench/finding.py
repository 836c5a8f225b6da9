# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing seen on one host. remedy: what to do about it, empty when it is fine."""

    host: str
    level: Level
    text: str
    remedy: str = ""
