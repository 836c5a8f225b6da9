# SPDX-License-Identifier: Apache-2.0
"""Hosts with settings of their own in an ssh_config, and what connecting to them comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.chain import Host
from bench.errors import BenchError
from bench.fleet import Fleet
from tests.lab.sshd import Site

WHO = "import os, sys; print(os.getuid(), os.readlink('/proc/self/ns/net'))"


def host(servers: Site, name: str = "hop1", **variables: Any) -> Host:
    """Return a host whose settings are in the ssh_config of the servers."""
    ssh_vars = {f"ansible_{key}": value for key, value in variables.items()}
    ssh_vars.setdefault("ansible_ssh_common_args", f"-F {servers.folder}/ssh_config")
    return Host(name, "hop", "198.18.0.2", "eth0", 7000, ssh_vars=ssh_vars)


def netns(servers: Site, name: str) -> str:
    """Return what identifies a host's network namespace."""
    inode = (Path("/run/netns") / servers.namespace(name)).stat().st_ino
    return f"net:[{inode}]"


def who(some: Host) -> list[str]:
    """Connect and return [uid, network namespace] of what runs there."""
    with Fleet([some]) as fleet:
        return fleet.run_on(some, "/usr/bin/python3 -B -", WHO, 20).split()


def refused(*some: Host) -> str:
    """Return the line that connecting ends with."""
    with pytest.raises(BenchError) as caught, Fleet(some):
        pass
    return caught.value.one_line()


def inline(servers: Site, *names: str) -> str:
    """Return sections for hosts that are reached without a network."""
    return "".join(f"Host {name}\n  ProxyCommand {servers.inline(name)}\n" for name in names)
