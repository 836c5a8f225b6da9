# SPDX-License-Identifier: Apache-2.0
"""Ansible inventory → Chain: Ansible reads it, this module checks it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import current, paths
from bench.ansible_inventory import Unreadable, first_line, read
from bench.chain import Chain, Host, Role
from bench.errors import BenchError

_GROUPS: tuple[tuple[str, Role], ...] = (
    ("client", "client"),
    ("hops", "hop"),
    ("server", "server"),
)
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}\Z")
_NIC_NAME = re.compile(r"[^\s/:]{1,15}\Z")
_SUFFIXES = ("", ".ini", ".yml", ".yaml")
_MAX_VALUE = 4096
ATTACH = ("native", "generic")


class InventoryError(BenchError):
    """A mistake in an inventory, with the file, the host and the variable it is in."""

    def __init__(
        self, file: Path, cause: str, *, host: str | None = None, variable: str | None = None
    ) -> None:
        self.file, self.variable = file, variable
        where = f"{file}: "
        if host:
            where += f"host {host}: "
        if variable:
            where += f"{variable} "
        super().__init__(where + cause)


def find(source: str | None) -> Path:
    """Return the inventory's file: a path, a name in inventories/, or a lab that is up.

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
        folders = (Path.cwd() / "inventories", paths.data_dir("inventories"))
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
    """Read and check an inventory. Raises BenchError for the first mistake found."""
    path = find(source)
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
    return chain


def _resolved(path: Path, host: str, name: str, vars_: Mapping[str, Any]) -> Any:
    """Return a variable with references to others filled in; nothing in it can run anything."""
    from ansible.parsing.vault import EncryptedString
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    sandbox = SandboxedEnvironment(undefined=StrictUndefined)
    value = vars_.get(name)
    try:
        if isinstance(value, EncryptedString):
            value = str(value)
        for _ in range(5):
            if not isinstance(value, str) or "{" not in value:
                break
            rendered = sandbox.from_string(str(value)).render(dict(vars_))
            if rendered == value:
                break
            value = rendered
    except Exception as error:  # a template may raise anything
        raise InventoryError(
            path, f"cannot be resolved: {first_line(error)}", host=host, variable=name
        ) from None
    if isinstance(value, str) and len(value) > _MAX_VALUE:
        raise InventoryError(
            path, f"is longer than {_MAX_VALUE} characters", host=host, variable=name
        )
    # Ansible's strings carry tags; the rest of hopbench wants plain ones.
    return "".join(value) if isinstance(value, str) else value


def _host(path: Path, name: str, role: Role, vars_: Mapping[str, Any]) -> Host:
    if not _HOST_NAME.match(name):
        raise InventoryError(path, f"host name {name[:40]!r} has characters that are not allowed")
    name = "".join(name)

    def get(variable: str, default: Any = None) -> Any:
        value = _resolved(path, name, variable, vars_)
        if value is None or value == "":
            if default is None:
                raise InventoryError(path, "is missing", host=name, variable=variable)
            return default
        return value

    def wrong(variable: str, value: Any, wanted: str) -> InventoryError:
        return InventoryError(
            path, f"is {str(value)[:60]!r}, not {wanted}", host=name, variable=variable
        )

    data_ip = get("data_ip")
    try:
        address = ipaddress.IPv4Address(data_ip if isinstance(data_ip, str) else "")
    except ValueError:
        raise wrong("data_ip", data_ip, "an IPv4 address") from None
    if address.is_multicast or address.is_unspecified or int(address) == 0xFFFFFFFF:
        raise wrong("data_ip", data_ip, "the address of a host")
    nic = get("data_nic")
    if (
        not isinstance(nic, str)
        or not _NIC_NAME.match(nic)
        or nic in (".", "..")
        or not nic.isprintable()
        or len(nic.encode()) > 15
    ):
        raise wrong("data_nic", nic, "an interface name")

    def port(variable: str, default: int) -> int:
        value = get(variable, default)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
            raise wrong(variable, value, "a port from 1 to 65535")
        return value

    attach = get("xdp_attach", "native")
    if attach not in ATTACH:
        raise wrong("xdp_attach", attach, "native or generic")
    # All three are checked on every host: a mistake should not wait for the host to change role.
    ports = {"client": 0, "hop": port("forward_port", 7000), "server": port("server_port", 8000)}
    ssh_vars = {
        "".join(key): _resolved(path, name, key, vars_)
        for key in vars_
        if key.startswith("ansible_") and key in _SSH_VARIABLES
    }
    return Host(name, role, str(address), nic, ports[role], attach, ssh_vars)


_SSH_VARIABLES = {
    "ansible_connection",
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_password",
    "ansible_ssh_host",
    "ansible_ssh_port",
    "ansible_ssh_user",
    "ansible_ssh_pass",
    "ansible_ssh_private_key_file",
    "ansible_private_key_file",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_ssh_args",
    "ansible_become",
    "ansible_become_user",
    "ansible_become_method",
    "ansible_become_password",
    "ansible_become_pass",
    "ansible_python_interpreter",
}


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
