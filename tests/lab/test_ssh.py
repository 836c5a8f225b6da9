# SPDX-License-Identifier: Apache-2.0
"""Ways to real SSH servers: jump hosts and configuration files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.lab.conftest import processes, wait_until
from tests.lab.ssh_hosts import host, inline, netns, refused, who
from tests.lab.sshd import Site

HOSTS = ("ssh", 3)


def test_through_one_jump_host(servers: Site) -> None:
    servers.serve("hop1", port=2200)
    target = f"Host hop1\n  HostName {servers.address('hop1')}\n  Port 2200\n  ProxyJump client\n"
    servers.ssh_config(inline(servers, "client"), target)
    servers.known_hosts("client", f"[{servers.address('hop1')}]:2200")
    assert who(host(servers)) == ["0", netns(servers, "hop1")]


@pytest.mark.parametrize("how", ["in one word", "each its own", "variable"])
def test_through_two_jump_hosts(servers: Site, how: str) -> None:
    for name in ("hop1", "hop2"):
        servers.serve(name)
    addresses = {name: servers.address(name) for name in ("hop1", "hop2")}
    first = f"Host hop1\n  HostName {addresses['hop1']}\n"
    second = f"Host hop2\n  HostName {addresses['hop2']}\n"
    args = f"-F {servers.folder}/ssh_config"
    if how == "in one word":
        second += "  ProxyJump client,hop1\n"
    elif how == "each its own":
        first += "  ProxyJump client\n"
        second += "  ProxyJump hop1\n"
    else:
        args += " -J root@client:22,hop1:22"
    servers.ssh_config(inline(servers, "client"), first, second)
    servers.known_hosts("client", *addresses.values())
    assert who(host(servers, "hop2", ssh_common_args=args)) == ["0", netns(servers, "hop2")]


@pytest.mark.parametrize("names", [["hop1"], ["client"]], ids=["jump", "target"])
def test_every_host_on_the_way_has_to_be_known(servers: Site, names: list[str]) -> None:
    """Also where the configuration says that it need not be."""
    servers.serve("hop1")
    target = f"Host hop1\n  HostName {servers.address('hop1')}\n  ProxyJump client\n"
    servers.ssh_config("StrictHostKeyChecking no\n", inline(servers, "client"), target)
    known = servers.known_hosts(
        *[{"hop1": servers.address("hop1")}.get(name, name) for name in names]
    )
    before = known.read_text()
    text = refused(host(servers))
    assert text.startswith("hop1: SSH")
    assert ("Host key verification failed" in text) == (names == ["hop1"])
    assert ("host key is not known" in text) == (names == ["client"])
    assert known.read_text() == before


def test_a_jump_host_that_is_silent(servers: Site) -> None:
    servers.ssh_config("Host jump\n  ProxyCommand sleep 600\n", "Host hop1\n  ProxyJump jump\n")
    begin = time.monotonic()
    text = refused(host(servers, ssh_timeout=2))
    assert "hop1: SSH: no answer from hop1 port 22 within 2 s" in text
    assert time.monotonic() - begin < 10
    assert wait_until(lambda: not [line for _, line in processes("sleep") if line == "sleep 600"])


def test_include_and_match(servers: Site, folder: Path) -> None:
    (folder / "more").write_text(inline(servers, "hop2"))
    servers.ssh_config(
        f"Include {folder}/more\n",
        f"Match originalhost hop3 exec true\n  ProxyCommand {servers.inline('hop3')}\n",
    )
    servers.known_hosts("hop2", "hop3")
    for name in ("hop2", "hop3"):
        assert who(host(servers, name)) == ["0", netns(servers, name)]
