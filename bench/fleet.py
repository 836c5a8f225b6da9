# SPDX-License-Identifier: Apache-2.0
"""All hosts of a chain at once: connections in parallel, agents that answer line by line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from paramiko import SSHException

from bench import agent
from bench.agent import REPLY_LIMIT_S, Agent, Message
from bench.chain import Host
from bench.errors import BenchError, HostsError
from bench.ssh import Link, Opener

__all__ = ["REPLY_LIMIT_S", "Agent", "Fleet", "Message", "ask_all", "ask_each"]

# The longest chain of the lab, and some.
PARALLEL = 80
_MAX_OUTPUT_BYTES = 8 << 20

T = TypeVar("T")


class Fleet:
    """Connections to hosts, opened together and closed together."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts
        self._opener = Opener()
        self._links: dict[str, Link] = {}
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
        _raise(self.try_connect(hosts))

    def try_connect(self, hosts: Sequence[Host]) -> list[BenchError]:
        """Connect to more hosts at once; return the errors of those that did not answer."""
        return _in_parallel(self._opener.connect, hosts, self._links, self._opener.cancel)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all agents, then all connections."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(Agent.finish, self._agents))
            list(pool.map(Link.close, self._links.values()))
        self._agents, self._links = [], {}

    def start_agents(self, roles: Mapping[str, str]) -> dict[str, Agent]:
        """Start an agent on each host: {host name: role} → {host name: agent}, in that order."""
        hosts = [host for host in self._hosts if host.name in roles]
        started: dict[str, Agent] = {}

        def start(host: Host) -> Agent:
            return agent.start(self._links[host.name], roles[host.name])

        try:
            failures = _in_parallel(start, hosts, started)
        finally:
            agents = {host.name: started[host.name] for host in hosts if host.name in started}
            self._agents += agents.values()
        _raise(failures)
        return agents

    def for_each(self, work: Callable[[Host], T], hosts: Sequence[Host]) -> dict[str, T]:
        """Do something for several hosts at once. Raises HostsError with each that failed."""
        results, failures = self.try_each(work, hosts)
        _raise(failures)
        return results

    def try_each(
        self, work: Callable[[Host], T], hosts: Sequence[Host]
    ) -> tuple[dict[str, T], list[BenchError]]:
        """Do something for several hosts at once; return results, and the errors of the others."""
        results: dict[str, T] = {}
        failures = _in_parallel(work, hosts, results)
        return {host.name: results[host.name] for host in hosts if host.name in results}, failures

    def run_on(
        self, host: Host, command: str, text: str, limit_s: float, *, as_root: bool = False
    ) -> str:
        """Run one command on one host and return its stdout. Raises BenchError.

        as_root: refuse a login that is not root and may not become it.
        """
        link = self._links[host.name]
        channel, said = link.start(command, as_root=as_root)
        output, errors = said, b""
        until = time.monotonic() + limit_s

        def take(receive: Callable[[int], bytes]) -> bytes:
            # All of it in time, and no more of it than a host can have to say.
            found = b""
            while len(found) <= _MAX_OUTPUT_BYTES:
                channel.settimeout(max(0.01, until - time.monotonic()))
                if not (chunk := receive(65536)):
                    return found
                if time.monotonic() > until:
                    raise TimeoutError
                found += chunk
            raise BenchError("its answer is too long", host=host.name)

        try:
            with link.waiting():
                channel.settimeout(limit_s)
                channel.sendall(text.encode())
                channel.shutdown_write()
                output += take(channel.recv)
                errors = take(channel.recv_stderr)
                if not channel.status_event.wait(max(0.01, until - time.monotonic())):
                    raise TimeoutError
                status = channel.recv_exit_status()
        except TimeoutError:
            raise BenchError(f"no answer within {limit_s:.0f} s", host=host.name) from None
        except (OSError, EOFError, SSHException) as error:
            raise link.failed(error) from None
        finally:
            channel.close()
        if status:
            lines = errors.decode(errors="replace").strip().splitlines()
            lost = None if lines else link.lost()
            raise lost or BenchError(lines[-1] if lines else "command failed", host=host.name)
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
    for each, message in pairs:
        try:
            each.send(message)
            sent.append(each)
        except BenchError as error:
            failures.append(error)
    answers: list[Message] = []
    until = time.monotonic() + limit_s
    for each in sent:
        try:
            answers.append(each.receive(max(0.1, until - time.monotonic())))
        except BenchError as error:
            failures.append(error)
    _raise(failures)
    return answers


def _raise(failures: Sequence[BenchError]) -> None:
    if failures:
        raise HostsError.of(failures)


def _in_parallel(
    work: Callable[[Host], T],
    hosts: Sequence[Host],
    results: dict[str, T],
    interrupted: Callable[[], None] = lambda: None,
) -> list[BenchError]:
    """Do something for every host at once; return the errors, in the hosts' order.

    results: where {host name: result} goes as it comes, so that it can be released whatever
    happens. interrupted: called by Ctrl-C, to have work end that nobody waits for any more.
    """
    if not hosts:
        return []

    def one(host: Host) -> None:
        results[host.name] = work(host)

    with ThreadPoolExecutor(min(PARALLEL, len(hosts))) as pool:
        futures: list[Future[None]] = [pool.submit(one, host) for host in hosts]
        try:
            wait(futures)
        except BaseException:
            interrupted()
            for future in futures:
                future.cancel()
            raise
    failures: list[BenchError] = []
    for future in futures:
        error = future.exception()
        if isinstance(error, BenchError):
            failures.append(error)
        elif error is not None:
            raise error
    return failures
