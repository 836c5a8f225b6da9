# SPDX-License-Identifier: Apache-2.0
"""Which inventory was deployed last: what commands use when none is given."""

from __future__ import annotations

import contextlib
from pathlib import Path

from bench import paths
from bench.errors import BenchError


def _file() -> Path:
    return paths.state_dir() / "inventory"


def remember(inventory: Path) -> None:
    """Make an inventory the current one."""
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        _file().write_text(f"{inventory.resolve()}\n", errors="surrogateescape")
    except OSError as error:
        raise BenchError(f"{_file()} cannot be written: {error.strerror}") from None


def recall() -> Path | None:
    """Return the current inventory, or None. Raises BenchError when its file is gone."""
    path = _read()
    if path is not None and not _exists(path):
        raise BenchError(
            f"the inventory deployed last, {path}, is gone",
            remedy="give another with -i, or forget it with bench clean",
        )
    return path


def forget(inventory: Path | None = None) -> None:
    """Forget the current inventory; if one is given, only when that is the current one."""
    with contextlib.suppress(OSError):
        if inventory is None or _read() == inventory.resolve():
            _file().unlink()


def _read() -> Path | None:
    """Return what the file names; None without one, or for one that a crash left empty."""
    try:
        text = _file().read_text(errors="surrogateescape").strip()
    except OSError:
        return None
    return Path(text) if text else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder nobody may enter
        return False
