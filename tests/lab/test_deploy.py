# SPDX-License-Identifier: Apache-2.0
"""`bench deploy`, `doctor`, `clean` and `undeploy` on real hosts that are namespaces."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from bench.hop import payloads
from bench.lab.model import Lab
from bench.owner import Owner
from tests.lab.agents import DirectAgent
from tests.lab.conftest import bench, inside, wait_until

ROOT = Path("/opt/hopbench")


def changed(stdout: str) -> dict[str, int]:
    """Return {host: tasks that changed something} of deploy's output."""
    lines = [line.split(": ") for line in stdout.splitlines() if line.endswith(" changed")]
    return {host: int(counts.split(", ")[1].split()[0]) for host, counts in lines}


def test_a_second_deploy_changes_nothing(odd: Lab) -> None:
    done = bench("deploy", "-i", odd.name)
    assert done.status == 0, done.stderr
    assert changed(done.stdout) == {host.name: 0 for host in odd.hosts}
    assert "hop2: let the data NIC forward" in done.stderr


def test_what_was_damaged_is_mended(odd: Lab) -> None:
    (ROOT / "hop" / "nft.py").write_text("broken\n")
    (ROOT / "hop" / "stale.py").write_text("")
    (ROOT / "payloads" / "624.bin").write_bytes(b"x" * 624)
    (ROOT / "bpf" / "nat.h").unlink()
    inside(odd, "hop2", "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=0")
    done = bench("deploy", "-i", odd.name)
    assert done.status == 0, done.stderr
    assert sum(changed(done.stdout).values()) == 3
    assert not (ROOT / "hop" / "stale.py").exists()
    assert (ROOT / "payloads" / "624.bin").read_bytes() == payloads.content(624)
    assert sum(changed(bench("deploy", "-i", odd.name).stdout).values()) == 0


def test_check_changes_nothing(odd: Lab) -> None:
    inside(odd, "hop2", "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=0")
    try:
        done = bench("deploy", "-i", odd.name, "--check")
        assert (done.status, changed(done.stdout)["hop2"]) == (0, 1), done.stderr
        assert inside(odd, "hop2", "cat", "/proc/sys/net/ipv4/conf/eth0/forwarding") == "0\n"
    finally:
        inside(odd, "hop2", "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1")


def test_nobody_else_may_write_what_was_deployed(odd: Lab) -> None:
    for path in [ROOT, *ROOT.rglob("*")]:
        status = path.lstat()
        assert status.st_uid == 0, path
        assert not status.st_mode & 0o022, path


def test_deploy_remembers_the_inventory(odd: Lab, tmp_path: Path) -> None:
    assert bench("deploy", "-i", odd.name).status == 0
    done = bench("run", "--mode", "direct", "--size", "624", "--blocks", "1", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert "making a lab" not in done.stderr
    assert (tmp_path / "results").is_dir()


def test_a_failure_names_host_task_and_artifacts(odd: Lab) -> None:
    """A file where a folder has to be; the message says where Ansible's own output is."""
    folder = ROOT / "payloads"
    shutil.move(folder, ROOT / "away")
    folder.write_text("")
    try:
        done = bench("deploy", "-i", odd.name)
        line = done.error
        assert done.status == 1
        assert "client: make the payload files" in line or "server: make the payload" in line
        (artifacts,) = [word for word in line.split() if "/artifacts/" in word]
        assert Path(artifacts.rstrip(")")).is_dir()
    finally:
        folder.unlink()
        shutil.move(ROOT / "away", folder)


def test_undeploy_and_deploy_again(odd: Lab, tmp_path: Path) -> None:
    assert inside(odd, "hop1", "cat", "/proc/sys/net/ipv4/conf/eth0/forwarding") == "1\n"
    done = bench("undeploy", "-i", odd.name)
    try:
        assert done.status == 0, done.stderr
        assert not ROOT.exists()
        assert inside(odd, "hop1", "cat", "/proc/sys/net/ipv4/conf/eth0/forwarding") == "0\n"
        again = bench("undeploy", "-i", odd.name)
        assert (again.status, sum(changed(again.stdout).values())) == (0, 0)
        line = ("run", "-i", odd.name, "--mode", "nft", "--hops", "1", "--output", tmp_path)
        run = bench(*line)
        assert (run.status, "run bench deploy" in run.error) == (1, True)
        for host in ("client", "hop1", "server"):
            assert f"{host}: hopbench is not deployed" in run.error
    finally:
        assert bench("deploy", "-i", odd.name).status == 0


def test_doctor_finds_nothing_wrong_and_changes_nothing(odd: Lab) -> None:
    before = sorted(ROOT.rglob("*"))
    done = bench("doctor", "-i", odd.name, "--json")
    findings = json.loads(done.stdout)
    assert done.status == 0, findings
    assert {each["host"] for each in findings} == {host.name for host in odd.hosts}
    assert not [each for each in findings if each["level"] == "problem"]
    assert sorted(ROOT.rglob("*")) == before


def test_doctor_sees_what_is_in_the_way(odd: Lab) -> None:
    inside(odd, "hop2", "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=0")
    try:
        with DirectAgent(odd, "hop1") as agent:
            agent.place()
            target = {"next_ip": odd.hosts[-1].data_ip, "next_port": 8000}
            answer = agent.ask(mode="xdp", **target, lease_s=600)
            done = bench("doctor", "-i", odd.name)
    finally:
        inside(odd, "hop2", "sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=1")
    assert done.status == 1
    runs = f"already runs XDP program hopbench_fwd (id {answer['prog_id']})"
    assert f"hop1: eth0 (veth) {runs}" in done.stdout
    assert "hop2: forwarding is off" in done.stdout


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_clean_ends_what_was_left(odd: Lab, stopped: bool) -> None:
    """Agents whose controller is gone without their noticing, also one that hears no SIGTERM."""
    with DirectAgent(odd, "hop1") as agent:
        agent.place()
        agent.ask(mode="xdp", next_ip=odd.hosts[-1].data_ip, next_port=8000, lease_s=600)
        if stopped:
            os.kill(agent.process.pid, signal.SIGSTOP)
        done = bench("clean", "-i", odd.name)
        assert done.status == 0, done.stderr
        assert f"hop1: removed agent forward (process {agent.process.pid})" in done.stderr
        agent.process.wait(timeout=5)
    assert wait_until(lambda: "xdp" not in inside(odd, "hop1", "ip", "link", "show", "eth0"))
    assert "nothing was left" in bench("clean", "-i", odd.name).stdout


def test_clean_goes_past_a_host_that_is_away(odd: Lab, tmp_path: Path) -> None:
    """The others are cleaned, and what was removed is said before who could not be asked."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"ansible_host=127.0.0.1 ansible_port={nobody.getsockname()[1]}"
        text = re.sub(
            r"^(hop2 .*)$",
            rf"\1 {away} ansible_ssh_common_args='-F none'",
            odd.inventory.read_text(),
            flags=re.MULTILINE,
        )
        inventory = tmp_path / "inventory.ini"
        inventory.write_text(text)
        with DirectAgent(odd, "hop1") as agent:
            agent.place()
            done = bench("clean", "-i", inventory)
            assert f"hop1: removed agent forward (process {agent.process.pid})" in done.stderr
            agent.process.wait(timeout=5)
    assert done.status == 1
    assert done.error.startswith("bench: hop2: SSH: Connection refused"), done.stderr


def test_clean_removes_a_lab_without_owner(odd: Lab) -> None:
    """What a run leaves whose guard was killed, too."""
    from bench.lab import lifecycle

    process = subprocess.Popen(["sleep", "60"])
    owner = Owner.of(process.pid)
    process.kill()
    process.wait()
    lifecycle.up("orphan", hops=1, owner=owner)
    done = bench("clean", "-i", odd.name)
    assert (done.status, "orphan" in done.stderr) == (0, True)
    names = [each.lab.name for each in lifecycle.status()]
    assert "orphan" not in names and odd.name in names


def test_no_secret_in_what_is_kept(odd: Lab, tmp_path: Path) -> None:
    """Neither keys nor the inventory's passwords reach a run's files or Ansible's artifacts."""
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(odd.inventory.read_text() + "ansible_become_password=open-sesame\n")
    assert bench("deploy", "-i", inventory).status == 0
    done = bench(
        *("run", "-i", inventory, "--mode", "nft", "--hops", "1", "--size", "624"),
        *("--blocks", "1", "--output", tmp_path / "results"),
    )
    assert done.status == 0, done.stderr
    kept = [*(tmp_path / "results").rglob("*"), *Path(os.environ["XDG_STATE_HOME"]).rglob("*")]
    key = (odd.folder / "id_ed25519").read_text().splitlines()[1]
    for file in kept:
        if file.is_file():
            text = file.read_text(errors="replace")
            assert "open-sesame" not in text, file
            assert key not in text, file
