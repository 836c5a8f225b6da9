# SPDX-License-Identifier: Apache-2.0
"""What the doctor sees of wiring that is not as the inventory says, on hosts of the lab."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.model import Lab
from tests.lab.conftest import bench, inside


@contextlib.contextmanager
def ip(lab: Lab, host: str, do: str, undo: str) -> Iterator[None]:
    """Change something on a host by `ip`, and change it back."""
    inside(lab, host, "ip", *do.split())
    try:
        yield
    finally:
        inside(lab, host, "ip", *undo.split())


# What the doctor says of a machine that others use, too.
BUSY = ("load average", "swapped out", "MB of memory are left")


def doctor(inventory: Path | str) -> list[tuple[str, str, str]]:
    """Return (host, level, text) of what the doctor finds beyond what a busy machine brings."""
    done = bench("doctor", "-i", inventory, "--json")
    return [
        (each["host"], each["level"], each["text"])
        for each in json.loads(done.stdout)
        if each["level"] != "ok" and not any(words in each["text"] for words in BUSY)
    ]


def address(lab: Lab, name: str) -> str:
    """Return a host's address."""
    return {host.name: host.data_ip for host in lab.hosts}[name]


@pytest.mark.parametrize(
    ("do", "undo", "text"),
    [
        (
            "route add {hop2} via {hop3}",
            "route del {hop2}",
            "the way to hop2 ({hop2}) leads by the router {hop3}",
        ),
        (
            "rule add to {hop2} unreachable",
            "rule del to {hop2} unreachable",
            "there is no way to hop2 ({hop2})",
        ),
        (
            "address add {hop2}/32 dev lo",
            "address del {hop2}/32 dev lo",
            "hop2 ({hop2}) has an address that is this host's own, too",
        ),
        (
            "neigh replace {hop2} lladdr 02:00:00:00:00:99 dev eth0",
            "neigh del {hop2} dev eth0",
            "02:00:00:00:00:99 answers for hop2 ({hop2}), whose eth0 has ",
        ),
    ],
    ids=["router", "nowhere", "twice", "other"],
)
def test_the_way_to_the_next_host(lab: Lab, do: str, undo: str, text: str) -> None:
    names = {host.name: host.data_ip for host in lab.hosts}
    with ip(lab, "hop1", do.format(**names), undo.format(**names)):
        (found,) = doctor(lab.name)
    assert found[:2] == ("hop1", "problem")
    assert found[2].startswith(text.format(**names))


def test_a_neighbour_that_is_silent(lab: Lab) -> None:
    """hop2's link is down, as without a cable: it says so, and so does the host before it."""
    inside(lab, "hop1", "ip", "neigh", "flush", "dev", "eth0")
    with ip(lab, "hop2", "link set eth0 down", "link set eth0 up"):
        found = doctor(lab.name)
    assert ("hop2", "problem", "eth0 (veth) is down") in found
    assert ("hop1", "problem", f"hop2 ({address(lab, 'hop2')}) does not answer on eth0") in found


def test_a_nic_of_a_bridge(lab: Lab) -> None:
    """Its packets are the bridge's."""
    inside(lab, "hop3", "ip", "link", "add", "br9", "type", "bridge")
    try:
        with ip(lab, "hop3", "link set eth0 master br9", "link set eth0 nomaster"):
            found = doctor(lab.name)
    finally:
        inside(lab, "hop3", "ip", "link", "delete", "br9")
    assert ("hop3", "problem", "eth0 (veth) belongs to br9, which takes its packets") in found


def test_a_chain_that_is_fine(lab: Lab) -> None:
    assert doctor(lab.name) == []
