# SPDX-License-Identifier: Apache-2.0
"""The variables of one host of an inventory, each checked as it is taken."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.ansible_inventory import first_line
from bench.errors import BenchError
from bench.hop.address import is_host
from bench.hop.config import FEWEST_NAT_PORTS, LOWEST_NAT_PORT

_NIC_NAME = re.compile(r"[^\s/:]{1,15}\Z")
_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})\Z")
_MAX_VALUE = 4096


class InventoryError(BenchError):
    """A mistake in an inventory, with the file, the host and the variable it is in."""

    def __init__(
        self, file: Path, cause: str, *, host: str | None = None, variable: str | None = None
    ) -> None:
        self.file, self.variable = file, variable
        self._said = cause, host
        where = f"{file}: "
        if host:
            where += f"host {host}: "
        if variable:
            where += f"{variable} "
        super().__init__(where + cause)

    def __reduce__(self) -> tuple[Any, ...]:
        # For pickle, which knows of no keywords.
        cause, host = self._said
        return _again, (self.file, cause, host, self.variable)


def _again(file: Path, cause: str, host: str | None, variable: str | None) -> InventoryError:
    return InventoryError(file, cause, host=host, variable=variable)


class HostVariables:
    """What an inventory says of a host. Every method raises InventoryError for a wrong value.

    A variable that is absent, or empty as text, has its default.
    """

    def __init__(self, path: Path, host: str, vars_: Mapping[str, Any]) -> None:
        self._path, self._host, self._vars = path, host, vars_

    def resolved(self, variable: str) -> Any:
        """Return a value with references to others filled in; nothing in it can run anything."""
        from ansible.parsing.vault import EncryptedString
        from jinja2 import StrictUndefined
        from jinja2.sandbox import SandboxedEnvironment

        sandbox = SandboxedEnvironment(undefined=StrictUndefined)
        value = self._vars.get(variable)
        if isinstance(value, EncryptedString):
            try:
                value = str(value)
            except (
                Exception
            ) as error:  # of a vault that cannot be opened; what is in it is not known
                raise self._error(variable, f"cannot be resolved: {first_line(error)}") from None
        try:
            for _ in range(5):
                if not isinstance(value, str) or "{" not in value:
                    break
                rendered = sandbox.from_string(str(value)).render(dict(self._vars))
                if rendered == value:
                    break
                value = rendered
        except Exception as error:  # a template may raise anything
            # A template's mistake is told by its words, which may be those of a password.
            reason = "" if "pass" in variable else f": {first_line(error)}"
            raise self._error(variable, f"cannot be resolved{reason}") from None
        if isinstance(value, str) and len(value) > _MAX_VALUE:
            raise self._error(variable, f"is longer than {_MAX_VALUE} characters")
        # Ansible's strings carry tags; the rest of hopbench wants plain ones.
        return "".join(value) if isinstance(value, str) else value

    def _error(self, variable: str, cause: str) -> InventoryError:
        return InventoryError(self._path, cause, host=self._host, variable=variable)

    def _wrong(self, variable: str, value: Any, wanted: str) -> InventoryError:
        return self._error(variable, f"is {str(value)[:60]!r}, not {wanted}")

    def _get(self, variable: str, default: Any = None) -> Any:
        value = self.resolved(variable)
        if value is None or value == "":
            if default is None:
                raise self._error(variable, "is missing")
            return default
        return value

    def address(self, variable: str) -> str:
        """Take the address of a host, IPv4 or IPv6, in its usual spelling."""
        value = self._get(variable)
        try:
            address = ipaddress.ip_address(value if isinstance(value, str) else "")
        except ValueError:
            raise self._wrong(variable, value, "an IP address") from None
        if address.is_loopback or not is_host(address):
            raise self._wrong(
                variable,
                value,
                "the address of a host"
                if address.version == 4
                else "the global or unique local address of a host",
            )
        return str(address)

    def nic(self, variable: str, default: str | None = None) -> str:
        """Take the name of a NIC."""
        value = self._get(variable, default)
        if value == default:
            return value or ""
        if (
            not isinstance(value, str)
            or not _NIC_NAME.match(value)
            or value in (".", "..")
            or not value.isprintable()
            or len(value.encode()) > 15
        ):
            raise self._wrong(variable, value, "an interface name")
        return value

    def other_nic(self, variable: str, than: str) -> str:
        """Take the name of a NIC that is not `than`; empty when there is none."""
        value = self.nic(variable, "")
        if value == than:
            raise self._wrong(variable, value, "another NIC than data_nic")
        return value

    def number(self, variable: str, low: int, high: int, what: str) -> int | None:
        """Take an integer between low and high, also as text; None when there is none."""
        value = self._get(variable, "")
        if value == "":
            return None
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._wrong(variable, value, f"{what} from {low} to {high}")
        return value

    def port(self, variable: str, default: int) -> int:
        """Take a TCP port."""
        found = self.number(variable, 1, 65535, "a port")
        return default if found is None else found

    def ports(self, variable: str) -> tuple[int, int] | None:
        """Take a range of ports a NAT may use, as `LOW-HIGH`; None when there is none."""
        value = self._get(variable, "")
        if value == "":
            return None
        match = _RANGE.match(value) if isinstance(value, str) else None
        low, high = (int(match[1]), int(match[2])) if match else (0, 0)
        if not LOWEST_NAT_PORT <= low <= high <= 65535:
            wanted = f"a range of ports from {LOWEST_NAT_PORT} to 65535, as 20000-29999"
            raise self._wrong(variable, value, wanted)
        if high - low + 1 < FEWEST_NAT_PORTS:
            raise self._wrong(variable, value, f"a range of at least {FEWEST_NAT_PORTS} ports")
        return low, high

    def word(self, variable: str, allowed: Sequence[str]) -> str:
        """Take one of a few words; the first is the default."""
        value = self._get(variable, allowed[0])
        if not isinstance(value, str) or value not in allowed:
            raise self._wrong(variable, value, f"{', '.join(allowed[:-1])} or {allowed[-1]}")
        return value
