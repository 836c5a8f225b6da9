# SPDX-License-Identifier: Apache-2.0
"""Child processes that cannot outlive the agent, whatever ends it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import HopError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG).

    Also lets it open as many files as it may: a thousand connections need more than the usual 1024.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def tool(name: str) -> str:
    """Return the path of a program, also from the sbin folders that a user's PATH may lack."""
    path = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise HopError(f"{name} is not installed", "run bench deploy")
    return path


def spawn(
    argv: Sequence[str],
    *,
    family: bool = False,
    env: dict[str, str] | None = None,
    cwd: str | None = None,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start a program that dies with this process. Call it from the main thread only: the kernel
    takes the end of the thread that forked for the death of the parent.

    family: the program forks. PDEATHSIG does not pass to its children, so it becomes the first
    process of a PID namespace: when that one dies, the kernel kills all the others.
    """
    command = list(argv)
    if family:
        command = [tool("unshare"), "--pid", "--fork", "--kill-child=SIGKILL", "--", *command]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program started by `spawn` and all its children, and wait until they are gone.

    With `family` the child of unshare goes first: unshare ends when the kernel has emptied the
    PID namespace, so that ports are free again when this returns.
    """
    if process.poll() is None:
        for pid in _children(process.pid) or [process.pid]:
            _kill(pid)
        try:
            process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            _kill(process.pid)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for(ready: Callable[[], bool], limit_s: float, process: subprocess.Popen[bytes]) -> bool:
    """Poll `ready` until it is true; False when the time is over or the process has ended."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if ready():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return False
