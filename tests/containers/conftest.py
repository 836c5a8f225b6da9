# SPDX-License-Identifier: Apache-2.0
"""A chain of podman's containers in namespaces of its own, and that nothing is left of it.

The images are built by the Containerfiles, on a base that debootstrap makes: nothing is pulled.
Base and image layers are kept in $XDG_CACHE_HOME/hopbench for the next session.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import copy_checkout
from tests.conftest import missing
from tests.containers.engine import BASE, Podman, cache_folder, make_base
from tests.lab.conftest import Done, differences, machine

_HERE = Path(__file__).parent
HOPS = 2
_TOOLS = ("podman", "runc", "conmon", "debootstrap", "iptables", "nsenter", "ssh-keygen")


def _lacking() -> str | None:
    """Return why there can be no containers here, or None."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    absent = [tool for tool in _TOOLS if shutil.which(tool, path=path) is None]
    if absent:
        return f"needs {', '.join(absent)}"
    return missing()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them where there can be no containers."""
    ours = [item for item in items if _HERE in item.path.parents]
    reason = _lacking() if ours else None
    for item in ours:
        item.add_marker(pytest.mark.lab)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


# --- the chain -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    """A checkout whose containers/chain.sh and bench are run, and the podman they meet."""

    checkout: Path
    engine: Podman

    @property
    def folder(self) -> Path:
        """Inventory, key and known_hosts of the chain."""
        return self.checkout / ".containers"

    @property
    def inventory(self) -> Path:
        """The inventory that chain.sh wrote."""
        return self.folder / "containers.ini"

    def chain(
        self, *words: str, online: bool = False, limit_s: float = 120.0, **variables: str
    ) -> Done:
        """Run containers/chain.sh. variables: of its environment."""
        # podman's own way to isolate a build needs more than every machine that tests has.
        options = {"ENGINE": "podman", "BUILD_OPTIONS": "--isolation chroot --network host"}
        options |= variables
        script = self.checkout / "containers" / "chain.sh"
        return self.engine.inside(
            "sh", script, *words, environment=options, online=online, limit_s=limit_s
        )

    def bench(self, *words: str | Path, limit_s: float = 180.0) -> Done:
        """Run bench on podman's machine, outside of all containers."""
        done = subprocess.run(
            [
                *("nsenter", f"--net={self.engine.network}", "--", sys.executable, "-m", "bench"),
                *map(str, words),
            ],
            cwd=self.checkout,
            env={
                **os.environ,
                "PYTHONPATH": str(self.checkout),
                "XDG_STATE_HOME": str(self.checkout / "state"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def on(self, host: str, *argv: str) -> str:
        """Run a program in a host's container, by the engine."""
        return self.engine.podman("exec", f"hopbench-{host}", *argv)


def _require(done: Done) -> None:
    # What went wrong is said last.
    assert done.status == 0, (done.stdout + done.stderr)[-3000:]


def ports(engine: Podman) -> list[dict[str, Any]]:
    """Return the links that are ports of a bridge, as `ip` describes them."""
    links = json.loads(engine.inside("ip", "-json", "link").stdout)
    return [link for link in links if "master" in link]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Both images, as `chain.sh build` makes them, and a podman that has nothing else."""
    before = machine()
    # Names with a space are names, too.
    checkout = tmp_path_factory.mktemp("containers") / "a clone"
    copy_checkout(checkout)
    with cache_folder() as cache:
        with Podman(cache / "storage", tmp_path_factory.mktemp("podman")) as engine:
            if engine.inside("podman", "image", "exists", BASE).status:
                engine.podman("import", make_base(engine, cache), BASE)
            chain = Chain(checkout, engine)
            _require(chain.chain("build", online=True, limit_s=600))
            engine.podman("image", "prune", "--force")
            yield chain
            assert engine.podman("ps", "--all", "--quiet") == ""
        # An overlay's own mount was in the namespace that has gone.
        assert str(cache) not in Path("/proc/self/mounts").read_text()
    assert differences(before) == {}


@pytest.fixture(scope="session")
def chain(images: Chain) -> Iterator[Chain]:
    """A chain of client, two hops and server, before anything was deployed."""
    _require(images.chain("up", "--hops", str(HOPS)))
    try:
        yield images
    finally:
        done = images.chain("down")
    _require(done)
    assert not images.folder.exists()
    assert ports(images.engine) == []
    assert "hopbench" not in images.engine.podman("network", "ls", "--format", "{{.Name}}")
