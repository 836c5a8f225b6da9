# SPDX-License-Identifier: Apache-2.0
"""What others have on a host stays theirs and works on; whoever is in the way is named."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench.hop.version import digest
from bench.lab.model import NIC, Lab
from tests.lab.agents import DirectAgent
from tests.lab.conftest import bench, inside, wait_until
from tests.lab.endpoints import HOP_PORT, at, host_of

MODES = ("socat", "nft", "xdp")
DROPPED, LET_IN = 4242, 4243

# --- a port ----------------------------------------------------------------------------------

# Each says which processes it may be told as; {address} is the host's.
HOLDERS: dict[str, tuple[str, list[str]]] = {
    "any address": ("socat", ["socat", "TCP4-LISTEN:{port},fork,reuseaddr", "EXEC:cat"]),
    "this address": (
        "socat",
        ["socat", "TCP4-LISTEN:{port},bind={address},fork,reuseaddr", "EXEC:cat"],
    ),
    "both families": ("socat", ["socat", "TCP6-LISTEN:{port},ipv6only=0,fork", "EXEC:cat"]),
}


@contextlib.contextmanager
def listening(lab: Lab, host: str, holder: str, port: int) -> Iterator[str]:
    """Have a program echo at a port of a host; yields how it is to be named."""
    name, words = HOLDERS[holder]
    fields = {"port": port, "address": host_of(lab, host).data_ip}
    enter = ["ip", "netns", "exec", lab.namespace(host)]
    process = subprocess.Popen([*enter, *(word.format(**fields) for word in words)])
    try:
        assert wait_until(lambda: f":{port} " in inside(lab, host, "ss", "-Hltn"))
        yield f"{name} (process {process.pid})"
        assert process.poll() is None
        with at(lab, "client"):
            client = socket.create_connection((host_of(lab, host).data_ip, port), timeout=10)
        with client:
            client.sendall(b"still here")
            assert client.recv(100) == b"still here"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("holder", HOLDERS)
def test_who_has_a_hops_port(lab: Lab, holder: str) -> None:
    with (
        listening(lab, "hop1", holder, HOP_PORT) as name,
        DirectAgent(lab, "hop1") as agent,
    ):
        agent.place()
        for mode in MODES:
            answer = agent.ask(mode=mode, next_ip=lab.hosts[-1].data_ip, next_port=8000)
            assert answer["event"] == "error"
            assert answer["cause"] == f"port {HOP_PORT} is taken by {name}"


@pytest.mark.parametrize("holder", HOLDERS)
def test_who_has_the_servers_port(lab: Lab, holder: str) -> None:
    with (
        listening(lab, "server", holder, 8000) as name,
        DirectAgent(lab, "server", "serve") as agent,
    ):
        place = {"op": "place", "version": digest(), "data_nic": NIC, "server_port": 8000}
        answer = agent.ask(**place, data_ip=lab.hosts[-1].data_ip)
        assert answer["event"] == "error"
        assert answer["cause"] == f"port 8000 is taken by {name}"


# --- datagrams, which somebody else's rules and programs let in or do not ----------------------


def arrives(lab: Lab, port: int, limit_s: float) -> bool:
    """Say whether a datagram of the client's arrives at a port of hop 1."""
    address = host_of(lab, "hop1").data_ip
    with at(lab, "hop1"):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with at(lab, "client"):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((address, port))
        receiver.settimeout(limit_s)
        sender.sendto(b"hello", (address, port))
        try:
            return receiver.recv(100) == b"hello"
        except TimeoutError:
            return False


def require_filtered(lab: Lab) -> None:
    """Fail unless what drops datagrams to one port does so, and lets others in."""
    assert arrives(lab, LET_IN, 10)
    assert not arrives(lab, DROPPED, 0.3)


# --- an XDP program --------------------------------------------------------------------------

_FILTER = """
#include <uapi/linux/bpf.h>
int {name}(struct xdp_md *ctx)
{{
	unsigned char *at = (void *)(long)ctx->data;

	if (at + 38 > (unsigned char *)(long)ctx->data_end)
		return XDP_PASS;
	return at[23] == 17 && at[36] << 8 == {high} && at[37] == {low} ? XDP_DROP : XDP_PASS;
}}
"""
# Attached by netlink, a program outlives who loads it; as libxdp's dispatcher does.
_ATTACH = """
import sys
from bcc import BPF
bpf = BPF(text=sys.argv[1])
bpf.attach_xdp("eth0", bpf.load_func(sys.argv[2], BPF.XDP), int(sys.argv[3]))
"""
_FLAGS = {"native": 1 << 2, "generic": 1 << 1}


@contextlib.contextmanager
def filtering(lab: Lab, name: str, attach: str) -> Iterator[int]:
    """Have a program that drops one port's datagrams on hop 1's NIC; yields its id."""
    text = _FILTER.format(name=name, high=DROPPED & 0xFF00, low=DROPPED & 0xFF)
    words = ("/usr/bin/python3", "-c", _ATTACH, text, name, str(_FLAGS[attach]))
    inside(lab, "hop1", *words)
    try:
        require_filtered(lab)
        found = re.search(r"prog/xdp id (\d+)", inside(lab, "hop1", "ip", "link", "show", NIC))
        assert found is not None
        yield int(found[1])
        assert f"prog/xdp id {found[1]} " in inside(lab, "hop1", "ip", "link", "show", NIC)
        require_filtered(lab)
    finally:
        off = "xdpgeneric" if attach == "generic" else "xdpdrv"
        inside(lab, "hop1", "ip", "link", "set", NIC, off, "off")


@pytest.mark.parametrize(
    ("name", "attach", "more", "remedy"),
    [
        ("their_filter", "native", "", "ip link set eth0 xdp off"),
        ("their_filter", "generic", "", "ip link set eth0 xdpgeneric off"),
        ("xdp_dispatcher", "native", ", libxdp's dispatcher", "xdp-loader unload eth0 --all"),
    ],
    ids=["native", "generic", "libxdp"],
)
def test_whose_xdp_program_a_nic_has(
    lab: Lab, name: str, attach: str, more: str, remedy: str
) -> None:
    with filtering(lab, name, attach) as prog_id, DirectAgent(lab, "hop1") as agent:
        agent.place(prepare=["xdp"])
        for ours in ("native", "generic"):
            answer = agent.ask(
                mode="xdp", attach=ours, next_ip=lab.hosts[-1].data_ip, next_port=8000
            )
            assert answer["event"] == "error"
            told = f"another XDP program is attached to eth0: {name} (id {prog_id}){more}"
            assert answer["cause"] == told
            assert remedy in answer["remedy"]
        # Modes that need no program there share the NIC.
        assert agent.ask(mode="nft", next_ip=lab.hosts[-1].data_ip, next_port=8000)["mode"] == "nft"
        require_filtered(lab)


def test_which_process_has_a_program(lab: Lab) -> None:
    with DirectAgent(lab, "hop1") as other, DirectAgent(lab, "hop1") as agent:
        target = {"mode": "xdp", "next_ip": lab.hosts[-1].data_ip, "next_port": 8000}
        other.place()
        prog_id = other.ask(**target)["prog_id"]
        agent.place()
        answer = agent.ask(**target)
        told = f"hopbench_fwd (id {prog_id}), held by python3 (process {other.process.pid})"
        assert answer["cause"] == f"another XDP program is attached to eth0: {told}"
        assert "end that" in answer["remedy"]
        assert other.ask(op="counters")["mode"] == "xdp"


# --- an nft table ----------------------------------------------------------------------------

_OWN = """
import nftables, time
nft = nftables.Nftables()
assert nft.cmd("add table {table} {{ flags owner; }}")[0] == 0
print("ready", flush=True)
time.sleep(300)
"""


@contextlib.contextmanager
def owned_table(lab: Lab, table: str) -> Iterator[str]:
    """Have a process own a table on hop 1; yields how it is to be named."""
    enter = ["ip", "netns", "exec", lab.namespace("hop1")]
    words = ["/usr/bin/python3", "-c", _OWN.format(table=table)]
    process = subprocess.Popen([*enter, *words], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield f"owned by python3 (process {process.pid})"
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def free_table(lab: Lab, table: str) -> Iterator[str]:
    """Have a table on hop 1 that no process owns; yields what is to be said of that."""
    inside(lab, "hop1", "nft", f"table {table} {{ chain theirs {{ accept; }}; }}")
    try:
        yield "and nobody owns it"
    finally:
        inside(lab, "hop1", "nft", f"delete table {table}")


@pytest.mark.parametrize("table", ["ip hopbench", "ip6 hopbench"])
@pytest.mark.parametrize("made", [owned_table, free_table], ids=["owned", "free"])
def test_who_owns_a_table_of_our_name(
    lab: Lab, made: Callable[[Lab, str], AbstractContextManager[str]], table: str
) -> None:
    with made(lab, table) as owner, DirectAgent(lab, "hop1") as agent:
        before = inside(lab, "hop1", "nft", "list", "ruleset")
        agent.place()
        answer = agent.ask(mode="nft", next_ip=lab.hosts[-1].data_ip, next_port=8000)
        assert answer["event"] == "error"
        assert answer["cause"] == f"the nft table {table} is already there, {owner}"
        assert f"table {table} " in before
        assert inside(lab, "hop1", "nft", "list", "ruleset") == before


@pytest.mark.parametrize("mode", MODES)
def test_tables_of_others_work_on(lab: Lab, mode: str) -> None:
    """Of any other name, whatever they do: here they drop what comes to one port."""
    rules = f"udp dport {DROPPED} drop"
    chain = "type filter hook input priority filter; policy accept;"
    inside(lab, "hop1", "nft", f"table inet theirs {{ chain input {{ {chain} {rules}; }}; }}")
    try:
        before = inside(lab, "hop1", "nft", "list", "ruleset")
        require_filtered(lab)
        with DirectAgent(lab, "hop1") as agent:
            agent.place()
            target = {"next_ip": lab.hosts[-1].data_ip, "next_port": 8000}
            assert agent.ask(mode=mode, **target)["event"] == "ready"
            require_filtered(lab)
            assert agent.ask(mode="direct")["event"] == "ready"
        assert inside(lab, "hop1", "nft", "list", "ruleset") == before
        require_filtered(lab)
    finally:
        inside(lab, "hop1", "nft", "delete table inet theirs")


# --- before anything is tried ------------------------------------------------------------------


def test_the_doctor_names_them(lab: Lab, tmp_path: Path) -> None:
    inside(lab, "hop2", "nft", "add table ip theirs")
    try:
        with filtering(lab, "their_filter", "native") as prog_id:
            done = bench("doctor", "-i", lab.name, cwd=tmp_path)
    finally:
        inside(lab, "hop2", "nft", "delete table ip theirs")
    said = done.stdout + done.stderr
    assert f"already runs XDP program their_filter (id {prog_id})" in said
    assert "nft has tables of others (ip theirs)" in said
