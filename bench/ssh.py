# SPDX-License-Identifier: Apache-2.0
"""One verified SSH connection to one host, with the settings that Ansible would use for it."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import paramiko
from fabric import Config, Connection
from paramiko.common import cMSG_GLOBAL_REQUEST

from bench import become, host_keys, ssh_auth
from bench.chain import Host
from bench.errors import BenchError
from bench.ssh_line import Cancelled, Line, Silent, open_line
from bench.ssh_settings import Settings, resolve

SILENCE_S = 12.0
"""For how long a host that is waited for may say nothing at all, not even that it is there."""
QUIET_S = 4.0
"""After how long without a word a host that is waited for is asked whether it is there."""

# A jump host's sshd turns away most of more than ten that are not logged in yet (MaxStartups).
_THROUGH_ONE_JUMP = 8
_START_LIMIT_S = 45.0  # for sudo and a login's shell, on a host that is slow but there
_LONG_S = 120.0  # above what the silence of a host may come to
_ENDING_S = 1.0
_TRICKLE = 4  # times the limit, for a host that is never silent and never done
# paramiko's warnings go to a log nobody reads; what matters comes back as exceptions.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


class Link:
    """A connection that is open. Channels of it may be used by several threads."""

    def __init__(self, host: Host, want: Settings, connection: Connection, line: Line) -> None:
        self.host = host
        self._want, self._connection, self._line = want, connection, line
        self._lock = threading.Lock()
        self._waiting = 0

    @contextlib.contextmanager
    def waiting(self, quiet_s: float = QUIET_S) -> Iterator[None]:
        """While something is waited for, find out whether the host is still there.

        Nothing is sent for quiet_s after the last traffic, and nothing at all outside of this. A
        host that has then been silent for the rest of SILENCE_S is given up: the connection ends.
        """
        with self._lock:
            self._waiting += 1
            # Whoever waits already keeps count of the silence; to speak does not end it.
            if self._waiting == 1:
                self._watch(quiet_s)
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._watch(None)

    def _watch(self, quiet_s: float | None) -> None:
        packetizer = self._connection.transport.packetizer
        if quiet_s is None:
            self._line.expect(None)
            packetizer.set_keepalive(0, None)
        else:
            self._line.expect(quiet_s + SILENCE_S - QUIET_S)
            packetizer.set_keepalive(quiet_s, self._ping)

    def _ping(self) -> None:
        """Send what OpenSSH's ServerAliveInterval does: a request that has to be refused."""
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._connection.transport._send_user_message(message)

    def start(self, command: str, *, as_root: bool = True) -> tuple[paramiko.Channel, bytes]:
        """Start a program and return its channel, and what it has said on stdout already.

        command: constant text for `sh`. as_root: a login that may not become root is refused;
        otherwise the program runs as whoever that is. Raises BenchError.
        """
        start = become.Start(self.host, self._want.become, command, as_root=as_root)
        try:
            with self.waiting():
                channel = self._connection.transport.open_session(timeout=_LONG_S)
                try:
                    channel.exec_command(start.command)
                    return channel, start.wait(channel, _START_LIMIT_S)
                except BaseException:
                    channel.close()
                    raise
        except BenchError as error:
            raise self.lost() or error from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self.failed(error) from None

    @property
    def alive(self) -> bool:
        """Whether the connection is up, as far as is known without asking."""
        return bool(self._connection.transport.is_active())

    def failed(self, error: Exception) -> BenchError:
        """Say why something on the connection failed."""
        return self.lost() or BenchError(
            f"SSH: {str(error) or 'connection lost'}", host=self.host.name
        )

    def lost(self) -> BenchError | None:
        """Say, once something failed, whether and why the connection is gone; None if it is not."""
        transport = self._connection.transport
        if transport is not None:
            # It ends what waits for it before it is marked as ended itself.
            transport.join(_ENDING_S)
            if transport.is_active():
                return None
        cause = "SSH: connection lost"
        if isinstance(self._line.failed, Silent):
            cause = f"SSH: no sign of life for {SILENCE_S:.0f} s"
        elif self._line.last_words:
            cause = f"SSH: connection lost: {self._line.last_words}"
        return BenchError(cause, host=self.host.name, remedy="is the host up?")

    def close(self) -> None:
        """Close the connection and end a ProxyCommand. Raises nothing."""
        _close(self._connection, self._line)


class Opener:
    """Opens connections, several at once, until it is cancelled."""

    def __init__(self) -> None:
        self._cancel = threading.Event()
        self._lock = threading.Lock()
        self._gates: dict[str, threading.Semaphore] = {}

    def cancel(self) -> None:
        """Have every connection given up that is being opened or used."""
        self._cancel.set()

    def connect(self, host: Host) -> Link:
        """Open a verified connection. Raises BenchError that says why and what to do."""
        want = resolve(host)
        with self._gate(want.jump):
            return _connect(host, want, self._cancel)

    def _gate(self, jump: str) -> contextlib.AbstractContextManager[Any]:
        if not jump:
            return contextlib.nullcontext()
        with self._lock:
            return self._gates.setdefault(jump, threading.Semaphore(_THROUGH_ONE_JUMP))


class _Untrusted(paramiko.SSHException):  # type: ignore[misc]
    """The host's key is not one that is known."""

    def __init__(self, fault: str, key: bytes) -> None:
        super().__init__(fault)
        self.fault, self.key = fault, key


class _Verify(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Decides about a host's key, before anything secret is said."""

    def __init__(self, want: Settings, known: host_keys.Known) -> None:
        self._want, self._known = want, known

    def missing_host_key(self, _client: object, _name: str, key: paramiko.PKey) -> None:
        """Raise _Untrusted unless the key is known. paramiko knows none, so it always asks."""
        fault = self._known.fault(key.get_name(), key.asbytes())
        if fault is None and (file := self._want.revoked_keys):
            fault = "revoked" if host_keys.is_revoked(file, *_parts(key)) else None
        if fault is not None:
            raise _Untrusted(fault, key.asbytes())


def _parts(key: paramiko.PKey) -> tuple[str, bytes]:
    return key.get_name(), key.asbytes()


def _connect(host: Host, want: Settings, cancel: threading.Event) -> Link:
    try:
        line = open_line(want, cancel)
    except OSError as error:
        raise _explain(host, want, error, "") from None
    connection = _connection(want, line)
    try:
        line.expect(want.limit_s)
        connection.open()
        line.expect(None)
    except (OSError, EOFError, ValueError, paramiko.SSHException, ssh_auth.Refused) as error:
        _close(connection, line)
        raise _explain(host, want, line.failed or error, line.last_words) from None
    except BaseException:
        _close(connection, line)
        raise
    return Link(host, want, connection, line)


def _connection(want: Settings, line: Line) -> Connection:
    known = host_keys.known(want.known_hosts, want.key_names)

    def transport(sock: Line, **more: Any) -> paramiko.Transport:
        made = paramiko.Transport(sock, **more)
        options = made.get_security_options()
        options.key_types = known.algorithms(options.key_types)
        # The line watches for silence; these bound a host that says a little now and then.
        made.handshake_timeout = made.banner_timeout = made.auth_timeout = _TRICKLE * want.limit_s
        return made

    connection = Connection(
        want.address,
        user=want.user,
        port=want.port,
        # Nothing from files of Fabric's, nor a second opinion on ssh_config.
        config=Config(ssh_config=paramiko.SSHConfig(), lazy=True),
        connect_kwargs={
            "sock": line,
            "transport_factory": transport,
            "auth_strategy": ssh_auth.Login(want),
            "timeout": _TRICKLE * want.limit_s,
        },
    )
    connection.client.set_missing_host_key_policy(_Verify(want, known))
    return connection


def _close(connection: Connection, line: Line) -> None:
    with contextlib.suppress(Exception):
        connection.client.close()
    line.close()


def _explain(host: Host, want: Settings, error: Exception, words: str) -> BenchError:
    def because(cause: str, remedy: str = "is the host up? bench doctor tells more") -> BenchError:
        return BenchError(cause, host=host.name, remedy=remedy)

    where = f"{want.address} port {want.port}"
    if isinstance(error, _Untrusted):
        return _untrusted(host, want, error)
    if isinstance(error, ssh_auth.Refused):
        return because(f"SSH refuses user {want.user} with {error.what}", error.hint)
    if isinstance(error, Cancelled):
        return because("SSH: given up")
    if isinstance(error, (Silent, TimeoutError)):
        return because(f"SSH: no answer from {where} within {want.limit_s:.0f} s")
    if isinstance(error, socket.gaierror):
        return because(
            f"SSH: host name {want.address} not known", "set ansible_host to its address"
        )
    if words:
        return because(f"SSH: {words}")
    if isinstance(error, OSError) and error.strerror:
        return because(f"SSH: {error.strerror} ({where})")
    text = str(error).strip()
    if not text or text.startswith("Error reading SSH protocol banner"):
        text = f"no SSH server answers ({where})"
    return because(f"SSH: {text}")


def _untrusted(host: Host, want: Settings, error: _Untrusted) -> BenchError:
    file = want.known_hosts[0] if want.known_hosts else "a file that UserKnownHostsFile names"
    mark = host_keys.fingerprint(error.key)
    cause, remedy = {
        "revoked": ("SSH host key is revoked", f"it is {mark}; who has revoked it knows why"),
        "changed": (
            f"SSH host key changed: it is {mark} now",
            f"if that is expected, renew it in {file}",
        ),
        "authority": (
            "SSH host key is not known, only an authority that signs such keys, "
            "and hopbench reads no certificates",
            f"compare {mark} with the host's own key, and add that to {file}",
        ),
    }.get(
        error.fault,
        (
            "SSH host key is not known",
            f"compare {mark} with the host's own, then connect once by ssh or add it to {file}",
        ),
    )
    return BenchError(cause, host=host.name, remedy=remedy)
