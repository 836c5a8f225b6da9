# SPDX-License-Identifier: Apache-2.0
"""JSON lines on stdin and stdout, and the lease after which an agent ends by itself.

In:  one configuration a line ({"mode": …}), or {"op": "counters"}, {"op": "renew"}, …
     Every agent answers {"op": "clock"} (clock.py).
Out: {"event": "ready" | "counters" | "error" | "stopped" | …}, one line for each line in.

Every line from the controller renews the lease; {"op": "keep"} does that alone, and has no answer.
An agent ends on end of file, on SIGTERM and SIGHUP, and when the lease runs out: the controller may
be gone without SSH having noticed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import clock
from .errors import HopError

Message = dict[str, Any]

# A configuration is a few hundred bytes; whoever sends more is not the controller.
MAX_LINE = 65536
DEFAULT_LEASE_S = 30.0
MAX_LEASE_S = 3600.0
# What only renews the lease. It has no answer.
_KEEP = {"op": "keep"}


class Ended(Exception):
    """The agent should stop; the argument says why."""


def send(message: Message) -> None:
    """Write one event; a controller that no longer reads ends the agent."""
    data = (json.dumps(message, separators=(",", ":")) + "\n").encode()
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError as error:
        raise Ended("the controller is gone") from error


def send_error(error: HopError) -> None:
    """Write an `error` event."""
    send({"event": "error", "cause": error.cause, "remedy": error.remedy, **error.details})


def _on_signal(number: int, _frame: object) -> None:
    # Later ones must not interrupt the clean-up that the first one starts.
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Ended(signal.Signals(number).name)


class Lease:
    """Until when the agent may go on without a word from the controller (monotonic clock)."""

    def __init__(self, seconds: float = DEFAULT_LEASE_S) -> None:
        self.renew(seconds)

    def renew(self, seconds: float) -> None:
        """Start the lease anew, for `seconds` from now."""
        self._seconds = min(max(seconds, 1.0), MAX_LEASE_S)
        self.again()

    def again(self) -> None:
        """Start the lease anew, for as long as the last time."""
        self._until = time.monotonic() + self._seconds

    @property
    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._until - time.monotonic())


def messages(lease: Lease) -> Iterator[Message]:
    """Yield the controller's lines as objects.

    Raises Ended on end of file or when the lease has run out, HopError for a line that is not a
    JSON object (the stream can then no longer be trusted).
    """
    pending = b""
    while True:
        line, newline, rest = pending.partition(b"\n")
        if newline:
            pending = rest
            message = _renewing(decode(line), lease)
            if message == _KEEP:
                continue
            yield message
            # Nothing was read meanwhile, whatever came.
            lease.again()
            continue
        if len(pending) > MAX_LINE:
            raise HopError("a line of configuration is too long")
        readable, _, _ = select.select([0], [], [], lease.left_s)
        if not readable:
            raise Ended("lease ran out")
        chunk = os.read(0, MAX_LINE)
        if not chunk:
            raise Ended("end of input")
        pending += chunk


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def decode(line: bytes) -> Message:
    """Return a line as an object: with each key once, and no NaN. Raises HopError."""
    try:
        message = json.loads(line, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise HopError("configuration is not JSON") from error
    if not isinstance(message, dict):
        raise HopError("configuration is not a JSON object")
    return message


def _renewing(message: Message, lease: Lease) -> Message:
    lease_s = message.pop("lease_s", DEFAULT_LEASE_S)
    if not isinstance(lease_s, (int, float)) or isinstance(lease_s, bool):
        raise HopError("lease_s is not a number")
    lease.renew(lease_s)
    return message


def _is_clock(message: Message) -> bool:
    if message.get("op") != "clock":
        return False
    del message["op"]
    return True


def serve(handle: Callable[[Message], Message | None], stop: Callable[[], None]) -> int:
    """Answer the controller until the agent has to end; always call `stop` then.

    handle: takes a message, returns the event to send. A HopError it raises is reported, and the
    agent lives on. Returns the exit status: 0 for an orderly end, 1 for a broken stream.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _on_signal)
    reason, status = "", 0
    try:
        for message in messages(Lease()):
            try:
                answer = clock.answer(message) if _is_clock(message) else handle(message)
            except HopError as error:
                send_error(error)
            except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                # What nobody foresaw is the controller's to hear of, too, and no reason to end.
                send_error(HopError(f"{type(error).__name__}: {error}"))
            else:
                if answer is not None:
                    send(answer)
    except Ended as ended:
        reason = str(ended)
    except HopError as error:
        reason, status = error.cause, 1
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop()
    try:
        send({"event": "stopped", "reason": reason})
    except Ended:
        # Nobody listens any more, and all is undone: that is an orderly end.
        sys.stderr.close()
    return status
