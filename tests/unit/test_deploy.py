# SPDX-License-Identifier: Apache-2.0
"""Provisioning without a host: what failures mean, and what is put on a host's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import deploy, paths
from bench.ansible_failures import diagnose, message
from bench.chain import Chain, Host
from bench.deploy import HostCounts, Journal
from bench.errors import BenchError, HostsError
from bench.playbook import Outcome

ANSIBLE = paths.data_dir("ansible")
INSTALL_TREE = ANSIBLE / "roles" / "common" / "files" / "install_tree.py"

# What a failed task said

SSH = "Failed to connect to the host via ssh: "
CHANGED = (
    SSH + "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n"
    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n"
    "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r\n"
    "Host key for hop1 has changed and you have requested strict checking.\r\n"
    "Host key verification failed."
)
UNKNOWN = (
    SSH + "No ED25519 host key is known for hop1 and you have requested strict checking.\r\n"
    "Host key verification failed."
)
UPDATE = "Failed to update apt cache after 2 retries: "


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (CHANGED, "SSH host key changed"),
        (UNKNOWN, "SSH host key not known"),
        ("Task failed: Missing sudo password", "sudo wants a password"),
        ("Missing sudo password", "sudo wants a password"),
        ("sudo: a password is required", "sudo wants a password"),
        ("Task failed: Incorrect sudo password", "sudo refuses the password"),
        ("Sorry, try again.\nsudo: 3 incorrect password attempts", "sudo refuses the password"),
        ("Task failed: Incorrect su password", "su refuses the password"),
        ("sudo: sorry, you must have a tty to run sudo", "sudo wants a terminal"),
        (
            "Task failed: Timeout (12s) waiting for privilege escalation prompt: ",
            "sudo asks for something other than its password",
        ),
        (
            SSH + "@       WARNING: REVOKED HOST KEY DETECTED!               @",
            "SSH host key is revoked",
        ),
        ("Invalid/incorrect password: Permission denied, please try again.", "SSH login refused"),
        ("Sorry, user lab is not allowed to execute '/bin/sh' as root on hop1.", "sudo refused"),
        ("lab is not in the sudoers file.", "sudo refused"),
        ("/bin/sh: 1: sudo: not found", "sudo is not installed"),
        (SSH + "root@192.0.2.1: Permission denied (publickey,password).", "SSH login refused"),
        (SSH + "ssh: connect to host 192.0.2.1 port 22: Connection refused", "no SSH connection"),
        (SSH + "ssh: connect to host hop1 port 22: No route to host", "no SSH connection"),
        (SSH + "ssh: connect to host hop1 port 22: Connection timed out", "no SSH connection"),
        (SSH + "ssh: connect to host hop1 port 22: Network is unreachable", "no SSH connection"),
        (
            SSH + "ssh: Could not resolve hostname ghost: Name or service not known",
            "host name not known",
        ),
        (UPDATE + "unknown reason", "package archive out of reach"),
        (
            UPDATE + "E:Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  "
            "Could not connect to deb.debian.org:80 (192.0.2.9). - connect (111: Connection "
            "refused)",
            "package archive out of reach",
        ),
        (
            UPDATE + "W:Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  "
            "Temporary failure resolving 'deb.debian.org'",
            "package archive out of reach",
        ),
        (
            "'/usr/bin/apt-get -y install 'siege'' failed: E: Failed to fetch "
            "http://deb.debian.org/debian/pool/main/s/siege/siege_4.0.7-1_amd64.deb  "
            "Connection timed out [IP: 192.0.2.9 80]",
            "package archive out of reach",
        ),
        (
            "data_nic eth9 does not exist on this host, which has: eth0",
            "data_nic eth9 does not exist on this host, which has: eth0",
        ),
        (
            "egress_nic eth9 does not exist on this host, which has: eth0",
            "egress_nic eth9 does not exist on this host, which has: eth0",
        ),
        (
            "[Errno 28] No space left on device: '/opt/hopbench'",
            "[Errno 28] No space left on device: '/opt/hopbench'",
        ),
        ("No package matching 'siege' is available", None),
        ("Could not find the requested service nginx: host", None),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("key", ["msg", "stderr", "module_stderr"])
def test_what_a_failure_means(key: str, said: str, cause: str | None) -> None:
    result = {"msg": "non-zero return code", key: said}
    found, remedy = diagnose(result)
    if cause is None:
        assert (found, remedy) == (message(result), None)
    else:
        assert found == cause
        assert remedy


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({}, "no message"),
        ({"msg": ""}, "no message"),
        ({"msg": "it broke"}, "it broke"),
        ({"msg": "Task failed: it broke"}, "it broke"),
        ({"msg": "it broke", "stderr": "more"}, "it broke"),
        ({"msg": "non-zero return code"}, "non-zero return code"),
        ({"msg": "non-zero return code", "stderr": "one\ntwo\n\n"}, "two"),
        ({"msg": "non-zero return code", "stderr": " \n", "stdout": "said\n"}, "said"),
        ({"msg": "MODULE FAILURE", "module_stderr": "Traceback\nKeyError: 1"}, "KeyError: 1"),
        (
            {"msg": "MODULE FAILURE: No start of json char found\nSee stdout", "stdout": "x"},
            "MODULE FAILURE: No start of json char found\nSee stdout",
        ),
        ({"msg": "MODULE FAILURE\nSee stdout/stderr for the exact error", "stdout": "x"}, "x"),
        ({"msg": "Task failed: MODULE FAILURE:", "module_stdout": "x"}, "x"),
        ({"msg": ["a", "b"]}, "['a', 'b']"),
        ({"msg": None}, "None"),
    ],
)
def test_what_a_task_says(result: dict[str, Any], text: str) -> None:
    assert message(result) == text


# What comes of Ansible's events


def event(kind: str, host: str = "hop1", task: str = "", **data: Any) -> dict[str, Any]:
    """Return an event as ansible-runner gives it."""
    return {"event": f"runner_on_{kind}", "event_data": {"host": host, "task": task, **data}}


@pytest.mark.parametrize(
    ("happened", "line"),
    [
        (
            event("ok", task="common : Install the agent", res={"changed": True}),
            "hop1: install the agent … changed",
        ),
        (event("ok", task="Install packages", res={}), "hop1: install packages … ok"),
        (
            event("ok", resolved_action="ansible.builtin.debug", res={"msg": "kernel headers: 1"}),
            "hop1: kernel headers: 1",
        ),
        (event("ok", task_action="debug", res={"msg": 7}), "hop1: 7"),
        (event("ok", resolved_action="ansible.builtin.include_tasks", res={}), None),
        (event("ok", resolved_action="ansible.builtin.meta", res={}), None),
        (event("skipped", task="Nothing"), None),
        (event("start", task="Nothing"), None),
        ({"event": "playbook_on_task_start", "event_data": {"name": "x"}}, None),
        ({"event": "verbose"}, None),
        ({}, None),
        (
            event("unreachable", task="Gathering Facts", res={"msg": UNKNOWN}),
            "hop1: connect … unreachable",
        ),
        (
            event("failed", task="hop : Allow forwarding", res={"msg": "no"}),
            "hop1: allow forwarding … failed",
        ),
        (event("failed", task="x", ignore_errors=True, res={"msg": "no"}), None),
    ],
)
def test_a_line_for_each_task(happened: dict[str, Any], line: str | None) -> None:
    lines: list[str] = []
    Journal(lines.append).add(happened)
    assert lines == ([] if line is None else [line])


def test_a_journal_of_a_failure() -> None:
    journal = Journal(lambda line: None)
    apt = {"resolved_action": "ansible.builtin.apt", "task": "common : Install packages"}
    arguments = {"invocation": {"module_args": {"name": ["siege", "socat"]}}}
    for happened in (
        event("unreachable", "hop2", "Gathering Facts", res={"msg": UNKNOWN}),
        event("failed", "hop1", **apt, res={"msg": UPDATE + "unknown reason", **arguments}),
        event("failed", "hop1", "x : Later", res={"msg": "follows from the first"}),
        event("ok", "client", resolved_action="ansible.builtin.debug", res={"msg": "a note"}),
        {
            "event": "playbook_on_stats",
            "event_data": {
                "ok": {"hop1": 3, "client": 9},
                "changed": {"client": 2},
                "failures": {"hop1": 1},
                "dark": {"hop2": 1},
                "skipped": {"client": 4},
            },
        },
    ):
        journal.add(happened)
    assert journal.counts == {
        "hop1": HostCounts(3, 0, 1),
        "hop2": HostCounts(0, 0, 1),
        "client": HostCounts(9, 2, 0),
    }
    assert journal.notes == [("client", "a note")]
    assert journal.failures["hop1"][:2] == ("install siege socat", "package archive out of reach")
    assert journal.failures["hop2"][:2] == ("connect", "SSH host key not known")


HOSTS = [
    Host(name, "hop", f"198.18.0.{number}", "eth0", 7000)
    for number, name in enumerate(("client", "hop1", "hop2", "server"), start=1)
]
CHAIN = Chain(Path("chain.ini"), HOSTS[0], tuple(HOSTS[1:3]), HOSTS[3])
STATS = {
    "event": "playbook_on_stats",
    "event_data": {"ok": {host.name: 5 for host in HOSTS}, "changed": {"hop1": 2, "hop2": 1}},
}


def play(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome, *happened: dict[str, Any]
) -> dict[str, Any]:
    """Have `run_playbook` give these events; return what it is asked."""
    asked: dict[str, Any] = {}

    def run_playbook(playbook: Path, inventory: Path, **options: Any) -> Outcome:
        asked.update(options, playbook=playbook, inventory=inventory)
        for each in happened:
            options["on_event"](each)
        return outcome

    monkeypatch.setattr(deploy, "run_playbook", run_playbook)
    return asked


def test_a_deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = event("ok", "hop2", task_action="debug", res={"msg": "kernel headers: 6.1"})
    asked = play(monkeypatch, Outcome("successful", tmp_path), note, STATS)
    lines: list[str] = []
    result = deploy.deploy(CHAIN, artifacts=tmp_path, progress=lines.append, check=True)
    assert list(result.hosts) == ["client", "hop1", "hop2", "server"]
    assert (result.changed, result.notes) == (3, (("hop2", "kernel headers: 6.1"),))
    assert lines == ["hop2: kernel headers: 6.1"]
    assert (asked["check"], asked["forks"], asked["inventory"]) == (True, 4, Path("chain.ini"))
    assert asked["playbook"] == ANSIBLE / "deploy.yml"
    for name in ("hopbench_agent_src", "hopbench_bpf_src"):
        assert Path(asked["extra_vars"][name]).is_dir()


def test_an_undeploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = play(monkeypatch, Outcome("successful", tmp_path), STATS)
    deploy.undeploy(CHAIN, artifacts=tmp_path, progress=print, remove_packages=True)
    assert asked["playbook"] == ANSIBLE / "undeploy.yml"
    assert asked["extra_vars"]["hopbench_remove_packages"] is True


REFUSED = {"msg": SSH + "ssh: connect to host x port 22: Connection refused"}


@pytest.mark.parametrize(
    ("status", "happened", "stdout", "line"),
    [
        (
            "failed",
            [event("unreachable", "hop2", "x", res=REFUSED)],
            None,
            "hop2: connect: no SSH connection (check that the host is up and ansible_host is right;"
            " Ansible's output is in {artifacts})",
        ),
        (
            "failed",
            [
                event("failed", "server", "server : Put nginx up", res={"msg": "no"}),
                event("unreachable", "hop2", "x", res=REFUSED),
                event("unreachable", "client", "x", res=REFUSED),
            ],
            None,
            "client: connect: no SSH connection; hop2: connect: no SSH connection; "
            "server: put nginx up: no (check that the host is up and ansible_host is right; "
            "Ansible's output is in {artifacts})",
        ),
        ("timeout", [], None, "deploy took longer than 5 s (Ansible's output is in {artifacts})"),
        (
            "failed",
            [],
            "PLAY [all]\nERROR! no such role\nERROR! more\n",
            "Ansible failed: ERROR! no such role (Ansible's output is in {artifacts})",
        ),
        (
            "failed",
            [],
            "[WARNING]: x\n[ERROR]: could not be read\n",
            "Ansible failed: [ERROR]: could not be read (Ansible's output is in {artifacts})",
        ),
        (
            "failed",
            [],
            "\n  odd\n",
            "Ansible failed: odd (Ansible's output is in {artifacts})",
        ),
        (
            "failed",
            [],
            "",
            "Ansible failed: it wrote no output (Ansible's output is in {artifacts})",
        ),
        (
            "failed",
            [],
            None,
            "Ansible failed: it wrote no output (Ansible's output is in {artifacts})",
        ),
        (
            "successful",
            [{**STATS, "event_data": {"ok": {"client": 5, "hop1": 1}}}],
            None,
            "hop2: not in the inventory as Ansible reads it; "
            "server: not in the inventory as Ansible reads it (check chain.ini)",
        ),
    ],
)
def test_a_deploy_that_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: Any,
    happened: list[dict[str, Any]],
    stdout: str | None,
    line: str,
) -> None:
    if stdout is not None:
        (tmp_path / "stdout").write_text(stdout)
    play(monkeypatch, Outcome(status, tmp_path), *happened)
    with pytest.raises(BenchError) as caught:
        deploy.deploy(CHAIN, artifacts=tmp_path, progress=lambda line: None, timeout_s=5)
    assert caught.value.one_line() == line.replace("{artifacts}", str(tmp_path))
    assert isinstance(caught.value, HostsError) == bool(happened)
