# SPDX-License-Identifier: Apache-2.0
"""A read-only look at every host: what would keep a run from working, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from bench import facts, readiness
from bench.chain import Chain, Host
from bench.doctor_nic import examine_nics
from bench.errors import BenchError
from bench.finding import Finding
from bench.fleet import Fleet
from bench.readiness_ports import overlap, overlapping, port_range

# A clock this far off makes logs of two hosts hard to lay side by side; no figure depends on it.
_CLOCK_LIMIT_S = 5.0
_MODULES_OF_ROLE = {
    "client": (("bcc", "python3-bpfcc"),),
    "hop": (("bcc", "python3-bpfcc"), ("nftables", "python3-nftables")),
    "server": (),
}
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
    findings += readiness.of_machines(chain, seen)
    findings += readiness.of_chain(chain, seen)
    findings += overlapping(chain, seen)
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
    # A hop's forwarder is a BPF program, and so is the client's connection timer.
    if not found["bpf"] and host.role != "server":
        yield problem("this kernel has no BPF", "use a kernel with CONFIG_BPF_SYSCALL")
    for tool in _TOOLS_OF_ROLE[host.role]:
        if found["tools"].get(tool) is None:
            yield problem(f"{tool} is not installed", "run bench deploy")
    for module, package in _MODULES_OF_ROLE[host.role]:
        if found["modules"].get(module) is None:
            yield problem(f"{package} is not installed", "run bench deploy")
    if found["kernel_headers"] is None and host.role != "server":
        yield problem(
            f"no kernel headers for {found['kernel']}",
            "run bench deploy; where none exist, set hopbench_headers_link=true",
        )
    if abs(found["time"] - asked_at) > _CLOCK_LIMIT_S:
        yield warning(
            f"its clock is {found['time'] - asked_at:+.0f} s off",
            "logs will not line up; no figure depends on it",
        )
    own, nat = port_range(found), host.nat_ports
    if host.role == "hop" and own and nat and overlap(own, nat):
        yield problem(
            f"nat_ports {nat[0]}-{nat[1]} overlap net.ipv4.ip_local_port_range {own[0]}-{own[1]}: "
            "a socket of the host may take a flow's port",
            "choose nat_ports outside that range, or move it",
        )
    yield from readiness.of_host(host, found)
    yield from examine_nics(host, found)
