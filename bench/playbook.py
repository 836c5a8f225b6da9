# SPDX-License-Identifier: Apache-2.0
"""Run one playbook through ansible-runner: bounded in time, silent, and with no process left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ansible_runner

Event = Mapping[str, Any]

# What ansible-playbook inherits. Everything else stays behind: ansible-runner writes the whole
# environment into its artifacts, and a user's ANSIBLE_* would change how a playbook runs.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TERM|SSH_AUTH_SOCK|KRB5CCNAME"
    r"|ANSIBLE_(VAULT|BECOME|CONNECTION)_PASSWORD_FILE"
)

# A Unix socket's path holds 104 bytes on some systems: the folder must be short.
_SHORT_TMP = Path("/tmp")
_PREFIX = "hopbench-ansible-"


@dataclass(frozen=True)
class Outcome:
    """How a playbook ended.

    status: ansible-runner's word, or `timeout`. artifacts: where its events and output are.
    """

    status: Literal["successful", "failed", "timeout"]
    artifacts: Path


def run_playbook(
    playbook: Path,
    inventory: Path,
    *,
    artifacts: Path,
    on_event: Callable[[Event], None],
    extra_vars: Mapping[str, Any],
    check: bool,
    forks: int,
    timeout_s: float,
) -> Outcome:
    """Run `playbook` over `inventory` and return how it ended.

    on_event is called with each of ansible-runner's events, in this thread. Whatever ends this
    function (also KeyboardInterrupt, or an exception of on_event), Ansible, its workers and its SSH
    connections have ended before it returns.
    """
    deadline = time.monotonic() + timeout_s
    folder = _fresh_folder(artifacts, playbook.stem)
    error: list[BaseException] = []

    def handle(event: Event) -> bool:
        try:
            on_event(event)
        except BaseException as raised:
            # ansible-runner would swallow an OSError: stop it, and raise it again below.
            error.append(raised)
        return True

    with _private_folder() as private:
        control = private / "ssh"
        control.mkdir()
        # A way to a host may have a secret in it: in a file, variables are on no command line, nor
        # in the one that ansible-runner keeps. The folder's name is on that of every process that
        # belongs to this run: it is how they are found.
        variables = {**extra_vars, "ansible_control_path_dir": str(control)}
        (private / "env").mkdir()
        (private / "env" / "extravars").write_text(json.dumps(variables))

        def must_stop() -> bool:
            if not error and time.monotonic() < deadline:
                return False
            _end_processes(str(private))
            return True

        try:
            runner = ansible_runner.interface.init_runner(
                private_data_dir=str(private),
                artifact_dir=str(folder.parent),
                ident=folder.name,
                playbook=str(playbook),
                inventory=str(inventory.resolve()),
                forks=forks,
                cmdline="--check" if check else None,
                settings={"pexpect_timeout": 1},
                suppress_env_files=True,
                quiet=True,
                event_handler=handle,
                # With one of our own, ansible-runner installs no signal handlers.
                cancel_callback=must_stop,
            )
            # Here, because it builds its environment from all of this process's.
            runner.config.env = _environment(runner.config.env, playbook.parent, private)
            # Names of files in an inventory, and in an ssh_config, mean the same to every command.
            with contextlib.suppress(FileNotFoundError):
                runner.config.cwd = str(Path.cwd())
            runner.run()
        finally:
            _end_processes(str(private))
        if error:
            raise error[0]
    if runner.canceled:
        return Outcome("timeout", folder)
    return Outcome("successful" if runner.rc == 0 else "failed", folder)


def _environment(runners: Mapping[str, str], project: Path, private: Path) -> dict[str, str]:
    """Return what ansible-playbook gets: little of the user's, ansible-runner's own, and ours."""
    environment = {
        name: value
        for name, value in runners.items()
        if _INHERITED.fullmatch(name) or os.environ.get(name) != value
    }
    collections = Path("~/.ansible/collections").expanduser()
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(project / "ansible.cfg"),
        "ANSIBLE_HOME": str(private / "home"),
        "ANSIBLE_COLLECTIONS_PATH": f"{collections}:/usr/share/ansible/collections",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_FORCE_COLOR": "False",
        "ANSIBLE_NOCOLOR": "True",
        # Nobody is there to be asked.
        "SSH_ASKPASS_REQUIRE": "never",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if sys.platform == "darwin":
        # Its libraries end a process that forks, as Ansible does, once they have asked for a proxy.
        environment |= {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES", "no_proxy": "*"}
    return environment


def _fresh_folder(artifacts: Path, stem: str) -> Path:
    """Return a folder below `artifacts` that no earlier run has used."""
    artifacts.mkdir(parents=True, exist_ok=True)
    taken = len(list(artifacts.glob(f"{stem}-*")))
    number = taken + 1
    while (folder := artifacts.resolve() / f"{stem}-{number}").exists():
        number += 1
    return folder


def remove_leftovers() -> list[Path]:
    """Remove the private folders of runs that were killed, and return them.

    A folder that a process has in its command line is in use, and one made within the last minute
    may be about to be.
    """
    gone = []
    for path in _SHORT_TMP.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if ours and time.time() - status.st_mtime > 60 and not _processes(str(path)):
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path)
    return gone


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """Yield a short-named folder of the user's own; it goes afterwards."""
    base = _SHORT_TMP if os.access(_SHORT_TMP, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _end_processes(marker: str) -> None:
    """End every process with `marker` in its command line: politely, then with SIGKILL.

    SIGTERM has ansible-playbook end its workers and an SSH master close its connection.
    """
    deadline = time.monotonic() + 5.0
    while pids := _processes(marker):
        polite = time.monotonic() < deadline
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if polite else signal.SIGKILL)
        if time.monotonic() > deadline + 5.0:
            return
        time.sleep(0.05)


def _processes(marker: str) -> list[int]:
    """Return the ids of the processes with `marker` in their command line, without zombies."""
    if Path("/proc/self/cmdline").exists():
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    else:
        listing = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,stat=,args="],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout
        rows = [line.split(maxsplit=2) for line in listing.splitlines() if marker in line]
        found = [int(pid) for pid, state, *_ in rows if not state.startswith("Z")]
    return [pid for pid in found if pid != os.getpid()]
