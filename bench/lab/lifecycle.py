# SPDX-License-Identifier: Apache-2.0
"""Bring a lab up, take it down, and say which are there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import current
from bench.errors import BenchError
from bench.lab import files, network, preflight
from bench.lab.model import DEFAULT_NAME, MAX_LABS, Family, Lab, Wire, check_hops, check_name
from bench.owner import Owner


@dataclass(frozen=True)
class LabStatus:
    """What of a recorded lab exists. wire_programs: ports of the wire with XDP in driver mode."""

    lab: Lab
    missing: tuple[str, ...]
    wire_programs: int
    owner: Owner | None

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
    owner: Owner | None = None,
) -> Lab:
    """Make a lab and return it; a failure on the way leaves nothing.

    owner: the process that it belongs to; None for a lab that stays.

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
            files.write_state(lab, owner=owner)
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


def down(name: str = DEFAULT_NAME, *, only_of: Owner | None = None) -> bool:
    """Remove a lab; False when there was none.

    only_of: leave a lab alone that is not this owner's, but somebody else's of that name.
    """
    check_name(name)
    preflight.require_root("a lab")
    with files.all_labs_locked():
        state = files.read_state(name)
        if state is None or (only_of is not None and state[1] != only_of):
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
        lab, owner = state
        missing = tuple(network.missing(lab))
        programs = 0 if missing else network.wire_programs(lab)
        found.append(LabStatus(lab, missing, programs, owner))
    return found


def remove_orphans(progress: Callable[[str], None]) -> int:
    """Remove ephemeral labs whose owner is gone; return how many."""
    count = 0
    for name in files.lab_names():
        state = files.read_state(name)
        if state and state[1] and state[1].gone and down(name, only_of=state[1]):
            progress(f"removed lab {name}, whose owner is gone")
            count += 1
    return count


class EphemeralLab:
    """A lab for the length of a `with` block, removed even when this process is killed.

    A guard process holds the read end of a pipe; when this process ends, however it ends, the
    guard reads end of file and takes the lab down. name: None for one that no other lab has.
    undeploy: whether the guard removes what was deployed, too.
    """

    def __init__(
        self,
        hops: int,
        wire: Wire = "xdp",
        family: Family = 4,
        *,
        name: str | None = None,
        undeploy: bool = False,
    ) -> None:
        self._more = ["undeploy"] if undeploy else []
        self._hops, self._wire, self._family = hops, wire, family
        self._owner = Owner.me()
        self._name = name or f"run-{self._owner.pid}"

    def __enter__(self) -> Lab:
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "bench.lab.guard", self._name, self._owner.text, *self._more],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return up(
                self._name,
                hops=self._hops,
                wire=self._wire,
                family=self._family,
                owner=self._owner,
            )
        except BaseException:
            self._dismiss()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            down(self._name, only_of=self._owner)
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
