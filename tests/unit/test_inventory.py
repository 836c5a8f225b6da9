# SPDX-License-Identifier: Apache-2.0
"""Inventories as users write them, right and wrong, through Ansible's own loader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from inventory_texts import GOOD, GOOD_YAML, changed, fails, names, write

from bench import current, paths
from bench.errors import BenchError
from bench.inventory import find, load


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chain.ini", GOOD),
        ("chain", GOOD),
        ("chain.cfg", GOOD),
        ("chain.yml", GOOD_YAML),
        ("chain.yaml", GOOD_YAML),
        ("chain", GOOD_YAML),
        ("chain.yml", "---\n" + GOOD_YAML),
        ("chain.ini", GOOD.replace("\n", "\r\n")),
        (
            "chain.json",
            json.dumps(
                {
                    "all": {
                        "vars": {"data_nic": "eth0"},
                        "children": {
                            "client": {"hosts": {"alpha": {"data_ip": "198.18.0.1"}}},
                            "hops": {"hosts": {"bravo": {"data_ip": "198.18.0.2"}}},
                            "server": {"hosts": {"echo": {"data_ip": "198.18.0.3"}}},
                        },
                    }
                }
            ),
        ),
    ],
    ids=["ini", "bare ini", "cfg", "yml", "yaml", "bare yaml", "document", "crlf", "json"],
)
def test_the_same_chain_in_every_format(tmp_path: Path, name: str, text: str) -> None:
    chain = load(str(write(tmp_path, text, name)))
    assert chain.inventory == tmp_path / name
    assert [
        (host.name, host.role, host.data_ip, host.data_nic, host.port, host.xdp_attach)
        for host in chain.hosts
    ] == [
        ("alpha", "client", "198.18.0.1", "eth0", 0, "native"),
        ("bravo", "hop", "198.18.0.2", "eth0", 7000, "native"),
        ("echo", "server", "198.18.0.3", "eth0", 8000, "native"),
    ]
    assert [host.ssh_vars for host in chain.hosts] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("hops", "order"),
    [
        (
            "hop[1:3]\nhop3 data_ip=198.18.0.9\nhop2 data_ip=198.18.0.8\nhop1 data_ip=198.18.0.7",
            ["hop1", "hop2", "hop3"],
        ),
        ("zulu data_ip=198.18.0.9\nbravo data_ip=198.18.0.2", ["zulu", "bravo"]),
        (
            "hop10 data_ip=198.18.0.10\nhop9 data_ip=198.18.0.9\nhop11 data_ip=198.18.0.11",
            ["hop10", "hop9", "hop11"],
        ),
    ],
    ids=["range", "not sorted", "not by number"],
)
def test_hops_keep_their_order(tmp_path: Path, hops: str, order: list[str]) -> None:
    path = write(tmp_path, changed(GOOD, ("bravo data_ip=198.18.0.2", hops)))
    chain = load(str(path))
    assert [hop.name for hop in chain.hops] == order
    assert chain.entry(len(order)) == (chain.hops[0].data_ip, 7000)
    assert chain.next_of(0, 2) == (chain.hops[1].data_ip, 7000)
    assert chain.next_of(1, 2) == ("198.18.0.3", 8000)


@pytest.mark.parametrize("backward", [False, True])
def test_groups_of_groups(tmp_path: Path, backward: bool) -> None:
    racks = ["rack1", "rack2"][:: -1 if backward else 1]
    text = changed(
        GOOD,
        (
            "[hops]\nbravo data_ip=198.18.0.2",
            "[rack1]\nb1 data_ip=198.18.0.21\nb0 data_ip=198.18.0.20\n"
            "[rack2]\nc data_ip=198.18.0.30\n[rack2:vars]\nforward_port=7100\n"
            f"[hops:children]\n{racks[0]}\n{racks[1]}",
        ),
    )
    hops = load(str(write(tmp_path, text))).hops
    first, second = [("b1", 7000), ("b0", 7000)], [("c", 7100)]
    assert [(hop.name, hop.port) for hop in hops] == (
        second + first if backward else first + second
    )


@pytest.mark.parametrize("name", ["chain.ini", "chain.yml"])
@pytest.mark.parametrize(
    ("files", "client", "hop"),
    [
        (1, ("from_all", 0), ("from_all", 7000)),
        (2, ("from_all", 0), ("from_group", 7001)),
        (3, ("from_all", 0), ("from_host", 7001)),
        (4, ("from_all", 0), ("from_host", 7001)),
    ],
)
def test_folders_beside_the_inventory(
    tmp_path: Path, name: str, files: int, client: tuple[str, int], hop: tuple[str, int]
) -> None:
    """The nearer one wins, as Ansible has it: all, group, host, and folders over the file."""
    path = write(tmp_path, GOOD if name.endswith("ini") else GOOD_YAML, name)
    for file, text in (
        ("group_vars/all.yml", "data_nic: from_all"),
        ("group_vars/hops", "data_nic: from_group\nforward_port: 7001"),
        ("host_vars/bravo.yml", "data_nic: from_host"),
        ("host_vars/echo/ports.yml", "server_port: 8001"),
    )[:files]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    chain = load(str(path))
    assert (chain.client.data_nic, chain.client.port) == client
    assert (chain.hops[0].data_nic, chain.hops[0].port) == hop
    assert chain.server.port == (8001 if files == 4 else 8000)


@pytest.mark.parametrize(
    ("variables", "nic", "port", "attach"),
    [
        ("", "eth0", 7000, "native"),
        ("forward_port=7100", "eth0", 7100, "native"),
        ("forward_port='7100'", "eth0", 7100, "native"),
        ('forward_port="{{ base + 100 }}" base=7000', "eth0", 7100, "native"),
        ('forward_port="{{ a }}" a="{{ b }}" b="{{ c }}" c=65535', "eth0", 65535, "native"),
        ("forward_port=1", "eth0", 1, "native"),
        ("forward_port=", "eth0", 7000, "native"),
        ("xdp_attach=generic", "eth0", 7000, "generic"),
        ("xdp_attach=", "eth0", 7000, "native"),
        ('data_nic="{{ nic }}" nic=enp3s0f0', "enp3s0f0", 7000, "native"),
        ("data_nic=\"{{ nic | default('eth7') }}\"", "eth7", 7000, "native"),
        ('data_nic="en{{ inventory_hostname }}"', "enbravo", 7000, "native"),
        ("data_nic=eth0.100", "eth0.100", 7000, "native"),
        ("data_nic=abcdefghijklmno", "abcdefghijklmno", 7000, "native"),
        ("data_nic='$(x);`y`'", "$(x);`y`", 7000, "native"),
        ("data_nic=ö", "ö", 7000, "native"),
        ("# data_nic=eth9", "eth0", 7000, "native"),
    ],
)
def test_values(tmp_path: Path, variables: str, nic: str, port: int, attach: str) -> None:
    path = write(tmp_path, changed(GOOD, ("198.18.0.2", f"198.18.0.2 {variables}")))
    hop = load(str(path)).hops[0]
    assert (hop.data_nic, hop.port, hop.xdp_attach) == (nic, port, attach)
    # Ansible's own kinds of str and int carry more than their value.
    assert {type(hop.data_nic), type(hop.data_ip), type(hop.xdp_attach)} == {str}


def test_how_to_connect_goes_along(tmp_path: Path) -> None:
    text = changed(
        GOOD,
        (
            "198.18.0.2",
            '198.18.0.2 ansible_host="{{ lan }}.7" lan=192.0.2 ansible_port=2222 other=1',
        ),
        ("data_nic=eth0", "data_nic=eth0\nansible_user=lab\nansible_become=true"),
    )
    alpha, bravo, _ = load(str(write(tmp_path, text))).hosts
    common = {"ansible_user": "lab", "ansible_become": "true"}
    assert alpha.ssh_vars == common
    assert bravo.ssh_vars == {**common, "ansible_host": "192.0.2.7", "ansible_port": 2222}


@pytest.mark.parametrize(
    ("variables", "egress_nic", "nat_ports", "nat_flows", "nat_policy"),
    [
        ("", "", None, None, "affine"),
        ("egress_nic= nat_ports= nat_flows= nat_policy=", "", None, None, "affine"),
        ("egress_nic=eth1 nat_policy=fresh", "eth1", None, None, "fresh"),
        ("nat_ports=1024-65535 nat_flows=1", "", (1024, 65535), 1, "affine"),
        ("nat_ports=20000-20015 nat_flows=1048576", "", (20000, 20015), 1048576, "affine"),
        ('egress_nic="{{ nic }}.7" nic=eth1 nat_flows="\'9\'"', "eth1.7", None, 9, "affine"),
    ],
)
def test_settings_of_a_hop(
    tmp_path: Path,
    variables: str,
    egress_nic: str,
    nat_ports: tuple[int, int] | None,
    nat_flows: int | None,
    nat_policy: str,
) -> None:
    path = write(tmp_path, changed(GOOD, ("198.18.0.2", f"198.18.0.2 {variables}")))
    hop = load(str(path)).hops[0]
    assert (hop.egress_nic, hop.nat_ports) == (egress_nic, nat_ports)
    assert (hop.nat_flows, hop.nat_policy) == (nat_flows, nat_policy)
    assert {type(hop.egress_nic), type(hop.nat_policy)} == {str}


IPV6 = (("198.18.0.1", "2001:2::1"), ("198.18.0.2", "2001:2::2"), ("198.18.0.3", "2001:2::3"))


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("2001:2::2", "2001:2::2"),
        ("2001:0002:0:0:0:0:0:0002", "2001:2::2"),
        ("2001:2:0:1::A", "2001:2:0:1::a"),
        ("2A00:1450:4001:82A::200E", "2a00:1450:4001:82a::200e"),
        ("fd00::2", "fd00::2"),
        ("fc00::198.18.0.2", "fc00::c612:2"),
    ],
)
@pytest.mark.parametrize("name", ["chain.ini", "chain.yml"])
def test_a_chain_of_ipv6(tmp_path: Path, name: str, written: str, address: str) -> None:
    text = changed(GOOD if name.endswith("ini") else GOOD_YAML, *IPV6)
    text = changed(text, ("2001:2::2", f'"{written}"'))
    chain = load(str(write(tmp_path, text, name)))
    assert (chain.family, chain.hops[0].data_ip) == (6, address)
    assert chain.entry(1) == (address, 7000)
    assert load(str(write(tmp_path, GOOD))).family == 4


@pytest.mark.parametrize(
    ("edits", "host", "rest"),
    [
        (IPV6[1:2], "bravo", "2001:2::2 is IPv6 while other hosts have IPv4"),
        (IPV6[2:], "echo", "2001:2::3 is IPv6 while other hosts have IPv4"),
        (IPV6[:1], "alpha", "2001:2::1 is IPv6 while other hosts have IPv4"),
        (IPV6[1:], "alpha", "198.18.0.1 is IPv4 while other hosts have IPv6"),
        (IPV6[:2], "echo", "198.18.0.3 is IPv4 while other hosts have IPv6"),
    ],
)
def test_a_chain_of_two_families(
    tmp_path: Path, edits: tuple[tuple[str, str], ...], host: str, rest: str
) -> None:
    path = write(tmp_path, changed(GOOD, *edits))
    said = f"{path}: host {host}: data_ip {rest}: a chain is of one family"
    assert fails(path) == said


def test_two_spellings_of_one_address(tmp_path: Path) -> None:
    path = write(tmp_path, changed(GOOD, *IPV6, ("2001:2::2", "2001:2:0::1")))
    assert "data_ip 2001:2::1 is also the address of alpha" in fails(path)


def test_where_a_bare_name_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, then what is up (lab, VMs, containers), then inventories/ here, then our own."""
    here, labs, ours = tmp_path / "here", tmp_path / "labs", tmp_path / "ours" / "inventories"
    made = (here / ".vagrant" / "hopbench", here / ".containers")
    for folder in (here / "inventories", labs / "demo", ours, *made):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(paths, "runtime_dir", lambda: labs)
    monkeypatch.setattr(paths, "data_dir", lambda name: tmp_path / "ours" / name)
    places = [
        here / "demo",
        labs / "demo" / "inventory.ini",
        *(folder / f"demo{suffix}" for folder in made for suffix in ("", ".ini")),
        *(here / "inventories" / f"demo{suffix}" for suffix in ("", ".ini", ".yml", ".yaml")),
        *(ours / f"demo{suffix}" for suffix in ("", ".ini", ".yml", ".yaml")),
    ]
    for place in places:
        place.write_text(GOOD)
    for place in places:
        assert find("demo").resolve() == place
        assert names(load("demo")) == ["alpha", "bravo", "echo"]
        place.unlink()
    assert fails("demo") == (
        "no inventory 'demo' (neither a file, nor in inventories/, nor a lab that is up)"
    )
    (ours / "demo").mkdir()
    assert fails("demo").startswith("no inventory")
    # A path is a path: it is looked for nowhere else.
    (here / "inventories" / "demo.ini").write_text(GOOD)
    assert fails("./demo").startswith("no inventory")
    assert fails("inventories/demo").startswith("no inventory")


@pytest.mark.parametrize("name", ["../inventories/demo", "demo/../demo", "/demo", "~/demo"])
def test_a_bare_name_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "inventories").mkdir()
    write(tmp_path / "inventories", GOOD, "demo.ini")
    monkeypatch.chdir(tmp_path)
    assert fails(name).startswith("no inventory")


def test_the_inventory_deployed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(BenchError, match=r"no inventory \(give one with -i, or make a lab"):
        load(None)
    path = write(tmp_path, GOOD)
    current.remember(path)
    assert find(None) == path
    assert load(None) == load(str(path))
    path.unlink()
    with pytest.raises(BenchError, match=r"is gone"):
        load(None)
