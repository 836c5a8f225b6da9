# SPDX-License-Identifier: Apache-2.0
"""Logins at real SSH servers: keys, agents, certificates, passwords, and host keys."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab.ssh_hosts import host, inline, refused, who
from tests.lab.sshd import PASSWORD, USER, Site, agent, keygen, public

HOSTS = ("ssh", 3)


# --- who logs in -----------------------------------------------------------------------------


@pytest.mark.parametrize("only", ["yes", "no"])
def test_a_key_with_passphrase_in_an_agent(
    servers: Site, folder: Path, monkeypatch: pytest.MonkeyPatch, only: str
) -> None:
    key = keygen(folder / "locked", "-N", "secret word")
    (folder / "authorized_keys").write_text(public(key) + "\n")
    servers.ssh_config(f"IdentityFile {key}\nIdentitiesOnly {only}\n", inline(servers, "hop1"))
    servers.known_hosts("hop1")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    text = refused(host(servers))
    assert f"{key} has a passphrase: give it to an agent with ssh-add" in text
    others = [(keygen(folder / f"other{n}"), "") for n in range(7)]
    with agent(*others, (key, "secret word")) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        # Seven keys that are tried before it would be more than sshd puts up with.
        assert who(host(servers))[0] == "0"
        Path(f"{key}.pub").unlink()
        assert who(host(servers))[0] == "0"


def test_a_socket_that_the_configuration_names(servers: Site, folder: Path) -> None:
    key = keygen(folder / "held", "-N", "secret word")
    (folder / "authorized_keys").write_text(public(key) + "\n")
    servers.known_hosts("hop1")
    with agent((key, "secret word")) as path:
        section = f"IdentityAgent {path}\nIdentitiesOnly no\n"
        servers.ssh_config(section, inline(servers, "hop1"))
        assert who(host(servers))[0] == "0"


@pytest.mark.parametrize("kind", [("ed25519",), ("ecdsa",), ("rsa", "-b", "2048")])
@pytest.mark.parametrize("held", ["file", "agent"])
def test_kinds_of_keys(
    servers: Site,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: tuple[str, ...],
    held: str,
) -> None:
    key = keygen(folder / "kind", "-t", *kind, "-N", "")
    (folder / "authorized_keys").write_text(public(key) + "\n")
    servers.ssh_config(inline(servers, "hop1"))
    servers.known_hosts("hop1")
    if held == "file":
        assert who(host(servers, private_key_file=str(key)))[0] == "0"
        return
    with agent((key, "")) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        args = f"-F {folder}/ssh_config -o IdentitiesOnly=no"
        assert who(host(servers, ssh_common_args=args))[0] == "0"


def test_a_certificate(servers: Site, folder: Path) -> None:
    """A key that nobody knows, signed by an authority that the host knows."""
    authority = keygen(folder / "authority")
    key = keygen(folder / "signed")
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", "root", f"{key}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    servers.sshd_config("sshd_config", TrustedUserCAKeys=f"{authority}.pub")
    servers.ssh_config(inline(servers, "hop1"))
    servers.known_hosts("hop1")
    assert who(host(servers, private_key_file=str(key)))[0] == "0"


def test_passwords(servers: Site) -> None:
    servers.sshd_config("password", PasswordAuthentication="yes", PubkeyAuthentication="no")
    servers.serve("hop1", "password")
    servers.ssh_config(
        inline(servers, "client"),
        f"Host hop1\n  HostName {servers.address('hop1')}\n  ProxyJump client\n",
    )
    servers.known_hosts("client", servers.address("hop1"))
    some = {"user": USER, "become": False}
    assert who(host(servers, password=PASSWORD, **some))[0] == "4242"
    wrong = refused(host(servers, password="wrong", **some))
    assert f"SSH refuses user {USER} with" in wrong
    assert "the password" in wrong and "wrong" not in wrong.replace("is wrong", "")
    none = refused(host(servers, **some))
    assert f"SSH refuses user {USER}" in none
    assert "set ansible_password" in none


def test_a_key_that_is_refused(servers: Site, folder: Path) -> None:
    (folder / "authorized_keys").write_text("")
    servers.ssh_config(inline(servers, "hop1"))
    servers.known_hosts("hop1")
    assert f"hop1: SSH refuses user root with the key {folder}/id" in refused(host(servers))


# --- host keys -------------------------------------------------------------------------------


def test_host_keys(servers: Site, folder: Path) -> None:
    """Those that are known, and what is said of each that is not."""
    right, wrong = public(folder / "host_key"), public(keygen(folder / "wrong"))
    args = f"-F {folder}/ssh_config"
    servers.ssh_config(inline(servers, "hop1"))
    file = folder / "known_hosts"
    for text, extra, said in (
        (f"hop1 {right}", "", None),
        (f"hop* {right}", "", None),
        (f"bravo {right}", "", "host key is not known"),
        (f"bravo {right}", "-o HostKeyAlias=bravo", None),
        (f"hop1 {right}", "-o HostKeyAlias=bravo", "host key is not known"),
        (f"[hop1]:2222 {right}", "-o Port=2222", None),
        (f"hop1 {wrong}", "", "host key changed"),
        (f"hop1 {wrong}", "-o StrictHostKeyChecking=no", "host key changed"),
        ("", "-o StrictHostKeyChecking=no", "host key is not known"),
        ("", "-o StrictHostKeyChecking=accept-new", "host key is not known"),
        (f"hop1 {right}", "-o UserKnownHostsFile=/dev/null", "host key is not known"),
        (f"@revoked * {right}\nhop1 {right}", "", "host key is revoked"),
        (f"hop1 {right}", f"-o RevokedHostKeys={folder}/host_key.pub", "host key is revoked"),
        (f"@cert-authority hop1 {wrong}", "", "hopbench reads no certificates"),
        (f"@cert-authority hop1 {wrong}\nhop1 {right}", "", None),
        (f"hop1 {wrong}\nhop1 {right}", "", None),
    ):
        file.write_text(text + "\n")
        some = host(servers, ssh_common_args=f"{args} {extra}")
        if said is None:
            assert who(some)[0] == "0", (text, extra)
        else:
            assert said in refused(some), (text, extra)
        assert file.read_text() == text + "\n"


def test_hashed_names(servers: Site) -> None:
    servers.ssh_config(inline(servers, "hop1"))
    file = servers.known_hosts("hop1")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "hop1" not in file.read_text()
    assert who(host(servers))[0] == "0"


def test_a_host_with_several_keys_is_asked_for_the_known_one(servers: Site, folder: Path) -> None:
    keygen(folder / "rsa", "-t", "rsa", "-b", "2048", "-N", "")
    config = servers.sshd_config("sshd_config", HostKey=f"{folder}/host_key")
    config.write_text(f"HostKey {folder}/rsa\n" + config.read_text())
    servers.ssh_config(inline(servers, "hop1"))
    for key in ("rsa", "host_key"):
        servers.known_hosts("hop1", key=key)
        assert who(host(servers))[0] == "0"
