# SPDX-License-Identifier: Apache-2.0
"""Can this machine carry a lab? Linux, root, BPF and the tools, each with one clear line."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import sys
from pathlib import Path

from bench.errors import BenchError

_TOOLS = {
    "ip": "iproute2",
    "ethtool": "ethtool",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "unshare": "util-linux",
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_BPF_MAP_CREATE = 0


def require_root(what: str) -> None:
    """Raise BenchError unless this is Linux and the user is root."""
    if sys.platform != "linux":
        raise BenchError(f"{what} needs Linux, not {platform.system()}")
    if os.geteuid() != 0:
        raise BenchError(f"{what} needs root", remedy="run as root or with sudo")


def require_lab_machine(family: int = 4) -> None:
    """Raise BenchError for the first thing that keeps a lab of IPv4 or IPv6 from working here."""
    require_root("a lab")
    if not Path(f"/proc/sys/net/ipv{family}").is_dir():
        raise BenchError(f"this kernel has no IPv{family}", remedy="boot it without ipv6.disable=1")
    problem = bpf_problem()
    if problem:
        raise BenchError(problem, remedy="a kernel with BPF, outside a restricted container")
    for program, package in _TOOLS.items():
        if shutil.which(program, path=_PATH) is None:
            raise BenchError(f"{program} is not installed", remedy=f"apt-get install {package}")
    if not Path("/usr/lib/python3/dist-packages/bcc").is_dir():
        raise BenchError("BCC for Python is not installed", remedy="apt-get install python3-bpfcc")


def bpf_problem() -> str | None:
    """Return why bpf(2) cannot be used by this process, or None; tries it by making a map."""
    number = _SYS_BPF.get(platform.machine())
    if number is None:
        return f"BPF was never tried on {platform.machine()}"
    # union bpf_attr, BPF_MAP_CREATE: map_type ARRAY, key_size, value_size, max_entries
    attr = (ctypes.c_uint32 * 18)(2, 4, 4, 1)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, _BPF_MAP_CREATE, ctypes.byref(attr), ctypes.sizeof(attr))
    if fd >= 0:
        os.close(fd)
        return None
    code = ctypes.get_errno()
    if code == errno.ENOSYS:
        return "this kernel has no BPF"
    return f"this process may not use BPF: {os.strerror(code)}"
