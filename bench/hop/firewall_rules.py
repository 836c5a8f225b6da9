# SPDX-License-Identifier: Apache-2.0
"""What becomes of a packet in a ruleset, as far as what is known of the packet decides it.

Of a packet it is known which hooks it passes and, as lists of what is possible, its NICs, addresses
and ports, or ranges of ports ({"range": [low, high]}). What a rule asks beyond that (a mark, an
extension of iptables, a rate) may be so or not, and then the answer is a maybe. Needs no other
module of this package: it also runs on hosts before any deploy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

Packet = dict[str, Any]
Key = tuple[str, str, str]

_DEEPEST = 16
_OURS = "hopbench"
_EATS = ("drop", "reject", "dnat", "redirect", "queue", "tproxy")
_TARGETS = {"DROP": "drop", "REJECT": "reject", "DNAT": "dnat", "REDIRECT": "redirect"}
_MAYBE_BOUND = ("limit", "ct count", "quota", "socket", "osf", "meter")
_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}
_IP = {4: "ip", 6: "ip6"}
_TCP_NAMES, _ICMPV6_NAMES = ("tcp", 6), ("ipv6-icmp", "icmpv6", 58)


class _Never(Exception):
    """The packet has no such field: whatever is asked of it, the rule is not for it."""


class Rules:
    """A ruleset as `nft -json list ruleset` prints it, and what becomes of packets in it."""

    def __init__(self, listed: list[dict[str, Any]]) -> None:
        self.chains: dict[Key, dict[str, Any]] = {}
        self._rules: dict[Key, list[dict[str, Any]]] = {}
        self._sets: dict[Key, list[Any]] = {}
        for each in listed:
            for kind, found in each.items():
                where = (found.get("family", ""), found.get("table", ""))
                if kind == "chain":
                    self.chains[(*where, found["name"])] = found
                elif kind == "rule":
                    self._rules.setdefault((*where, found["chain"]), []).append(found)
                elif kind in ("set", "map"):
                    self._sets[(*where, found["name"])] = found.get("elem", [])

    def eaten(self, packet: Packet) -> Iterator[dict[str, Any]]:
        """Yield each chain that eats a packet: {"chain", "hook", "why", "sure"}."""
        for hook in packet["hooks"]:
            for key, chain in self.chains.items():
                if chain.get("hook") != hook or key[1] == _OURS:
                    continue
                if key[0] in _FAMILIES[packet["family"]]:
                    verdict, sure = _Walk(self, packet, hook).base(key, chain)
                    if verdict != "accept":
                        named = {"chain": " ".join(key), "hook": hook}
                        yield {**named, "why": verdict, "sure": sure}

    def rules(self, key: Key) -> list[dict[str, Any]]:
        """Return a chain's rules, in order."""
        return self._rules.get(key, [])

    def elements(self, key: Key) -> list[Any] | None:
        """Return what a named set or map holds, None where that was not listed."""
        return self._sets.get(key)


class _Walk:
    """One packet on its way through one base chain."""

    def __init__(self, rules: Rules, packet: Packet, hook: str) -> None:
        self._rules, self._packet, self._hook = rules, packet, hook
        self._hoped = False  # a rule that may apply accepts
        self._feared = ""  # the first rule that may apply and eats

    def base(self, key: Key, chain: dict[str, Any]) -> tuple[str, bool]:
        """Return `accept`, or what eats the packet, and whether that is certain."""
        verdict = self._chain(key, True, 0)
        if verdict is None:
            dropped = chain.get("policy", "accept") == "drop"
            verdict = "policy drop" if dropped else "accept"
        if verdict == "accept":
            return self._feared or verdict, False
        return verdict, not self._hoped

    def _chain(self, key: Key, sure: bool, depth: int) -> str | None:
        """Return the verdict that is certain, None when the chain lets the packet through."""
        for rule in self._rules.rules(key) if depth < _DEEPEST else []:
            for applies, word, target in self._verdicts(rule, key):
                certain = sure and applies
                if word in ("jump", "goto"):
                    verdict = self._chain((key[0], key[1], target), certain, depth + 1)
                    if certain and (verdict or word == "goto"):
                        return verdict
                elif word == "return":
                    if certain:
                        return None
                elif word == "accept":
                    if certain:
                        return word
                    self._hoped = True
                else:
                    why = f"rule {rule.get('handle')}: {word}"
                    if certain:
                        return why
                    self._feared = self._feared or why
                # What follows may not be reached.
                sure = sure and (certain or word not in ("return", "goto"))
        return None

    def _verdicts(self, rule: dict[str, Any], key: Key) -> Iterator[tuple[bool, str, str]]:
        """Yield (whether that is certain, verdict, chain to go to) of a rule that may apply."""
        certain = True
        for statement in rule.get("expr", []):
            for kind, said in statement.items():
                if kind == "match":
                    matches = self._matches(said["left"], said["op"], said["right"], key)
                    if matches is False:
                        return
                    certain = certain and matches is True
                elif kind in _MAYBE_BOUND:
                    certain = False
                elif kind == "xt":
                    name = (said or {}).get("name", "")
                    if (said or {}).get("type") == "target":
                        if name in _TARGETS:
                            yield certain, _TARGETS[name], ""
                    else:
                        certain = False
                elif kind == "vmap":
                    yield from self._mapped(said, key, certain)
                elif kind in ("jump", "goto"):
                    yield certain, kind, said["target"]
                elif kind in ("accept", "return", *_EATS):
                    yield certain, kind, ""

    def _mapped(
        self, said: dict[str, Any], key: Key, certain: bool
    ) -> Iterator[tuple[bool, str, str]]:
        data = said["data"]
        if isinstance(data, str):
            pairs = self._rules.elements((key[0], key[1], data.removeprefix("@"))) or []
        else:
            pairs = data.get("set", [])
        for each in pairs:
            if not isinstance(each, list) or len(each) != 2:
                continue
            matches = self._matches(said["key"], "==", each[0], key)
            if matches is not False:
                ((word, target),) = each[1].items()
                yield certain and matches is True, word, (target or {}).get("target", "")

    def _matches(self, left: Any, op: str, right: Any, key: Key) -> bool | None:
        """Return whether what a rule asks is so; None: for some of the packets, or who knows."""
        try:
            possible = self._field(left)
        except _Never:
            return False
        if possible is None or op not in ("==", "!=", "in"):
            return None
        answers = {self._among(value, right, key) for value in possible}
        answer = answers.pop() if len(answers) == 1 else None
        return (not answer) if op == "!=" and answer is not None else answer

    def _field(self, left: Any) -> list[Any] | None:
        """Return what a field may be, None where that is not known. Raises _Never."""
        ((kind, said),) = left.items() if isinstance(left, dict) and len(left) == 1 else ((0, {}),)
        packet, tcp = self._packet, self._packet["protocol"] == "tcp"
        if kind == "ct":
            return [packet["state"]] if said.get("key") == "state" else None
        if kind == "meta":
            protocol = _TCP_NAMES if tcp else _ICMPV6_NAMES
            return {
                "iif": packet.get("iif", [""]),
                "oif": packet.get("oif", [""]),
                "l4proto": [protocol],
                "nfproto": [("ipv4", 2) if packet["family"] == 4 else ("ipv6", 10)],
                "protocol": [(_IP[packet["family"]],)],
                "pkttype": ["host"],
            }.get(said.get("key", "").removesuffix("name"))
        if kind != "payload" or "protocol" not in said:
            return None
        protocol, field = said["protocol"], said.get("field")
        if protocol in ("ip", "ip6"):
            if protocol != _IP[packet["family"]]:
                raise _Never
            if field in ("protocol", "nexthdr"):
                return [_TCP_NAMES if tcp else _ICMPV6_NAMES]
            return packet.get(field) if field in ("saddr", "daddr") else None
        if protocol in ("tcp", "th") and tcp:
            return packet.get(field) if field in ("sport", "dport") else None
        if protocol == "icmpv6" and not tcp:
            return [packet["type"]] if field == "type" else None
        if protocol == "ether":
            return None
        raise _Never

    def _among(self, value: Any, right: Any, key: Key) -> bool | None:
        """Return whether a value is what a rule names: one, several, a range, a prefix, a set."""
        if isinstance(right, str) and right.startswith("@"):
            elements = self._rules.elements((key[0], key[1], right[1:]))
            return None if elements is None else self._among(value, elements, key)
        if isinstance(right, dict):
            if "elem" in right:
                return self._among(value, right["elem"].get("val"), key)
            if "set" in right:
                return self._among(value, right["set"], key)
            if "range" in right or "prefix" in right:
                known = not isinstance(value, dict)
                return _within(value, right) if known else _overlap(value["range"], right)
            return None
        if isinstance(value, dict):
            return _overlap(value["range"], right)
        if isinstance(right, list):
            answers = [self._among(value, each, key) for each in right]
            return True if True in answers else None if None in answers else False
        if isinstance(value, tuple):
            return right in value
        if isinstance(right, str) and right.endswith("*"):
            return str(value).startswith(right[:-1])
        return bool(value == right or str(value) == str(right))


def _overlap(possible: list[int], right: Any) -> bool | None:
    """Return whether all of a range of ports is what a rule names, None for some of it."""
    answers = []
    for each in right if isinstance(right, list) else [right]:
        low, high = each["range"] if isinstance(each, dict) else (each, each)
        inside = low <= possible[0] and possible[1] <= high
        answers.append(inside or (None if low <= possible[1] and possible[0] <= high else False))
    return True if True in answers else None if None in answers else False


def _within(value: Any, right: dict[str, Any]) -> bool | None:
    try:
        if "prefix" in right:
            network = f"{right['prefix']['addr']}/{right['prefix']['len']}"
            return ipaddress.ip_address(value) in ipaddress.ip_network(network, strict=False)
        low, high = right["range"]
        if isinstance(value, int):
            return int(low) <= value <= int(high)
        one, other = (int(ipaddress.ip_address(each)) for each in (low, high))
        return one <= int(ipaddress.ip_address(value)) <= other
    except (TypeError, ValueError):
        return None
