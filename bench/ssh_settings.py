# SPDX-License-Identifier: Apache-2.0
"""How a host is reached: what ssh says of it, with every token replaced, and what Ansible adds."""

from __future__ import annotations

import os
import pwd
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import become, ssh_variables
from bench.chain import Host
from bench.errors import BenchError
from bench.ssh_config import CONNECT_LIMIT_S, Said, absolute, arguments, ask, one, way


@dataclass(frozen=True)
class Settings:
    """How to reach a host.

    key_names: under which known_hosts has its key, the first that is found counts. agent: socket of
    an SSH agent. proxy_command: for `sh -c`, its tokens replaced. jump: the first host on the way,
    empty for none. limit_s: how long it may be silent while connecting. family: AF_UNSPEC for any.
    """

    address: str
    port: int
    user: str
    key_names: tuple[str, ...]
    key_files: tuple[Path, ...]
    certificates: tuple[Path, ...]
    only_key_files: bool
    agent: str | None
    password: str | None = field(repr=False)
    proxy_command: str | None
    jump: str
    known_hosts: tuple[Path, ...]
    revoked_keys: Path | None
    limit_s: float
    family: int
    become: become.Become


def resolve(host: Host) -> Settings:
    """Ask ssh how it would reach a host. Raises BenchError for what it, or hopbench, refuses.

    Precedence is Ansible's: ansible_ssh_args, the variables of their own, ansible_ssh_common_args,
    ansible_ssh_extra_args, then the files that ssh reads. Runs what a `Match exec` of them says.
    """
    given = arguments(host)
    said = ask(host, given.all, ssh_variables.address(host))
    tokens = _tokens(said)
    alias = one(said, "hostkeyalias")
    address, port, user = one(said, "hostname"), int(one(said, "port")), one(said, "user")
    own_limit_s = ssh_variables.limit_s(host) or _number(one(said, "connecttimeout"))
    command, jump = way(host, given, said)
    return Settings(
        address=address,
        port=port,
        user=user,
        key_names=(alias,) if alias else _key_names(address, port),
        key_files=_files(said, "identityfile", tokens),
        certificates=_files(said, "certificatefile", tokens),
        only_key_files=one(said, "identitiesonly") == "yes",
        agent=_agent(one(said, "identityagent"), tokens),
        password=ssh_variables.text(host.ssh_vars, ssh_variables.PASSWORD),
        proxy_command=command and _expand(host, command, tokens),
        jump=jump,
        known_hosts=tuple(
            path
            for name in ("userknownhostsfile", "globalknownhostsfile")
            for path in _listed(one(said, name), tokens)
        ),
        revoked_keys=next(iter(_files(said, "revokedhostkeys", tokens)), None),
        limit_s=float(own_limit_s or CONNECT_LIMIT_S),
        family={"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(
            one(said, "addressfamily"), socket.AF_UNSPEC
        ),
        become=become.of(host),
    )


# --- tokens ----------------------------------------------------------------------------------

# ssh_config(5), TOKENS.
_TOKEN = re.compile(r"%(.?)|\$\{([^}]*)\}")
_SAFE = re.compile(r"[\w.@:%+,=/-]+\Z")


def _tokens(said: Said) -> dict[str, str]:
    me = pwd.getpwuid(os.getuid())
    alias, address = one(said, "hostkeyalias"), one(said, "hostname")
    return {
        "%": "%",
        "d": me.pw_dir,
        "h": address,
        "i": str(os.getuid()),
        "k": alias or address,
        "L": socket.gethostname().partition(".")[0],
        "l": socket.gethostname(),
        "n": one(said, "host") or address,
        "p": one(said, "port"),
        "r": one(said, "user"),
        "u": me.pw_name,
    }


def _expand(host: Host, command: str, tokens: Mapping[str, str]) -> str:
    """Replace the tokens of a ProxyCommand; no value may mean anything to the shell."""

    def value(match: re.Match[str]) -> str:
        if match[2] is not None:
            return match[0]  # the shell's own
        found = tokens.get(match[1]) if match[1] in set("%hnpr") else None
        if found is None:
            raise BenchError(f"SSH: ProxyCommand has an unknown {match[0]}", host=host.name)
        if not _SAFE.match(found):
            raise BenchError(f"SSH: {found[:60]!r} cannot go into a ProxyCommand", host=host.name)
        return found

    return _TOKEN.sub(value, command)


def _path(name: str, tokens: Mapping[str, str]) -> Path:
    """Return a path with its tokens and variables replaced."""

    def value(match: re.Match[str]) -> str:
        if match[2] is not None:
            return os.environ.get(match[2], match[0])
        return tokens.get(match[1], match[0])

    return absolute(_TOKEN.sub(value, name))


def _files(said: Said, option: str, tokens: Mapping[str, str]) -> tuple[Path, ...]:
    values = said.get(option, ())
    return tuple(_path(value, tokens) for value in values if value not in ("", "none"))


def _listed(values: str, tokens: Mapping[str, str]) -> list[Path]:
    """Split the names of files, which ssh -G writes without quotation, at spaces between files."""
    words, found = values.split(" "), []
    while words:
        count = next(
            (n for n in range(len(words), 1, -1) if _path(" ".join(words[:n]), tokens).is_file()), 1
        )
        name = " ".join(words[:count])
        words = words[count:]
        if name not in ("", "none"):
            found.append(_path(name, tokens))
    return found


def _agent(value: str, tokens: Mapping[str, str]) -> str | None:
    """Return the socket that IdentityAgent names; without one it is SSH_AUTH_SOCK's."""
    if value in ("", "SSH_AUTH_SOCK"):
        return os.environ.get("SSH_AUTH_SOCK") or None
    if value == "none":
        return None
    if value.startswith("$") and not value.startswith("${"):
        return os.environ.get(value[1:]) or None
    return str(_path(value, tokens))


def _key_names(address: str, port: int) -> tuple[str, ...]:
    name = address.lower()
    # As ssh does: a key known without a port is good for each port of the host.
    return (name,) if port == 22 else (f"[{name}]:{port}", name)


def _number(value: str) -> int | None:
    return int(value) if value.isdecimal() and int(value) else None
