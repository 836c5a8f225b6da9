# SPDX-License-Identifier: Apache-2.0
"""Which of a run's packets this host's rules would eat. Runs before any deploy, changes nothing.

`main([PACKETS])` prints one JSON object. PACKETS is a list in JSON, as firewall_rules wants them;
the ruleset itself stays on the host.
"""

from __future__ import annotations

import json
import re
from typing import Any

from . import facts_read as read
from .firewall_rules import Packet, Rules

# A ruleset longer than this has sets of many thousands: it is read without their elements.
_LONGEST = 16 << 20


def _iptables(nft: bool) -> list[dict[str, Any]]:
    """Return chains that may drop something and that nft does not show.

    Those of the older iptables, and where there is no nft, of any.
    """
    found = []
    for family, name, tool in ((4, "ip", "iptables"), (6, "ip6", "ip6tables")):
        old = "filter" in (read.text(f"/proc/net/{name}_tables_names") or "").split()
        if not old and nft:
            continue
        tool = f"{tool}-legacy" if old else tool
        text = read.said([f"{tool}-save", "-t", "filter"])
        for chain in ("INPUT", "FORWARD", "OUTPUT") if old or text else ():
            policy = f":{chain} DROP" in (text or "")
            rules = re.search(r"^-A .* -j (DROP|REJECT)\b", text or "", re.MULTILINE)
            if text is None or policy or rules:
                why = "policy DROP" if policy else "rules that drop" if rules else "unreadable"
                place = {"chain": f"{tool} {chain}", "hook": chain.lower()}
                found.append({**place, "why": why, "sure": False, "family": family})
    return found


def collect(packets: list[Packet]) -> dict[str, Any]:
    """Return {"read", "keeper", "eaten": [{"packet", "chain", "hook", "why", "sure"}]}.

    read: whether there is a ruleset to be read. keeper: who wrote it, of those that are known.
    """
    text = read.said(["nft", "--json", "list", "ruleset"])
    if text is not None and len(text) > _LONGEST:
        text = read.said(["nft", "--json", "--terse", "list", "ruleset"])
    try:
        rules = Rules(json.loads(text or "{}").get("nftables", []))
    except (ValueError, AttributeError):
        return {"read": False, "keeper": "", "eaten": []}
    others, eaten = _iptables(text is not None), []
    for packet in packets:
        ways = list(rules.eaten(packet))
        ways += [
            {key: way[key] for key in ("chain", "hook", "why", "sure")}
            for way in others
            if way["hook"] in packet["hooks"] and way["family"] == packet["family"]
        ]
        eaten += [{"packet": packet["name"], **way} for way in ways]
    return {"read": text is not None, "keeper": _keeper(rules, others), "eaten": eaten}


def _keeper(rules: Rules, others: list[dict[str, Any]]) -> str:
    names = {key[2] for key in rules.chains}
    if any(table == "firewalld" for _, table, _ in rules.chains):
        return "firewalld"
    if any(name.startswith("ufw-") for name in names) or (
        others and "ENABLED=yes" in (read.text("/etc/ufw/ufw.conf") or "")
    ):
        return "ufw"
    if others or {"INPUT", "FORWARD", "OUTPUT"} & names:
        return "iptables"
    return "nft"


def main(argv: list[str]) -> int:
    """Print what the rules of this host do to the packets named."""
    print(json.dumps(collect(json.loads(argv[0]))))
    return 0
