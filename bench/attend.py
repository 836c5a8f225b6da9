# SPDX-License-Identifier: Apache-2.0
"""Wait for a sample: leave it alone for as long as it usually takes, then see who is there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from bench.agent import Agent, Message
from bench.errors import BenchError
from bench.fleet import ask_all

# A sample that takes so much longer than the one before is no ordinary one any more.
_LONGER, _GRACE_S = 1.25, 2.0
# How often it is looked, without a word to anybody, whether connections and agents are there.
_LOOK_EVERY_S = 0.25
# Beyond its time, every host is asked this often; it is given so long to answer.
_ASK_EVERY_S, _ASK_LIMIT_S = 4.0, 8.0
_END_LIMIT_S = 5.0
_SLACK_S = 15.0


def patience_s(expected_s: float | None) -> float:
    """Return for how long nothing is sent to anybody while siege runs.

    expected_s: how long such a sample took before; None where nobody knows.
    """
    return _GRACE_S + _LONGER * (expected_s or 0.0)


def lease_s(expected_s: float | None) -> float:
    """Return how long agents live without a word while siege runs: until asked, and some."""
    return patience_s(expected_s) + _ASK_EVERY_S + _ASK_LIMIT_S + _SLACK_S


def attend(
    client: Agent,
    others: Sequence[Agent],
    limit_s: float,
    expected_s: float | None,
    keep: Callable[[], None],
) -> Message:
    """Return the client's answer once siege has ended.

    While it takes no longer than usual, nothing is sent: a host or its SSH that goes away is
    noticed by what arrives here. After that every host is asked, again and again, whether it is at
    work, and all leases are renewed. Raises BenchError when one is not, after siege was ended.

    keep: renews the leases of agents that have nothing to do with the sample.
    """
    begun = time.monotonic()
    ask_at = begun + patience_s(expected_s)
    with client.watched(patience_s(expected_s)):
        while True:
            answer = client.poll(_LOOK_EVERY_S)
            if answer is not None:
                return answer
            try:
                for agent in (client, *others):
                    agent.require_there()
                if time.monotonic() > begun + limit_s:
                    raise BenchError(
                        f"siege has not ended within {limit_s:.0f} s", host=client.host.name
                    )
                if time.monotonic() > ask_at:
                    keep()
                    client.post({"op": "still", "lease_s": lease_s(expected_s)})
                    look = {"op": "counters", "lease_s": lease_s(expected_s)}
                    ask_all(others, look, _ASK_LIMIT_S)
                    ask_at = time.monotonic() + _ASK_EVERY_S
            except BenchError:
                _end(client)
                raise


def _end(client: Agent) -> None:
    """Have siege end, and take the answer that the sample ends with."""
    with contextlib.suppress(BenchError):
        client.post({"op": "abort"})
        client.receive(_END_LIMIT_S)
