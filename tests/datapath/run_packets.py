# SPDX-License-Identifier: Apache-2.0
"""Feed frames to the forwarder through BPF_PROG_TEST_RUN; runs in a namespace of the tests.

In, the program's constants on one line, then requests: {"ifindex", "steps": [{"frame": hex} or
{"next": [address, port]}, …]}. Out, for each: {"results": [[verdict, hex], …], "counters": {…}}.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
from typing import Any

from hop import compiler, kernel, xdp

FLOW_SIZE = 48  # struct flow of bpf/nat.h


class _TestRunOpts(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf 1.0."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def run(program: int, frame: bytes, ifindex: int) -> tuple[int, bytes]:
    """Return (verdict, frame) of one run on a copy of `frame` that came in by `ifindex`."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    out = ctypes.create_string_buffer(len(frame) + 256)
    source = ctypes.create_string_buffer(frame, len(frame))
    # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    context = ctypes.create_string_buffer(struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0), 24)
    opts = _TestRunOpts(
        sz=ctypes.sizeof(_TestRunOpts),
        data_in=ctypes.addressof(source),
        data_out=ctypes.addressof(out),
        data_size_in=len(frame),
        data_size_out=len(out),
        ctx_in=ctypes.addressof(context),
        ctx_size_in=24,
        repeat=1,
    )
    error = libbpf.bpf_prog_test_run_opts(program, ctypes.byref(opts))
    if error:
        raise OSError(-error, "bpf_prog_test_run_opts")
    return opts.retval, out.raw[: opts.data_size_out]


_MAPS = ("settings", "counters", "flows", "by_client", "claims")
_FIRST = struct.pack("=I", 0)


def keys(map_fd: int, size: int) -> list[bytes]:
    """Return every key of a hash map."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    found: list[bytes] = []
    following = ctypes.create_string_buffer(size)
    current = None
    while libbpf.bpf_map_get_next_key(map_fd, current, following) == 0:
        found.append(following.raw)
        current = ctypes.create_string_buffer(following.raw, size)
    return found


class Forwarder:
    """One loaded program whose tables can be emptied, which is faster than loading it anew."""

    def __init__(self, defines: dict[str, int]) -> None:
        self._fds = compiler.load("forwarder.c", xdp.PROGRAM, _MAPS, defines)
        self._names, self._cpus = xdp.counter_names(), kernel.possible_cpus()

    def empty(self) -> None:
        """Forget every flow, claim and count."""
        libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for claim in keys(self._fds["claims"], 8):
            kernel.update(self._fds["flows"], claim[:4], bytes(FLOW_SIZE))
        for name in ("by_client", "claims"):
            for key in keys(self._fds[name], 8):
                libbpf.bpf_map_delete_elem(self._fds[name], ctypes.create_string_buffer(key, 8))
        width = 8 * len(self._names) * self._cpus
        kernel.update(self._fds["counters"], _FIRST, bytes(width))

    def feed(self, steps: list[dict[str, Any]], ifindex: int) -> dict[str, Any]:
        """Run the steps in order, on empty tables."""
        self.empty()
        results = []
        for step in steps:
            if "next" in step:
                address, port = step["next"]
                setting = socket.inet_aton(address) + struct.pack("!HH", port, 0)
                kernel.update(self._fds["settings"], _FIRST, setting)
            else:
                frame = bytes.fromhex(step["frame"])
                verdict, out = run(self._fds[xdp.PROGRAM], frame, ifindex)
                results.append([verdict, out.hex()])
        width = len(self._names)
        raw = kernel.lookup(self._fds["counters"], _FIRST, 8 * width * self._cpus)
        values = struct.unpack(f"={width * self._cpus}Q", raw)
        counters = {name: sum(values[i::width]) for i, name in enumerate(self._names)}
        return {"results": results, "counters": counters}


def main() -> None:
    """Answer requests, one JSON object a line, until end of file."""
    forwarder = Forwarder(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(forwarder.feed(request["steps"], request["ifindex"])), flush=True)


main()
