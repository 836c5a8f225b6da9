# SPDX-License-Identifier: Apache-2.0
"""How a host is reached: what the inventory, SSH options and ssh_config files come to."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from bench import ssh
from bench.chain import Host
from bench.errors import BenchError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a home of its own, in which nothing is."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("LOGNAME", "me")
    monkeypatch.chdir(folder)
    return folder


def host(**variables: Any) -> Host:
    """Return a host with Ansible variables; `args` stands for ansible_ssh_common_args."""
    if "args" in variables:
        variables["ssh_common_args"] = variables.pop("args")
    ssh_vars = {f"ansible_{name}": value for name, value in variables.items()}
    return Host("bravo", "hop", "198.18.0.2", "eth0", 7000, ssh_vars=ssh_vars)


def fails(some: Host) -> str:
    """Return the one line that settings end with."""
    with pytest.raises(BenchError) as caught:
        ssh.settings(some)
    line = caught.value.one_line()
    assert line.isprintable()
    assert line.startswith("bravo: ")
    return line


def test_a_host_nothing_is_said_about(home: Path) -> None:
    assert ssh.settings(host()) == ssh.Settings(
        address="bravo",
        port=22,
        user="me",
        key_files=(),
        password=None,
        proxy_command=None,
        known_hosts=(f"{home}/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"),
        sudo=False,
        sudo_password=None,
    )


@pytest.mark.parametrize(
    ("variables", "field", "value"),
    [
        ({"host": "192.0.2.7"}, "address", "192.0.2.7"),
        ({"ssh_host": "192.0.2.7"}, "address", "192.0.2.7"),
        ({"host": "192.0.2.7", "ssh_host": "192.0.2.8"}, "address", "192.0.2.7"),
        ({"host": ""}, "address", "bravo"),
        ({"port": 2222}, "port", 2222),
        ({"port": "2222"}, "port", 2222),
        ({"ssh_port": 2222}, "port", 2222),
        ({"port": 2222, "ssh_port": 3333}, "port", 2222),
        ({"port": ""}, "port", 22),
        ({"user": "lab"}, "user", "lab"),
        ({"ssh_user": "lab"}, "user", "lab"),
        ({"user": 7}, "user", "7"),
        ({"ssh_private_key_file": "/keys/a"}, "key_files", ("/keys/a",)),
        ({"private_key_file": "/keys/a"}, "key_files", ("/keys/a",)),
        ({"private_key_file": "~/a"}, "key_files", ("{home}/a",)),
        ({"private_key_file": "~nobody-of-that-name/a"}, "key_files", ("~nobody-of-that-name/a",)),
        ({"password": "p w"}, "password", "p w"),
        ({"ssh_pass": 1234}, "password", "1234"),
        ({"become": True}, "sudo", True),
        ({"become": "yes"}, "sudo", True),
        ({"become": "True"}, "sudo", True),
        ({"become": 1}, "sudo", True),
        ({"become": False}, "sudo", False),
        ({"become": "false"}, "sudo", False),
        ({"become": "no"}, "sudo", False),
        ({"become": None}, "sudo", False),
        ({"become_password": "p w"}, "sudo_password", "p w"),
        ({"become_pass": "p w"}, "sudo_password", "p w"),
    ],
)
def test_variables(home: Path, variables: dict[str, Any], field: str, value: object) -> None:
    if isinstance(value, tuple):
        value = tuple(each.replace("{home}", str(home)) for each in value)
    assert getattr(ssh.settings(host(**variables)), field) == value


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
        ("-v -A -o Port=2222 -C", "port", 2222),
        ("-o User=lab", "user", "lab"),
        ("-l lab", "user", "lab"),
        ("-o HostName=192.0.2.7", "address", "192.0.2.7"),
        ("-o IdentityFile=/keys/a -i /keys/b", "key_files", ("/keys/a", "/keys/b")),
        ("-o 'ProxyCommand=nc -X 5 %h %p'", "proxy_command", "nc -X 5 bravo 22"),
        (
            "-o 'ProxyCommand ssh -o A=b -W %h:%p jump'",
            "proxy_command",
            "ssh -o A=b -W bravo:22 jump",
        ),
        ("-o ProxyCommand=none", "proxy_command", None),
        ("-o UserKnownHostsFile=/keys/known", "known_hosts", ("/keys/known",)),
        ("-o 'UserKnownHostsFile=\"/a b\" ~/c'", "known_hosts", ("/a b", "{home}/c")),
        ("-o UserKnownHostsFile=/dev/null", "known_hosts", ("/dev/null",)),
        ("-o ServerAliveInterval=10", "port", 22),
        ("-o", "port", 22),
        ("-F none", "port", 22),
    ],
)
def test_options(home: Path, name: str, words: str, field: str, value: object) -> None:
    if isinstance(value, tuple):
        value = tuple(each.replace("{home}", str(home)) for each in value)
    assert getattr(ssh.settings(host(**{name: words})), field) == value


CONFIG = """\
Host other
  Port 1
Host bravo 192.0.2.*
  Port 2200
  User fromfile
  IdentityFile ~/.ssh/%h
  ProxyCommand ip netns exec NS-%h /usr/sbin/sshd -i
  UserKnownHostsFile ~/known
Host alias
  HostName 192.0.2.9
Host *
  Port 3
  User everyone
"""


@pytest.mark.parametrize("place", [".ssh/config", "given"])
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("bravo", 2200, "fromfile", "ip netns exec NS-bravo /usr/sbin/sshd -i")),
        (
            {"host": "192.0.2.7"},
            ("192.0.2.7", 2200, "fromfile", "ip netns exec NS-192.0.2.7 /usr/sbin/sshd -i"),
        ),
        ({"host": "alias"}, ("192.0.2.9", 3, "everyone", None)),
        ({"host": "delta"}, ("delta", 3, "everyone", None)),
        (
            {"args": "-o Port=2222"},
            ("bravo", 2222, "fromfile", "ip netns exec NS-bravo /usr/sbin/sshd -i"),
        ),
        (
            {"args": "-o Port=2222 -o ProxyCommand=none", "port": 4, "user": "lab"},
            ("bravo", 4, "lab", None),
        ),
    ],
    ids=["file", "pattern", "alias", "rest", "option first", "variable first"],
)
def test_files(
    home: Path, place: str, variables: dict[str, Any], expected: tuple[object, ...]
) -> None:
    (home / place).write_text(CONFIG)
    if place == "given":
        (home / ".ssh" / "config").write_text("Host *\n  Port 9\n  User wrong\n  ProxyCommand x\n")
        variables = {**variables, "ssh_extra_args": f"-F {home}/given"}
    found = ssh.settings(host(**variables))
    assert (found.address, found.port, found.user, found.proxy_command) == expected


def test_a_file_for_keys_and_known_hosts(home: Path) -> None:
    (home / "config").write_text(CONFIG)
    found = ssh.settings(host(args="-F config"))
    assert found.key_files == (f"{home}/.ssh/bravo",)
    assert found.known_hosts == (f"{home}/known",)
    named = ssh.settings(host(args="-F config", private_key_file="/keys/a"))
    assert named.key_files == ("/keys/a",)


@pytest.mark.parametrize("words", ["-F none", "-Fnone", "-o Port=22 -F none"])
def test_no_file_at_all(home: Path, words: str) -> None:
    (home / ".ssh" / "config").write_text("garbage\n")
    assert ssh.settings(host(args=words)).port == 22


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"args": "-o 'Port=22"}, "ansible_ssh_common_args is not a command line: No closing"),
        ({"ssh_extra_args": '-F "x'}, "ansible_ssh_extra_args is not a command line: No closing"),
        ({"args": "-F /nowhere"}, "SSH configuration /nowhere cannot be read: No such file"),
        ({"args": "-F ~/.ssh"}, "/.ssh cannot be read: Is a directory"),
        ({"args": "-F"}, "SSH configuration . cannot be read: Is a directory"),
        ({"args": "-F binary"}, "SSH configuration is wrong: Unparsable line"),
        ({"args": "-o garbage"}, "SSH configuration is wrong: Unparsable line"),
        ({"args": "-F match"}, "SSH configuration is wrong: "),
        ({"args": "-F canonical"}, "SSH configuration is wrong: "),
        ({"args": "-o 'UserKnownHostsFile=\"x'"}, "SSH configuration is wrong: No closing"),
        ({"port": 0}, "SSH port '0' is not from 1 to 65535"),
        ({"port": 65536}, "SSH port '65536' is not from 1 to 65535"),
        ({"port": -1}, "SSH port '-1' is not from 1 to 65535"),
        ({"port": "ssh"}, "SSH port 'ssh' is not from 1 to 65535"),
        ({"port": "2" * 5000}, f"SSH port '{'2' * 20}' is not from 1 to 65535"),
        ({"port": True}, "SSH port 'True' is not from 1 to 65535"),
        ({"port": "\u0662\u0662"}, "SSH port '\u0662\u0662' is not from 1 to 65535"),
        ({"args": "-o Port=x"}, "SSH port 'x' is not from 1 to 65535"),
    ],
)
def test_mistakes(
    home: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], reason: str
) -> None:
    def unknown(name: str) -> str:
        raise socket.gaierror(name)

    # No name of a test goes to a name server.
    monkeypatch.setattr(socket, "gethostbyname", unknown)
    (home / "binary").write_bytes(b"\xff\xfe\x00\x80\n")
    (home / "match").write_text("Match nonsense\n  Port 3\n")
    (home / "canonical").write_text(
        "Host *\nCanonicalizeHostname yes\nCanonicalizeFallbackLocal no\nCanonicalDomains x.invalid"
    )
    assert reason in fails(host(**variables))


def test_a_file_of_your_own_that_is_wrong(home: Path) -> None:
    (home / ".ssh" / "config").write_text("garbage\n")
    assert fails(host()) == "bravo: SSH configuration is wrong: Unparsable line garbage"


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("/nowhere/ssh -W %h:%p jump", "SSH: no file /nowhere/ssh"),
        ("sh -c 'exit 1", "SSH: No closing quotation"),
        ("/", "SSH: [Errno 13] Permission denied: '/'"),
        ("sh -c 'echo one >&2; echo the last word >&2; exit 1'", "SSH: the last word"),
        ("true", "SSH: "),
    ],
)
def test_a_proxy_that_does_not_connect(home: Path, proxy: str, reason: str) -> None:
    (home / "config").write_text(f"Host *\n  ProxyCommand {proxy}\n")
    begin = time.monotonic()
    with pytest.raises(BenchError) as caught:
        ssh.connect(host(args="-F config"))
    assert caught.value.one_line().startswith(f"bravo: {reason}")
    assert caught.value.host == "bravo"
    assert time.monotonic() - begin < 5
