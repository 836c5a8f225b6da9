# SPDX-License-Identifier: Apache-2.0
"""The forwarder of docs/forwarder.md in Python: what must become of every frame, octet by octet."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.datapath.model_flows import Flows
from tests.datapath.speech import (
    _CHECKSUM_AT,
    _NEEDED,
    ACK,
    DROP,
    FIN,
    FIN_CLIENT,
    FIN_SERVER,
    PASS,
    REDIRECT,
    REPLIED,
    RESET,
    RST,
    SYN,
    TCP,
    TX,
    UDP,
    Ends,
    Flow,
    Outcome,
    Way,
    _follow,
    _Packet,
    _ports,
    _put,
    _word,
    checksum,
    pseudo_header,
)


@dataclass
class Model(Flows):
    """One hop: what it makes of a frame, and of its flows meanwhile."""

    def run(self, frame: bytes, link: str = "data", seen: Outcome | None = None) -> Outcome:
        """Say what becomes of a frame."""
        self._counts, self._seen = {}, seen
        verdict, out = self._run(frame, link)
        return verdict, out, self._counts

    def _pass(self, frame: bytes, counter: str) -> tuple[int, bytes]:
        self._count(counter)
        return PASS, frame

    def _run(self, frame: bytes, link: str) -> tuple[int, bytes]:
        packet = self._parse(frame, link)
        if isinstance(packet, str):
            return self._pass(frame, packet)
        if packet.protocol == self._layout.icmp:
            return self._error(packet)
        source_port, destination_port = _ports.unpack_from(frame, packet.l4)
        if (packet.destination, destination_port) == (self.config.hop, self.config.hop_port):
            return self._from_client(packet, source_port)
        return self._from_next(packet, source_port, destination_port)

    # Which packets are looked at

    def _parse(self, frame: bytes, link: str) -> _Packet | str:
        due = self.config.tag(link)
        l3 = 18 if due else 14
        if len(frame) < l3:
            return "passed_truncated"
        (ethertype,) = _word.unpack_from(frame, 12)
        if (ethertype == 0x8100) != bool(due) or ethertype == 0x88A8:
            return "passed_vlan"
        if due:
            identifier, ethertype = _ports.unpack_from(frame, 14)
            if identifier & 0xFFF not in {self.config.vlan, self.config.egress_vlan} - {0}:
                return "passed_vlan"
        if frame[0] & 1:
            return "passed_not_unicast"
        if frame[:6] not in self.config.macs:
            return "passed_other_host"
        if ethertype != self._layout.ethertype:
            return "passed_other_protocol"
        return self._parse_ip(frame, link, l3)

    def _parse_ip(self, frame: bytes, link: str, l3: int) -> _Packet | str:
        layout = self._layout
        held = len(frame) - l3
        if held < layout.header:
            return "passed_truncated"
        if frame[l3] >> 4 != self.config.family:
            return "passed_other_protocol"
        (length,) = _word.unpack_from(frame, l3 + (2 if self.config.family == 4 else 4))
        if self.config.family == 4:
            header, protocol = (frame[l3] & 15) * 4, frame[l3 + 9]
            (fragment,) = _word.unpack_from(frame, l3 + 6)
            if header < 20 or not header <= length <= held:
                return "passed_truncated"
            if fragment & 0x3FFF:
                return "passed_fragment"
        else:
            header, protocol, length = 40, frame[l3 + 6], length + 40
            if length > held:
                return "passed_truncated"
            if protocol == 44:
                return "passed_fragment"
        if protocol not in (TCP, UDP, layout.icmp):
            return "passed_other_protocol"
        if length < header + _NEEDED.get(protocol, 8):
            return "passed_truncated"
        if protocol == layout.icmp and frame[l3 + header] not in layout.errors:
            return "passed_other_protocol"
        return _Packet(
            frame,
            link,
            l3,
            l3 + header,
            l3 + length,
            protocol,
            frame[l3 + layout.source : l3 + layout.destination],
            frame[l3 + layout.destination : l3 + layout.addresses_end],
            frame[l3 + layout.ttl],
        )

    # Flows

    def _from_client(self, packet: _Packet, port: int) -> tuple[int, bytes]:
        if port == 0:
            return self._pass(packet.frame, "passed_not_ours")
        flow = self.by_client.get((packet.protocol, packet.source, port))
        opening = packet.protocol == UDP
        if packet.protocol == TCP:
            opening = packet.frame[packet.l4 + 13] & (SYN | ACK | RST | FIN) == SYN
            if flow is None and not opening:
                return self._pass(packet.frame, "passed_no_flow")
        if packet.ttl <= 1:
            return self._pass(packet.frame, "passed_ttl")
        if opening and (flow is None or self._over(flow) or self._outdated(flow)):
            opened = self._open(packet, port, flow)
            if isinstance(opened, str):
                self._count(opened)
                return DROP, packet.frame
            flow = opened
        assert flow is not None
        return self._carry(flow, packet, to_client=False)

    def _from_next(self, packet: _Packet, source_port: int, port: int) -> tuple[int, bytes]:
        flow = self.flows.get((packet.protocol, port))
        ends = Ends(packet.source, source_port, packet.destination, port)
        if flow is None or flow.orphan or ends != flow.onward(self.config)[1].reversed():
            return self._pass(packet.frame, "passed_not_ours")
        if packet.ttl <= 1:
            return self._pass(packet.frame, "passed_ttl")
        return self._carry(flow, packet, to_client=True)

    def _over(self, flow: Flow) -> bool:
        """Whether a SYN begins the flow anew. UDP flows go on, expired or not."""
        return flow.protocol == TCP and (flow.closed or self.expired(flow))

    def _outdated(self, flow: Flow) -> bool:
        return self.next != (flow.next, flow.next_port, flow.out)

    # Opening, ports

    def _way(self, address: bytes) -> Way | None:
        route = self.kernel(address)
        if route is None or (route.link == "egress" and not self.config.two_nics):
            return None
        return Way(route.link, route.own, route.mac, route.mtu, self.now)

    def _open(self, packet: _Packet, client_port: int, old: Flow | None) -> Flow | str:
        """Begin a flow; or return the counter that says why not."""
        if self.next is None:
            return "dropped_not_ready"
        to_next, to_client = self._way(self.next[0]), self._way(packet.source)
        if to_next is None or to_client is None:
            return "dropped_no_route"
        if to_client.mac is None:
            to_client.mac = packet.frame[6:12]
        port = self._port(packet, client_port, old)
        if port is None:
            return "dropped_no_port"
        before = self.flows.get((packet.protocol, port))
        if before is not None and before is not old:
            if not before.closed:
                self._count("flows_evicted")
            self._forget(before)
        if old is None and self._is_full(packet.source, client_port, port):
            return "dropped_table_full"
        if old is not None:
            self._count("flows_reopened")
            old.orphan = port != old.port
        self._count("flows_opened")
        self._count("port_kept" if port == client_port else "port_other")
        flow = Flow(
            packet.protocol,
            packet.source,
            client_port,
            port,
            *self.next,
            to_next,
            to_client,
            self.now,
        )
        self.flows[packet.protocol, port] = flow
        self.by_client[packet.protocol, packet.source, client_port] = flow
        return flow

    # Carrying

    def _reachable(self, way: Way, address: bytes) -> bool:
        """Look the neighbour up when it is time; say whether XDP can send to it."""
        # An age is at least two seconds and a run far shorter than one.
        if way.mac is not None and self.now - way.looked < 2:
            return True
        way.looked = self.now
        found = self._way(address)
        if found is None:
            return way.mac is not None
        way.link, way.own, way.mtu = found.link, found.own, found.mtu or way.mtu
        way.mac = found.mac or way.mac
        return found.mac is not None

    def _carry(self, flow: Flow, packet: _Packet, *, to_client: bool) -> tuple[int, bytes]:
        way = flow.to_client if to_client else flow.to_next
        reachable = self._reachable(way, flow.client if to_client else flow.next)
        flow.used = self.now
        too_big = way.mtu is not None and packet.end - packet.l3 > way.mtu
        if too_big and way.mtu and (self.config.family == 6 or packet.frame[packet.l3 + 6] & 0x40):
            self._count("replied_too_big")
            return TX, self._too_big(packet, way.mtu)
        if not too_big:
            self._track(flow, packet, to_client=to_client)
        buffer = bytearray(packet.frame)
        ends = flow.onward(self.config)
        leaves = ends[0].reversed() if to_client else ends[1]
        self._translate(buffer, packet.l3, packet.l4, packet.protocol, leaves)
        if too_big:
            return self._pass(bytes(buffer), "passed_too_big")
        if not reachable:
            return self._pass(bytes(buffer), "passed_unresolved")
        name = "returned" if to_client else "forwarded"
        self._count(f"{name}_packets")
        self._count(f"{name}_bytes", len(packet.frame))
        return self._send(buffer, packet, way)

    def _track(self, flow: Flow, packet: _Packet, *, to_client: bool) -> None:
        was_closed = flow.closed
        if to_client:
            flow.state |= REPLIED
        if packet.protocol == TCP:
            flags = packet.frame[packet.l4 + 13]
            if flags & FIN:
                flow.state |= FIN_SERVER if to_client else FIN_CLIENT
            if flags & RST:
                flow.state |= RESET
            if flow.closed and not was_closed:
                self._count("flows_closed")

    def _translate(
        self,
        buffer: bytearray,
        l3: int,
        l4: int,
        protocol: int,
        ends: Ends,
        *,
        has_checksum: bool = True,
    ) -> int:
        """Rewrite addresses, ports and checksums; return the sum of ~m + m' over all of it."""
        both = _put(buffer, l3 + self._layout.source, ends.source + ends.destination)
        total = both
        if self.config.family == 4:
            total += _follow(buffer, l3 + 10, both)
        ports = _put(buffer, l4, _ports.pack(ends.source_port, ends.destination_port))
        total += ports
        if has_checksum:
            at = l4 + _CHECKSUM_AT[protocol]
            total += _follow(buffer, at, both + ports, udp=protocol == UDP)
        return total

    def _send(self, buffer: bytearray, packet: _Packet, way: Way) -> tuple[int, bytes]:
        """Lower the TTL and address the frame to the neighbour."""
        assert way.mac is not None
        l3 = packet.l3
        if self.config.family == 4:
            word = bytes((packet.ttl - 1, buffer[l3 + 9]))
            _follow(buffer, l3 + 10, _put(buffer, l3 + 8, word))
        else:
            buffer[l3 + 7] -= 1
        head = way.mac + (way.own if self.config.two_nics else packet.frame[:6])
        tag = self.config.tag(way.link)
        if tag:
            priority = buffer[14] << 8 & 0xF000 if l3 == 18 else 0
            head += _ports.pack(0x8100, priority | tag)
        out = head + bytes(buffer[l3 - 2 :])
        return TX if way.link == packet.link else REDIRECT, out

    def _too_big(self, packet: _Packet, mtu: int) -> bytes:
        frame, l3, layout = packet.frame, packet.l3, self._layout
        quote = frame[l3 : min(l3 + layout.quote, packet.end)]
        head = frame[6:12] + frame[0:6] + frame[12:l3]
        addresses = packet.destination + packet.source
        kind, code = layout.too_big
        if self.config.family == 4:
            icmp = struct.pack("!BBHHH", kind, code, 0, 0, mtu) + quote
            total = checksum(icmp)
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0x4000, 64, 1, 0) + addresses
            ip = ip[:10] + _word.pack(checksum(ip)) + ip[12:]
        else:
            icmp = struct.pack("!BBHI", kind, code, 0, mtu) + quote
            total = checksum(pseudo_header(addresses, len(icmp), 58), icmp)
            ip = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 64) + addresses
        return head + ip + icmp[:2] + _word.pack(total) + icmp[4:]

    # ICMP errors

    def _error(self, packet: _Packet) -> tuple[int, bytes]:
        found = self._quoted_flow(packet)
        if found is None:
            return self._pass(packet.frame, "passed_not_ours")
        if packet.ttl <= 1:
            return self._pass(packet.frame, "passed_ttl")
        flow, l4, to_client = found
        client, server = flow.onward(self.config)
        way = flow.to_client if to_client else flow.to_next
        reachable = self._reachable(way, flow.client if to_client else flow.next)
        buffer, l3 = bytearray(packet.frame), packet.l4 + 8
        protocol = flow.protocol
        total = self._translate(
            buffer,
            l3,
            l4,
            protocol,
            client if to_client else server.reversed(),
            has_checksum=protocol == UDP or packet.end - l4 >= 20,
        )
        outer = client.reversed() if to_client else server
        both = _put(buffer, packet.l3 + self._layout.source, outer.source + outer.destination)
        if self.config.family == 4:
            _follow(buffer, packet.l3 + 10, both)
        else:
            total += both
        _follow(buffer, packet.l4 + 2, total)
        if not reachable:
            return self._pass(bytes(buffer), "passed_unresolved")
        self._count("errors_returned" if to_client else "errors_forwarded")
        return self._send(buffer, packet, way)

    def _quoted_flow(self, packet: _Packet) -> tuple[Flow, int, bool] | None:
        """The flow an error speaks of, where its ports are, and whether it is for the client."""
        frame, layout, l3 = packet.frame, self._layout, packet.l4 + 8
        if packet.end - l3 < layout.header or frame[l3] >> 4 != self.config.family:
            return None
        if self.config.family == 4:
            header, protocol = (frame[l3] & 15) * 4, frame[l3 + 9]
            (fragment,) = _word.unpack_from(frame, l3 + 6)
            if header < 20 or fragment & 0x1FFF:
                return None
        else:
            header, protocol = 40, frame[l3 + 6]
        l4 = l3 + header
        if protocol not in _NEEDED or packet.end - l4 < 8:
            return None
        source_port, destination_port = _ports.unpack_from(frame, l4)
        quoted = Ends(
            frame[l3 + layout.source : l3 + layout.destination],
            source_port,
            frame[l3 + layout.destination : l3 + layout.addresses_end],
            destination_port,
        )
        if quoted[:2] == (self.config.hop, self.config.hop_port):
            flow = self.by_client.get((protocol, quoted.destination, destination_port))
            if flow is None or packet.destination != self.config.hop:
                return None
            return flow, l4, False
        flow = self.flows.get((protocol, source_port))
        if flow is None or flow.orphan or quoted != flow.onward(self.config)[1]:
            return None
        if packet.destination != flow.out:
            return None
        return flow, l4, True
