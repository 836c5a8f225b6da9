# SPDX-License-Identifier: Apache-2.0
"""ICMP errors as scapy builds them, and what must become of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from scapy.layers.inet import ICMP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach
from scapy.packet import Packet, Raw

from tests.datapath.conftest import MACS, PASS, REDIRECT, TX
from tests.datapath.frames import IP_LEN, Case, Path, Talk, What, ethernet, ip, passed, segment

Change = Callable[[bytes], bytes]

UNREACHABLE = {4: ICMP(type=3, code=1), 6: ICMPv6DestUnreach(code=3)}
SIDES = ["next", "client"]  # who receives it


@dataclass(frozen=True)
class Error:
    """An error about a packet of a flow, to one of its sides; `router` sends it.

    size: how much is quoted. inner: what the quoted packet is, as keywords of `segment`. change:
    what is done to the quote. outer: fields of the error's IP header.
    """

    talk: Talk
    to: str = "client"
    kind: Packet | None = None
    router: str = "neighbour"
    size: int = 9999
    ttl: int = 64
    inner: What = field(default_factory=dict)
    outer: What = field(default_factory=dict)
    change: Change = bytes
    padding: bytes = b""
    priority: int = 0

    @property
    def paths(self) -> tuple[Path, Path, Path, Path]:
        """Those of the error and of the quoted packet as they arrive, and as they leave."""
        talk = self.talk
        if self.to == "client":
            arrives, quoted, leaves, becomes = talk.answers, talk.goes, talk.comes, talk.asks
        else:
            arrives, quoted, leaves, becomes = talk.asks, talk.comes, talk.goes, talk.answers
        address = talk.address(self.router)
        router = arrives._replace(source=address, source_mac=MACS[address])
        return router, quoted, leaves, becomes

    def frame(self, path: Path, quoted: Path, ttl: int, like: Path | None = None) -> bytes:
        """The frame; like: whose TCP checksum the quote has, when it is cut off behind it."""
        quote = bytes(segment(quoted, **self.inner))[: self.size]
        at = self.size - IP_LEN[path.family]
        if like is not None and quoted.protocol is TCP and 16 < at < 20:
            at = IP_LEN[path.family] + 16
            quote = quote[:at] + bytes(segment(like, **self.inner))[at : self.size]
        kind = (self.kind or UNREACHABLE[path.family]).copy()
        kind.add_payload(Raw(self.change(quote)))
        packet = ip(path, ttl=ttl, **self.outer)
        packet.add_payload(kind)
        return ethernet(path, packet, self.priority) + self.padding

    @property
    def arrives(self) -> bytes:
        """The error as it comes in."""
        return self.frame(*self.paths[:2], self.ttl)

    def translated(self, instead: str = "") -> Case:
        """It goes on; instead: the stack gets it for that reason."""
        router, quoted, leaves, becomes = self.paths
        counter = "errors_returned" if self.to == "client" else "errors_forwarded"
        verdict, ttl = TX if router.link == leaves.link else REDIRECT, self.ttl - 1
        if instead:
            macs = {"source_mac": router.source_mac, "target_mac": router.target_mac}
            verdict, ttl, leaves = PASS, self.ttl, leaves._replace(**macs, vlan=router.vlan)
        out = self.frame(leaves, becomes, ttl, quoted)
        return Case(self.arrives, verdict, out, {instead or counter: 1}, router.link)

    def passed(self, counter: str = "passed_not_ours") -> Case:
        """It is none of ours."""
        return passed(self.arrives, counter, self.paths[0].link)


def opened(talk: Talk) -> list[Case]:
    """A flow that has packets both ways."""
    return [talk.open(), talk.back("SA")]
