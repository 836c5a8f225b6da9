# SPDX-License-Identifier: Apache-2.0
"""Where the project's own files are, in a checkout and in an installed package."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """Return the folder `ansible`, `bpf` or `inventories`, from the checkout or the wheel."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def hop_package() -> Path:
    """Return the folder of the agent that is copied to hosts."""
    return _PACKAGE / "hop"


def runtime_dir() -> Path:
    """Return the folder that holds running labs: root's own, gone after a reboot."""
    return Path("/run/hopbench")


def chain_dirs() -> tuple[Path, Path]:
    """Return where `vagrant up` and containers/chain.sh describe the chains that they made."""
    return Path.cwd() / ".vagrant" / "hopbench", Path.cwd() / ".containers"


def state_dir() -> Path:
    """Return the user's folder for what outlives a command (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "hopbench"


def results_dir() -> Path:
    """Return the default folder of runs: `results` below the working directory."""
    return Path.cwd() / "results"
