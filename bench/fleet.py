# SPDX-License-Identifier: Apache-2.0
"""All hosts of a chain at once: connections in parallel, agents that answer line by line."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fabric import Connection
from paramiko import Channel, SSHException

from bench import ssh
from bench.chain import Host
from bench.errors import BenchError, HostsError

PARALLEL = 64
REPLY_LIMIT_S = 20.0
_STOP_LIMIT_S = 5.0
_NOTED = 500  # characters of a message
# Constant text: nothing from an inventory ever becomes part of a command.
_AGENT = "cd /opt/hopbench && exec /usr/bin/python3 -B -m hop {role}"

Message = dict[str, Any]
T = TypeVar("T")


class Agent:
    """A program on a host that answers each line of JSON with one."""

    def __init__(self, host: Host, channel: Channel) -> None:
        self.host = host
        self._channel = channel
        self._pending = b""
        self._transcript: list[str] = []

    @property
    def transcript(self) -> str:
        """What was said so far, a line each: seconds (time.time), `>` or `<`, the message."""
        return "".join(self._transcript)

    def _note(self, direction: str, line: str) -> None:
        # siege's report is kept whole elsewhere.
        self._transcript.append(f"{time.time():.3f} {direction} {line[:_NOTED]}\n")

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one line; the answer is taken with `receive`. Raises BenchError when it is gone."""
        line = json.dumps(message)
        self._note(">", line)
        try:
            self._channel.sendall((line + "\n").encode())
        except OSError:
            raise self._gone() from None

    def receive(self, limit_s: float = REPLY_LIMIT_S) -> Message:
        """Return the next event. Raises BenchError for an `error` event, silence, or its end."""
        until = time.monotonic() + limit_s
        while b"\n" not in self._pending:
            self._channel.settimeout(max(0.01, until - time.monotonic()))
            try:
                chunk = self._channel.recv(65536)
            except TimeoutError:
                raise BenchError(
                    f"no answer from the agent within {limit_s:.0f} s", host=self.host.name
                ) from None
            except OSError:
                chunk = b""
            if not chunk:
                raise self._gone()
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        self._note("<", line.decode(errors="replace"))
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            text = line[:100].decode(errors="replace")
            raise BenchError(f"unexpected answer {text!r}", host=self.host.name) from None
        if kind == "error":
            raise BenchError(
                str(event.get("cause")), host=self.host.name, remedy=event.get("remedy") or None
            )
        if kind == "stopped":
            raise BenchError(f"the agent stopped: {event.get('reason')}", host=self.host.name)
        return dict(event)

    def ask(self, message: Mapping[str, Any], limit_s: float = REPLY_LIMIT_S) -> Message:
        """Send one line and return its answer."""
        self.send(message)
        return self.receive(limit_s)

    def _gone(self) -> BenchError:
        """Say why the agent is gone, from its last event or its last words."""
        words = b""
        with contextlib.suppress(OSError):
            self._channel.settimeout(1.0)
            while len(self._pending) < 65536 and (chunk := self._channel.recv(65536)):
                self._pending += chunk
        for line in self._pending.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                reason = json.loads(line)["reason"]
                return BenchError(f"the agent stopped: {reason}", host=self.host.name)
        with contextlib.suppress(OSError):
            self._channel.settimeout(1.0)
            while len(words) < 65536 and (chunk := self._channel.recv_stderr(4096)):
                words += chunk
        lines = words.decode(errors="replace").strip().splitlines()
        text = lines[-1] if lines else "the agent ended without a word"
        if "sudo" in text:
            return BenchError(
                f"sudo refused: {text}",
                host=self.host.name,
                remedy="set ansible_become_password, or allow sudo without one",
            )
        if "/opt/hopbench" in words.decode(errors="replace") or "No module named hop" in text:
            return BenchError(
                "hopbench is not deployed here", host=self.host.name, remedy="run bench deploy"
            )
        return BenchError(text, host=self.host.name)

    def finish(self) -> None:
        """Close the agent's input and wait until it has undone everything."""
        with contextlib.suppress(OSError, EOFError, SSHException):
            self._channel.shutdown_write()
            self._channel.settimeout(_STOP_LIMIT_S)
            while self._channel.recv(65536):
                pass
        with contextlib.suppress(OSError, EOFError, SSHException):
            self._channel.close()


class Fleet:
    """Connections to hosts, opened together and closed together."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts
        self._connections: dict[str, Connection] = {}
        self._agents: list[Agent] = []

    def __enter__(self) -> Fleet:
        """Connect to every host. Raises HostsError that names each host that failed."""
        try:
            self.connect(self._hosts)
        except BaseException:
            self.close()
            raise
        return self

    def connect(self, hosts: Sequence[Host]) -> None:
        """Connect to more hosts at once. Raises HostsError; those that answered stay connected."""
        _in_parallel(ssh.connect, hosts, keep=self._connections)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all agents, then all connections."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(Agent.finish, self._agents))
            list(pool.map(_close, self._connections.values()))
        self._agents, self._connections = [], {}

    def start_agents(self, roles: Mapping[str, str]) -> dict[str, Agent]:
        """Start an agent on each host: {host name: role} → {host name: agent}, in that order."""
        hosts = [host for host in self._hosts if host.name in roles]
        agents = _in_parallel(lambda host: self._start(host, roles[host.name]), hosts)
        self._agents += agents.values()
        return agents

    def _start(self, host: Host, role: str) -> Agent:
        return Agent(host, self._channel(host, _AGENT.format(role=role)))

    def _channel(self, host: Host, command: str) -> Channel:
        want = ssh.settings(host)
        try:
            channel: Channel = self._connections[host.name].transport.open_session(timeout=15)
            if want.sudo:
                ask = "-S -p ''" if want.sudo_password is not None else "-n"
                command = f"sudo {ask} -- sh -c '{command}'"
            channel.exec_command(command)
            if want.sudo and want.sudo_password is not None:
                channel.sendall((want.sudo_password + "\n").encode())
        except (OSError, EOFError, SSHException) as error:
            raise BenchError(f"SSH: {error or 'connection lost'}", host=host.name) from None
        return channel

    def for_each(self, work: Callable[[Host], T], hosts: Sequence[Host]) -> dict[str, T]:
        """Do something for several hosts at once. Raises HostsError with each that failed."""
        return _in_parallel(work, hosts)

    def run_on(self, host: Host, command: str, text: str, limit_s: float) -> str:
        """Run one command on one host and return its stdout. Raises BenchError."""
        channel = self._channel(host, command)
        try:
            channel.settimeout(limit_s)
            channel.sendall(text.encode())
            channel.shutdown_write()
            output = b""
            while chunk := channel.recv(65536):
                output += chunk
            errors = b""
            while chunk := channel.recv_stderr(65536):
                errors += chunk
            if channel.recv_exit_status():
                lines = errors.decode(errors="replace").strip().splitlines()
                raise BenchError(lines[-1] if lines else "command failed", host=host.name)
        except TimeoutError:
            raise BenchError(f"no answer within {limit_s:.0f} s", host=host.name) from None
        except OSError as error:
            raise BenchError(f"SSH: {error}", host=host.name) from None
        finally:
            channel.close()
        return output.decode(errors="replace")


def ask_all(
    agents: Iterable[Agent], message: Mapping[str, Any], limit_s: float = REPLY_LIMIT_S
) -> list[Message]:
    """Ask several agents the same at once. Raises HostsError with every one that failed."""
    pairs = [(agent, message) for agent in agents]
    return ask_each(pairs, limit_s)


def ask_each(
    pairs: Sequence[tuple[Agent, Mapping[str, Any]]], limit_s: float = REPLY_LIMIT_S
) -> list[Message]:
    """Send each agent its own line, then collect the answers: they work side by side.

    Raises HostsError with every agent that failed, after all have answered.
    """
    failures: list[BenchError] = []
    sent: list[Agent] = []
    for agent, message in pairs:
        try:
            agent.send(message)
            sent.append(agent)
        except BenchError as error:
            failures.append(error)
    answers: list[Message] = []
    until = time.monotonic() + limit_s
    for agent in sent:
        try:
            answers.append(agent.receive(max(0.1, until - time.monotonic())))
        except BenchError as error:
            failures.append(error)
    _raise(failures)
    return answers


def _raise(failures: Sequence[BenchError]) -> None:
    if failures:
        remedies = {error.remedy for error in failures}
        raise HostsError(
            [(error.host or "?", error.cause) for error in failures],
            remedy=remedies.pop() if len(remedies) == 1 else None,
        )


def _in_parallel(
    work: Callable[[Host], T], hosts: Sequence[Host], keep: dict[str, T] | None = None
) -> dict[str, T]:
    """Do something for every host at once and return {host name: result}.

    keep: where results are put as they come, so that the caller can release them on failure.
    """
    results: dict[str, T] = {} if keep is None else keep
    failures: list[BenchError] = []
    if not hosts:
        return results
    with ThreadPoolExecutor(min(PARALLEL, len(hosts))) as pool:
        futures = [(host, pool.submit(work, host)) for host in hosts]
        for host, future in futures:
            try:
                results[host.name] = future.result()
            except BenchError as error:
                failures.append(error)
    _raise(failures)
    return results


def _close(connection: Connection) -> None:
    with contextlib.suppress(Exception):
        transport = connection.transport
        sock = transport.sock if transport is not None else None
        connection.close()
        if sock is not None:
            sock.close()
