# SPDX-License-Identifier: Apache-2.0
"""What Ansible is told about SSH: the settings that Fabric goes by."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from bench import ansible_ssh
from bench.chain import Chain, Host
from bench.errors import HostsError
from tests.unit.ssh_hosts import host

pytestmark = pytest.mark.usefixtures("folder")


def chain(*hosts: Host) -> Chain:
    """Return a chain of these hosts."""
    return Chain(Path("inventory"), hosts[0], hosts[1:-1], hosts[-1])


def ansible_ssh_of(*hosts: Host) -> list[dict[str, list[str]]]:
    """Return the words that Ansible's ssh is given for each host."""
    told = ansible_ssh.told(chain(*hosts), 32).extra_vars["hopbench_ssh"]
    return [{what: shlex.split(words) for what, words in told[host.name].items()} for host in hosts]


def test_ansible_verifies_host_keys_whatever_the_inventory_says() -> None:
    """ssh is asked what all the words together come to, in the order Ansible gives them."""
    Path("config").write_text("Host *\n  StrictHostKeyChecking no\n")
    lax = {"ssh_args": "-o StrictHostKeyChecking=no", "args": "-o StrictHostKeyChecking=off"}
    hosts = [host("a", **lax), host("b", args="-F config"), host("c")]
    for words in ansible_ssh_of(*hosts):
        command = ["ssh", "-G", *words["args"], "-o", "StrictHostKeyChecking=no"]
        command += [*words["common"], *words["extra"], "x"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "\nstricthostkeychecking true\n" in said
        assert "\nnohostauthenticationforlocalhost no\n" in said


def test_ansible_runs_elsewhere() -> None:
    """Relative names of files are from where bench was started."""
    Path("config").touch()
    first, second, _ = ansible_ssh_of(
        host("a", args="-F config", private_key_file="keys/a"),
        host("b", ssh_extra_args="-Fconfig"),
        host("c"),
    )
    assert first["common"] == ["-F", str(Path.cwd() / "config")]
    assert f'IdentityFile="{Path.cwd()}/keys/a"' in first["args"]
    assert second["extra"] == ["-F", str(Path.cwd() / "config")]


def test_ansible_jumps_as_fabric_does() -> None:
    hosts = [host("a", args="-J jump -F none"), host("b"), host("c")]
    first, second, _ = ansible_ssh_of(*hosts)
    (command,) = [word for word in first["args"] if word.startswith("ProxyCommand=")]
    assert command.endswith(" -W [%h]:%p -- jump")
    assert "StrictHostKeyChecking=yes" in command
    assert not [word for word in second["args"] if word.startswith("ProxyCommand=")]
    assert ansible_ssh.told(chain(*hosts), 32).forks == 8
    assert ansible_ssh.told(chain(*hosts[1:]), 32).forks == 32


def test_braces_are_no_template() -> None:
    from jinja2 import Environment

    words = "-o 'ProxyCommand=x {{ lookup() }} {% for %}'"
    told = ansible_ssh.told(chain(host("a", ssh_extra_args=words), host("b")), 32)
    text = told.extra_vars["hopbench_ssh"]["a"]["extra"]
    assert shlex.split(Environment().from_string(text).render()) == shlex.split(words)


def test_every_host_with_a_mistake_is_named() -> None:
    hosts = [host("a", port=0), host("b", become_method="doas", become=True), host("c")]
    with pytest.raises(HostsError) as caught:
        ansible_ssh.told(chain(*hosts), 32)
    text = caught.value.one_line()
    assert "a: SSH port '0'" in text
    assert "b: ansible_become_method 'doas' is not supported" in text
    assert "b: use sudo or su" in text
