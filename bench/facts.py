# SPDX-License-Identifier: Apache-2.0
"""Facts about the controller and the hosts, for the record of a run and for the doctor."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import __version__, fact_kinds, strict_json
from bench.chain import Host
from bench.errors import BenchError
from bench.fleet import Fleet
from bench.paths import hop_package

# What runs on a host that has nothing of ours yet: each module after those that it imports, the
# last of them with a main.
_MODULES = ("ethtool", "facts_read", "facts_nic", "facts_cpu", "facts")
_REACH = ("facts_read", "reach")
_FIREWALL = ("facts_read", "firewall_rules", "firewall")
# They find each other as they do in the package.
_LOADER = """\
import sys, types
package = types.ModuleType("hop")
package.__path__ = []
sys.modules["hop"] = package
for name, source in {sources!r}.items():
    module = types.ModuleType("hop." + name)
    module.__package__ = "hop"
    sys.modules["hop." + name] = module
    setattr(package, name, module)
    exec(compile(source, name + ".py", "exec"), module.__dict__)
sys.exit(module.main({arguments!r}))
"""
_PACKAGES = ("ansible-core", "ansible-runner", "fabric", "paramiko", "pandas", "numpy")
_FACTS_LIMIT_S = 40.0
# A program that nobody reads would be a connection that breaks.
_NO_PYTHON = "hopbench: no python"
_PYTHON = (
    "if [ -x /usr/bin/python3 ]; then exec /usr/bin/python3 -B -; "
    f"else cat >/dev/null; echo '{_NO_PYTHON}'; fi"
)


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


def program(nics: Sequence[str]) -> str:
    """Return the program that prints a host's facts as JSON, for python3 to read from stdin.

    nics: the data NIC and the egress NIC, empty for none. Their names are in the program, and
    never pass through a shell.
    """
    return _program(_MODULES, nics)


def _program(modules: Sequence[str], arguments: Sequence[str]) -> str:
    sources = {name: (hop_package() / f"{name}.py").read_text() for name in modules}
    return _LOADER.format(sources=sources, arguments=list(arguments))


def of_hosts(fleet: Fleet, hosts: Sequence[Host]) -> dict[str, dict[str, Any]]:
    """Return each host's facts; runs nothing that changes a host. Raises HostsError."""

    def ask(host: Host) -> dict[str, Any]:
        said = _answer(fleet, host, program([host.data_nic, host.egress_nic]))
        return fact_kinds.of_host(said)

    return fleet.for_each(ask, hosts)


def of_firewall(fleet: Fleet, host: Host, packets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the host's rules do to packets, as bench/hop/firewall.py describes both.

    Changes nothing. Raises BenchError.
    """
    said = _answer(fleet, host, _program(_FIREWALL, [json.dumps(packets)]))
    return fact_kinds.of_firewall(said)


def of_ways(fleet: Fleet, host: Host, addresses: Sequence[str]) -> dict[str, Any]:
    """Return by which ways the host reaches addresses, as bench/hop/reach.py describes it.

    Sends each neighbour one empty datagram; changes nothing. Raises BenchError.
    """
    said = _answer(fleet, host, _program(_REACH, [json.dumps(addresses)]))
    return fact_kinds.of_ways(addresses)(said)


def _answer(fleet: Fleet, host: Host, text: str) -> dict[str, Any]:
    output = fleet.run_on(host, _PYTHON, text, _FACTS_LIMIT_S)
    if output.strip() == _NO_PYTHON:
        raise BenchError("there is no /usr/bin/python3", host=host.name, remedy="run bench deploy")
    try:
        found = strict_json.loads(output)
    except ValueError:
        raise BenchError("its facts are not JSON", host=host.name) from None
    if not isinstance(found, dict):
        raise BenchError("its facts are none", host=host.name)
    return found
