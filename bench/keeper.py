# SPDX-License-Identifier: Apache-2.0
"""Renew the leases of a session's agents: no agent lives long after its controller is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.agent import Agent

# Less than a third of a lease (bench.hop.protocol.DEFAULT_LEASE_S): one may come late.
EVERY_S = 8.0


class Keeper:
    """A thread that says to all agents, again and again, that the controller is there.

    While one host prepares, others have nothing to do, and hear nothing else.
    """

    def __init__(self) -> None:
        self._agents: Sequence[Agent] = ()
        self._speaking = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def begin(self, agents: Sequence[Agent]) -> None:
        """Keep these agents from now on."""
        self._agents = agents
        self._thread.start()

    def end(self) -> None:
        """Keep nobody any more."""
        self._ended.set()

    def keep(self) -> None:
        """Say it once, from the thread that has asked for quiet."""
        for agent in self._agents:
            agent.keep()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Say nothing meanwhile: a sample is measured, and agents have leases for its time."""
        with self._speaking:
            yield

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            with self._speaking:
                self.keep()
