# SPDX-License-Identifier: Apache-2.0
"""Bring a lab up, take it down, and say which are there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import current
from bench.errors import BenchError
from bench.lab import files, network, preflight
from bench.lab.model import DEFAULT_NAME, MAX_LABS, Family, Lab, Wire, check_hops, check_name


@dataclass(frozen=True)
class LabStatus:
    """What of a recorded lab exists. wire_programs: ports of the wire with XDP in driver mode."""

    lab: Lab
    missing: tuple[str, ...]
    wire_programs: int
    owner_pid: int | None

    @property
    def whole(self) -> bool:
        """Every namespace is there and every port of the wire has its program."""
        return not self.missing and self.wire_programs == len(self.lab.hosts)


def up(
    name: str = DEFAULT_NAME,
    *,
    hops: int,
    wire: Wire = "xdp",
    family: Family = 4,
    owner_pid: int | None = None,
) -> Lab:
    """Make a lab and return it; a failure on the way leaves nothing.

    Raises BenchError when this machine cannot, or a lab of that name is up.
    """
    check_name(name)
    check_hops(hops)
    preflight.require_lab_machine(family)
    with files.all_labs_locked():
        if files.read_state(name) is not None:
            raise BenchError(f"lab {name} is already up", remedy=f"bench lab down --name {name}")
        lab = Lab(name, _free_index(name), hops, wire, family)
        network.require_free(lab)
        try:
            files.write_state(lab, owner_pid=owner_pid)
            files.write_ssh(lab)
            network.make(lab)
            files.write_inventory(lab)
        except BaseException as error:
            _remove(lab)
            if isinstance(error, (OSError, subprocess.SubprocessError)):
                raise BenchError(f"lab {name} cannot be made: {error}") from error
            raise
        return lab


def _free_index(name: str) -> int:
    used = set()
    for other in files.lab_names():
        state = files.read_state(other)
        if state is not None:
            used.add(state[0].index)
    # The default lab always has the same addresses: inventories/local.ini describes it.
    if name == DEFAULT_NAME:
        return 0
    for index in range(1, MAX_LABS):
        if index not in used:
            return index
    raise BenchError(f"{MAX_LABS - 1} labs are up already")


def down(name: str = DEFAULT_NAME) -> bool:
    """Remove a lab; False when there was none."""
    check_name(name)
    preflight.require_root("a lab")
    with files.all_labs_locked():
        state = files.read_state(name)
        if state is None:
            return False
        _remove(state[0])
        return True


def _remove(lab: Lab) -> None:
    network.remove(lab)
    current.forget(lab.inventory)
    files.remove(lab)


def add_loopback(inventory: Path, client_ports: tuple[int, int]) -> None:
    """Give the lab of an inventory its loopback namespace. Raises BenchError.

    client_ports: the ports that its sockets get as their own.
    """
    with files.all_labs_locked():
        state = files.read_state(inventory.parent.name)
        if state is None or state[0].inventory != inventory:
            raise BenchError(f"{inventory} is not of a lab")
        network.make_loopback(state[0], client_ports)


def status() -> list[LabStatus]:
    """Return the state of every recorded lab."""
    found = []
    for name in files.lab_names():
        state = files.read_state(name)
        if state is None:
            continue
        lab, owner_pid = state
        missing = tuple(network.missing(lab))
        programs = 0 if missing else network.wire_programs(lab)
        found.append(LabStatus(lab, missing, programs, owner_pid))
    return found


def remove_orphans(progress: Callable[[str], None]) -> int:
    """Remove ephemeral labs whose owner is gone; return how many."""
    count = 0
    for each in status():
        if each.owner_pid is not None and not _alive(each.owner_pid):
            down(each.lab.name)
            progress(f"removed lab {each.lab.name}, whose owner is gone")
            count += 1
    return count


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class EphemeralLab:
    """A lab for the length of a `with` block, removed even when this process is killed.

    A guard process holds the read end of a pipe; when this process ends, however it ends, the
    guard reads end of file and takes the lab down.
    """

    def __init__(self, hops: int, wire: Wire = "xdp") -> None:
        self._hops, self._wire = hops, wire
        self._name = f"run-{os.getpid()}"

    def __enter__(self) -> Lab:
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "bench.lab.guard", self._name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return up(self._name, hops=self._hops, wire=self._wire, owner_pid=os.getpid())
        except BaseException:
            self._dismiss()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            down(self._name)
        finally:
            self._dismiss()

    def _dismiss(self) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        try:
            self._guard.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
