# SPDX-License-Identifier: Apache-2.0
"""Provision the hosts of a chain with Ansible, and undo it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import ansible_ssh
from .ansible_failures import diagnose
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


_DEBUG = ("ansible.builtin.debug", "debug")
_SILENT = (
    "ansible.builtin.add_host",
    "ansible.builtin.include_tasks",
    "ansible.builtin.import_tasks",
    "ansible.builtin.meta",
)


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
    told = ansible_ssh.told(chain, min(len(chain.hosts), MAX_FORKS))
    outcome = run_playbook(
        data_dir("ansible") / f"{name}.yml",
        chain.inventory,
        artifacts=artifacts,
        on_event=journal.add,
        extra_vars={
            "hopbench_agent_src": str(hop_package()),
            "hopbench_bpf_src": str(data_dir("bpf")),
            **told.extra_vars,
            **extra_vars,
        },
        check=check,
        forks=told.forks,
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

    failures: host → (task, cause, remedy) of its first failure.
    """

    progress: Callable[[str], None]
    counts: dict[str, HostCounts] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    failures: dict[str, tuple[str, str, str | None]] = field(default_factory=dict)

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
        result = data.get("res", {})
        task = "connect" if unreachable else _decapitalised(data["task"])
        if data.get("resolved_action") == "ansible.builtin.apt":
            wanted = result.get("invocation", {}).get("module_args", {}).get("name") or []
            task = " ".join(["install", *wanted])
        self.failures.setdefault(data["host"], (task, *diagnose(result)))
        self._line(data["host"], task, "unreachable" if unreachable else "failed")

    def _line(self, host: str, task: str, word: str) -> None:
        self.progress(f"{host}: {_decapitalised(task)} … {word}")


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
        task, cause, remedy = journal.failures[host]
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
