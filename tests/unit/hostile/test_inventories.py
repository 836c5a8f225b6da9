# SPDX-License-Identifier: Apache-2.0
"""Inventories of a stranger through the whole command: bounded, and nothing in them runs."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fuzzing import EVIL_NUMBERS, fuzz, scalars, texts
from hypothesis import strategies as st
from inventory_texts import GOOD, GOOD_YAML, changed, fails, write
from synthetic import tree

from bench import confined
from bench.chain import Chain
from bench.errors import BenchError
from bench.inventory import load
from bench.ssh_variables import NAMES

REPOSITORY = Path(__file__).parents[3]
DATA = ("data_ip", "data_nic", "forward_port", "server_port", "xdp_attach", "egress_nic")
DATA += ("nat_ports", "nat_flows", "nat_policy")
SOUND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}")


def command(folder: Path, *words: str, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the real command in a folder."""
    return subprocess.run(
        [sys.executable, "-B", "-m", "bench", *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "XDG_STATE_HOME": str(folder / "state"),
        },
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=limit_s,
    )


def with_variables(variables: dict[str, Any]) -> str:
    """Return an inventory whose hop has these variables, too."""
    hop = json.dumps({"data_ip": "198.18.0.2", **variables})
    return changed(GOOD_YAML, ("{data_ip: 198.18.0.2}", hop))


def sound(chain: Chain) -> None:
    """Require that each value of a chain is one that no host or shell can misread."""
    for host in chain.hosts:
        assert SOUND_NAME.fullmatch(host.name)
        assert str(ipaddress.ip_address(host.data_ip)) == host.data_ip
        for nic in (host.data_nic, host.egress_nic):
            assert len(nic.encode()) < 16 and nic.isprintable() and not set(nic) & set("/ :")
        assert 0 <= host.port < 65536
        assert type(host.name) is type(host.data_ip) is type(host.data_nic) is str


def taken_or_refused(path: Path) -> Chain | None:
    """Load an inventory; it is sound, or ends with one line, and does nothing."""
    before = tree(path.parent)
    chain = None
    try:
        chain = load(str(path))
        sound(chain)
    except BenchError as error:
        assert error.one_line().isprintable()
        assert error.exit_code == 1
        assert len(error.one_line()) < 1000
    assert tree(path.parent) == before
    return chain


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** (9 ** 9)",
        "'a' * 10 ** 10",
        "[[]] * 10 ** 9",
        "'%999999999999d' % 1",
        "'x' | center(10 ** 11)",
        "range(100000) | map('string') | list | length * ('a' * 10 ** 6)",
    ],
)
def test_a_template_that_takes_time_or_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expression: str
) -> None:
    monkeypatch.setattr(confined, "CPU_LIMIT_S", 1)
    path = write(tmp_path, with_variables({"data_ip": "{{ " + expression + " }}"}), "chain.yml")
    begin = time.process_time()
    said = fails(path)
    assert "takes more than 1 s of processor time to read" in said or "MemoryError" in said
    assert time.process_time() - begin < 5.0


def test_loops_within_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "CPU_LIMIT_S", 1)
    loop = "{% for i in range(99999) %}" * 4 + "{% endfor %}" * 4
    path = write(tmp_path, with_variables({"ansible_user": loop}), "chain.yml")
    assert fails(path) == f"{path}: takes more than 1 s of processor time to read"


def test_a_reader_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.inventory._load", lambda path: os._exit(9))
    path = write(tmp_path, GOOD)
    assert fails(path) == f"{path}: takes more than 1024 MiB of memory to read"


def test_what_reads_an_inventory_does_not_stay(tmp_path: Path) -> None:
    load(str(write(tmp_path, GOOD)))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_an_executable_inventory_is_not_run(tmp_path: Path) -> None:
    script = write(tmp_path, '#!/bin/sh\ntouch ran\necho "{}"\n', "script")
    script.chmod(0o755)
    done = command(tmp_path, "deploy", "-i", "./script")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"^bench: .*script: is not an inventory", done.stderr, re.MULTILINE)
    assert not (tmp_path / "ran").exists()


LOOKUPS = {
    "{{ lookup('pipe', 'touch ran') }}": "lookup",
    "{{ query('pipe', 'touch ran') }}": "query",
    "{{ q('pipe', 'touch ran') }}": "q",
    "{{ (lookup)('pipe', 'touch ran') }}": "lookup",
    "{% set f = lookup %}{{ f('pipe', 'touch ran') }}": "lookup",
    "{% include 'evil.j2' %}": "lookup",
    "{% do lookup('pipe', 'touch ran') %}": "lookup",
    "{{ other }}": "lookup",
    "{{ hostvars['bravo']['other'] }}": "hostvars",
    "{{ vars['oth' ~ 'er'] }}": "vars",
}


@pytest.mark.parametrize("variable", ["ansible_ssh_executable", "ansible_remote_tmp", "hopbench_x"])
@pytest.mark.parametrize("text", LOOKUPS)
def test_a_lookup_where_ansible_would_come_across_it(
    tmp_path: Path, variable: str, text: str
) -> None:
    """Ansible's SSH plugin asks for them before it has spoken with any host."""
    values = {variable: [{"deep": text}], "other": "{{ lookup('pipe', 'touch ran') }}"}
    path = write(tmp_path, with_variables(values), "chain.yml")
    assert fails(path) == (
        f"{path}: host bravo: {variable} leads to {LOOKUPS[text]}, "
        "which may run commands when Ansible fills it in"
    )


def test_a_deploy_runs_no_lookup(tmp_path: Path) -> None:
    lookup = "{{ lookup('pipe', 'touch ran; echo ssh') }}"
    write(tmp_path, with_variables({"ansible_ssh_executable": lookup}), "chain.yml")
    done = command(tmp_path, "deploy", "-i", "chain.yml")
    assert (done.returncode, done.stdout) == (1, "")
    assert "bravo: ansible_ssh_executable leads to lookup" in done.stderr
    assert list(tree(tmp_path)) == ["chain.yml"]


def test_a_lookup_that_nobody_asks_for_is_nobodys_concern(tmp_path: Path) -> None:
    values = {
        "token": "{{ lookup('env', 'TOKEN') }}",
        "ansible_remote_tmp": "{{ tmp }}",
        "tmp": "/x",
    }
    assert len(load(str(write(tmp_path, with_variables(values), "chain.yml"))).hosts) == 3


def test_any_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(confined, "CPU_LIMIT_S", 2)

    def check(variable: str, value: Any) -> None:
        taken_or_refused(write(tmp_path, with_variables({variable: value}), "chain.yml"))

    fuzz(check, st.sampled_from([*DATA, *sorted(NAMES)]) | texts, scalars, examples=20)


def test_any_name_of_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def check(name: str, group: str) -> None:
        text = changed(GOOD_YAML, (f"{group}: {{data_ip", f"{json.dumps(name)}: {{data_ip"))
        taken_or_refused(write(tmp_path, text, "chain.yml"))

    fuzz(check, texts, st.sampled_from(["alpha", "bravo", "echo"]), examples=12)


def test_any_line_of_ini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def check(name: str, variable: str, value: str, place: int) -> None:
        lines = GOOD.splitlines()
        lines.insert(place % (len(lines) + 1), f"{name} {variable}={value}")
        text = "\n".join(lines).encode(errors="surrogatepass")
        taken_or_refused(write(tmp_path, text))

    fuzz(
        check,
        st.sampled_from(["bravo", "[hops:vars]", "[x:children]", "h[1:9]", ""]) | texts,
        st.sampled_from([*DATA, *sorted(NAMES)]) | texts,
        texts,
        st.integers(0, 20),
        examples=20,
    )


TRICKS = [
    *("&a [*a]", "*b", "!!set {x}", "!!binary aGk=", "!!timestamp 2026-01-01", "!!omap [a: 1]"),
    *("!!python/name:os.system", "!!python/object/new:os.system [touch ran]", "!vault x"),
    *("!unsafe x", "!!int 0x7fffffffffffffffff", "0o17", "1_000", "6:30:00", "yes", "~", "<<"),
    *("{<<: {data_ip: 1.2.3.4}}", "[[[[[[]]]]]]", "|\n  x", ">-\n  x", "? a", "- - -"),
    *("{a: 1, a: 2}", "2001:2::1", "198.18.0.1/24", "1e400", ".nan", ".inf", "-.inf"),
    *("%TAG ! tag:x,2000:", "\u2028", "\x85", "\ufeff", "{{ data_nic }}", "!!float 1e999"),
]


def test_any_trick_of_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def check(trick: str, old: str) -> None:
        text = GOOD_YAML.replace(old, trick, 1).encode(errors="surrogatepass")
        taken_or_refused(write(tmp_path, text, "chain.yml"))

    parts = ["eth0", "198.18.0.2", "bravo", "{hosts: {bravo: {data_ip: 198.18.0.2}}}", "client"]
    fuzz(check, st.sampled_from(TRICKS) | texts, st.sampled_from(parts), examples=20)


def test_any_number(tmp_path: Path) -> None:
    taken = set()
    for number in EVIL_NUMBERS:
        text = f"{number:#x}" if isinstance(number, int) else str(number)
        hop = f"{{data_ip: 198.18.0.2, nat_flows: {text}}}"
        path = write(tmp_path, changed(GOOD_YAML, ("{data_ip: 198.18.0.2}", hop)), "chain.yml")
        if taken_or_refused(path):
            taken.add(number)
    assert taken == {1, 255, 65535, 65536}
