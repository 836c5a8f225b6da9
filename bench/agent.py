# SPDX-License-Identifier: Apache-2.0
"""A program on a host that answers line by line, through an SSH channel."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from paramiko import Channel, SSHException

from bench import strict_json
from bench.answers import MAX_LINE_BYTES, MAX_WORDS, Unexpected, check, words
from bench.chain import Host
from bench.errors import BenchError, HeldError
from bench.owner import Owner
from bench.ssh import QUIET_S, Link
from bench.transcript import Transcript

REPLY_LIMIT_S = 20.0
_STOP_LIMIT_S = 5.0
_NOTED = 500  # characters of a message
# Constant text: nothing from an inventory ever becomes part of a command.
_COMMAND = "cd /opt/hopbench && exec /usr/bin/python3 -B -m hop {role}"
# Has no answer, and is not worth a line of the transcript.
_KEEP = b'{"op": "keep"}\n'

Message = dict[str, Any]


def start(link: Link, role: str) -> Agent:
    """Start `python3 -m hop ROLE` on a host. Raises BenchError."""
    channel, said = link.start(_COMMAND.format(role=role))
    return Agent(link, channel, said, role)


class Agent:
    """A program on a host that answers each line of JSON with one."""

    def __init__(self, link: Link, channel: Channel, said: bytes = b"", role: str = "") -> None:
        self._link = link
        self._channel = channel
        self._role = role
        self._pending = said
        self._asked: deque[Mapping[str, Any]] = deque()
        self._transcript = Transcript()

    @property
    def host(self) -> Host:
        """Where it runs."""
        return self._link.host

    @property
    def transcript(self) -> str:
        """What was said so far, a line each: seconds (time.time), `>` or `<`, the message."""
        return self._transcript.text

    def _note(self, direction: str, line: str) -> None:
        # siege's report is kept whole elsewhere.
        self._transcript.add(f"{time.time():.3f} {direction} {line[:_NOTED]}\n")

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one line; the answer is taken with `receive`. Raises BenchError when it is gone."""
        self.post(message)
        self._asked.append(message)

    def post(self, message: Mapping[str, Any]) -> None:
        """Send one line that has no answer. Raises BenchError when the agent is gone."""
        line = json.dumps(message)
        self._note(">", line)
        try:
            with self._link.waiting():
                self._channel.settimeout(REPLY_LIMIT_S)
                self._channel.sendall((line + "\n").encode())
        except (OSError, EOFError, SSHException):
            raise self._gone() from None

    def keep(self) -> None:
        """Renew the agent's lease; from any thread, also while another waits for an answer.

        Whoever waits for the agent finds out when it is gone.
        """
        with contextlib.suppress(OSError, EOFError, SSHException):
            self._channel.sendall(_KEEP)

    def watched(self, quiet_s: float) -> contextlib.AbstractContextManager[None]:
        """While an answer is polled for, find out whether the host is there; quiet_s as there."""
        return self._link.waiting(quiet_s)

    def require_there(self) -> None:
        """Raise BenchError when it is known here that the agent, or its host's SSH, is gone.

        Nothing is sent. An agent that waits for nothing says nothing: only its end arrives.
        """
        if self._channel.closed or self._channel.eof_received or not self._link.alive:
            raise self._gone()

    def receive(self, limit_s: float = REPLY_LIMIT_S, quiet_s: float = QUIET_S) -> Message:
        """Return the next event. Raises BenchError for an `error` event, silence, or its end.

        quiet_s: how long nothing is sent to the host, not even to find out whether it is there.
        """
        with self._link.waiting(quiet_s):
            event = self.poll(limit_s)
        if event is None:
            raise BenchError(
                f"no answer from the agent within {limit_s:.0f} s", host=self.host.name
            )
        return event

    def poll(self, limit_s: float) -> Message | None:
        """Return the next event, or None when there is none within the limit.

        Raises BenchError for an `error` event, or the agent's end.
        """
        until = time.monotonic() + limit_s
        while (line := self._line(until)) is not None:
            if (event := self._event(line)) is not None:
                return event
        return None

    def _line(self, until: float) -> bytes | None:
        """Return the next line, or None when there is none until then (time.monotonic)."""
        while b"\n" not in self._pending:
            left_s = until - time.monotonic()
            # It may go on sending and never end the line; and paramiko's own limit counts by the
            # time of day, which may be set meanwhile.
            if left_s <= 0:
                return None
            try:
                self._channel.settimeout(left_s)
                chunk = self._channel.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                chunk = b""
            if not chunk:
                raise self._gone()
            self._pending += chunk
            if len(self._pending) > MAX_LINE_BYTES:
                raise BenchError("the agent's answer is too long", host=self.host.name)
        line, _, self._pending = self._pending.partition(b"\n")
        self._note("<", line.decode(errors="replace"))
        return line

    def _event(self, line: bytes) -> Message | None:
        """Return the event of a line, None for what nobody waits for any more."""
        try:
            event = strict_json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            text = line[:100].decode(errors="replace")
            raise BenchError(f"unexpected answer {text!r}", host=self.host.name) from None
        if kind == "stopped":
            reason = words(event.get("reason"), "it does not say why")
            raise BenchError(f"the agent stopped: {reason}", host=self.host.name)
        question = self._asked.popleft() if self._asked else {}
        if self._asked:
            # It comes late, and another question has been asked since.
            return None
        if kind == "error":
            raise self._error(event)
        try:
            check(self._role, question, event)
        except Unexpected as wrong:
            said = f"unexpected answer to {question.get('op', 'a mode')}: {wrong}"
            raise BenchError(said, host=self.host.name) from None
        return dict(event)

    def _error(self, event: Message) -> BenchError:
        cause = words(event.get("cause"), "the agent failed and does not say why")
        remedy = words(event.get("remedy")) or None
        if (holder := words(event.get("holder"))) and (owner := Owner.parse(holder)):
            return HeldError(cause, host=self.host.name, remedy=remedy, gone=owner.gone)
        return BenchError(cause, host=self.host.name, remedy=remedy)

    def ask(
        self,
        message: Mapping[str, Any],
        limit_s: float = REPLY_LIMIT_S,
        quiet_s: float = QUIET_S,
    ) -> Message:
        """Send one line and return its answer; quiet_s as for `receive`."""
        self.send(message)
        return self.receive(limit_s, quiet_s)

    def _gone(self) -> BenchError:
        """Say why the agent is gone, from its last event, its last words, or its connection."""
        errors = b""
        with contextlib.suppress(OSError, EOFError, SSHException):
            self._channel.settimeout(1.0)
            while len(self._pending) < 65536 and (chunk := self._channel.recv(65536)):
                self._pending += chunk
        for line in self._pending.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                reason = words(strict_json.loads(line)["reason"], "it does not say why")
                return BenchError(f"the agent stopped: {reason}", host=self.host.name)
        with contextlib.suppress(OSError, EOFError, SSHException):
            self._channel.settimeout(1.0)
            while len(errors) < 65536 and (chunk := self._channel.recv_stderr(4096)):
                errors += chunk
        lines = errors.decode(errors="replace").strip().splitlines()
        if not lines and (lost := self._link.lost()):
            return lost
        text = lines[-1][:MAX_WORDS] if lines else "the agent ended without a word"
        if "/opt/hopbench" in errors.decode(errors="replace") or "No module named hop" in text:
            return BenchError(
                "hopbench is not deployed here", host=self.host.name, remedy="run bench deploy"
            )
        return BenchError(text, host=self.host.name)

    def finish(self) -> None:
        """Close the agent's input and wait until it has undone everything."""
        with contextlib.suppress(OSError, EOFError, SSHException), self._link.waiting():
            self._channel.shutdown_write()
            self._channel.settimeout(_STOP_LIMIT_S)
            while self._channel.recv(65536):
                pass
        with contextlib.suppress(OSError, EOFError, SSHException):
            self._channel.close()
