# SPDX-License-Identifier: Apache-2.0
"""Whole commands through a jump host, as a user who becomes root by password."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.model import Lab
from tests.lab.conftest import bench, processes, wait_until
from tests.lab.sshd import PASSWORD, USER, Site, keygen, site

pytestmark = pytest.mark.skipif(shutil.which("sudo") is None, reason="needs sudo")

HOSTS = ("jump", 1)
NAMES = ("client", "hop1", "server")


@pytest.fixture(scope="module")
def servers(hosts: Lab) -> Iterator[Site]:
    """Servers on each host; the way there is through one that is reached by a command."""
    with site(hosts) as made:
        made.sshd_config("sshd_config", PasswordAuthentication="yes")
        made.sshd_config("password", PasswordAuthentication="yes", PubkeyAuthentication="no")
        for name in NAMES:
            made.serve(name)
            made.serve(name, "password", 2222)
        made.ssh_config(
            f"Host jump\n  User root\n  ProxyCommand {made.inline('client')}\n",
            *(f"Host {name}\n  HostName {made.address(name)}\n" for name in NAMES),
            f"Host {' '.join(NAMES)}\n  ProxyJump jump\n",
        )
        addresses = [made.address(name) for name in NAMES]
        made.known_hosts("jump", *addresses, *(f"[{each}]:2222" for each in addresses))
        yield made


def inventory(servers: Site, *lines: str, **hop1: str) -> Path:
    """Write an inventory of the hosts, with lines for all of them and more for hop1."""
    words = {name: f"data_ip={servers.address(name)}" for name in NAMES}
    words["hop1"] += "".join(f" ansible_{key}={value}" for key, value in hop1.items())
    file = servers.folder / "inventory.ini"
    text = [
        *("[client]", f"client {words['client']}", "[hops]", f"hop1 {words['hop1']}"),
        *("[server]", f"server {words['server']}", "[all:vars]", "data_nic=eth0"),
        f"ansible_ssh_common_args='-F {servers.folder}/ssh_config'",
        *("hopbench_headers_link=true", f"ansible_user={USER}", *lines, ""),
    ]
    file.write_text("\n".join(text))
    return file


BECOME = f'ansible_become_password="{PASSWORD}"'


@pytest.fixture(scope="module", autouse=True)
def _deployed(servers: Site) -> Iterator[None]:
    """Everything deployed over such a connection, and taken away again, twice the same."""
    before = Path("/opt/hopbench").exists()
    done = bench("deploy", "-i", inventory(servers, BECOME))
    assert done.status == 0, done.stderr
    yield
    if not before:
        done = bench("undeploy", "-i", inventory(servers, BECOME))
        assert done.status == 0, done.stderr


def left(servers: Site) -> list[str]:
    """Return ssh processes of ours that are still there."""
    folder = str(servers.folder)
    return [line for _, line in processes("ssh", "sh") if folder in line or "hopbench-" in line]


def test_deploy_doctor_run_and_clean(servers: Site, tmp_path: Path) -> None:
    file = inventory(servers, BECOME, "ansible_become=true")
    again = bench("deploy", "-i", file)
    assert again.status == 0, again.stderr
    assert " 0 changed" in again.stdout.splitlines()[-1], again.stderr
    doctor = bench("doctor", "-i", file)
    assert (doctor.status, "problem" in doctor.stdout) == (0, False), doctor.stdout
    words = ("--mode", "xdp,nft", "--hops", "1", "--size", "624", "--blocks", "1")
    done = bench("run", "-i", file, *words, "--output", tmp_path / "results")
    assert done.status == 0, done.stderr
    clean = bench("clean", "-i", file)
    assert (clean.status, "nothing was left" in clean.stdout) == (0, True), clean.stderr
    assert wait_until(lambda: not left(servers)), left(servers)
    # In no transcript of an agent, no artifact of Ansible's and no result.
    kept = [*(tmp_path / "results").rglob("*"), *Path(os.environ["XDG_STATE_HOME"]).rglob("*")]
    texts = {path: path.read_text(errors="replace") for path in kept if path.is_file()}
    assert any("agent" in str(path) or "raw" in str(path) for path in texts)
    assert [path for path, text in texts.items() if "open sesame" in text] == []


def test_ssh_passwords(servers: Site) -> None:
    """Ansible takes them from the inventory, and so does Fabric."""
    lines = (BECOME, "ansible_port=2222", f'ansible_password="{PASSWORD}"')
    file = inventory(servers, *lines)
    done = bench("deploy", "-i", file)
    assert done.status == 0, done.stderr
    assert bench("clean", "-i", file).status == 0
    state = Path(os.environ["XDG_STATE_HOME"]).rglob("*")
    assert not [p for p in state if p.is_file() and "open sesame" in p.read_text(errors="replace")]
    wrong = bench("deploy", "-i", inventory(servers, *lines[:2], "ansible_password=wrong"))
    assert wrong.status == 1
    for name in NAMES:
        assert f"{name}: connect: SSH login refused" in wrong.error, wrong.stderr
    assert bench("clean", "-i", inventory(servers, *lines[:2])).error.count("SSH refuses user") == 3


def test_names_of_files_are_from_where_bench_is_started(servers: Site) -> None:
    """Also those that only ssh reads, in a file or an option."""
    text = (servers.folder / "ssh_config").read_text()
    (servers.folder / "here").write_text(
        text.replace(f"{servers.folder}/known_hosts", "known_hosts")
    )
    file = inventory(servers, BECOME, "ansible_private_key_file=id")
    file.write_text(file.read_text().replace(f"-F {servers.folder}/ssh_config", "-F here"))
    for command in ("deploy", "clean"):
        done = bench(command, "-i", file, cwd=servers.folder)
        assert done.status == 0, done.stderr


def test_su(servers: Site) -> None:
    """root's password is the same here."""
    file = inventory(servers, BECOME, "ansible_become_method=su")
    done = bench("deploy", "-i", file)
    assert done.status == 0, done.stderr
    assert bench("clean", "-i", file).status == 0


@pytest.mark.parametrize(
    ("lines", "fabric", "ansible"),
    [
        ((), "sudo wants a password", "sudo wants a password"),
        (("ansible_become_password=wrong",), "sudo refuses the password", "sudo refuses the pass"),
        ((BECOME, "ansible_become_user=games"), "ansible_become_user is 'games'", None),
        ((BECOME, "ansible_become_method=doas"), "'doas' is not supported", None),
        ((BECOME, "ansible_connection=local"), "ansible_connection is 'local'", None),
    ],
    ids=["no password", "wrong password", "user", "method", "connection"],
)
def test_mistakes_are_said_alike(
    servers: Site, lines: tuple[str, ...], fabric: str, ansible: str | None
) -> None:
    file = inventory(servers, *lines)
    for command, words in (("clean", fabric), ("deploy", ansible or fabric)):
        done = bench(command, "-i", file)
        assert done.status == 1
        # One file system, so Ansible becomes root on one host first, and ends there.
        for name in NAMES[:1] if command == "deploy" and ansible else NAMES:
            assert f"{name}: " in done.error, done.stderr
        assert words in done.error, done.stderr


@pytest.mark.parametrize(
    "lines",
    [
        ("ansible_host_key_checking=false",),
        ("ansible_ssh_host_key_checking=false",),
        ("ansible_ssh_extra_args='-o StrictHostKeyChecking=no'",),
        ("ansible_ssh_args='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null'",),
    ],
    ids=["checking", "ssh checking", "extra", "args"],
)
def test_a_host_whose_key_is_not_known_is_not_talked_to(
    servers: Site, lines: tuple[str, ...], tmp_path: Path
) -> None:
    """Neither by Ansible nor by Fabric, whatever the inventory says of checking."""
    stranger = keygen(tmp_path / "stranger")
    known = servers.folder / "known_hosts"
    before = known.read_text()
    changed = " ".join(Path(f"{stranger}.pub").read_text().split()[:2])
    names = before.split()[0].replace(servers.address("hop1"), "nobody")
    known.write_text(
        f"{names} {' '.join(before.split()[1:])}\n{servers.address('hop1')} {changed}\n"
    )
    try:
        file = inventory(servers, BECOME, *lines)
        for command in ("deploy", "clean"):
            done = bench(command, "-i", file)
            assert done.status == 1
            assert "hop1: " in done.error and "host key" in done.error, done.stderr
        assert changed in known.read_text()
    finally:
        known.write_text(before)
