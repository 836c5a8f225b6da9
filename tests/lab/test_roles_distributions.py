# SPDX-License-Identifier: Apache-2.0
"""The roles on other distributions: fresh, half deployed, deployed, measured with, and undone.

HOPBENCH_DISTRIBUTIONS names them, `trixie` (Debian 13) by default; `trixie,noble` takes Ubuntu
24.04, too. Needs the network: packages come from the distribution's own archive.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import Done, bench
from tests.lab.distributions import Machines, machines

RELEASES = os.environ.get("HOPBENCH_DISTRIBUTIONS", "trixie").split(",")
# What apt and dpkg remember, and what packages' own scripts leave behind when they are purged:
# netbase makes /etc/hosts, nginx its page, ldconfig and apt their caches, tzdata takes
# /etc/localtime along.
LEFT = re.compile(
    r"/var/(cache|log|lib/(apt|dpkg|systemd/deb-systemd-helper-.*))(/.*)?"
    r"|/var/www(/.*)?|/etc/(hosts|ld\.so\.cache|localtime|passwd-|shadow-|group-|gshadow-)"
    # Of usrmerge's; and the folder that a kernel's modules would be in.
    r"|/s?bin\.usr-is-merged|/(usr/)?lib/modules"
)


@pytest.fixture(scope="module", params=RELEASES)
def fresh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machines]:
    """Hosts as they were installed, with nothing on them."""
    if shutil.which("debootstrap") is None:
        pytest.fail("needs debootstrap: run make test, which installs it")
    folder = tmp_path_factory.mktemp(request.param)
    with machines(f"on-{request.param}", request.param, folder, hops=2) as made:
        yield made


def deploy(hosts: Machines, *options: str, word: str = "deploy") -> Done:
    """Deploy, or undeploy; a first deploy may take its time for packages."""
    return bench(word, "-i", hosts.inventory, *options, limit_s=500)


def changes(done: Done) -> int:
    """Return how many tasks changed something, or would."""
    match = re.search(r"^(?:un)?deploy(?: --check)?: (\d+) changed", done.stdout, re.MULTILINE)
    assert done.status == 0 and match, done.stderr
    return int(match[1])


def different(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the paths that are not as they were."""
    return [
        path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)
    ]


def check_changes_nothing(hosts: Machines, word: str = "deploy", *options: str) -> int:
    """Run in check mode; return how much would change. Not a file and no setting does."""
    before = hosts.tree(), hosts.settings()
    would = changes(deploy(hosts, "--check", *options, word=word))
    after = hosts.tree(), hosts.settings()
    assert different(before[0], after[0]) == []
    assert before[1] == after[1]
    return would


def test_from_fresh_to_undeployed(fresh: Machines, tmp_path: Path) -> None:
    before, settings = fresh.tree(), fresh.settings()
    assert "/usr/bin/python3" not in before

    # Fresh: it says what would change, and the doctor that there is nothing to look with.
    done = bench("doctor", "-i", fresh.inventory)
    assert "PROBLEM hop1: there is no /usr/bin/python3 (run bench deploy)" in done.stdout
    assert check_changes_nothing(fresh) >= 3

    # Without permission to use another kernel's headers: refused, with the way out.
    done = deploy(fresh)
    assert done.status == 1
    assert "client: install kernel headers: no headers package for kernel" in done.error
    assert "hopbench_headers_link=true" in done.error

    # Half deployed.
    assert check_changes_nothing(fresh) >= 5

    # With permission. No kernel, and no compiler for modules, comes with the headers.
    with fresh.inventory.open("a") as inventory:
        inventory.write("hopbench_headers_link=true\n")
    done = deploy(fresh)
    assert changes(done) >= 5
    assert "because no package has those of kernel" in done.stderr
    installed = fresh.inside("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n")
    names = {line.split()[0] for line in installed.splitlines() if line.endswith(" installed")}
    assert {"nginx", "siege", "socat", "python3-bpfcc", "python3-nftables"} <= names
    unwanted = re.compile(r"linux-(image|headers|kbuild)-.*|gcc(-\d+)?|systemd")
    assert not [name for name in names if unwanted.fullmatch(name)]
    full = fresh.tree()
    # No service of what was installed starts at the next boot, and nothing of /root is touched.
    enabled = [path for path in full if re.match(r"/etc/systemd/system/.*\.wants/.*", path)]
    assert set(enabled) == {path for path in before if path in enabled}
    assert [path for path in different(before, full) if path.startswith("/root")] == []

    # Deployed.
    assert check_changes_nothing(fresh) == 0
    assert changes(deploy(fresh)) == 0
    assert different(full, fresh.tree()) == []

    # What they are for.
    done = bench("doctor", "-i", fresh.inventory, "--json")
    assert [each for each in json.loads(done.stdout) if each["level"] == "problem"] == []
    done = bench(
        *("run", "-i", fresh.inventory, "--mode", "direct,socat,nft,xdp", "--size", "624"),
        *("--blocks", "1", "--requests", "20", "--output", tmp_path),
    )
    assert done.status == 0, done.stderr
    assert "No request failed." in done.stdout

    # Undone: the files of before, but for what packages themselves leave.
    assert check_changes_nothing(fresh, "undeploy", "--packages") >= 4
    assert changes(deploy(fresh, "--packages", word="undeploy")) >= 4
    after = fresh.tree()
    assert [path for path in different(before, after) if not LEFT.fullmatch(path)] == []
    assert fresh.settings() == settings

    # Where nginx was there before, and starts with the machine, it stays so.
    policy = fresh.root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    options = ("-qq", "-y", "--no-download", "--no-install-recommends")
    fresh.inside("apt-get", "install", *options, "nginx")
    policy.unlink()
    theirs = fresh.tree()
    assert "/etc/systemd/system/multi-user.target.wants/nginx.service" in theirs
    done = deploy(fresh)
    assert changes(done) >= 5
    assert "nginx" not in re.findall(r"missing: (.*)", done.stderr)[-1].split()
    changes(deploy(fresh, "--packages", word="undeploy"))
    after = fresh.tree()
    assert [path for path in different(theirs, after) if not LEFT.fullmatch(path)] == []
