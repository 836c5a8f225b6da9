# SPDX-License-Identifier: Apache-2.0
"""NICs that cannot run XDP natively, of real kinds: the hop says which, by what driver, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.model import Lab
from tests.lab.agents import DirectAgent
from tests.lab.conftest import bench, inside


@contextlib.contextmanager
def nic(lab: Lab, host: str, *words: str) -> Iterator[None]:
    """A NIC named odd0 on a host, ready to forward, by which the server is reached."""
    inside(lab, host, "ip", "link", "add", *words)
    try:
        inside(lab, host, "ip", "link", "set", "odd0", "up")
        inside(lab, host, "sysctl", "-qw", "net.ipv4.conf.odd0.forwarding=1")
        inside(lab, host, "ip", "route", "add", f"{lab.hosts[-1].data_ip}/32", "dev", "odd0")
        yield
    finally:
        inside(lab, host, "ip", "link", "delete", "odd0")


@pytest.mark.parametrize(
    ("words", "cause", "remedy"),
    [
        (
            ("odd0", "type", "bridge"),
            "odd0: its driver bridge refuses XDP in native mode: Underlying driver does not",
            "choose xdp_attach=generic, or a NIC whose driver supports XDP",
        ),
        (
            ("link", "eth0", "name", "odd0", "type", "macvlan"),
            "odd0: its driver macvlan refuses XDP in native mode: Underlying driver does not",
            "choose xdp_attach=generic, or a NIC whose driver supports XDP",
        ),
        (
            ("odd0", "type", "veth", "peer", "name", "odd1", "mtu", "9000"),
            "odd0: its driver veth refuses XDP in native mode: veth: Peer MTU is too large",
            "give the peer of odd0 a smaller MTU: a packet has to fit one page",
        ),
    ],
    ids=["bridge", "macvlan", "mtu"],
)
def test_why_a_nic_refuses(lab: Lab, words: tuple[str, ...], cause: str, remedy: str) -> None:
    with nic(lab, "hop1", *words), DirectAgent(lab, "hop1") as agent:
        assert agent.place(data_nic="odd0")["event"] == "ready"
        answer = agent.ask(mode="xdp", next_ip=lab.hosts[-1].data_ip, next_port=8000)
    assert answer["event"] == "error"
    assert answer["cause"].startswith(cause)
    assert answer["remedy"] == remedy


def test_a_run_is_refused_before_anything_is_measured(lab: Lab, tmp_path: Path) -> None:
    """Of all hops one has a NIC without XDP; the modes before would have been measured first."""
    lines = lab.inventory.read_text().splitlines()
    odd = [f"{line} data_nic=odd0" if line.startswith("hop2 ") else line for line in lines]
    inventory = tmp_path / "inventory.ini"
    inventory.write_text("\n".join(odd) + "\n")
    with nic(lab, "hop2", "link", "eth0", "name", "odd0", "type", "macvlan"):
        done = bench(
            *("run", "-i", inventory, "--mode", "direct,xdp", "--hops", "2", "--size", "624"),
            *("--blocks", "1", "--offloads", "native", "--output", tmp_path / "results"),
        )
    assert done.status == 1
    assert "hop2: " in done.error and "odd0: its driver macvlan refuses XDP in native" in done.error
    assert "choose xdp_attach=generic" in done.error
    (run,) = (tmp_path / "results").iterdir()
    samples = run / "samples.csv"
    assert not samples.exists() or len(samples.read_text().splitlines()) <= 1
