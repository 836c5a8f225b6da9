# SPDX-License-Identifier: Apache-2.0
"""No password, passphrase or key gets into anything that is kept, printed, or shown to other users.

Every way that an inventory has to give one is used at once, by whole commands over real SSH.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from bench.lab.model import Lab
from tests.lab.conftest import Done, bench
from tests.lab.sshd import USER, Site, agent, keygen, public, site

pytestmark = pytest.mark.skipif(shutil.which("sudo") is None, reason="needs sudo")

HOSTS = ("hyg-sec", 1)
NAMES = ("client", "hop1", "server")
# Letters and hyphens: however a file is encoded, they look the same in it.
LOGIN, ROOT = "hb-Secret-Of-Login", "hb-Secret-Of-Root"
PASSPHRASE, VAULT = "hb-Secret-Of-Key", "hb-Secret-Of-Vault"
PROXY, WRONG = "hb-Secret-Of-Proxy", "hb-Secret-That-Is-Wrong"
_TEMPORARY = (Path("/tmp"), Path("/dev/shm"), Path("/var/tmp"))
_HOST = (Path("/run/hopbench-offloads"), Path("/var/lib/hopbench"))


def crypted(password: str) -> str:
    """Return what /etc/shadow has of a password."""
    command = ["perl", "-e", "chomp($_ = <STDIN>); print crypt($_, '$6$hopbench$')"]
    return subprocess.run(
        command, input=password, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def servers(hosts: Lab) -> Iterator[Site]:
    """Servers that want passwords, but for one that wants a key."""
    with site(hosts) as made:
        # Of their own: no other test's deploy comes between.
        (made.folder / "opt").mkdir(mode=0o755)
        shadow = made.folder / "shadow"
        kept = [
            line
            for line in shadow.read_text().splitlines()
            if line.split(":")[0] not in ("root", USER)
        ]
        new = [
            f"{name}:{crypted(word)}:19000:0:99999:7:::"
            for name, word in (("root", ROOT), (USER, LOGIN))
        ]
        shadow.write_text("\n".join([*kept, *new, ""]))
        key = keygen(made.folder / "locked", "-N", PASSPHRASE)
        (made.folder / "authorized_keys").write_text(public(key) + "\n")
        made.sshd_config("key")
        made.sshd_config("password", PasswordAuthentication="yes", PubkeyAuthentication="no")
        for name in NAMES:
            made.serve(name, "key" if name == "server" else "password")
        made.ssh_config()
        made.known_hosts(*(made.address(name) for name in NAMES))
        yield made


@pytest.fixture(scope="module")
def inventory(servers: Site) -> Iterator[Path]:
    """An inventory that gives its secrets in as many ways as there are."""
    folder = servers.folder
    own = {
        "client": f"ansible_ssh_pass={LOGIN} ansible_become_pass={LOGIN}",
        "hop1": f"ansible_password={LOGIN} ansible_become_method=su ansible_su_pass={ROOT}",
        "server": f"ansible_private_key_file={folder}/locked",
    }
    # The namespace is the root's, which has no way to the hosts: what goes there is in the command.
    proxy = f"env TOKEN={PROXY} ip netns exec {servers.namespace('client')} socat - TCP:%h:%p"
    lines = [
        *("[client]", f"client data_ip={servers.address('client')} {own['client']}"),
        *("[hops]", f"hop1 data_ip={servers.address('hop1')} {own['hop1']}"),
        *("[server]", f"server data_ip={servers.address('server')} {own['server']}"),
        *("[all:vars]", "data_nic=eth0", f"ansible_user={USER}", "ansible_host={{ data_ip }}"),
        f"ansible_ssh_common_args='-F {folder}/ssh_config -o \"ProxyCommand={proxy}\"'",
        *("hopbench_headers_link=true", ""),
    ]
    file = folder / "inventory.ini"
    file.write_text("\n".join(lines))
    vault = VaultLib([("default", VaultSecret(VAULT.encode()))]).encrypt(LOGIN).decode()
    text = "\n  ".join(["ansible_become_password: !vault |", *vault.splitlines()])
    (folder / "host_vars").mkdir()
    (folder / "host_vars" / "server.yml").write_text(text + "\n")
    (folder / "vault-password").write_text(VAULT)
    (folder / "vault-password").chmod(0o600)
    before = os.environ.get("SSH_AUTH_SOCK")
    with agent((folder / "locked", PASSPHRASE)) as path:
        os.environ |= {
            "SSH_AUTH_SOCK": path,
            "ANSIBLE_VAULT_PASSWORD_FILE": str(folder / "vault-password"),
        }
        yield file
        del os.environ["ANSIBLE_VAULT_PASSWORD_FILE"], os.environ["SSH_AUTH_SOCK"]
        if before is not None:
            os.environ["SSH_AUTH_SOCK"] = before


# --- where secrets could be ------------------------------------------------------------------


def secrets(servers: Site) -> list[bytes]:
    """Return all that nobody is to see, private keys too."""
    keys = [(servers.folder / name).read_text().splitlines()[2] for name in ("id", "locked")]
    words = [LOGIN, ROOT, PASSPHRASE, VAULT, PROXY, WRONG, *keys]
    return [each.encode() for each in words]


def entries() -> set[Path]:
    """Return what is in the folders for temporary files, but for what tests have there.

    Those have sites of servers and SSH agents, where the secrets come from.
    """
    found = {path for folder in _TEMPORARY for path in folder.iterdir()}
    return {path for path in found if not path.name.startswith(("hb-", "pytest-"))}


def files(places: Iterable[Path]) -> Iterator[Path]:
    """Yield files, and those that are in folders."""
    for place in places:
        yield place
        for folder, _, names in os.walk(place):
            yield from (Path(folder, name) for name in names)


def holding(found: Iterable[Path], words: list[bytes]) -> Iterator[Path]:
    """Yield the files that have any of these words in them, or in their names."""
    for file in found:
        with contextlib.suppress(OSError):
            if stat.S_ISREG(file.lstat().st_mode) and file.lstat().st_size < 1 << 24:
                text = os.fsencode(file) + b"\n" + file.read_bytes()
                if any(word in text for word in words):
                    yield file


_BEFORE = entries()


class Watch:
    """Looks at what other users could see while a command runs."""

    def __init__(self, servers: Site) -> None:
        # The command of a way to a host is on ssh's command line, as its owner wants it.
        self._words = [word for word in secrets(servers) if word != PROXY.encode()]
        self._before = entries()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: set[str] = set()
        self.looks = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.03):
            self.looks += 1
            for entry in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        text = (entry / name).read_bytes()
                        if any(word in text for word in self._words):
                            self.seen.add(f"{name} of {text.partition(bytes(1))[0]!r}")
            for file in holding(files(entries() - self._before), self._words):
                with contextlib.suppress(OSError):
                    folders = [file, *file.parents]
                    if all(each.stat().st_mode & 0o077 for each in folders[:-2]):
                        self.seen.add(str(file))


def kept(servers: Site, results: Path) -> list[Path]:
    """Return the files in which a secret is, of all that commands have left."""
    state = Path(os.environ["XDG_STATE_HOME"])
    assert any(state.rglob("artifacts/*/job_events/*.json"))
    opt = servers.folder / "opt"
    assert (opt / "hopbench" / "hop" / "serve.py").exists()
    logs = servers.folder.glob("*.log")
    places = (results, state, opt, *logs, *_HOST, *(entries() - _BEFORE))
    return list(holding(files(places), secrets(servers)))


def run(servers: Site, *arguments: str | Path, status: int = 0) -> Done:
    """Run a command while it is watched; nothing it prints is secret."""
    with Watch(servers) as watch:
        done = bench(*arguments)
    assert done.status == status, done.stderr
    assert watch.looks > 5
    assert watch.seen == set()
    output = (done.stdout + done.stderr).encode()
    assert [word for word in secrets(servers) if word in output] == []
    return done


@pytest.fixture(scope="module", autouse=True)
def _deployed(servers: Site, inventory: Path) -> Iterator[None]:
    run(servers, "deploy", "-i", inventory)
    yield
    run(servers, "undeploy", "-i", inventory)
    assert list((servers.folder / "opt").iterdir()) == []


def test_a_run(servers: Site, inventory: Path, tmp_path: Path) -> None:
    words = ("--mode", "nft", "--hops", "1", "--size", "624", "--blocks", "1")
    run(servers, "run", "-i", inventory, *words, "--output", tmp_path / "results")
    assert any((tmp_path / "results").rglob("raw/**/*"))
    assert kept(servers, tmp_path / "results") == []


def test_looking_and_cleaning(servers: Site, inventory: Path, tmp_path: Path) -> None:
    run(servers, "doctor", "-i", inventory, "--json")
    run(servers, "clean", "-i", inventory)
    assert kept(servers, tmp_path) == []


@pytest.mark.parametrize("variable", ["ansible_become_pass", "ansible_ssh_pass"])
def test_what_is_refused(servers: Site, inventory: Path, tmp_path: Path, variable: str) -> None:
    """Also a secret that is wrong, and by Fabric as well as by Ansible."""
    wrong = inventory.with_name("wrong.ini")
    wrong.write_text(inventory.read_text().replace(f"{variable}={LOGIN}", f"{variable}={WRONG}"))
    for command in ("deploy", "clean"):
        assert "client: " in run(servers, command, "-i", wrong, status=1).stderr
    assert kept(servers, tmp_path) == []


def test_it_would_be_found(servers: Site, tmp_path: Path) -> None:
    """Secrets that are where they must not be, each seen by what looks for it."""
    (tmp_path / "log").write_text(f"password={LOGIN}\n")
    (tmp_path / f"{ROOT}.txt").write_text("")
    assert len(list(holding(files([tmp_path]), secrets(servers)))) == 2
    script = "echo $0 >/dev/shm/hopbench-test; sleep 2; rm /dev/shm/hopbench-test"
    with Watch(servers) as watch:
        subprocess.run(
            ["sh", "-c", script, PASSPHRASE],
            env={**os.environ, "TOKEN": VAULT},
            umask=0o022,
            check=True,
        )
    assert any(each.startswith("cmdline") for each in watch.seen)
    assert any(each.startswith("environ") for each in watch.seen)
    assert "/dev/shm/hopbench-test" in watch.seen
