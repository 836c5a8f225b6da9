# SPDX-License-Identifier: Apache-2.0
"""Drawn conversations through the forwarder and through its model: every octet, every count."""

from __future__ import annotations

import itertools
import os
import random
import time
import zlib
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from tests.datapath.conftest import Age, Arrive, Collect, Feed, Next
from tests.datapath.frames_drawn import set_next
from tests.datapath.genes import Drawn, sequences
from tests.datapath.packets import Writer
from tests.datapath.speech import Outcome, Undetermined
from tests.datapath.worlds import Step, World

PACKETS = 204_000  # in a test run; always the same ones
SECONDS = float(os.environ.get("HOPBENCH_FUZZ_SECONDS", "0"))  # or for so long, others each time

_FEW = {"PORT_MIN": 6998, "PORT_MAX": 7002}  # HOP_PORT is in the middle
WORLDS = [
    World(family, changes)
    for family in (4, 6)
    for changes in (
        {},
        {"FRESH": 1},
        {"TWO_NICS": 1, **_FEW},
        {"FRESH": 1, "TWO_NICS": 1, **_FEW},
        {"FRESH": 1, **_FEW},
        {"FRESH": 1, "VLAN": 5, "PORT_MIN": 20000, "PORT_MAX": 20039},
        {"TWO_NICS": 1, "VLAN": 5, "EGRESS_VLAN": 6},
        {"NAT_FLOWS": 2, "PORT_MIN": 20000, "PORT_MAX": 20007},
    )
]

# What every world must have seen happen, or else the draw is a bad one.
_EVERYWHERE = {
    *("forwarded_packets", "forwarded_bytes", "returned_packets", "returned_bytes"),
    *("flows_opened", "flows_reopened", "flows_closed", "flows_evicted"),
    *("port_kept", "port_other", "port_collisions"),
    *("errors_forwarded", "errors_returned", "replied_too_big"),
    *("passed_truncated", "passed_vlan", "passed_not_unicast", "passed_other_protocol"),
    *(
        "passed_other_host",
        "passed_fragment",
        "passed_not_ours",
        "passed_no_flow",
        "passed_ttl",
        "passed_unresolved",
    ),
    *("dropped_not_ready", "dropped_no_route"),
}


def wanted(world: World) -> set[str]:
    """Return the counters that must count in a world."""
    more = {"dropped_no_port"} if world.config.count < 8 else set()
    if world.config.most_away is not None:
        more |= {"dropped_table_full"}
    if world.family == 4:
        more |= {"passed_too_big"}
    return _EVERYWHERE | more


def row(step: Step) -> str:
    """Return a step as a test would have it."""
    if not isinstance(step, Arrive):
        return f"    {step!r},"
    return f'    Arrive(bytes.fromhex("{step.frame.hex()}"), "{step.link}"),'


def told(world: World, steps: Sequence[Step], expected: Outcome, seen: Outcome) -> str:
    """Return what differs after the steps."""
    lines = [str(world)]
    for name, (verdict, frame, counts) in (("model", expected), ("program", seen)):
        lines += [f"{name}: {verdict} {frame.hex()}", f"    {dict(sorted(counts.items()))}"]
    apart = [i for i, (a, b) in enumerate(zip(expected[1], seen[1], strict=False)) if a != b]
    if apart or len(expected[1]) != len(seen[1]):
        lines.append(f"octets {apart} of {len(expected[1])} expected, {len(seen[1])} seen")
    return "\n".join([*lines, "steps:", *map(row, steps)])


class Fuzz:
    """Compares program and model in a world, and keeps count."""

    def __init__(self, feed: Feed, world: World) -> None:
        self._feed, self._world = feed, world
        self._attempts = 1
        self.packets = 0
        self.counted: Counter[str] = Counter()

    def calibrate(self) -> None:
        """Learn the homes of all endpoints, so that what is drawn means the same from then on."""
        self.compare(Writer(self._world).greetings())

    def check(self, drawn: Drawn) -> None:
        """Turn what is drawn into steps and compare."""
        steps = Writer(self._world).steps(drawn)
        try:
            for _ in range(self._attempts):
                self.compare(steps)
        except AssertionError:
            # Random ports may hide the difference when hypothesis looks for shorter ways to it.
            self._attempts = 8 if self._world.config.fresh else 1
            raise

    def compare(self, steps: Sequence[Step]) -> None:
        """Run both; a difference is an AssertionError that tells of it."""
        # The model's clock stands still; feed sees to it that the program's nearly does.
        fed = self._feed(*steps, family=self._world.family, **self._world.changes)
        model = self._world.model()
        results, collected = zip(fed.results, fed.each, strict=True), iter(fed.collected)
        for number, step in enumerate(steps):
            if isinstance(step, Next):
                set_next(model, step)
                continue
            if isinstance(step, Age):
                model.age(step.seconds)
                continue
            if isinstance(step, Collect):
                expected, seen = (
                    (0, b"", {"forgotten": n}) for n in (model.collect(), next(collected))
                )
            else:
                (verdict, frame), counts = next(results)
                seen = (verdict, frame, counts)
                try:
                    expected = model.run(step.frame, step.link, seen)
                except Undetermined:
                    return
            if expected != seen:
                raise AssertionError(told(self._world, steps[: number + 1], expected, seen))
            self.packets += isinstance(step, Arrive)
            self.counted.update(seen[2])


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_program_and_model_agree(feed: Feed, world: World) -> None:
    fuzz = Fuzz(feed, world)
    fuzz.calibrate()
    end = time.monotonic() + SECONDS / len(WORLDS)
    share = PACKETS // len(WORLDS)
    for number in itertools.count():
        if time.monotonic() > end if SECONDS else fuzz.packets >= share:
            break

        @seed(random.getrandbits(64) if SECONDS else zlib.crc32(f"{world} {number}".encode()))
        @settings(
            max_examples=100,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        @given(sequences())
        def check(drawn: Drawn) -> None:
            fuzz.check(drawn)

        check()
    if not SECONDS:
        assert fuzz.packets >= share
        assert wanted(world) <= fuzz.counted.keys()
