# SPDX-License-Identifier: Apache-2.0
"""Hosts of other distributions: a lab whose namespaces have a root file system of their own.

Debian 13 or Ubuntu 24.04 as `debootstrap` makes them, without Python and without package lists.
SSH to a host of the lab ends in there; its kernel is this machine's. A proxy in each namespace is
its way to the archive, as on many networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.lab.lifecycle import EphemeralLab
from bench.lab.model import Lab
from tests.lab.links import in_namespace

PROXY_PORT = 3142
_DEBOOTSTRAP_LIMIT_S = 400
_SCRIPTS = Path("/usr/share/debootstrap/scripts")
# What changes without anybody's doing.
_VOLATILE = ("proc", "sys", "dev", "tmp", "run", "mnt")
_ENTER = """\
set -e
# sshd wants a folder that nobody else could have written to, which one below /tmp is not.
mount --bind "$1" /mnt
mount -t proc proc /mnt/proc
mount -t sysfs sysfs /mnt/sys
mount --rbind /dev /mnt/dev
exec /usr/sbin/sshd -i -f "$2" -o ChrootDirectory=/mnt
"""


@dataclass(frozen=True)
class Distribution:
    """Where a release comes from. script: what debootstrap knows the release by, if it is newer."""

    archive: str
    components: str
    script: str
    keyring: str


DISTRIBUTIONS = {
    "trixie": Distribution(
        "http://deb.debian.org/debian",
        "main",
        "trixie",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ),
    "noble": Distribution(
        "http://archive.ubuntu.com/ubuntu",
        "main,universe",
        "gutsy",
        "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    ),
}


@dataclass(frozen=True)
class Machines:
    """A lab on a root file system of its own, and the inventory that leads there."""

    lab: Lab
    root: Path
    inventory: Path

    def inside(self, *argv: str) -> str:
        """Run a program on the file system, in no namespace of the lab's; return its output."""
        command = ["chroot", str(self.root), *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr or done.stdout
        return done.stdout

    def tree(self) -> dict[str, str]:
        """Return {path: what it is} of every file: mode, owner and content, or a link's target."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if name.split("/")[0] in _VOLATILE and "/" in name:
                continue
            status = path.lstat()
            said = f"{status.st_mode:o} {status.st_uid}:{status.st_gid}"
            if path.is_symlink():
                said += f" -> {path.readlink()}"
            elif path.is_file():
                said += " " + hashlib.sha256(path.read_bytes()).hexdigest()
            found["/" + name] = said
        return found

    def settings(self) -> str:
        """Return the settings of every NIC of the lab's hosts, and of the hosts themselves."""
        command = "cd /proc/sys/net && grep -rs . ipv4/conf ipv6/conf ipv4/ip_forward || :"
        return "".join(
            subprocess.run(
                ["ip", "netns", "exec", self.lab.namespace(host.name), "sh", "-c", command],
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout
            for host in self.lab.hosts
        )


def make_root(name: str, root: Path) -> None:
    """Make a root file system with the least there is."""
    release = DISTRIBUTIONS[name]
    signed = Path(release.keyring).exists()
    command = [
        *("debootstrap", "--variant=minbase", f"--components={release.components}"),
        f"--keyring={release.keyring}" if signed else "--no-check-gpg",
        *(name, str(root), release.archive, str(_SCRIPTS / release.script)),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_DEBOOTSTRAP_LIMIT_S, check=False
    )
    assert done.returncode == 0, f"debootstrap {name} failed:\n{done.stdout[-2000:]}{done.stderr}"
    # It is thrown away when the tests end: nothing of it need outlive a loss of power.
    (root / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
    # As an administrator would have left it: the way to the archive, and no package lists yet.
    configuration = root / "etc/apt/apt.conf.d/90proxy"
    configuration.write_text(f'Acquire::http::Proxy "http://127.0.0.1:{PROXY_PORT}";\n')
    for path in (root / "var/lib/apt/lists").rglob("*_*"):
        path.unlink()


# --- the way to the archive -------------------------------------------------------------------


class _Fetch(BaseHTTPRequestHandler):
    """Answers a request for an absolute address with what is there."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        headers = {
            name: self.headers[name]
            for name in ("If-Modified-Since", "If-Range", "Range")
            if name in self.headers
        }
        request = urllib.request.Request(self.path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, said, body = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, said, body = error.code, error.headers, error.read()
        except (OSError, http.client.HTTPException) as error:
            # apt tries again after this one.
            self.send_error(502, str(error))
            return
        self.send_response(status)
        for name in ("Last-Modified", "Content-Range", "Content-Type"):
            if said.get(name):
                self.send_header(name, said[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def _proxy(namespace: str) -> Iterator[None]:
    """Serve on the namespace's loopback; this process's own namespace is where it fetches from."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Fetch, bind_and_activate=False)
    server.socket.close()
    with in_namespace(namespace):
        server.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.socket.bind(("127.0.0.1", PROXY_PORT))
    server.socket.listen(16)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- hosts ------------------------------------------------------------------------------------


@contextlib.contextmanager
def machines(name: str, release: str, folder: Path, *, hops: int) -> Iterator[Machines]:
    """A lab of that name whose hosts' file system is a release's."""
    root = folder / release
    make_root(release, root)
    with EphemeralLab(hops, name=name) as lab:
        enter = folder / "enter.sh"
        enter.write_text(_ENTER)
        way_in = f"ip netns exec {lab.namespace('%h')} sh {enter} {root} {lab.folder}/sshd_config"
        ssh = (lab.folder / "ssh_config").read_text().splitlines()
        ssh = [line for line in ssh if "ProxyCommand" not in line] + [f"  ProxyCommand {way_in}"]
        configuration = folder / "ssh_config"
        configuration.write_text("\n".join(ssh) + "\n")
        inventory = folder / "inventory.ini"
        inventory.write_text(
            lab.inventory.read_text()
            .replace(f"{lab.folder}/ssh_config", str(configuration))
            .replace("hopbench_headers_link=true\n", "")
        )
        with contextlib.ExitStack() as stack:
            for host in lab.hosts:
                namespace = lab.namespace(host.name)
                up = ["ip", "-n", namespace, "link", "set", "lo", "up"]
                subprocess.run(up, check=True, timeout=10)
                stack.enter_context(_proxy(namespace))
            yield Machines(lab, root, inventory)
