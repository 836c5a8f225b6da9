# SPDX-License-Identifier: Apache-2.0
"""Mistakes and hostile values in what a host's SSH connection is described by."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench import ssh_settings
from bench.errors import BenchError
from tests.unit.ssh_hosts import ended, host, line, settings

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"args": "-o 'Port=22"}, "ansible_ssh_common_args is not a command line: No closing"),
        ({"ssh_extra_args": '-F "x'}, "ansible_ssh_extra_args is not a command line: No closing"),
        ({"args": "-F /nowhere"}, "Can't open user config file /nowhere: No such file"),
        ({"args": "-F"}, "ansible_ssh_common_args: option -F requires argument"),
        ({"args": "-o"}, "ansible_ssh_common_args: option -o requires argument"),
        ({"args": "-Z"}, "ansible_ssh_common_args: option -Z not recognized"),
        ({"args": "elsewhere"}, "ansible_ssh_common_args: 'elsewhere' is no option of ssh"),
        ({"ssh_args": "-- elsewhere"}, "ansible_ssh_args: 'elsewhere' is no option of ssh"),
        ({"args": "-V"}, "option -V not recognized"),
        ({"args": "-W x:1"}, "option -W not recognized"),
        ({"args": "-o garbage"}, "SSH configuration is wrong: "),
        ({"args": "-o Nonsense=1"}, "Bad configuration option: nonsense"),
        ({"args": "-F binary"}, "SSH configuration is wrong: "),
        ({"args": "-F match"}, "SSH configuration is wrong: "),
        ({"args": "-o 'UserKnownHostsFile=\"x'"}, "SSH configuration is wrong: "),
        ({"args": "-o Port=x"}, "SSH configuration is wrong: "),
        ({"args": "-J a:b"}, "SSH configuration is wrong: "),
        ({"port": 0}, "SSH port '0' is not from 1 to 65535"),
        ({"port": 65536}, "SSH port '65536' is not from 1 to 65535"),
        ({"port": -1}, "SSH port '-1' is not from 1 to 65535"),
        ({"port": "ssh"}, "SSH port 'ssh' is not from 1 to 65535"),
        ({"port": "2" * 5000}, f"SSH port '{'2' * 20}' is not from 1 to 65535"),
        ({"port": True}, "SSH port 'True' is not from 1 to 65535"),
        ({"port": "\u0662\u0662"}, "SSH port '\u0662\u0662' is not from 1 to 65535"),
        ({"ssh_timeout": 0}, "ansible_ssh_timeout '0' is not from 1 to 600"),
        ({"ssh_timeout": "soon"}, "ansible_ssh_timeout 'soon' is not from 1 to 600"),
        ({"connection": "local"}, "ansible_connection is 'local', and hopbench goes by SSH"),
        ({"ssh_private_key": "-----BEGIN"}, "ansible_ssh_private_key is not supported"),
        ({"args": "-o 'ProxyCommand=nc %z'"}, "ProxyCommand has an unknown %z"),
        ({"args": "-o 'ProxyCommand=nc %r'", "user": r"a\b"}, "cannot go into a ProxyCommand"),
    ],
)
def test_mistakes(folder: Path, variables: dict[str, Any], reason: str) -> None:
    (folder / "binary").write_bytes(b"\xff\xfe\x00\x80\n")
    (folder / "match").write_text("Match nonsense\n  Port 3\n")
    assert reason in line(host(**variables))


HOSTILE = [
    "-oProxyCommand=touch${IFS}owned",
    "--",
    "-",
    "a b",
    "a\nb",
    "a;touch owned",
    "$(touch owned)",
    "`touch owned`",
    "a'b",
    'a"b',
    "a|b",
    "a&b",
    "a>owned",
    "a\\b",
    "a\x00b",
    "ssh://a/b",
    "*",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("variable", ["host", "user"])
def test_names_that_a_shell_or_ssh_would_understand(variable: str, value: str) -> None:
    if (variable, value) in (("user", "a\\b"), ("user", "ssh://a/b")):
        assert settings(**{variable: value}).user == value
        return
    assert f"is not a {variable} name" in line(host(**{variable: value}))
    assert not Path("owned").exists()


@pytest.mark.parametrize("value", ["/k/a\nb", '/k/a"b', "/k/\x1b"])
def test_key_files_that_a_configuration_would_understand(value: str) -> None:
    assert "is not a file name" in line(host(private_key_file=value))


def test_a_configuration_that_takes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import ssh_config

    monkeypatch.setattr(ssh_config, "_ASK_LIMIT_S", 1)
    Path("config").write_text('Match exec "sleep 1234.5"\n  Port 4\n')
    begin = time.monotonic()
    assert "did not read its configuration within 1 s" in line(host(args="-F config"))
    assert time.monotonic() - begin < 5
    assert ended("sleep 1234.5")


def test_ssh_that_is_absent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(BenchError, match="ssh is not installed"):
        ssh_settings.resolve(host())
