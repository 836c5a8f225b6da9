# SPDX-License-Identifier: Apache-2.0
"""What the controller tells each agent first, and that the agent takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.chain import Chain, Host
from bench.hop import config, version
from bench.session import Session


def placed(ip: str = "198.18.0.{}", **settings: Any) -> dict[str, dict[str, Any]]:
    """Return {role: first line} of a chain of one hop with these settings."""
    hosts = [
        Host("c", "client", ip.format(1), "lo", 0),
        Host("h", "hop", ip.format(2), "lo", 7000, **settings),
        Host("s", "server", ip.format(3), "lo", 8000),
    ]
    chain = Chain(Path("chain.ini"), hosts[0], (hosts[1],), hosts[2])
    session = Session(chain, 1, ["direct", "nft"])
    return {host.role: session._place(host) for host in chain.hosts}


@pytest.mark.parametrize("ip", ["198.18.0.{}", "2001:2::{}"])
def test_places(ip: str) -> None:
    common = {"op": "place", "version": version.digest(), "data_nic": "lo", "lease_s": 165.0}
    assert placed(ip) == {
        "client": {**common, "data_ip": ip.format(1)},
        "hop": {**common, "data_ip": ip.format(2), "forward_port": 7000, "prepare": ["nft"]},
        "server": {**common, "data_ip": ip.format(3), "server_port": 8000},
    }


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, {}),
        ({"nat_policy": "affine"}, {}),
        ({"nat_policy": "fresh"}, {"nat_policy": "fresh"}),
        ({"nat_ports": (20000, 29999)}, {"nat_ports": [20000, 29999]}),
        ({"nat_flows": 1}, {"nat_flows": 1}),
        ({"egress_nic": "eth1"}, {"egress_nic": "eth1"}),
    ],
)
def test_settings_of_a_hop(settings: dict[str, Any], sent: dict[str, Any]) -> None:
    hop = placed(**settings)["hop"]
    keys = ("egress_nic", "nat_ports", "nat_flows", "nat_policy")
    assert {key: hop[key] for key in keys if key in hop} == sent
    if "egress_nic" not in sent:
        taken = config.place(dict(hop))
        assert {key: getattr(taken, key) for key in settings} == settings
