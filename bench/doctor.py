# SPDX-License-Identifier: Apache-2.0
"""A read-only look at every host: what would keep a run from working, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from bench import facts
from bench.chain import Chain, Host
from bench.doctor_nic import examine_nics
from bench.errors import BenchError
from bench.finding import Finding
from bench.fleet import Fleet

# A clock this far off makes logs of two hosts hard to lay side by side; no figure depends on it.
_CLOCK_LIMIT_S = 5.0
_TOOLS_OF_ROLE = {
    "client": ("siege",),
    "hop": ("socat", "nft", "unshare"),
    "server": ("nginx", "unshare"),
}


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
    own, nat = _range(found), host.nat_ports
    if host.role == "hop" and own and nat and _overlap(own, nat):
        yield problem(
            f"nat_ports {nat[0]}-{nat[1]} overlap net.ipv4.ip_local_port_range {own[0]}-{own[1]}: "
            "a socket of the host may take a flow's port",
            "choose nat_ports outside that range, or move it",
        )
    yield from examine_nics(host, found)


def _ports(chain: Chain, seen: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """nft keeps the client's source port and socat takes the hop's: they should be apart."""
    ours = _range(seen[chain.client.name])
    for hop in chain.hops:
        theirs = _range(seen.get(hop.name, {}))
        if ours and theirs and _overlap(ours, theirs):
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


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
