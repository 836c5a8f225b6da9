# SPDX-License-Identifier: Apache-2.0
"""Inventories as users write them, right and wrong, through Ansible's own loader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from synthetic import tree

from bench import current, paths
from bench.chain import Chain
from bench.errors import BenchError
from bench.inventory import InventoryError, find, load

GOOD = """\
[client]
alpha data_ip=198.18.0.1

[hops]
bravo data_ip=198.18.0.2

[server]
echo data_ip=198.18.0.3

[all:vars]
data_nic=eth0
"""

GOOD_YAML = """\
all:
  vars: {data_nic: eth0}
  children:
    client: {hosts: {alpha: {data_ip: 198.18.0.1}}}
    hops: {hosts: {bravo: {data_ip: 198.18.0.2}}}
    server: {hosts: {echo: {data_ip: 198.18.0.3}}}
"""


def changed(text: str, *edits: tuple[str, str]) -> str:
    """Return the text with parts of it replaced, each of which must be there."""
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def write(folder: Path, text: str | bytes, name: str = "chain.ini") -> Path:
    """Write an inventory and return its path."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fails(path: Path | str) -> str:
    """Return the one line that loading ends with."""
    with pytest.raises(BenchError) as caught:
        load(str(path))
    line = caught.value.one_line()
    assert line.isprintable()
    assert len(line) < 500 + 2 * len(str(path))
    assert caught.value.exit_code == 1
    return line


def names(chain: Chain) -> list[str]:
    """Return the names of all hosts, in order."""
    return [host.name for host in chain.hosts]


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


HOP = "bravo data_ip=198.18.0.2"
HOST = "{file}: host bravo: "


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("[client]", "[clients]", "{file}: has no group [client]"),
        ("[hops]", "[hop]", "{file}: has no group [hops]"),
        ("[server]", "[servers]", "{file}: has no group [server]"),
        (HOP, "", "{file}: group [hops] is empty"),
        (
            "alpha data_ip",
            "also data_ip=198.18.0.9\nalpha data_ip",
            "{file}: group [client] has 2 hosts, it needs exactly one",
        ),
        (
            "alpha data_ip=198.18.0.1",
            "",
            "{file}: group [client] has 0 hosts, it needs exactly one",
        ),
        (
            "echo data_ip=198.18.0.3",
            "echo[1:3] data_ip=198.18.0.3",
            "{file}: group [server] has 3 hosts, it needs exactly one",
        ),
        ("data_nic=eth0", "", "{file}: host alpha: data_nic is missing"),
        (HOP, "bravo", HOST + "data_ip is missing"),
        (HOP, "bravo data_ip=", HOST + "data_ip is missing"),
        (HOP, "hop[1:3]", "{file}: host hop1: data_ip is missing"),
        (
            "echo data_ip",
            "bravo data_ip",
            # The later of two lines holds for the host in both groups.
            "{file}: host bravo: is in two groups, as hop and as server",
        ),
        (
            HOP,
            "bravo data_ip=198.18.0.1",
            HOST + "data_ip 198.18.0.1 is also the address of alpha",
        ),
        (
            "198.18.0.3",
            '"{{ x }}" x=198.18.0.2',
            "{file}: host echo: data_ip 198.18.0.2 is also the address of bravo",
        ),
        (HOP, "br$(id)avo data_ip=198.18.0.2", "host name 'br$(id)avo' has characters"),
        (HOP, "`id` data_ip=198.18.0.2", "host name '`id`' has characters"),
        (HOP, "'a;b' data_ip=198.18.0.2", "host name 'a;b' has characters"),
        (HOP, "'a b' data_ip=198.18.0.2", "host name 'a b' has characters"),
        (HOP, "../x data_ip=198.18.0.2", "host name '../x' has characters"),
        (HOP, "-oProxyCommand=x data_ip=198.18.0.2", "host name '-oProxyCommand=x' has characters"),
        (HOP, "bräv data_ip=198.18.0.2", "host name 'bräv' has characters"),
        (HOP, f"{'b' * 64} data_ip=198.18.0.2", f"host name '{'b' * 40}' has characters"),
        (HOP, "hop[1:20000]", "{file}: has a range of more than 10000 hosts"),
        (HOP, f"hop[1:{'9' * 5000}]", "{file}: has a range of more than 10000 hosts"),
        ("[hops]", "[hops", "{file}: is not an inventory: Failed to parse inventory"),
        (HOP, HOP + " 7000", "Expected key=value host variable assignment, got: 7000"),
        (HOP, HOP + ' "', "{file}: is not an inventory: "),
        ("[hops]", "[hops:children]\nnowhere\n[x]", "{file}: is not an inventory: "),
        ("[hops]", "[hops:children]\nhops\n[x]", "{file}: is not an inventory: "),
    ],
)
def test_mistakes_in_the_chain(tmp_path: Path, old: str, new: str, line: str) -> None:
    path = write(tmp_path, changed(GOOD, (old, new)))
    said = fails(path)
    assert line.replace("{file}", str(path)) in said
    assert said.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("data_ip", "198.18.0.300", "is '198.18.0.300', not an IPv4 address"),
        ("data_ip", "198.18.0", "is '198.18.0', not an IPv4 address"),
        ("data_ip", "198.18.0.2/24", "is '198.18.0.2/24', not an IPv4 address"),
        ("data_ip", "198.18.0.02", "is '198.18.0.02', not an IPv4 address"),
        ("data_ip", "0x7f.0.0.1", "is '0x7f.0.0.1', not an IPv4 address"),
        ("data_ip", "198.18.0.2 ", "is '198.18.0.2 ', not an IPv4 address"),
        ("data_ip", "198.18.0.2; reboot", "is '198.18.0.2; reboot', not an IPv4 address"),
        ("data_ip", "fd00::2", "is 'fd00::2', not an IPv4 address"),
        ("data_ip", "::ffff:198.18.0.2", "is '::ffff:198.18.0.2', not an IPv4 address"),
        ("data_ip", "bravo.lan", "is 'bravo.lan', not an IPv4 address"),
        ("data_ip", 3323068418, "is '3323068418', not an IPv4 address"),
        ("data_ip", 198.18, "is '198.18', not an IPv4 address"),
        ("data_ip", True, "is 'True', not an IPv4 address"),
        ("data_ip", ["198.18.0.2"], "is \"['198.18.0.2']\", not an IPv4 address"),
        ("data_ip", {}, "is '{}', not an IPv4 address"),
        ("data_ip", None, "is missing"),
        ("data_ip", "224.0.0.1", "is '224.0.0.1', not the address of a host"),
        ("data_ip", "239.255.255.255", "is '239.255.255.255', not the address of a host"),
        ("data_ip", "0.0.0.0", "is '0.0.0.0', not the address of a host"),
        ("data_ip", "255.255.255.255", "is '255.255.255.255', not the address of a host"),
        ("data_nic", "abcdefghijklmnop", "is 'abcdefghijklmnop', not an interface name"),
        ("data_nic", "ö" * 8, f"is '{'ö' * 8}', not an interface name"),
        ("data_nic", "a/b", "is 'a/b', not an interface name"),
        ("data_nic", "../lo", "is '../lo', not an interface name"),
        ("data_nic", "a b", "is 'a b', not an interface name"),
        ("data_nic", "eth0\n", "is 'eth0\\n', not an interface name"),
        ("data_nic", "a\tb", "is 'a\\tb', not an interface name"),
        ("data_nic", "a\x1b[2J", "is 'a\\x1b[2J', not an interface name"),
        ("data_nic", "a\u202eb", "is 'a\\u202eb', not an interface name"),
        ("data_nic", "a:1", "is 'a:1', not an interface name"),
        ("data_nic", ".", "is '.', not an interface name"),
        ("data_nic", "..", "is '..', not an interface name"),
        ("data_nic", "", "is missing"),
        ("data_nic", 7, "is '7', not an interface name"),
        ("data_nic", ["eth0"], "is \"['eth0']\", not an interface name"),
        ("xdp_attach", "skb", "is 'skb', not native or generic"),
        ("xdp_attach", "Native", "is 'Native', not native or generic"),
        ("xdp_attach", 1, "is '1', not native or generic"),
        ("xdp_attach", ["native"], "is \"['native']\", not native or generic"),
        *(
            (variable, value, f"is '{value}', not a port from 1 to 65535")
            for variable in ("forward_port", "server_port")
            for value in (
                *(0, 65536, -1, 10**30, True, False, 7000.0, 7000.5),
                *("0", "65536", "-1", "+7000", "abc", "true", "7000.5", "1e3", "7 000", "0x1b58"),
                *("\u0667\u0660\u0660\u0660", "7000; reboot", "7000 "),
            )
        ),
        ("forward_port", [], "is '[]', not a port from 1 to 65535"),
        ("forward_port", "{{ prot }}", "cannot be resolved: 'prot' is undefined"),
        ("data_ip", "{{ vars.ip }}", "cannot be resolved: 'vars' is undefined"),
        ("data_ip", "{{ data_ip }}", "is '{{ data_ip }}', not an IPv4 address"),
        ("data_ip", "{{", "cannot be resolved: unexpected 'end of template'"),
        ("data_ip", "{% for %}", "cannot be resolved: "),
        ("data_ip", "{{ 1 / 0 }}", "cannot be resolved: division by zero"),
        ("data_ip", "{{ [][1] }}", "cannot be resolved: "),
        ("data_ip", "{{ '' | encode }}", "cannot be resolved: No filter named 'encode'"),
        ("data_ip", "{{ '%d' % 'x' }}", "cannot be resolved: "),
        ("data_ip", "{{ " + "(" * 5000 + " }}", "cannot be resolved: "),
        ("data_ip", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "cannot be resolved: "),
        ("data_ip", "{{ range(1000000) | list }}", "cannot be resolved: Range too big"),
        ("data_ip", "{{ 'x' * 100000 }}", "is longer than 4096 characters"),
        ("data_ip", "1" * 100000, "is longer than 4096 characters"),
    ],
)
def test_mistakes_in_a_value(tmp_path: Path, variable: str, value: object, reason: str) -> None:
    hosts = json.loads(
        '{"alpha": {"data_ip": "198.18.0.1"}, "bravo": {"data_ip": "198.18.0.2"},'
        ' "echo": {"data_ip": "198.18.0.3"}}'
    )
    for host in hosts.values():
        host["data_nic"] = "eth0"
    hosts["bravo"][variable] = value
    groups = {"client": "alpha", "hops": "bravo", "server": "echo"}
    children = {group: {"hosts": {name: hosts[name]}} for group, name in groups.items()}
    path = write(tmp_path, json.dumps({"all": {"children": children}}), "chain.yml")
    with pytest.raises(InventoryError) as caught:
        load(str(path))
    assert fails(path).startswith(f"{path}: host bravo: {variable} {reason}"[:400])
    assert (caught.value.file, caught.value.variable) == (path, variable)


@pytest.mark.parametrize(
    "expression",
    [
        "lookup('pipe', 'touch ran')",
        "query('pipe', 'touch ran')",
        "lookup('file', '/etc/hostname')",
        "''.__class__.__mro__",
        "''.__class__.__mro__[1].__subclasses__()",
        "cycler.__init__.__globals__.os.popen('touch ran').read()",
        "self.__init__.__globals__",
        "''.format.__globals__",
        "'{0.__class__}'.format('')",
        "'{a.__class__}'.format_map({'a': 1})",
        "lipsum.__globals__['os'].system('touch ran')",
        "namespace.__init__.__globals__",
        "joiner()._JinjaContext__x",
        "(1).__class__",
        "range.__self__",
        "vars.update({'data_ip': '198.18.0.2'})",
        "[].append",
    ],
)
@pytest.mark.parametrize("variable", ["data_ip", "ansible_ssh_common_args", "forward_port"])
def test_a_template_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expression: str, variable: str
) -> None:
    monkeypatch.chdir(tmp_path)
    host = {"data_ip": "198.18.0.2", variable: "{{ " + expression + " }}"}
    text = changed(GOOD_YAML, ("{data_ip: 198.18.0.2}", json.dumps(host)))
    path = write(tmp_path, text, "chain.yml")
    if variable != "ansible_ssh_common_args":
        assert f"host bravo: {variable} " in fails(path)
    else:
        with_value = []
        try:
            with_value = [host.ssh_vars[variable] for host in load(str(path)).hops]
        except InventoryError as error:
            assert f"host bravo: {variable} cannot be resolved" in error.one_line()
        # Whatever did render is no more than the name of a harmless method.
        assert all("globals" not in text and "uid" not in text for text in with_value)
    assert list(tree(tmp_path)) == ["chain.yml"]


def test_an_executable_inventory_is_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = write(tmp_path, "#!/bin/sh\ntouch ran\necho '{}'\n", "script")
    script.chmod(0o755)
    assert f"{script}: is not an inventory" in fails(script)
    # The first line is a comment to INI: this one is an inventory, whoever may run it.
    harmless = write(tmp_path, "#!/usr/bin/touch ran\n" + GOOD)
    harmless.chmod(0o755)
    assert names(load(str(harmless))) == ["alpha", "bravo", "echo"]
    assert sorted(tree(tmp_path)) == ["chain.ini", "script"]


@pytest.mark.parametrize("source", ["alpha,bravo,", "host[1:3],", "alpha,"])
def test_a_list_of_hosts_is_no_inventory(source: str) -> None:
    assert fails(source).startswith(f"no inventory {source!r}")


@pytest.mark.parametrize("plugin", ["constructed", "generator", "community.general.nmap"])
def test_an_inventory_plugin_is_not_started(tmp_path: Path, plugin: str) -> None:
    path = write(tmp_path, f"plugin: {plugin}\nhosts: {{name: x}}\n", "chain.yml")
    said = f"{path}: is not an inventory: Plugin configuration YAML file, not YAML inventory"
    assert fails(path) == said


ALIASES = "".join(
    f"    a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "is nested more than 64 levels deep"),
        ("{a: " * 5_000, "is nested more than 64 levels deep"),
        ("- " * 5_000, "is nested more than 64 levels deep"),
        (
            GOOD_YAML.replace("{data_nic: eth0}", "{data_nic: " + "[" * 70 + "]" * 70 + "}"),
            "is nested more than 64 levels deep",
        ),
        (f"all:\n  vars:\n{ALIASES}", "has more than 100000 values"),
        ("all: &a {vars: {x: *a}}", "has an alias within what it names"),
        ("all: {vars: {x: *a}}", "is not an inventory: YAML parsing failed"),
        ("all: !!python/object/apply:os.system [touch ran]", "is not an inventory: YAML pars"),
        ("a: b: c", "is not an inventory: YAML parsing failed"),
        ("#" * (1 << 20) + "\n", "has more than 1048576 characters"),
        ("", "has no group [client]"),
        ("---\n", "is not an inventory: Parsed empty YAML file"),
        ("# nothing\n", "has no group [client]"),
        ("[]", "is not an inventory: "),
        ("all: [client]", "has no group [client]"),
        ("all: {hosts: {alpha: 1}}", "Invalid data from file, expected dictionary and got: 1"),
        ("client: {hosts: [alpha]}", "is not an inventory: "),
        (b"\xff\xfe[client\n\x00{{", "is not an inventory: "),
        (b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 40, "is not an inventory: "),
        (b"\0" * 5000, "has no group [client]"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "has no group [client]"),
    ],
    ids=lambda value: None if isinstance(value, bytes) or len(value) > 60 else value,
)
@pytest.mark.parametrize("name", ["chain.yml", "chain.ini", "chain"])
def test_damage_and_bombs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | bytes, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, text, name)
    said = fails(path)
    assert said.startswith(f"{path}: ")
    if name == "chain.yml":
        assert reason in said
    assert list(tree(tmp_path)) == [name]


def test_aliases_are_welcome(tmp_path: Path) -> None:
    text = changed(
        GOOD_YAML,
        ("vars: {data_nic: eth0}", "vars: {data_nic: eth0, common: &common {forward_port: 7100}}"),
        ("{data_ip: 198.18.0.2}", "{data_ip: 198.18.0.2, <<: *common}"),
    )
    assert load(str(write(tmp_path, text, "chain.yml"))).hops[0].port == 7100


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("group_vars/all.yml", "a: b: c", "{file}: YAML parsing failed"),
        ("group_vars/hops.yml", "[" * 100_000, "{file}: is nested more than 64 levels deep"),
        ("host_vars/bravo.yml", "x: &x [*x]", "{file}: has an alias within what it names"),
        ("host_vars/bravo.yml", "- 1", "{file}"),
        ("host_vars/bravo.yml", "forward_port: 0", "host bravo: forward_port is '0', not a port"),
        (
            "host_vars/bravo.yml",
            "data_nic: 2026-01-01",
            "host bravo: data_nic is '2026-01-01', not an interface name",
        ),
        ("host_vars/bravo.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n", "no vault secrets"),
        (
            "host_vars/bravo.yml",
            "ansible_become_password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n",
            "host bravo: ansible_become_password cannot be resolved: ",
        ),
    ],
)
def test_mistakes_beside_the_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, reason: str
) -> None:
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    path = write(tmp_path, GOOD)
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(text)
    said = fails(path)
    assert said.startswith(f"{path}: ")
    assert reason.replace("{file}", str(tmp_path / file)) in said


@pytest.mark.parametrize("inline", [False, True], ids=["file", "value"])
def test_a_vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline: bool) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    variables = "ansible_become_password: pass word\n"
    file = tmp_path / "host_vars" / "bravo.yml"
    file.parent.mkdir()
    file.write_text(variables)
    command = [str(Path(sys.executable).parent / "ansible-vault")]
    if inline:
        command += ["encrypt_string", "-n", "ansible_become_password", "pass word"]
    else:
        command += ["encrypt", str(file)]
    done = subprocess.run(
        [*command, "--vault-password-file", str(key)],
        capture_output=True,
        check=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if inline:
        file.write_text(done.stdout)
    assert "pass word" not in file.read_text()
    path = write(tmp_path, GOOD)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(key))
    assert load(str(path)).hops[0].ssh_vars == {"ansible_become_password": "pass word"}
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "none"))
    assert "The vault password file" in fails(path)
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE")
    assert "no vault secrets found" in fails(path)


@pytest.mark.parametrize(
    ("settings_file", "environment"),
    [
        ("garbage", {}),
        ("[defaults]\nforks = x\n", {}),
        ("[inventory]\nenable_plugins = script\n", {}),
        ("[defaults]\nvars_plugins = plugins\nvault_password_file = none\n", {}),
        ("", {"ANSIBLE_INVENTORY_ENABLED": "script", "ANSIBLE_CONFIG": "/nowhere"}),
    ],
    ids=["damaged", "wrong", "scripts", "plugins", "environment"],
)
def test_settings_of_the_working_directory_do_not_count(
    tmp_path: Path, settings_file: str, environment: dict[str, str]
) -> None:
    (tmp_path / "ansible.cfg").write_text(settings_file)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "evil.py").write_text("open('ran', 'w')\n")
    write(tmp_path, GOOD)
    code = "from bench.inventory import load; print(len(load('chain.ini').hops))"
    home = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)
    assert "ran" not in tree(tmp_path)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fails(tmp_path) == f"inventory {tmp_path} is a folder (name a file)"
    os.mkfifo(tmp_path / "fifo")
    for source in (tmp_path / "none", tmp_path / "fifo", "none", "/dev/zero", "x" * 5000, "a\0b"):
        assert fails(source).startswith("no inventory ")
    for source in ("", ".", "..", "/", "./", "../"):
        assert "inventory" in fails(source)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, GOOD)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert fails(path) == f"inventory {path} cannot be read: Permission denied"


def test_where_a_bare_name_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, then a lab that is up, then inventories/ here, then those that come along."""
    here, labs, ours = tmp_path / "here", tmp_path / "labs", tmp_path / "ours" / "inventories"
    for folder in (here / "inventories", labs / "demo", ours):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(paths, "runtime_dir", lambda: labs)
    monkeypatch.setattr(paths, "data_dir", lambda name: tmp_path / "ours" / name)
    places = [
        here / "demo",
        labs / "demo" / "inventory.ini",
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


PIECES = st.sampled_from(
    [
        *GOOD.splitlines(keepends=True),
        *GOOD_YAML.splitlines(keepends=True),
        *("[client]", "[hops:children]\nhops", "[all:vars]", "hop[1:3]", "hop[3:1]", "h[a:zz]"),
        *("{{ data_ip }}", "{% for %}", "{{ [1] }}", "data_ip=", "=", ":", "'", '"', "\\", "#"),
        *("&a", "*a", "!!set", "- ", "? ", "%YAML 1.1\n", "---\n", "...\n", "\t", "\0", "\ufeff"),
        *("children:\n", "hosts:\n", "vars:\n", "all:\n", "<<: ", "!vault |\n", "!unsafe "),
    ]
)


@settings(deadline=None, max_examples=150)
@given(
    st.one_of(
        st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=20).map("".join), st.text()
    ),
    st.sampled_from(["ini", "yml", "txt"]),
)
@example("all:\n  hosts:\n    ? [a, b]\n    : 1\n", "yml")
@example("[client]\na b=\n[hops]\n", "ini")
def test_any_text_is_a_chain_or_one_line(text: str, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), text.encode(errors="surrogatepass"), f"chain.{suffix}")
        before = tree(Path(folder))
        try:
            load(str(path))
        except BenchError as error:
            assert error.one_line().isprintable()
            assert str(path) in error.one_line()
        assert tree(Path(folder)) == before
