# SPDX-License-Identifier: Apache-2.0
"""The settings that a deploy makes on a hop's NICs, in a namespace of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import paths
from tests.lab.conftest import wait_until

NAMESPACE = "hb-settings"
NICS = ("eth0", "eth1", "mgmt0")
SCRIPT = paths.data_dir("ansible") / "roles" / "hop" / "files" / "sysctl.sh"
WANTED = {
    4: {"forwarding": "1", "send_redirects": "0", "accept_local": "1"},
    6: {"forwarding": "1", "force_forwarding": "1", "accept_ra": "2"},
}
# A router that advertises itself for an hour.
ADVERTISE = """
import sys
from scapy.all import Ether, ICMPv6ND_RA, IPv6, get_if_hwaddr, sendp
for nic in sys.argv[1:]:
    frame = Ether(src=get_if_hwaddr(nic), dst="33:33:00:00:00:01")
    frame /= IPv6(src="fe80::99", dst="ff02::1") / ICMPv6ND_RA(routerlifetime=3600)
    sendp(frame, iface=nic, verbose=0)
"""


def run(*argv: str) -> str:
    """Run a program in the namespace and return its output."""
    command = ["ip", "netns", "exec", NAMESPACE, *argv]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def opt(tmp_path: Path) -> Iterator[Path]:
    """A namespace with three NICs and their peers; the folder that stands for its /opt."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        for nic in NICS:
            run("ip", *f"link add {nic} type veth peer name {nic}p".split())
            for end in (f"{nic}p", nic):
                run("ip", "link", "set", end, "addrgenmode", "none", "up")
            run("sysctl", "-qw", f"net.ipv6.conf.{nic}p.accept_ra=0")
        yield tmp_path
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def script(opt: Path, *arguments: str) -> str:
    """Run sysctl.sh as the role does, with its record below `opt`; return the word it prints."""
    # ip netns exec gives the program a mount namespace of its own.
    start = 'mount --bind "$1" /opt && shift && exec sh -c "$@"'
    text = run("sh", "-c", start, "sh", str(opt), SCRIPT.read_text(), "sysctl.sh", *arguments)
    assert text.startswith("hopbench-sysctl ")
    return text.split()[1]


def values() -> dict[str, str]:
    """Return every setting of IPv4 and IPv6, without what changes by itself."""
    # Those that were never set cannot be read, which grep calls a failure.
    text = run("sh", "-c", "cd /proc/sys/net && grep -rs . ipv4/conf ipv6/conf || :")
    return dict(line.split(":", 1) for line in text.splitlines())


def wanted(family: int, *nics: str) -> dict[str, str]:
    """Return what a deploy should have set, as far as this kernel has it."""
    there = values()
    found = {
        f"ipv{family}/conf/{nic}/{name}": value
        for nic in nics
        for name, value in WANTED[family].items()
    }
    return {name: value for name, value in found.items() if name in there}


@pytest.mark.parametrize("nics", [("eth0",), ("eth0", "eth1")])
@pytest.mark.parametrize("family", [4, 6])
def test_set_and_restore(opt: Path, family: int, nics: tuple[str, ...]) -> None:
    before = values()
    arguments = ("hop1", str(family), *nics)
    made = {**before, **wanted(family, *nics)}
    assert made != before
    changed = {name for name in made if made[name] != before[name]}
    assert {name.split("/")[2] for name in changed} == set(nics)
    for words, word, after in (
        (("restore", "hop1"), "unchanged", before),
        (("set", "--check", *arguments), "changed", before),
        (("set", *arguments), "changed", made),
        (("set", *arguments), "unchanged", made),
        (("set", "--check", *arguments), "unchanged", made),
        (("restore", "--check", "hop1"), "changed", made),
        (("restore", "hop1"), "changed", before),
        (("restore", "hop1"), "unchanged", before),
    ):
        assert script(opt, *words) == word, words
        assert values() == after, words
    assert list((opt / "hopbench" / "state" / "sysctl").iterdir()) == []


@pytest.mark.parametrize("family", [4, 6])
def test_a_nic_that_is_no_longer_the_hops_is_put_back_too(opt: Path, family: int) -> None:
    before = values()
    assert script(opt, "set", "hop1", str(family), "eth0", "eth1") == "changed"
    made = values()
    assert script(opt, "set", "hop1", str(family), "eth0") == "unchanged"
    # Mended, and the record written anew.
    run("sysctl", "-qw", f"net.ipv{family}.conf.eth0.forwarding=0")
    assert script(opt, "set", "hop1", str(family), "eth0") == "changed"
    assert values() == made
    assert script(opt, "restore", "hop1") == "changed"
    assert values() == before


def test_an_egress_nic_that_comes_later(opt: Path) -> None:
    before = values()
    assert script(opt, "set", "hop1", "4", "eth0") == "changed"
    assert script(opt, "set", "hop1", "4", "eth0", "eth1") == "changed"
    assert values() == {**before, **wanted(4, "eth0", "eth1")}
    assert script(opt, "restore", "hop1") == "changed"
    assert values() == before


def test_what_somebody_changed_since_stays(opt: Path) -> None:
    script(opt, "set", "hop1", "4", "eth0")
    run("sysctl", "-qw", "net.ipv4.conf.eth0.accept_local=0")
    run("ip", "link", "delete", "eth1")
    made = values()
    assert script(opt, "restore", "hop1") == "changed"
    assert values()["ipv4/conf/eth0/accept_local"] == "0"
    assert values()["ipv4/conf/eth0/forwarding"] != made["ipv4/conf/eth0/forwarding"]


def test_a_nic_that_is_gone_keeps_nothing_from_being_put_back(opt: Path) -> None:
    before = values()
    script(opt, "set", "hop1", "6", "eth0", "eth1")
    run("ip", "link", "delete", "eth1")
    assert script(opt, "restore", "hop1") == "changed"
    after = values()
    assert after == {name: before[name] for name in after}


def test_router_advertisements_that_nobody_wants_stay_unwanted(opt: Path) -> None:
    run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=0")
    script(opt, "set", "hop1", "6", "eth0")
    assert values()["ipv6/conf/eth0/accept_ra"] == "0"
    script(opt, "restore", "hop1")
    assert values()["ipv6/conf/eth0/accept_ra"] == "0"


def default_routes() -> set[str]:
    """Return the NICs that default routes lead out of."""
    text = run("ip", "-6", "route", "show", "default")
    return {line.split(" dev ")[1].split()[0] for line in text.splitlines()}


@pytest.fixture
def routers(opt: Path) -> None:
    """Default routes by mgmt0 and eth0, from router advertisements."""
    for nic in ("mgmt0", "eth0"):
        run("ip", "address", "add", "fe80::1/64", "dev", nic, "nodad")

    def advertise() -> bool:
        run(sys.executable, "-c", ADVERTISE, "mgmt0p", "eth0p")
        return default_routes() == {"mgmt0", "eth0"}

    assert wait_until(advertise)


@pytest.mark.usefixtures("routers")
def test_routes_that_were_advertised_live(opt: Path) -> None:
    """SSH may depend on one, whichever NIC it goes by."""
    assert script(opt, "set", "hop1", "6", "eth0") == "changed"
    assert default_routes() == {"mgmt0", "eth0"}
    assert values()["ipv6/conf/mgmt0/accept_ra"] == "1"
    assert script(opt, "restore", "hop1") == "changed"
    assert default_routes() == {"mgmt0", "eth0"}


@pytest.mark.usefixtures("routers")
def test_routes_that_were_advertised_would_not_live() -> None:
    """What the script saves them from; a kernel that has learned better fails here."""
    run("sysctl", "-qw", "net.ipv6.conf.eth1.forwarding=1")
    assert default_routes() == set()


@pytest.mark.parametrize("arguments", [("hop1", "4", "hb-none"), ("hop1", "6", "eth0", "hb-none")])
def test_a_nic_that_is_not_there(opt: Path, arguments: tuple[str, ...]) -> None:
    before = values()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        script(opt, "set", *arguments)
    assert "hb-none" in caught.value.stderr
    assert values() == before
