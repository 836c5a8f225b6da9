# SPDX-License-Identifier: Apache-2.0
"""BPF sources to file descriptors, through BCC in a child that hands them over and ends.

BCC brings LLVM into the process: 167 MB resident that would stay. The child compiles, loads,
sends the descriptors over a socket and exits; the kernel keeps what the parent then holds.
"""

from __future__ import annotations

import array
import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .errors import HopError
from .process import die_with_parent

_HERE = Path(__file__).resolve().parent
# Beside this package on a host, above it in a checkout, under _data in an installed controller.
SOURCES = next(
    (
        folder
        for folder in (_HERE.parent / "bpf", _HERE.parent / "_data" / "bpf")
        if folder.is_dir()
    ),
    _HERE.parent.parent / "bpf",
)
_PYTHON = "/usr/bin/python3"  # whose python3-bpfcc is; a virtual environment has none
COMPILE_LIMIT_S = 120.0  # measured: 0.3 s on a PC, 28 s in an emulated guest
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
# SCM_MAX_FD in the kernel is 253; a program and a handful of maps need few.
_MAX_FDS = 16


def flatten(name: str, sources: Path = SOURCES) -> str:
    """Return a source with its local includes pasted in, each once.

    BCC rewrites map operations in its main file only, so everything has to be in it.
    """
    seen: set[str] = set()

    def paste(file: str) -> str:
        if file in seen:
            return ""
        seen.add(file)
        try:
            text = (sources / file).read_text()
        except OSError as error:
            raise HopError(f"BPF source {file} is missing", "run bench deploy") from error
        return f'#line 1 "{file}"\n' + _INCLUDE.sub(lambda match: paste(match[1]), text)

    return paste(name)


def load(
    source: str, function: str, maps: tuple[str, ...], defines: Mapping[str, int]
) -> dict[str, int]:
    """Compile and load an XDP function; return file descriptors by name (function and maps).

    Raises HopError with the compiler's or verifier's first complaint.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    request = {"source": source, "function": function, "maps": maps, "defines": dict(defines)}
    with ours:
        with theirs:
            child = subprocess.Popen(
                [_PYTHON, "-c", "from hop.compiler import _child; _child()"],
                cwd=_HERE.parent,
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        try:
            ours.settimeout(COMPILE_LIMIT_S)
            fds = _exchange(ours, json.dumps(request).encode() + b"\n")
            output, _ = child.communicate(timeout=COMPILE_LIMIT_S)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise HopError(f"compiling {source} took over {COMPILE_LIMIT_S:.0f} s") from error
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
    names = (function, *maps)
    if len(fds) != len(names):
        for fd in fds:
            os.close(fd)
        raise HopError(f"BCC cannot load {source}: {_complaint(output)}")
    return dict(zip(names, fds, strict=True))


def _exchange(sock: socket.socket, request: bytes) -> list[int]:
    """Send the request and return the descriptors that come back; none when the child has ended."""
    try:
        sock.sendall(request)
        return _receive(sock)
    except ConnectionError:
        return []


def _receive(sock: socket.socket) -> list[int]:
    space = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
    _, control, _, _ = sock.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _complaint(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    for line in lines:
        if "No module named 'bcc'" in line:
            return "python3-bpfcc is not installed; run bench deploy"
        if "kernel headers" in line:
            return "no kernel headers for the running kernel; run bench deploy"
    for line in lines:
        if "error" in line.lower() or "invalid" in line.lower():
            return line
    return lines[-1] if lines else "it ended without a word"


def _child() -> None:
    """Compile what stdin, a socket, asks for, and send the descriptors back over it."""
    with socket.socket(fileno=0) as sock:
        request = json.loads(sock.makefile("rb").readline())
        from bcc import BPF

        flags = [f"-D{name}={value}" for name, value in request["defines"].items()]
        # The 6.x headers annotate in ways that BCC's clang need not warn about.
        bpf = BPF(text=flatten(request["source"]), cflags=[*flags, "-Wno-everything"])
        fds = [bpf.load_func(request["function"], BPF.XDP).fd]
        fds += [bpf[name].get_fd() for name in request["maps"]]
        rights = array.array("i", fds)
        sock.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
