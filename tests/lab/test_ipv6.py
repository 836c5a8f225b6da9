# SPDX-License-Identifier: Apache-2.0
"""A chain of IPv6 from end to end: lab, deploy, doctor, runs, and what is put back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bench.cells import Cell
from bench.inventory import load
from bench.lab.model import NIC, Lab
from bench.runs import RunReader
from bench.session import Session
from tests.lab.agents import DirectAgent
from tests.lab.conftest import bench, deployed, differences, inside, machine, wait_until
from tests.valid import require_valid

MODES = "direct,socat,nft,xdp"
HOP_MODES = [mode for mode in MODES.split(",") if mode != "direct"]


@pytest.fixture(scope="module")
def lab6() -> Iterator[Lab]:
    """A deployed lab of two hops with IPv6 addresses."""
    with deployed("six", hops=2, family=6) as made:
        yield made


def setting(lab: Lab, host: str, name: str) -> str:
    """Return what a host has in net.ipv6.conf, or nothing where the kernel lacks it."""
    path = f"/proc/sys/net/ipv6/conf/{name}"
    return (
        inside(lab, host, "cat", path).strip() if Path(path.replace("eth0", "lo")).exists() else ""
    )


def test_up_and_status() -> None:
    before = machine()
    up = bench("lab", "up", "--name", "one6", "--hops", "1", "--ipv6")
    try:
        assert up.status == 0, up.stderr
        chain = load(up.stdout.strip())
        assert chain.family == 6
        states = json.loads(bench("lab", "status", "--json").stdout)
        (state,) = [each for each in states if each["name"] == "one6"]
        assert (state["whole"], state["family"]) == (True, 6)
        (line,) = [each for each in bench("lab", "status").stdout.splitlines() if "one6" in each]
        assert f"IPv6, {state['network']}" in line
    finally:
        assert bench("lab", "down", "--name", "one6").status == 0
    assert differences(before) == {}


def knows(lab: Lab, host: str, address: str) -> bool:
    """Say whether a host has resolved a neighbour's address."""
    return "lladdr" in inside(lab, host, "ip", "neighbour", "show", "to", address)


def test_every_host_reaches_every_other(lab6: Lab) -> None:
    """Neighbour solicitations are multicast: they pass the wire, and nothing leads out of it."""
    probe = "import socket,sys; s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n"
    probe += "s.sendto(b'x',(sys.argv[1],9))"
    for here, there in (("client", "server"), ("server", "hop2"), ("hop1", "client")):
        address = {host.name: host.data_ip for host in lab6.hosts}[there]
        inside(lab6, here, "/usr/bin/python3", "-c", probe, address)
        assert wait_until(partial(knows, lab6, here, address)), (here, there)
        routes = json.loads(inside(lab6, here, "ip", "-6", "-json", "route"))
        # Beside its own network a host knows only where multicast goes, if that.
        assert {route["dst"] for route in routes} <= {str(lab6.network), "ff00::/8"}


def test_hosts_have_what_the_datapath_needs(lab6: Lab) -> None:
    for host in ("client", "hop1", "server"):
        assert int(setting(lab6, host, "eth0/hop_limit")) == 255
        assert setting(lab6, host, "eth0/accept_redirects") == "0"
    for hop in ("hop1", "hop2"):
        assert setting(lab6, hop, "eth0/forwarding") == "1"
        assert setting(lab6, hop, "eth0/force_forwarding") in ("1", "")
        assert setting(lab6, hop, "all/forwarding") == "0"
    assert setting(lab6, "client", "eth0/forwarding") == "0"


def test_the_doctor_is_content(lab6: Lab) -> None:
    done = bench("doctor", "-i", lab6.name, "--json")
    assert done.status == 0, done.stdout
    findings = json.loads(done.stdout)
    assert [each for each in findings if each["level"] == "problem"] == []
    assert not [each for each in findings if "forward" in each["text"]]


def test_a_second_deploy_changes_nothing(lab6: Lab) -> None:
    done = bench("deploy", "-i", lab6.name)
    assert done.status == 0, done.stderr
    counts = [line for line in done.stdout.splitlines() if line.endswith(" changed")]
    assert len(counts) == len(lab6.hosts)
    assert all(line.endswith(" 0 changed") for line in counts), counts


def test_a_run(lab6: Lab, tmp_path: Path) -> None:
    before = machine()
    done = bench(
        *("run", "-i", lab6.name, "--mode", MODES, "--hops", "1-2", "--size", "624"),
        *("--concurrency", "2", "--requests", "20", "--blocks", "1", "--output", tmp_path),
    )
    assert done.status == 0, done.stderr
    run = RunReader.open("latest", tmp_path)
    samples = run.samples[~run.samples["warmup"] & ~run.samples["twin"]]
    assert len(samples) == 1 + 2 * len(HOP_MODES)
    assert (require_valid(samples)["timed"] == 20).all()
    assert (samples["transactions"] == 20).all()
    assert run.meta["chain"]["hops"][0]["data_ip"] == lab6.hosts[1].data_ip
    nic = run.meta["host_facts"]["hop1"]["nic"]
    assert (nic["addresses"], nic["forwarding_ipv6"]) == ([lab6.hosts[1].data_ip], "1")
    assert differences(before) == {}


@pytest.mark.parametrize("mode", HOP_MODES)
def test_each_connection_is_counted_once(lab6: Lab, mode: str) -> None:
    with Session(load(lab6.name), 2, [mode]) as session:
        # What the stack knows of a machine that was there before.
        gone = ("lladdr", "02:00:00:00:00:99", "dev", NIC, "nud", "stale")
        inside(lab6, "hop1", "ip", "neigh", "replace", lab6.hosts[2].data_ip, *gone)
        attach = "native" if mode == "xdp" else ""
        session.verify((mode, attach, 2))
        raw = session.sample(Cell(mode, attach, 2, 624, 5, 500))
        assert json.loads(raw.stdout[raw.stdout.index("{") :])["transactions"] == 500
        assert raw.flows == (500, 500)


def test_udp_through_nft(lab6: Lab) -> None:
    """A datagram reaches the server from the hop's address, and its answer comes back."""
    server, hop = lab6.hosts[-1].data_ip, lab6.hosts[1].data_ip
    echo = "import socket,sys; s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n"
    echo += "s.bind((sys.argv[1],8000)); print(flush=True)\n"
    echo += "for _ in range(3):\n d,a=s.recvfrom(99); s.sendto(a[0].encode(),a)"
    ask = "import socket,sys; s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); s.settimeout(5)\n"
    ask += "s.connect((sys.argv[1],7000))\n"
    ask += "for _ in range(3): s.send(b'x'); print(s.recv(99).decode())"
    command = ["ip", "netns", "exec", lab6.namespace("server"), "/usr/bin/python3", "-c", echo]
    with (
        DirectAgent(lab6, "hop1") as agent,
        subprocess.Popen([*command, server], stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        assert agent.place()["event"] == "ready"
        assert agent.ask(mode="nft", next_ip=server, next_port=8000)["event"] == "ready"
        assert "table ip6 hopbench" in inside(lab6, "hop1", "nft", "list", "tables")
        said = inside(lab6, "client", "/usr/bin/python3", "-c", ask, hop)
        assert said.split() == [hop] * 3
        # Three datagrams, one flow.
        assert agent.ask(op="counters")["counters"]["flows_opened"] == 1
        process.kill()


def test_what_the_stack_would_not_forward_is_refused(lab6: Lab) -> None:
    switch = "net.ipv6.conf.eth0.force_forwarding"
    if not setting(lab6, "hop1", "eth0/force_forwarding"):
        pytest.skip("this kernel has no force_forwarding")
    target = {"mode": "nft", "next_ip": lab6.hosts[-1].data_ip, "next_port": 8000}
    with DirectAgent(lab6, "hop1") as agent:
        assert agent.place()["event"] == "ready"
        for name, value in ((switch, "1"), ("net.ipv6.conf.eth0.forwarding", "1")):
            inside(lab6, "hop1", "sysctl", "-qw", f"{name}=0")
            try:
                answer = agent.ask(**target)
                assert (answer["event"], answer["remedy"]) == ("error", "run bench deploy")
                assert "is off on eth0" in answer["cause"]
            finally:
                inside(lab6, "hop1", "sysctl", "-qw", f"{name}={value}")
        assert agent.ask(**target)["event"] == "ready"


def test_another_family_is_refused(lab6: Lab) -> None:
    with DirectAgent(lab6, "hop1") as agent:
        agent.place()
        answer = agent.ask(mode="nft", next_ip="198.18.0.9", next_port=8000)
        assert answer["cause"] == "next_ip is not an IPv6 address, as data_ip is"


def test_clean_removes_a_table_of_ipv6(lab6: Lab) -> None:
    """The table of an agent that lost its owner's mark, as nobody makes it."""
    inside(lab6, "hop2", "nft", "add", "table", "ip6", "hopbench")
    done = bench("clean", "-i", lab6.name)
    assert (done.status, "hop2: removed nft table ip6 hopbench" in done.stderr) == (0, True)
    assert "hopbench" not in inside(lab6, "hop2", "nft", "list", "tables")


def test_nginx_listens_on_the_one_address(lab6: Lab) -> None:
    with Session(load(lab6.name), 1, []) as session:
        session.verify(("direct", "", 0))
        listening = inside(lab6, "server", "ss", "-Hltn").split()
        assert f"[{lab6.hosts[-1].data_ip}]:8000" in listening
        assert "*:8000" not in listening and "[::]:8000" not in listening
