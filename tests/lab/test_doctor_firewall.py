# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of a host's rules, and that a run meets it just so."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.model import Lab
from tests.lab.conftest import Done, bench, inside
from tests.lab.links import in_namespace

ESTABLISHED = "ct state established,related accept"


@contextlib.contextmanager
def rules(lab: Lab, host: str, hook: str, *those: str, policy: str = "drop") -> Iterator[None]:
    """A user's own table on a host, for as long as this lasts."""
    chain = f"{{ type filter hook {hook} priority 0; policy {policy}; }}"
    commands = ["add table inet mine", f"add chain inet mine c {chain}"]
    commands += [f"add rule inet mine c {rule}" for rule in those]
    inside(lab, host, "nft", "; ".join(commands))
    try:
        yield
    finally:
        inside(lab, host, "nft", "delete table inet mine")


def doctor(lab: Lab) -> list[tuple[str, str, str, str]]:
    """Return (host, level, text, remedy) of what the doctor finds about rules."""
    done = bench("doctor", "-i", lab.name, "--json")
    found = json.loads(done.stdout)
    assert done.status == int(any(each["level"] == "problem" for each in found))
    names = ("host", "level", "text", "remedy")
    return [tuple(each[name] for name in names) for each in found if "firewall" in each["text"]]


def run(lab: Lab, mode: str, output: Path) -> Done:
    """Measure one cell with one hop."""
    return bench(
        *("run", "-i", lab.name, "--mode", mode, "--hops", "1", "--size", "624"),
        *("--blocks", "1", "--requests", "20", "--output", output),
    )


def connects(lab: Lab, host: str, to: str, port: int) -> bool:
    """Say whether a connection from a host to another one's port comes about."""
    address = {each.name: each.data_ip for each in lab.hosts}
    with in_namespace(lab.namespace(to)):
        listener = socket.create_server((address[to], port))
    with in_namespace(lab.namespace(host)):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener, client:
        client.settimeout(2.0)
        try:
            client.connect((address[to], port))
        except OSError:
            return False
        return True


@pytest.mark.parametrize(
    ("host", "hook", "way", "eaten"),
    [
        ("hop1", "input", ("client", "hop1", 7000), "what socat accepts"),
        ("hop1", "output", ("hop1", "server", 8000), "what socat sends on"),
        ("server", "input", ("hop5", "server", 8000), "connections to the server"),
        ("client", "output", ("client", "hop1", 7000), "the client's connections"),
    ],
)
def test_what_is_eaten(
    lab: Lab, host: str, hook: str, way: tuple[str, str, int], eaten: str
) -> None:
    """No connection comes about, as the doctor said, until its remedy is followed."""
    with rules(lab, host, hook, ESTABLISHED, "iifname lo accept"):
        (found,) = doctor(lab)
        text = f"the firewall's chain inet mine c eats {eaten} (policy drop)"
        assert found[:3] == (host, "problem", text)
        assert not connects(lab, *way)
        inside(lab, host, "nft", found[3].removeprefix("nft "))
        assert doctor(lab) == []
        assert connects(lab, *way)


def test_a_run_meets_what_the_doctor_foresaw(lab: Lab, tmp_path: Path) -> None:
    """nft's packets are eaten, XDP's pass by."""
    with rules(lab, "hop1", "forward", ESTABLISHED):
        (found,) = doctor(lab)
        text = "the firewall's chain inet mine c eats what nft forwards (policy drop)"
        assert found[:3] == ("hop1", "problem", text)
        assert run(lab, "nft", tmp_path).status == 1
        assert run(lab, "xdp", tmp_path).status == 0
        inside(lab, "hop1", "nft", found[3].removeprefix("nft "))
        assert doctor(lab) == []
        assert run(lab, "nft", tmp_path).status == 0


@pytest.mark.parametrize(
    ("those", "expected"),
    [
        (["tcp dport { 22, 7000-7010 } accept", ESTABLISHED], []),
        (['iifname "eth*" tcp dport vmap { 22 : drop, 7000 : accept }', ESTABLISHED], []),
        (["ip saddr 198.18.0.0/15 accept"], ["may eat"]),
        (["meta mark 7 accept", ESTABLISHED], ["may eat"]),
        (["tcp dport 7000 limit rate over 5/second drop", "accept"], ["may eat"]),
        (["tcp dport 7000 reject", "accept"], ["eats what socat accepts (rule "]),
        (["tcp dport 22 reject", "accept"], []),
    ],
)
def test_rules_that_are_looked_into(lab: Lab, those: list[str], expected: list[str]) -> None:
    with rules(lab, "hop2", "input", *those):
        found = doctor(lab)
    assert len(found) == len(expected)
    for (host, _, text, _), words in zip(found, expected, strict=True):
        assert host == "hop2"
        assert words in text


def test_the_ruleset_is_left_alone(lab: Lab) -> None:
    with rules(lab, "hop1", "input", ESTABLISHED):
        before = inside(lab, "hop1", "nft", "-s", "list", "ruleset")
        doctor(lab)
        assert bench("deploy", "-i", lab.name).status == 0
        assert inside(lab, "hop1", "nft", "-s", "list", "ruleset") == before


def test_iptables_is_seen_through_nft(lab: Lab) -> None:
    """As Docker leaves it: forwarding is not for others."""
    if subprocess.run(["which", "iptables"], capture_output=True, check=False).returncode:
        pytest.skip("needs iptables")
    try:
        inside(lab, "hop1", "iptables-nft", "-P", "FORWARD", "DROP")
        (found,) = doctor(lab)
    finally:
        inside(lab, "hop1", "nft", "flush", "ruleset")
    assert found[:2] == ("hop1", "problem")
    assert "chain ip filter FORWARD eats what nft forwards" in found[2]
    assert found[3].startswith("iptables -I FORWARD -i eth0 -o eth0 -j ACCEPT")
