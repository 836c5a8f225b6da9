# SPDX-License-Identifier: Apache-2.0
"""Mode `nft`: DNAT and masquerade in the kernel's stack, by a table that this process owns."""

from __future__ import annotations

import json
from typing import Any

from . import holder, net
from .address import endpoint
from .config import Place, Target
from .errors import HopError

TABLE = "hopbench"
# nft's words for IPv4 and IPv6.
FAMILIES = {4: "ip", 6: "ip6"}
_NFPROTO = {4: 2, 6: 10}

# `flags owner`: the kernel deletes the table when this process's netlink socket closes, also on
# SIGKILL. The NAT chains see a flow's first packet only, so their counters count flows and cost
# the others nothing. `ip` stands for `ip6` where the chain is IPv6.
_RULES = """
add table {ip} {table} {{ flags owner; }}
add counter {ip} {table} flows
add counter {ip} {table} masqueraded
add chain {ip} {table} prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
add chain {ip} {table} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
add rule {ip} {table} prerouting iifname "{nic}" {ip} daddr {address} \
meta l4proto {{ tcp, udp }} th dport {port} counter name flows dnat to {next}
add rule {ip} {table} postrouting oifname "{out}" ct status dnat {ip} daddr {next_ip} \
meta l4proto {{ tcp, udp }} th dport {next_port} counter name masqueraded masquerade
"""


class NftForwarder:
    """Rules in a table of our own; nothing of another table is read or touched."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._ip = FAMILIES[place.family]
        self._nft: Any = None
        self._active = False

    def prepare(self) -> None:
        """Open libnftables; its netlink socket will own the table."""
        if self._nft is not None:
            return
        try:
            import nftables
        except ImportError as error:
            raise HopError("python3-nftables is not installed", "run bench deploy") from error
        try:
            self._nft = nftables.Nftables()
        except OSError as error:
            raise HopError("nftables is not installed", "run bench deploy") from error
        self._nft.set_json_output(True)

    def start(self, target: Target) -> dict[str, object]:
        """Add the table. Raises HopError when one of its name exists, or the kernel refuses."""
        for nic in self._place.nics:
            net.require_stack_forwarding(nic, self._place.family)
        net.require_free_port(self._place.data_ip, self._place.forward_port)
        out, _ = net.route(target.next_ip, self._place.nics)
        self.prepare()
        if self._active:
            self.stop()
        for version, ip in FAMILIES.items():
            if self._command(f"list table {ip} {TABLE}")[0] == 0:
                raise _taken(version, ip)
        code, _, error = self._command(
            _RULES.format(
                ip=self._ip,
                table=TABLE,
                nic=self._place.data_nic,
                address=self._place.data_ip,
                port=self._place.forward_port,
                out=out,
                next=endpoint(target.next_ip, target.next_port),
                next_ip=target.next_ip,
                next_port=target.next_port,
            )
        )
        if code:
            raise HopError(f"nft refuses the rules: {error.strip().splitlines()[0]}")
        self._active = True
        return {"table": TABLE}

    def counters(self) -> dict[str, int]:
        """Return flows translated since `start`."""
        if not self._active:
            return {"flows_opened": 0, "flows_masqueraded": 0}
        code, output, error = self._command(f"list counters table {self._ip} {TABLE}")
        if code:
            raise HopError(f"the nft table is gone: {error.strip()}")
        found = {
            item["counter"]["name"]: int(item["counter"]["packets"])
            for item in json.loads(output)["nftables"]
            if "counter" in item
        }
        return {"flows_opened": found["flows"], "flows_masqueraded": found["masqueraded"]}

    def tidy(self) -> None:
        """Nothing piles up here."""

    def stop(self) -> None:
        """Delete the table."""
        if self._active:
            self._active = False
            self._command(f"delete table {self._ip} {TABLE}")

    def _command(self, text: str) -> tuple[int, str, str]:
        # Not every output is JSON: of a table with an owner, libnftables 1.0.6 adds a comment.
        code, output, error = self._nft.cmd(text)
        return code, output, error


def _taken(version: int, ip: str) -> HopError:
    cause = f"the nft table {ip} {TABLE} is already there"
    if owner := holder.of_table(_NFPROTO[version], TABLE):
        return HopError(f"{cause}, owned by {owner}", "another run may be active: wait, or end it")
    return HopError(
        f"{cause}, and nobody owns it", f"if nobody needs it, nft delete table {ip} {TABLE}"
    )
