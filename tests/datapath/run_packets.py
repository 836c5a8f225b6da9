# SPDX-License-Identifier: Apache-2.0
"""Feed frames to the forwarder through BPF_PROG_TEST_RUN; runs in a namespace of the tests.

In, the program's constants on one line, then requests: a list of steps, each {"frame": hex, "in":
interface index}, {"next": [address, port, out]}, {"age": seconds}, {"collect": true} or {"ip":
[words of a command]}.
Out, for each request: {"results": [[verdict, hex, {counter: change}], …], "collected": [n, …],
"seconds": what all of it took}.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from typing import Any

from hop import kernel
from hop.program import Constants, Nic, Program


def _constants(request: dict[str, Any]) -> Constants:
    data, egress = Nic(**request.pop("data")), request.pop("egress")
    ports = tuple(request.pop("ports"))
    return Constants(data=data, egress=Nic(**egress) if egress else None, ports=ports, **request)


def _age(program: Program, seconds: int) -> None:
    """Make every flow older, and what the kernel said of neighbours forgotten."""
    ticks = seconds * program.hz
    for place in program.places():
        for offset in program.ticks_at():
            at = place * program.flow_len + offset
            (tick,) = struct.unpack_from("=I", program.flows, at)
            struct.pack_into("=I", program.flows, at, (tick - ticks) % 2**32)
    _zero_per_cpu(program, "neighbours")


def _zero_per_cpu(program: Program, name: str) -> None:
    map_ = program.constants.maps()[name]
    size = (map_.value + 7) // 8 * 8 * kernel.possible_cpus()
    for index in range(map_.entries):
        kernel.update(program.fds[name], struct.pack("=I", index), bytes(size))


def _clear(program: Program) -> None:
    """Forget every flow and every count, which is faster than loading the program anew."""
    for place in program.places():
        at = place * program.flow_len
        program.flows[at : at + program.flow_len] = bytes(program.flow_len)
    for name in ("by_client", "claims"):
        for key in kernel.keys(program.fds[name], program.constants.maps()[name].key):
            kernel.delete(program.fds[name], key)
    for name in ("counters", "neighbours"):
        _zero_per_cpu(program, name)


def _feed(program: Program, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Run the steps in order, on empty tables."""
    _clear(program)
    results, collected = [], []
    begin = time.monotonic()
    before = program.counters()
    for step in steps:
        if "next" in step:
            program.set_next(*step["next"])
        elif "age" in step:
            _age(program, step["age"])
        elif "collect" in step:
            collected.append(program.collect())
        elif "ip" in step:
            subprocess.run(["ip", *step["ip"]], check=True)
        else:
            done = kernel.test_run(program.fd, bytes.fromhex(step["frame"]), step["in"])
            after = program.counters()
            change = {name: after[name] - before[name] for name in after}
            results.append([done.verdict, done.frame.hex(), {k: v for k, v in change.items() if v}])
            before = after
    seconds = time.monotonic() - begin
    return {"results": results, "collected": collected, "seconds": seconds}


def main() -> None:
    """Answer requests, one JSON object a line, until end of file."""
    program = Program(_constants(json.loads(sys.stdin.readline())))
    for line in sys.stdin:
        print(json.dumps(_feed(program, json.loads(line))), flush=True)


main()
