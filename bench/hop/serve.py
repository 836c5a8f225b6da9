# SPDX-License-Identifier: Apache-2.0
"""The server's agent: nginx on the data address alone, for as long as the controller wants it."""

from __future__ import annotations

import os
import socket
import string
import subprocess
from pathlib import Path

from . import config, lock, net, offloads, process, version
from .address import bracketed
from .errors import HopError
from .host import HostCounters
from .protocol import Message, serve

ROOT = Path(__file__).resolve().parent.parent
PAYLOADS = ROOT / "payloads"
TEMPLATE = ROOT / "server" / "nginx.conf.template"
# A start takes 0.1 s on a PC, and some 10 s in an emulated guest whose machine is busy.
LISTEN_LIMIT_S = 30.0

# nginx wants files for its process id and its buffers. They go into a tmpfs that only its own
# mount namespace knows, so that they vanish with its last process. $1: a folder, $2: the
# configuration, $3: nginx.
_START = """
mount -t tmpfs -o size=64m,mode=755 hopbench "$1" &&
printf %s "$2" > "$1/nginx.conf" &&
exec "$3" -p "$1/" -c "$1/nginx.conf" -e stderr
"""


class Server:
    """One nginx and its workers."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._nics: tuple[str, ...] = ()
        self._host = HostCounters(())
        self._offloads: offloads.Offloads | None = None

    def handle(self, message: Message) -> Message:
        """Answer `place` (start nginx), `counters`, `offloads` and `renew`. Raises HopError."""
        operation = message.pop("op", "")
        if operation == "place":
            return self._start(message)
        if operation == "renew":
            config.nothing_else(message)
            self._require_nginx()
            return {"event": "ready"}
        if operation == "counters":
            config.nothing_else(message)
            self._require_nginx()
            net.require_links(self._nics)
            # nginx is no forwarder, and counts nothing of its own.
            return {"event": "counters", "counters": {}, "host": self._host.snapshot()}
        if operation == "offloads":
            return offloads.answer(self._offloads, message)
        raise HopError("unknown operation")

    def _start(self, message: Message) -> Message:
        version.require(message)
        holder = lock.holder(message)
        nic = config.nic(message, "data_nic")
        address = config.address(message, "data_ip")
        port = config.port(message, "server_port")
        config.nothing_else(message)
        lock.take(holder)
        self.stop()
        self._nics = (nic,)
        self._host = HostCounters(self._nics)
        self._offloads = offloads.Offloads(self._nics)
        net.require_free_port(address, port)
        text = _configuration(address, port)
        shell = ["/bin/sh", "-c", _START, "sh", str(TEMPLATE.parent), text, process.tool("nginx")]
        mounts = [process.tool("unshare"), "--mount", "--propagation", "private", "--"]
        self._process = process.spawn([*mounts, *shell], family=True)
        if not process.wait_for(lambda: _answers(address, port), LISTEN_LIMIT_S, self._process):
            reason = self._last_words()
            self.stop()
            raise HopError(f"nginx does not serve: {reason}")
        return {"event": "ready", "pid": os.getpid(), "data_nic": nic}

    def _require_nginx(self) -> None:
        if self._process is None or self._process.poll() is not None:
            raise HopError("nginx has ended")

    def _last_words(self) -> str:
        if self._process is None or self._process.poll() is None or self._process.stderr is None:
            return "no answer"
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it ended"

    def stop(self) -> None:
        """End nginx, and put the NIC's offloads back."""
        if self._process is not None:
            process.end(self._process)
            self._process = None
        if self._offloads is not None:
            self._offloads.restore()


def _configuration(address: str, port: int) -> str:
    try:
        template = string.Template(TEMPLATE.read_text())
    except OSError as error:
        raise HopError("nginx's configuration is missing", "run bench deploy") from error
    workers = len(os.sched_getaffinity(0))
    return template.substitute(
        address=bracketed(address), port=port, root=str(PAYLOADS), workers=min(workers, 8)
    )


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


def main(argv: list[str]) -> int:
    """Serve the controller on stdin and stdout until it is gone."""
    del argv
    server = Server()
    return serve(server.handle, server.stop)
