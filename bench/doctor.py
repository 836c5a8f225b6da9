# SPDX-License-Identifier: Apache-2.0
"""A read-only look at every host: what would keep a run from working, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bench import facts
from bench.chain import Chain, Host
from bench.errors import BenchError
from bench.fleet import Fleet

Level = Literal["ok", "warning", "problem"]

# Drivers that are known to run XDP natively, as far as common hosts have them (kernel 6.x).
NATIVE_DRIVERS = frozenset(
    [
        "veth",
        "virtio_net",
        "tun",
        "ixgbe",
        "ixgbevf",
        "i40e",
        "iavf",
        "ice",
        "igb",
        "igc",
        "mlx4_en",
        "mlx5_core",
        "bnxt_en",
        "nfp",
        "ena",
        "gve",
        "hv_netvsc",
        "mvneta",
        "mvpp2",
        "sfc",
        "qede",
        "thunderx-nicvf",
        "stmmac",
        "tsnep",
        "vmxnet3",
        "xen_netfront",
        "dpaa2-eth",
        "fsl_enetc",
        "cpsw",
    ]
)
# A clock this far off makes logs of two hosts hard to lay side by side; no figure depends on it.
_CLOCK_LIMIT_S = 5.0
_TOOLS_OF_ROLE = {
    "client": ("siege",),
    "hop": ("socat", "nft", "unshare"),
    "server": ("nginx", "unshare"),
}


@dataclass(frozen=True)
class Finding:
    """One thing seen on one host. remedy: what to do about it, empty when it is fine."""

    host: str
    level: Level
    text: str
    remedy: str = ""


def examine(chain: Chain) -> list[Finding]:
    """Look at every host of the chain, in chain order. Changes nothing."""
    findings: list[Finding] = []
    reachable: list[Host] = []
    with Fleet([]) as fleet:
        for host in chain.hosts:
            try:
                fleet.connect([host])
            except BenchError as error:
                findings.append(Finding(host.name, "problem", error.cause, error.remedy or ""))
            else:
                reachable.append(host)
        seen: dict[str, dict[str, Any]] = {}
        asked_at = {}
        for host in reachable:
            asked_at[host.name] = time.time()
            try:
                seen |= facts.of_hosts(fleet, [host])
            except BenchError as error:
                findings.append(Finding(host.name, "problem", error.cause, error.remedy or ""))
    for host in chain.hosts:
        if host.name in seen:
            findings += _host(host, seen[host.name], asked_at[host.name])
    if chain.client.name in seen:
        findings += _ports(chain, seen)
    names = [host.name for host in chain.hosts]
    return sorted(findings, key=lambda finding: names.index(finding.host))


def _host(host: Host, found: dict[str, Any], asked_at: float) -> Iterator[Finding]:
    def problem(text: str, remedy: str) -> Finding:
        return Finding(host.name, "problem", text, remedy)

    def warning(text: str, remedy: str) -> Finding:
        return Finding(host.name, "warning", text, remedy)

    yield Finding(host.name, "ok", f"{found['os']}, kernel {found['kernel']}, {found['cpus']} CPUs")
    if found["uid"] != 0:
        yield problem("commands do not run as root", "set ansible_become: true")
    if not found["bpf"] and host.role == "hop":
        yield problem("this kernel has no BPF", "use a kernel with CONFIG_BPF_SYSCALL")
    for tool in _TOOLS_OF_ROLE[host.role]:
        if found["tools"].get(tool) is None:
            yield problem(f"{tool} is not installed", "run bench deploy")
    if host.role == "hop":
        for module, package in (("bcc", "python3-bpfcc"), ("nftables", "python3-nftables")):
            if found["modules"].get(module) is None:
                yield problem(f"{package} is not installed", "run bench deploy")
        if found["kernel_headers"] is None:
            yield problem(
                f"no kernel headers for {found['kernel']}",
                "run bench deploy; where none exist, set hopbench_headers_link=true",
            )
    if abs(found["time"] - asked_at) > _CLOCK_LIMIT_S:
        yield warning(
            f"its clock is {found['time'] - asked_at:+.0f} s off",
            "logs will not line up; no figure depends on it",
        )
    if found["load_1min"] > 0.5 * (found["cpus"] or 1):
        yield warning(
            f"load average {found['load_1min']:.1f} on {found['cpus']} CPUs",
            "end what else runs before measuring",
        )
    if found["governor"] not in (None, "performance"):
        yield warning(f"CPU governor {found['governor']}", "cpupower frequency-set -g performance")
    yield from _nic(host, found)


def _nic(host: Host, found: dict[str, Any]) -> Iterator[Finding]:
    nic = found["nic"]
    if nic is None:
        yield Finding(
            host.name, "problem", f"no NIC {host.data_nic}", "correct data_nic in the inventory"
        )
        return
    name = f"{host.data_nic} ({nic['driver'] or 'unknown driver'})"
    if host.data_ip not in nic["addresses"]:
        yield Finding(
            host.name,
            "problem",
            f"{name} does not have {host.data_ip}",
            "correct data_ip, or give the NIC the address",
        )
    if not nic["up"]:
        yield Finding(host.name, "problem", f"{name} is down", f"ip link set {host.data_nic} up")
    if host.role != "hop":
        return
    if nic["xdp_mode"]:
        yield Finding(
            host.name,
            "problem",
            f"{name} already runs XDP program {nic['xdp_program']}",
            "detach it, or wait for the run that holds it; bench clean removes our own",
        )
    if nic["driver"] in NATIVE_DRIVERS:
        yield Finding(host.name, "ok", f"{name}: driver is known to run XDP natively")
    elif host.xdp_attach == "native":
        yield Finding(
            host.name,
            "warning",
            f"{name}: driver is not known to run XDP natively",
            "try it, or set xdp_attach=generic",
        )
    if nic["forwarding"] != "1":
        yield Finding(host.name, "problem", f"forwarding is off on {name}", "run bench deploy")
    if nic["send_redirects"] == "1" or found["send_redirects_all"] == "1":
        yield Finding(
            host.name,
            "warning",
            "ICMP redirects are on, which costs nft work that XDP does not do",
            "sysctl net.ipv4.conf.all.send_redirects=0",
        )
    for offload in ("large-receive-offload", "rx-gro-hw"):
        if nic["offloads"].get(offload) == "on" and nic["driver"] != "veth":
            yield Finding(
                host.name,
                "warning",
                f"{offload} is on, with which drivers refuse native XDP",
                f"ethtool -K {host.data_nic} {'lro' if offload[0] == 'l' else 'rx-gro-hw'} off",
            )


def _ports(chain: Chain, seen: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """nft keeps the client's source port and socat takes the hop's: they should be apart."""
    ours = _range(seen[chain.client.name])
    for hop in chain.hops:
        theirs = _range(seen.get(hop.name, {}))
        if ours and theirs and ours[0] <= theirs[1] and theirs[0] <= ours[1]:
            yield Finding(
                chain.client.name,
                "warning",
                f"net.ipv4.ip_local_port_range overlaps that of {hop.name}: after socat, nft may "
                "meet ports in TIME_WAIT at the server",
                'sysctl net.ipv4.ip_local_port_range="2048 32767" on the client',
            )
            return


def _range(found: dict[str, Any]) -> tuple[int, int] | None:
    words = found.get("ip_local_port_range") or []
    return (int(words[0]), int(words[1])) if len(words) == 2 else None
