# SPDX-License-Identifier: Apache-2.0
"""What Ansible's ssh is told, so that it verifies host keys and goes the ways that Fabric goes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bench import become, ssh_variables
from bench.chain import Chain, Host
from bench.errors import BenchError, HostsError
from bench.ssh_config import STRICT, arguments, ask, way

_PARALLEL = 16
# Each of Ansible's hosts is a login of its own at a jump host, which takes few at a time
# (MaxStartups of sshd_config).
_FORKS_THROUGH_A_JUMP = 8
# As in ansible.cfg, whose ssh_args these replace. One master a host, in this run's own folder.
_DEFAULTS = (
    *("-o", "ControlMaster=auto", "-o", "ControlPersist=60s"),
    *("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"),
)
_WORDS = "{{{{ hopbench_ssh[inventory_hostname].{what} }}}}"
# %C stands for where and who; ssh takes the first of two values of an option.
_MASTER = "-o ControlPath={{ ansible_control_path_dir }}/%C "


@dataclass(frozen=True)
class Told:
    """extra_vars: variables that override the inventory's. forks: most hosts at a time."""

    extra_vars: Mapping[str, Any]
    forks: int


def told(chain: Chain, forks: int) -> Told:
    """Return what to tell Ansible. forks: as many hosts at a time as may be.

    Raises HostsError naming every host with settings that cannot be used.
    """
    said: dict[str, dict[str, str]] = {}
    jumps = 0
    failures: list[BenchError] = []
    with ThreadPoolExecutor(_PARALLEL) as pool:
        futures = [(host, pool.submit(_words, host)) for host in chain.hosts]
        for host, future in futures:
            try:
                said[host.name], jump = future.result()
                jumps += bool(jump)
            except BenchError as error:
                failures.append(error)
    if failures:
        raise HostsError.of(failures)
    if jumps:
        forks = min(forks, _FORKS_THROUGH_A_JUMP)
    return Told(
        {
            "hopbench_ssh": said,
            "ansible_ssh_args": _MASTER + _WORDS.format(what="args"),
            "ansible_ssh_common_args": _WORDS.format(what="common"),
            "ansible_ssh_extra_args": _WORDS.format(what="extra"),
        },
        forks,
    )


def _words(host: Host) -> tuple[dict[str, str], str]:
    """Return a host's arguments for ssh, and the first host on the way there."""
    given = arguments(host)
    address = ssh_variables.address(host)
    ssh_variables.limit_s(host)
    become.of(host)
    command, jump = way(host, given, ask(host, given.all, address))
    # ssh takes the first value of an option, so nothing that follows switches this off.
    args = [*STRICT, *(["-o", f"ProxyCommand={command}"] if jump else [])]
    # By its whole path: Ansible runs elsewhere.
    keys = [value for value in given.variables if value.startswith("IdentityFile=")]
    args += [word for key in keys for word in ("-o", key)]
    words = {
        "args": [*args, *given.ssh, *_DEFAULTS],
        "common": given.common,
        "extra": given.extra,
    }
    return {what: _literal(shlex.join(each)) for what, each in words.items()}, jump


def _literal(text: str) -> str:
    """Return a template that comes to the text."""
    for opening in ("{{", "{%", "{#"):
        if opening in text:
            return "".join("{{ '" + each + "' }}" if each == "{" else each for each in text)
    return text
