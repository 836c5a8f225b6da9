# SPDX-License-Identifier: Apache-2.0
"""A program that is loaded from what was kept is the one that was compiled, or is compiled anew."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bench.hop import built, compiler, kernel
from bench.hop.program import FUNCTION, Constants, Nic

CONSTANTS = Constants(
    family=4, hop_ip="198.18.0.2", hop_port=7000, ports=(1024, 32767), data=Nic(1, 1)
)


def tag(fd: int) -> bytes:
    """Return the kernel's own digest of a program's instructions: bpf_prog_info's tag."""
    info, size = ctypes.create_string_buffer(80), ctypes.c_uint32(80)
    assert kernel.library().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)) == 0
    return info.raw[8:16]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What was compiled since, one entry each time."""
    done: list[object] = []
    compile_ = compiler._ask_child

    def ask(request: object, keep: object) -> object:
        done.append(request)
        return compile_(request, keep)  # type: ignore[arg-type]

    monkeypatch.setattr(compiler, "_ask_child", ask)
    yield done


def load(constants: Constants = CONSTANTS, first: int = 0) -> bytes:
    """Load the forwarder and return its tag. first: how many other descriptors are open before."""
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(first)]
    fds = compiler.load("forwarder.c", (FUNCTION,), constants.maps(), constants.defines())
    try:
        return tag(fds[FUNCTION])
    finally:
        for fd in (*fds.values(), *others):
            os.close(fd)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder with the forwarder in it, and the tag of that when it was compiled."""
    folder = tmp_path_factory.mktemp("kept") / "built"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "BUILT", folder)
        return folder, load()


def test_what_is_kept_is_what_was_compiled(
    kept: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch, compiled: list[object]
) -> None:
    folder, first = kept
    monkeypatch.setattr(compiler, "BUILT", folder)
    # Its maps are others this time, with other descriptors.
    assert load(first=7) == first
    assert compiled == []
    (file,) = folder.iterdir()
    assert (file.stat().st_mode | folder.stat().st_mode) & 0o077 == 0


def test_agents_that_start_together_compile_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: list[object]
) -> None:
    monkeypatch.setattr(compiler, "BUILT", tmp_path / "built")
    hops = [replace(CONSTANTS, hop_ip=f"198.18.0.{last}") for last in (2, 3, 4)]
    with ThreadPoolExecutor() as pool:
        assert len(set(pool.map(load, hops))) == 1
    assert len(compiled) == 1
    assert len(list((tmp_path / "built").iterdir())) == 1


def test_other_constants_are_another_program(
    kept: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch, compiled: list[object]
) -> None:
    folder, first = kept
    monkeypatch.setattr(compiler, "BUILT", folder)
    other = replace(CONSTANTS, hop_port=7001)
    assert load(other) == load(other) != first
    assert len(compiled) == 1


def _garbage(file: Path) -> None:
    file.write_bytes(os.urandom(1000))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def _other_map(file: Path) -> None:
    kept = json.loads(file.read_text())
    kept["maps"].popitem()
    file.write_text(json.dumps(kept))


def _not_a_program(file: Path) -> None:
    kept = json.loads(file.read_text())
    kept["code"] = dict.fromkeys(kept["code"], "AAAAAAAAAAA=")
    file.write_text(json.dumps(kept))


def _for_others(file: Path) -> None:
    file.parent.chmod(0o777)


@pytest.mark.parametrize("spoil", [_garbage, _cut, _other_map, _not_a_program, _for_others])
def test_what_is_spoilt_is_compiled_anew(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compiled: list[object],
    kept: tuple[Path, bytes],
    spoil: Callable[[Path], None],
) -> None:
    folder = tmp_path / "built"
    shutil.copytree(kept[0], folder)
    for file in folder.iterdir():
        spoil(file)
    monkeypatch.setattr(compiler, "BUILT", folder)
    open_ = len(list(Path("/proc/self/fd").iterdir()))
    assert load() == kept[1]
    assert len(compiled) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == open_


def test_a_folder_that_cannot_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compiled: list[object],
    kept: tuple[Path, bytes],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(compiler, "BUILT", tmp_path / "file" / "built")
    assert load() == kept[1]
    assert len(compiled) == 1


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built, "MOST", 3)
    folder = tmp_path / "built"
    request = {"functions": ["f"], "kind": "XDP", "defines": {"MAP_FD_flows": 3}}
    for number in range(5):
        built.keep(folder, f"{number}", request, {"f": ""})
        os.utime(folder / f"{number}", (number, number))
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3", "4"]


def test_a_changed_source_has_another_name(tmp_path: Path) -> None:
    request = {"source": "a.c", "functions": ["f"], "kind": "XDP", "defines": {"A": 1}}
    (tmp_path / "a.c").write_text("int f;")
    before = built.key(tmp_path, request)
    assert before == built.key(tmp_path, {**request, "defines": {"A": 1, "MAP_FD_a": 9}})
    assert before != built.key(tmp_path, {**request, "defines": {"A": 2}})
    (tmp_path / "a.h").write_text("")
    assert before != built.key(tmp_path, request)


def test_maps_alone_are_replaced() -> None:
    load_map = bytes([0x18, 0x11, 0, 0, 5, 0, 0, 0]) + bytes(8)
    number = bytes([0x18, 0x01, 0, 0, 5, 0, 0, 0]) + bytes(8)
    found = built._relocated(load_map + number, {"MAP_FD_a": 5}, {"MAP_FD_a": 77})
    assert found == load_map.replace(b"\x05", b"\x4d") + number
    for other in (load_map.replace(b"\x05", b"\x06"), bytes([0x85, 0x10, 0, 0, 1, 0, 0, 0])):
        with pytest.raises(ValueError, match="it "):
            built._relocated(other, {"MAP_FD_a": 5}, {"MAP_FD_a": 77})
