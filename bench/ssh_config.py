# SPDX-License-Identifier: Apache-2.0
"""What OpenSSH makes of Ansible's variables and of ssh_config files: `ssh -G`, and ProxyJump."""

from __future__ import annotations

import contextlib
import getopt
import os
import pwd
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import ssh_variables
from bench.chain import Host
from bench.errors import BenchError

CONNECT_LIMIT_S = 15
_ASK_LIMIT_S = 10
_MOST_JUMPS = 8
# ssh(1), 9.8. Those that would have it do something else than describe a connection are left out.
_OPTIONS = "1246AaB:b:Cc:D:E:e:F:gI:i:J:KkL:l:Mm:no:P:p:qR:S:sTtvw:XxYy"

# Whatever else a configuration says, also that failures are not worth a word (Vagrant's does): ssh
# takes the first value that it meets.
STRICT = (
    *("-o", "StrictHostKeyChecking=yes"),
    *("-o", "NoHostAuthenticationForLocalhost=no"),
    *("-o", "LogLevel=ERROR"),
)


@dataclass(frozen=True)
class Arguments:
    """What Ansible calls ssh with, by the variables it comes from; names of files are whole."""

    ssh: tuple[str, ...]
    variables: tuple[str, ...]
    common: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """In the order in which Ansible gives them: ssh keeps the first value of an option."""
        return (*self.ssh, *self.variables, *self.common, *self.extra)

    @property
    def file(self) -> tuple[str, ...]:
        """The last -F, which is the one that counts, or nothing."""
        found: tuple[str, ...] = ()
        for flag, value in zip(self.all, self.all[1:], strict=False):
            if flag == "-F":
                found = (flag, value)
        return found


def arguments(host: Host) -> Arguments:
    """Return ssh's arguments for a host. Raises BenchError for what makes no sense there."""
    ssh_variables.require_ssh(host)
    options = [_options(host, name) for name in ssh_variables.ARGS]
    variables: list[str] = []
    if port := ssh_variables.port(host):
        variables += ["-o", f"Port={port}"]
    if key := ssh_variables.key_file(host):
        variables += ["-o", f'IdentityFile="{absolute(key)}"']
    if user := ssh_variables.user(host):
        variables += ["-o", f'User="{user}"']
    return Arguments(options[0], tuple(variables), options[1], options[2])


def _options(host: Host, name: str) -> tuple[str, ...]:
    words = ssh_variables.words(host, name)
    try:
        found, rest = getopt.getopt(words, _OPTIONS)
    except getopt.GetoptError as error:
        raise BenchError(f"{name}: {error}", host=host.name) from None
    if rest:
        raise BenchError(f"{name}: {rest[0][:60]!r} is no option of ssh", host=host.name)
    flat: list[str] = []
    for flag, value in found:
        if flag in ("-F", "-i") and value != "none":
            value = str(absolute(value))
        flat += [flag, value] if value or f"{flag[1]}:" in _OPTIONS else [flag]
    return tuple(flat)


def absolute(name: str) -> Path:
    """Return a path as ssh understands it: ~ is the account's home, whatever $HOME says."""
    with contextlib.suppress(KeyError):
        if name == "~" or name.startswith("~/"):
            name = pwd.getpwuid(os.getuid()).pw_dir + name[1:]
        elif name.startswith("~"):
            user, slash, rest = name[1:].partition("/")
            name = pwd.getpwnam(user).pw_dir + slash + rest
    return Path(os.path.abspath(name))  # noqa: PTH100 - links stay what they are


Said = Mapping[str, Sequence[str]]


def one(said: Said, name: str) -> str:
    """Return the value of an option that has one, empty for none."""
    return said.get(name, ("",))[0]


def ask(host: Host, words: Sequence[str], address: str) -> Said:
    """Return what `ssh -G` prints: option → its values."""
    try:
        process = subprocess.Popen(
            ["ssh", "-G", *words, "--", address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            # What a Match of a configuration runs has to end with it.
            start_new_session=True,
        )
    except FileNotFoundError:
        raise BenchError("ssh is not installed", remedy="install openssh-client") from None
    except (OSError, ValueError) as error:
        raise BenchError(f"ssh cannot be asked: {error}", host=host.name) from None
    try:
        output, errors = process.communicate(timeout=_ASK_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise BenchError(
            f"ssh did not read its configuration within {_ASK_LIMIT_S} s",
            host=host.name,
            remedy=f"try ssh -G {address}",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    lines = [line for line in errors.splitlines() if line and not line.startswith("Pseudo-")]
    if process.returncode:
        reason = lines[0] if lines else f"ssh -G ends with status {process.returncode}"
        raise BenchError(f"SSH configuration is wrong: {reason}", host=host.name)
    said: dict[str, list[str]] = {}
    for line in output.splitlines():
        name, _, value = line.partition(" ")
        said.setdefault(name.lower(), []).append(value)
    if not {"hostname", "port", "user"} <= said.keys():
        raise BenchError("ssh -G does not say how to connect", host=host.name)
    return said


def way(host: Host, given: Arguments, said: Said) -> tuple[str, str]:
    """Return (ProxyCommand with its tokens, first jump host), empty for none."""
    if (jumps := one(said, "proxyjump")) not in ("", "none"):
        names = jumps.split(",")
        return _through(host, given.file, names, 0), names[0]
    command = one(said, "proxycommand")
    return ("" if command == "none" else command), ""


_JUMP = re.compile(
    r"(?:ssh://)?(?:(?P<user>.+)@)?(?:\[(?P<six>[^]]+)\]|(?P<name>[^:]+))(?::(?P<port>\d+))?/?\Z"
)


def _through(host: Host, file: Sequence[str], jumps: Sequence[str], depth: int) -> str:
    """Return the command that ssh makes of ProxyJump, with host keys verified and nobody asked."""
    match = _JUMP.match(jumps[-1])
    if match is None or depth + len(jumps) > _MOST_JUMPS:
        raise BenchError(f"SSH: no way through ProxyJump {jumps[-1][:60]!r}", host=host.name)
    name = match["six"] or match["name"]
    who = [*(["-l", match["user"]] if match["user"] else [])]
    who += ["-p", match["port"]] if match["port"] else []
    before = list(jumps[:-1])
    if not before:
        said = ask(host, [*file, *who], name)
        further = one(said, "proxyjump")
        before = further.split(",") if further not in ("", "none") else []
        depth += 1
    words = ["ssh", *STRICT, "-o", "BatchMode=yes", "-o", "ControlMaster=no"]
    words += ["-o", f"ConnectTimeout={CONNECT_LIMIT_S}", *file, *who]
    if before:
        nested = _through(host, file, before, depth)
        words += ["-o", f"ProxyCommand={nested.replace('%', '%%')}"]
    return shlex.join([*words, "-W"]) + " [%h]:%p " + shlex.join(["--", name])
