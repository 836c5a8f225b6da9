# SPDX-License-Identifier: Apache-2.0
"""Say in a phrase why a task of Ansible's failed, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Kind:
    """A failure that is recognised by its message: what to call it, and what to do about it."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str


_KINDS = tuple(
    _Kind(re.compile(pattern, re.IGNORECASE), cause, remedy)
    for pattern, cause, remedy in (
        (
            r"REMOTE HOST IDENTIFICATION HAS CHANGED",
            "SSH host key changed",
            "if the host was installed anew, remove its old key with ssh-keygen -R",
        ),
        (
            r"Host key verification failed",
            "SSH host key not known",
            "connect once with ssh and check the key",
        ),
        (
            r"REVOKED HOST KEY|host key .*revoked",
            "SSH host key is revoked",
            "ask whoever revoked it",
        ),
        (
            r"Incorrect sudo password|sudo: .*incorrect password|Sorry, try again",
            "sudo refuses the password",
            "check ansible_become_password",
        ),
        (
            r"Incorrect su password|su: Authentication failure",
            "su refuses the password",
            "check ansible_become_password",
        ),
        (
            r"must have a tty",
            "sudo wants a terminal",
            "take requiretty out of sudoers for this login",
        ),
        (
            r"waiting for privilege escalation prompt",
            "sudo asks for something other than its password",
            "check how the login may become root",
        ),
        (
            r"Missing (sudo|su) password|a password is required"
            r"|sudo: .*(try again|terminal is required)",
            "sudo wants a password",
            "allow NOPASSWD for the login or set ansible_become_password",
        ),
        (
            r"is not in the sudoers file|not allowed to (execute|run sudo)",
            "sudo refused",
            "allow the login to use sudo",
        ),
        (r"sudo: (command )?not found", "sudo is not installed", "install it or log in as root"),
        (
            r"Permission denied \(|Invalid/incorrect (username/)?password",
            "SSH login refused",
            "check ansible_user, its key or ansible_password",
        ),
        # Before what SSH says: an archive can refuse a connection, too.
        (
            r"Failed to (update apt cache|fetch)|Unable to fetch",
            "package archive out of reach",
            "install the packages by hand, on the lab's machine with make setup",
        ),
        (
            r"timed out|timeout expired|No route to host|Connection refused|Network is unreachable",
            "no SSH connection",
            "check that the host is up and ansible_host is right",
        ),
        (
            r"Could not resolve hostname",
            "host name not known",
            "set ansible_host to its address",
        ),
        (
            r"data_nic \S+ does not exist",
            "",
            "set data_nic to the NIC that has data_ip",
        ),
        (
            r"egress_nic \S+ does not exist",
            "",
            "set egress_nic to the NIC towards the next hop, or leave it out",
        ),
        (r"No space left on device", "", "make room on the host"),
    )
)

# What Ansible calls a failure when the program that failed said more.
_EMPTY_MESSAGES = ("", "non-zero return code", "MODULE FAILURE")


def message(result: Mapping[str, Any]) -> str:
    """Return what a failed task had to say: its message, or the last line of its output."""
    text = str(result.get("msg", "")).removeprefix("Task failed: ").strip()
    if text.split("\n", 1)[0].rstrip(".:") not in _EMPTY_MESSAGES:
        return text
    for stream in ("stderr", "module_stderr", "stdout", "module_stdout"):
        lines = [line.strip() for line in str(result.get(stream, "")).splitlines() if line.strip()]
        if lines:
            return lines[-1]
    return text or "no message"


def diagnose(result: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return (cause, remedy) of a failed task; the cause is its own message if none is known."""
    said = "\n".join(str(result.get(key, "")) for key in ("msg", "stderr", "module_stderr"))
    text = message(result)
    for kind in _KINDS:
        if kind.pattern.search(said):
            return kind.cause or text, kind.remedy
    return text, None
