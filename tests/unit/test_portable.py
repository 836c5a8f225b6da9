# SPDX-License-Identifier: Apache-2.0
"""The controller also runs on macOS: nothing of Linux's own outside bench/lab and bench/hop.

There is no macOS here. mypy knows what each platform's standard library lacks; and the command runs
in an interpreter that has lost what macOS does not have.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import write_run

from bench.cells import Cell
from tests.inventories import nobody_listens

REPOSITORY = Path(__file__).parents[2]
INVENTORY = REPOSITORY / "inventories" / "physical.example.ini"

# What follows is taken from an interpreter on Linux before it runs anything of ours. The modules
# added are those that the standard library imports on macOS alone.
_LOSE = """
import importlib, platform, sys, types

LINUX = {
    "os": "sched_getaffinity sched_setaffinity sched_setscheduler pidfd_open memfd_create unshare "
          "setns getrandom copy_file_range splice eventfd posix_fallocate posix_fadvise pipe2 "
          "fdatasync getresuid setresuid getxattr setxattr O_TMPFILE O_PATH O_NOATIME O_DIRECT "
          "P_PIDFD CLONE_NEWNS CLONE_NEWNET",
    "socket": "AF_NETLINK NETLINK_ROUTE AF_PACKET AF_VSOCK SOCK_CLOEXEC SOCK_NONBLOCK SO_MARK "
              "SO_BINDTODEVICE SO_PEERCRED MSG_CMSG_CLOEXEC TCP_USER_TIMEOUT TCP_INFO",
    "select": "epoll EPOLLIN EPOLLOUT",
    "signal": "SIGRTMIN SIGRTMAX SIGPWR SIGPOLL sigwaitinfo sigtimedwait pidfd_send_signal",
    "time": "CLOCK_BOOTTIME CLOCK_TAI",
    "resource": "prlimit",
}
for module, names in LINUX.items():
    found = importlib.import_module(module)
    for name in names.split():
        if hasattr(found, name):
            delattr(found, name)
sys.platform = "darwin"
platform.system = lambda: "Darwin"
sys.modules["_scproxy"] = types.ModuleType("_scproxy")
sys.modules["_scproxy"]._get_proxies = sys.modules["_scproxy"]._get_proxy_settings = dict

def absent(*_, **__):
    raise ValueError

for name, has in (("", "none"), (".dyld", "dyld_find"), (".dylib", "dylib_info"),
                  (".framework", "framework_info")):
    made = sys.modules["ctypes.macholib" + name] = types.ModuleType("ctypes.macholib" + name)
    setattr(made, has, absent)
"""

_IMPORT_ALL = """
import pkgutil
import bench
for found in pkgutil.walk_packages(bench.__path__, "bench."):
    # An agent's modules are for hosts, but for those that others here import.
    if not found.name.startswith("bench.hop.") and found.name != "bench.__main__":
        importlib.import_module(found.name)
print(sys.platform)
"""


def on_macos(program: str, *arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter that has only what macOS has."""
    return subprocess.run(
        [sys.executable, "-c", _LOSE + program, *arguments],
        cwd=state,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_STATE_HOME": str(state / "state")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def bench(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as on macOS; a traceback is a failure whatever the test looks for."""
    done = on_macos("from bench.cli import main\nmain()", *arguments, state=state)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_standard_library_of_macos_will_do() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--platform", "darwin"),
            *("--cache-dir", str(REPOSITORY / ".mypy_cache" / "darwin")),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "checked" in done.stdout or "Success" in done.stdout, done.stdout + done.stderr
    errors = re.findall(r"^\S+?:\d+: error: .*", done.stdout, re.MULTILINE)
    # So that a mypy that finds nothing at all is noticed: netlink is Linux's own.
    assert [each for each in errors if each.startswith("bench/hop/netlink.py")]
    assert [each for each in errors if not re.match(r"bench/(hop|lab)/", each)] == []


def test_everything_can_be_imported(tmp_path: Path) -> None:
    done = on_macos(_IMPORT_ALL, state=tmp_path)
    assert (done.returncode, done.stdout) == (0, "darwin\n"), done.stderr


def test_the_interpreter_has_lost_something(tmp_path: Path) -> None:
    """An agent's modules need Linux: if they did not fail, nothing above would mean anything."""
    done = on_macos("import bench.hop.host", state=tmp_path)
    assert "CLOCK_BOOTTIME" in done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run in the folder where runs are looked for."""
    cells = [Cell("nft", "", hops, 624, 1, 100) for hops in (1, 3)]
    return write_run(tmp_path / "results", cells, lambda cell, _: 1.0 + cell.hops)


@pytest.mark.parametrize("command", ["show", "compare", "diagnose", "report"])
def test_a_run_can_be_read(run: Path, tmp_path: Path, command: str) -> None:
    done = bench(command, run.name, state=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_runs_are_listed_and_measured_ones_planned(run: Path, tmp_path: Path) -> None:
    assert run.name in bench("list", state=tmp_path).stdout
    planned = bench("run", "--dry-run", "-i", str(INVENTORY), "--mode", "xdp", state=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "xdp (native)" in planned.stdout
    assert "deploy" in bench("--help", state=tmp_path).stdout


@pytest.mark.parametrize("command", ["doctor", "deploy", "undeploy", "run", "trace", "clean"])
def test_hosts_are_reached(tmp_path: Path, command: str) -> None:
    """As far as there is anybody: SSH is refused by each of the hosts, and each is named."""
    names = ("alpha", "bravo", "charlie")
    with nobody_listens(tmp_path, names) as inventory:
        done = bench(command, "-i", str(inventory), state=tmp_path)
    assert done.returncode == 1
    said = done.stdout if command == "doctor" else done.stderr.splitlines()[-1]
    why = "connect: no SSH connection" if "deploy" in command else "SSH: Connection refused"
    assert [name for name in names if f"{name}: {why}" in said] == list(names), done.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("lab", "up"), "a lab"),
        (("lab", "down"), "a lab"),
        (("run",), "a lab"),
        (("datapath",), "measuring the datapath"),
    ],
)
def test_what_needs_linux_says_so(tmp_path: Path, arguments: tuple[str, ...], what: str) -> None:
    done = bench(*arguments, state=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"bench: {what} needs Linux, not Darwin"


def test_processes_are_found_without_proc(tmp_path: Path) -> None:
    """Where there is no /proc, ps says what has a word in its command line."""
    program = """
from pathlib import Path
import subprocess
from bench import playbook
exists = Path.exists
Path.exists = lambda path: exists(path) and not str(path).startswith("/proc")
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "a-rare-word"])
try:
    print(playbook._processes("a-rare-word") == [sleeper.pid])
finally:
    sleeper.kill()
"""
    done = on_macos(program, state=tmp_path)
    assert done.stdout == "True\n", done.stderr
