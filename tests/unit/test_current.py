# SPDX-License-Identifier: Apache-2.0
"""The inventory that was deployed last: remembered, recalled, forgotten, damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import current, paths
from bench.errors import BenchError
from bench.inventory import find


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a working directory and a memory of its own."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "hopbench"


def test_the_current_inventory(state: Path) -> None:
    first, second = Path("first.ini").resolve(), Path("second.ini").resolve()
    for path in (first, second):
        path.write_text("")
    assert current.recall() is None
    current.forget()
    current.remember(Path("first.ini"))
    assert current.recall() == first
    current.remember(second)
    assert current.recall() == second
    # Another's undeploy does not touch it.
    current.forget(first)
    assert current.recall() == second
    current.forget(Path("second.ini"))
    assert current.recall() is None
    current.remember(first)
    current.forget()
    assert current.recall() is None
    assert list(state.iterdir()) == []


def test_an_inventory_that_is_gone() -> None:
    path = Path("gone.ini")
    path.write_text("")
    current.remember(path)
    path.unlink()
    with pytest.raises(BenchError) as caught:
        current.recall()
    assert caught.value.one_line() == (
        f"the inventory deployed last, {path.resolve()}, is gone "
        "(give another with -i, or forget it with bench clean)"
    )
    with pytest.raises(BenchError, match="is gone"):
        find(None)
    current.forget()
    assert current.recall() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\0", b"\xff\xfe", b"/x\0y\n", b"x" * 5_000, b"a\nb\n"],
)
def test_a_memory_that_is_damaged(state: Path, content: bytes) -> None:
    state.mkdir(parents=True)
    (state / "inventory").write_bytes(content)
    try:
        assert current.recall() is None
    except BenchError as error:
        assert "is gone" in error.one_line()
    current.forget(Path("other.ini"))
    current.forget()
    assert current.recall() is None


def test_a_memory_that_cannot_be_written(state: Path) -> None:
    state.parent.mkdir()
    state.write_text("a file in the way")
    with pytest.raises(BenchError, match="inventory cannot be written: "):
        current.remember(Path("first.ini"))
    assert current.recall() is None
    current.forget()


@pytest.mark.parametrize(
    ("variable", "folder"),
    [("/elsewhere", "/elsewhere/hopbench"), ("", "{home}/.local/state/hopbench")],
)
def test_where_it_is_remembered(
    monkeypatch: pytest.MonkeyPatch, variable: str, folder: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", variable)
    monkeypatch.setenv("HOME", "/a/home")
    assert str(paths.state_dir()) == folder.replace("{home}", "/a/home")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert str(paths.state_dir()) == "/a/home/.local/state/hopbench"
