# SPDX-License-Identifier: Apache-2.0
"""The forwarding agent: one hop's forwarders, prepared beforehand, one of them active at a time."""

from __future__ import annotations

import importlib
import os
from typing import Protocol

from . import config, lock, net, offloads, version
from .address import family
from .errors import HopError
from .host import HostCounters
from .modes import MODES
from .protocol import Message, serve


class Forwarder(Protocol):
    """What a mode has to offer. Nothing it sets up may outlive the process, even on SIGKILL."""

    def __init__(self, place: config.Place) -> None: ...

    def prepare(self) -> None:
        """Do what is slow: compile, load, open."""

    def start(self, target: config.Target) -> dict[str, object]:
        """Forward to a next hop from now on; return facts worth recording."""

    def counters(self) -> dict[str, int]:
        """Return counts that only grow while the forwarder runs; `flows_opened` is one of them."""

    def tidy(self) -> None:
        """Do what can wait until nothing is measured; called between samples."""

    def stop(self) -> None:
        """Undo `start`. May be called at any time, also twice."""


def _forwarder_class(mode: str) -> type[Forwarder]:
    module, name = MODES[mode].forwarder.split(":")
    found: type[Forwarder] = getattr(importlib.import_module(f".{module}", __package__), name)
    return found


class Agent:
    """State of the forwarding agent between two lines of the controller."""

    def __init__(self) -> None:
        self._place: config.Place | None = None
        self._forwarders: dict[str, Forwarder] = {}
        self._active: str | None = None
        self._met: set[str] = set()  # next hops whose MAC address was asked for
        self._host = HostCounters(())
        self._offloads: offloads.Offloads | None = None

    def handle(self, message: Message) -> Message:
        """Answer one line: `place` first, then targets and questions. Raises HopError."""
        operation = message.pop("op", "configure")
        if operation == "place":
            return self._take_place(message)
        if operation == "configure":
            return self._configure(message)
        if operation == "counters":
            return self._counters(message)
        if operation == "offloads":
            return offloads.answer(self._offloads, message)
        if operation == "trace":
            return self._trace(message)
        if operation == "renew":
            config.nothing_else(message)
            for forwarder in self._forwarders.values():
                forwarder.tidy()
            return {"event": "ready"}
        raise HopError("unknown operation")

    def _take_place(self, message: Message) -> Message:
        prepare = message.pop("prepare", [])
        if not isinstance(prepare, list) or not set(map(str, prepare)) <= set(MODES):
            raise HopError("prepare is not a list of modes")
        version.require(message)
        holder = lock.holder(message)
        place = config.place(message)
        config.nothing_else(message)
        lock.take(holder)
        self.stop()
        self._place = place
        self._host = HostCounters(self._place.nics)
        self._offloads = offloads.Offloads(self._place.nics)
        self._forwarders = {}
        for mode in prepare:
            if MODES[mode].hops:
                self._forwarder(mode).prepare()
        return {"event": "ready", "pid": os.getpid(), "modes": sorted(MODES)}

    def _forwarder(self, mode: str) -> Forwarder:
        if self._place is None:
            raise HopError("the agent was not told its place yet")
        if mode not in self._forwarders:
            self._forwarders[mode] = _forwarder_class(mode)(self._place)
        return self._forwarders[mode]

    def _configure(self, message: Message) -> Message:
        target = config.target(message)
        if target and self._place and family(target.next_ip) != self._place.family:
            raise HopError(f"next_ip is not an IPv{self._place.family} address, as data_ip is")
        was_active = self._active is not None
        self._end_forwarder()
        if target is None:
            return {"event": "ready", "mode": "direct"}
        if was_active and self._place is not None:
            # Another mode is not to start, and be measured, while the NIC comes back from XDP.
            net.await_link(self._place.nics)
        if self._place is not None and target.next_ip not in self._met:
            net.forget(target.next_ip, self._place.nics)
            self._met.add(target.next_ip)
        facts = self._forwarder(target.mode).start(target)
        self._active = target.mode
        return {"event": "ready", "mode": target.mode, **facts}

    def _counters(self, message: Message) -> Message:
        """Say what forwarder and host have counted."""
        config.nothing_else(message)
        active = self._forwarders.get(self._active or "")
        net.require_links(self._place.nics if self._place else ())
        return {
            "event": "counters",
            "mode": self._active or "direct",
            "counters": active.counters() if active else {},
            "host": self._host.snapshot(),
        }

    def _trace(self, message: Message) -> Message:
        """Say what to trace, and take what was traced since the last time."""
        home_of = config.endpoint(message, "home_of") if "home_of" in message else None
        if home_of and self._place and family(home_of[0]) != self._place.family:
            raise HopError(f"home_of is not an IPv{self._place.family} address, as data_ip is")
        chosen = None
        if message and home_of is None:
            port = config.number(message, "port", 0, 65535, 0)
            per_second = config.number(message, "per_second", 0, 1_000_000, 0)
            chosen = (port, per_second, config.number(message, "mask", 0, 65535, 0))
        config.nothing_else(message)
        tracer = getattr(self._forwarders.get(self._active or ""), "tracer", None)
        if tracer is None:
            raise HopError("nothing is traced here", "only mode xdp can be")
        if home_of is not None:
            return {"event": "trace", "port": tracer.home_of(*home_of)}
        if chosen is not None:
            tracer.choose(*chosen)
            return {"event": "ready"}
        return {"event": "trace", **tracer.events()}

    def _end_forwarder(self) -> None:
        for forwarder in self._forwarders.values():
            forwarder.stop()
        self._active = None

    def stop(self) -> None:
        """End the active forwarder, and put the NICs' offloads back."""
        self._end_forwarder()
        if self._offloads is not None:
            self._offloads.restore()


def main(argv: list[str]) -> int:
    """Serve the controller on stdin and stdout until it is gone."""
    del argv
    agent = Agent()
    return serve(agent.handle, agent.stop)
