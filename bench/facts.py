# SPDX-License-Identifier: Apache-2.0
"""Facts about the controller and the hosts, for the record of a run and for the doctor."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import __version__
from bench.chain import Host
from bench.errors import BenchError
from bench.fleet import Fleet
from bench.paths import hop_package

_PACKAGES = ("ansible-core", "ansible-runner", "fabric", "paramiko", "pandas", "numpy")
_FACTS_LIMIT_S = 40.0


def controller_versions() -> dict[str, str]:
    """Return hopbench's version and those of what it is built on."""
    versions = {"hopbench": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not found"
    return versions


def git_commit() -> str | None:
    """Return the commit of the checkout that hopbench runs from, `+` if it was changed, or None."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def of_hosts(fleet: Fleet, hosts: Sequence[Host]) -> dict[str, dict[str, Any]]:
    """Return each host's facts; runs nothing that changes a host. Raises HostsError."""
    source = (hop_package() / "facts.py").read_text()

    def ask(host: Host) -> dict[str, Any]:
        # The NICs' names go with the program on stdin, never through a shell.
        text = source.replace("sys.argv[1:]", json.dumps([host.data_nic, host.egress_nic]))
        output = fleet.run_on(host, "/usr/bin/python3 -B -", text, _FACTS_LIMIT_S)
        try:
            facts = json.loads(output)
        except ValueError:
            raise BenchError("its facts are not JSON", host=host.name) from None
        return dict(facts)

    return fleet.for_each(ask, hosts)
