# SPDX-License-Identifier: Apache-2.0
"""The variables by which an inventory says how to reach a host, with Ansible's precedence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from bench.chain import Host
from bench.errors import BenchError

# Ansible's plugins take the last of several names that is set (ansible/config/manager.py).
HOST = ("ansible_host", "ansible_ssh_host")
PORT = ("ansible_port", "ansible_ssh_port")
USER = ("ansible_user", "ansible_ssh_user")
PASSWORD = ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password")
KEY_FILE = ("ansible_private_key_file", "ansible_ssh_private_key_file")
TIMEOUT = ("ansible_timeout", "ansible_ssh_timeout")
ARGS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")

BECOME_METHODS = ("sudo", "su")


def become_names(method: str, what: str) -> tuple[str, ...]:
    """Return the variables that say something about a method: its user, pass, exe or flags."""
    general = ("ansible_become_password", "ansible_become_pass")
    shared = general if what == "pass" else (f"ansible_become_{what}",)
    return (*shared, f"ansible_{method}_{what}")


_UNSUPPORTED = {
    "ansible_private_key": "ansible_private_key_file",
    "ansible_ssh_private_key": "ansible_ssh_private_key_file",
    "ansible_ssh_pkcs11_provider": "an SSH agent that has the card's key",
}
_CONNECTIONS = ("ssh", "ansible.builtin.ssh", "smart", "paramiko", "paramiko_ssh")

NAMES = frozenset(
    {
        *(*HOST, *PORT, *USER, *PASSWORD, *KEY_FILE, *TIMEOUT, *ARGS, *_UNSUPPORTED),
        *("ansible_connection", "ansible_python_interpreter"),
        *("ansible_become", "ansible_become_method"),
        *(
            name
            for method in BECOME_METHODS
            for what in ("user", "pass", "exe", "flags")
            for name in become_names(method, what)
        ),
    }
)
"""Every variable that takes part; the inventory's reader resolves them and leaves out the rest."""


def text(variables: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """Return the value of the last name that has one, as text."""
    for name in reversed(names):
        if variables.get(name) not in (None, ""):
            return str(variables[name])
    return None


def truth(value: Any) -> bool:
    """Say whether Ansible takes a value for yes."""
    return str(value).strip().lower() in ("true", "yes", "y", "t", "1", "1.0", "on")


def words(host: Host, name: str) -> list[str]:
    """Split a variable into words as a shell would, and Ansible does. Raises BenchError."""
    try:
        return [word for word in shlex.split(text(host.ssh_vars, (name,)) or "") if word.strip()]
    except ValueError as error:
        raise BenchError(f"{name} is not a command line: {error}", host=host.name) from None


def require_ssh(host: Host) -> None:
    """Raise BenchError for an inventory that reaches a host in a way that hopbench does not go."""
    connection = text(host.ssh_vars, ("ansible_connection",)) or "ssh"
    if connection not in _CONNECTIONS:
        raise BenchError(
            f"ansible_connection is {connection[:40]!r}, and hopbench goes by SSH",
            host=host.name,
            remedy="leave it out",
        )
    for name, instead in _UNSUPPORTED.items():
        if text(host.ssh_vars, (name,)):
            raise BenchError(f"{name} is not supported", host=host.name, remedy=f"use {instead}")


# What a shell gives a meaning to. OpenSSH 9.6 refuses most of them in names of hosts and users.
_SPECIAL = r"\s\x00-\x1f\x7f'\"`$;&<>|(){}!*?#~"
_ADDRESS = re.compile(rf"[^{_SPECIAL}\\/-][^{_SPECIAL}\\/]*\Z")
_USER = re.compile(rf"[^{_SPECIAL}-][^{_SPECIAL}]*\Z")
_FILE = re.compile(r"[^\x00-\x1f\x7f\"]+\Z")


def address(host: Host) -> str:
    """Return the name or address by which SSH knows a host; never an option, never a shell's."""
    return _fits(host, text(host.ssh_vars, HOST) or host.name, _ADDRESS, "host name")


def user(host: Host) -> str | None:
    """Return the login the inventory names."""
    name = text(host.ssh_vars, USER)
    return name and _fits(host, name, _USER, "user name")


def key_file(host: Host) -> str | None:
    """Return the key the inventory names."""
    name = text(host.ssh_vars, KEY_FILE)
    return name and _fits(host, name, _FILE, "file name")


def _fits(host: Host, value: str, pattern: re.Pattern[str], what: str) -> str:
    if pattern.match(value):
        return value
    raise BenchError(f"SSH: {value[:60]!r} is not a {what}", host=host.name)


def port(host: Host) -> int | None:
    """Return the port the inventory names."""
    value = text(host.ssh_vars, PORT)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= 65535:
        raise BenchError(f"SSH port {value[:20]!r} is not from 1 to 65535", host=host.name)
    return int(value)


def limit_s(host: Host) -> int | None:
    """Return for how many seconds a host may be silent while it is connected to."""
    value = text(host.ssh_vars, TIMEOUT)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,3}", value) or not 1 <= int(value) <= 600:
        raise BenchError(f"ansible_ssh_timeout {value[:20]!r} is not from 1 to 600", host=host.name)
    return int(value)
