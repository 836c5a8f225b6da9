# SPDX-License-Identifier: Apache-2.0
"""What rules do to a run's packets, as nft lists them, and what the doctor says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import doctor_firewall
from bench.chain import Chain, Host
from bench.hop import facts_read, firewall, firewall_rules

SYN: dict[str, Any] = {
    "name": "what socat accepts",
    "hooks": ["prerouting", "input"],
    "family": 4,
    "protocol": "tcp",
    "state": "new",
    "iif": ["eth0"],
    "daddr": ["198.18.0.2"],
    "dport": [7000],
}
REPLY = {**SYN, "state": "established"}
PASSED: list[tuple[str, bool]] = []
DROPPED = [("policy drop", True)]
MAYBE = [("policy drop", False)]


def matching(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    """Return one match of a rule."""
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str, right: Any, op: str = "==") -> dict[str, Any]:
    """Return a match of what the packet is known by outside itself."""
    return matching({"meta": {"key": key}}, right, op)


def field(protocol: str, name: str, right: Any, op: str = "==") -> dict[str, Any]:
    """Return a match of a header's field."""
    return matching({"payload": {"protocol": protocol, "field": name}}, right, op)


def jump(target: str, kind: str = "jump") -> dict[str, Any]:
    """Return a verdict that goes on in another chain."""
    return {kind: {"target": target}}


ACCEPT, DROP, RETURN = {"accept": None}, {"drop": None}, {"return": None}
XT = {"xt": {"type": "match", "name": "multiport"}}
STATE = {"ct": {"key": "state"}}
PORT = {"payload": {"protocol": "tcp", "field": "dport"}}


def listed(
    *rules: list[dict[str, Any]], policy: str = "drop", chain: str = "input", **chains: Any
) -> list[dict[str, Any]]:
    """Return a ruleset: a base chain, and further chains with their rules."""
    place = {"family": "inet", "table": "filter"}
    base = {**place, "name": chain, "hook": chain, "type": "filter", "prio": 0, "policy": policy}
    found: list[dict[str, Any]] = [{"metainfo": {}}, {"table": {"family": "inet"}}, {"chain": base}]
    found += [{"chain": {**place, "name": name}} for name in chains]
    for name, those in {chain: rules, **chains}.items():
        for handle, expr in enumerate(those, 1):
            found.append({"rule": {**place, "chain": name, "handle": handle, "expr": expr}})
    found.append({"set": {**place, "name": "ports", "elem": [80, {"range": [6990, 7010]}]}})
    found.append({"set": {**place, "name": "timed", "elem": [{"elem": {"val": 7000}}]}})
    return found


def eaten(rules: list[dict[str, Any]], packet: dict[str, Any]) -> list[tuple[str, bool]]:
    """Return (why, whether it is certain) for each chain that eats a packet."""
    return [(each["why"], each["sure"]) for each in firewall_rules.Rules(rules).eaten(packet)]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # A rule that is for the packet.
        ([[ACCEPT]], PASSED),
        ([[meta("iifname", "eth0"), ACCEPT]], PASSED),
        ([[meta("iif", "eth0"), ACCEPT]], PASSED),
        ([[meta("iifname", "eth*"), ACCEPT]], PASSED),
        ([[meta("iifname", {"set": ["lo", "eth0"]}), ACCEPT]], PASSED),
        ([[meta("iifname", "lo", "!="), ACCEPT]], PASSED),
        ([[meta("l4proto", "tcp"), ACCEPT]], PASSED),
        ([[meta("l4proto", {"set": ["tcp", "udp"]}), ACCEPT]], PASSED),
        ([[meta("nfproto", "ipv4"), ACCEPT]], PASSED),
        ([[field("tcp", "dport", 7000), {"counter": {"packets": 0}}, ACCEPT]], PASSED),
        ([[field("th", "dport", 7000), ACCEPT]], PASSED),
        ([[field("tcp", "dport", {"range": [7000, 7001]}), ACCEPT]], PASSED),
        ([[field("tcp", "dport", {"set": [22, {"range": [6999, 7000]}]}), ACCEPT]], PASSED),
        ([[field("tcp", "dport", "@ports"), ACCEPT]], PASSED),
        ([[field("tcp", "dport", "@timed"), ACCEPT]], PASSED),
        ([[field("ip", "daddr", {"prefix": {"addr": "198.18.0.0", "len": 15}}), ACCEPT]], PASSED),
        ([[field("ip", "daddr", {"range": ["198.18.0.1", "198.18.0.9"]}), ACCEPT]], PASSED),
        ([[field("ip", "protocol", "tcp"), ACCEPT]], PASSED),
        ([[matching(STATE, ["new", "established"], "in"), ACCEPT]], PASSED),
        # One that is not.
        ([], DROPPED),
        ([[meta("iifname", "lo"), ACCEPT]], DROPPED),
        ([[meta("iifname", "eth0", "!="), ACCEPT]], DROPPED),
        ([[meta("l4proto", "udp"), ACCEPT]], DROPPED),
        ([[field("tcp", "dport", 22), ACCEPT]], DROPPED),
        ([[field("udp", "dport", 7000), ACCEPT]], DROPPED),
        ([[field("tcp", "dport", {"range": [22, 80]}), ACCEPT]], DROPPED),
        ([[field("ip", "daddr", {"prefix": {"addr": "10.0.0.0", "len": 8}}), ACCEPT]], DROPPED),
        ([[field("ip6", "daddr", "2001:2::2"), ACCEPT]], DROPPED),
        ([[field("icmp", "type", "echo-request"), ACCEPT]], DROPPED),
        ([[matching(STATE, ["established", "related"], "in"), ACCEPT]], DROPPED),
        ([[field("tcp", "dport", 7000), meta("iifname", "lo"), ACCEPT]], DROPPED),
        # One of which that cannot be said.
        ([[field("ip", "saddr", "198.18.0.1"), ACCEPT]], MAYBE),
        ([[meta("mark", 1), ACCEPT]], MAYBE),
        ([[XT, ACCEPT]], MAYBE),
        ([[{"limit": {"rate": 10}}, ACCEPT]], MAYBE),
        ([[field("tcp", "flags", "syn"), ACCEPT]], MAYBE),
        ([[field("tcp", "dport", "@gone"), ACCEPT]], MAYBE),
        ([[{"xt": None}, ACCEPT]], MAYBE),
        ([[field("tcp", "dport", 7000, "<"), ACCEPT]], MAYBE),
        # The first verdict counts.
        ([[DROP], [ACCEPT]], [("rule 1: drop", True)]),
        ([[ACCEPT], [DROP]], PASSED),
        ([[{"reject": {"type": "icmpx"}}]], [("rule 1: reject", True)]),
        ([[XT, DROP], [ACCEPT]], [("rule 1: drop", False)]),
        ([[XT, ACCEPT], [DROP]], [("rule 2: drop", False)]),
        ([[{"xt": {"type": "target", "name": "REJECT"}}]], [("rule 1: reject", True)]),
        ([[{"xt": {"type": "target", "name": "LOG"}}], [ACCEPT]], PASSED),
        ([[{"dnat": {"addr": "10.0.0.1"}}]], [("rule 1: dnat", True)]),
    ],
)
def test_rules(rules: list[list[dict[str, Any]]], expected: list[tuple[str, bool]]) -> None:
    assert eaten(listed(*rules), SYN) == expected


@pytest.mark.parametrize(
    ("rules", "other", "expected"),
    [
        ([[jump("other")]], [[ACCEPT]], PASSED),
        ([[jump("other")]], [[RETURN], [ACCEPT]], DROPPED),
        ([[jump("other")], [ACCEPT]], [[field("tcp", "dport", 22), DROP]], PASSED),
        ([[jump("other")], [ACCEPT]], [[DROP]], [("rule 1: drop", True)]),
        ([[jump("other", "goto")], [ACCEPT]], [[RETURN]], DROPPED),
        ([[XT, jump("other")]], [[ACCEPT]], MAYBE),
        ([[XT, jump("other")], [ACCEPT]], [[DROP]], [("rule 1: drop", False)]),
        # What comes after a return that may be taken may not be reached.
        ([[jump("other")], [ACCEPT]], [[XT, RETURN], [DROP]], [("rule 2: drop", False)]),
        ([[jump("other")]], [[jump("other")]], DROPPED),
    ],
)
def test_chains(
    rules: list[list[dict[str, Any]]],
    other: list[list[dict[str, Any]]],
    expected: list[tuple[str, bool]],
) -> None:
    assert eaten(listed(*rules, other=other), SYN) == expected


@pytest.mark.parametrize(
    ("key", "data", "expected"),
    [
        (PORT, {"set": [[22, DROP], [7000, ACCEPT]]}, PASSED),
        (PORT, {"set": [[{"range": [80, 90]}, ACCEPT]]}, DROPPED),
        (STATE, {"set": [["invalid", DROP], ["established", ACCEPT]]}, DROPPED),
        (STATE, {"set": [["new", jump("other")], ["established", ACCEPT]]}, PASSED),
        ({"meta": {"key": "mark"}}, {"set": [[1, ACCEPT]]}, MAYBE),
        (PORT, "@gone", DROPPED),
    ],
)
def test_verdict_maps(key: dict[str, Any], data: Any, expected: list[tuple[str, bool]]) -> None:
    rules = listed([{"vmap": {"key": key, "data": data}}], other=[[ACCEPT]])
    assert eaten(rules, SYN) == expected


def test_several_possible_values() -> None:
    both = {**SYN, "dport": [7000, 8000]}
    for ports, expected in (
        ([7000, 8000], PASSED),
        ([7000], MAYBE),
        ([22], DROPPED),
    ):
        assert eaten(listed([field("tcp", "dport", {"set": ports}), ACCEPT]), both) == expected


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        (22, DROPPED),
        (7000, MAYBE),
        ({"set": [22, 80]}, DROPPED),
        ({"set": [22, 8000]}, MAYBE),
        ({"range": [1, 65535]}, PASSED),
        ({"range": [1, 2000]}, MAYBE),
        ({"set": [22, {"range": [1024, 65535]}]}, PASSED),
        ("@ports", MAYBE),
    ],
)
def test_a_range_of_possible_ports(right: Any, expected: list[tuple[str, bool]]) -> None:
    anywhere = {**SYN, "dport": [{"range": [1024, 65535]}]}
    assert eaten(listed([field("tcp", "dport", right), ACCEPT]), anywhere) == expected


def test_answers_belong_to_connections() -> None:
    rules = listed([matching(STATE, ["established", "related"], "in"), ACCEPT])
    assert eaten(rules, REPLY) == PASSED
    assert eaten(rules, SYN) == DROPPED


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"policy": "accept"}, PASSED),
        ({"hook": "output"}, PASSED),
        ({"hook": None}, PASSED),
        ({"family": "ip6"}, PASSED),
        ({"family": "ip"}, DROPPED),
        ({"table": "hopbench"}, PASSED),
        ({"hook": "prerouting"}, DROPPED),
    ],
)
def test_base_chains(change: dict[str, Any], expected: list[tuple[str, bool]]) -> None:
    base = {"family": "inet", "table": "t", "name": "c", "hook": "input", "policy": "drop"}
    assert eaten([{"chain": {**base, **change}}], SYN) == expected


def test_neighbour_solicitations_of_ipv6() -> None:
    asked = {**SYN, "family": 6, "protocol": "ipv6-icmp", "type": "nd-neighbor-solicit"}
    asked |= {"state": "untracked"}
    kinds = {"set": ["nd-router-advert", "nd-neighbor-solicit"]}
    assert eaten(listed([field("icmpv6", "type", kinds), ACCEPT]), asked) == PASSED
    assert eaten(listed([meta("l4proto", "ipv6-icmp"), ACCEPT]), asked) == PASSED
    assert eaten(listed([field("tcp", "dport", 7000), ACCEPT]), asked) == DROPPED


@pytest.mark.parametrize(
    ("tables", "saved", "expected"),
    [
        ("", None, []),
        ("filter\n", ":INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n", [("INPUT", "policy DROP")]),
        (
            "filter\n",
            ":INPUT ACCEPT [0:0]\n-A X -p tcp -j REJECT\n",
            [("INPUT", "rules that drop")],
        ),
        ("filter\n", ":INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\n", []),
        ("filter\n", None, [("INPUT", "unreadable")]),
        ("nat\n", ":INPUT DROP [0:0]\n", []),
    ],
)
def test_the_older_iptables(
    monkeypatch: pytest.MonkeyPatch,
    tables: str,
    saved: str | None,
    expected: list[tuple[str, str]],
) -> None:
    monkeypatch.setattr(
        facts_read, "text", lambda path: tables if path == "/proc/net/ip_tables_names" else None
    )
    monkeypatch.setattr(
        facts_read, "said", lambda argv: '{"nftables": []}' if argv[0] == "nft" else saved
    )
    found = firewall.collect([SYN])
    said = [(each["chain"], each["why"], each["sure"]) for each in found["eaten"]]
    assert said == [(f"iptables-legacy {chain}", why, False) for chain, why in expected]
    assert found["keeper"] == ("iptables" if expected else "nft")


def test_without_nft_iptables_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_read, "text", lambda path: None)
    said = {"iptables-save": ":INPUT DROP [0:0]\n"}
    monkeypatch.setattr(facts_read, "said", lambda argv: said.get(argv[0]))
    (only,) = firewall.collect([SYN])["eaten"]
    assert (only["chain"], only["why"], only["packet"]) == (
        "iptables INPUT",
        "policy DROP",
        "what socat accepts",
    )


@pytest.mark.parametrize("text", ["Operation not permitted", "[]", ""])
def test_rules_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(facts_read, "text", lambda path: None)
    monkeypatch.setattr(facts_read, "said", lambda argv: text if argv[0] == "nft" else None)
    assert firewall.collect([SYN])["eaten"] == []


# --- the doctor -------------------------------------------------------------------------------

CLIENT = Host("client", "client", "198.18.0.1", "eth0", 0)
HOP1 = Host("hop1", "hop", "198.18.0.2", "eth1", 7000, egress_nic="eth2")
HOP2 = Host("hop2", "hop", "198.18.0.3", "eth0", 7001)
SERVER = Host("server", "server", "198.18.0.4", "eth0", 8000)
CHAIN = Chain(Path("chain.ini"), CLIENT, (HOP1, HOP2), SERVER)


def test_packets_of_each_host() -> None:
    seen = {
        host.name: {each["name"]: each for each in doctor_firewall.packets(CHAIN, host)}
        for host in CHAIN.hosts
    }
    assert list(seen["client"]) == ["the client's connections", "answers to the client"]
    assert seen["client"]["the client's connections"]["dport"] == [7000, 8000]
    assert seen["server"]["connections to the server"]["dport"] == [8000]
    forwarded = seen["hop1"]["what nft forwards"]
    assert (forwarded["iif"], forwarded["oif"]) == (["eth1"], ["eth2"])
    assert (forwarded["daddr"], forwarded["dport"]) == (["198.18.0.3", "198.18.0.4"], [7001, 8000])
    assert seen["hop1"]["what socat sends on"]["oif"] == ["eth2"]
    assert seen["hop2"]["what nft forwards"]["dport"] == [8000]
    back = seen["hop1"]["answers that nft forwards"]
    assert (back["iif"], back["oif"], back["state"]) == (["eth2"], ["eth1"], "established")


@pytest.mark.parametrize(
    ("keeper", "chain", "hook", "remedy"),
    [
        ("nft", "inet filter input", "input", 'nft insert rule inet filter input iifname { "eth1"'),
        ("nft", "ip f out", "output", 'nft insert rule ip f out oifname { "eth1", "eth2" } accept'),
        ("ufw", "ip filter INPUT", "input", "ufw allow in on eth1"),
        ("ufw", "ip filter FORWARD", "forward", "ufw route allow in on eth1 out on eth2; ufw"),
        ("firewalld", "inet firewalld filter_INPUT", "input", "firewall-cmd --zone=trusted"),
        ("iptables", "ip filter INPUT", "input", "iptables -I INPUT -i eth1 -j ACCEPT"),
        (
            "iptables",
            "iptables-legacy FORWARD",
            "forward",
            "iptables-legacy -I FORWARD -i eth1 -o eth2 -j ACCEPT; iptables-legacy -I FORWARD",
        ),
    ],
)
def test_remedies(keeper: str, chain: str, hook: str, remedy: str) -> None:
    way = {"packet": "x", "chain": chain, "hook": hook, "why": "policy drop", "sure": True}
    (finding,) = doctor_firewall.findings(HOP1, {"keeper": keeper, "eaten": [way]})
    assert finding.remedy.startswith(remedy)


def test_one_line_a_chain() -> None:
    way = {"chain": "inet f in", "hook": "input", "why": "policy drop", "sure": False}
    ways = [{**way, "packet": name} for name in ("one", "two", "one")]
    (finding,) = doctor_firewall.findings(HOP1, {"keeper": "nft", "eaten": ways})
    assert (finding.host, finding.level) == ("hop1", "warning")
    assert finding.text == "the firewall's chain inet f in may eat one, two (policy drop)"
    (finding,) = doctor_firewall.findings(
        HOP1, {"keeper": "nft", "eaten": [*ways, {**way, "packet": "three", "sure": True}]}
    )
    assert finding.level == "problem"
    assert finding.text == "the firewall's chain inet f in eats three (policy drop)"
