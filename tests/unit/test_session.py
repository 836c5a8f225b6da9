# SPDX-License-Identifier: Apache-2.0
"""What the controller tells each agent first, and that the agent takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recorded import packed, records

from bench.chain import Chain, Host
from bench.errors import BenchError
from bench.hop import config, version
from bench.owner import Owner
from bench.session import Session


def session_of(ip: str = "198.18.0.{}", timer: bool = False, **settings: Any) -> Session:
    """Return a session with a chain of one hop with these settings, not begun."""
    hosts = [
        Host("c", "client", ip.format(1), "lo", 0),
        Host("h", "hop", ip.format(2), "lo", 7000, **settings),
        Host("s", "server", ip.format(3), "lo", 8000),
    ]
    chain = Chain(Path("chain.ini"), hosts[0], (hosts[1],), hosts[2])
    return Session(chain, 1, ["direct", "nft"], timer=timer)


def placed(ip: str = "198.18.0.{}", **settings: Any) -> dict[str, dict[str, Any]]:
    """Return {role: first line} of that chain's hosts."""
    session = session_of(ip, **settings)
    return {host.role: session._place(host) for host in session._chain.hosts}


@pytest.mark.parametrize("ip", ["198.18.0.{}", "2001:2::{}"])
def test_places(ip: str) -> None:
    common = {"op": "place", "version": version.digest(), "data_nic": "lo"}
    common["holder"] = Owner.me().text
    assert placed(ip) == {
        "client": {**common, "data_ip": ip.format(1)},
        "hop": {**common, "data_ip": ip.format(2), "forward_port": 7000, "prepare": ["nft"]},
        "server": {**common, "data_ip": ip.format(3), "server_port": 8000},
    }


def test_only_the_client_times_connections() -> None:
    without, timed = placed(), placed(timer=True)
    assert timed == {**without, "client": {**without["client"], "timer": True}}


class Answers:
    """A client's agent that says what a test gives it."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.host = Host("c", "client", "198.18.0.1", "lo", 0)
        self._answers = iter(answers)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the next answer."""
        assert message["op"] == "connections"
        return next(self._answers)


def test_records_come_in_several_answers() -> None:
    data, session = records(5), session_of(timer=True)
    parts = (data[:80], data[80:120], b"", data[120:])
    session._client = Answers(  # type: ignore[assignment]
        *({"data": packed(part), "more": place < 3} for place, part in enumerate(parts))
    )
    assert session._records() == data


@pytest.mark.parametrize("data", ["", "A", "=", "AAAA", "\x00", packed(b"7 bytes")])
def test_records_that_are_damaged(data: str) -> None:
    session = session_of(timer=True)
    session._client = Answers({"data": data, "more": False})  # type: ignore[assignment]
    with pytest.raises(BenchError) as caught:
        session._records()
    assert caught.value.one_line().startswith("c: the connection timer's records are damaged: ")
    assert caught.value.one_line().isprintable()


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
