# SPDX-License-Identifier: Apache-2.0
"""How a host is reached: what the real `ssh -G` makes of the inventory and of ssh_config files."""

from __future__ import annotations

import shlex
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.unit.ssh_hosts import HOME, ME, host, line, settings

pytestmark = pytest.mark.usefixtures("folder")


def test_a_host_nothing_is_said_about() -> None:
    found = settings()
    assert (found.address, found.port, found.user) == ("bravo", 22, ME)
    assert found.key_names == ("bravo",)
    assert Path(HOME) / ".ssh" / "id_ed25519" in found.key_files
    assert found.known_hosts == (
        Path(HOME) / ".ssh" / "known_hosts",
        Path(HOME) / ".ssh" / "known_hosts2",
        Path("/etc/ssh/ssh_known_hosts"),
        Path("/etc/ssh/ssh_known_hosts2"),
    )
    assert (found.proxy_command, found.jump, found.agent, found.password) == ("", "", None, None)
    assert (found.limit_s, found.family) == (15.0, socket.AF_UNSPEC)


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        ({"host": "192.0.2.7"}, "address", "192.0.2.7"),
        ({"ssh_host": "192.0.2.7"}, "address", "192.0.2.7"),
        # Of two names Ansible takes the one with ssh in it.
        ({"host": "192.0.2.7", "ssh_host": "192.0.2.8"}, "address", "192.0.2.8"),
        ({"host": ""}, "address", "bravo"),
        ({"host": "lab@192.0.2.7"}, "address", "192.0.2.7"),
        ({"host": "lab@192.0.2.7"}, "user", "lab"),
        ({"host": "2001:db8::7"}, "address", "2001:db8::7"),
        ({"host": "Bravo.Example"}, "key_names", ("bravo.example",)),
        ({"port": 2222}, "port", 2222),
        ({"port": "2222"}, "port", 2222),
        ({"ssh_port": 2222}, "port", 2222),
        ({"port": 2222, "ssh_port": 3333}, "port", 3333),
        ({"port": ""}, "port", 22),
        ({"port": 2222}, "key_names", ("[bravo]:2222", "bravo")),
        ({"user": "lab"}, "user", "lab"),
        ({"user": "lab", "ssh_user": "other"}, "user", "other"),
        ({"user": 7}, "user", "7"),
        ({"user": r"CORP\bob"}, "user", r"CORP\bob"),
        ({"user": "j\u00f6rg"}, "user", "j\u00f6rg"),
        ({"private_key_file": "/keys/a"}, "key_files", (Path("/keys/a"),)),
        ({"private_key_file": "/keys/a b"}, "key_files", (Path("/keys/a b"),)),
        ({"private_key_file": "/keys/it's"}, "key_files", (Path("/keys/it's"),)),
        ({"private_key_file": "~/a"}, "key_files", (Path(HOME) / "a",)),
        ({"private_key_file": "~nobody-of-that-name/a"}, "key_files", None),
        ({"password": "p w"}, "password", "p w"),
        ({"ssh_pass": 1234}, "password", "1234"),
        ({"ssh_password": "x", "password": "y"}, "password", "x"),
        ({"ssh_timeout": 40}, "limit_s", 40.0),
        ({"timeout": "7"}, "limit_s", 7.0),
    ],
)
def test_variables(variables: dict[str, Any], field: str, value: object) -> None:
    found = getattr(settings(**variables), field)
    if field == "key_files":
        found = found[:1]
        value = value or (Path.cwd() / "~nobody-of-that-name" / "a",)
    assert found == value


@pytest.mark.parametrize("name", ["ssh_args", "ssh_common_args", "ssh_extra_args"])
@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("-o Port=2222", "port", 2222),
        ("-oPort=2222", "port", 2222),
        ("-o 'Port 2222'", "port", 2222),
        ("-o port=2222", "port", 2222),
        ("-p 2222", "port", 2222),
        ("-p2222", "port", 2222),
        ("-o Port=2222 -o Port=3333", "port", 2222),
        ("-vAC -o Port=2222 -C", "port", 2222),
        ("-4", "family", socket.AF_INET),
        ("-6", "family", socket.AF_INET6),
        ("-o User=lab", "user", "lab"),
        ("-l lab", "user", "lab"),
        ("-o HostName=192.0.2.7", "address", "192.0.2.7"),
        ("-o HostName=%h.example", "address", "bravo.example"),
        ("-o HostKeyAlias=charlie", "key_names", ("charlie",)),
        ("-o HostKeyAlias=charlie -o Port=2222", "key_names", ("charlie",)),
        ("-o IdentityFile=/keys/a -i /bin/sh", "key_files", (Path("/keys/a"), Path("/bin/sh"))),
        ("-o IdentityFile=/keys/%h-%r-%p-%%-%d", "key_files", None),
        ("-o IdentitiesOnly=yes", "only_key_files", True),
        ("-o IdentityFile=none", "key_files", ()),
        ("-o CertificateFile=/keys/c", "certificates", (Path("/keys/c"),)),
        ("-o 'ProxyCommand=nc -X 5 %h %p'", "proxy_command", "nc -X 5 bravo 22"),
        ("-o 'ProxyCommand=nc \"$HOME\" 50%%'", "proxy_command", 'nc "$HOME" 50%'),
        (
            "-o 'ProxyCommand ssh -o A=b -W %h:%p jump'",
            "proxy_command",
            "ssh -o A=b -W bravo:22 jump",
        ),
        ("-o ProxyCommand=none", "proxy_command", ""),
        ("-o UserKnownHostsFile=/keys/known -o GlobalKnownHostsFile=none", "known_hosts", None),
        ("-o ConnectTimeout=3", "limit_s", 3.0),
        ("-o ServerAliveInterval=10", "port", 22),
        ("-o IdentityAgent=/run/agent", "agent", "/run/agent"),
        ("-o IdentityAgent=none", "agent", None),
        ("-o RevokedHostKeys=/keys/revoked", "revoked_keys", Path("/keys/revoked")),
        ("-F none", "port", 22),
    ],
)
def test_options(name: str, words: str, field: str, value: object) -> None:
    if field == "known_hosts":
        value = (Path("/keys/known"),)
    elif value is None and field == "key_files":
        value = (Path(f"/keys/bravo-{ME}-22-%-{HOME}"),)
    variables = {"args": words} if name == "ssh_common_args" else {name: words}
    assert getattr(settings(**variables), field) == value


def test_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/mine")
    monkeypatch.setenv("OTHER", "/run/other")
    cases = {
        "": "/run/mine",
        "-o IdentityAgent=none": None,
        "-o IdentityAgent=$OTHER": "/run/other",
    }
    assert {words: settings(args=words).agent for words in cases} == cases


CONFIG = """\
Include parts/*
Host other
  Port 1
Host bravo 192.0.2.*
  Port 2200
  User fromfile
  IdentityFile /keys/%h
  ProxyCommand ip netns exec NS-%h /usr/sbin/sshd -i
Host alias
  HostName 192.0.2.9
Match host alias,192.0.2.9 exec "test -e flag"
  User matched
Match originalhost delta
  Port 44
Host *
  Port 3
  User everyone
"""


@pytest.fixture
def config(folder: Path) -> Path:
    """An ssh_config with Include and Match."""
    (folder / "parts").mkdir()
    (folder / "parts" / "one").write_text("Host included\n  HostName 192.0.2.77\n  Port 7\n")
    file = folder / "config"
    file.write_text(CONFIG.replace("parts/", f"{folder}/parts/"))
    return file


PROXY = "ip netns exec NS-{} /usr/sbin/sshd -i"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("bravo", 2200, "fromfile", PROXY.format("bravo"))),
        ({"host": "192.0.2.7"}, ("192.0.2.7", 2200, "fromfile", PROXY.format("192.0.2.7"))),
        ({"host": "alias"}, ("192.0.2.9", 3, "everyone", "")),
        ({"host": "delta"}, ("delta", 44, "everyone", "")),
        ({"host": "included"}, ("192.0.2.77", 7, "everyone", "")),
        ({"port": 4, "user": "lab"}, ("bravo", 4, "lab", PROXY.format("bravo"))),
        ({"ssh_args": "-o Port=5", "port": 4}, ("bravo", 5, "fromfile", PROXY.format("bravo"))),
        ({"args": "-o Port=5", "port": 4}, ("bravo", 4, "fromfile", PROXY.format("bravo"))),
        ({"ssh_extra_args": "-o ProxyCommand=none"}, ("bravo", 2200, "fromfile", "")),
    ],
    ids=[
        "file",
        "pattern",
        "alias",
        "match",
        "include",
        "variable",
        "args first",
        "args later",
        "extra",
    ],
)
def test_files(config: Path, variables: dict[str, Any], expected: tuple[object, ...]) -> None:
    variables = {**variables, "args": f"-F {config} " + variables.get("args", "")}
    found = settings(**variables)
    assert (found.address, found.port, found.user, found.proxy_command) == expected


def test_a_match_that_runs_something(config: Path) -> None:
    """As `ssh` does, in the working directory."""
    assert settings(host="alias", args=f"-F {config}").user == "everyone"
    Path("flag").touch()
    assert settings(host="alias", args=f"-F {config}").user == "matched"


def test_the_last_file_counts(config: Path) -> None:
    Path("empty").touch()
    assert settings(args="-F empty", ssh_extra_args="-F config").port == 2200
    assert settings(args="-F config", ssh_extra_args="-F empty").port == 22


def test_a_known_hosts_file_with_a_blank_in_its_name(folder: Path) -> None:
    (folder / "a b").touch()
    (folder / "config").write_text(f'UserKnownHostsFile "{folder}/a b" {folder}/c {folder}/d\n')
    found = settings(args="-F config -o GlobalKnownHostsFile=none").known_hosts
    assert found == (folder / "a b", folder / "c", folder / "d")


# --- jump hosts --------------------------------------------------------------------------------


def jump_words(command: str | None) -> list[str]:
    """Return the words of a ProxyCommand."""
    assert command
    return shlex.split(command)


def test_one_jump() -> None:
    found = settings(host="192.0.2.7", port=2222, args="-J lab@jump:2200 -F none")
    words = jump_words(found.proxy_command)
    assert found.jump == "lab@jump:2200"
    assert words[0] == "ssh"
    assert words[-4:] == ["-W", "[192.0.2.7]:2222", "--", "jump"]
    for pair in (("-l", "lab"), ("-p", "2200"), ("-F", "none"), ("-o", "BatchMode=yes")):
        assert pair in list(pairwise(words)), words
    # ssh keeps the first value of an option.
    assert words[1:3] == ["-o", "StrictHostKeyChecking=yes"]


@pytest.mark.parametrize(
    ("config", "args"),
    [
        ("", "-J lab@one:2201,two"),
        ("Host bravo\n  ProxyJump lab@one:2201,two\n", ""),
        # A jump host that has a jump host.
        ("Host bravo\n  ProxyJump two\nHost two\n  ProxyJump lab@one:2201\n", ""),
        ("Host bravo\n  ProxyJump two\nHost two\n  User nobody\n  ProxyJump lab@one:2201\n", ""),
    ],
)
def test_two_jumps(config: str, args: str) -> None:
    Path("config").write_text(config)
    words = jump_words(settings(args=f"{args} -F config").proxy_command)
    assert words[-4:] == ["-W", "[bravo]:22", "--", "two"]
    (inner,) = [word for word in words if word.startswith("ProxyCommand=")]
    # The ssh to the second host fills in where that is.
    inner_words = shlex.split(inner.removeprefix("ProxyCommand="))
    assert inner_words[-4:] == ["-W", "[%h]:%p", "--", "one"]
    assert inner_words[1:3] == ["-o", "StrictHostKeyChecking=yes"]
    assert ("-p", "2201") in list(pairwise(inner_words))


def test_an_option_for_no_jump() -> None:
    Path("config").write_text("Host *\n  ProxyJump one\n")
    assert settings(args="-F config -o ProxyJump=none").proxy_command == ""
    assert settings(args="-F config -o ProxyCommand=none").proxy_command == ""


def test_jumps_in_a_circle() -> None:
    Path("config").write_text("Host bravo\n  ProxyJump one\nHost one\n  ProxyJump two\n"
                              "Host two\n  ProxyJump one\n")  # fmt: skip
    assert "no way through ProxyJump" in line(host(args="-F config"))


def test_a_jump_with_an_ipv6_address() -> None:
    words = jump_words(settings(args="-J [2001:db8::1]:22 -F none").proxy_command)
    assert words[-2:] == ["--", "2001:db8::1"]
