# SPDX-License-Identifier: Apache-2.0
"""SSH over the data network: a host's sshd at its data address, and the client's way to it."""

from __future__ import annotations

import subprocess

from bench.lab.model import Lab
from tests.lab.conftest import inside, wait_until
from tests.lab.endpoints import host_of


class Ssh:
    """An sshd in a host's namespace, and the client's way to it over the data network."""

    def __init__(self, lab: Lab, host: str = "hop1") -> None:
        self._lab, self.host, self._address = lab, host, host_of(lab, host).data_ip

    def __enter__(self) -> Ssh:
        enter = ["ip", "netns", "exec", self._lab.namespace(self.host)]
        config = ["-f", f"{self._lab.folder}/sshd_config", "-o", f"ListenAddress={self._address}"]
        self._daemon = subprocess.Popen(
            [*enter, "/usr/sbin/sshd", "-D", "-e", "-p", "22", *config], stderr=subprocess.DEVNULL
        )
        assert wait_until(lambda: ":22 " in inside(self._lab, self.host, "ss", "-Hltn"))
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.terminate()
        self._daemon.wait(timeout=10)

    def run(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command on the host."""
        enter = ["ip", "netns", "exec", self._lab.namespace("client")]
        options = ["ProxyCommand=none", f"HostKeyAlias={self.host}", "ConnectTimeout=15"]
        return subprocess.Popen(
            [
                *(*enter, "ssh", "-F", f"{self._lab.folder}/ssh_config"),
                *(word for option in options for word in ("-o", option)),
                *(self._address, command),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
