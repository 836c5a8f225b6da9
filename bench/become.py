# SPDX-License-Identifier: Apache-2.0
"""Becoming root on a host as the playbooks do: whether, by what, and why it was refused."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
from dataclasses import dataclass, field
from typing import Protocol

from bench import ssh_variables
from bench.chain import Host
from bench.errors import BenchError

METHODS = ssh_variables.BECOME_METHODS
_PROGRAM = re.compile(r"[A-Za-z0-9_./+-]+\Z")
_TURN_S, _LONGEST_TURN_S = 0.02, 0.2
_MOST = 65536  # bytes of what is said before a program begins


@dataclass(frozen=True)
class Become:
    """How to become root.

    wanted: ansible_become; None where the inventory says nothing: whoever is not root becomes it.
    """

    wanted: bool | None
    method: str = "sudo"
    program: str = "sudo"
    flags: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)


def of(host: Host) -> Become:
    """Read what the inventory says. Raises BenchError for what hopbench cannot do."""
    variables = host.ssh_vars
    said = ssh_variables.text(variables, ("ansible_become",))
    wanted = None if said is None else ssh_variables.truth(said)
    if wanted is False:
        return Become(False)
    method = ssh_variables.text(variables, ("ansible_become_method",)) or "sudo"
    method = method.removeprefix("ansible.builtin.")
    if method not in METHODS:
        raise BenchError(
            f"ansible_become_method {method[:40]!r} is not supported",
            host=host.name,
            remedy=f"use {' or '.join(METHODS)}, or log in as root",
        )

    def about(what: str) -> str | None:
        return ssh_variables.text(variables, ssh_variables.become_names(method, what))

    user = about("user") or "root"
    if user != "root":
        raise BenchError(
            f"ansible_become_user is {user[:40]!r}, and a chain needs root",
            host=host.name,
            remedy="leave it out",
        )
    program = about("exe") or method
    if not _PROGRAM.match(program) or program.startswith("-"):
        raise BenchError(f"ansible_become_exe {program[:60]!r} is not a program", host=host.name)
    try:
        flags = shlex.split(about("flags") or "-H") if method == "sudo" else []
    except ValueError as error:
        raise BenchError(f"ansible_become_flags: {error}", host=host.name) from None
    return Become(wanted, method, program, tuple(_kept(flags)), about("pass"))


def _kept(flags: list[str]) -> list[str]:
    """Leave out how sudo is to ask: that is decided here, as Ansible decides it for itself."""
    kept = []
    for flag in flags:
        if flag in ("--non-interactive", "--stdin"):
            continue
        if re.fullmatch(r"-[A-Za-z]+", flag):
            flag = "-" + flag[1:].replace("n", "").replace("S", "")
            if flag == "-":
                continue
        kept.append(flag)
    return kept


class Channel(Protocol):
    """What is used of paramiko's Channel."""

    def settimeout(self, timeout: float) -> None:
        """Bound recv and sendall."""

    def recv(self, nbytes: int) -> bytes:
        """Return some of stdout; empty at its end. Raises TimeoutError."""

    def recv_stderr(self, nbytes: int) -> bytes:
        """Return some of stderr; empty at its end. Raises TimeoutError."""

    def recv_stderr_ready(self) -> bool:
        """Say whether there is something on stderr."""

    def sendall(self, s: bytes) -> None:
        """Write to stdin."""


class Start:
    """One start of a program as root: its command line, and the talk until it runs."""

    def __init__(self, host: Host, become: Become, command: str, *, as_root: bool = True) -> None:
        """command: constant text for `sh`; nothing of an inventory.

        as_root: where ansible_become is false, refuse a login that is not root.
        """
        token = secrets.token_hex(8)
        self._host, self._become = host, become
        self._begun = f"hopbench-{token}\n".encode()
        self._prompt = f"hopbench-password-{token}:"
        program = f"echo hopbench-{token}; {command}"
        as_is = f"exec sh -c {shlex.quote(program)}"
        if become.wanted is None:
            text = f"{_IS_ROOT} && {as_is}; {self._as_root(program)}"
        elif become.wanted:
            text = self._as_root(program)
        else:
            text = f"{_IS_ROOT} || {_NOT_ROOT}; {as_is}" if as_root else as_is
        # Whatever shell the login has, it only has to start this.
        self.command = f"exec sh -c {shlex.quote(text)}"

    def _as_root(self, program: str) -> str:
        become = self._become
        name = shlex.quote(become.program)
        if become.method == "su":
            return f"exec env LC_ALL=C {name} root -c {shlex.quote(program)}"
        ask = ["-n"] if become.password is None else ["-S", "-p", self._prompt]
        flags = shlex.join([*become.flags, *ask, "-u", "root", "--"])
        return f"exec {name} {flags} sh -c {shlex.quote(program)}"

    def wait(self, channel: Channel, limit_s: float) -> bytes:
        """Give the password if, and only if, it is asked for; return what comes after the start.

        limit_s: of waiting; what this process does meanwhile does not count. Raises BenchError when
        the program does not start, OSError when the connection is lost.
        """
        output, errors, answered = b"", b"", False
        waited_s, turn_s = 0.0, _TURN_S
        while True:
            channel.settimeout(turn_s)
            try:
                chunk = channel.recv(4096)
                output += chunk
            except TimeoutError:
                chunk = None
                waited_s += turn_s
                turn_s = min(2 * turn_s, _LONGEST_TURN_S)
            if self._begun in output:
                return output.partition(self._begun)[2]
            channel.settimeout(limit_s)
            while chunk != b"" and channel.recv_stderr_ready() and len(errors) < _MOST:
                more = channel.recv_stderr(4096)
                if not more:  # its end, which a pipe is always ready to say again
                    break
                errors += more
            if chunk == b"":
                with contextlib.suppress(TimeoutError):
                    while len(errors) < _MOST and (more := channel.recv_stderr(4096)):
                        errors += more
                raise self._refused(output, errors)
            asked = self._asked(errors)
            if asked > 1 or (asked and self._become.password is None):
                raise self._refused(output, errors)
            if asked and not answered:
                channel.sendall(f"{self._become.password}\n".encode())
                answered = True
            if waited_s > limit_s or len(output) + len(errors) >= _MOST:
                raise self._silent(output, errors, limit_s)

    def _asked(self, errors: bytes) -> int:
        """Return how often the password was asked for."""
        if self._become.method == "su":
            return errors.count(b"assword:")
        return errors.count(self._prompt.encode())

    def _lines(self, output: bytes, errors: bytes) -> list[str]:
        text = (output + b"\n" + errors).decode(errors="replace").replace(self._prompt, "")
        if self._become.password:
            # A login may say again whatever it is told.
            text = text.replace(self._become.password, "…")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _refused(self, output: bytes, errors: bytes) -> BenchError:
        lines, name = self._lines(output, errors), self._become.method
        for pattern, cause, remedy in _REFUSALS:
            said = next((line for line in lines if re.search(pattern, line)), None)
            if said is not None:
                return BenchError(
                    cause.format(name=name, said=said), host=self._host.name, remedy=remedy
                )
        if self._asked(errors):
            wrong = self._become.password is not None
            return BenchError(
                f"{name} refuses the password" if wrong else f"{name} wants a password",
                host=self._host.name,
                remedy="check ansible_become_password" if wrong else _NO_PASSWORD,
            )
        said = lines[-1] if lines else "the login ends at once"
        return BenchError(said, host=self._host.name, remedy="does ssh to it run a command?")

    def _silent(self, output: bytes, errors: bytes, limit_s: float) -> BenchError:
        lines = self._lines(output, errors)
        what = f", it says {lines[-1][:80]!r}" if lines else ""
        name = "the login" if self._become.wanted is False else self._become.method
        return BenchError(
            f"{name} starts nothing within {limit_s:.0f} s{what}",
            host=self._host.name,
            remedy="does ssh to it run a command without asking?",
        )


_IS_ROOT = '[ "$(id -u)" = 0 ]'
_NOT_ROOT = "{ echo hopbench: not root >&2; exit 1; }"
_NO_PASSWORD = "set ansible_become_password, or allow sudo without one"
_REFUSALS = (
    (
        r"^hopbench: not root",
        "commands do not run as root",
        "log in as root, or leave ansible_become=false out",
    ),
    (
        r"must have a tty",
        "{name} wants a terminal",
        "take requiretty out of sudoers for this login",
    ),
    (
        r"not in the sudoers file|may not run sudo|not allowed to (execute|run|become)",
        "sudo refused: {said}",
        "allow the login to use sudo",
    ),
    (
        r"[Aa]uthentication failure|incorrect password|Sorry, try again",
        "{name} refuses the password",
        "check ansible_become_password",
    ),
    (
        r"password is required|terminal is required|no askpass|must be run from a terminal",
        "{name} wants a password",
        _NO_PASSWORD,
    ),
    (
        r"(sudo|su|env).*(not found|No such file)",
        "{name} is not installed",
        "install it, or log in as root",
    ),
    (r"sudo: |su: ", "{name} refused: {said}", "check how the login may become root"),
)
