# SPDX-License-Identifier: Apache-2.0
"""podman in namespaces of its own, on images that are built and kept, with nothing pulled."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from tests.lab.conftest import Done

_SUITE, BASE = "bookworm", "docker.io/library/debian:12"
# What podman keeps on the machine outside of the folders that it can be told.
_ITS_FOLDERS = ("/run/netns", "/run/runc", "/var/lib/cni", "/var/lib/containers")

# A machine that podman has for itself: its bridge, its mounts and its processes are there and
# nowhere else, and all of it goes with the first process, when its standard input ends.
_MACHINE = """
set -e
ip link set lo up
for folder in "$@" /dev/shm; do mount -t tmpfs hopbench "$folder"; done
echo ready
exec cat
"""


@dataclass
class Podman:
    """podman with storage and settings of its own, in namespaces of its own."""

    storage: Path
    folder: Path
    _holder: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Podman:
        self._write_settings()
        # Its database holds it to the folders that an earlier session gave it.
        shutil.rmtree(self.storage / "libpod", ignore_errors=True)
        self._made = [Path(each) for each in _ITS_FOLDERS if not Path(each).exists()]
        for each in self._made:
            each.mkdir(parents=True)
        self._cgroups = _cgroups()
        self._holder = subprocess.Popen(
            [
                *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", "-c", _MACHINE, "sh", *_ITS_FOLDERS),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(timeout=60)
        for each in reversed(self._made):
            each.rmdir()
        for each in sorted(_cgroups() - self._cgroups, reverse=True):
            each.rmdir()

    def _write_settings(self) -> None:
        def limit(kind: int) -> str:
            most = resource.getrlimit(kind)[1]
            most = 10_000 if most == resource.RLIM_INFINITY else min(most, 10_000)
            return f"{most}:{most}"

        (self.folder / "containers.conf").write_text(
            "[containers]\n"
            f'default_ulimits = ["nofile={limit(resource.RLIMIT_NOFILE)}",'
            f' "nproc={limit(resource.RLIMIT_NPROC)}"]\n'
            "[engine]\n"
            'runtime = "runc"\n'
            'cgroup_manager = "cgroupfs"\n'
            'events_logger = "none"\n'
            f'tmp_dir = "{self.folder}/tmp"\n'
            "[network]\n"
            f'network_config_dir = "{self.folder}/networks"\n'
        )
        (self.folder / "storage.conf").write_text(
            "[storage]\n"
            'driver = "overlay"\n'
            f'graphroot = "{self.storage}"\n'
            f'runroot = "{self.folder}/run"\n'
        )

    @property
    def environment(self) -> dict[str, str]:
        """What has podman use its own storage and settings."""
        return {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
        }

    @property
    def network(self) -> str:
        """The network namespace, as a path."""
        return f"/proc/{self._first()}/ns/net"

    def _first(self) -> int:
        pid = self._holder.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    def inside(
        self,
        *argv: str | Path,
        environment: dict[str, str] | None = None,
        online: bool = False,
        limit_s: float = 120.0,
    ) -> Done:
        """Run a program there. online: on the machine's own network, to install packages."""
        kinds = ["--mount", "--pid", *([] if online else ["--net"])]
        done = subprocess.run(
            ["nsenter", "--target", str(self._first()), *kinds, "--", *map(str, argv)],
            env={**os.environ, **self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def podman(self, *words: str | Path) -> str:
        """Run podman there and return its output."""
        done = self.inside("podman", *words)
        assert done.status == 0, done.stderr
        return done.stdout.strip()


def _cgroups() -> set[Path]:
    """Return podman's control groups; it removes those of containers and leaves their parent."""
    return {
        path
        for parent in Path("/sys/fs/cgroup").glob("**/libpod_parent")
        for path in (parent, *parent.rglob("*"))
        if path.is_dir()
    }


# --- the base image --------------------------------------------------------------------------


@contextlib.contextmanager
def cache_folder() -> Iterator[Path]:
    """Yield the folder of what is kept, to be used by one session at a time."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hopbench"
    # Packages of an image are as old as its base: a month at most.
    key = hashlib.sha256(f"{date.today():%Y-%m}\n{_SUITE}\n{_MAKE_BASE}".encode())
    for certificate in _certificates():
        key.update(certificate.read_bytes())
    folder = root / f"containers-{key.hexdigest()[:16]}"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "containers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for other in root.glob("containers-*"):
            if other != folder:
                shutil.rmtree(other)
        folder.mkdir(exist_ok=True)
        in_use = folder / "in-use"
        if in_use.exists():
            # Whoever was killed may have left containers in it, of which podman knows nothing now.
            shutil.rmtree(folder / "storage", ignore_errors=True)
        in_use.touch()
        yield folder
        in_use.unlink()


def _certificates() -> list[Path]:
    """Return the authorities that this machine trusts besides: a proxy to PyPI may need them."""
    return sorted(Path("/usr/local/share/ca-certificates").glob("*.crt"))


# $1: folder to work in, $2: suite, further: certificates. Sources, and that dpkg does not wait for
# the disk, are as in Debian's own image.
_MAKE_BASE = """
set -e
work=$1 suite=$2
shift 2
debootstrap --variant=minbase "$suite" "$work/root" >&2
for part in "debian $suite" "debian $suite-updates" "debian-security $suite-security"; do
	echo "deb http://deb.debian.org/$part main"
done >"$work/root/etc/apt/sources.list"
echo force-unsafe-io >"$work/root/etc/dpkg/dpkg.cfg.d/no-sync"
rm -f "$work"/root/var/cache/apt/archives/*.deb
mkdir -p "$work/root/usr/local/share/ca-certificates"
[ $# = 0 ] || cp "$@" "$work/root/usr/local/share/ca-certificates/"
tar --numeric-owner -C "$work/root" -cf "$work/base.tar" .
"""


def make_base(podman: Podman, cache: Path) -> Path:
    """Return the base image as an archive; made by debootstrap where the cache has none."""
    archive = cache / "base.tar"
    if not archive.exists():
        work = cache / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        arguments = (work, _SUITE, *_certificates())
        done = podman.inside("sh", "-c", _MAKE_BASE, "sh", *arguments, online=True, limit_s=600)
        assert done.status == 0, (done.stdout + done.stderr)[-3000:]
        (work / "base.tar").rename(archive)
        shutil.rmtree(work)
    return archive
