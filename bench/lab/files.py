# SPDX-License-Identifier: Apache-2.0
"""The files of a lab: state, SSH keys and configuration, inventory, and the lock over all labs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import paths
from bench.errors import BenchError
from bench.lab.model import LOOPBACK_HOST, NIC, Lab
from bench.owner import Owner

_SSHD = "/usr/sbin/sshd"
_PRIVSEP = Path("/run/sshd")  # sshd refuses to start without it


def _require_own(folder: Path) -> None:
    """Raise BenchError for a folder of labs in which anybody else may have written.

    Commands of what is in there run as root.
    """
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not own or found.st_mode & 0o022:
        raise BenchError(f"{folder} is not a folder of root's alone", remedy="remove it")


@contextlib.contextmanager
def all_labs_locked() -> Iterator[None]:
    """Hold the lock under which labs are made and removed; leaves no empty folder behind."""
    folder = paths.runtime_dir()
    _require_own(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_path = folder / ".lock"
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if {entry.name for entry in folder.iterdir()} == {".lock"}:
                lock_path.unlink()
                folder.rmdir()


def write_state(lab: Lab, *, owner: Owner | None) -> None:
    """Record the lab before anything of it exists, so that a later command can remove it.

    owner: the process an ephemeral lab belongs to; None for one that stays.
    """
    lab.folder.mkdir(mode=0o700, parents=True)
    made_privsep = False
    if not _PRIVSEP.exists():
        _PRIVSEP.mkdir(mode=0o755)
        made_privsep = True
    state = {
        "index": lab.index,
        "hops": lab.hops,
        "wire": lab.wire,
        "family": lab.family,
        "owner": owner and owner.text,
        "made_privsep": made_privsep,
    }
    (lab.folder / "lab.json").write_text(json.dumps(state) + "\n")


def read_state(name: str) -> tuple[Lab, Owner | None] | None:
    """Return (lab, owner) for a name, or None when no such lab is recorded."""
    file = paths.runtime_dir() / name / "lab.json"
    try:
        state = json.loads(file.read_text())
        # A lab made before there was a choice is IPv4.
        family = state.get("family", 4)
        if family not in (4, 6):
            raise ValueError(f"family {family!r}")
        lab = Lab(name, int(state["index"]), int(state["hops"]), state["wire"], family)
        said = state.get("owner")
        owner = None if said is None else Owner.parse(str(said))
        if said is not None and owner is None:
            raise ValueError(f"owner {said!r}")
        return lab, owner
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{file} is damaged: {error}", remedy="remove it and its folder") from None


def lab_names() -> list[str]:
    """Return the names of all recorded labs."""
    if os.geteuid() == 0:
        _require_own(paths.runtime_dir())
    try:
        entries = sorted(paths.runtime_dir().iterdir())
    except FileNotFoundError:
        return []
    except PermissionError:
        raise BenchError("only root may look at labs", remedy="run as root") from None
    return [entry.name for entry in entries if (entry / "lab.json").exists()]


def remove(lab: Lab) -> None:
    """Remove the lab's folder, and /run/sshd where a lab made it and no lab is left."""
    made = False
    with contextlib.suppress(OSError, ValueError):
        made = bool(json.loads((lab.folder / "lab.json").read_text()).get("made_privsep"))
    shutil.rmtree(lab.folder, ignore_errors=True)
    if not made:
        return
    others = lab_names()
    if others:
        # Pass the duty on.
        heir = paths.runtime_dir() / others[0] / "lab.json"
        state = json.loads(heir.read_text())
        heir.write_text(json.dumps({**state, "made_privsep": True}) + "\n")
    else:
        with contextlib.suppress(OSError):
            _PRIVSEP.rmdir()


def write_ssh(lab: Lab) -> None:
    """Make the lab's keys, known_hosts, sshd_config and ssh_config."""
    folder = lab.folder
    for key in ("host_key", "id_ed25519"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hopbench", "-f", folder / key],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )
    host_key = (folder / "host_key.pub").read_text().split()[:2]
    names = ",".join([*(host.name for host in lab.hosts), LOOPBACK_HOST])
    (folder / "known_hosts").write_text(f"{names} {' '.join(host_key)}\n")
    shutil.copyfile(folder / "id_ed25519.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\n"
        f"UsePAM {'yes' if _root_is_locked() else 'no'}\n"
        "PidFile none\n"
        "PermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "PrintMotd no\n"
        "MaxSessions 100\n"
        "Subsystem sftp internal-sftp\n"
    )
    (folder / "ssh_config").write_text(
        "Host *\n"
        "  User root\n"
        f"  IdentityFile {folder}/id_ed25519\n"
        "  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n"
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        # No daemon, no port and no management network: sshd serves this one connection.
        f"  ProxyCommand ip netns exec {lab.namespace('%h')} {_SSHD} -i -f {folder}/sshd_config\n"
    )
    for file in folder.iterdir():
        file.chmod(0o600)


def _root_is_locked() -> bool:
    """Without PAM, sshd refuses an account whose password field begins with `!`."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/shadow").read_text().splitlines():
            fields = line.split(":")
            if fields[0] == "root":
                return fields[1].startswith("!")
    return False


def inventory_text(lab: Lab) -> str:
    """Return the lab's Ansible inventory."""
    client, *hops, server = lab.hosts

    def line(name: str, ip: str) -> str:
        return f"{name} data_ip={ip}"

    sections = [
        f"# The lab {lab.name!r}: every host is a network namespace of this machine.",
        "[client]",
        line(client.name, client.data_ip),
        "",
        "[hops]",
        *(line(hop.name, hop.data_ip) for hop in hops),
        "",
        "[server]",
        line(server.name, server.data_ip),
        "",
        "[all:vars]",
        f"data_nic={NIC}",
        "ansible_user=root",
        "ansible_python_interpreter=/usr/bin/python3",
        f"ansible_ssh_common_args='-F {lab.folder}/ssh_config'",
        "# BCC needs kernel headers; a lab may link to those of another kernel when none match.",
        "hopbench_headers_link=true",
        "",
    ]
    return "\n".join(sections)


def write_inventory(lab: Lab) -> None:
    """Write the inventory beside the keys it names."""
    lab.inventory.write_text(inventory_text(lab))
    lab.inventory.chmod(0o600)
