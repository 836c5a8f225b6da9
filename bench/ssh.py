# SPDX-License-Identifier: Apache-2.0
"""One SSH connection to one host, with the settings that Ansible would use for it."""

from __future__ import annotations

import getpass
import io
import logging
import re
import shlex
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from fabric import Connection

from bench.chain import Host
from bench.errors import BenchError

CONNECT_LIMIT_S = 15
# Its warnings go to a log nobody reads; what matters comes back as exceptions.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Settings:
    """How to reach a host. sudo: commands run through it; sudo_password may be None."""

    address: str
    port: int
    user: str
    key_files: tuple[str, ...]
    password: str | None
    proxy_command: str | None
    known_hosts: tuple[str, ...]
    sudo: bool
    sudo_password: str | None


class _OwnSession(paramiko.ProxyCommand):  # type: ignore[misc]
    """A ProxyCommand out of reach of the terminal's Ctrl-C, which is for the controller alone."""

    def __init__(self, command: str) -> None:
        self.cmd = shlex.split(command)
        self.subprocess = subprocess
        self.process = subprocess.Popen(
            self.cmd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self.timeout: float | None = None

    def close(self) -> None:
        """End the command and take its exit status, so that no zombie stays."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def settings(host: Host) -> Settings:
    """Join the inventory's SSH variables with the ssh_config file and options they name.

    Precedence is Ansible's: a variable of its own, then `-o` options, then the file.
    Raises BenchError for a file that cannot be read, and for options that make no sense.
    """
    variables = host.ssh_vars
    address = _text(variables, "ansible_host", "ansible_ssh_host") or host.name
    config = _ssh_config(host)
    try:
        found = config.lookup(address)
        known = shlex.split(found.get("userknownhostsfile", "~/.ssh/known_hosts"))
    except Exception as error:  # paramiko's own, and ValueError for a quotation without end
        raise BenchError(f"SSH configuration is wrong: {error}", host=host.name) from None
    port = _text(variables, "ansible_port", "ansible_ssh_port") or found.get("port", "22")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise BenchError(f"SSH port {port[:20]!r} is not from 1 to 65535", host=host.name)
    user = _text(variables, "ansible_user", "ansible_ssh_user") or found.get("user")
    key = _text(variables, "ansible_ssh_private_key_file", "ansible_private_key_file")
    keys = [key] if key else found.get("identityfile", [])
    if "userknownhostsfile" not in found:
        known.append("/etc/ssh/ssh_known_hosts")
    proxy = found.get("proxycommand")
    return Settings(
        address=found.get("hostname", address),
        port=int(port),
        user=user or getpass.getuser(),
        key_files=tuple(str(_path(each)) for each in keys),
        password=_text(variables, "ansible_password", "ansible_ssh_pass"),
        proxy_command=None if proxy in (None, "none") else proxy,
        known_hosts=tuple(str(_path(each)) for each in known),
        sudo=_truth(variables.get("ansible_become")),
        sudo_password=_text(variables, "ansible_become_password", "ansible_become_pass"),
    )


def _text(variables: Any, *names: str) -> str | None:
    for name in names:
        if variables.get(name) not in (None, ""):
            return str(variables[name])
    return None


def _path(text: str) -> Path:
    """Return a path with ~ expanded, or as it is when there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _truth(value: Any) -> bool:
    return str(value).lower() in ("true", "yes", "1", "on")


# ssh(1): what its short options are called in ssh_config(5).
_FLAGS = {"-o": "", "-i": "IdentityFile=", "-J": "ProxyJump=", "-l": "User=", "-p": "Port="}


def _ssh_config(host: Host) -> paramiko.SSHConfig:
    """Return the options and the file in ansible_ssh_*_args as one ssh_config."""
    words: list[str] = []
    for name in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"):
        try:
            words += shlex.split(_text(host.ssh_vars, name) or "")
        except ValueError as error:
            raise BenchError(f"{name} is not a command line: {error}", host=host.name) from None
    options: list[str] = []
    file: Path | None = Path("~/.ssh/config").expanduser()
    given = False
    following = iter(words)
    for word in following:
        flag = word[:2]
        if flag != "-F" and flag not in _FLAGS:
            continue
        value = word[2:] or next(following, "")
        if flag == "-F":
            given = True
            file = None if value == "none" else _path(value)
        else:
            options.append(_FLAGS[flag] + value)
    text = "".join(f"  {option}\n" for option in options)
    if file is not None and (given or file.exists()):
        try:
            text = f"Host *\n{text}\n{file.read_text(errors='replace')}"
        except OSError as error:
            raise BenchError(
                f"SSH configuration {file} cannot be read: {error.strerror}", host=host.name
            ) from None
    else:
        text = f"Host *\n{text}"
    try:
        return paramiko.SSHConfig.from_file(io.StringIO(text))
    except Exception as error:
        raise BenchError(f"SSH configuration is wrong: {error}", host=host.name) from None


def connect(host: Host) -> Connection:
    """Open a verified connection. Raises BenchError that says why and what to do."""
    want = settings(host)
    kwargs: dict[str, Any] = {"banner_timeout": CONNECT_LIMIT_S, "auth_timeout": CONNECT_LIMIT_S}
    if want.key_files:
        kwargs["key_filename"] = list(want.key_files)
        kwargs["look_for_keys"] = False
    if want.password:
        kwargs["password"] = want.password
    proxy = None
    if want.proxy_command:
        try:
            proxy = _OwnSession(want.proxy_command)
        except (OSError, ValueError) as error:
            raise _explain(host, want, error, "") from None
        kwargs["sock"] = proxy
    connection = Connection(
        want.address,
        user=want.user,
        port=want.port,
        connect_timeout=CONNECT_LIMIT_S,
        connect_kwargs=kwargs,
    )
    client = connection.client
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    for file in want.known_hosts:
        if Path(file).is_file():
            client.load_host_keys(file)
    try:
        connection.open()
    except Exception as error:
        words = _proxy_words(proxy)
        if proxy is not None:
            proxy.close()
        connection.close()
        raise _explain(host, want, error, words) from None
    return connection


def _proxy_words(proxy: _OwnSession | None) -> str:
    """Return the last line a ProxyCommand that ended by itself wrote on stderr."""
    if proxy is None or proxy.process.stderr is None:
        return ""
    try:
        proxy.process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return ""
    lines = proxy.process.stderr.read(4096).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _explain(host: Host, want: Settings, error: Exception, proxy_words: str) -> BenchError:
    if isinstance(error, paramiko.BadHostKeyException):
        return BenchError(
            "SSH host key changed",
            host=host.name,
            remedy=f"if that is expected, renew it in {want.known_hosts[0]}",
        )
    if "not found in known_hosts" in str(error):
        return BenchError(
            "SSH host key is not known",
            host=host.name,
            remedy=f"connect once by ssh, or add it to {want.known_hosts[0]}",
        )
    if isinstance(error, paramiko.AuthenticationException):
        return BenchError(
            f"SSH refuses user {want.user}",
            host=host.name,
            remedy="check ansible_user and the key in the inventory",
        )
    if isinstance(error, FileNotFoundError):
        return BenchError(f"SSH: no file {error.filename}", host=host.name)
    if isinstance(error, (TimeoutError, socket.timeout)):
        cause = f"SSH: no answer from {want.address} within {CONNECT_LIMIT_S} s"
    else:
        cause = f"SSH: {proxy_words or str(error) or type(error).__name__}"
    return BenchError(cause, host=host.name, remedy="is the host up? bench doctor tells more")
