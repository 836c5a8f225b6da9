# SPDX-License-Identifier: Apache-2.0
"""Put back the offloads of NICs that an agent changed. Self-contained: runs without a deploy.

All else that an agent sets up ends with it; what a NIC does for the stack is the kernel's to keep.
So an agent writes down what it was before it changes it (offloads.py). What these records say is
put back by the agent, by a guard that outlives it, or by `bench clean`: each of them by this file.

`python3 offload_records.py [FOLDER]` prints a JSON list of what was removed; empty when there was
nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Root's own, and gone after a reboot, as the offloads are. Not below /run/hopbench, where any name
# may be a lab's.
RECORDS = "/run/hopbench-offloads"
# What may be turned off, by the name that `ethtool -k` prints, and the one that `ethtool -K` takes.
FEATURES = {
    "tx-tcp-segmentation": "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation": "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation": "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation": "tx-tcp6-segmentation",
    "tx-tcp-accecn-segmentation": "tx-tcp-accecn-segmentation",
    "tx-udp-segmentation": "tx-udp-segmentation",
    "generic-segmentation-offload": "gso",
    "generic-receive-offload": "gro",
    "rx-gro-hw": "rx-gro-hw",
    "rx-gro-list": "rx-gro-list",
    "large-receive-offload": "lro",
}
# What may be bounded: how much GRO merges into one packet, by the names of `ip link`.
SIZES = ("gro_max_size", "gro_ipv4_max_size")
# Up to here the first of them is also given to the second (netif_set_gro_max_size, net/core/dev.c).
_LEGACY_SIZE = 65536

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FEATURE = re.compile(r"^\s*([\w-]+): (on|off)(?: \[(.+)\])?$", re.MULTILINE)
_NAME = re.compile(r"([0-9]{1,20})\.([0-9]{1,10})\.(?:json|new)")
_NETNS = re.compile(r"net:\[(\d+)\]")
_LOCK = "\0hopbench-offloads"
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h


# What a NIC does for the stack


@dataclass(frozen=True)
class Feature:
    """Whether a feature of a NIC may be changed, is asked for, and is on.

    It is asked for and yet off as long as another one is off that it needs.
    """

    changeable: bool
    wanted: bool
    on: bool


def _run(*argv: str, check: bool = True) -> str:
    program = shutil.which(argv[0], path=_PATH)
    if program is None:
        raise OSError(f"{argv[0]} is not installed")
    env = {"PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [program, *argv[1:]], capture_output=True, timeout=10, check=False, env=env
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{' '.join(argv)} does not end") from None
    if check and done.returncode:
        raise OSError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


def parse_features(text: str) -> dict[str, Feature]:
    """Return those of FEATURES that the output of `ethtool -k` has."""
    found = {}
    for name, state, remark in _FEATURE.findall(text):
        if name in FEATURES:
            wanted = remark.removeprefix("requested ") if remark.startswith("requested ") else state
            found[name] = Feature(remark != "fixed", wanted == "on", state == "on")
    return found


def features(nic: str) -> dict[str, Feature]:
    """Return those of FEATURES that this kernel knows. Raises OSError."""
    return parse_features(_run("ethtool", "-k", nic))


def link(nic: str) -> dict[str, Any]:
    """Return what `ip` says of a NIC. Raises OSError."""
    said = _run("ip", "-json", "-details", "link", "show", "dev", nic)
    try:
        return dict(json.loads(said)[0])
    except (ValueError, LookupError, TypeError):
        raise OSError(f"ip says nothing of {nic}") from None


def settings(features: Mapping[str, Feature], link: Mapping[str, Any]) -> dict[str, int]:
    """Return which FEATURES are asked for, 1 or 0, and what SIZES are, in bytes."""
    sizes = {name: int(link[name]) for name in SIZES if name in link}
    return {name: int(feature.wanted) for name, feature in features.items()} | sizes


def change(nic: str, now: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Change some of a NIC's settings, which are `now`. Raises OSError.

    A feature that cannot be changed stays as it is: ask again to know.
    """
    words = []
    for name, short in FEATURES.items():
        if name in wanted:
            words += [short, "on" if wanted[name] else "off"]
    if words:
        # It fails, too, where what is now asked for has no effect yet.
        _run("ethtool", "-K", nic, *words, check=False)
    sizes = {name: wanted.get(name, now[name]) for name in SIZES if name in now}
    if not wanted.keys() & sizes.keys():
        return
    if len(sizes) == 1 and sizes["gro_max_size"] > _LEGACY_SIZE:
        # This `ip` has no word for IPv4's size, which can only follow the other one.
        _run("ip", "link", "set", "dev", nic, "gro_max_size", str(_LEGACY_SIZE))
    pairs = [word for name, size in sizes.items() for word in (name, str(size))]
    _run("ip", "link", "set", "dev", nic, *pairs)


# What it was before


@dataclass(frozen=True)
class Namespace:
    """A network namespace. When it has gone, another may get its inode, but not its cookie."""

    boot_id: str
    inode: int
    cookie: int


@dataclass(frozen=True)
class Record:
    """What an agent changed of a NIC. changes: {setting: (before, what it made of it)}.

    nic: its name then; the ifindex is what counts.
    """

    namespace: Namespace
    ifindex: int
    nic: str
    changes: Mapping[str, tuple[int, int]]


def namespace() -> Namespace:
    """Return where this process is. cookie: 0 before Linux 5.14."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot_id = file.read().strip()
    cookie = b""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        cookie = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    inode = os.stat("/proc/self/ns/net").st_ino
    return Namespace(boot_id, inode, int.from_bytes(cookie, sys.byteorder))


def path_of(folder: str, inode: int, ifindex: int) -> str:
    """Return where the record of a NIC in the namespace of an inode belongs."""
    return os.path.join(folder, f"{inode}.{ifindex}.json")


def decode(text: str) -> Record | None:
    """Return the record that a text is, None when it is not one."""
    try:
        found = json.loads(text)
        changes = {
            name: (_whole(each["before"], name), _whole(each["set"], name))
            for name, each in found["changes"].items()
        }
        where = Namespace(str(found["boot_id"]), _whole(found["inode"]), _whole(found["cookie"]))
        return Record(where, _whole(found["ifindex"]), str(found["nic"]), changes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _whole(value: object, name: str = "") -> int:
    most = 1 if name in FEATURES else (1 << 32) - 1 if name in SIZES else (1 << 64) - 1
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name}: {value!r}")
    return value


def read(path: str, here: Namespace, ifindex: int) -> Record | None:
    """Return the record of a NIC that is here now; None when the file is no such record."""
    try:
        with open(path, errors="replace") as file:
            record = decode(file.read(1 << 16))
    except OSError:
        return None
    ours = record is not None and (record.namespace, record.ifindex) == (here, ifindex)
    return record if ours else None


def lock(limit_s: float = 3.0) -> socket.socket | None:
    """Be the only one to change offloads here, while the socket is open; None if another one is.

    The name that it is bound to exists once in a network namespace, and as long as its holder.
    """
    until = time.monotonic() + limit_s
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        try:
            sock.bind(_LOCK)
        except OSError:
            if time.monotonic() > until:
                sock.close()
                return None
            time.sleep(0.02)
        else:
            return sock


def _put_back(nic: str, record: Record) -> tuple[bool, bool]:
    """Return whether anything was changed, and whether all is now as it should be."""
    now = settings(features(nic), link(nic))
    wanted = {name: each[0] for name, each in record.changes.items() if now.get(name) == each[1]}
    if not wanted:
        return False, True
    change(nic, now, wanted)
    after = settings(features(nic), link(nic))
    return after != now, all(after[name] == value for name, value in wanted.items())


def put_back(folder: str = RECORDS) -> list[str]:
    """Put back what the records of this namespace say, and say of which NICs. Needs the lock.

    Only what still is as an agent made it: whoever changed it since has the last word. A record
    stays as long as something of it cannot be put back. Raises OSError, after all were tried.
    """
    here = namespace()
    done, failure = [], None
    for inode, ifindex, name in _names(folder):
        if inode != here.inode:
            continue
        path, nic, complete = os.path.join(folder, name), "", True
        record = read(path, here, ifindex)
        try:
            with contextlib.suppress(OSError):
                nic = socket.if_indextoname(ifindex)
            if record is None or not nic:
                done.append(f"record of offloads {name}, which says nothing of a NIC here")
            else:
                changed, complete = _put_back(nic, record)
                done += [f"offload settings of {nic}"] if changed else []
            if complete:
                _unlink(path)
        except OSError as error:
            failure = error
    with contextlib.suppress(OSError):
        os.rmdir(folder)
    if failure:
        raise failure
    return done


def left(folder: str = RECORDS) -> bool:
    """Is there a record of this namespace?"""
    here = namespace()
    with contextlib.suppress(OSError):
        return any(inode == here.inode for inode, _, _ in _names(folder))
    return False


def require_own(folder: str) -> None:
    """Raise OSError for a folder of records in which anybody else may have written them."""
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(folder)
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if not own or found.st_mode & 0o022:
            raise OSError(f"{folder} is not a folder of root's alone: remove it")


def _names(folder: str) -> list[tuple[int, int, str]]:
    """Return (inode of a namespace, ifindex, name) of the files in a folder of records."""
    require_own(folder)
    names: Iterable[str] = ()
    with contextlib.suppress(FileNotFoundError):
        names = sorted(os.listdir(folder))
    matches = [match for match in map(_NAME.fullmatch, names) if match]
    return [(int(match[1]), int(match[2]), match[0]) for match in matches]


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _live() -> set[int]:
    """Return the inodes of the network namespaces that a process is in, or that are mounted."""
    found, mounts = set(), set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found.add(os.stat(f"/proc/{pid}/ns/net").st_ino)
            inode = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if inode not in mounts:
                with open(f"/proc/{pid}/mountinfo", errors="replace") as file:
                    found |= {int(each) for each in _NETNS.findall(file.read())}
                mounts.add(inode)
    return found


def remove_stale(folder: str = RECORDS) -> list[str]:
    """Remove the records of namespaces that have gone, and say which."""
    names = _names(folder)
    live = _live() if names else set()
    done = []
    for inode, _, name in names:
        if inode not in live:
            _unlink(os.path.join(folder, name))
            done.append(f"record of offloads {name}, whose network namespace is gone")
    with contextlib.suppress(OSError):
        os.rmdir(folder)
    return done


def main(argv: list[str]) -> int:
    """Put back, and print what that was of. argv: the folder of records, if it is another."""
    folder = argv[0] if argv else RECORDS
    held = lock()
    try:
        # An agent that is alive puts back its own.
        done = put_back(folder) if held else []
        done += remove_stale(folder)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(done))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
