# SPDX-License-Identifier: Apache-2.0
"""Which of a chain's packets a host's firewall would eat; the firewall itself is left alone.

XDP runs before any rule: what it forwards is eaten by none. socat's connections come in and go out
by the host, nft's are forwarded, and client and server have theirs in every mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.chain import Chain, Host
from bench.finding import Finding

Packet = dict[str, Any]

_IN, _OUT = ["ingress", "prerouting", "input"], ["output", "postrouting"]
# Where a connection may come from: any port that is not privileged.
_ANY_PORT = [{"range": [1024, 65535]}]


def packets(chain: Chain, host: Host) -> list[Packet]:
    """Return the packets of a run that a host has to let pass, as bench/hop/firewall.py wants them.

    name: what is eaten, in words. Addresses and ports are lists: a hop's next may be the following
    hop or the server.
    """
    base = {"family": chain.family, "protocol": "tcp", "state": "new"}
    reply = {**base, "state": "established"}
    found: list[Packet] = []
    if host.role == "client":
        to = [chain.hops[0], chain.server] if chain.hops else [chain.server]
        ends: Packet = {"daddr": [each.data_ip for each in to]}
        ends["dport"] = [each.port for each in to]
        out = {"oif": [host.data_nic], "saddr": [host.data_ip], "sport": _ANY_PORT, **ends}
        found.append({**base, **out, "name": "the client's connections", "hooks": _OUT})
        back = {"iif": [host.data_nic], "saddr": ends["daddr"], "sport": ends["dport"]}
        back |= {"daddr": [host.data_ip], "dport": _ANY_PORT}
        found.append({**reply, **back, "name": "answers to the client", "hooks": _IN})
    else:
        arriving = {"iif": [host.data_nic], "daddr": [host.data_ip], "dport": [host.port]}
        arriving["sport"] = _ANY_PORT
        name = "connections to the server" if host.role == "server" else "what socat accepts"
        found.append({**base, **arriving, "name": name, "hooks": _IN})
        leaving = {"oif": [host.data_nic], "saddr": [host.data_ip], "sport": [host.port]}
        leaving["dport"] = _ANY_PORT
        found.append({**reply, **leaving, "name": f"answers to {name}", "hooks": _OUT})
    if host.role == "hop":
        found += _of_hop(chain, host, base, reply)
    if chain.family == 6:
        for nic in dict.fromkeys([host.data_nic, host.egress_nic or host.data_nic]):
            asked = {"iif": [nic], "type": "nd-neighbor-solicit", "protocol": "ipv6-icmp"}
            asked |= {"name": f"neighbour solicitations on {nic}", "hooks": ["input"]}
            found.append({**base, "state": "untracked", **asked})
    return found


def _of_hop(chain: Chain, hop: Host, base: Packet, reply: Packet) -> Iterator[Packet]:
    following = chain.hops[chain.hops.index(hop) + 1 :][:1]
    to = [*following, chain.server]
    egress = hop.egress_nic or hop.data_nic
    ends: Packet = {"daddr": [each.data_ip for each in to], "dport": [each.port for each in to]}
    back = {"saddr": ends["daddr"], "sport": ends["dport"], "dport": _ANY_PORT}
    ends["sport"] = _ANY_PORT
    yield {**base, **ends, "oif": [egress], "name": "what socat sends on", "hooks": _OUT}
    yield {**reply, **back, "iif": [egress], "name": "answers to socat", "hooks": _IN}
    # Its destination is the next host's by the time that a filter sees it.
    forwarded = {"iif": [hop.data_nic], "oif": [egress]}
    name = "what nft forwards"
    yield {**base, **ends, **forwarded, "name": name, "hooks": ["forward"]}
    returned = {"iif": [egress], "oif": [hop.data_nic]}
    yield {**reply, **back, **returned, "name": "answers that nft forwards", "hooks": ["forward"]}


def findings(host: Host, found: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield one finding for each chain of the host's rules that eats something, or may.

    found: what of_firewall of bench/facts.py returned.
    """
    chains: dict[str, list[Mapping[str, Any]]] = {}
    for each in found["eaten"]:
        chains.setdefault(each["chain"], []).append(each)
    for chain, ways in chains.items():
        sure = [way for way in ways if way["sure"]]
        names = ", ".join(dict.fromkeys(way["packet"] for way in sure or ways))
        yield Finding(
            host.name,
            "problem" if sure else "warning",
            f"the firewall's chain {chain} {'eats' if sure else 'may eat'} {names} "
            f"({(sure or ways)[0]['why']})",
            _remedy(host, found["keeper"], chain, (sure or ways)[0]["hook"]),
        )


def _remedy(host: Host, keeper: str, chain: str, hook: str) -> str:
    """Return the command that lets the traffic pass, in the words of whoever keeps the rules."""
    data, egress = host.data_nic, host.egress_nic or host.data_nic
    if keeper == "firewalld":
        nics = " ".join(f"--change-interface={nic}" for nic in dict.fromkeys([data, egress]))
        return f"firewall-cmd --zone=trusted {nics}; later undo it by firewall-cmd --reload"
    if keeper == "ufw":
        return {
            "forward": f"ufw route allow in on {data} out on {egress}"
            + (f"; ufw route allow in on {egress} out on {data}" if egress != data else ""),
            "output": f"ufw allow out on {egress}",
        }.get(hook, f"ufw allow in on {data}")
    if keeper == "iptables":
        tool = "ip6tables" if host.family == 6 else "iptables"
        tool = f"{tool}-legacy" if "legacy" in chain else tool
        ways = {
            "forward": [f"FORWARD -i {data} -o {egress}", f"FORWARD -i {egress} -o {data}"],
            "output": [f"OUTPUT -o {egress}"],
        }.get(hook, [f"INPUT -i {data}"])
        return "; ".join(f"{tool} -I {way} -j ACCEPT" for way in dict.fromkeys(ways))
    nics = ", ".join(f'"{nic}"' for nic in dict.fromkeys([data, egress]))
    which = "oifname" if hook in ("output", "postrouting") else "iifname"
    return f"nft insert rule {chain} {which} {{ {nics} }} accept"
