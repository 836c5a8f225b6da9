# SPDX-License-Identifier: Apache-2.0
"""Hosts with Ansible's variables, and what they come to."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from typing import Any

import pytest

from bench import ssh_settings
from bench.chain import Host
from bench.errors import BenchError
from bench.ssh_settings import Settings

# ssh goes by the account, not by $HOME.
HOME = pwd.getpwuid(os.getuid()).pw_dir
ME = pwd.getpwuid(os.getuid()).pw_name


def host(name: str = "bravo", **variables: Any) -> Host:
    """Return a host with Ansible variables; `args` stands for ansible_ssh_common_args.

    Files of whoever runs the tests are left out, unless there is an -F of their own.
    """
    args = variables.pop("args", "")
    variables["ssh_common_args"] = args if "-F" in args else f"-F none {args}"
    ssh_vars = {f"ansible_{key}": value for key, value in variables.items()}
    return Host(name, "hop", "198.18.0.2", "eth0", 7000, ssh_vars=ssh_vars)


def settings(**variables: Any) -> Settings:
    """Return what comes of variables."""
    return ssh_settings.resolve(host(**variables))


def line(some: Host) -> str:
    """Return the one line that settings end with."""
    with pytest.raises(BenchError) as caught:
        ssh_settings.resolve(some)
    text = caught.value.one_line()
    assert text.isprintable()
    assert text.startswith(f"{some.name}: ")
    return text


def ended(command: str) -> bool:
    """Say whether no such command is left: a process that was killed is there for a moment yet."""
    until = time.monotonic() + 5
    while subprocess.run(["pgrep", "-f", command], capture_output=True, check=False).stdout:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
