# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with hosts and files: one line each, with the host and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab.model import Lab
from tests.lab.conftest import bench, differences, machine

SMALL = ("--mode", "xdp", "--hops", "1", "--size", "624", "--blocks", "1")


@pytest.fixture
def copy(lab: Lab, tmp_path: Path) -> Path:
    """The lab's inventory and SSH files, to be spoiled."""
    folder = tmp_path / "copy"
    shutil.copytree(lab.folder, folder)
    for name in ("inventory.ini", "ssh_config", "sshd_config"):
        file = folder / name
        file.write_text(file.read_text().replace(str(lab.folder), str(folder)))
        file.chmod(0o600)
    with (folder / "sshd_config").open("a") as config:
        config.write("StrictModes no\n")  # sshd distrusts keys below a folder that all may write
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = "size=4m,nr_inodes=24"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "hopbench-test", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def one_line(stderr: str) -> str:
    """Return the error's line; there is exactly one that begins as errors do."""
    lines = [line for line in stderr.splitlines() if line.startswith("bench: ")]
    assert len(lines) == 1, stderr
    return lines[0]


def edit(folder: Path, old: str, new: str) -> Path:
    """Change the copied inventory and return its path."""
    file = folder / "inventory.ini"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return file


def run_fails(
    inventory: Path | str, tmp_path: Path, *words: str, extra: tuple[str, ...] = SMALL
) -> None:
    """Expect `bench run` to end with status 1, one line with these words, and nothing left."""
    before = machine()
    earlier = tmp_path / "results" / "earlier"
    earlier.mkdir(parents=True, exist_ok=True)
    (earlier / "samples.csv").write_text("kept\n")
    done = bench("run", "-i", inventory, *extra, "--output", tmp_path / "results")
    line = one_line(done.stderr)
    assert done.status == 1, done.stderr
    for word in words:
        assert word in line, line
    assert (earlier / "samples.csv").read_text() == "kept\n"
    assert differences(before) == {}


def test_no_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for command in ("deploy", "doctor", "undeploy"):
        done = bench(command)
        assert (done.status, "no inventory" in one_line(done.stderr)) == (1, True)
    done = bench("deploy", "-i", "nowhere")
    assert (done.status, "nowhere" in one_line(done.stderr)) == (1, True)


def test_an_inventory_of_noise(tmp_path: Path) -> None:
    file = tmp_path / "noise.ini"
    file.write_bytes(b"\xff\xfe[client\n\x00{{")
    done = bench("run", "-i", file, *SMALL)
    assert (done.status, str(file) in one_line(done.stderr)) == (1, True)


def test_a_host_that_does_not_answer(copy: Path, tmp_path: Path) -> None:
    inventory = edit(copy, "hop1 data_ip", "ghost data_ip")
    run_fails(inventory, tmp_path, "ghost", "SSH")
    done = bench("deploy", "-i", inventory)
    assert (done.status, "ghost" in one_line(done.stderr)) == (1, True)


def test_every_host_that_fails_is_named(copy: Path, tmp_path: Path) -> None:
    edit(copy, "hop1 data_ip", "ghost data_ip")
    inventory = edit(copy, "server data_ip", "phantom data_ip")
    run_fails(inventory, tmp_path, "ghost", "phantom")


def test_a_host_key_that_changed(copy: Path, tmp_path: Path) -> None:
    (copy / "host_key").unlink()
    (copy / "host_key.pub").unlink()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", copy / "host_key"], check=True
    )
    run_fails(copy / "inventory.ini", tmp_path, "client", "hop1", "host key changed")
    done = bench("deploy", "-i", copy / "inventory.ini")
    assert (done.status, "host key changed" in one_line(done.stderr)) == (1, True)


def test_a_host_key_that_is_not_known(copy: Path, tmp_path: Path) -> None:
    (copy / "known_hosts").write_text("")
    run_fails(copy / "inventory.ini", tmp_path, "host key is not known")


def test_a_key_that_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "authorized_keys").write_text("")
    run_fails(copy / "inventory.ini", tmp_path, "client", "SSH refuses user root")


def test_sudo_refused(copy: Path, tmp_path: Path) -> None:
    """Where there is no sudo, or it wants a password, the host is named and so is the remedy."""
    with (copy / "inventory.ini").open("a") as file:
        file.write("ansible_become=true\nansible_become_user=root\n")
    fake = tmp_path / "bin"
    fake.mkdir()
    script = fake / "sudo"
    script.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    script.chmod(0o755)
    config = copy / "sshd_config"
    config.write_text(config.read_text() + f"SetEnv PATH={fake}:/usr/sbin:/usr/bin:/sbin:/bin\n")
    run_fails(copy / "inventory.ini", tmp_path, "sudo", "client")
    done = bench("deploy", "-i", copy / "inventory.ini")
    assert (done.status, "sudo" in one_line(done.stderr)) == (1, True)


def test_a_nic_that_is_absent(copy: Path, tmp_path: Path) -> None:
    inventory = edit(copy, "hop1 data_ip", "hop1 data_nic=eth7 data_ip")
    run_fails(inventory, tmp_path, "hop1", "no NIC eth7")
    done = bench("deploy", "-i", inventory)
    assert (done.status, "hop1" in one_line(done.stderr)) == (1, True)
    doctor = bench("doctor", "-i", inventory)
    assert (doctor.status, "no NIC eth7" in doctor.stdout) == (1, True)


def test_an_address_that_is_elsewhere(copy: Path, tmp_path: Path, lab: Lab) -> None:
    inventory = edit(
        copy, f"hop1 data_ip={lab.hosts[1].data_ip}", f"hop1 data_ip={lab.network[99]}"
    )
    run_fails(inventory, tmp_path, "hop1", str(lab.network[99]))


def test_more_hops_than_there_are(lab: Lab, tmp_path: Path) -> None:
    extra = ("--mode", "xdp", "--hops", "1-9")
    run_fails(lab.name, tmp_path, "9 hops", "5 hops", extra=extra)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--mode", "quic"], "quic"),
        (["--hops", "0"], "'0'"),
        (["--hops", "5-1"], "backwards"),
        (["--size", "1000"], "1000"),
        (["--concurrency", "0"], "'0'"),
        (["--requests", "-1"], "-1"),
        (["--blocks", "many"], "many"),
        (["--attach", "hardware"], "hardware"),
        (["--sweep", "/nowhere.toml"], "/nowhere.toml"),
        (["--seed", "x"], "seed"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_usage(lab: Lab, arguments: list[str], word: str) -> None:
    done = bench("run", "-i", lab.name, *arguments)
    assert done.status == 2
    assert word in one_line(done.stderr)


def test_output_that_cannot_be_written(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = bench("run", "-i", lab.name, *SMALL, "--output", file / "results")
    assert (done.status, str(file) in one_line(done.stderr)) == (1, True)


def test_a_full_disk(lab: Lab, small_disk: Path) -> None:
    before = machine()
    done = bench(
        *("run", "-i", lab.name, "--mode", "nft", "--hops", "1", "--size", "624"),
        *("--blocks", "100", "--output", small_disk),
    )
    assert done.status == 1
    assert "space" in one_line(done.stderr).lower()
    (run,) = small_disk.iterdir()
    assert not list(run.rglob("*.tmp*"))
    samples = (run / "samples.csv").read_text()
    assert samples.endswith("\n") and len(samples.splitlines()) > 1
    assert differences(before) == {}


def test_a_newer_schema(tmp_path: Path) -> None:
    run = tmp_path / "20990101-000000-beef"
    run.mkdir()
    (run / "run.json").write_text('{"schema_version": 99}')
    for command in ("show", "compare"):
        done = bench(command, run)
        assert (done.status, "upgrade" in one_line(done.stderr)) == (1, True)


def test_not_root() -> None:
    """The whole command, given up root once everything it needs has been read."""
    code = (
        "import os, sys; from bench import cli; import bench.commands.lab; "
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); "
        "sys.argv = ['bench', 'lab', 'up']; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "needs root" in one_line(done.stderr)) == (1, True)
