# SPDX-License-Identifier: Apache-2.0
"""Which host keys are known for a host: known_hosts files as sshd(8) describes them."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_CHECK_LIMIT_S = 10
_KRL = b"SSHKRL\n\0"  # OpenSSH's PROTOCOL.krl
# Types of keys, each with the algorithms that a host may prove them by, best first.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


@dataclass(frozen=True)
class Known:
    """What known_hosts says of one host: (type, key as bytes) pairs.

    authority: some certificate authority is trusted for it; certificates are not checked here.
    """

    keys: frozenset[tuple[str, bytes]]
    revoked: frozenset[bytes]
    authority: bool

    def algorithms(self, offered: Iterable[str]) -> tuple[str, ...]:
        """Return the algorithms that are offered, those first by which a known key is proven."""
        usable = tuple(offered)
        first = [
            algorithm
            for type_, _ in sorted(self.keys)
            for algorithm in _ALGORITHMS.get(type_, (type_,))
            if algorithm in usable
        ]
        return tuple(dict.fromkeys([*first, *usable]))

    def fault(self, type_: str, key: bytes) -> str | None:
        """Return what keeps a host's key from being trusted: `revoked`, `changed`, `authority`,
        `unknown`; None for a key that is known."""
        if key in self.revoked:
            return "revoked"
        if (type_, key) in self.keys:
            return None
        if any(type_ == each for each, _ in self.keys):
            return "changed"
        return "authority" if self.authority and not self.keys else "unknown"


def known(files: Iterable[Path], names: Sequence[str]) -> Known:
    """Read what files say of a host. The first of its names that has keys is the one that counts.

    Files that are not there, and lines that make no sense, are passed over, as ssh does.
    """
    lines = [line for file in files for line in _lines(file)]
    found = Known(frozenset(), frozenset(), False)
    for name in names:
        mine = [line for line in lines if _matches(line.names, name)]
        found = Known(
            found.keys or frozenset((each.type, each.key) for each in mine if not each.marker),
            found.revoked | {each.key for each in mine if each.marker == "@revoked"},
            found.authority or any(each.marker == "@cert-authority" for each in mine),
        )
    return found


@dataclass(frozen=True)
class _Line:
    marker: str
    names: str
    type: str
    key: bytes


def _lines(file: Path) -> Iterator[_Line]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) < 3:
            continue
        try:
            key = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        yield _Line(marker, words[0], words[1], key)


def _matches(names: str, name: str) -> bool:
    """Say whether a line's first field means a host."""
    if names.startswith("|1|"):
        _, _, salt, digest, *_ = [*names.split("|"), "", ""]
        try:
            mac = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
            return hmac.compare_digest(mac, base64.b64decode(digest))
        except binascii.Error:
            return False
    meant = False
    for each in names.split(","):
        pattern = re.sub(r"([\[\]])", r"[\1]", each.removeprefix("!").lower())
        if fnmatch.fnmatchcase(name.lower(), pattern):
            if each.startswith("!"):
                return False
            meant = True
    return meant


def is_revoked(file: Path, type_: str, key: bytes) -> bool:
    """Say whether a file of revoked keys has this one; as ssh, yes if it cannot be read.

    It is a list as in authorized_keys, or what only ssh-keygen can read.
    """
    text = base64.b64encode(key).decode()
    try:
        content = file.read_bytes()
    except OSError:
        return True
    if not content.startswith(_KRL):
        return any(text.encode() in line.split() for line in content.splitlines())
    with tempfile.NamedTemporaryFile("w", suffix=".pub") as public:
        public.write(f"{type_} {text}\n")
        public.flush()
        try:
            done = subprocess.run(
                ["ssh-keygen", "-Q", "-f", str(file), public.name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_CHECK_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return True
    return done.returncode != 0


def fingerprint(key: bytes) -> str:
    """Return a key's fingerprint as ssh prints it."""
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"
