# SPDX-License-Identifier: Apache-2.0
"""Hosts that another run has: refused at once while it is there, waited for once it is gone."""

from __future__ import annotations

from typing import Any

import pytest

from bench import takeover
from bench.errors import BenchError, HeldError, HostsError


class Host:
    """An agent that refuses its place so many times."""

    def __init__(self, name: str, refusals: list[BenchError]) -> None:
        self.name = name
        self.host = self
        self.asked = 0
        self._refusals = refusals

    def send(self, _: dict[str, Any]) -> None:
        """Count what is asked."""
        self.asked += 1

    def receive(self, _: float) -> dict[str, Any]:
        """Refuse, or agree."""
        if self._refusals:
            raise self._refusals.pop(0)
        return {"event": "ready"}


def held(host: str, *, gone: bool) -> HeldError:
    """Return what a host says that another run has."""
    return HeldError("a run of me (process 7) has it", host=host, remedy="wait", gone=gone)


def test_a_host_whose_run_is_gone_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "_EVERY_S", 0.0)
    free, busy = Host("a", []), Host("b", [held("b", gone=True)] * 3)
    takeover.take([(free, {}), (busy, {})], 1.0)  # type: ignore[list-item]
    assert (free.asked, busy.asked) == (1, 4)


def test_a_host_whose_run_is_there_is_refused_at_once() -> None:
    hosts = [Host("a", [held("a", gone=True)]), Host("b", [held("b", gone=False)])]
    with pytest.raises(HostsError) as caught:
        takeover.take([(host, {}) for host in hosts], 1.0)  # type: ignore[misc]
    assert [host.asked for host in hosts] == [1, 1]
    assert caught.value.one_line() == (
        "a: a run of me (process 7) has it; b: a run of me (process 7) has it (wait)"
    )


def test_what_else_a_host_objects_to_is_nothing_to_wait_for() -> None:
    hosts = [Host("a", [held("a", gone=True)]), Host("b", [BenchError("no NIC", host="b")])]
    with pytest.raises(HostsError, match="b: no NIC"):
        takeover.take([(host, {}) for host in hosts], 1.0)  # type: ignore[misc]
    assert [host.asked for host in hosts] == [1, 1]


def test_a_run_that_is_gone_and_stays_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(takeover, "_LIMIT_S", -1.0)
    with pytest.raises(HostsError, match="a run of me"):
        takeover.take([(Host("a", [held("a", gone=True)]), {})], 1.0)  # type: ignore[list-item]
