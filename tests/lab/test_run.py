# SPDX-License-Identifier: Apache-2.0
"""`bench run` on a real lab: every mode, 1 to 5 hops, real siege and nginx."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bench.cells import Cell
from bench.hop.version import digest
from bench.inventory import load
from bench.lab.model import NIC, Lab
from bench.runs import RunReader
from bench.session import Session, forwarding_of
from tests.lab.agents import DirectAgent
from tests.lab.conftest import (
    bench,
    deployed,
    differences,
    inside,
    kill,
    machine,
    processes,
    start_bench,
    wait_until,
)
from tests.valid import require_valid

MODES = ("direct", "socat", "nft", "xdp")


def cell(
    mode: str, hops: int, *, size: int = 624, concurrency: int = 1, requests: int = 50
) -> Cell:
    """Return a cell; attach follows from the mode."""
    attach = "native" if mode == "xdp" else ""
    return Cell(mode, attach, 0 if mode == "direct" else hops, size, concurrency, requests)


def tcp_counter(lab: Lab, host: str, name: str) -> int:
    """Return a TcpExt counter of a host."""
    lines = inside(lab, host, "cat", "/proc/net/netstat").splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(dict(zip(names, values, strict=True))[name])


def test_every_mode_and_hop_count(lab: Lab, tmp_path: Path) -> None:
    before = machine()
    done = bench(
        *("run", "-i", lab.name, "--mode", "direct,socat", "--mode", "nft,xdp"),
        *("--hops", "1,3,5", "--size", "624,159744", "--concurrency", "1,25"),
        *("--requests", "100", "--blocks", "1", "--seed", "7", "--output", tmp_path),
    )
    assert done.status == 0, done.stderr
    run = RunReader.open("latest", tmp_path)
    assert run.meta["status"] == "complete"
    assert run.meta["seed"] == 7
    cells, twins = 2 * 2 * (1 + 3 * 3), 2 * 2
    samples = run.samples
    assert samples["warmup"].sum() == samples["twin"].sum() / 2 + cells == cells + twins
    samples = samples[~samples["warmup"]]
    assert len(samples) == cells + twins
    require_valid(samples)
    assert (samples["transactions"] == 100).all()
    assert (samples["failed"] == 0).all()
    assert len(list((run.path / "raw" / "siege").iterdir())) == len(run.samples)
    assert set(run.meta["host_facts"]) == {host.name for host in lab.hosts}
    assert run.meta["host_facts"]["hop5"]["forwarders"]["xdp native"]["attach"] == "native"
    logs = {file.stem: file.read_text() for file in (run.path / "raw" / "agents").iterdir()}
    assert set(logs) == {host.name for host in lab.hosts}
    assert '"mode": "xdp"' in logs["hop5"]
    comparison = json.loads(bench("compare", "latest", "--results", tmp_path, "--json").stdout)
    assert len(comparison["cells"]) == cells
    assert "latest" not in bench("list", "--results", tmp_path).error
    assert run.run_id in bench("list", "--results", tmp_path).stdout
    assert "per hop" in bench("show", run.run_id, "--results", tmp_path).stdout
    assert differences(before) == {}


def test_the_bridge_and_the_generic_attach(tmp_path: Path) -> None:
    with deployed("bridged", hops=2, wire="bridge"):
        done = bench(
            *("run", "-i", "bridged", "--mode", "nft,xdp", "--attach", "native,generic"),
            *("--hops", "1-2", "--size", "9984", "--blocks", "1", "--output", tmp_path),
        )
        assert done.status == 0, done.stderr
        samples = RunReader.open("latest", tmp_path).samples
        require_valid(samples)
        assert set(samples["attach"]) == {"", "native", "generic"}


def test_many_at_once_then_again_after_a_reload(lab: Lab) -> None:
    """No source port meets the TIME_WAIT of an earlier connection, also right after a reload."""
    chain = load(lab.name)
    # socat opens connections of its own.
    hosts = ("client", "hop1", "hop2", "hop3")
    for mode in ("xdp", "nft", "xdp", "socat", "xdp", "nft"):
        # A session starts new agents: each loads the program, and its tables, anew.
        with Session(chain, 3, [mode]) as session:
            before = [tcp_counter(lab, host, "TCPSynRetrans") for host in hosts]
            sample = session.sample(cell(mode, 3, concurrency=25, requests=4000))
            report = json.loads(sample.stdout[sample.stdout.index("{") :])
            assert report["transactions"] == 4000, mode
            assert report["failed_transactions"] == 0, mode
            # One lost SYN is sent again; how long a transaction takes is the machine's affair.
            assert [tcp_counter(lab, host, "TCPSynRetrans") for host in hosts] == before, mode
            assert min(sample.flows) >= 4000
    assert tcp_counter(lab, "server", "TCPTimeWaitOverflow") == 0


def test_payloads_arrive_whole_by_every_way(lab: Lab) -> None:
    with Session(load(lab.name), 5, list(MODES)) as session:
        for mode in MODES:
            for hops in (1, 3, 5):
                session.verify(forwarding_of(cell(mode, hops)))


@pytest.mark.parametrize("state", ["reachable", "stale"])
@pytest.mark.parametrize("mode", ["socat", "nft", "xdp"])
def test_a_next_hop_that_was_made_anew(lab: Lab, mode: str, state: str) -> None:
    """The stack still knows the MAC address of the machine that was there before."""
    with Session(load(lab.name), 2, [mode]) as session:
        gone = ("lladdr", "02:00:00:00:00:99", "dev", NIC, "nud", state)
        inside(lab, "hop1", "ip", "neigh", "replace", lab.hosts[2].data_ip, *gone)
        session.verify(forwarding_of(cell(mode, 2)))


def test_a_way_around_the_hops_is_noticed(lab: Lab) -> None:
    """A hop whose counters do not move is not part of the chain, whatever arrives."""
    with Session(load(lab.name), 1, ["xdp"]) as session:
        session.verify(("xdp", "native", 1))
        honest = session._chain.entry
        object.__setattr__(session, "_chain", _Shortcut(session._chain))
        with pytest.raises(Exception, match="carried 0 of"):
            session.verify(("xdp", "native", 1))
        assert honest(1) != honest(0)


class _Shortcut:
    """A chain whose client is sent straight to the server."""

    def __init__(self, chain: object) -> None:
        self._chain = chain

    def __getattr__(self, name: str) -> object:
        return getattr(self._chain, name)

    def entry(self, hops: int) -> tuple[str, int]:
        return self._chain.entry(0)  # type: ignore[attr-defined,no-any-return]


def test_other_traffic_on_the_nic_lives(lab: Lab) -> None:
    """A TCP connection to the hop itself, as SSH would be, while XDP forwards on the same NIC."""
    hop, address = "hop1", lab.hosts[1].data_ip
    echo = (
        "import socket;s=socket.create_server(('',2222));c,_=s.accept()\n"
        "while d:=c.recv(99): c.sendall(d)"
    )
    ping = (
        "import socket,sys,time;s=socket.create_connection((sys.argv[1],2222));s.settimeout(20)\n"
        "for i in range(100):\n s.sendall(b'x'*99); n=0\n"
        " while n<99: n+=len(s.recv(99))\n time.sleep(.002)"
    )
    server = subprocess.Popen(
        ["ip", "netns", "exec", lab.namespace(hop), "/usr/bin/python3", "-c", echo]
    )
    try:
        assert wait_until(lambda: bool(inside(lab, hop, "ss", "-Hltn", "sport = :2222")))
        with Session(load(lab.name), 1, ["xdp"]) as session:
            session.switch(("xdp", "native", 1))
            client = subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    lab.namespace("client"),
                    "/usr/bin/python3",
                    "-c",
                    ping,
                    address,
                ]
            )
            raw = session.sample(cell("xdp", 1, concurrency=25, requests=5000))
            assert client.wait(timeout=60) == 0
            assert not raw.timed_out
    finally:
        server.kill()
        server.wait()


def test_interrupted_by_the_user(lab: Lab, tmp_path: Path) -> None:
    before = machine()
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start_bench(
            *("run", "-i", lab.name, "--mode", "xdp,nft", "--hops", "3", "--size", "624"),
            *("--requests", "2000", "--blocks", "50", "--output", tmp_path / number.name),
            cwd=tmp_path,
        )
        samples = tmp_path / number.name
        assert wait_until(lambda: _samples(samples) >= 3, 120)  # noqa: B023
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "interrupted" in errors.strip().splitlines()[-1]
        run = RunReader.open("latest", samples)
        assert run.meta["status"] == "interrupted"
        assert len(require_valid(run.samples)) >= 2
        assert differences(before) == {}


def _sieges(arguments: str) -> bool:
    """Is there a siege with these arguments? Its version is asked for at the start of a run."""
    return any(arguments in text for _, text in processes("siege"))


def _samples(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) - 1 for file in folder.glob("*/samples.csv"))


def test_killed_without_warning(lab: Lab, tmp_path: Path) -> None:
    before = machine()
    for mode in ("xdp", "nft", "socat"):
        folder = tmp_path / mode
        process = start_bench(
            *("run", "-i", lab.name, "--mode", mode, "--hops", "5", "--size", "624"),
            *("--requests", "100000", "--blocks", "1", "--output", folder),
            cwd=tmp_path,
        )
        assert wait_until(lambda: _sieges("-r 100000"), 120)
        time.sleep(0.3)
        process.kill()
        process.communicate(timeout=10)
        assert differences(before) == {}
        meta = json.loads(next(folder.glob("*/run.json")).read_text())
        assert meta["status"] == "running"  # nobody was left to say otherwise


def test_an_agent_killed_in_mid_run_is_named(lab: Lab, tmp_path: Path) -> None:
    before = machine()
    process = start_bench(
        *("run", "-i", lab.name, "--mode", "nft", "--hops", "2", "--size", "624"),
        *("--requests", "500", "--blocks", "500", "--output", tmp_path),
        cwd=tmp_path,
    )
    assert wait_until(lambda: _samples(tmp_path) >= 2, 120)
    inode = Path(f"/run/netns/{lab.namespace('hop2')}").stat().st_ino
    agents = [
        pid
        for pid, text in processes()
        if "hop forward" in text and Path(f"/proc/{pid}/ns/net").stat().st_ino == inode
    ]
    assert len(agents) == 1
    kill(agents[0])
    _, errors = process.communicate(timeout=60)
    last = errors.strip().splitlines()[-1]
    assert (process.returncode, "hop2" in last) == (1, True), last
    assert RunReader.open("latest", tmp_path).meta["status"] == "failed"
    assert differences(before) == {}


def test_siege_ends_when_the_controller_leaves(lab: Lab) -> None:
    before = machine()
    with DirectAgent(lab, "client", "load") as agent:
        agent.ask(op="place", version=digest(), data_nic="eth0", data_ip=lab.hosts[0].data_ip)
        assert agent.process.stdin is not None
        message = {"op": "siege", "ip": str(lab.network[250]), "port": 8000, "size_bytes": 624}
        message |= {"concurrency": 1, "repetitions": 1000, "limit_s": 60, "lease_s": 70}
        agent.process.stdin.write(json.dumps(message) + "\n")
        agent.process.stdin.flush()
        assert wait_until(lambda: _sieges("-r 1000 "))
        agent.process.stdin.close()
        assert agent.process.wait(timeout=10) == 0
    assert differences(before) == {}


def test_an_ephemeral_lab_vanishes_with_its_run(lab: Lab, tmp_path: Path) -> None:
    """All but what is deployed, which was there before it."""
    before = machine()
    process = start_bench(
        *("run", "--mode", "direct,xdp", "--hops", "1", "--size", "624"),
        *("--requests", "100000", "--blocks", "1", "--output", tmp_path),
        cwd=tmp_path,
    )
    assert wait_until(lambda: _sieges("-r 100000"), 120)
    process.kill()
    process.communicate(timeout=10)
    assert differences(before) == {}


def test_dry_run_and_bad_sweeps(tmp_path: Path) -> None:
    before = machine()
    done = bench("run", "--dry-run", "--mode", "xdp", "--hops", "1-3", "--seed", "1", cwd=tmp_path)
    assert done.status == 0
    assert "12 cells, 10 blocks, 120 samples" in done.stdout
    assert (
        done.stdout
        == bench("run", "--dry-run", "--mode", "xdp", "--hops", "1-3", "--seed", "1").stdout
    )
    assert list(tmp_path.iterdir()) == []
    assert differences(before) == {}
