# SPDX-License-Identifier: Apache-2.0
"""What carries an SSH connection: a TCP socket or a ProxyCommand, and how long it is silent."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from typing import IO

from bench.ssh_settings import Settings

# However late this process gets to listen: that is not the other end's silence.
_MOST_A_TURN_S = 0.3
_END_LIMIT_S = 2.0
_LAST_WORDS_S = 0.5
_TURN_S = 0.1


class Silent(OSError):
    """Nothing has come from the other end for as long as it was waited for."""


class Cancelled(OSError):
    """Whoever wanted the connection does not want it any more."""


class Line:
    """A socket for paramiko, with a limit to the silence of the other end.

    The limit is counted in turns of waiting, so that a controller that is short of CPU, with many
    connections at once, does not take its own slowness for a host's. Bytes start the count anew.
    """

    def __init__(
        self,
        sock: socket.socket,
        cancel: threading.Event,
        process: subprocess.Popen[bytes] | None = None,
        words: IO[bytes] | None = None,
    ) -> None:
        self._socket, self._cancel = sock, cancel
        self._process, self._words = process, words
        self._lock = threading.Lock()
        self._limit_s: float | None = None
        self._waited_s = 0.0
        self._hung_up = False
        self.failed: OSError | None = None
        # The last line that a ProxyCommand which ended by itself wrote on stderr.
        self.last_words = ""

    def expect(self, limit_s: float | None) -> None:
        """From now on, give the connection up after this much silence; None for never."""
        self._waited_s = 0.0
        self._limit_s = limit_s

    def settimeout(self, timeout: float | None) -> None:
        """Bound recv and send."""
        self._socket.settimeout(timeout)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    @property
    def _closed(self) -> bool:
        """paramiko asks a socket for this when it stops."""
        return self._socket.fileno() < 0

    def getpeername(self) -> object:
        """Return the other end's address."""
        return self._socket.getpeername()

    def send(self, data: bytes) -> int:
        """Send some bytes."""
        return self._socket.send(data)

    def recv(self, count: int) -> bytes:
        """Return some bytes, none at the end. Raises TimeoutError, Silent and Cancelled."""
        begun = time.monotonic()
        if self._cancel.is_set():
            self.failed = Cancelled("given up")
            raise self.failed
        try:
            data = self._socket.recv(count)
        except TimeoutError:
            self._waited_s += min(time.monotonic() - begun, _MOST_A_TURN_S)
            if self._limit_s is not None and self._waited_s >= self._limit_s:
                # The text is paramiko's to log; errno, because it looks for one.
                self.failed = Silent(errno.ETIMEDOUT, f"silent for {self._limit_s:.0f} s")
                raise self.failed from None
            raise
        except OSError:
            self._hung_up = True
            raise
        self._waited_s = 0.0
        self._hung_up = not data
        return data

    def close(self) -> None:
        """Close the socket, and end a ProxyCommand with all that it started."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._socket.close()
            if self._process is not None:
                self._end(self._process)
                self._process = None
            if self._words is not None:
                self._words.close()
                self._words = None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_LAST_WORDS_S if self._hung_up else 0)
            self.last_words = self._read_words()
        for number in (signal.SIGTERM, signal.SIGKILL):
            # Its group, not only itself: `ssh` through two hosts is two processes.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_END_LIMIT_S)

    def _read_words(self) -> str:
        if self._words is None:
            return ""
        with contextlib.suppress(OSError):
            self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - 4096))
            lines = self._words.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""


def open_line(want: Settings, cancel: threading.Event) -> Line:
    """Begin a connection; whether anybody answers is found out later. Raises OSError."""
    if want.proxy_command:
        return _through_command(want.proxy_command, cancel)
    return Line(_dial(want, cancel), cancel)


def _through_command(command: str, cancel: threading.Event) -> Line:
    ours, theirs = socket.socketpair()
    words = tempfile.TemporaryFile()  # noqa: SIM115 - the line closes it
    try:
        process = subprocess.Popen(
            # As ssh does: a ProxyCommand is text for a shell.
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=words,
            # Out of reach of the terminal: its Ctrl-C is for the controller, its user is not asked.
            start_new_session=True,
            env={**os.environ, "SSH_ASKPASS_REQUIRE": "never"},
        )
    except BaseException:
        ours.close()
        words.close()
        raise
    finally:
        theirs.close()
    return Line(ours, cancel, process, words)


def _dial(want: Settings, cancel: threading.Event) -> socket.socket:
    """Connect by TCP to the first address of a name that answers."""
    try:
        found = socket.getaddrinfo(want.address, want.port, want.family, socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(f"{want.address!r} is not a host name") from None
    error: OSError = OSError("no address")
    for count, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            # One address that swallows packets leaves time for the others.
            _connect(sock, address, want.limit_s / (1 if count + 1 == len(found) else 2), cancel)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as failed:
            sock.close()
            error = failed
            if isinstance(failed, Cancelled):
                break
    raise error


def _connect(sock: socket.socket, address: object, limit_s: float, cancel: threading.Event) -> None:
    sock.setblocking(False)
    number = sock.connect_ex(address)  # type: ignore[arg-type]
    until = time.monotonic() + limit_s
    while number in (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR):
        if cancel.is_set():
            raise Cancelled("given up")
        if time.monotonic() > until:
            raise Silent(errno.ETIMEDOUT, f"silent for {limit_s:.0f} s")
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        if poll.poll(_TURN_S * 1000):
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))
