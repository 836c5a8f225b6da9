# SPDX-License-Identifier: Apache-2.0
"""What is foreseen of a plan: too few ports, short queues, tables that fill up."""

from __future__ import annotations

from pathlib import Path

import pytest
from ready import (
    CHAIN,
    CLIENT,
    PLANNED,
    SERVER,
    everywhere,
    facts,
    on,
    only,
    without_timestamps,
)

from bench.chain import Chain, Host
from bench.readiness import Planned, findings

MANY = 28233  # One connection more than the range of ports has.


@pytest.mark.parametrize(
    ("host", "planned", "hosts"),
    [
        # The client's connections end at the server, with nft, XDP and without hops.
        ("client", Planned(MANY + 2488, 25, ("nft",)), ["client"]),
        ("server", Planned(MANY + 2488, 25, ("direct",)), ["client"]),
        ("client", Planned(30720, 25, ("nft",)), []),
        ("hop1", Planned(10**6, 25, ("nft", "xdp")), []),
        # With socat also at every hop, which has its own ports.
        ("hop1", Planned(10**6, 25, ("socat",)), ["client", "hop1"]),
        ("server", Planned(MANY, 25, ("socat",)), ["hop1", "hop2"]),
        ("server", Planned(MANY - 1, 25, ("socat",)), []),
        # It is how many a minute that counts.
        ("server", Planned(10**6, 25, ("nft",), 500.0), []),
        ("server", Planned(10**6, 25, ("nft",), 520.0), ["client"]),
        ("server", Planned(1000, 25, ("nft",), 10_000.0), []),
    ],
)
def test_ports_that_have_to_rest(host: str, planned: Planned, hosts: list[str]) -> None:
    found = findings(CHAIN, on(host, **without_timestamps()), planned)
    assert [finding.host for finding in found] == hosts
    for finding in found:
        assert finding.level == "warning"
        assert f"timestamps on {host} a port" in finding.text
        assert "net.ipv4.tcp_timestamps=1" in finding.remedy


@pytest.mark.parametrize("value", ["1", "2", None])
def test_timestamps_let_ports_be_used_again(value: str | None) -> None:
    changes = {"sysctls__net.ipv4.tcp_timestamps": value}
    assert findings(CHAIN, everywhere(**changes), Planned(10**9, 25, ("nft",))) == []


@pytest.mark.parametrize(
    ("host", "concurrency", "modes", "found"),
    [
        ("client", 100, ("direct",), []),
        ("client", 101, ("direct",), ["client"]),
        ("hop2", 101, ("nft", "xdp"), []),
        ("hop2", 101, ("socat",), ["hop2"]),
        ("server", 101, ("socat",), []),
    ],
)
def test_more_at_a_time_than_ports(
    host: str, concurrency: int, modes: tuple[str, ...], found: list[str]
) -> None:
    few = on(host, ip_local_port_range=["40000", "40099"], tcp_time_wait=0)
    problems = findings(CHAIN, few, Planned(1000, concurrency, modes))
    assert [finding.host for finding in problems] == found
    for finding in problems:
        assert finding.level == "problem"
        assert finding.text.startswith("101 connections at a time, and 100 ports")


@pytest.mark.parametrize(
    ("host", "modes", "found"),
    [
        ("server", ("direct",), ["server"]),
        ("hop1", ("direct",), []),
        ("hop1", ("socat",), ["hop1"]),
        ("client", ("socat",), []),
    ],
)
def test_short_queues(host: str, modes: tuple[str, ...], found: list[str]) -> None:
    short = on(host, **{"sysctls__net.core.somaxconn": "24"})
    warnings = findings(CHAIN, short, Planned(1000, 25, modes))
    assert [finding.host for finding in warnings] == found
    assert findings(CHAIN, short, Planned(1000, 24, modes)) == []


@pytest.mark.parametrize(
    ("planned", "text"),
    [
        (Planned(5000, 25, ("nft",)), ""),
        (Planned(5001, 25, ("xdp",)), ""),
        (Planned(5001, 25, ("nft",)), "has room for 5000 connections, and nft may need 5001"),
        # A port that is used again takes its old place.
        (Planned(10**6, 25, ("nft",)), "and nft may need 30720"),
        (Planned(10**6, 25, ("nft",), 50.0), "and nft may need 6000"),
        (Planned(10**6, 25, ("nft",), 40.0), ""),
    ],
)
def test_a_table_that_fills_up(planned: Planned, text: str) -> None:
    few = on("hop1", **{"sysctls__net.netfilter.nf_conntrack_max": "5000"})
    found = findings(CHAIN, few, planned)
    assert [finding.host for finding in found] == (["hop1"] if text else [])
    assert not text or text in found[0].text


@pytest.mark.parametrize(("concurrency", "problems"), [(16, 0), (17, 1)])
def test_few_ports_of_a_nat(concurrency: int, problems: int) -> None:
    hop = Host("hop1", "hop", "198.18.0.2", "eth0", 7000, nat_ports=(2000, 2015))
    chain = Chain(Path("chain.ini"), CLIENT, (hop,), SERVER)
    assert len(findings(chain, everywhere(), Planned(100, concurrency, ("xdp",)))) == problems
    assert findings(chain, everywhere(), Planned(100, concurrency, ("nft",))) == []


def test_ranges_of_client_and_hops_overlap() -> None:
    same = {**everywhere(), "client": facts()}
    finding = only(findings(CHAIN, same, PLANNED))
    assert "overlaps that of hop1" in finding.text
    for modes in (("nft",), ("socat",), ("direct", "xdp")):
        assert findings(CHAIN, same, Planned(100, 1, modes)) == []
