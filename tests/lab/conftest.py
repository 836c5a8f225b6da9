# SPDX-License-Identifier: Apache-2.0
"""Real labs for the tests, and the proof that a session leaves the machine as it found it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.lab import lifecycle
from bench.lab.lifecycle import EphemeralLab
from bench.lab.model import Family, Lab, Wire
from tests.conftest import missing
from tests.lab.sshd import Site, site

_DEPLOYED = Path("/opt/hopbench")
REPOSITORY = Path(__file__).resolve().parents[2]
# What the project starts; a test session may not leave one more of them behind.
_PROGRAMS = ("siege", "socat", "nginx", "sshd", "ansible-playbook", "unshare")

# --- what is on the machine ------------------------------------------------------------------


def _bpf_programs() -> set[tuple[int, str]]:
    """Return (id, name) of every loaded BPF program, through libbpf."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    found, current = set(), ctypes.c_uint32(0)
    while libbpf.bpf_prog_get_next_id(current, ctypes.byref(current)) == 0:
        fd = libbpf.bpf_prog_get_fd_by_id(current)
        if fd < 0:
            continue
        info, size = ctypes.create_string_buffer(256), ctypes.c_uint32(256)
        libbpf.bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size))
        os.close(fd)
        # struct bpf_prog_info: name[16] at offset 64
        found.add((current.value, info.raw[64:80].split(b"\0")[0].decode()))
    return found


def processes(*names: str) -> set[tuple[int, str]]:
    """Return (pid, command line) of live processes whose program has one of these names."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        program = Path(words[0].decode(errors="replace").split(":")[0]).name
        text = b" ".join(words).decode(errors="replace").strip()
        if program in names or ("-m hop" in text and "python" in program):
            found.add((int(entry.name), text))
    return found


def _names_in(folder: str) -> set[str]:
    """Return what is in a folder; what is removed meanwhile is not there any more (os.walk)."""
    return {
        str(Path(place, name))
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }


def _nft_tables() -> set[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return set(done.stdout.splitlines())


def _links() -> set[str]:
    done = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True)
    return {f"{link['ifname']} {link.get('xdp')}" for link in json.loads(done.stdout)}


def machine() -> dict[str, set[Any]]:
    """Return everything a lab makes, as it is now."""
    return {
        "namespaces": _names_in("/run/netns"),
        "links": _links(),
        "BPF programs": _bpf_programs(),
        "nft tables": _nft_tables(),
        "processes": processes(*_PROGRAMS),
        "files": _names_in("/run/hopbench") | _names_in("/run/hopbench-offloads"),
        "folders": {str(path) for path in (Path("/run/sshd"), _DEPLOYED) if path.exists()},
    }


def differences(before: dict[str, set[Any]], limit_s: float = 30.0) -> dict[str, set[Any]]:
    """Return what is new since `before`; the kernel frees namespaces and programs in a while."""
    until = time.monotonic() + limit_s
    while True:
        now = machine()
        new = {kind: now[kind] - before[kind] for kind in now if now[kind] - before[kind]}
        if not new or time.monotonic() > until:
            return new
        time.sleep(0.1)


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Compare the machine before and after all lab tests.

    Beside those that wait, `make test` runs tests and linters that need no lab (Makefile): what
    they load and start goes in a while, too.
    """
    if missing():
        yield
        return
    # What a session left that was killed with its guards is no lab of this one.
    lifecycle.remove_orphans(print)
    before = machine()
    yield
    if left := differences(before, limit_s=120):
        # No test's own failure, which might be run once more: a status that says so.
        pytest.exit(f"left behind: {left}", returncode=3)


# --- commands --------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's own remembered inventory out of the tests."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    if before is None:
        del os.environ["XDG_STATE_HOME"]
    else:
        os.environ["XDG_STATE_HOME"] = before


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """Its last line on stderr."""
        lines = self.stderr.strip().splitlines()
        return lines[-1] if lines else ""


def bench(*arguments: str | Path, cwd: Path | None = None, limit_s: float = 600.0) -> Done:
    """Run the bench command; a traceback is a failure whatever the test looks for."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def start_bench(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """Start the bench command and return while it runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def inside(lab: Lab, host: str, *argv: str) -> str:
    """Run a program in a host's namespace and return its output."""
    command = ["ip", "netns", "exec", lab.namespace(host), *argv]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> bool:
    """Poll until a condition holds; False when it does not within the limit."""
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process these tests started."""
    os.kill(pid, number)


# --- labs ------------------------------------------------------------------------------------


@contextlib.contextmanager
def deployed(name: str, *, hops: int, wire: Wire = "xdp", family: Family = 4) -> Iterator[Lab]:
    """A lab with everything deployed; what another deploy had put on this machine stays."""
    before = _DEPLOYED.exists()
    with EphemeralLab(hops, wire, family, name=name) as lab:
        done = bench("deploy", "-i", name)
        assert done.status == 0, done.stderr
        yield lab
        if not before:
            assert bench("undeploy", "-i", name).status == 0


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A deployed lab of five hops, shared by the tests that leave it as it was."""
    with deployed("test", hops=5) as made:
        yield made


@pytest.fixture(scope="session")
def odd() -> Iterator[Lab]:
    """A deployed lab of two hops, shared by the tests that break it, and mend it again."""
    with deployed("odd", hops=2) as made:
        yield made


@pytest.fixture(scope="module")
def hosts(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab with nothing deployed: a module's HOSTS is its name and its number of hops."""
    name, hops = request.module.HOSTS
    with EphemeralLab(hops, name=name) as made:
        yield made


@pytest.fixture
def servers(hosts: Lab) -> Iterator[Site]:
    """SSH servers of a test's own; none of them left, and nothing of the connections to them."""
    with site(hosts) as made:
        yield made

    def left() -> list[object]:
        mine = [line for _, line in processes("ssh", "sh", "sshd") if str(made.folder) in line]
        return [*mine, *made.processes()]

    assert wait_until(lambda: not left()), left()


@pytest.fixture
def folder(servers: Site) -> Path:
    """The folder of the servers' files, for more of them."""
    return servers.folder
