# SPDX-License-Identifier: Apache-2.0
"""What a BPF program costs: many test runs of it, frames sent to it, the kernel's own account."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

from . import kernel
from .errors import HopError

_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18
# A veth's receive ring has room for 256 frames: what is sent at once must fit, or it is lost.
_AT_ONCE = 64
_STATS_RUN_TIME = 0  # enum bpf_stats_type
# struct bpf_prog_info of include/uapi/linux/bpf.h: run_time_ns and run_cnt follow each other.
_INFO_LEN, _RUN_TIME_AT = 232, 192


def _options(
    frame: ctypes.Array[ctypes.c_char], context: ctypes.Array[ctypes.c_char]
) -> kernel.TestRunOpts:
    return kernel.TestRunOpts(
        sz=ctypes.sizeof(kernel.TestRunOpts),
        data_in=ctypes.addressof(frame),
        data_size_in=len(frame),
        ctx_in=ctypes.addressof(context),
        ctx_size_in=len(context),
        repeat=1,
    )


def _context(frame: bytes, ifindex: int) -> ctypes.Array[ctypes.c_char]:
    # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    return ctypes.create_string_buffer(struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0), 24)


class Volley:
    """Test runs of a program, each on a fresh frame that differs from the last in one port.

    All that a call needs is made once: the less happens between two of them, the less of the
    program's code and data is gone from the caches.
    """

    def __init__(self, prog_fd: int, frame: bytes, ifindex: int, port_at: int, verdict: int):
        """ifindex: where the frames come in. port_at: offset of the port in the frame.

        verdict: what the program has to return for every one of them.
        """
        self._fd, self._verdict = prog_fd, verdict
        self._frame = ctypes.create_string_buffer(frame, len(frame))
        self._context = _context(frame, ifindex)
        self._opts = _options(self._frame, self._context)
        self._port = ctypes.c_uint16.from_buffer(self._frame, port_at)
        self._call = kernel.library().bpf_prog_test_run_opts

    def run(self, ports: Sequence[int]) -> int:
        """Run once for each port (in network order); return the sum of the durations in ns.

        The kernel takes the time around each run, in steps of its clock (10 ns on many machines):
        single ones say little, means of many do. Raises HopError when a call fails, or for another
        verdict than the one due.
        """
        call, fd, opts, port = self._call, self._fd, self._opts, self._port
        reference, verdict = ctypes.byref(opts), self._verdict
        total_ns = wrong = 0
        for number in ports:
            port.value = number
            failed = call(fd, reference)
            if failed:
                raise HopError(f"BPF_PROG_TEST_RUN: {os.strerror(abs(failed))}")
            total_ns += opts.duration
            wrong += opts.retval != verdict
        if wrong:
            raise HopError(f"{wrong} of {len(ports)} packets got another verdict than {verdict}")
        return total_ns


def send_live(prog_fd: int, frame: bytes, ifindex: int, count: int) -> bool:
    """Run a program for `count` frames that it may really send; False where the kernel cannot.

    The frames seem to come in by `ifindex`; where XDP_TX sends them they are received, by this
    CPU and before the next ones are made.
    """
    source = ctypes.create_string_buffer(frame, len(frame))
    context = _context(frame, ifindex)
    opts = _options(source, context)
    opts.flags, opts.batch_size, opts.repeat = _LIVE_FRAMES, _AT_ONCE, count
    failed = kernel.library().bpf_prog_test_run_opts(prog_fd, ctypes.byref(opts))
    if failed in (-errno.EINVAL, -errno.EOPNOTSUPP):
        return False
    if failed < 0:
        raise HopError(f"BPF_PROG_TEST_RUN of live frames: {os.strerror(-failed)}")
    return True


def account_runs() -> int:
    """Have the kernel keep account of every program's runs until the descriptor is closed.

    As net.core.bpf_stats_enabled does, and nothing is left to be set back. Raises HopError.
    """
    fd: int = kernel.library().bpf_enable_stats(_STATS_RUN_TIME)
    if fd < 0:
        raise HopError(f"the kernel does not time BPF programs: {os.strerror(-fd)}")
    os.set_inheritable(fd, False)
    return fd


def runs_of(prog_fd: int) -> tuple[int, int]:
    """Return (ns spent in a program, how often it ran) since it was loaded, as accounted."""
    info, size = ctypes.create_string_buffer(_INFO_LEN), ctypes.c_uint32(_INFO_LEN)
    failed = kernel.library().bpf_obj_get_info_by_fd(prog_fd, info, ctypes.byref(size))
    if failed < 0:
        raise HopError(f"a BPF program cannot be asked: {os.strerror(-failed)}")
    run_time_ns, count = struct.unpack_from("=2Q", info.raw, _RUN_TIME_AT)
    return run_time_ns, count


def replace_xdp(link_fd: int, prog_fd: int) -> None:
    """Put another program behind a bpf_link, which stays attached. Raises HopError."""
    failed = kernel.library().bpf_link_update(link_fd, prog_fd, None)
    if failed < 0:
        raise HopError(f"an XDP program cannot be replaced: {os.strerror(-failed)}")
