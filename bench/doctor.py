# SPDX-License-Identifier: Apache-2.0
"""A read-only look at every host: what would keep a run from working, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from bench import clocks, doctor_firewall, doctor_machine, doctor_wiring, facts, readiness
from bench.chain import Chain, Host
from bench.doctor_nic import examine_nics
from bench.finding import Finding
from bench.fleet import Fleet
from bench.readiness_ports import overlap, overlapping, port_range

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
    asked: dict[str, tuple[float, float]] = {}
    rules: dict[str, dict[str, Any]] = {}
    ways: dict[str, dict[str, Any]] = {}

    def look(host: Host) -> dict[str, Any]:
        begun = time.time()
        found = facts.of_hosts(fleet, [host])[host.name]
        asked[host.name] = (begun, time.time())
        addresses = [to.data_ip for to in doctor_wiring.following(chain, host)]
        ways[host.name] = facts.of_ways(fleet, host, addresses)
        rules[host.name] = facts.of_firewall(fleet, host, doctor_firewall.packets(chain, host))
        return found

    with Fleet([]) as fleet:
        failures = fleet.try_connect(chain.hosts)
        silent = {error.host for error in failures}
        reachable = [host for host in chain.hosts if host.name not in silent]
        seen, refused = fleet.try_each(look, reachable)
    findings = [
        Finding(error.host or "?", "problem", error.cause, error.remedy or "")
        for error in (*failures, *refused)
    ]
    for host in chain.hosts:
        if host.name in seen:
            findings += _host(host, seen[host.name], asked[host.name])
            findings += doctor_firewall.findings(host, rules[host.name])
            findings += doctor_wiring.of_ways(chain, host, ways[host.name], seen)
    findings += doctor_machine.of_machines(chain, seen)
    findings += doctor_wiring.of_speeds(chain, seen)
    findings += readiness.of_machines(chain, seen)
    findings += readiness.of_chain(chain, seen)
    findings += overlapping(chain, seen)
    names = [host.name for host in chain.hosts]
    return sorted(findings, key=lambda finding: names.index(finding.host))


def _host(host: Host, found: dict[str, Any], asked: tuple[float, float]) -> Iterator[Finding]:
    def problem(text: str, remedy: str) -> Finding:
        return Finding(host.name, "problem", text, remedy)

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
    offset_s, uncertainty_s = clocks.offset(asked[0], found["time"], asked[1] - asked[0])
    if (off := clocks.finding(host.name, offset_s, uncertainty_s)) is not None:
        yield off
    own, nat = port_range(found), host.nat_ports
    if host.role == "hop" and own and nat and overlap(own, nat):
        yield problem(
            f"nat_ports {nat[0]}-{nat[1]} overlap net.ipv4.ip_local_port_range {own[0]}-{own[1]}: "
            "a socket of the host may take a flow's port",
            "choose nat_ports outside that range, or move it",
        )
    yield from readiness.of_host(host, found)
    yield from examine_nics(host, found)
    yield from doctor_wiring.of_two_nics(host, found)
    for name, nic in readiness.nics(host, found):
        yield from doctor_wiring.of_link(host, name, nic)
        yield from doctor_machine.of_nic(host, name, nic, found)
