# SPDX-License-Identifier: Apache-2.0
"""A copy of this checkout, for tests that work in one of their own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[1]


def copy_checkout(folder: Path) -> None:
    """Copy what git would clone, with what is not committed yet."""
    listed = subprocess.run(
        ["git", "-C", _REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (_REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_REPOSITORY / name, folder / name)
