# SPDX-License-Identifier: Apache-2.0
"""`bench datapath` on the machine itself: ns per packet, round by round, in a namespace of its own.

In:  one JSON object, the fields of `Settings`.
Out: JSON lines: {"event": "ready", …}, then "round" for each round, then "done"; or "error".

The namespace has no name and ends with this process, and with it all that is in it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from . import config, kernel, protocol, timing
from .address import FAMILIES
from .datapath_cases import (
    FAR_MAC,
    HOP_MAC,
    LOOKUPS,
    MOST_FLOWS,
    SEND,
    SINK,
    STEP_ENTRIES,
    STEPS,
    TX,
    Baselines,
    Case,
    Ends,
    Forwarders,
    Ports,
    Steps,
    shuffled_ports,
)
from .errors import HopError
from .process import tool
from .protocol import Ended, Message, send, send_error
from .segment import source_port_at
from .timing import Volley

_CLONE_NEWNET = 0x40000000
NIC, FAR = "hop", "far"
# Below this many rounds a median has no 95 % confidence interval.
_LEAST_ROUNDS = 6
# What runs before the clock counts, so that a program finds its code in the caches.
_WARM_CALLS, _WARM_PACKETS = 32, 2048
# Frames may still be under way when the call that sent them returns; they take microseconds.
_ARRIVAL_LIMIT_S = 0.2
# Of live frames. Where softirqs wait for their thread (until Linux 6.3), a receive ring can
# overflow, which says nothing against those that were measured.
_LEAST_ARRIVED = 0.5
# What nobody waits for the end of.
_MOST, _LONGEST_S = 1 << 31, 1e9


@dataclass(frozen=True)
class Settings:
    """What to measure and how much of it.

    flows: numbers of flows that forward is measured with. steps: whether bpf/steps.c is, too.
    rounds: how many, and limit_s: after how long no other one begins, for each method. calls,
    packets: of which an observation is made, by BPF_PROG_TEST_RUN and of live frames.
    """

    family: int
    seed: int
    flows: Sequence[int]
    steps: bool
    rounds: int
    calls: int
    packets: int
    limit_s: float


def settings(message: Message) -> Settings:
    """Take what to measure. Raises HopError."""
    limit_s = message.pop("limit_s", None)
    if not isinstance(limit_s, float) or not 0 < limit_s <= _LONGEST_S:
        raise HopError(f"limit_s is not a number of seconds up to {_LONGEST_S:.0f}")
    taken = Settings(
        family=config.number(message, "family", 4, 6, 0),
        seed=config.number(message, "seed", 0, _MOST, -1),
        flows=config.numbers(message, "flows", 1, MOST_FLOWS, MOST_FLOWS),
        steps=config.truth(message, "steps"),
        rounds=config.number(message, "rounds", 1, _MOST, 0),
        calls=config.number(message, "calls", 1, _MOST, 0),
        packets=config.number(message, "packets", 1, _MOST, 0),
        limit_s=limit_s,
    )
    config.nothing_else(message)
    if taken.family not in FAMILIES:
        raise HopError("family is neither 4 nor 6")
    return taken


def own_namespace(family: int) -> None:
    """Move this process to a new network namespace and put the hop's NIC there, a veth.

    The client and the next hop are permanent neighbours behind its far end, which is there, too.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        reason = os.strerror(ctypes.get_errno())
        raise HopError(f"a network namespace cannot be made: {reason}", "run as root")
    ends = Ends(family)
    length, flags = ("24", "") if family == 4 else ("64", "nodad")
    commands = [
        f"link add {NIC} address {HOP_MAC} type veth peer name {FAR} address {FAR_MAC}",
        # No IPv6 addresses but ours: nothing is to be sent that nobody asked for.
        f"link set {NIC} addrgenmode none up",
        f"link set {FAR} addrgenmode none up",
        f"address add {ends.hop.address}/{length} dev {NIC} {flags}",
        *(
            f"neighbour add {end.address} lladdr {end.mac} dev {NIC} nud permanent"
            for end in (ends.client, ends.next)
        ),
    ]
    done = subprocess.run(
        [tool("ip"), "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise HopError(f"the veth cannot be set up: {lines[0] if lines else 'ip failed'}")
    with open(f"/proc/sys/net/ipv{family}/conf/{NIC}/forwarding", "w") as file:
        file.write("1")


@contextmanager
def _counted(case: Case) -> Iterator[list[int]]:
    """Compare what a forwarder counts with the number of packets that the block puts in a list.

    Raises HopError when it did anything else than it was to do with each of them.
    """
    packets: list[int] = []
    before = case.program.counters() if case.program else {}
    yield packets
    if case.program is None:
        return
    after = case.program.counters()
    found = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    due = {name: each * sum(packets) for name, each in case.counts.items()}
    if found != due:
        names = sorted(
            name for name in found.keys() | due.keys() if found.get(name) != due.get(name)
        )
        told = ", ".join(f"{name} {found.get(name, 0)}" for name in names)
        raise HopError(f"{case.name}: of {sum(packets)} packets the forwarder counted {told}")


class TestRuns:
    """Measures by BPF_PROG_TEST_RUN: single runs of a program, each on a fresh frame."""

    __test__ = False  # no test class, whatever pytest thinks of the name

    def __init__(self, family: int, ifindex: int, calls: int) -> None:
        self._port_at, self._ifindex, self._calls = source_port_at(family), ifindex, calls
        self._volleys: dict[int, Volley] = {}

    def observe(self, case: Case) -> tuple[float, int]:
        """Return (ns per packet, packets): the mean of as many calls, after all flows had one."""
        volley = self._volleys.get(id(case))
        if volley is None:
            volley = Volley(case.fd, case.frame, self._ifindex, self._port_at, case.verdict)
            self._volleys[id(case)] = volley
        warm = max(_WARM_CALLS, case.flows)
        case.make_room()
        first, then = case.take(warm), case.take(self._calls)
        with _counted(case) as packets:
            volley.run(first)
            total_ns = volley.run(then)
            packets += [len(first), len(then)]
        return total_ns / len(then), len(then)


class LiveFrames:
    """Measures by the kernel's own account of a program that receives frames from a veth."""

    def __init__(self, baselines: Baselines, packets: int) -> None:
        self._baselines, self._packets = baselines, packets
        self._send, self._sink = baselines.fds[SEND], baselines.fds[SINK]
        self._far = socket.if_nametoindex(FAR)
        self._fds: list[int] = []
        self.lost = 0

    def __enter__(self) -> LiveFrames:
        # The far end needs a program to receive what XDP_TX sends there.
        for nic in (FAR, NIC):
            self._fds.append(kernel.attach_xdp(self._sink, socket.if_nametoindex(nic), "native"))
        self._link = self._fds[-1]
        self._fds.append(timing.account_runs())
        return self

    def __exit__(self, *_: object) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def possible(self, case: Case) -> bool:
        """Say whether this kernel sends live frames at all."""
        self._baselines.aim(case)
        return timing.send_live(self._send, case.frame, self._far, 1)

    def observe(self, case: Case) -> tuple[float, int]:
        """Return (ns per packet, packets), after all flows had a packet."""
        timing.replace_xdp(self._link, case.fd)
        warm, count = max(_WARM_PACKETS, case.flows), self._packets
        if case.fresh:
            count = min(count, len(case.ports) - warm)
            case.make_room()
        self._baselines.aim(case)
        with _counted(case) as packets:
            packets.append(self._run(case, warm)[1])
            spent_ns, arrived = self._run(case, count)
            packets.append(arrived)
        return spent_ns / arrived, arrived

    def _run(self, case: Case, count: int) -> tuple[int, int]:
        """Send so many; return what the program under test took, and how many it got."""
        begin_ns, begin = timing.runs_of(case.fd)
        _, sunk = timing.runs_of(self._sink)
        timing.send_live(self._send, case.frame, self._far, count)
        until = time.monotonic() + _ARRIVAL_LIMIT_S
        while True:
            end_ns, end = timing.runs_of(case.fd)
            arrived, returned = end - begin, timing.runs_of(self._sink)[1] - sunk
            due = arrived if case.verdict == TX else 0
            if (arrived >= count and returned >= due) or time.monotonic() > until:
                break
        if arrived < count * _LEAST_ARRIVED or returned < due * _LEAST_ARRIVED:
            raise HopError(
                f"{case.name}: of {count} frames {arrived} arrived and {returned} came back"
            )
        self.lost += count - arrived
        return end_ns - begin_ns, arrived


Observe = Callable[[Case], tuple[float, int]]


def _rounds(method: str, cases: Sequence[Case], observe: Observe, settings: Settings) -> None:
    """Observe every case once a round, in an order drawn anew each time, and report each round."""
    order, draw = list(cases), random.Random(settings.seed)
    until = time.monotonic() + settings.limit_s
    for number in range(settings.rounds):
        if number >= _LEAST_ROUNDS and time.monotonic() > until:
            break
        draw.shuffle(order)
        found = []
        gc.collect()
        gc.disable()
        for case in order:
            ns, packets = observe(case)
            entry = {"name": case.name, "flows": case.flows, "ns": ns, "packets": packets}
            found.append(entry)
        gc.enable()
        send({"event": "round", "method": method, "cases": found})


def _steps(ends: Ends, ports: Ports) -> list[Case]:
    found: list[Case] = []
    for entries in STEP_ENTRIES:
        names = STEPS if entries == STEP_ENTRIES[0] else LOOKUPS
        for case in Steps(ends, ports[:entries], names).cases():
            case.name = f"step {case.name}"
            found.append(case)
    return found


def _on_cpu() -> tuple[float, float]:
    """Return for how many seconds this process ran on a CPU, and waited because others did."""
    try:
        # Documentation/scheduler/sched-stats.rst: ns on the CPU, ns on a run queue, time slices
        with open("/proc/self/schedstat") as file:
            ran_ns, waited_ns, _ = map(int, file.read().split())
    except (OSError, ValueError):
        return time.process_time(), 0.0
    return ran_ns / 1e9, waited_ns / 1e9


def measure(settings: Settings) -> None:
    """Measure all there is, and report it. Raises HopError."""
    own_namespace(settings.family)
    ifindex = socket.if_nametoindex(NIC)
    ends, ports = Ends(settings.family), shuffled_ports(settings.seed)
    baselines = Baselines(ends, ports)
    forwarders = Forwarders(ends, ports, ifindex)
    cases = [*baselines.cases(), *forwarders.cases(settings.flows)]
    steps = _steps(ends, ports) if settings.steps else []
    # From here on one CPU: what frames it sends, it also receives.
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    before = _on_cpu()
    send({"event": "ready", "cpu": cpu})
    runs = TestRuns(settings.family, ifindex, settings.calls)
    _rounds("test_run", [*cases, *steps], runs.observe, settings)
    with LiveFrames(baselines, settings.packets) as live:
        possible = live.possible(cases[0])
        if possible:
            _rounds("live", cases, live.observe, settings)
    run_s, wait_s = (now - then for now, then in zip(_on_cpu(), before, strict=True))
    send({"event": "done", "live": possible, "lost": live.lost, "run_s": run_s, "wait_s": wait_s})


def main(argv: list[str]) -> int:
    """Measure what stdin asks for; on failure say why, return 1."""
    del argv
    try:
        measure(settings(protocol.decode(sys.stdin.buffer.read(protocol.MAX_LINE))))
    except Ended:
        return 0
    except HopError as error:
        send_error(error)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        send_error(HopError(f"{type(error).__name__}: {error}"))
    else:
        return 0
    return 1
