# SPDX-License-Identifier: Apache-2.0
"""What root reads and writes on a host is root's alone, also where somebody was there before.

Each test has /opt, /run and /var/lib of its own, in a mount namespace that ends with it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.lab.conftest import REPOSITORY

FILES = REPOSITORY / "ansible" / "roles" / "common" / "files"
SYSCTL = REPOSITORY / "ansible" / "roles" / "hop" / "files" / "sysctl.sh"
RECORDS = REPOSITORY / "bench" / "hop" / "offload_records.py"
SOURCES = base64.b64encode(zlib.compress(json.dumps({"hop": {"a.py": "a"}}).encode())).decode()


def alone(script: str, *arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script of sh's with a umask of 0, over empty folders that nobody else sees."""
    mounts = "for folder in /opt /run /var/lib; do mount -t tmpfs none $folder; done; umask 0; "
    return subprocess.run(
        [
            *("unshare", "--mount", "--net", "--propagation", "private", "sh", "-euc"),
            *(mounts + script, "sh", *map(str, arguments)),
        ],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )


# What somebody else owns or may write to, below the folders named.
STRANGE = r"; find /opt /run/* /var/lib -mindepth 1 ! -type l \( ! -user 0 -o -perm /022 \)"


def install(before: str = "true", after: str = "true") -> subprocess.CompletedProcess[str]:
    """Install sources and folders after one script and before another."""
    program = f'{before}; "$1" -I "$2" /opt/hopbench state client server; {after}'
    return alone(program + STRANGE, sys.executable, FILES / "install_tree.py", text=SOURCES)


# --- what is installed -----------------------------------------------------------------------


def test_what_is_installed_is_roots_alone_whatever_the_umask() -> None:
    done = install(after="test -e /opt/hopbench/hop/a.py -a -d /opt/hopbench/state")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("changed: ")


@pytest.mark.parametrize(
    ("plant", "gone"),
    [
        ("mkdir -p /opt/hopbench/state; chown -R 65534 /opt/hopbench", ""),
        (
            "mkdir -p $s; echo evil >$s/packages; chown 65534 $s/packages; chmod 644 $s/packages",
            "y",
        ),
        ("mkdir -p $s; echo evil >$s/packages; chmod 666 $s/packages", "y"),
        ("mkdir -p $s; chown 65534 $s; ln -s /etc/shadow $s/packages; chown -h 65534 $s/*", "y"),
        ("mkdir -p $s/deep; echo evil >$s/deep/packages; chown -R 65534 $s/deep", "y"),
        ("mkdir /run/mine; chown 65534 /run/mine; ln -s /run/mine /opt/hopbench", ""),
        ("mkdir -p /opt/hopbench /run/mine; ln -s /run/mine /opt/hopbench/state", ""),
    ],
    ids=["owner", "file", "writable", "link", "folder", "linked root", "linked folder"],
)
def test_what_somebody_else_has_put_there_goes(plant: str, gone: str) -> None:
    after = "ls -AR /opt/hopbench/state; test ! -L /opt/hopbench; rm -rf /run/mine"
    done = install(f"umask 22; s=/opt/hopbench/state; {plant}; umask 0", after)
    assert done.returncode == 0, done.stderr
    first, listed = done.stdout.splitlines()[0], done.stdout.splitlines()[1:]
    assert first.startswith("changed: ")
    assert [line for line in listed if line] == ["/opt/hopbench/state:"], done.stdout
    assert not gone or "/opt/hopbench/state/" in first


def test_what_root_has_put_there_stays() -> None:
    plant = (
        "umask 22; mkdir -p /opt/hopbench/state; echo socat >/opt/hopbench/state/packages; umask 0"
    )
    done = install(plant, "cat /opt/hopbench/state/packages")
    assert done.stdout.splitlines()[1:] == ["socat"], done.stderr


def test_payloads_are_roots_alone() -> None:
    program = (
        'make() { "$1" -m bench.hop payloads /opt/p; };'
        'make "$1"; chown -R 65534 /opt/p; make "$1"; make "$1"'
    )
    done = alone(program + STRANGE, sys.executable)
    assert (done.stdout.splitlines(), done.returncode) == (
        ["changed", "changed", "unchanged"],
        0,
    ), done.stderr


# --- records ---------------------------------------------------------------------------------


def test_records_are_roots_alone_whatever_the_umask() -> None:
    script = (
        "ip link set lo up; mkdir /opt/hopbench; sh $1 set hop1 4 lo >&2;"
        "sh $2 before /var/lib/hopbench/packages; sh $2 after /var/lib/hopbench/packages;"
        "chmod go-w /opt/hopbench; ls /opt/hopbench/state/sysctl /var/lib/hopbench"
    )
    # dpkg's own list is below /var/lib: of an empty one every package is new.
    done = alone(script + STRANGE, SYSCTL, FILES / "packages.sh")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "/" in line and line[-1] != ":"] == []
    assert "hop1." in done.stdout and "packages" in done.stdout


@pytest.mark.parametrize(
    "plant", ["chown 65534 $r", "chmod 666 $r", "chmod 777 $d", "chown 65534 $d"]
)
def test_settings_that_somebody_else_has_recorded_are_not_put_back(plant: str) -> None:
    """A record names files that root writes to."""
    script = (
        "d=/opt/hopbench/state/sysctl; mkdir -p /opt/hopbench/state; "
        "chmod 755 /opt/hopbench /opt/hopbench/state;"
        "r=$d/hop1.$(readlink /proc/self/ns/net | tr -cd 0-9); d=$(dirname $(dirname $r));"
        "mkdir -m 755 $d/sysctl; echo made >/opt/target;"
        '{ echo "boot $(cat /proc/sys/kernel/random/boot_id)"; echo "/opt/target evil made"; } >$r;'
        "chmod 644 $r; PLANT; sh $1 restore hop1; cat /opt/target"
    )
    spoiled = alone(script.replace("PLANT", plant), SYSCTL)
    assert spoiled.stdout.split() == ["hopbench-sysctl", "unchanged", "made"], spoiled.stderr
    own = alone(script.replace("PLANT", "true"), SYSCTL)
    assert own.stdout.split() == ["hopbench-sysctl", "changed", "evil"], own.stderr


def test_headers_that_somebody_else_has_recorded_are_not_removed() -> None:
    script = (
        "mkdir -m 755 /var/lib/hopbench; mkdir /opt/mine; r=/var/lib/hopbench/headers-link;"
        "echo 'tree /opt/mine' >$r; chown 65534 $r; chmod 644 $r;"
        "sh $1 --unlink --record $r || true; chown 0 $r; sh $1 --unlink --record $r; ls /opt"
    )
    done = alone(script, FILES / "kernel-headers.sh")
    assert "headers-link may have been written by others: remove it" in done.stderr
    # Root's own: only the one folder that is ever made is removed.
    assert done.stdout.split() == ["unchanged", "mine"], done.stderr


def test_packages_that_somebody_else_has_recorded_stay() -> None:
    script = (
        "mkdir -m 755 /var/lib/hopbench; r=/var/lib/hopbench/packages; echo coreutils >$r;"
        "chown 65534 $r; chmod 644 $r; sh $1 remove --check $r"
    )
    done = alone(script, FILES / "packages.sh")
    assert done.stdout == "kept: /var/lib/hopbench/packages may have been written by others\n"


@pytest.mark.parametrize(
    "plant",
    [
        "mkdir -m 755 $d; chown 65534 $d",
        "mkdir -m 777 $d",
        "mkdir -m 755 /run/mine; ln -s /run/mine $d",
        "echo >$d",
    ],
    ids=["owner", "writable", "link", "file"],
)
def test_offloads_that_somebody_else_has_recorded(plant: str) -> None:
    """Neither put back nor added to: the agent says why, and so does bench clean."""
    use = "from bench.hop.offloads import Offloads; Offloads(('lo',)).use('equal')"
    done = alone(
        f'd=/run/hopbench-offloads; {plant}; ls -lR $d; "$2" -c "$3" || true; "$2" $1; ls -lR $d',
        *(RECORDS, sys.executable, use),
    )
    assert done.returncode == 1
    said = "/run/hopbench-offloads is not a folder of root's alone: remove it"
    assert done.stderr.splitlines()[-1] == said
    assert done.stderr.count(said) == 2, done.stderr


@pytest.mark.parametrize(
    "plant",
    [
        "mkdir -m 755 $d; chown 65534 $d",
        "mkdir -m 777 $d",
        "mkdir -m 700 /run/mine; ln -s /run/mine $d",
    ],
    ids=["owner", "writable", "link"],
)
def test_labs_are_not_made_where_somebody_else_may_write(plant: str) -> None:
    script = f'd=/run/hopbench; {plant}; "$1" -m bench lab up --name hyg-own --hops 1; ls -A $d/'
    done = alone(script.replace("; ls", " || true; ls"), sys.executable)
    assert done.stdout == ""
    line = done.stderr.strip().splitlines()[-1]
    assert "/run/hopbench is not a folder of root's alone (remove it)" in line


# --- temporary files -------------------------------------------------------------------------


def test_folders_of_others_in_tmp_are_left_alone() -> None:
    # A folder is in use whose name is on the command line of a process.
    script = (
        "mkdir /opt/mine /opt/tmp; cd /opt/tmp; p=hopbench-ansible; mkdir $p-own $p-other;"
        "ln -s /opt/mine $p-link; chown -h 65534 $p-other $p-link; touch -hd '1 day ago' *;"
        '"$1" -c "$2"; ls /opt /opt/tmp'
    )
    code = (
        "from pathlib import Path; from bench import playbook; playbook._SHORT_TMP = Path('.');"
        "print([path.name for path in playbook.remove_leftovers()])"
    )
    done = alone(script, sys.executable, code)
    assert done.stdout.split() == [
        *("['hopbench-ansible-own']", "/opt:", "mine", "tmp"),
        *("/opt/tmp:", "hopbench-ansible-link", "hopbench-ansible-other"),
    ], done.stderr


def test_an_agent_makes_nothing_that_others_may_read(tmp_path: Path) -> None:
    """Whatever umask the login has."""
    process = subprocess.Popen(
        ["/usr/bin/python3", "-B", "-m", "hop", "forward"],
        cwd=REPOSITORY / "bench",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        umask=0,
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b'{"op": "clock"}\n')
        process.stdin.flush()
        assert b"clock" in process.stdout.readline()
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.stdin.close()
    assert "\nUmask:\t0077\n" in status
