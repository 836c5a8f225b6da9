# SPDX-License-Identifier: Apache-2.0
"""Provision the hosts of a chain with Ansible, and undo it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .chain import Chain
from .errors import BenchError, HostsError
from .paths import data_dir, hop_package
from .playbook import Event, Outcome, run_playbook

MAX_FORKS = 32

# Longer than any deploy that gets anywhere: packages on slow hosts, MAX_FORKS at a time.
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class HostCounts:
    """How many tasks a host had, by outcome."""

    ok: int = 0
    changed: int = 0
    failed: int = 0


@dataclass(frozen=True)
class DeployResult:
    """What a playbook did.

    hosts: counts by host, in chain order. notes: what the roles had to say, as (host, text).
    artifacts: where Ansible's own output and events are.
    """

    hosts: Mapping[str, HostCounts]
    notes: tuple[tuple[str, str], ...]
    artifacts: Path

    @property
    def changed(self) -> int:
        """How many tasks changed something, over all hosts."""
        return sum(counts.changed for counts in self.hosts.values())


@dataclass(frozen=True)
class _Kind:
    """A failure that is recognised by its message: what to call it, and what to do about it."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str


_KINDS = tuple(
    _Kind(re.compile(pattern, re.IGNORECASE), cause, remedy)
    for pattern, cause, remedy in (
        (
            r"REMOTE HOST IDENTIFICATION HAS CHANGED",
            "SSH host key changed",
            "if the host was installed anew, remove its old key with ssh-keygen -R",
        ),
        (
            r"Host key verification failed",
            "SSH host key not known",
            "connect once with ssh and check the key",
        ),
        (
            r"Missing sudo password|a password is required|Incorrect sudo password"
            r"|sudo: .*(try again|terminal is required)",
            "sudo wants a password",
            "allow NOPASSWD for the login or set ansible_become_password",
        ),
        (
            r"is not in the sudoers file|not allowed to (execute|run sudo)",
            "sudo refused",
            "allow the login to use sudo",
        ),
        (r"sudo: (command )?not found", "sudo is not installed", "install it or log in as root"),
        (
            r"Permission denied \(",
            "SSH login refused",
            "check ansible_user and ansible_ssh_private_key_file",
        ),
        (
            r"timed out|timeout expired|No route to host|Connection refused|Network is unreachable",
            "no SSH connection",
            "check that the host is up and ansible_host is right",
        ),
        (
            r"Could not resolve hostname",
            "host name not known",
            "set ansible_host to its address",
        ),
        (
            r"Failed to (update apt cache|fetch)|Unable to fetch",
            "package archive out of reach",
            "install the packages by hand, on the lab's machine with make setup",
        ),
        (
            r"data_nic \S+ does not exist",
            "",
            "set data_nic to the NIC that has data_ip",
        ),
        (r"No space left on device", "", "make room on the host"),
    )
)

_DEBUG = ("ansible.builtin.debug", "debug")
_SILENT = (
    "ansible.builtin.add_host",
    "ansible.builtin.include_tasks",
    "ansible.builtin.import_tasks",
    "ansible.builtin.meta",
)
# What Ansible calls a failure when the program that failed said more.
_EMPTY_MESSAGES = ("", "non-zero return code", "MODULE FAILURE")


def deploy(
    chain: Chain,
    *,
    artifacts: Path,
    progress: Callable[[str], None],
    check: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> DeployResult:
    """Provision every host of `chain`.

    artifacts: folder for Ansible's output; each call makes one of its own in it. progress: called
    with one plain line a host and task. check: change nothing, only tell what would.
    Raises HostsError naming every host that failed, or BenchError when Ansible did.
    """
    return _apply("deploy", chain, artifacts, progress, check, timeout_s, {})


def undeploy(
    chain: Chain,
    *,
    artifacts: Path,
    progress: Callable[[str], None],
    check: bool = False,
    remove_packages: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> DeployResult:
    """Undo `deploy` on every host of `chain` that can be reached; otherwise as `deploy`.

    remove_packages: also remove the packages that deploy installed, if nothing else needs them.
    """
    extra = {"hopbench_remove_packages": remove_packages}
    return _apply("undeploy", chain, artifacts, progress, check, timeout_s, extra)


def _apply(
    name: str,
    chain: Chain,
    artifacts: Path,
    progress: Callable[[str], None],
    check: bool,
    timeout_s: float,
    extra_vars: Mapping[str, Any],
) -> DeployResult:
    journal = Journal(progress)
    outcome = run_playbook(
        data_dir("ansible") / f"{name}.yml",
        chain.inventory,
        artifacts=artifacts,
        on_event=journal.add,
        extra_vars={
            "hopbench_agent_src": str(hop_package()),
            "hopbench_bpf_src": str(data_dir("bpf")),
            **extra_vars,
        },
        check=check,
        forks=min(len(chain.hosts), MAX_FORKS),
        timeout_s=timeout_s,
    )
    order = [host.name for host in chain.hosts]
    if outcome.status != "successful":
        raise _error(name, outcome, journal, order, timeout_s)
    absent = [
        (host, "not in the inventory as Ansible reads it")
        for host in order
        if host not in journal.counts
    ]
    if absent:
        raise HostsError(absent, remedy=f"check {chain.inventory}")
    hosts = {host: journal.counts[host] for host in order}
    return DeployResult(hosts, tuple(journal.notes), outcome.artifacts)


@dataclass
class Journal:
    """Collects Ansible's events and reports each as a line.

    failures: host → (task, message) of its first failure.
    """

    progress: Callable[[str], None]
    counts: dict[str, HostCounts] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take one event of ansible-runner's."""
        kind = event.get("event")
        data = event.get("event_data", {})
        if kind == "playbook_on_stats":
            self.counts = _counts(data)
        elif kind == "runner_on_ok":
            self._done(data)
        elif kind == "runner_on_unreachable":
            self._failed(data, unreachable=True)
        elif kind == "runner_on_failed" and not data.get("ignore_errors"):
            self._failed(data, unreachable=False)

    def _done(self, data: Event) -> None:
        host, result = data["host"], data.get("res", {})
        action = data.get("resolved_action") or data.get("task_action")
        if action in _DEBUG:
            text = str(result.get("msg", ""))
            self.notes.append((host, text))
            self.progress(f"{host}: {text}")
        elif action not in _SILENT:
            self._line(host, data["task"], "changed" if result.get("changed") else "ok")

    def _failed(self, data: Event, *, unreachable: bool) -> None:
        task = "connect" if unreachable else _decapitalised(data["task"])
        self.failures.setdefault(data["host"], (task, message(data.get("res", {}))))
        self._line(data["host"], task, "unreachable" if unreachable else "failed")

    def _line(self, host: str, task: str, word: str) -> None:
        self.progress(f"{host}: {_decapitalised(task)} … {word}")


def message(result: Mapping[str, Any]) -> str:
    """Return what a failed task had to say: its message, or the last line of its output."""
    text = str(result.get("msg", "")).removeprefix("Task failed: ").strip()
    if text.split("\n", 1)[0].rstrip(".:") not in _EMPTY_MESSAGES:
        return text
    for stream in ("stderr", "module_stderr", "stdout", "module_stdout"):
        lines = [line.strip() for line in str(result.get(stream, "")).splitlines() if line.strip()]
        if lines:
            return lines[-1]
    return text or "no message"


def diagnose(text: str) -> tuple[str, str | None]:
    """Return (cause, remedy) of a failed task's message."""
    for kind in _KINDS:
        if kind.pattern.search(text):
            return kind.cause or text, kind.remedy
    return text, None


def _error(
    name: str, outcome: Outcome, journal: Journal, order: list[str], timeout_s: float
) -> BenchError:
    where = f"Ansible's output is in {outcome.artifacts}"
    if not journal.failures:
        if outcome.status == "timeout":
            return BenchError(f"{name} took longer than {timeout_s:.0f} s", remedy=where)
        return BenchError(f"Ansible failed: {_last_error(outcome.artifacts)}", remedy=where)
    failures, remedies = [], []
    for host in sorted(journal.failures, key=lambda h: order.index(h) if h in order else -1):
        task, text = journal.failures[host]
        cause, remedy = diagnose(text)
        failures.append((host, f"{task}: {cause}"))
        if remedy and remedy not in remedies:
            remedies.append(remedy)
    return HostsError(failures, remedy="; ".join([*remedies, where]))


def _last_error(artifacts: Path) -> str:
    """Return the first error line of Ansible's output, for failures that have no host."""
    try:
        lines = (artifacts / "stdout").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it wrote no output"
    errors = [line for line in lines if line.startswith(("ERROR", "[ERROR]"))]
    return (errors or [line for line in lines if line.strip()] or ["it wrote no output"])[0]


def _counts(stats: Event) -> dict[str, HostCounts]:
    names = {host for key in ("ok", "changed", "failures", "dark") for host in stats.get(key, {})}
    return {
        host: HostCounts(
            ok=stats.get("ok", {}).get(host, 0),
            changed=stats.get("changed", {}).get(host, 0),
            failed=stats.get("failures", {}).get(host, 0) + stats.get("dark", {}).get(host, 0),
        )
        for host in names
    }


def _decapitalised(task: str) -> str:
    """Return a task's name without its role, as the middle of a sentence."""
    name = task.rsplit(" : ", 1)[-1]
    return name[:1].lower() + name[1:]
