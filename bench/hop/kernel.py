# SPDX-License-Identifier: Apache-2.0
"""BPF objects by file descriptor, through libbpf: what BCC does not offer or costs too much."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass

from . import netlink, refusal
from .errors import HopError

# include/uapi/linux/bpf.h and if_link.h
BPF_XDP = 37
FLAGS = {"generic": 1 << 1, "native": 1 << 2, "offload": 1 << 3}
_ATTACHED = {1: "native", 2: "generic", 3: "offload", 4: "several"}

XDP_FLAGS_UPDATE_IF_NOEXIST = 1
BPF_ANY, BPF_NOEXIST = 0, 1
BPF_F_RDONLY_PROG = 1 << 7
BPF_F_MMAPABLE = 1 << 10
# struct bpf_prog_info, as far as to its name
_PROG_INFO_LEN, _PROG_NAME = 80, slice(64, 80)
_MAP_KINDS = {
    "HASH": 1,
    "ARRAY": 2,
    "PROG_ARRAY": 3,
    "PERCPU_ARRAY": 6,
    "LRU_HASH": 9,
    "RINGBUF": 27,
}


class _LinkCreateOpts(ctypes.Structure):
    """struct bpf_link_create_opts of libbpf 1.0, as far as it is used."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("iter_info", ctypes.c_void_p),
        ("iter_info_len", ctypes.c_uint32),
        ("target_btf_id", ctypes.c_uint32),
        ("union", ctypes.c_uint64 * 4),
    )


class _XdpQueryOpts(ctypes.Structure):
    """struct bpf_xdp_query_opts of libbpf 1.0."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("prog_id", ctypes.c_uint32),
        ("drv_prog_id", ctypes.c_uint32),
        ("hw_prog_id", ctypes.c_uint32),
        ("skb_prog_id", ctypes.c_uint32),
        ("attach_mode", ctypes.c_uint8),
    )


class _MapCreateOpts(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.0."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf", ctypes.c_uint32 * 4),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


class TestRunOpts(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf 1.0."""

    __test__ = False  # no test class, whatever pytest thinks of the name

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


def _load_libbpf() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise HopError("libbpf is not installed", "run bench deploy") from error
    # libbpf prints warnings on stderr; errors come back as return values anyway.
    library.libbpf_set_print(None)
    return library


_library: ctypes.CDLL | None = None


def library() -> ctypes.CDLL:
    """Return libbpf, loaded once. Raises HopError when it is not installed."""
    global _library
    if _library is None:
        _library = _load_libbpf()
    return _library


def _name(number: int) -> str:
    return f"{os.strerror(number)}"


def attach_xdp(prog_fd: int, ifindex: int, attach: str) -> int:
    """Attach by a bpf_link and return its file descriptor: closed, also by SIGKILL, it detaches.

    attach: a key of FLAGS; flags of 0 would let the kernel choose generic silently.
    Raises HopError with the NIC, its driver, and the driver's reason.
    """
    opts = _LinkCreateOpts(sz=ctypes.sizeof(_LinkCreateOpts), flags=FLAGS[attach])
    link_fd: int = library().bpf_link_create(prog_fd, ifindex, BPF_XDP, ctypes.byref(opts))
    if link_fd >= 0:
        os.set_inheritable(link_fd, False)
        return link_fd
    number = -link_fd
    nic = socket.if_indextoname(ifindex)
    if number in (errno.EBUSY, errno.EEXIST):
        raise refusal.taken(nic, *_attached(ifindex))
    try:
        reason = netlink.refusal(ifindex, prog_fd, FLAGS[attach])
    except OSError:
        reason = ""
    raise refusal.error(nic, attach, reason or _name(number), number)


def _attached(ifindex: int) -> tuple[str, int, str]:
    """Return (attach, program id, its name) of what is attached; 0 if it has gone meanwhile."""
    try:
        attach, prog_id = query_xdp(ifindex)
    except HopError:
        return "", 0, ""
    return attach, prog_id, program_name(prog_id)


def program_name(prog_id: int) -> str:
    """Return the name of a loaded program, empty where it has none or has gone."""
    fd: int = library().bpf_prog_get_fd_by_id(prog_id)
    if fd < 0:
        return ""
    try:
        info, size = ctypes.create_string_buffer(_PROG_INFO_LEN), ctypes.c_uint32(_PROG_INFO_LEN)
        if library().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)) < 0:
            return ""
        # Whoever loads a program calls it what he likes; the kernel takes letters, digits, _ and .
        return info.raw[_PROG_NAME].rstrip(b"\0").decode(errors="replace")
    finally:
        os.close(fd)


def query_xdp(ifindex: int) -> tuple[str, int]:
    """Return (`native`, `generic`, `offload`, `several` or ``, program id) of what is attached."""
    opts = _XdpQueryOpts(sz=ctypes.sizeof(_XdpQueryOpts))
    result = library().bpf_xdp_query(ifindex, 0, ctypes.byref(opts))
    if result < 0:
        raise HopError(f"the NIC cannot be asked for its XDP program: {_name(-result)}")
    ids = {1: opts.drv_prog_id, 2: opts.skb_prog_id, 3: opts.hw_prog_id}
    prog_id = ids.get(opts.attach_mode) or opts.prog_id
    return _ATTACHED.get(opts.attach_mode, ""), prog_id


def attach_netlink(prog_fd: int, ifindex: int) -> None:
    """Attach natively and stay attached without a process, refusing to replace another program."""
    flags = FLAGS["native"] | XDP_FLAGS_UPDATE_IF_NOEXIST
    result = library().bpf_xdp_attach(ifindex, prog_fd, flags, None)
    if result < 0:
        raise HopError(f"XDP cannot be attached to interface {ifindex}: {_name(-result)}")


def create_map(name: str, kind: str, key: int, value: int, entries: int, flags: int = 0) -> int:
    """Make a map and return its file descriptor. Raises HopError with the kernel's reason."""
    opts = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=flags)
    fd: int = library().bpf_map_create(
        _MAP_KINDS[kind], name[:15].encode(), key, value, entries, ctypes.byref(opts)
    )
    if fd < 0:
        raise HopError(f"the BPF map {name} of {entries} entries cannot be made: {_name(-fd)}")
    os.set_inheritable(fd, False)
    return fd


def delete(map_fd: int, key: bytes) -> None:
    """Delete one element of a map, if it is there."""
    library().bpf_map_delete_elem(map_fd, ctypes.create_string_buffer(key, len(key)))


def keys(map_fd: int, size: int) -> list[bytes]:
    """Return every key, of `size` bytes each, of a hash map."""
    found: list[bytes] = []
    following, current = ctypes.create_string_buffer(size), None
    while library().bpf_map_get_next_key(map_fd, current, following) == 0:
        found.append(following.raw)
        current = ctypes.create_string_buffer(following.raw, size)
    return found


def insert(map_fd: int, key: bytes, value: bytes) -> bool:
    """Write an element that does not exist yet; return whether this call made it."""
    result: int = library().bpf_map_update_elem(
        map_fd,
        ctypes.create_string_buffer(key, len(key)),
        ctypes.create_string_buffer(value, len(value)),
        ctypes.c_uint64(BPF_NOEXIST),
    )
    return result == 0


@dataclass(frozen=True)
class TestRun:
    """What became of a frame: the program's return value, the frame, the time it took."""

    __test__ = False  # no test class, whatever pytest thinks of the name

    verdict: int
    frame: bytes
    duration_ns: int


def test_run(prog_fd: int, frame: bytes, ifindex: int, repeat: int = 1) -> TestRun:
    """Run an XDP program on a copy of a frame that came in by `ifindex` (BPF_PROG_TEST_RUN).

    repeat: how often; from the second time on it runs on the frame it has rewritten. The kernel
    takes the time around all of them; duration_ns is that, divided by `repeat`.
    Raises HopError with the kernel's reason.
    """
    out = ctypes.create_string_buffer(len(frame) + 256)
    source = ctypes.create_string_buffer(frame, len(frame))
    # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    context = ctypes.create_string_buffer(struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0), 24)
    opts = TestRunOpts(
        sz=ctypes.sizeof(TestRunOpts),
        data_in=ctypes.addressof(source),
        data_out=ctypes.addressof(out),
        data_size_in=len(frame),
        data_size_out=len(out),
        ctx_in=ctypes.addressof(context),
        ctx_size_in=len(context),
        repeat=repeat,
    )
    failed = library().bpf_prog_test_run_opts(prog_fd, ctypes.byref(opts))
    if failed < 0:
        raise HopError(f"BPF_PROG_TEST_RUN: {_name(-failed)}")
    return TestRun(opts.retval, out.raw[: opts.data_size_out], opts.duration)


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Write one element of a map."""
    result = library().bpf_map_update_elem(
        map_fd,
        ctypes.create_string_buffer(key, len(key)),
        ctypes.create_string_buffer(value, len(value)),
        ctypes.c_uint64(BPF_ANY),
    )
    if result < 0:
        raise HopError(f"a BPF map cannot be written: {_name(-result)}")


def lookup(map_fd: int, key: bytes, size: int) -> bytes:
    """Read `size` bytes of an element; a per-CPU map gives every CPU's value, in order."""
    buffer = ctypes.create_string_buffer(size)
    result = library().bpf_map_lookup_elem(
        map_fd, ctypes.create_string_buffer(key, len(key)), buffer
    )
    if result < 0:
        raise HopError(f"a BPF map cannot be read: {_name(-result)}")
    return buffer.raw


def find(map_fd: int, key: bytes, size: int) -> bytes | None:
    """Read `size` bytes of an element, or None when there is none."""
    buffer = ctypes.create_string_buffer(size)
    result = library().bpf_map_lookup_elem(
        map_fd, ctypes.create_string_buffer(key, len(key)), buffer
    )
    return buffer.raw if result == 0 else None


def possible_cpus() -> int:
    """Return how many values a per-CPU map holds for each key."""
    count: int = library().libbpf_num_possible_cpus()
    return count
