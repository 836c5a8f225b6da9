# SPDX-License-Identifier: Apache-2.0
"""Conversations for the forwarder to carry, and what damages them, drawn by hypothesis.

What is drawn is a list of genes, sixteen octets each: hypothesis can drop some and lower others. A
`Writer` turns them into steps with a model at hand, so that most packets belong to flows there are.
Zero is always the plainest choice, and a gene of zeros is no step at all.
"""

from __future__ import annotations

import struct

from tests.datapath.conftest import (
    DATA_MTU,
    EGRESS_MTU,
    HOP_PORT,
    NARROW_MTU,
    NETS,
    NEXT_PORT,
    Age,
    Arrive,
    Collect,
    Next,
)
from tests.datapath.frames_drawn import (
    OPTIONS,
    damaged,
    ip4,
    segment,
    set_next,
    to_zero,
    transport_checksum,
)
from tests.datapath.genes import (
    ADDRESSES,
    AGES,
    BITS,
    MIXTURES,
    ODDITIES,
    OPENING_BITS,
    SIZES,
    TEXT,
    TTLS,
    Drawn,
    Gene,
)
from tests.datapath.speech import (
    TCP,
    UDP,
    Ends,
    Flow,
    checksum,
    pseudo_header,
)
from tests.datapath.worlds import (
    LONGEST,
    OWN,
    Step,
    World,
    packed,
)


class Writer:
    """Turns genes into steps, following them with a model to know which flows there are."""

    def __init__(self, world: World) -> None:
        self.world, self.net, self.model = world, NETS[world.family], world.model()
        self.model.spreads = dict(world.spreads)  # what it guesses is no knowledge
        self.config = world.config
        low, high = self.config.port_min, self.config.port_max
        middle = (low + high) // 2
        self._ports = (low, high, 40000, middle, low + 1, 40001, 65535, 40002)
        if self.config.fresh and self.config.count > 8:  # where it puts the others, we only guess
            self._ports = (low, high, middle, 40000, low + 1, high - 1, middle + 1, low + 2)
        self._rare_ports = (0, HOP_PORT, low - 1, high + 1, 1, NEXT_PORT)
        self._addresses = {name: packed(getattr(self.net, name)) for name in set(ADDRESSES)}

    def steps(self, drawn: Drawn) -> list[Step]:
        """The steps of a sequence; without `nothing`, they may be none."""
        steps: list[Step] = []
        for octets in drawn.genes:
            gene = Gene(*octets)
            step = self._step(MIXTURES[drawn.mixture][gene.kind], gene)
            if step is not None:
                steps.append(step)
        return steps

    def greetings(self) -> list[Step]:
        """A datagram from each address there is, by which the hop shows its endpoints' homes."""
        plain, hop = Gene(*bytes(len(Gene._fields))), self.config.hop
        ends = (Ends(address, 40000, hop, HOP_PORT) for address in self._addresses.values())
        return [Arrive(*self._packet(plain, UDP, each, 0)) for each in ends]

    def _step(self, kind: str, gene: Gene) -> Step | None:
        if kind == "nothing":
            return None
        if kind == "age":
            return self._age(AGES[gene.who % len(AGES)])
        if kind == "next":
            return self._next(gene)
        if kind == "collect":
            self.model.collect()
            return Collect()
        flows = list(self.model.flows.values())
        if kind in ("forward", "back", "error") and not flows:
            kind = "open"
        flow = flows[gene.who % len(flows)] if flows else None
        if kind == "open":
            frame, link = self._open(gene)
        elif kind == "noise":
            frame, link = TEXT[gene.at : gene.at + 14 + gene.size], "data"
        elif kind == "stray" or flow is None:
            frame, link = self._stray(gene)
        elif kind == "error":
            frame, link = self._error(gene, flow)
        else:
            frame, link = self._of_flow(gene, flow, back=kind == "back")
        if gene.link > 250:
            link = "data" if link == "egress" else "egress"
        if not self.config.two_nics:
            link = "data"
        self.model.run(frame, link)
        return Arrive(frame, link)

    def _age(self, seconds: int) -> Age:
        edges = self.model.edges()
        while self.model.now + seconds in edges:
            seconds += 1
        self.model.age(seconds)
        return Age(seconds)

    def _next(self, gene: Gene) -> Next:
        net = self.net
        choices = (
            Next(net.next, NEXT_PORT, net.hop),
            Next(net.other, NEXT_PORT, net.hop),
            Next(net.next, NEXT_PORT + 1, net.hop),
            Next(net.narrow, NEXT_PORT, net.hop),
            Next(net.silent, NEXT_PORT, net.hop),
            Next(net.behind, NEXT_PORT, net.out),
            Next(net.behind, NEXT_PORT, net.hop),
            Next(net.next, NEXT_PORT, net.out),
            Next(net.nowhere, NEXT_PORT, net.hop),
            Next(net.next, 0, net.hop),
            Next(net.hop, NEXT_PORT, net.hop),
            Next(net.neighbour, NEXT_PORT, net.hop),
        )
        step = choices[gene.who % len(choices)]
        set_next(self.model, step)
        return step

    def _mac(self, address: bytes) -> bytes:
        route = self.world.kernel(address)
        return (route and route.mac) or b"\x02\x00\x00\x00\x00" + address[-1:]

    def _link(self, address: bytes) -> str:
        route = self.world.kernel(address)
        return route.link if route and self.config.two_nics else "data"

    def _open(self, gene: Gene) -> tuple[bytes, str]:
        name = ADDRESSES[gene.who]
        if name == "behind" and not self.config.two_nics and gene.value < 240:
            name = "client"
        rare = gene.port > 240
        ports = self._rare_ports if rare else self._ports
        ends = Ends(
            self._addresses[name],
            ports[gene.port % len(ports)],
            self.config.hop,
            self.config.hop_port,
        )
        protocol = TCP if gene.more < 170 else UDP
        return self._packet(gene, protocol, ends, OPENING_BITS[gene.flags])

    def _of_flow(self, gene: Gene, flow: Flow, *, back: bool) -> tuple[bytes, str]:
        client, server = flow.onward(self.config)
        ends = server.reversed() if back else client
        leaves = client.reversed() if back else server
        if gene.more > 250:
            ends = ends._replace(source_port=ends.source_port ^ 1)
        elif gene.more > 245:
            ends = ends._replace(source=self._addresses["neighbour"])
        elif gene.more > 240 and back:
            ends = ends._replace(destination=packed(self.net.out))
        return self._packet(gene, flow.protocol, ends, BITS[gene.flags], leaves)

    def _stray(self, gene: Gene) -> tuple[bytes, str]:
        """Of no flow, or not at all for the hop."""
        address, hop = self._addresses[ADDRESSES[gene.who]], self.config.hop
        port = self.config.port_min + gene.port % min(self.config.count, 8)
        choices = (
            (TCP, Ends(address, 40003, hop, self.config.hop_port)),
            (TCP, Ends(self._addresses["next"], NEXT_PORT, hop, port)),
            (UDP, Ends(self._addresses["next"], NEXT_PORT, hop, port)),
            (TCP, Ends(self._addresses["next"], NEXT_PORT, packed(self.net.out), HOP_PORT)),
            (TCP, Ends(address, 40004, hop, 22)),
            (UDP, Ends(address, 53, self._addresses["neighbour"], HOP_PORT)),
            (132, Ends(address, 40003, hop, self.config.hop_port)),
        )
        protocol, ends = choices[gene.more % len(choices)]
        return self._packet(gene, protocol, ends, BITS[gene.flags])

    def _packet(
        self, gene: Gene, protocol: int, ends: Ends, bits: int, leaves: Ends | None = None
    ) -> tuple[bytes, str]:
        """A frame with a packet; `leaves` are the ends that the hop is to give it."""
        options = OPTIONS[gene.header % 4] if gene.header > 200 and protocol == TCP else b""
        length = len(options) + (8 if protocol == UDP else 20)
        length += self._ip_header_size(gene)
        body = TEXT[gene.text : gene.text + self._size(gene, length)]
        upper = segment(protocol, ends, bits, gene.text, options + body, 5 + len(options) // 4)
        oddity = ODDITIES[gene.oddity]
        at = {TCP: 16, UDP: 6}.get(protocol)
        if at is not None:
            forced = {"zero_checksum": 0, "wrong_checksum": 0x1234, "ones_checksum": 0xFFFF}
            value = forced.get(oddity, 0 if protocol == UDP and gene.text > 240 else None)
            if oddity == "checksum_to_zero" and leaves is not None:
                value = to_zero(ends, leaves)
            if value is None:
                value = transport_checksum(protocol, ends, upper)
            upper = upper[:at] + value.to_bytes(2, "big") + upper[at + 2 :]
        return self._frame(gene, protocol, ends, upper), self._link(ends.source)

    def _size(self, gene: Gene, headers: int) -> int:
        """How much text: mostly little, at times around what an MTU leaves room for."""
        if gene.size < 190:
            return SIZES[gene.size % len(SIZES)]
        mtu = (DATA_MTU, NARROW_MTU, EGRESS_MTU)[gene.size % 3]
        return max(0, min(mtu + (0, 1, -1, 40, 2)[gene.size % 5], LONGEST - 18) - headers)

    def _ip_header_size(self, gene: Gene) -> int:
        if self.config.family == 6:
            return 40
        return 20 + len(self._ip_options(gene))

    def _ip_options(self, gene: Gene) -> bytes:
        return b"\x01" * (4, 40, 8, 20)[gene.more % 4] if 150 < gene.header <= 170 else b""

    def _frame(self, gene: Gene, protocol: int, ends: Ends, upper: bytes) -> bytes:
        """Put IP and Ethernet before it, and do the damage."""
        ttl = TTLS[gene.ttl]
        if self.config.family == 4:
            fragment = 0x4000 if gene.fragment % 2 else 0
            if gene.fragment > 250:
                fragment = (0x2000, 0x00B9, 0x20B9, 0x8000, 0x1000)[gene.fragment - 251]
            options = self._ip_options(gene)
            packet = ip4(gene, protocol, ends, fragment, ttl, options) + upper
            packet = packet[:2] + len(packet).to_bytes(2, "big") + packet[4:]
            total = checksum(packet[: 20 + len(options)])
            packet = packet[:10] + total.to_bytes(2, "big") + packet[12:]
            ethertype = 0x0800
        else:
            if gene.fragment > 250:
                upper = bytes((protocol, 0, 0, gene.value, 0, 0, 0, 1)) + upper
                protocol = (44, 0, 60, 43, 51)[gene.fragment - 251]
            label = gene.header << 20 | gene.text << 8 | gene.more
            packet = struct.pack("!IHBB", 6 << 28 | label, len(upper), protocol, ttl)
            packet += ends.source + ends.destination + upper
            ethertype = 0x86DD
        if gene.padding > 200:
            packet += bytes(gene.padding - 200) if gene.padding % 2 else TEXT[: gene.padding - 200]
        head = OWN[self._link(ends.source)] + self._mac(ends.source) + self._tag(gene, ends)
        return damaged(gene, head + ethertype.to_bytes(2, "big") + packet)

    def _tag(self, gene: Gene, ends: Ends) -> bytes:
        due = self.config.tag(self._link(ends.source))
        if gene.tag > 248:
            kind = (0x8100, 0x88A8)[gene.tag % 2]
            identifier = (due, 0, 9, self.config.vlan, self.config.egress_vlan)[gene.tag % 5]
            return struct.pack("!HH", kind, identifier) if gene.tag > 249 else b""
        return struct.pack("!HH", 0x8100, (gene.tag & 0xF0) << 8 | due) if due else b""

    def _error(self, gene: Gene, flow: Flow) -> tuple[bytes, str]:
        """An ICMP error about a packet that the hop sent for a flow."""
        family = self.config.family
        client, server = flow.onward(self.config)
        quoted = (server, client.reversed())[gene.port % 2]
        if gene.port > 250:
            quoted = quoted._replace(destination_port=quoted.destination_port ^ 1)
        elif gene.port > 245:
            quoted = quoted._replace(destination=self._addresses["neighbour"])
        elif gene.port > 240:
            quoted = quoted._replace(source=packed(self.net.out))
        upper = segment(flow.protocol, quoted, BITS[gene.flags], gene.text, TEXT[: gene.more])
        at = {TCP: 16, UDP: 6}[flow.protocol]
        value = transport_checksum(flow.protocol, quoted, upper) if gene.text < 225 else 0
        if gene.text > 240:
            back = client if gene.port % 2 == 0 else server.reversed()
            value = to_zero(quoted, back)
        upper = upper[:at] + value.to_bytes(2, "big") + upper[at + 2 :]
        quote = self._quote(gene, flow.protocol, quoted, upper)
        errors = (3, 3, 11, 12, 3, 8, 5) if family == 4 else (1, 2, 3, 4, 1, 128, 137)
        kind = errors[gene.value % 7] if gene.value > 200 else errors[gene.value % 4]
        sender = self._addresses[ADDRESSES[gene.who]] if gene.who > 128 else quoted.destination
        ends = Ends(sender, 0, quoted.source, 0)
        if gene.at > 250:
            ends = ends._replace(destination=packed(self.net.out))
        icmp = struct.pack("!BBHI", kind, gene.at % 16, 0, gene.value) + quote
        protocol = 1 if family == 4 else 58
        pseudo = pseudo_header(ends.source + ends.destination, len(icmp), 58)
        total = checksum(icmp) if family == 4 else checksum(pseudo, icmp)
        forced = {"zero_checksum": 0, "wrong_checksum": 0x1234, "ones_checksum": 0xFFFF}
        total = forced.get(ODDITIES[gene.oddity], total)
        icmp = icmp[:2] + total.to_bytes(2, "big") + icmp[4:]
        return self._frame(gene, protocol, ends, icmp), self._link(ends.source)

    def _quote(self, gene: Gene, protocol: int, quoted: Ends, upper: bytes) -> bytes:
        odd = gene.size if gene.size > 225 else 0
        if self.config.family == 4:
            fragment = {251: 0x2000, 252: 0x2001, 253: 1}.get(odd, 0x4000)
            options = b"\x01" * 8 if odd in range(226, 240) else b""
            header = ip4(gene, {250: 132, 249: 1}.get(odd, protocol), quoted, fragment, 1, options)
            header = header[:2] + (len(header) + len(upper)).to_bytes(2, "big") + header[4:]
            header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
        else:
            protocol = {250: 132, 249: 0, 251: 44}.get(odd, protocol)
            header = struct.pack("!IHBB", 6 << 28, len(upper), protocol, 1)
            header += quoted.source + quoted.destination
        if odd == 255:
            header = bytes((header[0] ^ 0x10,)) + header[1:]
        elif odd == 254:
            header = bytes((header[0] & 0xF4,)) + header[1:]
        room = (len(upper), 8, 20, 28, 19, 16, 18, 12, 7, 21)[gene.size % 10]
        return header + upper[:room]
