# SPDX-License-Identifier: Apache-2.0
"""Inventories that are damaged or mean harm: they end with one line, and nothing in them runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inventory_texts import GOOD, GOOD_YAML, changed, fails, names, write
from synthetic import tree

from bench.errors import BenchError
from bench.inventory import InventoryError, load


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
    if variable == "ansible_ssh_common_args":
        # Any text may stand here, also the name of a harmless method.
        with contextlib.suppress(InventoryError):
            load(str(path))
    else:
        assert f"host bravo: {variable} " in fails(path)
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
        ("all: {hosts: {alpha: 1}}", "Invalid data from file, expected dictionary"),
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
