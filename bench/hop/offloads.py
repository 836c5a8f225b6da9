# SPDX-License-Identifier: Apache-2.0
"""What the NICs of this host do with segments: `equal`, nothing; `native`, as they were found."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from . import config, net, process
from . import offload_records as records
from .errors import HopError
from .protocol import Message

_REMEDY = "measure with --offloads native"
_RESTORE_LIMIT_S = 1.0
_GRO = "generic-receive-offload"

# Reads nothing but end of file, when the agent has ended in whatever way; then puts back.
_GUARD = 'read -r _; exec "$@"'


def to_turn_off(nic: str, features: Mapping[str, records.Feature], veth: bool) -> dict[str, int]:
    """Return the features that are to be off, as settings. Raises HopError for one that cannot be.

    A veth keeps GRO: without it, and without an XDP program of its own, it runs no NAPI, and
    nothing can be redirected to it (veth_xdp_xmit, drivers/net/veth.c).
    """
    off = {}
    for name, feature in features.items():
        if veth and name == _GRO:
            continue
        if feature.on and not feature.changeable:
            raise HopError(f"{name} of {nic} is on and cannot be turned off", _REMEDY)
        if feature.changeable and (feature.on or feature.wanted):
            off[name] = 0
    return off


def to_bound(nic: str, link: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes that keep a veth's GRO from merging. Raises HopError if there are none.

    Two packets are merged when they are smaller together (skb_gro_receive, net/core/gro.c): at
    1 byte, never.
    """
    sizes = {name: 1 for name in records.SIZES if name in link}
    if not sizes:
        raise HopError(f"GRO of {nic} cannot be bounded: Linux 5.18 and iproute2 5.18 can", _REMEDY)
    return sizes


def changes(
    now: Mapping[str, int], wanted: Mapping[str, int], before: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """Return what to record of a NIC: {setting: (before, what we make of it)}.

    now: its settings. before: what was recorded already and may have been changed since, by
    somebody else, whose word then counts. What it still says is true of the time before us.
    """
    kept = {name: pair for name, pair in before.items() if now.get(name) == pair[1]}
    new = {name: (now[name], value) for name, value in wanted.items() if now[name] != value}
    return kept | new


def with_lower(nics: tuple[str, ...]) -> list[str]:
    """Return NICs and those that they lie on, as a VLAN does: it is there that packets arrive."""
    found = list(nics)
    for nic in found:
        entries = os.listdir(f"/sys/class/net/{nic}")
        lower = [entry.removeprefix("lower_") for entry in entries if entry.startswith("lower_")]
        found += [name for name in sorted(lower) if name not in found]
    return found


def encode(record: records.Record) -> str:
    """Return a record as text."""
    changes = {name: {"before": each[0], "set": each[1]} for name, each in record.changes.items()}
    where = {**vars(record.namespace), "ifindex": record.ifindex, "nic": record.nic}
    return json.dumps({**where, "changes": changes}, indent=1) + "\n"


def write(folder: str, record: records.Record) -> None:
    """Write a record so that it is there whole, whatever happens next. Raises OSError."""
    path = records.path_of(folder, record.namespace.inode, record.ifindex)
    new = path.removesuffix("json") + "new"
    with open(_create(new), "w") as file:
        file.write(encode(record))
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(3):
        records.require_own(os.path.dirname(path))
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        # Hosts may share a file system: another one's agent removes the folder when it is empty.
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags, 0o600)
    raise OSError(f"{path} cannot be created")


class Offloads:
    """The offloads of some NICs: changed by `use`, put back by `restore` or when this process dies.

    folder: where the records are.
    """

    def __init__(self, nics: tuple[str, ...], folder: str = records.RECORDS) -> None:
        self._nics = nics
        self._folder = folder
        self._lock: socket.socket | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._how = ""
        self._facts: dict[str, object] = {}

    def use(self, how: str) -> dict[str, object]:
        """Have it `equal` or `native` from now on; return what that is, as the kernel says.

        Returns {NIC: {feature: "on" or "off", …, "gro_max_size": bytes, …, "mtu": bytes}}, NICs
        that a NIC lies on included. Raises HopError when a NIC does not do it, or another agent
        has a say here; nothing is changed then.
        """
        if how == self._how:
            return self._facts
        for program in ("ethtool", "ip"):
            process.tool(program)
        self._claim()
        self._how = ""
        try:
            nics = with_lower(self._nics)
            linked = net.linked(self._nics)
            wanted = self._equalize(nics) if how == "equal" else {}
            if how == "native":
                records.put_back(self._folder)
            self._facts = {nic: _facts(nic, wanted.get(nic, {})) for nic in nics}
            if linked:
                net.await_link(self._nics)
        except (HopError, OSError):
            self.restore()
            raise
        self._how = how
        return self._facts

    def _claim(self) -> None:
        if self._lock is None:
            self._lock = records.lock()
        if self._lock is None:
            raise HopError(
                "another agent has set the offloads of this host",
                "wait for the run that it belongs to, or end it with bench clean",
            )

    def _equalize(self, nics: list[str]) -> dict[str, dict[str, int]]:
        """Record and change; return {NIC: {setting: what it should be now}}."""
        plans = []
        for nic in nics:
            features, link = records.features(nic), records.link(nic)
            veth = link.get("linkinfo", {}).get("info_kind") == "veth"
            wanted = to_turn_off(nic, features, veth) | (to_bound(nic, link) if veth else {})
            plans.append((nic, records.settings(features, link), wanted))
        self._watch()
        here = records.namespace()
        for nic, now, wanted in plans:
            ifindex = socket.if_nametoindex(nic)
            path = records.path_of(self._folder, here.inode, ifindex)
            record = records.read(path, here, ifindex)
            made = changes(now, wanted, record.changes if record else {})
            if made:
                write(self._folder, records.Record(here, ifindex, nic, made))
            records.change(nic, now, wanted)
        return {nic: wanted for nic, _, wanted in plans}

    def _watch(self) -> None:
        """Start what puts back when this process is killed; it can be killed itself, of course."""
        if self._guard is not None and self._guard.poll() is None:
            return
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", sys.executable, "-B", records.__file__, self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def restore(self) -> None:
        """Put everything back. What cannot be, stays recorded for `bench clean`."""
        self._how = ""
        if self._lock is None:
            return
        until = time.monotonic() + _RESTORE_LIMIT_S
        # A veth gets its segmentation offload back a moment after its peer's XDP program has gone.
        while records.left(self._folder) and time.monotonic() < until:
            with contextlib.suppress(OSError):
                records.put_back(self._folder)
            if records.left(self._folder):
                time.sleep(0.05)
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        self._lock.close()
        self._lock = None


def answer(offloads: Offloads | None, message: Message) -> Message:
    """Answer an agent's line that says what to `use`. Raises HopError."""
    how = config.choice(message, "use", config.OFFLOADS, "")
    config.nothing_else(message)
    if offloads is None:
        raise HopError("the agent was not told its place yet")
    return {"event": "ready", "offloads": offloads.use(how)}


def _facts(nic: str, wanted: Mapping[str, int]) -> dict[str, object]:
    """Return what a NIC does. Raises HopError unless that is what was wanted."""
    features, link = records.features(nic), records.link(nic)
    on = [name for name, feature in features.items() if name in wanted and feature.on]
    if on:
        raise HopError(f"{on[0]} of {nic} stays on", _REMEDY)
    sizes = {name: link[name] for name in records.SIZES if name in link}
    for name, size in sizes.items():
        if size != wanted.get(name, size):
            raise HopError(f"{name} of {nic} stays at {size}", _REMEDY)
    states = {name: "on" if feature.on else "off" for name, feature in features.items()}
    return {**states, **sizes, "mtu": link["mtu"]}
