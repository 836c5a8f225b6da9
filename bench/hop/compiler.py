# SPDX-License-Identifier: Apache-2.0
"""BPF sources to file descriptors, through BCC in a child that hands them over and ends.

BCC brings LLVM into the process: 167 MB resident that would stay. The child compiles, loads,
sends the descriptors over a socket and exits; the kernel keeps what the parent then holds.
"""

from __future__ import annotations

import array
import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import built, kernel
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
# Where compiled programs are kept: on hosts alone, beside what was deployed.
BUILT = _HERE.parent / "built" if _HERE.parent == SOURCES.parent else None
_PYTHON = "/usr/bin/python3"  # whose python3-bpfcc is; a virtual environment has none
# Nothing of a login's: BCC takes headers, and more, from variables.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
COMPILE_LIMIT_S = 120.0  # measured: 0.3 s on a PC, 28 s in an emulated guest
# SCM_MAX_FD in the kernel is 253; a program and a handful of maps need few.
_MAX_FDS = 16


@dataclass(frozen=True)
class Map:
    """A map to be made for a program. kind: as in `enum bpf_map_type`, without its prefix.

    key, value: sizes in bytes; the source checks that its types have them.
    """

    kind: str
    key: int
    value: int
    entries: int
    flags: int = 0


def load(
    source: str,
    functions: tuple[str, ...],
    maps: Mapping[str, Map],
    defines: Mapping[str, int],
    kind: str = "XDP",
) -> dict[str, int]:
    """Make the maps, compile and load functions; return file descriptors by name.

    kind: of program, as BCC calls it. The maps are made here and not by BCC, which rewrites map
    operations in its main file only, and knows neither flags nor sizes that are chosen at run time.
    Raises HopError with the compiler's or verifier's first complaint.
    """
    fds: dict[str, int] = {}
    try:
        for name, each in maps.items():
            fds[name] = kernel.create_map(
                name, each.kind, each.key, each.value, each.entries, each.flags
            )
        constants = {"HOPBENCH_BCC": 1, **defines}
        for name, each in maps.items():
            constants[f"MAP_FD_{name}"] = fds[name]
            constants[f"MAP_KEY_{name}"] = each.key
            constants[f"MAP_VALUE_{name}"] = each.value
        request = {
            "source": source,
            "functions": functions,
            "kind": kind,
            "defines": constants,
        }
        loaded = _load(request, tuple(fds.values()))
    except BaseException:
        for fd in fds.values():
            os.close(fd)
        raise
    return {**fds, **dict(zip(functions, loaded, strict=True))}


def _load(request: Mapping[str, Any], keep: tuple[int, ...]) -> list[int]:
    """Return the descriptors of functions that were compiled before, or are now."""
    name = built.key(SOURCES, request) if BUILT else ""
    if not BUILT or not name:
        return _compile(request, keep)[0]
    if loaded := built.load(BUILT, name, request):
        return loaded
    with built.alone(BUILT, name):
        if loaded := built.load(BUILT, name, request):
            return loaded
        loaded, code = _compile(request, keep)
        if len(code) == len(loaded):
            built.keep(BUILT, name, request, code)
    return loaded


def _compile(request: Mapping[str, Any], keep: tuple[int, ...]) -> tuple[list[int], dict[str, str]]:
    """Return the descriptors of functions, and their code in base64. Raises HopError."""
    loaded, code, output = _ask_child(request, keep)
    if len(loaded) != len(request["functions"]):
        for fd in loaded:
            os.close(fd)
        raise HopError(f"BCC cannot load {request['source']}: {_complaint(output)}")
    return loaded, code


def _ask_child(
    request: Mapping[str, Any], keep: tuple[int, ...]
) -> tuple[list[int], dict[str, str], bytes]:
    """Return the descriptors a child loaded, their code in base64, and what the child printed.

    keep: the descriptors that it inherits.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            child = subprocess.Popen(
                [_PYTHON, "-c", "from hop.compiler import _child; _child()"],
                cwd=_HERE.parent,
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_ENVIRONMENT,
                pass_fds=keep,
                preexec_fn=die_with_parent,
            )
        try:
            ours.settimeout(COMPILE_LIMIT_S)
            fds, code = _exchange(ours, json.dumps(request).encode() + b"\n")
            output, _ = child.communicate(timeout=COMPILE_LIMIT_S)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise HopError(
                f"compiling {request['source']} took over {COMPILE_LIMIT_S:.0f} s"
            ) from error
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
    return fds, code, output


def _exchange(sock: socket.socket, request: bytes) -> tuple[list[int], dict[str, str]]:
    """Send the request; return the descriptors and the code that come back.

    None of either when the child has ended.
    """
    fds: list[int] = []
    try:
        sock.sendall(request)
        fds = _receive(sock)
        said = b""
        while fds and (chunk := sock.recv(65536)):
            said += chunk
        return fds, json.loads(said or b"{}")
    except (ConnectionError, ValueError):
        return fds, {}
    except TimeoutError:
        for fd in fds:
            os.close(fd)
        raise


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
        modules = f"/lib/modules/{os.uname().release}"
        if not any(os.path.isdir(f"{modules}/{name}") for name in ("source", "build")):
            # BCC would go on to a folder of a known name in /tmp, which may be anybody's.
            sys.exit(f"error: no kernel headers at {modules}/build; run bench deploy")
        from bcc import BPF

        flags = [f"-D{name}={value}" for name, value in request["defines"].items()]
        # The 6.x headers annotate in ways that BCC's clang need not warn about.
        flags += [f"-I{SOURCES}", "-Wno-everything"]
        try:
            text = (SOURCES / request["source"]).read_text()
        except OSError:
            sys.exit(f"error: {request['source']} is missing; run bench deploy")
        bpf, kind = BPF(text=text, cflags=flags), getattr(BPF, request["kind"])
        fds = [bpf.load_func(name, kind).fd for name in request["functions"]]
        rights = array.array("i", fds)
        sock.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        code = {name: bpf.dump_func(name) for name in request["functions"]}
        texts = {name: base64.b64encode(each).decode() for name, each in code.items()}
        sock.sendall(json.dumps(texts).encode())
