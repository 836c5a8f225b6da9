# SPDX-License-Identifier: Apache-2.0
"""Mistakes in inventories, each told in one line that names file, host and variable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from inventory_texts import GOOD, changed, fails, write

from bench.inventory import InventoryError, load

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
        (HOP, HOP + " 7000", "Expected key=value host variable assignment"),
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
    ("old", "new", "said"),
    [
        (HOP, f"{HOP} ansible_password='open sesame", "host definition of bravo: No closing"),
        (HOP, f"{HOP} ansible_password=it's open sesame", "host definition of bravo: No closing"),
        (HOP, f"{HOP} ansible_password='x' open sesame='", "host definition of bravo: No closing"),
        (HOP, f"{HOP} ansible_password='{'open sesame' * 50}", "definition of bravo: No closing"),
        (HOP, f"{HOP} ansible_password=open sesame", "host variable assignment"),
        ("data_nic=eth0", "ansible_password open sesame", "got: ansible_password"),
        ("data_nic=eth0", "data_nic=eth0\n[x:children]\ny open sesame", "group name, got: y"),
        ("data_nic=eth0", "data_nic=eth0\nansible_password={{ open sesame", "cannot be resolved"),
        ("data_nic=eth0", "data_nic=eth0\nansible_password=" + "open sesame" * 400, "longer than"),
    ],
)
def test_what_may_be_a_password_is_not_repeated(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    line = fails(write(tmp_path, changed(GOOD, (old, new))))
    assert said in line
    assert "sesame" not in line


def test_what_may_be_a_password_is_not_repeated_of_yaml(tmp_path: Path) -> None:
    line = fails(write(tmp_path, "client: {hosts: {alpha: open sesame}}\n", "chain.yml"))
    assert "expected dictionary" in line
    assert "sesame" not in line


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("data_ip", "198.18.0.300", "is '198.18.0.300', not an IP address"),
        ("data_ip", "198.18.0", "is '198.18.0', not an IP address"),
        ("data_ip", "198.18.0.2/24", "is '198.18.0.2/24', not an IP address"),
        ("data_ip", "198.18.0.02", "is '198.18.0.02', not an IP address"),
        ("data_ip", "0x7f.0.0.1", "is '0x7f.0.0.1', not an IP address"),
        ("data_ip", "198.18.0.2 ", "is '198.18.0.2 ', not an IP address"),
        ("data_ip", "198.18.0.2; reboot", "is '198.18.0.2; reboot', not an IP address"),
        ("data_ip", "2001:2::2::", "is '2001:2::2::', not an IP address"),
        ("data_ip", "[2001:2::2]", "is '[2001:2::2]', not an IP address"),
        ("data_ip", "2001:2::2/64", "is '2001:2::2/64', not an IP address"),
        ("data_ip", "bravo.lan", "is 'bravo.lan', not an IP address"),
        ("data_ip", 3323068418, "is '3323068418', not an IP address"),
        ("data_ip", 198.18, "is '198.18', not an IP address"),
        ("data_ip", True, "is 'True', not an IP address"),
        ("data_ip", ["198.18.0.2"], "is \"['198.18.0.2']\", not an IP address"),
        ("data_ip", {}, "is '{}', not an IP address"),
        ("data_ip", None, "is missing"),
        ("data_ip", "224.0.0.1", "is '224.0.0.1', not the address of a host"),
        ("data_ip", "239.255.255.255", "is '239.255.255.255', not the address of a host"),
        ("data_ip", "0.0.0.0", "is '0.0.0.0', not the address of a host"),
        ("data_ip", "255.255.255.255", "is '255.255.255.255', not the address of a host"),
        ("data_ip", "127.0.0.1", "is '127.0.0.1', not the address of a host"),
        *(
            ("data_ip", value, f"is '{value}', not the global or unique local address of a host")
            for value in (
                *("::", "::1", "fe80::2", "fe80::2%eth0", "2001:2::2%eth0", "fec0::2"),
                *("ff02::1", "::ffff:198.18.0.2", "::198.18.0.2", "64:ff9b::c612:2", "4000::2"),
            )
        ),
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
        ("xdp_attach", "skb", "is 'skb', not native, generic or offload"),
        ("xdp_attach", "Native", "is 'Native', not native, generic or offload"),
        ("xdp_attach", 1, "is '1', not native, generic or offload"),
        ("xdp_attach", ["native"], "is \"['native']\", not native, generic or offload"),
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
        *(
            ("egress_nic", value, f"is {value!r}, not an interface name")
            for value in ("a b", "a/b", "..", "a" * 16)
        ),
        ("egress_nic", 7, "is '7', not an interface name"),
        ("egress_nic", "eth0", "is 'eth0', not another NIC than data_nic"),
        *(
            ("nat_ports", value, f"is '{value}', not a range of ports from 1024 to 65535, as ")
            for value in (
                *("1023-2000", "2000-1999", "60000-65536", "0-65535", "20000", "20000-", "-"),
                *("20000 - 29999", "20000-29999 ", "20000:29999", "a-b", "-20000-29999", 20000),
                *(True, 20000.5, "020000-029999", "100000-100100"),
            )
        ),
        ("nat_ports", [20000, 29999], "is '[20000, 29999]', not a range of ports from 1024"),
        ("nat_ports", "20000-20014", "is '20000-20014', not a range of at least 16 ports"),
        *(
            ("nat_flows", value, f"is '{value}', not a number of flows from 1 to 1048576")
            for value in (0, -1, 1048577, True, 1.5, "0", "1048577", "1e3", "many", "65_536")
        ),
        *(
            ("nat_policy", value, f"is '{value}', not affine or fresh")
            for value in ("Affine", "random", 1, True)
        ),
        ("forward_port", "{{ prot }}", "cannot be resolved: 'prot' is undefined"),
        ("data_ip", "{{ vars.ip }}", "cannot be resolved: 'vars' is undefined"),
        ("data_ip", "{{ data_ip }}", "is '{{ data_ip }}', not an IP address"),
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
