# SPDX-License-Identifier: Apache-2.0
"""NICs that lose their link when XDP comes or goes, as those of many drivers do.

A veth's link is gone while its peer is set down: the wire's port plays the NIC that is reset.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from bench.lab.model import Lab
from tests.lab.agents import DirectAgent
from tests.lab.conftest import inside

AWAY_S = 5.0  # longer than a next hop may keep silent that has no such excuse


@pytest.fixture
def agent(lab: Lab) -> Iterator[DirectAgent]:
    """A forwarding agent on hop1, at work in mode xdp."""
    with DirectAgent(lab, "hop1") as started:
        assert started.place(prepare=["xdp", "nft"], lease_s=300)["event"] == "ready"
        assert forward(lab, started, "xdp")["event"] == "ready"
        yield started
    port(lab, "up")


def forward(lab: Lab, agent: DirectAgent, mode: str, attach: str = "native") -> dict[str, object]:
    """Have the hop forward to the server."""
    how = {"attach": attach} if mode == "xdp" else {}
    target = {"next_ip": lab.hosts[-1].data_ip, "next_port": 8000, "lease_s": 300}
    return agent.ask(mode=mode, **how, **target)


def port(lab: Lab, state: str) -> None:
    """Set hop1's port of the wire up or down."""
    name = {each.name: each.port for each in lab.hosts}["hop1"]
    command = ["ip", "-n", lab.namespace("wire"), "link", "set", "dev", name, state]
    subprocess.run(command, check=True, timeout=10)


@pytest.mark.parametrize(("mode", "attach"), [("xdp", "generic"), ("nft", "")])
def test_the_next_mode_begins_with_a_link(
    lab: Lab, agent: DirectAgent, mode: str, attach: str
) -> None:
    port(lab, "down")
    assert inside(lab, "hop1", "cat", "/sys/class/net/eth0/carrier").strip() == "0"
    begin = time.monotonic()
    comes_back = threading.Timer(AWAY_S, port, (lab, "up"))
    comes_back.start()
    answer = forward(lab, agent, mode, attach)
    comes_back.join()
    assert (answer["event"], answer.get("mode")) == ("ready", mode), answer
    assert time.monotonic() - begin >= AWAY_S
    assert inside(lab, "hop1", "cat", "/sys/class/net/eth0/carrier").strip() == "1"


def test_a_hop_that_forwards_nothing_waits_for_nobody(lab: Lab, agent: DirectAgent) -> None:
    port(lab, "down")
    assert agent.ask(mode="direct")["event"] == "ready"
    # There was no link before either: it is the next hop that cannot be reached.
    answer = forward(lab, agent, "xdp")
    assert answer["event"] == "error"
    assert "does not answer ARP" in str(answer["cause"])
