# SPDX-License-Identifier: Apache-2.0
"""Ansible inventory → Chain: Ansible reads it, this module checks it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import current, lookups, paths, ssh_variables
from bench.ansible_inventory import Unreadable, prepare, read
from bench.chain import Chain, Host, Role
from bench.confined import Exceeded, confined
from bench.errors import BenchError
from bench.hop.config import ATTACH, MOST_NAT_FLOWS, NAT_POLICIES
from bench.host_variables import HostVariables
from bench.host_variables import InventoryError as InventoryError

_GROUPS: tuple[tuple[str, Role], ...] = (
    ("client", "client"),
    ("hops", "hop"),
    ("server", "server"),
)
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}\Z")
_SUFFIXES = ("", ".ini", ".yml", ".yaml")


def find(source: str | None) -> Path:
    """Return the inventory's file: a path, a chain that is up, or a name in inventories/.

    source: None stands for the inventory deployed last. Raises BenchError when there is none.
    """
    if source is None:
        path = current.recall()
        if path is None:
            raise BenchError(
                "no inventory", remedy="give one with -i, or make a lab with bench lab up"
            )
        return path
    if _holds(Path(source).is_file):
        return Path(source)
    if _holds(Path(source).is_dir):
        raise BenchError(f"inventory {source} is a folder", remedy="name a file")
    if "/" not in source and source not in ("", ".", ".."):
        lab = paths.runtime_dir() / source / "inventory.ini"
        made = paths.chain_dirs()
        folders = (*made, Path.cwd() / "inventories", paths.data_dir("inventories"))
        named = [folder / f"{source}{suffix}" for folder in folders for suffix in _SUFFIXES]
        for path in (lab, *named):
            if _holds(path.is_file):
                return path
    raise BenchError(
        f"no inventory {source!r}",
        remedy="neither a file, nor in inventories/, nor a lab that is up",
    )


def _holds(question: Callable[[], bool]) -> bool:
    """Ask about a path; a name that is too long, or a folder nobody may enter, means no."""
    try:
        return question()
    except OSError:
        return False


def load(source: str | None) -> Chain:
    """Read and check an inventory. Raises BenchError for the first mistake found.

    Its templates, and Ansible's own parsers, have bounded time and memory.
    """
    path = find(source)
    prepare()
    try:
        return confined(lambda: _load(path))
    except Exceeded as error:
        raise InventoryError(path, f"takes {error} to read") from None


def _load(path: Path) -> Chain:
    try:
        groups = read(path, [group for group, _ in _GROUPS])
    except OSError as error:
        raise BenchError(f"inventory {path} cannot be read: {error.strerror}") from None
    except Unreadable as error:
        raise InventoryError(path, str(error)) from None
    hosts: dict[str, list[Host]] = {}
    for group, role in _GROUPS:
        if group not in groups:
            raise InventoryError(path, f"has no group [{group}]")
        hosts[group] = [_host(path, name, role, vars_) for name, vars_ in groups[group]]
    for group in ("client", "server"):
        if len(hosts[group]) != 1:
            raise InventoryError(
                path, f"group [{group}] has {len(hosts[group])} hosts, it needs exactly one"
            )
    if not hosts["hops"]:
        raise InventoryError(path, "group [hops] is empty")
    chain = Chain(path, hosts["client"][0], tuple(hosts["hops"]), hosts["server"][0])
    _check_distinct(chain)
    _check_one_family(chain)
    return chain


def _host(path: Path, name: str, role: Role, vars_: Mapping[str, Any]) -> Host:
    if not _HOST_NAME.match(name):
        raise InventoryError(path, f"host name {name[:40]!r} has characters that are not allowed")
    name = "".join(name)
    take = HostVariables(path, name, vars_)
    data_ip, data_nic = take.address("data_ip"), take.nic("data_nic")
    # All are checked on every host: a mistake should not wait for the host to change role.
    ports = {
        "client": 0,
        "hop": take.port("forward_port", 7000),
        "server": take.port("server_port", 8000),
    }
    host = Host(
        name=name,
        role=role,
        data_ip=data_ip,
        data_nic=data_nic,
        port=ports[role],
        xdp_attach=take.word("xdp_attach", ATTACH),
        egress_nic=take.other_nic("egress_nic", data_nic),
        nat_ports=take.ports("nat_ports"),
        nat_flows=take.number("nat_flows", 1, MOST_NAT_FLOWS, "a number of flows"),
        nat_policy=take.word("nat_policy", NAT_POLICIES),
        ssh_vars={
            "".join(key): take.resolved(key)
            for key in vars_
            if key.startswith("ansible_") and key in ssh_variables.NAMES
        },
    )
    # After what has a better word for it.
    if found := lookups.culprit(vars_):
        variable, what = found
        cause = f"leads to {what}, which may run commands when Ansible fills it in"
        raise InventoryError(path, cause, host=name, variable=variable)
    return host


def _check_distinct(chain: Chain) -> None:
    names: dict[str, str] = {}
    addresses: dict[str, str] = {}
    for host in chain.hosts:
        if host.name in names:
            raise InventoryError(
                chain.inventory,
                f"is in two groups, as {names[host.name]} and as {host.role}",
                host=host.name,
            )
        names[host.name] = host.role
        if host.data_ip in addresses:
            raise InventoryError(
                chain.inventory,
                f"{host.data_ip} is also the address of {addresses[host.data_ip]}",
                host=host.name,
                variable="data_ip",
            )
        addresses[host.data_ip] = host.name


def _check_one_family(chain: Chain) -> None:
    """A hop hands packets on in the family they came in; who differs from most is named."""
    count = Counter(host.family for host in chain.hosts)
    usual = max(count, key=lambda family: (count[family], family == chain.client.family))
    for host in chain.hosts:
        if host.family != usual:
            raise InventoryError(
                chain.inventory,
                f"{host.data_ip} is IPv{host.family} while other hosts have IPv{usual}: "
                "a chain is of one family",
                host=host.name,
                variable="data_ip",
            )
