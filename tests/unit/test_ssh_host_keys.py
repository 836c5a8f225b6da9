# SPDX-License-Identifier: Apache-2.0
"""Which host keys are trusted: known_hosts files that ssh-keygen made, or could have."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import host_keys


@dataclass(frozen=True)
class Key:
    """A public key: as in a file, and as it comes over the wire."""

    path: Path

    @property
    def words(self) -> tuple[str, str]:
        type_, text, *_ = self.path.read_text().split()
        return type_, text

    @property
    def line(self) -> str:
        return " ".join(self.words)

    @property
    def wire(self) -> tuple[str, bytes]:
        return self.words[0], base64.b64decode(self.words[1])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Key]:
    """Real keys: ed25519 a and b, ecdsa, rsa."""
    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for name, words in {
        "a": ["-t", "ed25519"],
        "b": ["-t", "ed25519"],
        "ecdsa": ["-t", "ecdsa"],
        "rsa": ["-t", "rsa", "-b", "2048"],
    }.items():
        file = folder / name
        command = ["ssh-keygen", "-q", *words, "-N", "", "-f", str(file)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
        made[name] = Key(Path(f"{file}.pub"))
    return made


NAME = ("bravo",)
PORT = ("[bravo]:2222", "bravo")


@pytest.mark.parametrize(
    ("text", "names", "fault"),
    [
        ("bravo {a}", NAME, None),
        ("bravo {a} with a comment", NAME, None),
        ("bravo\t{a}", NAME, None),
        ("alpha,bravo,charlie {a}", NAME, None),
        ("BRAVO {a}", NAME, None),
        ("br* {a}", NAME, None),
        ("brav? {a}", NAME, None),
        ("*,!bravo {a}", NAME, "unknown"),
        ("bravo {b}", NAME, "changed"),
        ("bravo {b}\nbravo {a}", NAME, None),
        ("bravo {rsa}", NAME, "unknown"),
        ("", NAME, "unknown"),
        ("# bravo {a}", NAME, "unknown"),
        ("other {a}", NAME, "unknown"),
        ("[bravo]:2222 {a}", NAME, "unknown"),
        ("[bravo]:2222 {a}", PORT, None),
        ("bravo {a}", PORT, None),
        ("[bravo]:2222 {b}\nbravo {a}", PORT, "changed"),
        ("[bravo]:* {a}", PORT, None),
        ("@revoked bravo {a}", NAME, "revoked"),
        ("@revoked * {a}\nbravo {a}", NAME, "revoked"),
        ("bravo {a}\n@revoked bravo {a}", NAME, "revoked"),
        ("@revoked bravo {b}\nbravo {a}", NAME, None),
        ("@revoked bravo {a}", PORT, "revoked"),
        ("@cert-authority *.example,bravo {b}", NAME, "authority"),
        ("@cert-authority bravo {a}", NAME, "authority"),
        ("@cert-authority bravo {b}\nbravo {a}", NAME, None),
        ("@something bravo {a}", NAME, "unknown"),
        ("garbage", NAME, "unknown"),
        ("bravo ssh-ed25519 not-base64", NAME, "unknown"),
        ("bravo ssh-ed25519", NAME, "unknown"),
        ("|1|nonsense {a}", NAME, "unknown"),
        ("|1|bm9uc2Vuc2U=|bm9uc2Vuc2U= {a}", NAME, "unknown"),
        ("b[r]avo {a}", NAME, "unknown"),
    ],
)
def test_lines(
    tmp_path: Path, keys: dict[str, Key], text: str, names: tuple[str, ...], fault: str | None
) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(text.format(**{name: key.line for name, key in keys.items()}) + "\n")
    known = host_keys.known([tmp_path / "absent", file], names)
    assert known.fault(*keys["a"].wire) == fault


@pytest.mark.parametrize("name", ["bravo", "[bravo]:2222", "2001:db8::1"])
def test_hashed_by_ssh_keygen(tmp_path: Path, keys: dict[str, Key], name: str) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{name} {keys['a'].line}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert file.read_text().startswith("|1|")
    assert host_keys.known([file], [name]).fault(*keys["a"].wire) is None
    assert host_keys.known([file], [name]).fault(*keys["b"].wire) == "changed"
    assert host_keys.known([file], ["other"]).fault(*keys["a"].wire) == "unknown"


def test_files_that_cannot_be_read(tmp_path: Path, keys: dict[str, Key]) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\x00bravo \xfe")
    known = host_keys.known([tmp_path, tmp_path / "binary", Path("/dev/null")], NAME)
    assert known.fault(*keys["a"].wire) == "unknown"


OFFERED = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")


@pytest.mark.parametrize(
    ("known", "order"),
    [
        ((), OFFERED),
        (("rsa",), ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519", "ecdsa-sha2-nistp256")),
        (("ecdsa",), ("ecdsa-sha2-nistp256", "ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")),
    ],
)
def test_a_host_is_asked_for_the_key_that_is_known(
    tmp_path: Path, keys: dict[str, Key], known: tuple[str, ...], order: tuple[str, ...]
) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("".join(f"bravo {keys[name].line}\n" for name in known))
    assert host_keys.known([file], NAME).algorithms(OFFERED) == order


def test_a_list_of_revoked_keys(tmp_path: Path, keys: dict[str, Key]) -> None:
    """Both kinds that RevokedHostKeys may name, and files of which ssh makes nothing."""
    krl, text, garbage = (tmp_path / name for name in ("krl", "text", "garbage"))
    subprocess.run(
        ["ssh-keygen", "-k", "-f", str(krl), str(keys["a"].path)], check=True, capture_output=True
    )
    text.write_text(keys["a"].line + "\n")
    garbage.write_bytes(b"SSHKRL\n\0garbage")
    for file in (krl, text):
        assert host_keys.is_revoked(file, *keys["a"].wire)
        assert not host_keys.is_revoked(file, *keys["b"].wire)
    assert host_keys.is_revoked(garbage, *keys["b"].wire)
    assert host_keys.is_revoked(tmp_path / "absent", *keys["b"].wire)


def test_a_fingerprint_is_as_ssh_says_it(keys: dict[str, Key]) -> None:
    said = subprocess.run(
        ["ssh-keygen", "-lf", str(keys["a"].path)], check=True, capture_output=True, text=True
    ).stdout
    assert host_keys.fingerprint(keys["a"].wire[1]) in said.split()
