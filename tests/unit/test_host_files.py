# SPDX-License-Identifier: Apache-2.0
"""What a deploy puts on a host's disk: the sources and the payloads, mended but not rewritten."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from synthetic import tree

from bench import paths
from bench.cells import PAYLOAD_SIZES
from bench.hop import payloads

ANSIBLE = paths.data_dir("ansible")
INSTALL_TREE = ANSIBLE / "roles" / "common" / "files" / "install_tree.py"

# The sources on a host


def imported(path: Path) -> ModuleType:
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install_tree = imported(INSTALL_TREE)
TREES = {"hop": {"a.py": "a = 1\n", "deep/er/b.py": "b = 'ö'\n"}, "bpf": {"c.h": "int c;\n"}}
FILES = {
    "hop/a.py": b"a = 1\n",
    "hop/deep/er/b.py": "b = 'ö'\n".encode(),
    "bpf/c.h": b"int c;\n",
}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="install_tree.py gives its files to root")


def install(root: Path, *, check: bool = False) -> list[str]:
    """Install TREES and a folder for payloads; return what changed, relative to root."""
    changed: list[str] = install_tree.install(root, TREES, ["payloads"], check=check)
    return [os.path.relpath(path, root) for path in changed]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder in which everything is in place."""
    root = tmp_path / "opt"
    assert sorted(install(root)) == sorted(
        [".", "payloads", "hop", "hop/deep", "hop/deep/er", "bpf", *FILES]
    )
    assert tree(root) == FILES
    assert (root / "payloads").is_dir()
    return root


@as_root
def test_a_second_install_changes_nothing(installed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in installed.rglob("*")}
    assert install(installed) == []
    assert {path: path.stat().st_mtime_ns for path in installed.rglob("*")} == before
    assert {oct(path.stat().st_mode & 0o7777) for path in installed.rglob("*.*")} == {"0o644"}


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def damage(path: Path) -> None:
    """Change a byte and keep the size."""
    path.write_bytes(b"X" + path.read_bytes()[1:])


def shorten(path: Path) -> None:
    """Leave nothing in a file."""
    path.write_bytes(b"")


def open_up(path: Path) -> None:
    """Let everybody write."""
    path.chmod(0o666)


def give_away(path: Path) -> None:
    """Give a file to another user."""
    os.chown(path, 65534, 65534)


def link(path: Path) -> None:
    """Put a link to a file of the same content in its place."""
    other = path.with_name("moved.py")
    path.rename(other)
    path.symlink_to(other)


def folder(path: Path) -> None:
    """Put a folder in a file's place."""
    path.unlink()
    path.mkdir()
    (path / "inner").write_text("x")


@as_root
@pytest.mark.parametrize(
    "spoil", [remove, damage, shorten, open_up, give_away, link, folder], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("name", list(FILES))
def test_a_file_is_mended(installed: Path, spoil: Any, name: str) -> None:
    spoil(installed / name)
    spoiled = tree(installed)
    told = install(installed, check=True)
    assert name in told
    assert tree(installed) == spoiled
    assert name in install(installed)
    assert tree(installed) == FILES
    assert not (installed / name).is_symlink()
    assert install(installed) == []


@as_root
@pytest.mark.parametrize(
    ("stale", "reported"),
    [
        ("hop/old.py", ["hop/old.py"]),
        ("hop/old/er/x.py", ["hop/old/er/x.py", "hop/old/er", "hop/old"]),
        ("hop/deep/.a.py.tmp123", ["hop/deep/.a.py.tmp123"]),
        ("bpf/a b\nc.h", ["bpf/a b\nc.h"]),
    ],
)
def test_what_is_stale_goes(installed: Path, stale: str, reported: list[str]) -> None:
    path = installed / stale
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("old")
    assert install(installed, check=True) == reported
    assert path.exists()
    assert install(installed) == reported
    assert tree(installed) == FILES
    assert install(installed) == []


@as_root
def test_a_stale_link_goes_and_not_what_it_leads_to(installed: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.py").write_text("mine")
    (installed / "hop" / "link").symlink_to(outside)
    assert install(installed) == ["hop/link"]
    assert (outside / "mine.py").read_text() == "mine"


@as_root
@pytest.mark.parametrize("place", ["hop", "hop/deep", "payloads"])
def test_a_folder_is_mended(installed: Path, tmp_path: Path, place: str) -> None:
    (installed / place).rename(tmp_path / "moved")
    (installed / place).symlink_to(tmp_path / "moved")
    assert place in install(installed, check=True)
    assert (installed / place).is_symlink()
    install(installed)
    assert not (installed / place).is_symlink()
    assert tree(installed) == FILES
    (installed / place).chmod(0o777)
    assert install(installed) == [place]
    assert (installed / place).stat().st_mode & 0o7777 == 0o755


@as_root
def test_caches_count_for_nothing_until_something_changes(installed: Path) -> None:
    cache = installed / "hop" / "deep" / "__pycache__"
    cache.mkdir()
    (cache / "b.pyc").write_text("x")
    payload = installed / "payloads" / "1.bin"
    payload.write_text("kept")
    assert install(installed) == []
    assert cache.is_dir()
    damage(installed / "hop" / "a.py")
    assert install(installed) == ["hop/a.py"]
    assert not cache.exists()
    assert payload.read_text() == "kept"


@as_root
def test_a_check_of_nothing_writes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "opt"
    assert len(install(root, check=True)) == 9
    assert list(tmp_path.iterdir()) == []


def packed(trees: dict[str, dict[str, str]]) -> str:
    """Pack sources as the lookup plugin does."""
    return base64.b64encode(zlib.compress(json.dumps(trees).encode())).decode()


def run_install(*arguments: str, text: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a task does."""
    command = [sys.executable, "-I", str(INSTALL_TREE), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@as_root
def test_the_program(tmp_path: Path) -> None:
    root = str(tmp_path / "opt")
    text = packed({"hop": {"a.py": "a"}})
    everything = f"changed: {root} {root}/payloads {root}/hop {root}/hop/a.py\n"
    for arguments, output in (
        (["--check", root, "payloads"], everything),
        ([root, "payloads"], everything),
        ([root, "payloads"], "unchanged\n"),
        (["--check", root, "payloads"], "unchanged\n"),
    ):
        done = run_install(*arguments, text=text)
        assert (done.returncode, done.stdout, done.stderr) == (0, output, "")
    done = run_install("opt", text=text)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "not an absolute path: opt\n")


@pytest.mark.parametrize(
    "trees",
    [
        {"../x": {"a": ""}},
        {"/etc": {"a": ""}},
        {"hop": {"../../etc/a": ""}},
        {"hop": {"/etc/a": ""}},
        {"hop": {"a/../../../b": ""}},
    ],
)
def test_a_path_that_leads_out(tmp_path: Path, trees: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ValueError, match="path leaves its folder"):
        install_tree.unpack(packed(trees))
    root = tmp_path / "root"
    assert run_install(str(root), text=packed(trees)).returncode == 1
    assert not root.exists()


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    source_tree = imported(ANSIBLE / "lookup_plugins" / "source_tree.py")
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "hop" / "__pycache__").mkdir()
    (tmp_path / "hop" / "__pycache__" / "a.pyc").write_bytes(b"\0")
    (tmp_path / "hop" / "notes.txt").write_text("no source")
    suffixes = (".py", ".c", ".h")
    trees = {name: source_tree.read_tree(tmp_path / name, suffixes) for name in ("hop", "bpf")}
    assert trees == TREES
    text = source_tree.pack(trees)
    assert "\n" not in text
    assert text == source_tree.pack(dict(reversed(trees.items())))
    assert install_tree.unpack(text) == TREES


# The payloads


def test_payloads_are_made_and_then_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "payloads"
    assert payloads.ensure(place, check=True)
    assert list(tmp_path.iterdir()) == []
    assert payloads.ensure(place)
    before = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    assert not payloads.ensure(place)
    assert not payloads.ensure(place, check=True)
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == before
    assert sorted(path.name for path in before) == sorted(
        ["manifest.json", *(f"{size}.bin" for size in PAYLOAD_SIZES)]
    )
    manifest = json.loads((place / "manifest.json").read_text())["payloads"]
    assert [entry["size_bytes"] for entry in manifest] == list(PAYLOAD_SIZES)
    for entry in manifest:
        data = (place / entry["name"]).read_bytes()
        assert len(data) == entry["size_bytes"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        # Random enough that nothing on the way could make it shorter.
        assert len(zlib.compress(data)) >= len(data)


def test_payloads_are_the_same_everywhere() -> None:
    assert payloads.content(0) == b""
    assert payloads.content(40) == payloads.content(40)
    assert len({payloads.content(size)[:32] for size in payloads.SIZES_BYTES}) == 14
    digest = hashlib.sha256(payloads.content(312)).hexdigest()
    assert digest == "b7af8cacde823fda1dc2fb3d9211dbe70e7d7b0a25e30cd8c611e68f154dd60f"
    assert payloads.SIZES_BYTES == PAYLOAD_SIZES


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("312.bin", remove),
        ("312.bin", damage),
        ("312.bin", shorten),
        ("624.bin", open_up),
        ("manifest.json", damage),
        ("manifest.json", remove),
    ],
)
def test_a_payload_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, spoil: Any
) -> None:
    monkeypatch.setattr(payloads, "SIZES_BYTES", payloads.SIZES_BYTES[:3])
    assert payloads.ensure(tmp_path)
    good = tree(tmp_path)
    spoil(tmp_path / name)
    spoiled = tree(tmp_path)
    assert payloads.ensure(tmp_path, check=True)
    assert tree(tmp_path) == spoiled
    assert payloads.ensure(tmp_path)
    assert tree(tmp_path) == good
    assert not payloads.ensure(tmp_path)
    tmp_path.chmod(0o700)
    assert payloads.ensure(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o755


def test_a_linked_payload_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "SIZES_BYTES", payloads.SIZES_BYTES[:1])
    place = tmp_path / "payloads"
    payloads.ensure(place)
    (tmp_path / "other").write_bytes(payloads.content(312))
    (place / "312.bin").unlink()
    (place / "312.bin").symlink_to(tmp_path / "other")
    assert payloads.ensure(place)
    assert not (place / "312.bin").is_symlink()
    assert (tmp_path / "other").exists()


def test_the_payloads_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(payloads, "SIZES_BYTES", payloads.SIZES_BYTES[:1])
    place = str(tmp_path / "payloads")
    (tmp_path / "file").write_text("")
    for arguments, status, output in (
        (["--check", place], 0, "changed\n"),
        ([place], 0, "changed\n"),
        ([place], 0, "unchanged\n"),
        (["--check", place], 0, "unchanged\n"),
        ([], 2, ""),
        (["--check"], 2, ""),
        ([place, place], 2, ""),
        ([str(tmp_path / "file" / "below")], 1, ""),
        ([str(tmp_path / "file")], 1, ""),
    ):
        assert payloads.main(arguments) == status
        said = capsys.readouterr()
        assert said.out == output
        assert len(said.err.splitlines()) == (status != 0)
