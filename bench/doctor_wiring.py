# SPDX-License-Identifier: Apache-2.0
"""Whether the data NICs are wired as the inventory says: ways, neighbours, links, and SSH apart."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from bench.chain import Chain, Host
from bench.doctor_nic import title
from bench.finding import Finding
from bench.readiness import get

Facts = Mapping[str, Any]


def following(chain: Chain, host: Host) -> list[Host]:
    """Return the hosts that packets go to from a host: the next first, then the server.

    With less than all hops, any of them may be the last; with none, the client talks to the server.
    """
    if host.role == "server":
        return []
    hosts = list(chain.hosts)
    return list(dict.fromkeys([hosts[hosts.index(host) + 1], chain.server]))


def of_ways(
    chain: Chain, host: Host, found: Mapping[str, Any], seen: Mapping[str, Facts]
) -> Iterator[Finding]:
    """Look at the ways from a host to those that follow. found: what of_ways of facts.py returned.

    seen: {host: its facts}. Only the next host has to be reached: the server is, too, wherever all
    data NICs are on one network, and if not, runs have to have all hops.
    """
    egress = (host.role == "hop" and host.egress_nic) or host.data_nic
    cut_off = []
    for place, to in enumerate(following(chain, host)):
        wrong = _way(host, egress, to, found["ways"][to.data_ip], seen.get(to.name))
        if wrong is not None and place == 0:
            yield wrong
        elif wrong is not None:
            cut_off.append(to.name)
    if cut_off:
        yield Finding(
            host.name,
            "warning",
            f"{cut_off[0]} is not a neighbour on {egress}",
            f"measure with all hops alone (--hops {len(chain.hops)}), or join all data NICs by one "
            "network",
        )
    nic = found["ssh_nic"]
    data = {host.data_nic: "nic", egress: "nic" if egress == host.data_nic else "egress_nic"}
    # A veth is not reset.
    if nic in data and get(seen.get(host.name), data[nic], "driver") != "veth":
        yield Finding(
            host.name,
            "warning",
            f"SSH comes by {nic}, which is a data NIC: it lives on, but a driver that resets its "
            "NIC for XDP interrupts it",
            "give ansible_host an address of another NIC",
        )


def _way(
    host: Host, egress: str, to: Host, way: Mapping[str, Any], theirs: Facts | None
) -> Finding | None:
    """Return what is wrong with the way to a host."""
    where = f"{to.name} ({to.data_ip})"
    if way["local"]:
        text = f"{where} has an address that is this host's own, too"
        return Finding(host.name, "problem", text, "give each host an address of its own")
    if way["nic"] is None:
        text = f"there is no way to {where}"
        return Finding(host.name, "problem", text, f"give {egress} an address on its network")
    if way["nic"] != egress:
        text = f"the way to {where} leaves by {way['nic']}, not by {egress}"
        remedy = "correct routes or rules (ip rule), or data_nic and egress_nic"
        return Finding(host.name, "problem", text, remedy)
    if way["gateway"]:
        text = f"the way to {where} leads by the router {way['gateway']}"
        remedy = f"give {egress} an address on the network of {to.name}: hops are neighbours"
        return Finding(host.name, "problem", text, remedy)
    if way["mac"] is None:
        text = f"{where} does not answer on {egress}"
        remedy = "check cables, the switch's VLANs, and that both links are up"
        return Finding(host.name, "problem", text, remedy)
    own = theirs["nic"]["mac"] if theirs and theirs.get("nic") else None
    if own and own.lower() != way["mac"].lower():
        text = f"{way['mac']} answers for {where}, whose {to.data_nic} has {own}"
        remedy = "an address is taken twice, or two NICs of a host are on one network: arp_ignore=1"
        return Finding(host.name, "problem", text, remedy)
    return None


def of_link(host: Host, name: str, nic: Facts) -> Iterator[Finding]:
    """Look at what a data NIC is: half duplex, part of a bond or bridge, no cable at all."""

    def warning(text: str, remedy: str) -> Finding:
        return Finding(host.name, "warning", text, remedy)

    called = title(name, nic)
    if nic.get("duplex") == "half":
        yield warning(f"{called} runs at half duplex", "let both ends negotiate: ethtool -s NIC")
    if nic.get("master"):
        yield Finding(
            host.name,
            "problem",
            f"{called} belongs to {nic['master']}, which takes its packets",
            f"ip link set {name} nomaster",
        )
    if nic.get("kind") in ("bond", "team"):
        yield warning(
            f"{name} is a {nic['kind']} of several NICs: which of them a flow takes is chance",
            "use one NIC",
        )
    if nic.get("wireless"):
        yield warning(f"{called} is wireless: figures are those of the air", "use a cable")
    if (nic.get("eee") or {}).get("active"):
        yield warning(
            f"{called} and the other end let their link sleep between packets (EEE)",
            f"ethtool --set-eee {name} eee off",
        )
    pause = nic.get("pause") or {}
    if pause.get("rx") and pause.get("tx"):
        yield warning(
            f"{called} sends and obeys pause frames: one slow hop then stops those before it",
            f"ethtool -A {name} autoneg off rx off tx off, on the switch's ports, too",
        )


def of_two_nics(host: Host, found: Facts) -> Iterator[Finding]:
    """Look at a hop whose two NICs are on one network: an IPv4 host answers ARP by either."""
    data, egress = found.get("nic") or {}, found.get("egress_nic") or {}
    if host.role != "hop" or not host.egress_nic or host.family == 6:
        return
    networks = [
        network
        for text in data.get("networks") or []
        if (network := ipaddress.ip_network(text, strict=False)).version == 4
    ]
    theirs = [
        address
        for text in egress.get("addresses") or []
        if (address := ipaddress.ip_address(text)).version == 4
    ]
    if not any(address in network for address in theirs for network in networks):
        return
    # The higher counts, as IN_DEV_ARP_IGNORE has it (include/linux/inetdevice.h). Each is a digit,
    # and one that is not known is none of them.
    everywhere = (found.get("sysctls") or {}).get("net.ipv4.conf.all.arp_ignore")
    if "0" in {max(everywhere or "?", nic.get("arp_ignore") or "?") for nic in (data, egress)}:
        yield Finding(
            host.name,
            "warning",
            f"{host.data_nic} and {host.egress_nic} are on one network, and each answers for the "
            "other's address",
            "sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
        )


def of_speeds(chain: Chain, seen: Mapping[str, Facts]) -> Iterator[Finding]:
    """Yield one finding when links differ in speed: the slowest is what bulk transfer measures."""
    speeds: dict[int, list[str]] = {}
    for host in chain.hosts:
        for key in ("nic", "egress_nic"):
            nic = seen.get(host.name, {}).get(key)
            speed = nic["speed_mbps"] if nic and nic.get("pcie") else None
            # What a veth and a virtio NIC say of their speed means nothing.
            if speed:
                speeds.setdefault(speed, []).append(host.name)
    if len(speeds) > 1:
        said = "; ".join(
            f"{speed / 1000:g} Gb/s on {', '.join(dict.fromkeys(names))}"
            for speed, names in sorted(speeds.items())
        )
        first = next(host.name for host in chain.hosts if host.name in speeds[min(speeds)])
        yield Finding(
            first,
            "warning",
            f"links are not alike: {said}",
            "give every host the same NICs and cables: bulk transfer is as fast as the slowest",
        )
