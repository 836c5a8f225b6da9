# SPDX-License-Identifier: Apache-2.0
"""What of a host's NICs would keep a run from working: link, forwarding, XDP in the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from bench.chain import Host
from bench.finding import Finding
from bench.xdp_drivers import (
    BOND_KERNEL,
    DRIVERS,
    HALF,
    OFFLOAD_DRIVERS,
    PAGE_MTU,
    WITHOUT,
    kernel_of,
    words,
)

# A feature's name in ethtool's output, and the shorter one that ethtool -K takes.
_RECEIVE_OFFLOADS = (("large-receive-offload", "lro"), ("rx-gro-hw", "rx-gro-hw"))
# virtio_net switches them off itself where it can; where it cannot, ethtool cannot either, and
# deploy has the driver's own word (virtnet_xdp_set).
_UNTROUBLED = ("veth", "virtio_net")
# Twice IXGBE_MAX_XDP_QS: two CPUs may share a queue, and no more (ixgbe_xdp_setup).
_IXGBE_CPUS = 128


def examine_nics(host: Host, found: Mapping[str, Any]) -> Iterator[Finding]:
    """Look at the data NIC, and at a hop's egress NIC. found: the host's facts."""
    findings = list(_link(host, "data_nic", host.data_nic, found["nic"]))
    nics = [(host.data_nic, found["nic"])]
    if host.role == "hop" and host.egress_nic:
        findings += _link(host, "egress_nic", host.egress_nic, found["egress_nic"])
        nics.append((host.egress_nic, found["egress_nic"]))
        findings += _both(host, found["nic"], found["egress_nic"])
    for name, nic in nics:
        if host.role == "hop" and nic is not None:
            findings += _xdp(host, name, nic, found)
            findings += _forwarding(host, name, nic, found)
    # Once is enough for what two NICs share.
    yield from dict.fromkeys(findings)


def _both(
    host: Host, data: Mapping[str, Any] | None, egress: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Look at a hop's two NICs together: the forwarder either writes tags or does not."""
    if data and egress and (data["vlan_id"] is None) is not (egress["vlan_id"] is None):
        yield Finding(
            host.name,
            "problem",
            f"only one of {host.data_nic} and {host.egress_nic} is a VLAN: XDP refuses such a pair",
            "make both VLANs, or neither",
        )


def title(name: str, nic: Mapping[str, Any]) -> str:
    """Return a NIC's name and driver: `eth0 (ixgbe)`."""
    return f"{name} ({nic.get('driver') or 'unknown driver'})"


def _link(host: Host, variable: str, name: str, nic: Mapping[str, Any] | None) -> Iterator[Finding]:
    problem = partial(Finding, host.name, "problem")
    if nic is None:
        yield problem(f"no NIC {name}", f"correct {variable} in the inventory")
        return
    if variable == "data_nic" and host.data_ip not in nic["addresses"]:
        yield problem(
            f"{title(name, nic)} does not have {host.data_ip}",
            "correct data_ip, or give the NIC the address",
        )
    if not nic["up"]:
        yield problem(f"{title(name, nic)} is down", f"ip link set {name} up")


def _xdp(
    host: Host, name: str, nic: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Finding]:
    """Foresee why XDP would not attach, or not see what it should."""
    problem = partial(Finding, host.name, "problem")
    warning = partial(Finding, host.name, "warning")
    if nic["lower_nic"] is not None:
        # Tags are XDP's to read on the NIC below, unless that takes them off.
        tag, name, nic = nic["vlan_id"], nic["lower"], nic["lower_nic"]
        if nic["offloads"].get("rx-vlan-offload") == "on":
            yield problem(
                f"{name} takes VLAN tags off (rx-vlan-offload): XDP cannot tell VLAN {tag}",
                f"ethtool -K {name} rxvlan off",
            )
    driver = nic["driver"]
    called = title(name, nic)
    if host.xdp_attach == "offload" and driver not in OFFLOAD_DRIVERS:
        yield warning(
            f"{called}: driver is not known to run XDP on the NIC itself",
            "set xdp_attach=native, or use a NIC of the driver nfp",
        )
    yield from _driver(host, called, driver, found["kernel"])
    largest = DRIVERS[driver].max_mtu if driver in DRIVERS else PAGE_MTU
    if host.xdp_attach == "native" and (nic["mtu"] or 0) > largest:
        yield problem(
            f"MTU {nic['mtu']} on {called}: native XDP without fragments needs a packet in one "
            f"page, {largest} bytes at most",
            f"ip link set {name} mtu 1500",
        )
    for offload, short in _RECEIVE_OFFLOADS:
        if nic["offloads"].get(offload) == "on" and driver not in _UNTROUBLED:
            yield warning(
                f"{offload} is on, with which drivers refuse native XDP",
                f"ethtool -K {name} {short} off",
            )
    if host.xdp_attach == "native":
        yield from _refused(host, name, nic, found["cpus"] or 1)
    now, most, cpus = nic["channels"]["combined"], nic["channels"]["combined_max"], found["cpus"]
    cpus = cpus or 1
    if driver in DRIVERS and DRIVERS[driver].limits == HALF and now is not None and 2 * now > most:
        yield problem(
            f"{called} has {now} queues of at most {most}, and native XDP wants half of them free",
            f"ethtool -L {name} combined {most // 2}",
        )
    # virtnet_xdp_set (drivers/net/virtio_net.c) wants a queue to send by for every CPU.
    if driver == "virtio_net" and now is not None and now + cpus > most:
        yield warning(
            f"{called} has {now} queues of at most {most}, and XDP wants one for each of {cpus} "
            "CPUs: it will share queues, which is slow",
            f"ethtool -L {name} combined {most - cpus}"
            if most > cpus
            else f"give the virtual machine {2 * cpus} queues",
        )


def _refused(host: Host, name: str, nic: Mapping[str, Any], cpus: int) -> Iterator[Finding]:
    """Foresee what single drivers refuse native XDP with."""
    problem, called = partial(Finding, host.name, "problem"), title(name, nic)
    if nic["driver"] == "ixgbe" and (functions := nic.get("virtual_functions") or 0) > 0:
        yield problem(
            f"{called} has {functions} virtual functions (SR-IOV), with which it refuses native "
            "XDP",
            f"echo 0 > /sys/class/net/{name}/device/sriov_numvfs",
        )
    if nic["driver"] == "ixgbe" and cpus > _IXGBE_CPUS:
        yield problem(
            f"{called} refuses native XDP on more than {_IXGBE_CPUS} CPUs, and here are {cpus}",
            "nr_cpus=128 on the kernel's command line, or another NIC",
        )
    apart = nic["channels"].get("rx")
    if nic["driver"] == "bnxt_en" and nic["channels"]["combined"] == 0 and apart:
        yield problem(
            f"{called} has its queues apart, {apart} to receive by, and wants them combined for "
            "native XDP",
            f"ethtool -L {name} rx 0 tx 0 combined {apart}",
        )


def _driver(host: Host, called: str, driver: str | None, release: str) -> Iterator[Finding]:
    """Say what is known of the driver: from which kernel on it runs XDP natively, if at all."""
    known, kernel = DRIVERS.get(driver or ""), kernel_of(release)
    since = BOND_KERNEL if driver == "bonding" else known.first_kernel if known else None
    old = since is not None and kernel is not None and kernel < since
    if known and not old:
        yield Finding(host.name, "ok", f"{called}: driver is known to run XDP natively")
    if host.xdp_attach != "native" or (known and not old):
        return
    if since is not None and old:
        yield Finding(
            host.name,
            "warning",
            f"{called}: Linux {release} is older than native XDP in this driver, which came with "
            f"{words(since)}",
            f"use Linux {words(since)} or later, or set xdp_attach=generic",
        )
    elif driver in WITHOUT:
        yield Finding(
            host.name,
            "problem",
            f"{called}: driver has no native XDP",
            "use another NIC, or set xdp_attach=generic",
        )
    else:
        yield Finding(
            host.name,
            "warning",
            f"{called}: driver is not known to run XDP natively",
            "try it, or set xdp_attach=generic",
        )


def _forwarding(
    host: Host, name: str, nic: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Finding]:
    called = title(name, nic)
    problem = partial(Finding, host.name, "problem")
    warning = partial(Finding, host.name, "warning")
    if host.family == 6:
        if nic["forwarding_ipv6"] != "1":
            yield problem(f"forwarding is off on {called}", "run bench deploy")
        elif found["forwarding_ipv6_all"] != "1" and nic["force_forwarding_ipv6"] is None:
            yield warning(
                "before Linux 6.17 the stack forwards IPv6 for all NICs or for none: nft will not",
                "leave nft out, or set net.ipv6.conf.all.forwarding=1 where no NIC lives by router "
                "advertisements",
            )
        elif found["forwarding_ipv6_all"] != "1" and nic["force_forwarding_ipv6"] != "1":
            yield problem(f"force_forwarding is off on {called}", "run bench deploy")
        return
    if nic["forwarding"] != "1":
        yield problem(f"forwarding is off on {called}", "run bench deploy")
    if nic["accept_local"] == "0":
        yield warning(
            f"accept_local is off on {called}: what XDP hands to the stack while the next hop's "
            "MAC address is not known is dropped",
            "run bench deploy",
        )
    if nic["send_redirects"] == "1" or found["send_redirects_all"] == "1":
        yield warning(
            "ICMP redirects are on, which costs nft work that XDP does not do",
            "run bench deploy"
            if nic["send_redirects"] == "1"
            else "sysctl net.ipv4.conf.all.send_redirects=0: a deploy leaves alone what holds for "
            "other NICs, too",
        )
