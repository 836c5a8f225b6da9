# SPDX-License-Identifier: Apache-2.0
"""Logging in by SSH with what OpenSSH would try: the agent's keys, key files, the password."""

from __future__ import annotations

import base64
import binascii
import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentKey, AgentSSH
from paramiko.auth_strategy import AuthStrategy

from bench.ssh_settings import Settings

_MAGIC = b"openssh-key-v1\0"  # OpenSSH's PROTOCOL.key


class Refused(Exception):
    """Nobody is let in. what: what was tried; hint: what would help, or nothing."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


class _Agent(AgentSSH):  # type: ignore[misc]
    """The SSH agent behind one socket; it may take a while to ask its user."""

    def __init__(self, path: str, limit_s: float) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(limit_s)
        try:
            self._socket.connect(path)
            self._connect(self._socket)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Leave the agent."""
        self._socket.close()


class Login(AuthStrategy):  # type: ignore[misc]
    """Tries one thing after the other, in OpenSSH's order, until the host is content."""

    def __init__(self, want: Settings) -> None:
        super().__init__(ssh_config=None)
        self._want = want
        self._tried: list[str] = []
        self._locked: list[Path] = []

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Log in. Raises Refused, or what the transport raises when it is lost."""
        missing: Sequence[str] = ()
        with contextlib.ExitStack() as stack:
            for what, key in self._keys(stack):
                self._tried.append(what)
                try:
                    missing = transport.auth_publickey(self._want.user, key)
                except paramiko.BadAuthenticationType as error:
                    missing = error.allowed_types
                    break
                except (paramiko.SSHException, ValueError):
                    self._require(transport)
                    continue
                if not missing:
                    return
                break
        if self._want.password is not None:
            self._tried.append("the password")
            try:
                if not transport.auth_password(self._want.user, self._want.password):
                    return
            except paramiko.BadAuthenticationType as error:
                missing = error.allowed_types
            except paramiko.SSHException:
                self._require(transport)
        raise Refused(self._what(), self._hint(missing))

    def _require(self, transport: paramiko.Transport) -> None:
        """After a refusal: raise Refused where the host has hung up, too."""
        if transport.is_active():
            return
        if len(self._tried) == 1:
            raise
        raise Refused(
            self._what(), "it hung up after so many: set IdentitiesOnly and name the one key"
        )

    def _what(self) -> str:
        """Return what was tried, in words."""
        counts = {what: self._tried.count(what) for what in self._tried}
        words = [what if n == 1 else f"{n} keys of the agent" for what, n in counts.items()]
        return " and ".join(words) or "no key"

    def _hint(self, missing: Sequence[str]) -> str:
        if self._locked:
            return f"{self._locked[0]} has a passphrase: give it to an agent with ssh-add"
        if not self._tried:
            return "name a key with ansible_ssh_private_key_file, or start an SSH agent"
        if missing and "publickey" not in missing and self._want.password is None:
            return "the host wants a password: set ansible_password"
        return "check ansible_user and the key in the inventory"

    def _keys(self, stack: contextlib.ExitStack) -> Iterator[tuple[str, Any]]:
        """Yield (words, key): the agent's that are named by files, its others, those in files."""
        want = self._want
        files = [file for file in want.key_files if file.is_file()]
        named = {blob for file in files if (blob := _public(file)) is not None}
        held: list[AgentKey] = []
        if want.agent:
            with contextlib.suppress(OSError, paramiko.SSHException):
                agent = _Agent(want.agent, want.limit_s)
                stack.callback(agent.close)
                held = list(agent.get_keys())
        first = [key for key in held if key.asbytes() in named]
        rest = [] if want.only_key_files else [key for key in held if key.asbytes() not in named]
        for key in (*first, *rest):
            yield "a key of the agent", key
        tried = {key.asbytes() for key in first}
        for file in files:
            if _public(file) in tried or file.suffix == ".pub":
                continue
            try:
                key = paramiko.PKey.from_path(file)
            except paramiko.PasswordRequiredException:
                self._locked.append(file)
                continue
            except (OSError, ValueError, TypeError, paramiko.SSHException) as error:
                if "encrypted" in str(error) or "password" in str(error).lower():
                    self._locked.append(file)
                continue
            for certificate in (*want.certificates, Path(f"{file}-cert.pub")):
                with contextlib.suppress(OSError, ValueError, paramiko.SSHException):
                    if certificate.is_file():
                        key.load_certificate(str(certificate))
                        break
            yield f"the key {file}", key


def _public(file: Path) -> bytes | None:
    """Return the public half of a key file, also of one whose passphrase nobody knows."""
    for path in (file, Path(f"{file}.pub")):
        with contextlib.suppress(OSError, ValueError, binascii.Error, IndexError, struct.error):
            text = path.read_text(encoding="ascii")
            if not text.startswith("-----"):
                return base64.b64decode(text.split()[1], validate=True)
            body = "".join(line for line in text.splitlines() if not line.startswith("-----"))
            data = base64.b64decode(body, validate=True)
            if data.startswith(_MAGIC):
                return _after_header(data[len(_MAGIC) :])
    return None


def _after_header(data: bytes) -> bytes:
    """Skip cipher, derivation, its options and the number of keys; return the public key."""
    for _ in range(3):
        (length,) = struct.unpack_from(">I", data)
        data = data[4 + length :]
    (length,) = struct.unpack_from(">I", data, 4)
    return data[8 : 8 + length]
