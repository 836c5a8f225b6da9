# SPDX-License-Identifier: Apache-2.0
"""An inventory as Ansible reads it: hosts by group, with their variables, and nothing executed."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench import paths

# Plain files only: an inventory is data, and looking at one must not run it. The other settings are
# deploy's: an ansible.cfg in the working directory may name plugins, or be damaged.
os.environ["ANSIBLE_INVENTORY_ENABLED"] = "ini,yaml"
os.environ["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] = "1"
os.environ["ANSIBLE_CONFIG"] = str(paths.data_dir("ansible") / "ansible.cfg")

# Far above any chain; what is beyond keeps a reader busy for ever or, nested, crashes libyaml.
MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 100_000
MAX_RANGE = 10_000

_MODULES = (
    *("ansible.errors", "ansible.inventory.manager", "ansible.parsing.dataloader"),
    *("ansible.parsing.vault", "ansible.utils.display", "ansible.vars.manager", "jinja2.sandbox"),
)
_RANGE = re.compile(r"\[([0-9]+):([0-9]+)(?::[0-9]+)?\]")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unreadable(Exception):
    """Why a file is no inventory: a phrase that follows the file's name."""


def read(path: Path, groups: Sequence[str]) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Return {group: [(host, its variables)]}, hosts in the inventory's order.

    Groups the inventory lacks are left out. Raises Unreadable, also for group_vars/ and host_vars/
    beside the file, and OSError for the file itself.
    """
    if excess := _text_excess(path.read_bytes().decode(errors="replace")):
        raise Unreadable(excess)
    try:
        return _ask_ansible(path, groups)
    except Unreadable:
        raise
    except Exception as error:  # Ansible's own family is large, and it lets others pass
        raise Unreadable(f"is not an inventory: {first_line(error)}") from None


def prepare() -> None:
    """Import what reading needs, for children to have it at once."""
    for module in _MODULES:
        importlib.import_module(module)


# What Ansible says of a line that it cannot read, and repeats: there may be a password in it.
_REPEATED = (
    (re.compile(r"(definition) '(\S+) .*'(: [^']*)$"), r"\1 of \2\3"),
    (re.compile(r"(Expected key=value host variable assignment), got: .*"), r"\1"),
    (re.compile(r"(Expected (?:key=value|group name), got: \S+) .*"), r"\1"),
    (re.compile(r"(expected dictionary) and got: .*"), r"\1"),
)


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or two when the first ends in a colon."""
    text = str(getattr(error, "message", "") or error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    for pattern, instead in _REPEATED:
        words = pattern.sub(instead, words)
    return words[:300] or type(error).__name__


def _ask_ansible(
    path: Path, groups: Sequence[str]
) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.utils.display import Display
    from ansible.vars.manager import VariableManager

    class Loader(DataLoader):  # type: ignore[misc]
        """Reads YAML within limits, and says in which file a mistake is."""

        def load(self, data: str, file_name: str | None = None, *args: Any, **kwargs: Any) -> Any:
            beside = file_name is not None and Path(file_name) != path.resolve()
            where = f"{file_name}: " if beside else ""
            if excess := _text_excess(data) or _yaml_excess(data):
                raise AnsibleError(f"{where}{excess}")
            try:
                return super().load(data, file_name, *args, **kwargs)
            except AnsibleError as error:
                raise AnsibleError(f"{where}{first_line(error)}") from None

    complaints: list[Exception] = []

    def complain(_display: object, msg: object, exception: Exception, **_: object) -> None:
        complaints.append(exception)

    # What Ansible warns about comes back as an exception, or as a mistake that the caller finds.
    Display.warning = Display.deprecated = lambda *_args, **_kwargs: None
    Display.error_as_warning = complain
    loader = Loader()
    _unlock(loader)
    try:
        inventory = InventoryManager(loader=loader, sources=[str(path.resolve())])
    except AnsibleError as error:
        # Each format was tried, INI first: the name says whose complaint is the right one.
        last = path.suffix in (".yml", ".yaml", ".json")
        reason = first_line(complaints[-1 if last else 0] if complaints else error)
        raise Unreadable(f"is not an inventory: {reason}") from None
    variables = VariableManager(loader=loader, inventory=inventory)
    return {
        group: [
            (host.name, variables.get_vars(host=host, include_hostvars=False))
            for host in inventory.groups[group].get_hosts()
        ]
        for group in groups
        if group in inventory.groups
    }


def _unlock(loader: Any) -> None:
    """Have vaulted files and values decrypted by the password file that deploy would use."""
    from ansible.parsing.vault import VaultSecretsContext, get_file_vault_secret

    secrets = []
    if file := os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE"):
        secret = get_file_vault_secret(file, loader=loader)
        secret.load()
        secrets.append(("default", secret))
    loader.set_vault_secrets(secrets)
    if VaultSecretsContext.current(optional=True) is None:
        VaultSecretsContext.initialize(VaultSecretsContext(secrets))
    VaultSecretsContext.current().secrets = secrets


def _text_excess(text: str) -> str:
    """Return what a text has too much of, or an empty string: characters, or hosts in a range."""
    if len(text) > MAX_CHARACTERS:
        return f"has more than {MAX_CHARACTERS} characters"
    for first, last in _RANGE.findall(text):
        if len(last) > 9 or int(last) - int(first[-9:]) >= MAX_RANGE:
            return f"has a range of more than {MAX_RANGE} hosts"
    return ""


def _yaml_excess(text: str) -> str:
    """Return what YAML has too much of, or an empty string: nesting, or values behind its aliases.

    It goes by libyaml's events, which come without recursion. Mistakes are left for Ansible.
    """
    values = [0]  # of each collection that is open, outermost first
    anchors: list[str | None] = [None]
    sizes: dict[str | None, int] = {}
    try:
        for event in yaml.parse(text.encode(errors="replace"), Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor in anchors:
                    return "has an alias within what it names"
                values[-1] += sizes.get(event.anchor, 1)
            elif isinstance(event, yaml.CollectionStartEvent):
                values.append(1)
                anchors.append(event.anchor)
            elif isinstance(event, yaml.CollectionEndEvent):
                size, anchor = values.pop(), anchors.pop()
                values[-1] += size
                sizes[anchor] = size
            elif isinstance(event, yaml.ScalarEvent):
                values[-1] += 1
            if len(values) > MAX_DEPTH:
                return f"is nested more than {MAX_DEPTH} levels deep"
            if sum(values) > MAX_VALUES:
                return f"has more than {MAX_VALUES} values"
    except yaml.YAMLError:
        pass
    return ""
