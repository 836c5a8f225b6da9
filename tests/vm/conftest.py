# SPDX-License-Identifier: Apache-2.0
"""A chain of virtual machines from `vagrant up` to `vagrant destroy`, and that nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import copy_checkout
from tests.lab.conftest import REPOSITORY, Done, wait_until

_VM_HOST = "hopbench-vms-test"
_HOPS = 2


@dataclass(frozen=True)
class Machines:
    """A checkout of its own in which Vagrant and bench are run.

    said: what `vagrant up` printed.
    """

    checkout: Path
    environment: Mapping[str, str]
    said: str = ""

    def run(self, *words: str | Path, limit_s: float) -> Done:
        """Run a command in the checkout."""
        done = subprocess.run(
            list(map(str, words)),
            cwd=self.checkout,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def bench(self, *words: str | Path, limit_s: float = 400.0) -> Done:
        """Run bench; a traceback is a failure whatever the test looks for."""
        done = self.run(sys.executable, "-m", "bench", *words, limit_s=limit_s)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start_bench(self, *words: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Start bench, what it says going into a file, and return while it runs."""
        with log.open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "bench", *map(str, words)],
                cwd=self.checkout,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def power_off(self, host: str) -> None:
        """Take a machine's power away."""
        uri = f"qemu:///system?socket=/var/lib/{_VM_HOST}/run/libvirt-sock"
        names = self.run("virsh", "-c", uri, "list", "--name", limit_s=30).stdout.splitlines()
        (name,) = [name for name in names if name.endswith(host)]
        done = self.run("virsh", "-c", uri, "destroy", name, limit_s=60)
        assert done.status == 0, done.stderr

    def on(self, host: str, command: str) -> str:
        """Run a command as root on a machine, by the SSH that `vagrant up` described."""
        config = self.checkout / ".vagrant" / "hopbench" / "ssh_config"
        done = self.run("ssh", "-F", config, host, f"sudo sh -c '{command}'", limit_s=60)
        assert done.status == 0, done.stderr
        return done.stdout


def _processes() -> set[str]:
    """Return the command lines of all that was started for the VMs, by whomever it was started.

    What they inherit says so, where their command line does not: an ssh that shares its connection,
    and its way into the namespace.
    """
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            inherited = (path / "environ").read_bytes().split(b"\0")
            text = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"VM_HOST={_VM_HOST}".encode() in inherited or _VM_HOST in text:
            found.add(text)
    return found


def _left() -> dict[str, object]:
    """Return what is there of the VMs and their host."""
    return {
        "namespace": Path("/run/netns", _VM_HOST).exists(),
        "folder": Path("/var/lib", _VM_HOST).exists(),
        "processes": _processes(),
    }


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Client, two hops and server, made and provisioned by `vagrant up`.

    On a libvirtd that it starts itself, whether or not the machine has another.
    """
    host = REPOSITORY / "tools" / "vm-host.sh"
    lacking = subprocess.run(["sh", host, "lacking"], capture_output=True, text=True, check=True)
    if lacking.stdout:
        pytest.skip(lacking.stdout.strip())
    # Names with a space are names, too.
    checkout = tmp_path_factory.mktemp("vm") / "a clone"
    copy_checkout(checkout)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "VM_HOST": _VM_HOST,
        "HOPS": str(_HOPS),
        "XDG_STATE_HOME": str(checkout / "state"),
    }
    made = Machines(checkout, environment)
    # A session that was killed may have left them.
    assert made.run("sh", host, "down", limit_s=60).status == 0
    try:
        up = made.run("vagrant", "up", limit_s=1200)
        assert up.status == 0, up.stdout[-3000:] + up.stderr[-3000:]
        yield Machines(checkout, environment, up.stdout)
        destroyed = made.run("vagrant", "destroy", "-f", limit_s=120)
        assert destroyed.status == 0, destroyed.stderr
        assert not (checkout / ".vagrant" / "hopbench").exists()
        # The libvirtd, too, that it had started. An ssh ends when its way does.
        wait_until(lambda: not _processes(), limit_s=5)
        assert _left() == {"namespace": False, "folder": False, "processes": set()}
    finally:
        made.run("sh", host, "down", limit_s=60)
