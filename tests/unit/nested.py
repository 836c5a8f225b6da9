# SPDX-License-Identifier: Apache-2.0
"""Facts of a host with something changed deep within."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any


def changed(facts: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with values changed: `{"nic__mtu": 9000}` for facts["nic"]["mtu"]."""
    found = deepcopy(dict(facts))
    for name, value in changes.items():
        place = found
        *path, last = name.split("__")
        for key in path:
            place = place[key]
        place[last] = value
    return found
