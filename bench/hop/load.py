# SPDX-License-Identifier: Apache-2.0
"""The client's agent: runs siege, one sample at a time, and fetches payloads for verification."""

from __future__ import annotations

import hashlib
import http.client
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from . import config, net, process, version
from .address import endpoint
from .errors import HopError
from .protocol import Ended, Message, serve

ROOT = Path(__file__).resolve().parent.parent
RC_FILE = ROOT / "client" / "siegerc"
# siege keeps cookies and a configuration below HOME; it gets one of its own.
HOME = ROOT / "client" / "home"
FETCH_LIMIT_S = 10.0
_CHUNK = 1 << 16


class Load:
    """What the client does on request."""

    def __init__(self) -> None:
        self._siege: subprocess.Popen[bytes] | None = None

    def handle(self, message: Message) -> Message:
        """Answer `place`, `siege`, `fetch` and `renew`. Raises HopError."""
        operation = message.pop("op", "")
        if operation == "place":
            return self._place(message)
        if operation == "siege":
            return self._sample(message)
        if operation == "fetch":
            return _fetch(message)
        if operation == "renew":
            config.nothing_else(message)
            return {"event": "ready"}
        raise HopError("unknown operation")

    def _place(self, message: Message) -> Message:
        version.require(message)
        config.nic(message, "data_nic")
        config.address(message, "data_ip")
        config.nothing_else(message)
        process.tool("siege")
        if not RC_FILE.exists():
            raise HopError("siege's rc file is missing", "run bench deploy")
        HOME.mkdir(mode=0o700, exist_ok=True)
        return {"event": "ready", "pid": os.getpid()}

    def _sample(self, message: Message) -> Message:
        """Run siege once. What it printed comes back whole; it is parsed by the controller."""
        address, port = config.address(message, "ip"), config.port(message, "port")
        size = config.number(message, "size_bytes", 1, 1 << 30, 0)
        concurrency = config.number(message, "concurrency", 1, 10000, 0)
        repetitions = config.number(message, "repetitions", 1, 1_000_000, 0)
        limit_s = config.number(message, "limit_s", 1, 3600, 0)
        config.nothing_else(message)
        argv = [process.tool("siege"), "-R", str(RC_FILE), "-b"]
        argv += ["-c", str(concurrency), "-r", str(repetitions)]
        argv += [f"http://{endpoint(address, port)}/{size}.bin"]
        # Into files, not pipes: nobody reads while the clock runs.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            sent = net.segments_sent()
            started_at = time.time()
            begin = time.monotonic()
            self._siege = process.spawn(
                argv,
                env={"HOME": str(HOME), "LC_ALL": "C"},
                stdout=out.fileno(),
                stderr=err.fileno(),
            )
            timed_out = not self._wait(limit_s)
            wall_s = time.monotonic() - begin
            self.stop()
            sent = net.segments_sent() - sent
            return {
                "event": "sample",
                "stdout": _text(out),
                "stderr": _text(err)[-4000:],
                "status": self._status,
                "timed_out": timed_out,
                "started_at": started_at,
                "wall_s": wall_s,
                "segments_sent": sent,
            }

    _status = 0

    def _wait(self, limit_s: float) -> bool:
        """Wait for siege; False when the limit is over. Raises Ended without a controller."""
        assert self._siege is not None
        pidfd = os.pidfd_open(self._siege.pid)
        try:
            # 0 becomes readable at end of file only: the controller has nothing to say now.
            ready, _, _ = select.select([pidfd, 0], [], [], limit_s)
        finally:
            os.close(pidfd)
        if 0 in ready and pidfd not in ready:
            raise Ended("the controller left in mid-sample")
        return pidfd in ready

    def stop(self) -> None:
        """End siege."""
        if self._siege is not None:
            # With stalled connections siege ignores SIGTERM.
            process.end(self._siege)
            self._status = self._siege.returncode
            self._siege = None


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(1 << 20).decode(errors="replace")


def _fetch(message: Message) -> Message:
    """Download payloads through the chain; sizes and SHA-256 as they arrived."""
    address, port = config.address(message, "ip"), config.port(message, "port")
    sizes = message.pop("sizes", None)
    config.nothing_else(message)
    if not isinstance(sizes, list) or not all(type(size) is int for size in sizes):
        raise HopError("sizes is not a list of integers")
    payloads = []
    for size in sizes:
        connection = http.client.HTTPConnection(address, port, timeout=FETCH_LIMIT_S)
        digest, received = hashlib.sha256(), 0
        try:
            connection.request("GET", f"/{size}.bin", headers={"Connection": "close"})
            response = connection.getresponse()
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                received += len(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise HopError(
                f"payload of {size} bytes does not arrive from {endpoint(address, port)}: {error}"
            ) from error
        finally:
            connection.close()
        payloads.append(
            {
                "size_bytes": size,
                "status": response.status,
                "received_bytes": received,
                "sha256": digest.hexdigest(),
            }
        )
    return {"event": "payloads", "payloads": payloads}


def main(argv: list[str]) -> int:
    """Serve the controller on stdin and stdout until it is gone."""
    del argv
    load = Load()
    return serve(load.handle, load.stop)
