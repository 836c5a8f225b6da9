# SPDX-License-Identifier: Apache-2.0
"""Hosts of a lab with SSH servers of their own: ports, users with passwords, sudo, agents."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.lab.model import Lab
from bench.lab.network import _processes_in

SSHD = "/usr/sbin/sshd"
USER, UID = "hb-tester", 4242
PASSWORD = "open sesame'$x"

# `ip netns exec` gives a mount namespace: what is put over /etc there is seen nowhere else.
_START = """\
set -e
for name in passwd group shadow sudoers; do mount --bind "$1/$name" "/etc/$name"; done
[ ! -d "$1/opt" ] || mount --bind "$1/opt" /opt
exec {sshd} -D -e -f "$1/$2"
"""


def keygen(file: Path, *words: str) -> Path:
    """Make a key without passphrase, unless words say otherwise."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-f", str(file), *(words or ("-N", ""))]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    return file


def public(file: Path) -> str:
    """Return type and key of a key's public half."""
    return " ".join(Path(f"{file}.pub").read_text().split()[:2])


@dataclass
class Site:
    """The files of some SSH servers, and the servers that run with them.

    Where there is a folder `opt` among the files, it is what the hosts have at /opt.
    """

    lab: Lab
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.chmod(0o755)
        for name in ("host_key", "id"):
            keygen(self.folder / name)
        home = self.folder / "home"
        home.mkdir(mode=0o755)
        os.chown(home, UID, UID)
        shutil.copyfile(self.folder / "id.pub", self.folder / "authorized_keys")
        self._accounts(home)
        self.sudoers(f"{USER} ALL=(ALL) ALL")
        self.sshd_config("sshd_config")

    def _accounts(self, home: Path) -> None:
        crypt = ["perl", "-e", "print crypt($ARGV[0], '$6$hopbench$')", PASSWORD]
        secret = subprocess.run(crypt, check=True, capture_output=True, text=True).stdout
        for name, line in {
            "passwd": f"{USER}:x:{UID}:{UID}::{home}:/bin/sh",
            "group": f"{USER}:x:{UID}:",
            "shadow": f"{USER}:{secret}:19000:0:99999:7:::",
        }.items():
            file = self.folder / name
            lines = (Path("/etc") / name).read_text().splitlines()
            if name == "shadow":
                # For su: root has a password here.
                lines = [each for each in lines if not each.startswith("root:")]
                lines.append(f"root:{secret}:19000:0:99999:7:::")
            file.write_text("\n".join([*lines, line, ""]))
            file.chmod(0o600 if name == "shadow" else 0o644)

    def sudoers(self, *lines: str) -> None:
        """Say who may become root. Its timestamps stay in this folder."""
        file = self.folder / "sudoers"
        text = "\n".join(
            [
                f"Defaults timestampdir={self.folder}/ts, lecture_status_dir={self.folder}/ts",
                'Defaults secure_path="/usr/sbin:/usr/bin:/sbin:/bin"',
                *lines,
                "",
            ]
        )
        if not file.exists():
            file.touch(mode=0o600)
        # In place: servers have this file bound over /etc/sudoers.
        file.chmod(0o600)
        file.write_text(text)
        file.chmod(0o440)

    def sshd_config(self, name: str, **options: str | int) -> Path:
        """Write a server's configuration; options are sshd_config's, over those of the tests."""
        settings = {
            "HostKey": f"{self.folder}/host_key",
            "AuthorizedKeysFile": f"{self.folder}/authorized_keys",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PrintMotd": "no",
            "MaxStartups": "200",
            **options,
        }
        file = self.folder / name
        file.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        return file

    def namespace(self, host: str) -> str:
        """Return a host's network namespace."""
        return self.lab.namespace(host)

    def address(self, host: str) -> str:
        """Return a host's data address."""
        return next(each.data_ip for each in self.lab.hosts if each.name == host)

    def serve(
        self, host: str, config: str = "sshd_config", port: int = 22
    ) -> subprocess.Popen[bytes]:
        """Start a server in a host's namespace and wait until it listens."""
        script = _START.format(sshd=f"{SSHD} -p {port}")
        words = ["ip", "netns", "exec", self.namespace(host), "sh", "-c", script, "sh"]
        with (self.folder / f"{host}.log").open("ab") as log:
            process = subprocess.Popen(
                [*words, str(self.folder), config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running.append(process)
        until = time.monotonic() + 20
        listening = ["ip", "netns", "exec", self.namespace(host), "ss", "-Hltn", f"sport = :{port}"]
        while not subprocess.run(listening, capture_output=True, check=True).stdout:
            assert process.poll() is None, (self.folder / f"{host}.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        return process

    def processes(self, *hosts: str) -> list[int]:
        """Return what runs in the namespaces of some hosts, of all without any."""
        names = hosts or [host.name for host in self.lab.hosts]
        inodes = {(Path("/run/netns") / self.namespace(name)).stat().st_ino for name in names}
        return sorted(_processes_in(inodes))

    def close(self) -> None:
        """End the servers with all that they have started."""
        for process in self.running:
            for pid in children(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()

    def inline(self, host: str) -> str:
        """Return the ProxyCommand that serves one connection in a namespace."""
        return f"ip netns exec {self.namespace(host)} {SSHD} -i -f {self.folder}/sshd_config"

    def known_hosts(self, *names: str, key: str = "host_key") -> Path:
        """Write a known_hosts file with these names."""
        file = self.folder / "known_hosts"
        file.write_text(f"{','.join(names)} {public(self.folder / key)}\n")
        return file

    def ssh_config(self, *sections: str) -> Path:
        """Write an ssh_config: sections first, then what is for every host."""
        file = self.folder / "ssh_config"
        common = (
            "Host *\n"
            f"  IdentityFile {self.folder}/id\n"
            "  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\n"
            "  GlobalKnownHostsFile /dev/null\n"
        )
        file.write_text("\n".join([*sections, common]))
        return file


def children(pid: int) -> list[int]:
    """Return the ids of a process's children, theirs first."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [*children(int(word)), int(word)]
    return found


@contextlib.contextmanager
def site(lab: Lab) -> Iterator[Site]:
    """Keys, accounts and servers for a lab; they end and go with the block."""
    # Not below pytest's folder: whoever logs in has to get at the files.
    with tempfile.TemporaryDirectory(prefix="hb-sshd-", dir="/tmp") as folder:
        made = Site(lab, Path(folder))
        try:
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def agent(*keys: tuple[Path, str]) -> Iterator[str]:
    """An ssh-agent with keys, each with its passphrase; yields its socket."""
    # A Unix socket's name has to be short.
    with tempfile.TemporaryDirectory(prefix="hb-agent-", dir="/tmp") as name:
        folder = Path(name)
        path = folder / "agent"
        process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(path)],
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + 10
            while not _answers(path):
                assert time.monotonic() < until
                time.sleep(0.02)
            for key, passphrase in keys:
                ask = folder / "ask"
                ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
                ask.chmod(0o700)
                subprocess.run(
                    ["ssh-add", "-q", str(key)],
                    env={
                        **os.environ,
                        "SSH_AUTH_SOCK": str(path),
                        "SSH_ASKPASS": str(ask),
                        "SSH_ASKPASS_REQUIRE": "force",
                    },
                    check=True,
                    stdin=subprocess.DEVNULL,
                    timeout=20,
                )
            yield str(path)
        finally:
            process.terminate()
            process.wait(10)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True
