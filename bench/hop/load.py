# SPDX-License-Identifier: Apache-2.0
"""The client's agent: runs siege, times its connections, and fetches payloads for verification."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import select
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from . import config, lock, net, offloads, process, protocol, version
from .address import endpoint
from .errors import HopError
from .host import HostCounters
from .protocol import Ended, Message, serve
from .timer import ConnectionTimer

ROOT = Path(__file__).resolve().parent.parent
RC_FILE = ROOT / "client" / "siegerc"
# siege keeps cookies and a configuration below HOME; it gets one of its own.
HOME = ROOT / "client" / "home"
FETCH_LIMIT_S = 10.0  # of silence
_FETCH_ALL_LIMIT_S = 100.0  # below what the controller waits
MOST_PAYLOADS, MOST_BYTES = 64, 1 << 30
_CHUNK = 1 << 16
# How often the timer's ring is looked at while siege runs: it holds twenty times what a client
# can do meanwhile.
_RELIEVE_S = 1.0


class Load:
    """What the client does on request."""

    def __init__(self) -> None:
        self._siege: subprocess.Popen[bytes] | None = None
        self._timer: ConnectionTimer | None = None
        self._nics: tuple[str, ...] = ()
        self._host = HostCounters(())
        self._offloads: offloads.Offloads | None = None

    def handle(self, message: Message) -> Message | None:
        """Answer `place`, `siege`, `connections`, `offloads`, `fetch` and `renew`.

        `still` and `abort` are for siege while it runs (`_heard`) and have no answer of their own.
        Raises HopError.
        """
        operation = message.pop("op", "")
        if operation == "place":
            return self._place(message)
        if operation == "siege":
            return self._sample(message)
        if operation == "connections":
            config.nothing_else(message)
            if self._timer is None:
                raise HopError("connections are not timed here")
            return {"event": "connections", **self._timer.take()}
        if operation == "offloads":
            return offloads.answer(self._offloads, message)
        if operation == "fetch":
            return _fetch(message)
        if operation == "renew":
            config.nothing_else(message)
            net.require_links(self._nics)
            return {"event": "ready"}
        if operation in ("still", "abort"):
            # siege has just ended by itself.
            return None
        raise HopError("unknown operation")

    def _place(self, message: Message) -> Message:
        version.require(message)
        holder = lock.holder(message)
        nic = config.nic(message, "data_nic")
        config.address(message, "data_ip")
        timer = config.truth(message, "timer")
        config.nothing_else(message)
        lock.take(holder)
        process.tool("siege")
        if not RC_FILE.exists():
            raise HopError("siege's rc file is missing", "run bench deploy")
        HOME.mkdir(mode=0o700, exist_ok=True)
        self._nics = (nic,)
        self._host = HostCounters(self._nics)
        if self._offloads is not None:
            self._offloads.restore()
        self._offloads = offloads.Offloads(self._nics)
        if timer and self._timer is None:
            self._timer = ConnectionTimer()
        return {"event": "ready", "pid": os.getpid()}

    def _sample(self, message: Message) -> Message:
        """Run siege once. What it printed comes back whole; it is parsed by the controller."""
        address, port = config.address(message, "ip"), config.port(message, "port")
        size = config.number(message, "size_bytes", 1, MOST_BYTES, 0)
        concurrency = config.number(message, "concurrency", 1, 10000, 0)
        repetitions = config.number(message, "repetitions", 1, 1_000_000, 0)
        limit_s = config.number(message, "limit_s", 1, 3600, 0)
        alone_s = config.number(message, "alone_s", 1, 3600, 0) if "alone_s" in message else limit_s
        timed = config.truth(message, "timer")
        # How long a silent connection may be so; 0: what the rc file says.
        timeout_s = config.number(message, "timeout_s", 1, 60, 0) if "timeout_s" in message else 0
        config.nothing_else(message)
        timer = self._prepare_timer(address, port) if timed else None
        if timer is None and self._timer is not None:
            # What is not timed is not to pay for it either.
            self._timer.detach()
        argv = [process.tool("siege"), "-R", str(_rc_file(timeout_s)), "-b"]
        argv += ["-c", str(concurrency), "-r", str(repetitions)]
        argv += [f"http://{endpoint(address, port)}/{size}.bin"]
        # Into files, not pipes: nobody reads while the clock runs.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            before = self._host.snapshot()
            started_at = time.time()
            begin = time.monotonic()
            self._siege = process.spawn(
                argv,
                env={"HOME": str(HOME), "LC_ALL": "C"},
                stdout=out.fileno(),
                stderr=err.fileno(),
            )
            try:
                timed_out = not self._wait(limit_s, alone_s, timer)
                wall_s = time.monotonic() - begin
            finally:
                self._end_siege()
            after = self._host.snapshot()
            found: Message = {
                "event": "sample",
                "stdout": _text(out),
                "stderr": _text(err)[-4000:],
                "status": self._status,
                "timed_out": timed_out,
                "started_at": started_at,
                "wall_s": wall_s,
                "before": before,
                "after": after,
            }
        if timer is not None:
            found["timed"], found["lost"] = timer.stop()
        return found

    def _prepare_timer(self, address: str, port: int) -> ConnectionTimer:
        if self._timer is None:
            raise HopError("connections are not timed here")
        self._timer.start(address, port)
        return self._timer

    _status = 0

    def _wait(self, limit_s: float, alone_s: float, timer: ConnectionTimer | None) -> bool:
        """Wait for siege; False when the limit is over, or the controller wants it to end.

        alone_s: for how long the controller may be silent. Raises Ended when it is for longer, or
        is gone; HopError when the NIC is.
        """
        assert self._siege is not None
        until = time.monotonic() + limit_s
        alone_until = time.monotonic() + alone_s
        pidfd = os.pidfd_open(self._siege.pid)
        try:
            while (left_s := until - time.monotonic()) > 0:
                alone_left_s = alone_until - time.monotonic()
                if alone_left_s <= 0:
                    raise Ended("lease ran out")
                pause_s = min(left_s, alone_left_s, _RELIEVE_S if timer else left_s)
                ready, _, _ = select.select([pidfd, 0], [], [], pause_s)
                if pidfd in ready:
                    return True
                if ready:
                    if not self._heard():
                        return False
                    alone_until = time.monotonic() + alone_s
                if timer is not None:
                    timer.relieve()
        finally:
            os.close(pidfd)
        return False

    def _heard(self) -> bool:
        """Take what the controller says while siege runs; False when siege is to end."""
        text = os.read(0, protocol.MAX_LINE)
        while text and not text.endswith(b"\n") and len(text) < protocol.MAX_LINE:
            more = os.read(0, protocol.MAX_LINE)
            if not more:
                break
            text += more
        if not text:
            raise Ended("the controller left in mid-sample")
        operations = [protocol.decode(line).get("op") for line in text.splitlines()]
        if "abort" in operations:
            return False
        if not set(operations) <= {"still", "keep"}:
            raise Ended("the controller does not wait for siege")
        net.require_links(self._nics)
        return True

    def _end_siege(self) -> None:
        if self._siege is not None:
            # With stalled connections siege ignores SIGTERM.
            process.end(self._siege)
            self._status = self._siege.returncode
            self._siege = None

    def stop(self) -> None:
        """End siege, and put the NIC's offloads back."""
        self._end_siege()
        if self._offloads is not None:
            self._offloads.restore()


def _rc_file(timeout_s: int) -> Path:
    """Return siege's rc file, or one beside its HOME that differs in the time-out alone."""
    if not timeout_s:
        return RC_FILE
    text, changed = re.subn(
        r"^timeout = .*$", f"timeout = {timeout_s}", RC_FILE.read_text(), flags=re.MULTILINE
    )
    if changed != 1:
        raise HopError("siege's rc file has no time-out", "run bench deploy")
    file = HOME / "siegerc"
    file.write_text(text)
    return file


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(1 << 20).decode(errors="replace")


def _fetch(message: Message) -> Message:
    """Download payloads through the chain; sizes and SHA-256 as they arrived."""
    address, port = config.address(message, "ip"), config.port(message, "port")
    sizes = config.numbers(message, "sizes", 1, MOST_BYTES, MOST_PAYLOADS)
    config.nothing_else(message)
    payloads = []
    until = time.monotonic() + _FETCH_ALL_LIMIT_S
    for size in sizes:
        connection = http.client.HTTPConnection(address, port, timeout=FETCH_LIMIT_S)
        digest, received = hashlib.sha256(), 0
        try:
            connection.request("GET", f"/{size}.bin", headers={"Connection": "close"})
            response = connection.getresponse()
            # What is longer than it should be is wrong already, and need have no end.
            while received <= size and (chunk := response.read1(_CHUNK)):
                digest.update(chunk)
                received += len(chunk)
                if time.monotonic() > until:
                    raise TimeoutError(f"{received} bytes, and {_FETCH_ALL_LIMIT_S:.0f} s over")
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
