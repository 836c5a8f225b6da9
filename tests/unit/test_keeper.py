# SPDX-License-Identifier: Apache-2.0
"""Agents hear of their controller while it waits for others, and nothing while a sample runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from bench import keeper
from bench.hop.protocol import DEFAULT_LEASE_S
from bench.keeper import Keeper


class Told:
    """An agent that counts how often it is kept."""

    def __init__(self) -> None:
        self.times = 0
        self._heard = threading.Event()

    def keep(self) -> None:
        """Count."""
        self.times += 1
        self._heard.set()

    def hears(self, limit_s: float) -> bool:
        """Return whether it is kept once more within the limit."""
        self._heard.clear()
        return self._heard.wait(limit_s)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Keeper, list[Told]]]:
    monkeypatch.setattr(keeper, "EVERY_S", 0.01)
    made, agents = Keeper(), [Told(), Told()]
    made.begin(agents)  # type: ignore[arg-type]
    yield made, agents
    made.end()


def test_every_agent_hears_again_and_again(kept: tuple[Keeper, list[Told]]) -> None:
    for agent in kept[1] * 2:
        assert agent.hears(5.0)


def test_nothing_is_said_while_a_sample_runs(kept: tuple[Keeper, list[Told]]) -> None:
    made, agents = kept
    with made.quiet():
        before = [agent.times for agent in agents]
        time.sleep(0.1)
        assert [agent.times for agent in agents] == before
        made.keep()
        assert [agent.times for agent in agents] == [each + 1 for each in before]
    assert agents[0].hears(5.0)


def test_nobody_hears_after_the_end(kept: tuple[Keeper, list[Told]]) -> None:
    made, agents = kept
    made.end()
    time.sleep(0.05)
    assert not agents[0].hears(0.1)


def test_two_may_come_late() -> None:
    assert 3 * keeper.EVERY_S < DEFAULT_LEASE_S
