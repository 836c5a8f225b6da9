# SPDX-License-Identifier: Apache-2.0
"""64 hosts at once: over TCP, without a network, and through one jump host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.chain import Host
from bench.errors import BenchError
from bench.fleet import Fleet
from tests.lab.conftest import REPOSITORY, processes, wait_until
from tests.lab.ssh_hosts import host
from tests.lab.sshd import Site

HOSTS = ("many", 62)


PROGRAM = "import os; print(os.readlink('/proc/self/ns/net'))"


def namespaces(fleet: Fleet, some: list[Host]) -> list[str]:
    """Return the network namespace in which a program runs on each host."""
    found = fleet.for_each(
        lambda each: fleet.run_on(each, "/usr/bin/python3 -B -", PROGRAM, 60).strip(), some
    )
    return [found[each.name] for each in some]


def expected(servers: Site, some: list[Host]) -> list[str]:
    """Return what `namespaces` should find."""
    paths = [Path("/run/netns") / servers.namespace(each.name) for each in some]
    return [f"net:[{path.stat().st_ino}]" for path in paths]


def test_64_hosts_without_a_network(servers: Site) -> None:
    names = [each.name for each in servers.lab.hosts]
    assert len(names) == 64
    servers.ssh_config(*(f"Host {n}\n  ProxyCommand {servers.inline(n)}\n" for n in names))
    servers.known_hosts(*names)
    some = [host(servers, name) for name in names]
    with Fleet(some) as fleet:
        assert namespaces(fleet, some) == expected(servers, some)


def test_64_hosts_through_one_jump_host(servers: Site) -> None:
    """Its sshd turns away most of more than ten that have not logged in yet, as by default."""
    servers.sshd_config("sshd_config", MaxStartups="10:30:100")
    servers.serve("server")
    config = servers.sshd_config("other", MaxStartups="10:30:100")
    names = [each.name for each in servers.lab.hosts if each.name != "client"]
    for name in names[:8]:
        if name != "server":
            servers.serve(name, config.name)
    reached = names[:8]
    sections = [f"Host client\n  ProxyCommand {servers.inline('client')}\n"]
    jump = servers.address("server")
    sections.append(f"Host server\n  HostName {jump}\n  ProxyJump client\n")
    # Each of the addresses under eight names.
    aliases = [f"{name}-{n}" for name in reached for n in range(8)]
    for alias in aliases:
        address = servers.address(alias.rpartition("-")[0])
        sections.append(f"Host {alias}\n  HostName {address}\n  ProxyJump server\n")
    servers.ssh_config(*sections)
    servers.known_hosts("client", jump, *(servers.address(name) for name in reached))
    some = [host(servers, alias) for alias in aliases]
    with Fleet(some) as fleet:
        assert len(set(namespaces(fleet, some))) == 8


def test_those_that_fail_are_named_among_64(servers: Site) -> None:
    """Two are silent, one has another key, one refuses the login; sixty are none of these."""
    names = [each.name for each in servers.lab.hosts]
    bad = {
        "hop7": "  ProxyCommand sleep 600\n",
        "hop23": "  ProxyCommand sleep 600\n",
        "hop40": "  HostKeyAlias stranger\n",
        "hop61": "  User nobody-here\n",
    }
    servers.ssh_config(
        *(f"Host {name}\n{text}" for name, text in bad.items()),
        *(f"Host {name}\n  ProxyCommand {servers.inline(name)}\n" for name in names),
    )
    servers.known_hosts(*names)
    with pytest.raises(BenchError) as caught, Fleet([host(servers, name) for name in names]):
        pass
    text = caught.value.one_line()
    failed = {error.host for error in caught.value.errors}  # type: ignore[attr-defined]
    assert failed == set(bad), text
    for part in (
        "hop7: SSH: no answer from hop7 port 22 within 15 s",
        "hop23: SSH: no answer from hop23 port 22 within 15 s",
        "hop40: SSH host key is not known",
        "hop61: SSH refuses user nobody-here",
        "hop7, hop23: is the host up?",
    ):
        assert part in text
    assert wait_until(lambda: not [line for _, line in processes("sleep") if line == "sleep 600"])


_CONNECT = """\
import json, sys
from pathlib import Path
from bench.chain import Host
from bench.fleet import Fleet
given = json.load(sys.stdin)
hosts = [
    Host(name, "hop", "198.18.0.2", "eth0", 7000, ssh_vars={
        "ansible_host": address, "ansible_ssh_common_args": "-F " + given["config"]})
    for name, address in given["hosts"].items()
]
with Fleet(hosts) as fleet:
    print("open", flush=True)
    if given["wait"]:
        Path(given["wait"]).read_text()
"""


def start(servers: Site, names: list[str], wait: Path | None = None) -> subprocess.Popen[str]:
    """Connect to hosts by TCP from the client's namespace; the controller is in it."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", servers.namespace("client"), sys.executable, "-c", _CONNECT],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    given = {
        "hosts": {name: servers.address(name) for name in names},
        "config": str(servers.folder / "ssh_config"),
        "wait": wait and str(wait),
    }
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    process.stdin = None
    return process


def test_tcp_and_a_server_that_is_stopped(servers: Site) -> None:
    """The kernel of the host goes on answering; nobody reads the greeting."""
    names = [f"hop{n}" for n in range(1, 7)]
    started = {name: servers.serve(name) for name in names}
    servers.ssh_config("User root\nConnectTimeout 8\n")
    servers.known_hosts(*(servers.address(name) for name in names))
    process = start(servers, names)
    assert process.communicate(timeout=60)[0] == "open\n"
    assert process.returncode == 0
    for name in ("hop2", "hop5"):
        os.kill(started[name].pid, signal.SIGSTOP)
    process = start(servers, names)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    last = errors.strip().splitlines()[-1]
    assert f"hop2: SSH: no answer from {servers.address('hop2')} port 22 within 8 s" in last
    assert "hop5: SSH: no answer" in last
    assert "hop1" not in last


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_whatever_ends_the_controller(
    servers: Site, tmp_path: Path, number: signal.Signals
) -> None:
    """Neither what serves the connections, nor the commands they go through."""
    names = ["hop1", "hop2"]
    servers.serve("hop1")
    servers.ssh_config(
        f"Host hop1 {servers.address('hop1')}\n  ProxyJump server\n",
        f"Host server\n  ProxyCommand {servers.inline('server')}\n",
        f"Host {servers.address('hop2')}\n  ProxyCommand {servers.inline('hop2')}\n",
    )
    servers.known_hosts("server", *(servers.address(name) for name in names))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = start(servers, names, fifo)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    assert servers.processes("hop2")
    process.send_signal(number)
    process.communicate(timeout=30)
    mine = str(servers.folder)
    assert wait_until(lambda: not servers.processes("hop2", "server", "client"))
    assert wait_until(
        lambda: not [line for _, line in processes("ssh", "sh") if mine in line and "-W" in line]
    )
