# SPDX-License-Identifier: Apache-2.0
"""BPF objects by file descriptor, through libbpf: what BCC does not offer or costs too much."""

from __future__ import annotations

import ctypes
import errno
import os

from .errors import HopError

# include/uapi/linux/bpf.h and if_link.h
BPF_XDP = 37
FLAGS = {"generic": 1 << 1, "native": 1 << 2}
_ATTACHED = {1: "native", 2: "generic", 3: "offload", 4: "several"}

XDP_FLAGS_UPDATE_IF_NOEXIST = 1
BPF_ANY = 0


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


def _load_libbpf() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise HopError("libbpf is not installed", "run bench deploy") from error
    # libbpf prints warnings on stderr; errors come back as return values anyway.
    library.libbpf_set_print(None)
    return library


_library: ctypes.CDLL | None = None


def _libbpf() -> ctypes.CDLL:
    global _library
    if _library is None:
        _library = _load_libbpf()
    return _library


def _name(number: int) -> str:
    return f"{os.strerror(number)}"


def attach_xdp(prog_fd: int, ifindex: int, attach: str) -> int:
    """Attach by a bpf_link and return its file descriptor: closed, also by SIGKILL, it detaches.

    attach: `native` or `generic`; flags 0 would let the kernel choose generic silently.
    Raises HopError with the kernel's reason.
    """
    opts = _LinkCreateOpts(sz=ctypes.sizeof(_LinkCreateOpts), flags=FLAGS[attach])
    link_fd: int = _libbpf().bpf_link_create(prog_fd, ifindex, BPF_XDP, ctypes.byref(opts))
    if link_fd >= 0:
        os.set_inheritable(link_fd, False)
        return link_fd
    number = -link_fd
    if number in (errno.EBUSY, errno.EEXIST):
        raise HopError(
            "another XDP program is attached to the NIC", "detach it; it is never replaced"
        )
    if number == errno.EOPNOTSUPP:
        raise HopError(
            f"the NIC's driver does not take XDP in {attach} mode",
            "choose xdp_attach=generic, or a NIC whose driver supports XDP",
        )
    raise HopError(
        f"XDP cannot be attached in {attach} mode: {_name(number)}",
        "native XDP may need fewer queues, GRO_HW and LRO off, or a smaller MTU",
    )


def query_xdp(ifindex: int) -> tuple[str, int]:
    """Return (`native`, `generic`, `offload`, `several` or ``, program id) of what is attached."""
    opts = _XdpQueryOpts(sz=ctypes.sizeof(_XdpQueryOpts))
    result = _libbpf().bpf_xdp_query(ifindex, 0, ctypes.byref(opts))
    if result < 0:
        raise HopError(f"the NIC cannot be asked for its XDP program: {_name(-result)}")
    ids = {1: opts.drv_prog_id, 2: opts.skb_prog_id, 3: opts.hw_prog_id}
    prog_id = ids.get(opts.attach_mode) or opts.prog_id
    return _ATTACHED.get(opts.attach_mode, ""), prog_id


def attach_netlink(prog_fd: int, ifindex: int) -> None:
    """Attach natively and stay attached without a process, refusing to replace another program."""
    flags = FLAGS["native"] | XDP_FLAGS_UPDATE_IF_NOEXIST
    result = _libbpf().bpf_xdp_attach(ifindex, prog_fd, flags, None)
    if result < 0:
        raise HopError(f"XDP cannot be attached to interface {ifindex}: {_name(-result)}")


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Write one element of a map."""
    result = _libbpf().bpf_map_update_elem(
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
    result = _libbpf().bpf_map_lookup_elem(
        map_fd, ctypes.create_string_buffer(key, len(key)), buffer
    )
    if result < 0:
        raise HopError(f"a BPF map cannot be read: {_name(-result)}")
    return buffer.raw


def possible_cpus() -> int:
    """Return how many values a per-CPU map holds for each key."""
    count: int = _libbpf().libbpf_num_possible_cpus()
    return count
