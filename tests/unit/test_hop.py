# SPDX-License-Identifier: Apache-2.0
"""The agent as far as it needs no lab: its configuration, its protocol, its sources."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import paths
from bench.cells import MODES as CONTROLLER_MODES
from bench.hop import address as addresses
from bench.hop import config, forward, load, serve, version
from bench.hop.errors import HopError
from bench.hop.modes import MODES

REPOSITORY = Path(__file__).parents[2]
PLACE = {"data_nic": "lo", "data_ip": "198.18.0.2", "forward_port": 7000}
TARGET = {"mode": "nft", "next_ip": "198.18.0.3", "next_port": 8000}
SIEGE = {"op": "siege", "ip": "198.18.0.2", "port": 7000, "size_bytes": 624, "limit_s": 20}
SIEGE |= {"concurrency": 1, "repetitions": 1}


def fails(work: Any, *arguments: Any) -> HopError:
    """Return the error that a call ends with; its cause is a phrase."""
    with pytest.raises(HopError) as caught:
        work(*arguments)
    assert caught.value.cause
    assert not caught.value.cause.endswith(".")
    return caught.value


# Configuration


def test_a_place_and_a_target() -> None:
    assert config.place(dict(PLACE)) == config.Place("lo", "198.18.0.2", 7000)
    assert config.target(dict(TARGET)) == config.Target("nft", "native", "198.18.0.3", 8000)
    generic = {**TARGET, "mode": "xdp", "attach": "generic"}
    assert config.target(generic) == config.Target("xdp", "generic", "198.18.0.3", 8000)
    assert config.target({"mode": "direct"}) is None
    offload = {**TARGET, "mode": "xdp", "attach": "offload", "next_ip": "FD00::3"}
    assert config.target(offload) == config.Target("xdp", "offload", "fd00::3", 8000)


def test_a_place_with_everything() -> None:
    place = config.place(dict(PLACE))
    assert (place.family, place.nics) == (4, ("lo",))
    assert (place.egress_nic, place.nat_ports, place.nat_flows) == ("", None, None)
    assert place.nat_policy == "affine"
    nics = [name for _, name in socket.if_nameindex() if name != "lo"]
    optional = {"nat_ports": [20000, 20015], "nat_flows": 1, "nat_policy": "fresh"}
    optional |= {"egress_nic": nics[0]} if nics else {}
    place = config.place({**PLACE, "data_ip": "2001:2:0:0::2", **optional})
    assert place == config.Place(
        "lo", "2001:2::2", 7000, nics[0] if nics else "", (20000, 20015), 1, "fresh"
    )
    assert (place.family, place.nics) == (6, ("lo", *nics[:1]))


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        ("egress_nic", "lo", "egress_nic is the data NIC itself"),
        ("egress_nic", "", "egress_nic is not an interface name"),
        ("egress_nic", None, "egress_nic is missing or not a str"),
        ("egress_nic", "hb-none", "no NIC hb-none on this host"),
        *(
            ("nat_ports", value, "nat_ports is not a list of two integers")
            for value in (
                *(None, "20000-29999", 20000, [], [20000], [20000, 29999, 1], {"a": 1}),
                *([20000.0, 29999], [True, 29999], ["20000", 29999], [20000, None]),
            )
        ),
        *(
            ("nat_ports", value, "nat_ports is not a range between 1024 and 65535")
            for value in ([1023, 2000], [2000, 1999], [1024, 65536], [-5, 70000])
        ),
        ("nat_ports", [20000, 20014], "nat_ports has fewer than 16 ports"),
        *(
            ("nat_flows", value, "nat_flows is not between 1 and 1048576")
            for value in (0, -1, 1048577)
        ),
        *(
            ("nat_flows", value, "nat_flows is missing or not a int")
            for value in (True, "65536", 1.5, None)
        ),
        ("nat_policy", "random", "nat_policy must be one of affine, fresh"),
        ("nat_policy", "", "nat_policy must be one of affine, fresh"),
        ("nat_policy", None, "nat_policy is missing or not a str"),
    ],
)
def test_settings_that_are_wrong(key: str, value: object, cause: str) -> None:
    assert fails(config.place, {**PLACE, key: value}).cause == cause


def test_which_variable_to_correct() -> None:
    for key in ("data_nic", "egress_nic"):
        error = fails(config.place, {**PLACE, key: "hb-none"})
        assert error.remedy == f"correct {key} in the inventory"


@pytest.mark.parametrize(
    ("address", "family", "end"),
    [
        ("198.18.0.2", 4, "198.18.0.2:7000"),
        ("2001:2::2", 6, "[2001:2::2]:7000"),
        ("fd00::2", 6, "[fd00::2]:7000"),
    ],
)
def test_addresses(address: str, family: int, end: str) -> None:
    assert addresses.family(address) == family
    assert addresses.endpoint(address, 7000) == end
    assert addresses.bracketed(address) == end.removesuffix(":7000")


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        ("data_nic", None, "data_nic is missing or not a str"),
        ("data_nic", 7, "data_nic is missing or not a str"),
        ("data_nic", ["lo"], "data_nic is missing or not a str"),
        ("data_nic", "", "data_nic is not an interface name"),
        ("data_nic", "a" * 16, "data_nic is not an interface name"),
        ("data_nic", "ö" * 8, "data_nic is not an interface name"),
        ("data_nic", "a b", "data_nic is not an interface name"),
        ("data_nic", "lo\n", "data_nic is not an interface name"),
        ("data_nic", "../net/lo", "data_nic is not an interface name"),
        ("data_nic", "/lo", "data_nic is not an interface name"),
        ("data_nic", ".", "no NIC . on this host"),
        ("data_nic", "..", "no NIC .. on this host"),
        ("data_nic", "hb-none", "no NIC hb-none on this host"),
        ("data_nic", "lo\0", "no NIC lo\0 on this host"),
        ("data_nic", "\ud800", "no NIC \ud800 on this host"),
        ("data_ip", None, "data_ip is missing or not a str"),
        ("data_ip", 3323068418, "data_ip is missing or not a str"),
        ("data_ip", "198.18.0.256", "data_ip is not an IP address"),
        ("data_ip", "198.18.0.2/24", "data_ip is not an IP address"),
        ("data_ip", "198.18.0.2\n", "data_ip is not an IP address"),
        ("data_ip", "[2001:2::2]", "data_ip is not an IP address"),
        ("data_ip", "2001:2::2/64", "data_ip is not an IP address"),
        *(
            ("data_ip", value, "data_ip is not a host's address")
            for value in (
                *("::", "::1", "fe80::2", "fe80::2%lo", "2001:2::2%lo", "ff02::1"),
                *("::ffff:198.18.0.2", "fec0::2", "4000::2"),
            )
        ),
        ("data_ip", "", "data_ip is not an IP address"),
        ("data_ip", "0.0.0.0", "data_ip is not a host's address"),
        ("data_ip", "224.0.0.1", "data_ip is not a host's address"),
        ("data_ip", "255.255.255.255", "data_ip is not a host's address"),
        ("forward_port", None, "forward_port is missing or not a int"),
        ("forward_port", "7000", "forward_port is missing or not a int"),
        ("forward_port", 7000.0, "forward_port is missing or not a int"),
        ("forward_port", True, "forward_port is missing or not a int"),
        ("forward_port", 0, "forward_port is not between 1 and 65535"),
        ("forward_port", 65536, "forward_port is not between 1 and 65535"),
        ("forward_port", -1, "forward_port is not between 1 and 65535"),
    ],
)
def test_a_place_that_is_wrong(key: str, value: object, cause: str) -> None:
    assert fails(config.place, {**PLACE, key: value}).cause == cause
    if value is None:
        assert fails(config.place, {k: v for k, v in PLACE.items() if k != key}).cause == cause


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"mode": "tcp"}, "mode must be one of direct, socat, nft, xdp"),
        ({"mode": ""}, "mode must be one of direct, socat, nft, xdp"),
        ({"mode": None}, "mode is missing or not a str"),
        ({"mode": ["xdp"]}, "mode is missing or not a str"),
        ({"mode": "direct"}, "unknown key 'next_ip' in the configuration"),
        ({"attach": "skb"}, "attach must be one of native, generic, offload"),
        ({"attach": None}, "attach is missing or not a str"),
        ({"next_ip": "nowhere"}, "next_ip is not an IP address"),
        ({"next_port": 0}, "next_port is not between 1 and 65535"),
        ({"next_port": "8000; reboot"}, "next_port is missing or not a int"),
        ({"next_prot": 1}, "unknown key 'next_prot' in the configuration"),
    ],
)
def test_a_target_that_is_wrong(changes: dict[str, object], cause: str) -> None:
    assert fails(config.target, {**TARGET, **changes}).cause == cause


@pytest.mark.parametrize("value", [0, 11, -1, "5", 5.0, None, True])
def test_numbers_out_of_range(value: object) -> None:
    assert config.number({"n": 10}, "n", 1, 10, 0) == 10
    assert config.number({}, "n", 1, 10, 7) == 7
    assert "n is " in fails(config.number, {"n": value}, "n", 1, 10, 5).cause


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


NAMES = [*PLACE, *TARGET, "attach", "egress_nic", "nat_ports", "nat_flows", "nat_policy", "op", "x"]


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_configuration_is_taken_or_refused(message: dict[str, Any]) -> None:
    for work in (config.place, config.target, forward.Agent().handle, load.Load().handle):
        try:
            work(dict(message))
        except HopError as error:
            assert error.cause


# The registry of modes


@pytest.mark.parametrize("mode", [mode for mode in MODES if MODES[mode].hops])
def test_every_mode_has_a_forwarder(mode: str) -> None:
    module, _, name = MODES[mode].forwarder.partition(":")
    assert (paths.hop_package() / f"{module}.py").is_file()
    found = forward._forwarder_class(mode)
    assert found.__name__ == name
    for method in ("prepare", "start", "counters", "stop"):
        assert callable(getattr(found, method))


def test_the_controller_knows_the_same_modes() -> None:
    assert list(CONTROLLER_MODES) == list(MODES)


# The forwarding agent, with a forwarder that only notes what is asked of it


class Noted:
    """A forwarder that does nothing."""

    log: list[str]
    broken = False

    def __init__(self, place: config.Place) -> None:
        self.log.append(f"made on {place.data_nic}")

    def prepare(self) -> None:
        self.log.append("prepared")

    def start(self, target: config.Target) -> dict[str, object]:
        if self.broken:
            raise HopError("does not start")
        self.log.append(f"{target.mode} to {target.next_ip}:{target.next_port}")
        return {"fact": 1}

    def counters(self) -> dict[str, int]:
        return {"flows_opened": 3}

    def tidy(self) -> None:
        self.log.append("tidied")

    def stop(self) -> None:
        self.log.append("stopped")


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> forward.Agent:
    """Return an agent all of whose modes are `Noted`."""
    monkeypatch.setattr(Noted, "log", [], raising=False)
    monkeypatch.setattr(Noted, "broken", False)
    monkeypatch.setattr(forward, "_forwarder_class", lambda mode: Noted)
    return forward.Agent()


def placed(**changes: object) -> dict[str, Any]:
    """Return the first line of a conversation."""
    return {"op": "place", "version": version.digest(), **PLACE, **changes}


def test_a_conversation(agent: forward.Agent) -> None:
    answers = [
        agent.handle(message)
        for message in (
            placed(prepare=["xdp", "direct"]),
            {"op": "counters"},
            dict(TARGET),
            {"op": "counters"},
            {"op": "renew"},
            {**TARGET, "mode": "xdp", "next_port": 7000},
            {"mode": "direct"},
            {"op": "counters"},
        )
    ]
    hosts = [answer.pop("host") for answer in answers if answer["event"] == "counters"]
    assert all("nic_rx_bytes" in host["counts"] for host in hosts)
    assert answers == [
        {"event": "ready", "pid": os.getpid(), "modes": sorted(MODES)},
        {"event": "counters", "mode": "direct", "counters": {}},
        {"event": "ready", "mode": "nft", "fact": 1},
        {"event": "counters", "mode": "nft", "counters": {"flows_opened": 3}},
        {"event": "ready"},
        {"event": "ready", "mode": "xdp", "fact": 1},
        {"event": "ready", "mode": "direct"},
        {"event": "counters", "mode": "direct", "counters": {}},
    ]
    assert Noted.log[:3] == ["made on lo", "prepared", "stopped"]
    assert Noted.log.count("made on lo") == 2
    # Once, by two forwarders.
    assert Noted.log.count("tidied") == 2
    assert Noted.log[-2:] == ["stopped", "stopped"]


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ({"op": "reboot"}, "unknown operation"),
        ({"op": ["place"]}, "unknown operation"),
        (dict(TARGET), "the agent was not told its place yet"),
        ({"op": "renew", "x": 1}, "unknown key 'x' in the configuration"),
        ({"op": "counters", "x": 1}, "unknown key 'x' in the configuration"),
        ({"op": "counters", "tidy": True}, "unknown key 'tidy' in the configuration"),
        (placed(x=1), "unknown key 'x' in the configuration"),
        (placed(prepare="xdp"), "prepare is not a list of modes"),
        (placed(prepare=["tcp"]), "prepare is not a list of modes"),
        (placed(prepare=[["xdp"]]), "prepare is not a list of modes"),
        (placed(version="another"), "the agent here is of another version"),
        (placed(version=None), "version is missing or not a str"),
        (placed(data_nic="hb-none"), "no NIC hb-none on this host"),
        ({}, "mode must be one of direct, socat, nft, xdp"),
    ],
)
def test_what_an_agent_refuses(agent: forward.Agent, message: dict[str, Any], cause: str) -> None:
    assert fails(agent.handle, message).cause == cause


@pytest.mark.parametrize(
    ("data_ip", "next_ip", "cause"),
    [
        ("198.18.0.2", "2001:2::3", "next_ip is not an IPv4 address, as data_ip is"),
        ("2001:2::2", "198.18.0.3", "next_ip is not an IPv6 address, as data_ip is"),
        ("2001:2::2", "fd00::3", ""),
    ],
)
def test_a_chain_keeps_to_one_family(
    agent: forward.Agent, data_ip: str, next_ip: str, cause: str
) -> None:
    agent.handle(placed(data_ip=data_ip))
    agent.handle({**TARGET, "next_ip": data_ip})
    if cause:
        assert fails(agent.handle, {**TARGET, "next_ip": next_ip}).cause == cause
        # What is refused before anything is touched ends nothing.
        assert agent.handle({"op": "counters"})["mode"] == "nft"
    else:
        assert agent.handle({**TARGET, "next_ip": next_ip})["event"] == "ready"


def test_a_mode_that_does_not_start_leaves_none_active(agent: forward.Agent) -> None:
    agent.handle(placed())
    agent.handle(dict(TARGET))
    Noted.broken = True
    assert fails(agent.handle, dict(TARGET)).cause == "does not start"
    assert agent.handle({"op": "counters"})["mode"] == "direct"


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ({"op": "siege"}, "ip is missing or not a str"),
        ({"op": "siege", "ip": "198.18.0.2", "port": 7000}, "size_bytes is not between 1 and"),
        ({"op": "fetch", "ip": "198.18.0.2", "port": 7000}, "sizes is not a list of integers"),
        (
            {"op": "fetch", "ip": "198.18.0.2", "port": 7000, "sizes": [True]},
            "sizes is not a list of integers",
        ),
        ({"op": "fetch", "ip": "-x", "port": 7000, "sizes": []}, "ip is not an IP address"),
        ({"op": "place"}, "version is missing or not a str"),
        ({**SIEGE, "concurrency": 0}, "concurrency is not between 1 and"),
        ({**SIEGE, "timer": 1}, "timer is neither true nor false"),
        ({**SIEGE, "timer": True}, "connections are not timed here"),
        ({**SIEGE, "timers": True}, "unknown"),
        ({"op": "connections"}, "connections are not timed here"),
        ({"op": "connections", "of": 7}, "unknown"),
        ({"op": "offloads"}, "use must be one of equal, native"),
        ({"op": "offloads", "use": "off"}, "use must be one of equal, native"),
        ({"op": "offloads", "use": "equal"}, "the agent was not told its place yet"),
        ({}, "unknown operation"),
    ],
)
def test_what_the_client_refuses(message: dict[str, Any], cause: str) -> None:
    assert fails(load.Load().handle, message).cause.startswith(cause)


def test_what_the_server_refuses() -> None:
    server = serve.Server()
    assert fails(server.handle, {"op": "renew"}).cause == "nginx has ended"
    assert fails(server.handle, {"op": "counters"}).cause == "nginx has ended"
    assert fails(server.handle, {}).cause == "unknown operation"
    assert fails(server.handle, {"op": "place"}).cause == "version is missing or not a str"
