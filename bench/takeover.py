# SPDX-License-Identifier: Apache-2.0
"""Take hosts for a run: each is one run's at a time, until that run is gone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.errors import HeldError, HostsError
from bench.fleet import Agent, ask_each

# A lease that nobody renews any more, and some.
_LIMIT_S, _EVERY_S = 40.0, 0.25


def take(places: Sequence[tuple[Agent, Mapping[str, Any]]], limit_s: float) -> None:
    """Tell every agent its place, and so take every host. limit_s: for what agents prepare.

    A host whose run has certainly ended is waited for: its agent is about to notice, or its lease
    about to run out. Raises HostsError with every host that another run has, or that fails.
    """
    until = time.monotonic() + _LIMIT_S
    while True:
        try:
            # Those that are ready at once wait for those that compile.
            ask_each(places, limit_s)
            return
        except HostsError as error:
            held = {each.host for each in error.errors if isinstance(each, HeldError) and each.gone}
            if len(held) < len(error.errors) or time.monotonic() > until:
                raise
            places = [pair for pair in places if pair[0].host.name in held]
        time.sleep(_EVERY_S)
