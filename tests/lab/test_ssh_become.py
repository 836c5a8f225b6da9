# SPDX-License-Identifier: Apache-2.0
"""Becoming root by the real sudo and su, on hosts whose login is a user with a password."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.chain import Host
from bench.errors import BenchError
from bench.fleet import Fleet
from bench.lab.model import Lab
from tests.lab.sshd import PASSWORD, USER, Site, site

pytestmark = pytest.mark.skipif(shutil.which("sudo") is None, reason="needs sudo")

# What the program gets on stdin has to be what it is sent, and nothing before it.
ECHO = "import os, sys; print(os.getuid(), flush=True)\n"
HOSTS = ("become", 1)
NOPASSWD, ASKS = f"{USER} ALL=(ALL) NOPASSWD: ALL", f"{USER} ALL=(ALL) ALL"


@pytest.fixture(scope="module")
def servers(hosts: Lab) -> Iterator[Site]:
    """A server with accounts of its own in hop1, reached through the client."""
    with site(hosts) as made:
        made.serve("hop1")
        made.ssh_config(
            f"Host client\n  ProxyCommand {made.inline('client')}\n",
            f"Host hop1\n  HostName {made.address('hop1')}\n  ProxyJump client\n",
        )
        made.known_hosts("client", made.address("hop1"))
        yield made


def host(servers: Site, **variables: Any) -> Host:
    """Return the host, with a login that is not root unless `user` says so."""
    words = {"user": USER, "ssh_common_args": f"-F {servers.folder}/ssh_config", **variables}
    ssh_vars = {f"ansible_{key}": value for key, value in words.items()}
    return Host("hop1", "hop", "198.18.0.2", "eth0", 7000, ssh_vars=ssh_vars)


def uid(some: Host, *, as_root: bool = True) -> int:
    """Connect, start a program on the host and return whom it runs as."""
    with Fleet([some]) as fleet:
        command = "/usr/bin/python3 -B -"
        return int(fleet.run_on(some, command, ECHO, 20, as_root=as_root))


def refused(some: Host) -> tuple[str, float]:
    """Return (the line that starting a program ends with, how long that took)."""
    begin = time.monotonic()
    with Fleet([some]) as fleet, pytest.raises(BenchError) as caught:
        fleet.run_on(some, "/usr/bin/python3 -B -", ECHO, 20, as_root=True)
    return caught.value.one_line(), time.monotonic() - begin


@pytest.fixture(autouse=True)
def _fresh(servers: Site) -> None:
    """Nobody has given a password lately."""
    shutil.rmtree(servers.folder / "ts", ignore_errors=True)


@pytest.mark.parametrize("rule", [NOPASSWD, ASKS], ids=["nopasswd", "asks"])
@pytest.mark.parametrize("password", [None, PASSWORD], ids=["none", "given"])
@pytest.mark.parametrize("become", [None, True, False])
@pytest.mark.parametrize("user", [USER, "root"])
def test_every_combination(
    servers: Site, rule: str, password: str | None, become: bool | None, user: str
) -> None:
    servers.sudoers("root ALL=(ALL) ALL", rule)
    some = host(servers, user=user, become=become, become_password=password)
    if user == "root":
        assert uid(some) == 0
    elif become is False:
        assert "hop1: commands do not run as root (log in as root" in refused(some)[0]
        assert uid(some, as_root=False) == 4242
    elif rule == ASKS and password is None:
        assert "hop1: sudo wants a password (set ansible_become_password" in refused(some)[0]
    else:
        assert uid(some) == 0


def test_a_wrong_password_is_noticed_at_once(servers: Site) -> None:
    servers.sudoers(ASKS)
    text, took_s = refused(host(servers, become=True, become_password="wrong word"))
    assert "hop1: sudo refuses the password (check ansible_become_password)" in text
    assert "wrong word" not in text
    # PAM lets whoever was wrong wait for two or three seconds; who never says so has 45.
    assert took_s < 25


def test_a_password_that_is_not_asked_for_again(servers: Site) -> None:
    """sudo remembers for some minutes who gave it; the program must not get it then."""
    servers.sudoers("Defaults timestamp_type=global, timestamp_timeout=5", ASKS)
    some = host(servers, become=True, become_password=PASSWORD)
    with Fleet([some]) as fleet:
        for _ in range(3):
            said = fleet.run_on(
                some, "/usr/bin/python3 -B -", "import sys; print(sys.stdin.read())", 20
            )
            assert said == "\n"
    servers.sudoers("Defaults timestamp_type=global, timestamp_timeout=5", ASKS)
    assert uid(host(servers, become=True)) == 0


def test_a_lecture(servers: Site) -> None:
    servers.sudoers("Defaults lecture=always", ASKS)
    assert uid(host(servers, become_password=PASSWORD)) == 0


def test_a_terminal_that_is_wanted(servers: Site) -> None:
    servers.sudoers("Defaults requiretty", ASKS)
    text, _ = refused(host(servers, become_password=PASSWORD))
    assert "hop1: sudo wants a terminal (take requiretty out of sudoers" in text


def test_somebody_who_may_not(servers: Site) -> None:
    servers.sudoers("root ALL=(ALL) ALL")
    text, _ = refused(host(servers, become_password=PASSWORD))
    assert f"hop1: sudo refused: {USER} is not in the sudoers file" in text
    servers.sudoers(f"{USER} ALL=(ALL) NOPASSWD: /bin/true")
    text, _ = refused(host(servers))
    assert "hop1: sudo wants a password" in text or "hop1: sudo refused" in text


def test_su(servers: Site) -> None:
    assert uid(host(servers, become_method="su", become_password=PASSWORD)) == 0
    text, took_s = refused(host(servers, become_method="su", become_password="wrong word"))
    assert "hop1: su refuses the password" in text
    assert took_s < 25
    text, took_s = refused(host(servers, become_method="su"))
    assert "hop1: su wants a password" in text
    assert uid(host(servers, user="root", become=True, become_method="su")) == 0


def test_sudo_elsewhere_and_with_other_flags(servers: Site) -> None:
    servers.sudoers(NOPASSWD)
    assert uid(host(servers, become_exe="/usr/bin/sudo", become_flags="-H -n")) == 0
    text, _ = refused(host(servers, become_exe="/opt/nowhere/sudo"))
    assert "hop1: sudo is not installed" in text


def test_a_login_that_makes_noise(servers: Site) -> None:
    home = servers.folder / "home"
    profile = Path(home / ".ssh")
    profile.mkdir()
    # sshd(8): runs before every command, whatever the shell.
    (profile / "rc").write_text("echo Welcome to a noisy place\n")
    try:
        servers.sudoers(ASKS)
        assert uid(host(servers, become_password=PASSWORD)) == 0
    finally:
        shutil.rmtree(profile)
