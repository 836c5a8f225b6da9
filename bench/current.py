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
        _file().write_text(f"{inventory.resolve()}\n")
    except OSError as error:
        raise BenchError(f"{_file()} cannot be written: {error.strerror}") from None


def recall() -> Path | None:
    """Return the current inventory, or None. Raises BenchError when its file is gone."""
    try:
        path = Path(_file().read_text().strip())
    except OSError:
        return None
    if not path.exists():
        raise BenchError(
            f"the inventory deployed last, {path}, is gone",
            remedy="give another with -i, or forget it with bench clean",
        )
    return path


def forget(inventory: Path | None = None) -> None:
    """Forget the current inventory; if one is given, only when that is the current one."""
    with contextlib.suppress(OSError):
        if inventory is None or Path(_file().read_text().strip()) == inventory.resolve():
            _file().unlink()
