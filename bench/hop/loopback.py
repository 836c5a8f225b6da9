# SPDX-License-Identifier: Apache-2.0
"""The agent of the forwarders on a loopback: prepared when first wanted, one chain at a time."""

from __future__ import annotations

import os

from . import config, version
from .errors import HopError
from .loopback_chain import CHAINS, MOST_FORWARDERS, LoopbackChain
from .protocol import Message, serve


class Loopback:
    """State of the agent between two lines of the controller."""

    def __init__(self) -> None:
        self._chains: dict[str, LoopbackChain] = {}
        self._active = ""
        self._ready = False

    def handle(self, message: Message) -> Message:
        """Answer `place` first, then a mode with its number of forwarders, `counters`, `renew`.

        Raises HopError.
        """
        operation = message.pop("op", "configure")
        if operation == "place":
            version.require(message)
            config.nothing_else(message)
            self._ready = True
            return {"event": "ready", "pid": os.getpid()}
        if not self._ready:
            raise HopError("the agent was not told its place yet")
        if operation == "configure":
            return self._configure(message)
        if operation == "counters":
            config.nothing_else(message)
            counted = self._chains[self._active].counters() if self._active else {}
            return {"event": "counters", "mode": self._active or "direct", "counters": counted}
        if operation == "renew":
            config.nothing_else(message)
            return {"event": "ready"}
        raise HopError("unknown operation")

    def _configure(self, message: Message) -> Message:
        mode = config.choice(message, "mode", ("direct", *CHAINS), "")
        forwarders = config.number(message, "forwarders", 0, MOST_FORWARDERS, 0)
        config.nothing_else(message)
        if bool(forwarders) != (mode != "direct"):
            raise HopError(f"{mode} has no chain of {forwarders} forwarders")
        self.stop()
        facts: dict[str, object] = {}
        if mode != "direct":
            chain = self._chains.setdefault(mode, CHAINS[mode]())
            try:
                facts = chain.start(forwarders)
            except BaseException:
                chain.stop()
                raise
            self._active = mode
        return {"event": "ready", "mode": mode, **facts}

    def stop(self) -> None:
        """End whatever forwards."""
        for chain in self._chains.values():
            chain.stop()
        self._active = ""


def main(argv: list[str]) -> int:
    """Serve the controller on stdin and stdout until it is gone."""
    del argv
    agent = Loopback()
    return serve(agent.handle, agent.stop)
