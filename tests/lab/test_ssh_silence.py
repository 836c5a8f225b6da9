# SPDX-License-Identifier: Apache-2.0
"""SSH servers that fall silent, or are lost: what is noticed, when, and what is said."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.fleet import Fleet
from tests.lab.conftest import wait_until
from tests.lab.ssh_hosts import host, inline, refused
from tests.lab.sshd import Site, keygen

HOSTS = ("ssh", 3)


def test_every_host_is_named_with_its_own_reason(servers: Site, folder: Path) -> None:
    (folder / "other_known_hosts").touch()
    keygen(folder / "stranger")
    servers.ssh_config(
        f"Host hop2\n  UserKnownHostsFile {folder}/other_known_hosts\n",
        f"Host hop3\n  IdentityFile {folder}/stranger\n  IdentityFile none\n",
        "Host client\n  ProxyCommand sleep 600\n",
        inline(servers, "hop1", "hop2", "hop3"),
    )
    servers.known_hosts("hop1", "hop2", "hop3", "client")
    lone = f"-F {folder}/ssh_config -o IdentityFile={folder}/stranger"
    (folder / "ssh_config").write_text(
        (folder / "ssh_config").read_text().replace(f"  IdentityFile {folder}/id\n", "")
    )
    good = f"-F {folder}/ssh_config -i {folder}/id"
    text = refused(
        host(servers, "hop1", ssh_common_args=good),
        host(servers, "hop2", ssh_common_args=good),
        host(servers, "hop3", ssh_common_args=lone),
        host(servers, "client", ssh_common_args=good, ssh_timeout=2),
        host(servers, "server", ssh_common_args=good, port=99999),
    )
    assert "hop1" not in text
    for part in (
        "hop2: SSH host key is not known",
        "hop3: SSH refuses user root",
        "client: SSH: no answer from client port 22 within 2 s",
        "server: SSH port '99999' is not from 1 to 65535",
        "hop3: check ansible_user",
        "client: is the host up?",
    ):
        assert part in text, text


def only_process(servers: Site, name: str) -> int:
    """Return the id of the one sshd of a host, once its helper for the login has ended."""
    assert wait_until(lambda: len(servers.processes(name)) == 1), servers.processes(name)
    return servers.processes(name)[0]


def test_one_is_stopped_and_the_program_of_another_silent(servers: Site) -> None:
    """Both are asked something. The one without a sign of life is noticed within 15 s; the other
    host answers for its program, which is waited for.
    """
    servers.ssh_config(inline(servers, "hop1", "hop2"))
    servers.known_hosts("hop1", "hop2")
    stopped, silent = host(servers, "hop1"), host(servers, "hop2")
    command = "/usr/bin/python3 -B -"
    with Fleet([stopped, silent]) as fleet, ThreadPoolExecutor(1) as beside:
        mine = only_process(servers, "hop1")
        text = "import time; time.sleep(17); print('done')"
        said = beside.submit(fleet.run_on, silent, command, text, 40)
        begin = time.monotonic()
        os.kill(mine, signal.SIGSTOP)
        try:
            with pytest.raises(BenchError) as caught:
                fleet.run_on(stopped, command, "import time; time.sleep(60)", 50)
        finally:
            os.kill(mine, signal.SIGCONT)
        took_s = time.monotonic() - begin
        assert said.result() == "done\n"
    assert "hop1: SSH: no sign of life for 12 s" in caught.value.one_line()
    assert 10 < took_s < 30


def test_nothing_is_sent_while_nobody_waits(servers: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No keepalive may fall into a sample: the host's kernel counts what it sends."""
    servers.serve("hop1")
    servers.ssh_config(
        inline(servers, "client"),
        f"Host hop1\n  HostName {servers.address('hop1')}\n  ProxyJump client\n",
    )
    servers.known_hosts("client", servers.address("hop1"))
    some = host(servers)
    snmp = ["ip", "netns", "exec", servers.namespace("hop1"), "cat", "/proc/net/snmp"]

    def sent() -> int:
        said = subprocess.run(snmp, capture_output=True, check=True, text=True).stdout
        names, values = [line.split() for line in said.splitlines() if line.startswith("Tcp:")]
        return int(values[names.index("OutSegs")])

    def quiet() -> bool:
        before = sent()
        time.sleep(1)
        return sent() == before

    with Fleet([some]) as fleet:
        link = fleet._links["hop1"]
        # What belongs to the login is over.
        assert wait_until(quiet)
        before = sent()
        time.sleep(8)
        assert sent() == before
        with link.waiting(quiet_s=60):
            time.sleep(8)
        assert sent() == before
        with link.waiting(quiet_s=1):
            assert wait_until(lambda: sent() > before)


def test_a_proxy_that_is_killed_is_noticed_at_once(servers: Site) -> None:
    servers.ssh_config(inline(servers, "hop1"))
    servers.known_hosts("hop1")
    some = host(servers)
    with Fleet([some]) as fleet:
        mine = only_process(servers, "hop1")
        os.kill(mine, signal.SIGKILL)
        begin = time.monotonic()
        with pytest.raises(BenchError, match="hop1: SSH: connection lost"):
            fleet.run_on(some, "/usr/bin/python3 -B -", "print(1)", 50)
        assert time.monotonic() - begin < 10
