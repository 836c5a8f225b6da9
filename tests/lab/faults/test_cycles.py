# SPDX-License-Identifier: Apache-2.0
"""Start, sample and stop, two hundred times: neither hosts nor the controller come to hold more.

HOPBENCH_CYCLES is how many whole sessions are opened and closed, 12 without it.
"""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import replace

from bench.inventory import load
from bench.lab.model import Lab
from bench.session import Session
from tests.lab.conftest import differences, machine, wait_until
from tests.lab.faults import footprint
from tests.lab.faults.footprint import Footprint
from tests.lab.faults.runs import in_host
from tests.lab.test_run import cell

CYCLES, WARM_UP = 200, 20
SESSIONS = int(os.environ.get("HOPBENCH_CYCLES", "12"))
HOPS = 2
# Allocators keep what they have had; what is forgotten each time comes to more.
MOST_KB_A_CYCLE = 5
MOST_KB_A_SESSION, MOST_KB = 20, 2048

Record = Callable[[str, object], None]


def agents(lab: Lab) -> dict[str, int]:
    """Return {host: the id of its agent}."""
    found = {host.name: in_host(lab, host.name) for host in lab.hosts}
    return {name: pids[0] for name, pids in found.items() if pids}


def looks(lab: Lab) -> dict[str, Footprint]:
    """Look at the controller, which this process is, and at every agent."""
    gc.collect()
    return {"controller": footprint.me()} | {
        name: footprint.of(pid) for name, pid in agents(lab).items()
    }


def settled(lab: Lab, before: dict[str, Footprint]) -> dict[str, Footprint]:
    """Look until all have what they had, but for memory; what they have after 10 s all the same."""
    wait_until(lambda: _counts(looks(lab)) == _counts(before), 10)
    return looks(lab)


def _counts(found: dict[str, Footprint]) -> dict[str, dict[str, int]]:
    return {name: each.counts for name, each in found.items()}


def test_two_hundred_samples_of_a_session(lab: Lab, record_property: Record) -> None:
    machine_before, maps_before = machine(), footprint.bpf_maps()
    kinds = itertools.cycle(
        [("xdp", "native"), ("nft", ""), ("xdp", "generic"), ("socat", ""), ("direct", "")]
    )
    begin = time.monotonic()
    with Session(load(lab.name), HOPS, ["socat", "nft", "xdp"], timer=True) as session:

        def cycles(count: int) -> None:
            for number, (mode, attach) in zip(range(count), kinds, strict=False):
                wanted = cell(mode, 1 + number % HOPS, concurrency=2, requests=4)
                wanted = replace(wanted, attach=attach)
                raw = session.sample(wanted)
                assert (raw.status, raw.timed_out) == (0, False), raw.stderr
                assert raw.timed == 4

        cycles(WARM_UP)
        session.switch(("direct", "", 0))
        before, maps = looks(lab), footprint.bpf_maps()
        cycles(CYCLES)
        session.switch(("direct", "", 0))
        after = settled(lab, before)
        assert _counts(after) == _counts(before)
        assert wait_until(lambda: footprint.bpf_maps() <= maps)
    grown = {name: after[name].resident_kb - before[name].resident_kb for name in before}
    took_s = time.monotonic() - begin
    print(f"{CYCLES} cycles in {took_s:.1f} s; resident, kB more: {grown}")
    print(f"resident at the end, kB: { {name: each.resident_kb for name, each in after.items()} }")
    record_property("cycles", CYCLES)
    record_property("cycles_grown_kb", grown)
    assert max(grown.values()) <= CYCLES * MOST_KB_A_CYCLE, grown
    assert differences(machine_before) == {}
    assert wait_until(lambda: footprint.bpf_maps() <= maps_before)


def test_sessions_opened_and_closed(lab: Lab, record_property: Record) -> None:
    machine_before, maps_before = machine(), footprint.bpf_maps()
    chain = load(lab.name)
    seen = []
    begin = time.monotonic()
    for number in range(SESSIONS):
        with Session(chain, 1, ["nft", "xdp"], timer=True) as session:
            mode = ("nft", "xdp")[number % 2]
            raw = session.sample(cell(mode, 1, concurrency=2, requests=4))
            assert (raw.status, raw.timed_out) == (0, False), raw.stderr
        # Threads of its connections end a moment later.
        if seen:
            settled(lab, seen[-1])
        seen.append(looks(lab))
        assert list(seen[-1]) == ["controller"]
    warm = seen[SESSIONS // 4]["controller"]
    last = seen[-1]["controller"]
    grown_kb = last.resident_kb - warm.resident_kb
    count = SESSIONS - 1 - SESSIONS // 4
    took_s = time.monotonic() - begin
    print(f"{SESSIONS} sessions in {took_s:.1f} s; controller {warm} then {last}")
    print(f"resident: {grown_kb} kB more in {count} sessions")
    record_property("sessions", SESSIONS)
    record_property("sessions_grown_kb", grown_kb)
    assert last.counts == warm.counts
    assert grown_kb <= MOST_KB + count * MOST_KB_A_SESSION
    assert differences(machine_before) == {}
    assert wait_until(lambda: footprint.bpf_maps() <= maps_before)
